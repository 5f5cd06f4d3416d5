"""What is done at every step of a graph reads by index, however many rows others have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

import psycopg
import pytest
from tenure_server.domain import CheckpointRef, TenantId
from tenure_server.storage.postgres import pool
from tenure_server.storage.postgres.checkpoints import PostgresCheckpoints

from tests.harness.databases import Database, Postgres
from tests.storage.chunked import cut, put_edits, values_of
from tests.storage.tenant import Tenant, Write, put, put_writes

HOT = ("checkpoint", "channel_value", "chunk", "pending_write", "thread_head")
READ_ALWAYS = ("checkpoint", "channel_value", "pending_write", "thread_head")
REPEATS = 12
"""From the sixth call on, a function may use a plan that does not know its arguments."""

_FILL_HEADS = """
INSERT INTO tenure.thread_head (tenant_id, thread_id)
SELECT %(tenant)s, 'thread-' || n FROM generate_series(1, %(threads)s) AS n
"""
_FILL_CHECKPOINTS = """
INSERT INTO tenure.checkpoint (
    tenant_id, thread_key, checkpoint_ns, checkpoint_id, parent_checkpoint_id, body_type, body, metadata,
    filterable, format_version, versions
)
SELECT
    h.tenant_id, h.thread_key, '', to_char(n, 'FM0000'), to_char(n - 1, 'FM0000'), 'bytes', 'body', '{}',
    '{}', 4, jsonb_build_object('messages', n::text)
FROM tenure.thread_head AS h
CROSS JOIN generate_series(1, CASE h.thread_id WHEN 'thread-1' THEN %(long)s ELSE %(steps)s END) AS n
WHERE h.tenant_id = %(tenant)s
"""
_FILL_VALUES = """
INSERT INTO tenure.channel_value (tenant_id, thread_key, ns_hash, channel, version, type, digest, data)
SELECT
    c.tenant_id, c.thread_key, tenure.ns_hash_1(''), 'messages', c.versions ->> 'messages', 'bytes',
    sha256('value'), 'value'
FROM tenure.checkpoint AS c
WHERE c.tenant_id = %(tenant)s
"""
_FILL_WRITES = """
INSERT INTO tenure.pending_write (
    tenant_id, thread_key, ns_hash, checkpoint_id, task_id, idx, task_path, channel, type, data
)
SELECT
    c.tenant_id, c.thread_key, tenure.ns_hash_1(''), c.checkpoint_id, 'task', 0, '', 'messages', 'bytes', 'w'
FROM tenure.checkpoint AS c
WHERE c.tenant_id = %(tenant)s
"""
_FILL_CHUNKS = """
INSERT INTO tenure.chunk (tenant_id, thread_key, chunk_id, data)
SELECT h.tenant_id, h.thread_key, substring(sha256(int4send(n)) FOR 16), 'chunk'
FROM tenure.thread_head AS h
CROSS JOIN generate_series(1, CASE h.thread_id WHEN 'thread-1' THEN %(long)s ELSE %(steps)s END) AS n
WHERE h.tenant_id = %(tenant)s
"""
_SCANS = """
SELECT relname, seq_scan, coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE schemaname = 'tenure'
"""


@dataclass(frozen=True)
class Scans:
    """How often tables were read from one end to the other, and how often by an index."""

    sequential: dict[str, int]
    by_index: dict[str, int]


@dataclass
class Filled:
    """A database with a big tenant among small ones."""

    tenant: Tenant
    opened: pool.Database
    admin_url: str

    async def scans_of(self, action: Callable[[int], Awaitable[object]]) -> Scans:
        """Do something `REPEATS` times and return the scans that it took."""
        before = await self._counted()
        for number in range(REPEATS):
            await action(number)
        after = await self._counted()
        return Scans(
            {table: after[table][0] - before[table][0] for table in HOT},
            {table: after[table][1] - before[table][1] for table in HOT},
        )

    async def _counted(self) -> dict[str, tuple[int, int]]:
        # The pool has one connection: what it counted so far is published when this transaction ends.
        async with self.opened.transaction(self.tenant.id) as connection:
            await connection.execute("SELECT pg_stat_force_next_flush()")
        with psycopg.connect(self.admin_url) as admin:
            return {table: (seq, idx) for table, seq, idx in admin.execute(_SCANS).fetchall()}


@pytest.fixture(scope="module", params=["analysed", "not analysed"])
def filled_database(
    postgres: Postgres, migrated: str, request: pytest.FixtureRequest
) -> Iterator[tuple[Database, TenantId]]:
    """The database and its big tenant."""
    from tests.harness.running import run

    database = postgres.database(postgres.create_database(template=migrated))
    tenants = [run(database.tenants().create_tenant(f"tenant {number}")) for number in range(9)]
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        for table in HOT:
            admin.execute(f"ALTER TABLE tenure.{table} SET (autovacuum_enabled = off)".encode())
        for tenant in tenants:
            big = tenant == tenants[0]
            size = {
                "tenant": tenant,
                "threads": 4000 if big else 400,
                "long": 2000 if big else 4,
                "steps": 4,
            }
            for statement in (_FILL_HEADS, _FILL_CHECKPOINTS, _FILL_VALUES, _FILL_WRITES, _FILL_CHUNKS):
                admin.execute(statement, size)
        if request.param == "analysed":
            admin.execute("ANALYZE")
    yield database, tenants[0]
    postgres.drop_database(database.name)


@pytest.fixture
async def filled(filled_database: tuple[Database, TenantId]) -> AsyncIterator[Filled]:
    """The same with a store on one connection, as the role that serves."""
    database, tenant = filled_database
    opened = await pool.Database.open(database.app_url, max_size=1)
    yield Filled(Tenant(PostgresCheckpoints(opened), tenant), opened, database.admin_url)
    await opened.close()


def _assert_indexed(scans: Scans, tables: tuple[str, ...] = READ_ALWAYS) -> None:
    assert scans.sequential == dict.fromkeys(HOT, 0)
    assert {table for table in tables if scans.by_index[table] >= REPEATS} == set(tables)


async def test_the_counters_notice_a_scan_of_a_whole_table(filled: Filled) -> None:
    async def count(number: int) -> None:
        async with filled.opened.transaction(filled.tenant.id) as connection:
            await connection.execute("SET LOCAL enable_indexscan = off")
            await connection.execute("SET LOCAL enable_bitmapscan = off")
            await connection.execute("SELECT count(body) FROM tenure.checkpoint")

    assert (await filled.scans_of(count)).sequential["checkpoint"] >= REPEATS


@pytest.mark.parametrize("thread", ["thread-1", "thread-200"], ids=["long thread", "short thread"])
async def test_the_latest_checkpoint_is_read_by_index(filled: Filled, thread: str) -> None:
    async def read(number: int) -> None:
        assert (await filled.tenant.one(thread)).writes == [Write(data=b"w")]

    _assert_indexed(await filled.scans_of(read))


@pytest.mark.parametrize("thread", ["thread-1", "thread-200"], ids=["long thread", "short thread"])
async def test_a_named_checkpoint_is_read_by_index(filled: Filled, thread: str) -> None:
    async def read(number: int) -> None:
        assert (await filled.tenant.one(thread, "0003")).values == {"messages": ("3", b"value")}

    _assert_indexed(await filled.scans_of(read))


async def test_a_step_is_written_by_index(filled: Filled) -> None:
    async def write(number: int) -> None:
        step, parent = f"{3001 + number}", f"{3000 + number}"
        await filled.tenant.write(
            put("thread-1", step, parent, new={"messages": b"new"}, versions={"messages": step}),
            put_writes("thread-1", step, Write()),
        )

    _assert_indexed(await filled.scans_of(write), ("checkpoint", "thread_head"))


async def test_a_repeated_step_is_written_by_index(filled: Filled) -> None:
    async def write(number: int) -> None:
        await filled.tenant.write(
            put("thread-2", "0004", "0003", new={"messages": b"value"}, versions={"messages": "4"}),
            put_writes("thread-2", "0004", Write()),
        )

    _assert_indexed(await filled.scans_of(write), ("checkpoint", "thread_head", "channel_value"))


async def test_a_batch_over_many_threads_is_written_by_index(filled: Filled) -> None:
    async def write(number: int) -> None:
        step = f"{5001 + number}"
        await filled.tenant.write(
            *(
                put(f"thread-{thread}", step, new={"messages": b"new"}, versions={"messages": step})
                for thread in range(10, 30)
            ),
            *(put_writes(f"thread-{thread}", "0010", Write(idx=number + 1)) for thread in range(40, 60)),
        )

    _assert_indexed(await filled.scans_of(write), ("checkpoint", "thread_head"))


async def test_a_batch_of_new_threads_is_written_by_index(filled: Filled) -> None:
    async def write(number: int) -> None:
        threads = [f"new-{number}-{thread}" for thread in range(20)]
        await filled.tenant.write(*(put(thread, "1", new={"messages": b"new"}) for thread in threads))

    _assert_indexed(await filled.scans_of(write), ("checkpoint", "thread_head"))


async def test_a_value_told_against_another_is_written_and_read_by_index(filled: Filled) -> None:
    tenant, thread = filled.tenant, "thread-1"
    # So long that all are told against the first.
    values = [cut(b" ".join(b"%d" % part for part in range(length))) for length in range(200, REPEATS + 201)]
    await tenant.write(put_edits(thread, "6000", edits={"large": values[0].whole()}, versions={"large": "0"}))

    async def turn(number: int) -> None:
        base, value = values[number], values[number + 1]
        edit = value.edit(base, str(number))
        held, version = base.held("large", str(number)), {"large": str(number + 1)}
        await tenant.write(
            put_edits(thread, f"{6001 + number}", f"{6000 + number}", edits={"large": edit}, versions=version)
        )
        (head,) = await tenant.store.heads(tenant.id, [CheckpointRef(thread, "")], [[held]])
        assert head is not None
        assert head.bases == {"large": base.entries}
        assert await values_of(tenant, head) == {"large": value.data}

    _assert_indexed(await filled.scans_of(turn), ("checkpoint", "thread_head", "channel_value", "chunk"))
    with psycopg.connect(filled.admin_url) as admin:
        told = admin.execute(
            "SELECT count(*) FROM tenure.channel_value WHERE anchor_version = '0'"
        ).fetchone()
    assert told == (REPEATS,)


async def test_a_history_is_walked_by_index(filled: Filled) -> None:
    base, large = cut(b"a b c"), cut(b"a b c d")
    told = large.edit(base, "base")
    await filled.tenant.write(
        put_edits("thread-3", "6999", edits={"large": base.whole()}, versions={"large": "base"}),
        put_edits("thread-3", "7000", edits={"large": told}, versions={"large": "told"}),
        *(put("thread-3", f"{7000 + step}", f"{6999 + step}") for step in range(1, 20)),
    )

    async def walk(number: int) -> None:
        seed = (await filled.tenant.history("thread-3", "large"))["large"].seed
        assert seed is not None
        assert seed.data == large.data

    _assert_indexed(
        await filled.scans_of(walk), ("checkpoint", "pending_write", "channel_value", "thread_head", "chunk")
    )


async def test_a_namespace_is_listed_by_index(filled: Filled) -> None:
    async def read(number: int) -> None:
        listed = await filled.tenant.ids("thread-1", limit=10, before="2001")
        assert listed == [f"{step}" for step in range(2000, 1990, -1)]

    _assert_indexed(await filled.scans_of(read))


async def test_everything_of_a_tenant_is_listed_by_index(filled: Filled) -> None:
    async def read(number: int) -> None:
        assert len(await filled.tenant.listing(limit=10, before="2001")) == 10

    _assert_indexed(await filled.scans_of(read))
