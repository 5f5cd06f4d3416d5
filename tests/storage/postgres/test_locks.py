"""Who waits for whom: a thread that another session holds holds up nothing but itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import LiteralString

import pytest
from psycopg import AsyncConnection
from tenure_server.domain import Mutation
from tenure_server.errors import ChunksMissing, DeadlineExceeded, TenureError, ThreadBusy

from tests.harness.databases import Database
from tests.storage.chunked import cut, put_edits, read
from tests.storage.postgres import Session, blocked_by
from tests.storage.tenant import Tenant, Write, operation, put, put_writes

pytestmark = pytest.mark.parametrize("backend", ["postgres"], indirect=True)

BUSY = "thread-10"
THREADS = [f"thread-{number:02}" for number in range(20)]
FREE = [thread for thread in THREADS if thread != BUSY]

FOR_UPDATE: LiteralString = "FOR UPDATE"
FOR_NO_KEY_UPDATE: LiteralString = "FOR NO KEY UPDATE"
FOR_KEY_SHARE: LiteralString = "FOR KEY SHARE"


class Holder:
    """A transaction of another session, as a superuser."""

    def __init__(self, session: Session, tenant: Tenant, admin_url: str) -> None:
        self._session = session
        self._tenant = tenant
        self._admin_url = admin_url

    async def lock(self, thread: str, strength: LiteralString = FOR_UPDATE) -> None:
        """Lock the head of a thread that exists."""
        cursor = await self._session.execute(
            f"SELECT FROM tenure.thread_head WHERE tenant_id = %s AND thread_id = %s {strength}",
            [self._tenant.id, thread],
        )
        assert cursor.rowcount == 1

    async def execute(self, statement: LiteralString) -> None:
        """Run a statement whose one parameter is the tenant."""
        await self._session.execute(statement, [self._tenant.id])

    async def blocks(self) -> None:
        """Return once somebody waits for this transaction."""
        await blocked_by(self._session, self._admin_url)

    async def commit(self) -> None:
        """End the transaction."""
        await self._session.commit()


@pytest.fixture
async def holder(tenant: Tenant, contract_database: Database) -> AsyncIterator[Holder]:
    """Another session; its transaction begins with its first statement."""
    async with _session(contract_database) as session:
        yield Holder(session, tenant, contract_database.admin_url)


@asynccontextmanager
async def _session(database: Database) -> AsyncIterator[Session]:
    session = await AsyncConnection.connect(database.admin_url)
    try:
        yield session
    finally:
        await session.close()


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():
        await asyncio.sleep(0.01)


def _within(seconds: float, mutation: Mutation) -> Mutation:
    return mutation._replace(operation=operation(seconds))


async def _without_waiting(tenant: Tenant, *mutations: Mutation) -> Sequence[TenureError | None]:
    return await tenant.store.write(tenant.id, mutations, wait=False)


async def _values_of(database: Database, tenant: Tenant) -> list[bytes]:
    async with _session(database) as session:
        cursor = await session.execute(
            "SELECT data FROM tenure.channel_value WHERE tenant_id = %s ORDER BY data", [tenant.id]
        )
        return [bytes(data) for (data,) in await cursor.fetchall()]


async def test_neighbours_of_a_busy_thread_are_committed_while_it_waits(
    tenant: Tenant, holder: Holder
) -> None:
    await tenant.write(*(put(thread, "1") for thread in THREADS))
    await holder.lock(BUSY)

    batch = asyncio.create_task(tenant.apply(*(put(thread, "2", "1") for thread in THREADS)))
    await holder.blocks()

    assert {await tenant.latest(thread) for thread in FREE} == {"2"}
    assert await tenant.latest(BUSY) == "1"
    assert not batch.done()
    await holder.commit()
    assert await batch == [None] * len(THREADS)
    assert await tenant.latest(BUSY) == "2"


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO tenure.thread_head (tenant_id, thread_id) VALUES (%s, 'thread-10')",
        "DELETE FROM tenure.thread_head WHERE tenant_id = %s AND thread_id = 'thread-10'",
    ],
    ids=["being made", "being deleted"],
)
async def test_neighbours_of_a_thread_that_comes_or_goes_are_committed_while_it_waits(
    tenant: Tenant, holder: Holder, change: LiteralString
) -> None:
    existing = THREADS if change.startswith("DELETE") else FREE
    await tenant.write(*(put(thread, "1") for thread in existing))
    await holder.execute(change)

    async def free_are_stored() -> bool:
        return {await tenant.latest(thread) for thread in FREE} == {"2"}

    batch = asyncio.create_task(tenant.apply(*(put(thread, "2", "1") for thread in THREADS)))
    await _until(free_are_stored)

    await holder.blocks()
    assert not batch.done()
    await holder.commit()
    assert await batch == [None] * len(THREADS)
    assert await tenant.ids(BUSY) == ["2"]


async def test_a_busy_operation_fails_at_its_own_deadline_and_leaves_nothing(
    tenant: Tenant, holder: Holder, contract_database: Database
) -> None:
    await tenant.write(put("a", "1"), put("busy", "1"), put("z", "1"))
    await holder.lock("busy")

    before, busy, after = await tenant.apply(
        put("a", "2", "1", new={"c": b"of a"}),
        _within(0.3, put("busy", "2", "1", new={"c": b"of busy"})),
        put("z", "2", "1", new={"c": b"of z"}),
    )

    assert before is None
    assert isinstance(busy, DeadlineExceeded)
    assert after is None
    await holder.commit()
    assert [await tenant.ids(thread) for thread in ("a", "busy", "z")] == [["2", "1"], ["1"], ["2", "1"]]
    assert await _values_of(contract_database, tenant) == [b"of a", b"of z"]


async def test_a_put_that_races_a_delete_comes_wholly_before_or_after_it(tenant: Tenant) -> None:
    threads = [f"raced-{number}" for number in range(60)]

    async def race(thread: str, *, delete_first: bool) -> None:
        await tenant.write(
            put(thread, "1", new={"c": b"old"}),
            put_writes(thread, "2", Write(data=b"old")),
        )
        rivals = [tenant.write(put(thread, "2", "1", new={"c": b"new"})), tenant.delete(thread)]
        await asyncio.gather(*(reversed(rivals) if delete_first else rivals))

    await asyncio.gather(*(race(thread, delete_first=n % 2 == 0) for n, thread in enumerate(threads)))

    for thread in threads:
        left = await tenant.stored(thread_id=thread)
        assert await tenant.get(thread, "1") is None
        if left:
            (new_life,) = left
            assert (new_life.id, dict(new_life.values), new_life.writes) == ("2", {"c": ("1", b"new")}, [])


async def test_a_put_that_waited_for_a_delete_begins_a_new_life(tenant: Tenant, holder: Holder) -> None:
    await tenant.write(put("t", "1", new={"c": b"old value"}), put_writes("t", "2", Write(data=b"old")))
    old = await tenant.head("t")
    assert old is not None
    await holder.lock("t")
    late = asyncio.create_task(tenant.write(put("t", "2", "1", new={"c": b"new"})))
    await holder.blocks()

    await holder.execute("DELETE FROM tenure.thread_head WHERE tenant_id = %s AND thread_id = 't'")
    await holder.commit()
    await late

    (new_life,) = await tenant.stored(thread_id="t")
    assert (new_life.id, dict(new_life.values), new_life.writes) == ("2", {"c": ("1", b"new")}, [])
    assert await tenant.store.bodies(tenant.id, [old]) == [None]


async def test_a_put_that_waited_for_a_removal_stores_what_the_removal_took(
    tenant: Tenant, holder: Holder
) -> None:
    await tenant.write(put("t", "1", new={"c": b"a value"}))
    await holder.lock("t")
    late = asyncio.create_task(tenant.write(put("t", "2", "1", new={"c": b"a value"})))
    await holder.blocks()

    await holder.execute("DELETE FROM tenure.channel_value WHERE tenant_id = %s")
    await holder.commit()
    await late

    assert (await tenant.one("t", "2")).values == {"c": ("1", b"a value")}


async def test_pending_writes_do_not_wait_for_a_put_of_another_session(
    tenant: Tenant, holder: Holder
) -> None:
    await tenant.write(put("t", "1"))
    await holder.lock("t", FOR_NO_KEY_UPDATE)

    await tenant.write(put_writes("t", "1", Write(data=b"alone")))
    await tenant.write(put("u", "1"), put_writes("t", "1", Write(data=b"in a batch", idx=1)))

    assert [write.data for write in (await tenant.one("t")).writes] == [b"alone", b"in a batch"]


@pytest.mark.parametrize(
    ("held", "late"),
    [
        (FOR_NO_KEY_UPDATE, put("t", "2", "1")),
        (FOR_UPDATE, put_writes("t", "1", Write())),
    ],
    ids=["a put for a put", "pending writes for a removal"],
)
async def test_what_excludes_each_other_waits(
    tenant: Tenant, holder: Holder, held: LiteralString, late: Mutation
) -> None:
    await tenant.write(put("t", "1"))
    await holder.lock("t", held)

    waiting = asyncio.create_task(tenant.write(late._replace(operation=operation())))
    await holder.blocks()

    assert await tenant.ids("t") == ["1"]
    assert (await tenant.one("t")).writes == []
    await holder.commit()
    await waiting


async def test_a_put_does_not_wait_for_pending_writes_of_another_session(
    tenant: Tenant, holder: Holder
) -> None:
    await tenant.write(put("t", "1"))
    await holder.lock("t", FOR_KEY_SHARE)

    await tenant.write(put("t", "2", "1"))

    assert await tenant.latest("t") == "2"


async def test_a_base_that_is_removed_while_a_put_waits_is_missing(tenant: Tenant, holder: Holder) -> None:
    base, value = cut(b"a b"), cut(b"a b c")
    await tenant.write(put_edits("t", "1", edits={"a": base.whole()}))
    await holder.lock("t")
    late = asyncio.create_task(
        tenant.apply(put_edits("t", "2", edits={"a": value.edit(base, "1")}, versions={"a": "2"}))
    )
    await holder.blocks()

    await holder.execute("DELETE FROM tenure.channel_value WHERE tenant_id = %s")
    await holder.commit()

    assert [type(outcome) for outcome in await late] == [ChunksMissing]
    assert await tenant.ids("t") == ["1"]


async def test_a_chunk_that_is_removed_while_a_put_waits_is_stored_again(
    tenant: Tenant, holder: Holder
) -> None:
    await tenant.write(put_edits("t", "1", edits={"a": cut(b"a b").whole()}))
    await holder.lock("t")
    late = asyncio.create_task(
        tenant.write(put_edits("t", "2", edits={"a": cut(b"a c").whole()}, versions={"a": "2"}))
    )
    await holder.blocks()

    await holder.execute("DELETE FROM tenure.chunk WHERE tenant_id = %s")
    await holder.commit()
    await late

    assert await read(tenant, "t") == {"a": b"a c "}


async def test_a_busy_thread_comes_back_at_once_where_nobody_waits(tenant: Tenant, holder: Holder) -> None:
    await tenant.write(*(put(thread, "1") for thread in ("busy", "free")))
    await holder.lock("busy")

    outcomes = await _without_waiting(
        tenant,
        put("busy", "2", "1", new={"a": b"value"}),
        put("free", "2", "1"),
        put_writes("busy", "1", Write()),
        put("new", "1"),
    )
    (alone,) = await _without_waiting(tenant, put("busy", "2", "1"))

    assert [type(outcome) for outcome in outcomes] == [ThreadBusy, type(None), ThreadBusy, type(None)]
    assert isinstance(alone, ThreadBusy)
    assert [await tenant.ids(thread) for thread in ("busy", "free", "new")] == [["1"], ["2", "1"], ["1"]]
    await holder.commit()
    assert await _without_waiting(tenant, put("busy", "2", "1")) == [None]
    assert (await tenant.one("busy", "1")).writes == []


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO tenure.thread_head (tenant_id, thread_id) VALUES (%s, 'thread-10')",
        "DELETE FROM tenure.thread_head WHERE tenant_id = %s AND thread_id = 'thread-10'",
    ],
    ids=["being made", "being deleted"],
)
async def test_a_thread_that_comes_or_goes_is_busy_where_nobody_waits(
    tenant: Tenant, holder: Holder, change: LiteralString
) -> None:
    existing = THREADS if change.startswith("DELETE") else FREE
    await tenant.write(*(put(thread, "1") for thread in existing))
    await holder.execute(change)

    outcomes = await _without_waiting(tenant, *(put(thread, "2", "1") for thread in THREADS))

    assert {thread for thread, outcome in zip(THREADS, outcomes, strict=True) if outcome is None} == set(FREE)
    assert isinstance(outcomes[THREADS.index(BUSY)], ThreadBusy)
    await holder.commit()
    assert await _without_waiting(tenant, put(BUSY, "2")) == [None]


async def test_what_comes_later_for_a_busy_thread_does_not_overtake(
    tenant: Tenant, holder: Holder, contract_database: Database
) -> None:
    """The second put is in a round of its own; the thread is free again when its turn comes."""
    await tenant.write(put("a", "1"), put("busy", "1"))
    await holder.lock("busy")
    async with _session(contract_database) as gate:
        # The other thread's put waits here, with the answer about the busy one already given.
        await gate.execute("LOCK TABLE tenure.checkpoint IN SHARE MODE")
        batch = asyncio.create_task(
            _without_waiting(tenant, put("a", "2"), put("busy", "3"), put("busy", "2", "1"), put("a", "3"))
        )
        await blocked_by(gate, contract_database.admin_url)
        await holder.commit()
        await gate.commit()
    outcomes = await batch

    assert [type(outcome) for outcome in outcomes] == [type(None), ThreadBusy, ThreadBusy, type(None)]
    assert (await tenant.ids("busy"), await tenant.ids("a")) == (["1"], ["3", "2", "1"])


async def test_a_mutation_whose_time_is_up_is_not_busy(tenant: Tenant, holder: Holder) -> None:
    await tenant.write(put("busy", "1"))
    await holder.lock("busy")

    late, busy = await _without_waiting(tenant, _within(0, put("busy", "2")), put("busy", "2"))

    assert isinstance(late, DeadlineExceeded)
    assert isinstance(busy, ThreadBusy)
