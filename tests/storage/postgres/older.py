"""What 0.1.0 does with a database: its files, and its calls of the functions that newer servers have left."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from tenure_server.storage.postgres import migrate

from tests.harness.databases import Database
from tests.storage.tenant import Tenant

VERSION = 4
"""Number of its newest file."""

_WRITE = """
SELECT tenure.write_batch_1(
    %(tenant)s, 1000, true, ARRAY[%(thread)s], '{}', '{1}', '{""}', ARRAY[tenure.ns_hash_1('')],
    ARRAY[%(id)s], ARRAY[NULL]::text[], '{bytes}', '{body}', '{"{}"}', '{"{}"}', ARRAY[NULL]::text[], '{4}',
    ARRAY[jsonb_build_object('a', %(version)s::text)::text],
    '{1}', ARRAY[tenure.ns_hash_1('')], '{a}', ARRAY[%(version)s], '{bytes}', ARRAY[sha256(%(data)s)],
    ARRAY[%(data)s]::bytea[],
    '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}'
)
"""
READ_HEADS = """
SELECT v_channel, v_data FROM tenure.read_heads_1(
    %(tenant)s, ARRAY[%(thread)s], '{""}', ARRAY[tenure.ns_hash_1('')], ARRAY[NULL]::text[], 4096
)
"""
LIST_HEADS = """
SELECT v_channel, v_data FROM tenure.list_heads_1(
    %(tenant)s, %(thread)s, '', NULL, NULL, NULL, NULL, NULL, '{}', '{}', '{}', 100, 4096
)
"""
HISTORY = """
SELECT channel, data FROM tenure.channel_history_1(
    %(tenant)s, %(thread)s, '', tenure.ns_hash_1(''), NULL, '{a}'
)
"""
FIND_KEY = "SELECT digest FROM tenure.find_key_1(%(tenant)s, %(key_id)s)"
READS = {"heads": READ_HEADS, "listing": LIST_HEADS, "channel history": HISTORY}


async def migrate_to_it(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bring an empty database to the schema of 0.1.0."""
    files = migrate.migrations()[:VERSION]
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "migrations", lambda: files)
        await migrate.migrate(database.admin_url)


def write(database: Database, tenant: Tenant, thread: str, id: str, version: str, data: bytes) -> None:
    """Store a checkpoint whose channel "a" holds a value."""
    params = {"tenant": tenant.id, "thread": thread, "id": id, "version": version, "data": data}
    call(database, _WRITE, params)


def read(database: Database, tenant: Tenant, statement: str, thread: str) -> list[tuple[Any, ...]]:
    """Return the rows of one of `READS` for a thread."""
    return call(database, statement, {"tenant": tenant.id, "thread": thread})


def call(database: Database, statement: str, params: dict[str, object]) -> list[tuple[Any, ...]]:
    """Run a statement as the role that serves."""
    with psycopg.connect(database.app_url, autocommit=True) as app:
        return app.execute(statement.encode(), params).fetchall()
