"""Servers of 0.1.0 beside newer ones on one database: nothing is lost, and no half value is handed out."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest
from tenure_server.domain import TENANT_SCOPES, PutCheckpoint
from tenure_server.errors import Unavailable
from tenure_server.keys import ApiKey
from tenure_server.rules import parse
from tenure_server.storage.postgres import faults, pool, sweeper
from tenure_server.storage.postgres.checkpoints import PostgresCheckpoints
from tenure_server.storage.postgres.sweeper import Sweeper, Swept
from tenure_server.storage.postgres.tenants import PostgresKeys

from tests.harness.databases import Database
from tests.storage.chunked import cut, put_edits, read
from tests.storage.postgres import older
from tests.storage.tenant import Tenant, put

CHUNKED = cut(b"a b c", header=b"h")


@pytest.fixture
async def tenant(database: Database) -> AsyncIterator[Tenant]:
    """A tenant in a database of its own, served by a newer server."""
    opened = await pool.Database.open(database.app_url, max_size=2)
    yield Tenant(PostgresCheckpoints(opened), await database.tenants().create_tenant("rollout"))
    await opened.close()


async def test_each_reads_whole_values_of_the_other(tenant: Tenant, database: Database) -> None:
    older.write(database, tenant, "old", "1", "1", b"of 0.1.0")
    await tenant.write(put("new", "1", new={"a": b"of a newer one"}))
    assert await read(tenant, "old") == {"a": b"of 0.1.0"}
    for statement in (older.READ_HEADS, older.LIST_HEADS):
        assert older.read(database, tenant, statement, "new") == [(["a"], [b"of a newer one"])]
    await tenant.write(put("new", "2", "1"))
    assert older.read(database, tenant, older.HISTORY, "new") == [("a", b"of a newer one")]


@pytest.mark.parametrize("statement", older.READS.values(), ids=older.READS)
async def test_an_older_server_refuses_what_it_would_hand_out_in_part(
    tenant: Tenant, database: Database, statement: str
) -> None:
    await tenant.write(
        put_edits("t", "1", edits={"a": CHUNKED.whole()}), put("t", "2", "1", versions={"a": "1"})
    )
    with pytest.raises(psycopg.OperationalError, match="upgrade") as caught:
        older.read(database, tenant, statement, "t")
    assert isinstance(faults.of(caught.value), Unavailable), "its clients try again, at another server"


async def test_an_older_server_adds_to_a_thread_with_chunks(tenant: Tenant, database: Database) -> None:
    await tenant.write(put_edits("t", "1", edits={"a": CHUNKED.whole()}))
    older.write(database, tenant, "t", "2", "2", b"whole")
    older.write(database, tenant, "t", "3", "1", b"not the first of its version")
    assert await read(tenant, "t", "1") == {"a": CHUNKED.data}
    assert await read(tenant, "t", "2") == {"a": b"whole"}
    assert await read(tenant, "t", "3") == {"a": CHUNKED.data}


async def test_a_whole_value_of_an_older_server_is_no_base(tenant: Tenant, database: Database) -> None:
    older.write(database, tenant, "t", "1", "1", CHUNKED.data)
    told = put_edits("t", "2", edits={"a": cut(b"a b c d").edit(CHUNKED, "1")}, versions={"a": "2"})
    assert isinstance(told, PutCheckpoint)
    assert [error and error.reason for error in await tenant.apply(told)] == ["CHUNKS_MISSING"]


async def test_what_an_older_sweeper_leaves_of_a_thread_a_newer_one_frees(
    tenant: Tenant, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tenant.write(put_edits("large", "1", edits={"a": CHUNKED.whole()}), put("small", "1"))
    await tenant.delete("large")
    await tenant.delete("small")
    with monkeypatch.context() as patch:
        patch.setattr(sweeper, "_FREE", [text for text in sweeper._FREE if "tenure.chunk " not in text])
        assert await Sweeper(database.ops_url).run_once() == Swept(garbage=3)
    assert _counts(database) == {"chunk": 3, "garbage": 1}

    assert await Sweeper(database.ops_url).run_once() == Swept(garbage=3)
    assert _counts(database) == {"chunk": 0, "garbage": 0}


async def test_an_older_server_does_not_find_a_key_whose_rules_it_does_not_know(
    tenant: Tenant, database: Database
) -> None:
    for rules, found in ((None, 1), (parse(["threads:a-:r"]), 0)):
        key = ApiKey.parse(await database.tenants().create_key(tenant.id, TENANT_SCOPES, rules=rules))
        assert key is not None
        params = {"tenant": tenant.id, "key_id": key.key_id}
        assert len(older.call(database, older.FIND_KEY, params)) == found


@pytest.mark.parametrize("texts", ["{runs:a:r}", "{threads:*:rw,threads:a}", "{threads:a:rwx}"])
async def test_a_key_with_a_rule_of_a_later_version_is_not_found(
    tenant: Tenant, database: Database, texts: str
) -> None:
    key = ApiKey.parse(await database.tenants().create_key(tenant.id, TENANT_SCOPES))
    assert key is not None
    opened = await pool.Database.open(database.app_url, max_size=1)
    keys = PostgresKeys(opened)
    assert await keys.find_key(tenant.id, key.key_id) is not None
    with psycopg.connect(database.admin_url) as admin:
        admin.execute("UPDATE tenure.api_key SET rules = %s WHERE key_id = %s", [texts, key.key_id])
    assert await keys.find_key(tenant.id, key.key_id) is None
    await opened.close()


def _counts(database: Database) -> dict[str, int]:
    with psycopg.connect(database.admin_url) as admin:
        row = admin.execute(
            "SELECT (SELECT count(*) FROM tenure.chunk), (SELECT count(*) FROM tenure.garbage)"
        ).fetchone()
    assert row is not None
    return dict(zip(("chunk", "garbage"), row, strict=True))
