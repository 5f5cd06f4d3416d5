"""Batches of a tenant, on a store that can be held up and on Postgres with its locks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from uuid import uuid4

import pytest
from psycopg import AsyncConnection
from tenure_server import errors
from tenure_server.domain import CheckpointRef, Head, HeldValue, Mutation, TenantId
from tenure_server.storage.coalescing import CoalescedCheckpoints
from tenure_server.storage.memory import MemoryCheckpoints
from tenure_server.storage.ports import Answered
from tenure_server.storage.queues import MAX_OPERATIONS, MAX_READS, MAX_WAITING, MAX_WRITES

from tests.harness.databases import Database
from tests.storage.backends import Backend
from tests.storage.postgres import Session, blocked_by
from tests.storage.tenant import Tenant, operation, put

CROWD = 60


class Gated(MemoryCheckpoints):
    """In-memory storage whose calls wait while it is shut.

    Attributes:
        writes: Tenant and mutations of each call, as it began.
        reads: Tenant and refs of each call.
        running: Calls under way, by kind.
        most: The most there were at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.failure: Exception | None = None
        self.writes: list[tuple[TenantId, Sequence[Mutation]]] = []
        self.reads: list[tuple[TenantId, Sequence[CheckpointRef]]] = []
        self.running = {"write": 0, "read": 0}
        self.most = {"write": 0, "read": 0}

    async def _pass(self, kind: str) -> None:
        self.running[kind] += 1
        self.most[kind] = max(self.most[kind], self.running[kind])
        try:
            await self.open.wait()
        finally:
            self.running[kind] -= 1
        if self.failure is not None:
            raise self.failure

    async def write(
        self,
        tenant: TenantId,
        mutations: Sequence[Mutation],
        *,
        wait: bool = True,
        answered: Answered | None = None,
    ) -> Sequence[errors.TenureError | None]:
        self.writes.append((tenant, mutations))
        await self._pass("write")
        return await super().write(tenant, mutations, wait=wait)

    async def heads(
        self,
        tenant: TenantId,
        refs: Sequence[CheckpointRef],
        held: Sequence[Sequence[HeldValue]] = (),
    ) -> Sequence[Head | None]:
        self.reads.append((tenant, refs))
        await self._pass("read")
        return await super().heads(tenant, refs, held)


@pytest.fixture
async def gated() -> Gated:
    return Gated()


@pytest.fixture
async def queued(gated: Gated) -> AsyncIterator[CoalescedCheckpoints]:
    queued = CoalescedCheckpoints(gated)
    yield queued
    await queued.close()


@pytest.fixture
def tenants(queued: CoalescedCheckpoints) -> list[Tenant]:
    return [Tenant(queued, TenantId(uuid4())) for _ in range(3)]


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0)


def start(work: Any) -> asyncio.Task[Any]:
    return asyncio.create_task(work)


async def test_a_crowd_of_a_tenant_takes_few_calls(gated: Gated, tenants: list[Tenant]) -> None:
    tenant = tenants[0]
    writes = [start(tenant.write(put(f"thread {number}", "1"))) for number in range(CROWD)]
    reads = [start(tenant.head(f"thread {number}")) for number in range(CROWD)]
    await until(lambda: len(gated.writes) == MAX_WRITES and len(gated.reads) == MAX_READS)
    gated.open.set()
    await asyncio.gather(*writes, *reads)

    assert [len(mutations) for _, mutations in gated.writes] == [1, CROWD - 1]
    assert [len(refs) for _, refs in gated.reads] == [1, 1, CROWD - 2]
    assert {await tenant.latest(f"thread {number}") for number in range(CROWD)} == {"1"}
    assert gated.most == {"write": MAX_WRITES, "read": MAX_READS}


async def test_tenants_never_share_a_call(gated: Gated, tenants: list[Tenant]) -> None:
    """The store takes one tenant for a whole batch: a foreign mutation in it would land there."""
    writes = [
        start(tenant.write(put("thread", f"{number}", new={"c": str(tenant.id).encode()})))
        for number in range(CROWD)
        for tenant in tenants
    ]
    reads = [start(tenant.get("thread")) for _ in range(CROWD) for tenant in tenants]
    await until(lambda: gated.running["write"])
    gated.open.set()
    await asyncio.gather(*writes, *reads)

    assert len(gated.writes) < len(writes) / 4
    for tenant in tenants:
        assert len(await tenant.ids("thread")) == CROWD
        values = {bytes(value) for one in await tenant.stored() for _, value in one.values.values()}
        assert values == {str(tenant.id).encode()}
    for task, tenant in zip(reads, tenants * CROWD, strict=True):
        found = task.result()
        assert found is None or found.values["c"][1] == str(tenant.id).encode()


async def test_a_flooding_tenant_queues_behind_itself(gated: Gated, tenants: list[Tenant]) -> None:
    flooding, quiet, _ = tenants
    flood = [start(flooding.write(put(f"thread {number}", "1"))) for number in range(10 * MAX_OPERATIONS)]
    await until(lambda: len(gated.writes) == MAX_WRITES)
    lone = start(quiet.write(put("thread", "1")))
    await until(lambda: len(gated.writes) == MAX_WRITES + 1)

    assert gated.writes[-1][0] == quiet.id, "it starts while the others wait"
    gated.open.set()
    await asyncio.gather(lone, *flood)


async def test_what_a_flooding_tenant_asks_beyond_its_queue_is_refused_and_others_are_not(
    gated: Gated, tenants: list[Tenant]
) -> None:
    flooding, quiet, _ = tenants
    flood = [start(flooding.write(put("thread", str(number)))) for number in range(MAX_WAITING + 100)]
    await until(lambda: len(gated.writes) == 1)
    await until(lambda: sum(task.done() for task in flood) >= 99)
    lone = start(quiet.write(put("thread", "1")))
    gated.open.set()
    outcomes = await asyncio.gather(*flood, return_exceptions=True)

    refused = [outcome for outcome in outcomes if outcome is not None]
    assert len(refused) == 99
    assert all(isinstance(outcome, errors.Overloaded) and outcome.retry_after for outcome in refused)
    assert len(await flooding.listing(limit=2 * MAX_WAITING)) == MAX_WAITING + 1
    await lone


async def test_a_mutation_whose_time_passes_in_the_queue_is_not_applied(
    gated: Gated, tenants: list[Tenant]
) -> None:
    tenant = tenants[0]
    first = [start(tenant.write(put(f"first {number}", "1"))) for number in range(MAX_WRITES)]
    await until(lambda: len(gated.writes) == MAX_WRITES)
    late, patient = put("late", "1"), put("patient", "1")
    waiting = [start(tenant.apply(late._replace(operation=operation(0.01)))), start(tenant.apply(patient))]
    assert [type(one) for one in await waiting[0]] == [errors.DeadlineExceeded], "told when its time passes"
    assert not any(one.done() for one in (*first, waiting[1]))
    gated.open.set()
    await asyncio.gather(*first)

    assert await waiting[1] == [None]
    assert await tenant.latest("late") is None


async def test_a_failure_of_the_store_reaches_every_waiter_and_the_queue_goes_on(
    gated: Gated, tenants: list[Tenant]
) -> None:
    tenant = tenants[0]
    gated.failure = errors.Unavailable()
    work = [start(tenant.write(put(f"thread {number}", "1"))) for number in range(CROWD)]
    work += [start(tenant.head(f"thread {number}")) for number in range(CROWD)]
    await until(lambda: gated.running["write"] and gated.running["read"])
    gated.open.set()
    outcomes = await asyncio.gather(*work, return_exceptions=True)

    assert all(isinstance(outcome, errors.Unavailable) for outcome in outcomes)
    gated.failure = None
    await tenant.write(put("thread 0", "1"))
    assert await tenant.latest("thread 0") == "1"


async def test_a_queue_of_a_tenant_that_rests_is_gone(
    gated: Gated, queued: CoalescedCheckpoints, tenants: list[Tenant]
) -> None:
    work = [start(tenant.write(put("thread", "1"))) for tenant in tenants]
    work += [start(tenant.head("thread")) for tenant in tenants]
    await until(lambda: gated.running == {"write": 3, "read": 3})
    assert len(queued._writes) == len(queued._reads) == 3
    gated.open.set()
    await asyncio.gather(*work)

    await until(lambda: not queued._writes and not queued._reads)


async def test_closing_tells_everybody_who_waits(gated: Gated, queued: CoalescedCheckpoints) -> None:
    tenant = Tenant(queued, TenantId(uuid4()))
    work = [start(tenant.write(put(f"thread {number}", "1"))) for number in range(CROWD)]
    work += [start(tenant.head("thread")) for _ in range(CROWD)]
    await until(lambda: gated.running["write"] and gated.running["read"])
    await queued.close()
    outcomes = await asyncio.wait_for(asyncio.gather(*work, return_exceptions=True), 30)

    assert {type(outcome) for outcome in outcomes} == {errors.Unavailable}
    assert gated.running == {"write": 0, "read": 0}


on_postgres = pytest.mark.parametrize("backend", ["postgres"], indirect=True)


@pytest.fixture
async def locked(contract_database: Database) -> AsyncIterator[Session]:
    """Another session, which can hold a thread's lock."""
    session = await AsyncConnection.connect(contract_database.admin_url)
    yield session
    await session.close()


async def lock(session: Session, tenant: Tenant, *threads: str) -> None:
    found = await session.execute(
        "SELECT FROM tenure.thread_head WHERE tenant_id = %s AND thread_id = ANY (%s) FOR UPDATE",
        [tenant.id, list(threads)],
    )
    assert found.rowcount == len(threads)


@pytest.fixture
async def on_locks(backend: Backend) -> AsyncIterator[Tenant]:
    """A tenant of a coalesced store on Postgres, with the first checkpoints of some threads."""
    store = CoalescedCheckpoints(backend.store)
    tenant = Tenant(store, await backend.new_tenant())
    await tenant.write(put("busy", "1"), put("busy too", "1"), put("free", "1"))
    yield tenant
    await store.close()


@on_postgres
async def test_a_locked_thread_holds_up_none_of_its_neighbours(
    on_locks: Tenant, locked: Session, contract_database: Database
) -> None:
    await lock(locked, on_locks, "busy", "busy too")
    names = [f"new {number}" for number in range(10)]
    waiting = start(on_locks.apply(put("busy", "2", "1")))
    await blocked_by(locked, contract_database.admin_url)
    waiting_too = start(on_locks.apply(put("busy too", "2", "1")))
    neighbours = [start(on_locks.apply(put(name, "1"))) for name in ("free", *names)]
    assert await asyncio.gather(*neighbours) == [[None]] * 11
    assert await on_locks.apply(put("free", "2", "1")) == [None]
    later = start(on_locks.apply(put("busy", "3", "2")))
    assert await on_locks.apply(put("free", "3", "2")) == [None]

    assert not waiting.done()
    assert not later.done()
    await locked.commit()
    assert await asyncio.gather(waiting, waiting_too, later) == [[None], [None], [None]]
    assert await on_locks.ids("busy") == ["3", "2", "1"]


@on_postgres
async def test_what_waits_for_a_lock_fails_at_its_own_deadline(on_locks: Tenant, locked: Session) -> None:
    await lock(locked, on_locks, "busy")
    hasty = put("busy", "2", "1")._replace(operation=operation(0.3))
    outcomes = await asyncio.gather(on_locks.apply(hasty), on_locks.apply(put("free", "2", "1")))

    assert [type(outcome) for (outcome,) in outcomes] == [errors.DeadlineExceeded, type(None)]
    await locked.commit()
    assert await on_locks.ids("busy") == ["1"]
    assert await on_locks.apply(put("busy", "2", "1")) == [None]


@on_postgres
async def test_what_waits_behind_a_lock_fails_at_its_own_deadline_too(
    on_locks: Tenant, locked: Session, contract_database: Database
) -> None:
    await lock(locked, on_locks, "busy")
    patient = start(on_locks.apply(put("busy", "2", "1")))
    await blocked_by(locked, contract_database.admin_url)
    hasty = put("busy", "3", "2")._replace(operation=operation(0.1))
    (outcome,) = await on_locks.apply(hasty)

    assert isinstance(outcome, errors.DeadlineExceeded)
    assert not patient.done()
    await locked.commit()
    assert await patient == [None]
    assert await on_locks.ids("busy") == ["2", "1"]


@on_postgres
async def test_a_caller_that_leaves_a_lock_leaves_its_neighbours_alone(
    on_locks: Tenant, locked: Session, contract_database: Database
) -> None:
    await lock(locked, on_locks, "busy")
    gone = start(on_locks.apply(put("busy", "2", "1")))
    await blocked_by(locked, contract_database.admin_url)
    gone.cancel()
    later = start(on_locks.apply(put("busy", "3", "2")))
    assert await on_locks.apply(put("free", "2", "1")) == [None]
    await locked.commit()

    assert await later == [None]
    assert await on_locks.ids("busy") == ["3", "2", "1"], "what was under way is applied"
