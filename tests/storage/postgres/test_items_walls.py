"""Each of the two walls between tenants holds alone for items; with both down the same uses see the leak."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from tenure_server.items import ItemVectors, Vector

from tests.harness.databases import Database
from tests.storage.item_tenant import INDEX, NS, OTHER, Tenant, delete, get, listing, opened, put, search
from tests.storage.postgres.walls import cut_predicates, drop_policies

Use = Callable[[Tenant], Awaitable[object]]
READS: dict[str, Use] = {
    "get": lambda tenant: tenant.get("k"),
    "search": lambda tenant: tenant.found(search()),
    "page": lambda tenant: tenant.found(search(offset=1)),
    "search by meaning": lambda tenant: tenant.found(search(vector=[1, 0])),
    "search by words": lambda tenant: tenant.found(search(text="tea")),
    "search by both": lambda tenant: tenant.found(search(vector=[1, 0], text="tea")),
    "listing": lambda tenant: tenant.namespaces(),
    "everything": lambda tenant: tenant.read(get("k"), search(), listing()),
    "index": lambda tenant: tenant.index(),
    "waiting": lambda tenant: tenant.waiting(),
}


async def _fill(tenant: Tenant) -> None:
    await tenant.write(
        put("k", {"n": 1}, vectors=[[1, 0]], text="tea", ttl=3600.0),
        put("l", {"n": 1}, vectors=[[1, 0]], text="tea"),
        put("waits"),
    )


async def _write(tenant: Tenant) -> None:
    await tenant.write(put("k", {"n": 2}, vectors=[[0, 1]]), delete("l"), put("new"))


async def _rebuild(tenant: Tenant) -> None:
    await tenant.set_index(OTHER)
    item = await tenant.get("k")
    if item is not None:
        await tenant.put_vectors(ItemVectors(NS, "k", item.updated_at, [Vector("$", [1, 1, 1])]), index=OTHER)


async def _touch(tenant: Tenant) -> None:
    await tenant.read(get("k", refresh=True), search(refresh=True))


CHANGES: dict[str, Use] = {"write": _write, "rebuild": _rebuild, "touch": _touch}


@pytest.fixture(params=[cut_predicates, drop_policies], ids=["no predicates", "no policies"])
async def pair(request: pytest.FixtureRequest, database: Database) -> AsyncIterator[list[Tenant]]:
    """Two tenants of a database with one wall."""
    request.param(database)
    async with opened(database, tenants=2) as tenants:
        yield tenants


@pytest.mark.parametrize("use", READS.values(), ids=READS)
async def test_a_stranger_sees_nothing(pair: list[Tenant], use: Use) -> None:
    tenant, stranger = pair
    absent = await use(stranger)
    await _fill(tenant)
    assert await use(tenant) != absent
    assert await use(stranger) == absent


@pytest.mark.parametrize("use", CHANGES.values(), ids=CHANGES)
async def test_a_stranger_changes_nothing(pair: list[Tenant], use: Use) -> None:
    tenant, stranger = pair
    await _fill(tenant)
    before = [await read(tenant) for read in READS.values()]
    await use(stranger)
    await use(stranger)
    assert [await read(tenant) for read in READS.values()] == before


@pytest.mark.parametrize("name", sorted(READS.keys() - {"index", "get"}))
async def test_with_both_walls_down_the_leak_is_seen(database: Database, name: str) -> None:
    cut_predicates(database)
    drop_policies(database)
    async with opened(database, tenants=2) as (tenant, stranger):
        await _fill(tenant)
        assert await READS[name](stranger) == await READS[name](tenant)


async def test_the_index_leaks_with_both_walls_down(database: Database) -> None:
    cut_predicates(database)
    drop_policies(database)
    async with opened(database, tenants=2) as (tenant, stranger):
        await _fill(tenant)
        assert (await stranger.index())[0] == INDEX
        assert await stranger.get("k") == await tenant.get("k")
