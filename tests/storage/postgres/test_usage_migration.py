"""What a database of an older version holds is counted when it is brought up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from psycopg import AsyncConnection
from tenure_server.storage.memory import MemoryCheckpoints
from tenure_server.storage.postgres.migrate import migrate, migrations

from tests.harness.databases import Database, Postgres
from tests.storage.postgres import blocked_by, older
from tests.storage.tenant import Tenant
from tests.storage.usage import usage_of

_USAGE = 9
"""Number of the file from which on functions count."""


@pytest.fixture
def empty(postgres: Postgres, migrated: str) -> Iterator[Database]:
    """A database without our schema; the roles are there."""
    name = postgres.create_database()
    yield postgres.database(name)
    postgres.drop_database(name)


async def test_what_is_there_and_what_an_older_server_writes_meanwhile_is_counted(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await older.migrate_to_it(empty, monkeypatch)
    tenant = Tenant(MemoryCheckpoints(), await empty.tenants().create_tenant("older"))
    older.write(empty, tenant, "before", "1", "1", b"of 0.1.0")
    files = migrations()
    with monkeypatch.context() as patch:
        patch.setattr("tenure_server.storage.postgres.migrate.migrations", lambda: files[: _USAGE - 1])
        await migrate(empty.admin_url)

    usage_file = files[_USAGE - 1]
    async with await AsyncConnection.connect(empty.admin_url) as admin:
        await admin.execute("SET LOCAL ROLE tenure_owner")
        await admin.execute(usage_file.statements.encode())
        await admin.execute(
            "INSERT INTO tenure.schema_migration (version, name, checksum) VALUES (%s, %s, %s)",
            [usage_file.version, usage_file.name, usage_file.checksum()],
        )
        write = asyncio.create_task(
            asyncio.to_thread(older.write, empty, tenant, "meanwhile", "1", "1", b"of 0.1.0")
        )
        await blocked_by(admin, empty.admin_url)
    await write
    with usage_of(empty, tenant.id) as usage:
        assert usage.counted().threads == 0, "its function does not count"
        await migrate(empty.admin_url)
        assert usage.assert_exact().threads == 2
        older.write(empty, tenant, "after", "1", "1", b"of 0.1.0")
        assert usage.assert_exact().threads == 3
