"""Items of a tenant that wait for one another, on a store that can be held up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from uuid import uuid4

import pytest
from tenure_server import errors
from tenure_server.domain import TenantId
from tenure_server.items import GetItem, ItemAnswer, ReadGroup, WriteGroup
from tenure_server.storage.item_queues import MAX_SEARCHES, CoalescedItems
from tenure_server.storage.memory_items import MemoryItems
from tenure_server.storage.queues import MAX_BYTES, MAX_READS, MAX_WRITES

from tests.storage.item_tenant import Tenant, get, group, listing, put, search
from tests.storage.tenant import operation

CROWD = 40


class Gated(MemoryItems):
    """In-memory storage whose calls wait while it is shut.

    Attributes:
        writes: Groups of each call that writes, as it began.
        gets: Groups of each call that only gets.
        searches: Groups of each other call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.failure: Exception | None = None
        self.writes: list[Sequence[WriteGroup]] = []
        self.gets: list[Sequence[ReadGroup]] = []
        self.searches: list[Sequence[ReadGroup]] = []

    async def read(
        self, tenant: TenantId, groups: Sequence[ReadGroup]
    ) -> Sequence[Sequence[ItemAnswer] | errors.TenureError]:
        only_gets = all(isinstance(one, GetItem) for group in groups for one in group.reads)
        (self.gets if only_gets else self.searches).append(groups)
        await self._pass()
        return await super().read(tenant, groups)

    async def write(
        self, tenant: TenantId, groups: Sequence[WriteGroup]
    ) -> Sequence[errors.TenureError | None]:
        self.writes.append(groups)
        await self._pass()
        return await super().write(tenant, groups)

    async def _pass(self) -> None:
        await self.open.wait()
        if self.failure is not None:
            raise self.failure


@pytest.fixture
async def gated() -> Gated:
    return Gated()


@pytest.fixture
async def queued(gated: Gated) -> AsyncIterator[CoalescedItems]:
    queued = CoalescedItems(gated)
    yield queued
    await queued.close()


@pytest.fixture
def tenants(queued: CoalescedItems) -> list[Tenant]:
    return [Tenant(queued, TenantId(uuid4())) for _ in range(2)]


@pytest.fixture
def tenant(tenants: list[Tenant]) -> Tenant:
    return tenants[0]


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0)


def start(work: Any) -> asyncio.Task[Any]:
    return asyncio.create_task(work)


async def test_a_crowd_of_a_tenant_takes_few_calls(gated: Gated, tenant: Tenant) -> None:
    writes = [start(tenant.write(put(f"{number}"))) for number in range(CROWD)]
    reads = [start(tenant.get(f"{number}")) for number in range(CROWD)]
    await until(lambda: len(gated.writes) == MAX_WRITES and len(gated.gets) == MAX_READS)
    gated.open.set()
    await asyncio.gather(*writes, *reads)

    assert [len(groups) for groups in gated.writes] == [1, CROWD - 1]
    assert [len(groups) for groups in gated.gets] == [1, CROWD - 1], "all wait a moment for the first"
    assert len(await tenant.keys()) == CROWD


async def test_tenants_do_not_wait_for_one_another(gated: Gated, tenants: list[Tenant]) -> None:
    tasks = [start(tenant.write(put(f"{number}"))) for tenant in tenants for number in range(CROWD)]
    await until(lambda: len(gated.writes) == MAX_WRITES * 2)
    gated.open.set()
    await asyncio.gather(*tasks)
    assert len(gated.writes) == MAX_WRITES * 2 + 2


async def test_searches_do_not_hold_up_gets_and_few_run_at_a_time(gated: Gated, tenant: Tenant) -> None:
    searching = [start(tenant.found(search())) for _ in range(CROWD)]
    listed = start(tenant.read(get("k"), listing()))
    await until(lambda: len(gated.searches) == MAX_SEARCHES)
    got = start(tenant.get("k"))
    await until(lambda: gated.gets)
    assert len(gated.searches) == MAX_SEARCHES
    gated.open.set()
    await asyncio.gather(got, listed, *searching)
    assert [len(groups) for groups in gated.searches] == [1] * (CROWD + 1)


async def test_a_group_whose_time_passes_while_it_waits_is_not_started(gated: Gated, tenant: Tenant) -> None:
    waiting = [start(tenant.write(put(f"{number}"))) for number in range(MAX_WRITES)]
    searching = [start(tenant.found(search())) for _ in range(MAX_SEARCHES)]
    await until(lambda: len(gated.writes) == MAX_WRITES and len(gated.searches) == MAX_SEARCHES)
    (late,) = await tenant.apply(group(put("late"), by=operation(0.01)))
    assert isinstance(late, errors.DeadlineExceeded)
    (late_read,) = await tenant.store.read(tenant.id, [ReadGroup(operation(0.01), [search()])])
    assert isinstance(late_read, errors.DeadlineExceeded)
    gated.open.set()
    await asyncio.gather(*waiting, *searching)
    assert sorted(await tenant.keys()) == ["0"]


async def test_large_groups_do_not_share_a_call(gated: Gated, tenant: Tenant) -> None:
    large = '{"text": "' + "x" * (MAX_BYTES // 2) + '"}'
    tasks = [start(tenant.write(put(f"{number}", large))) for number in range(5)]
    await until(lambda: len(gated.writes) == MAX_WRITES)
    gated.open.set()
    await asyncio.gather(*tasks)
    assert max(len(groups) for groups in gated.writes) == 1


async def test_a_failing_call_fails_its_groups_and_no_later_ones(gated: Gated, tenant: Tenant) -> None:
    gated.failure = errors.Unavailable()
    gated.open.set()
    with pytest.raises(errors.Unavailable):
        await tenant.write(put("k"))
    with pytest.raises(errors.Unavailable):
        await tenant.found(search())
    gated.failure = None
    await tenant.write(put("k"))
    assert await tenant.keys() == ["k"]


async def test_a_stop_answers_who_waits(gated: Gated, queued: CoalescedItems, tenant: Tenant) -> None:
    tasks = [start(tenant.write(put(f"{number}"))) for number in range(CROWD)]
    await until(lambda: len(gated.writes) == MAX_WRITES)
    await queued.close()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(outcome, errors.Unavailable)
