"""The sweeper frees what nobody can reach, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection, sql
from tenure_server.errors import TenureError
from tenure_server.storage.postgres import pool, sweeper
from tenure_server.storage.postgres.checkpoints import PostgresCheckpoints
from tenure_server.storage.postgres.sweeper import Sweeper, Swept

from tests.harness.databases import Database
from tests.storage.chunked import cut, put_edits
from tests.storage.postgres import blocked_by
from tests.storage.tenant import Tenant, Write, operation, put, put_writes

TABLES = ("pending_write", "channel_value", "chunk", "checkpoint", "head_override", "garbage")
CHUNKED = cut(b"a b c")
NOTHING = dict.fromkeys(TABLES, 0)


@pytest.fixture
async def tenant(database: Database) -> AsyncIterator[Tenant]:
    """A tenant in a database of its own."""
    opened = await pool.Database.open(database.app_url, max_size=2)
    yield Tenant(PostgresCheckpoints(opened), await database.tenants().create_tenant("sweeper"))
    await opened.close()


@pytest.fixture
def admin(database: Database) -> Iterator[psycopg.Connection]:
    """A superuser's connection, each statement for itself."""
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        yield connection


def _rows(admin: psycopg.Connection) -> dict[str, int]:
    """Count the rows that the sweeper may free."""
    counts = {}
    for table in TABLES:
        row = admin.execute(
            sql.SQL("SELECT count(*) FROM tenure.{}").format(sql.Identifier(table))
        ).fetchone()
        assert row is not None
        (counts[table],) = row
    return counts


def _age(admin: psycopg.Connection, statement: LiteralString) -> None:
    assert admin.execute(statement).rowcount > 0


async def _fill(tenant: Tenant, thread: str, steps: int = 5) -> None:
    """Store a thread with rows in every table, a worker's slow clock included."""
    ids = [f"{step:03}" for step in range(1, steps + 1)]
    await tenant.write(*(put(thread, step, new={"c": step.encode()}, versions={"c": step}) for step in ids))
    await tenant.write(*(put_writes(thread, step, Write()) for step in ids))
    await tenant.write(put_edits(thread, "000", ids[-1], edits={"large": CHUNKED.whole()}))


async def test_a_deleted_threads_rows_are_freed_and_other_threads_stay(
    tenant: Tenant, admin: psycopg.Connection, database: Database
) -> None:
    await _fill(tenant, "stays")
    kept, rows = await tenant.stored(), _rows(admin)
    assert rows == {
        "pending_write": 5,
        "channel_value": 6,
        "chunk": 3,
        "checkpoint": 6,
        "head_override": 1,
        "garbage": 0,
    }
    await _fill(tenant, "goes")
    await tenant.delete("goes")

    swept = await Sweeper(database.ops_url).run_once()

    assert swept == Swept(garbage=21)
    assert _rows(admin) == rows
    assert await tenant.stored() == kept


async def test_a_life_that_follows_a_deleted_one_stays(
    tenant: Tenant, admin: psycopg.Connection, database: Database
) -> None:
    await _fill(tenant, "t")
    await tenant.delete("t")
    await _fill(tenant, "t", steps=2)
    kept = await tenant.stored()

    await Sweeper(database.ops_url).run_once()

    assert await tenant.stored() == kept
    assert _rows(admin)["checkpoint"] == 3


async def test_more_rows_than_a_slice_are_freed_in_transactions_of_one_slice_each(
    tenant: Tenant, admin: psycopg.Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "SLICE", 4)
    await _fill(tenant, "t", steps=9)
    admin.execute("CREATE TABLE public.slice (txid bigint, removed bigint)")
    admin.execute(
        "CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN"
        " INSERT INTO public.slice SELECT txid_current(), count(*) FROM gone; RETURN NULL; END $$"
    )
    admin.execute(
        "CREATE TRIGGER note AFTER DELETE ON tenure.checkpoint"
        " REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.note()"
    )
    await tenant.delete("t")

    swept = await Sweeper(database.ops_url).run_once()

    assert swept.garbage == 9 + 10 + 3 + 10 + 1
    assert _rows(admin) == NOTHING
    slices = admin.execute("SELECT sum(removed) FROM public.slice GROUP BY txid ORDER BY txid").fetchall()
    assert [int(removed) for (removed,) in slices] == [4, 4, 2]


async def test_only_old_pending_writes_whose_checkpoint_never_came_go(
    tenant: Tenant, admin: psycopg.Connection, database: Database
) -> None:
    await tenant.write(
        put("t", "1"),
        put_writes("t", "1", Write()),
        put_writes("t", "old orphan", Write(), Write(idx=1)),
        put_writes("t", "1", Write(), ns="other namespace"),
    )
    _age(admin, "UPDATE tenure.pending_write SET created_at = now() - interval '25 hours'")
    await tenant.write(put_writes("t", "young orphan", Write()))
    _age(
        admin,
        "UPDATE tenure.pending_write SET created_at = now() - interval '23 hours'"
        " WHERE checkpoint_id = 'young orphan'",
    )

    swept = await Sweeper(database.ops_url).run_once()

    assert swept == Swept(orphans=3)
    left = admin.execute("SELECT checkpoint_id FROM tenure.pending_write ORDER BY 1").fetchall()
    assert left == [("1",), ("young orphan",)]
    assert (await tenant.one("t", "1")).writes == [Write()]


async def test_orphans_of_a_busy_thread_wait_for_the_next_run(
    tenant: Tenant, admin: psycopg.Connection, database: Database
) -> None:
    await tenant.write(put_writes("busy", "orphan", Write()), put_writes("free", "orphan", Write()))
    _age(admin, "UPDATE tenure.pending_write SET created_at = now() - interval '25 hours'")
    sweeping = Sweeper(database.ops_url)

    with psycopg.connect(database.admin_url) as holder:
        holder.execute("SELECT FROM tenure.thread_head WHERE thread_id = 'busy' FOR KEY SHARE")
        assert await sweeping.run_once() == Swept(orphans=1)

    assert await sweeping.run_once() == Swept(orphans=1)
    assert _rows(admin) == NOTHING


async def test_orphans_under_a_legal_hold_stay(
    tenant: Tenant, admin: psycopg.Connection, database: Database
) -> None:
    await tenant.write(put_writes("held", "orphan", Write()), put_writes("free", "orphan", Write()))
    _age(admin, "UPDATE tenure.pending_write SET created_at = now() - interval '2 days'")
    admin.execute(
        "INSERT INTO tenure.retention_hold (tenant_id, kind, prefix, reason)"
        " VALUES (%s, 'threads', 'held', '')",
        [tenant.id],
    )
    sweeping = Sweeper(database.ops_url)
    assert await sweeping.run_once() == Swept(orphans=1)
    admin.execute("DELETE FROM tenure.retention_hold")
    assert await sweeping.run_once() == Swept(orphans=1)


async def test_orphans_beyond_the_first_slice_are_found(
    tenant: Tenant, admin: psycopg.Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "SLICE", 3)
    for thread in ("a", "b", "c", "d"):
        await _fill(tenant, thread)
        await tenant.write(put_writes(thread, "orphan", Write(), Write(idx=1)))
    _age(admin, "UPDATE tenure.pending_write SET created_at = now() - interval '25 hours'")

    assert await Sweeper(database.ops_url).run_once() == Swept(orphans=8)
    assert _rows(admin)["pending_write"] == 20


async def test_operations_are_forgotten_after_a_day(
    tenant: Tenant, admin: psycopg.Connection, database: Database
) -> None:
    old, young = operation(id=b"o" * 16), operation(id=b"y" * 16)
    await tenant.delete("t", by=old)
    _age(admin, "UPDATE tenure.operation SET created_at = now() - interval '25 hours'")
    await tenant.delete("t", by=young)

    assert await Sweeper(database.ops_url).run_once() == Swept(operations=1)

    await tenant.write(put("t", "1"))
    await tenant.delete("t", by=young)
    assert await tenant.latest("t") == "1"
    await tenant.delete("t", by=old)
    assert await tenant.latest("t") is None


async def test_a_sweeper_does_nothing_while_another_is_at_work(
    tenant: Tenant, admin: psycopg.Connection, database: Database
) -> None:
    await _fill(tenant, "t")
    await tenant.delete("t")
    rows = _rows(admin)

    admin.execute("SELECT pg_advisory_lock(%s)", [sweeper._LOCK])
    assert await Sweeper(database.ops_url).run_once() == Swept()
    assert _rows(admin) == rows
    admin.execute("SELECT pg_advisory_unlock(%s)", [sweeper._LOCK])

    assert (await Sweeper(database.ops_url).run_once()).garbage == 21
    assert _rows(admin) == NOTHING


async def test_a_sweeper_that_is_killed_leaves_work_that_the_next_one_ends(
    tenant: Tenant, admin: psycopg.Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that it waits until it is killed.
    monkeypatch.setattr(sweeper, "_LOCK_TIMEOUT", "60s")
    await _fill(tenant, "t")
    await tenant.delete("t")

    async with await AsyncConnection.connect(database.admin_url) as holder:
        await holder.execute("SELECT FROM tenure.channel_value FOR UPDATE")
        killed = asyncio.create_task(Sweeper(database.ops_url).run_once())
        for pid in await blocked_by(holder, database.admin_url):
            admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        with pytest.raises(TenureError):
            await killed
    assert _rows(admin) == {
        "pending_write": 0,
        "channel_value": 6,
        "chunk": 3,
        "checkpoint": 6,
        "head_override": 1,
        "garbage": 1,
    }

    assert await Sweeper(database.ops_url).run_once() == Swept(garbage=16)
    assert _rows(admin) == NOTHING


async def test_a_sweeper_that_is_told_to_stop_leaves_the_rest_to_the_next_one(
    tenant: Tenant, admin: psycopg.Connection, database: Database
) -> None:
    await _fill(tenant, "t")
    await tenant.delete("t")
    rows, stop = _rows(admin), asyncio.Event()
    stop.set()

    assert await Sweeper(database.ops_url).run_once(stop) == Swept()
    assert _rows(admin) == rows
    await Sweeper(database.ops_url).run_once()
    assert _rows(admin) == NOTHING
