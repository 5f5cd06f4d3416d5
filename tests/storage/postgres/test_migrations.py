"""`migrate`: each file once, in its order, and never over something it does not know."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest
from tenure_server.errors import Unavailable
from tenure_server.storage.postgres import pool
from tenure_server.storage.postgres.checkpoints import PostgresCheckpoints
from tenure_server.storage.postgres.migrate import SCHEMA_VERSION, MigrationRefused, migrate, migrations

from tests.harness.databases import APP_PASSWORD, OPS_PASSWORD, Database, Postgres, PrivatePostgresFactory
from tests.storage.chunked import cut, put_edits, read
from tests.storage.postgres import older
from tests.storage.tenant import Tenant

NAMES = [migration.name for migration in migrations()]
_BEFORE_USAGE = 8
"""Number of the file before the one that gives each row its size, and so writes the tables anew."""


@pytest.fixture
def empty(postgres: Postgres, migrated: str) -> Iterator[Database]:
    """A database without our schema on a server that has our roles."""
    name = postgres.create_database()
    yield postgres.database(name)
    postgres.drop_database(name)


def _recorded(database: Database) -> list[str]:
    with psycopg.connect(database.admin_url) as admin:
        rows = admin.execute("SELECT name FROM tenure.schema_migration ORDER BY version").fetchall()
    return [name for (name,) in rows]


def _record_a_future_file(database: Database) -> None:
    with psycopg.connect(database.admin_url) as admin:
        admin.execute(
            "INSERT INTO tenure.schema_migration (version, name, checksum)"
            " VALUES (9999, '9999_future.sql', '')"
        )


async def _ready(url: str) -> None:
    database = await pool.Database.open(url, max_size=1)
    try:
        await database.ready()
    finally:
        await database.close()


def test_the_files_are_numbered_without_gaps_and_the_last_is_what_the_server_needs() -> None:
    versions = [migration.version for migration in migrations()]

    assert versions == list(range(1, SCHEMA_VERSION + 1))


async def test_a_fresh_database_gets_every_file_and_serves(empty: Database) -> None:
    assert await migrate(empty.admin_url) == NAMES

    assert _recorded(empty) == NAMES
    await _ready(empty.app_url)


async def test_a_second_migrate_applies_nothing(database: Database) -> None:
    assert await migrate(database.admin_url) == []

    assert _recorded(database) == NAMES


async def test_a_database_of_an_older_version_gets_what_it_lacks_and_keeps_its_data(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await older.migrate_to_it(empty, monkeypatch)
    opened = await pool.Database.open(empty.app_url, max_size=1)
    tenant = Tenant(PostgresCheckpoints(opened), await empty.tenants().create_tenant("older"))
    values = {"1": b"small", "2": b"large " * 5000}
    for version, data in values.items():
        older.write(empty, tenant, "t", version, version, data)
    files = _files_of_values(empty)

    with monkeypatch.context() as patch:
        before = migrations()[:_BEFORE_USAGE]
        patch.setattr("tenure_server.storage.postgres.migrate.migrations", lambda: before)
        assert await migrate(empty.admin_url) == NAMES[older.VERSION : _BEFORE_USAGE]
    assert _files_of_values(empty) == files, "the table was written anew"
    assert await migrate(empty.admin_url) == NAMES[_BEFORE_USAGE:]

    for version, data in values.items():
        assert await read(tenant, "t", version) == {"a": data}
    base = cut(b"a b")
    await tenant.write(put_edits("t", "3", "2", edits={"a": base.whole()}, versions={"a": "3"}))
    edit = cut(b"a b c").edit(base, "3")
    await tenant.write(put_edits("t", "4", "3", edits={"a": edit}, versions={"a": "4"}))
    await tenant.copy("t", "copy")
    assert await read(tenant, "copy", "2") == {"a": values["2"]}
    assert await read(tenant, "copy") == {"a": b"a b c "}
    await opened.close()


def _files_of_values(database: Database) -> object:
    with psycopg.connect(database.admin_url) as admin:
        return admin.execute(
            "SELECT relname, relfilenode FROM pg_class WHERE relname LIKE 'channel_value%' ORDER BY 1"
        ).fetchall()


async def test_a_file_that_was_changed_after_it_was_applied_is_refused(database: Database) -> None:
    with psycopg.connect(database.admin_url) as admin:
        admin.execute("UPDATE tenure.schema_migration SET checksum = 'another' WHERE version = 2")

    with pytest.raises(MigrationRefused, match=NAMES[1]):
        await migrate(database.admin_url)


async def test_a_database_that_is_newer_than_the_program_is_refused(database: Database) -> None:
    _record_a_future_file(database)

    with pytest.raises(MigrationRefused, match=r"9999_future\.sql"):
        await migrate(database.admin_url)


async def test_a_server_goes_on_with_a_newer_database(database: Database) -> None:
    _record_a_future_file(database)

    await _ready(database.app_url)


async def test_two_migrates_of_one_database_share_the_work(empty: Database) -> None:
    one, other = await asyncio.gather(migrate(empty.admin_url), migrate(empty.admin_url))

    assert sorted([one, other]) == [[], NAMES]
    assert _recorded(empty) == NAMES


async def test_databases_of_a_fresh_server_are_migrated_at_once(
    private_postgres: PrivatePostgresFactory,
) -> None:
    server = private_postgres()
    databases = [server.database(server.create_database()) for _ in range(3)]

    applied = await asyncio.gather(
        *(
            migrate(database.admin_url, app_password=APP_PASSWORD, ops_password=OPS_PASSWORD)
            for database in databases
        )
    )

    assert applied == [NAMES] * 3
    for database in databases:
        await _ready(database.app_url)


async def test_a_server_without_the_schema_is_not_ready_and_says_what_to_do(empty: Database) -> None:
    with pytest.raises(Unavailable, match="tenure migrate"):
        await _ready(empty.app_url)


async def test_a_server_with_an_older_schema_is_not_ready_and_says_what_to_do(database: Database) -> None:
    with psycopg.connect(database.admin_url) as admin:
        admin.execute("DELETE FROM tenure.schema_migration WHERE version = %s", [SCHEMA_VERSION])

    with pytest.raises(Unavailable, match="tenure migrate"):
        await _ready(database.app_url)


async def test_postgres_compiles_nothing_for_our_roles(
    private_postgres: PrivatePostgresFactory, caplog: pytest.LogCaptureFixture
) -> None:
    server = private_postgres()
    database = server.database(server.create_database())
    await migrate(database.admin_url, app_password=APP_PASSWORD, ops_password=OPS_PASSWORD)
    for url in (database.app_url, database.ops_url):
        with psycopg.connect(url) as connection:
            assert connection.execute("SHOW jit").fetchone() == ("off",)
    await _ready(database.app_url)
    assert "jit" not in caplog.text

    with psycopg.connect(database.admin_url) as admin:
        admin.execute("ALTER ROLE tenure_app SET jit = on")
    await migrate(database.admin_url)

    with psycopg.connect(database.app_url) as app:
        assert app.execute("SHOW jit").fetchone() == ("on",), "somebody wanted it so"
    await _ready(database.app_url)
    assert "ALTER ROLE tenure_app SET jit = off" in caplog.text


async def test_a_role_may_log_in_once_it_has_a_password_that_only_a_verifier_stands_for(
    private_postgres: PrivatePostgresFactory,
) -> None:
    server = private_postgres()
    database = server.database(server.create_database())
    await migrate(database.admin_url)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(database.app_url)

    await migrate(database.admin_url, app_password=APP_PASSWORD)

    with psycopg.connect(database.app_url) as app:
        assert app.execute("SELECT current_user").fetchone() == ("tenure_app",)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(database.ops_url)
    with psycopg.connect(database.admin_url) as admin:
        roles: dict[str, str | None] = dict(
            admin.execute(
                "SELECT rolname, rolpassword FROM pg_authid WHERE rolname LIKE 'tenure\\_%'"
            ).fetchall()
        )
    verifier = roles["tenure_app"]
    assert verifier is not None
    assert verifier.startswith("SCRAM-SHA-256$")
    assert APP_PASSWORD not in verifier
    assert (roles["tenure_owner"], roles["tenure_ops"]) == (None, None)
