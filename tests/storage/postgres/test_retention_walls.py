"""Each of the two walls keeps retention within its tenant: policies, holds, pins, previews and sweeps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
from tenure_server.retention import Items

from tests.harness.databases import Database
from tests.storage.item_tenant import put as put_item
from tests.storage.postgres.walls import cut_predicates, drop_policies
from tests.storage.retained import DAY, Policy, Retained, Threads, opened
from tests.storage.tenant import put, put_writes


def no_predicates(database: Database) -> None:
    assert cut_predicates(database) > 80


def no_policies(database: Database) -> None:
    drop_policies(database)


@pytest.fixture(params=[no_predicates, no_policies], ids=["no predicates", "no policies"])
async def pair(
    request: pytest.FixtureRequest, database: Database
) -> AsyncIterator[tuple[Retained, Retained]]:
    """Two tenants with the same threads and items, in a database with one wall."""
    take_down: Callable[[Database], None] = request.param
    async with AsyncExitStack() as stack:
        tenants = [await stack.enter_async_context(opened(database)) for _ in range(2)]
        for tenant in tenants:
            for thread in ("t", "u"):
                await tenant.agent.write(
                    put(thread, "1", new={"c": b"1"}),
                    put(thread, "2", "1", new={"c": b"2"}, versions={"c": "2"}),
                )
                await tenant.agent.write(put_writes(thread, "1"))
            await tenant.items.write(put_item("a"), put_item("b"))
            await tenant.age("t", 2 * DAY)
            await tenant.age_items(2 * DAY, "a")
        take_down(database)
        yield tenants[0], tenants[1]


async def test_policies_reach_no_other_tenant(pair: tuple[Retained, Retained]) -> None:
    tenant, stranger = pair
    before = await stranger.rows(), await stranger.agent.stored(), sorted(await stranger.items.keys())
    await tenant.policy(keep_last=1, max_idle=DAY, max_bytes=0)
    await tenant.policy(Items(), item_ttl=DAY)
    assert (await stranger.preview(Policy(Threads("none"), keep_last=1))).bytes == 0
    preview = await tenant.preview()
    assert (preview.total, preview.items) == (4, 1)
    await tenant.sweep()
    assert (
        await stranger.rows(),
        await stranger.agent.stored(),
        sorted(await stranger.items.keys()),
    ) == before
    assert await tenant.agent.listing() == []
    assert await tenant.items.keys() == ["b"]


async def test_holds_and_pins_keep_nothing_of_another_tenant(pair: tuple[Retained, Retained]) -> None:
    tenant, stranger = pair
    await stranger.hold(None)
    await stranger.pin("t")
    await stranger.pin("u", "1")
    await tenant.policy(keep_last=1, max_idle=DAY)
    assert await tenant.agent.listing() == [("u", "", "2")]
    await tenant.agent.delete("u")
    assert await tenant.agent.threads() == []
