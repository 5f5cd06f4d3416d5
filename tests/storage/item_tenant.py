"""One tenant's use of item storage, in the words that storage tests use."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

from tenure_server import errors
from tenure_server.domain import Operation, TenantId
from tenure_server.items import (
    DeleteItem,
    GetItem,
    Index,
    Item,
    ItemAnswer,
    ItemRead,
    ItemVectors,
    ItemWrite,
    ListNamespaces,
    MatchCondition,
    MatchType,
    Namespace,
    PutItem,
    ReadGroup,
    SearchItems,
    SearchMode,
    Unembedded,
    Vector,
    WriteGroup,
)
from tenure_server.storage.item_queues import CoalescedItems
from tenure_server.storage.memory_items import MemoryItems
from tenure_server.storage.ports import ItemStore
from tenure_server.storage.postgres import pool
from tenure_server.storage.postgres.items import PostgresItems

from tests.harness.databases import Database
from tests.storage.tenant import operation

STORES = ("memory", "postgres", "queued postgres")
INDEX, OTHER = Index(2, "letters"), Index(3, "words")
NS: Namespace = ("users", "ada")


def put(
    key: str,
    value: Mapping[str, object] | str | None = None,
    ns: Namespace = NS,
    *,
    vectors: Sequence[Sequence[float]] = (),
    **more: Any,
) -> PutItem:
    """Return a put; a vector is at the path of its number."""
    text = value if isinstance(value, str) else json.dumps({} if value is None else value)
    of_paths = [Vector(f"p{number}", values) for number, values in enumerate(vectors)]
    return PutItem(ns, key, text, vectors=of_paths, **more)


def delete(key: str, ns: Namespace = NS) -> DeleteItem:
    """Return a delete."""
    return DeleteItem(ns, key)


def get(key: str, ns: Namespace = NS, *, refresh: bool = False) -> GetItem:
    """Return a get."""
    return GetItem(ns, key, refresh)


def search(*prefix: str, limit: int = 1000, offset: int = 0, **more: Any) -> SearchItems:
    """Return a search, by meaning, words or both if it has a query."""
    vector, text = more.pop("vector", ()), more.pop("text", "")
    modes = {
        (False, False): SearchMode.NONE,
        (True, False): SearchMode.SEMANTIC,
        (False, True): SearchMode.KEYWORD,
        (True, True): SearchMode.HYBRID,
    }
    return SearchItems(
        prefix,
        more.get("filter", {}),
        limit,
        offset,
        more.get("refresh", False),
        modes[bool(vector), bool(text)],
        vector,
        text,
    )


def listing(
    *prefix: str,
    suffix: Sequence[str] = (),
    depth: int | None = None,
    limit: int = 1000,
    offset: int = 0,
) -> ListNamespaces:
    """Return a listing."""
    conditions = []
    if prefix:
        conditions.append(MatchCondition(MatchType.PREFIX, prefix))
    if suffix:
        conditions.append(MatchCondition(MatchType.SUFFIX, suffix))
    return ListNamespaces(conditions, depth, limit, offset)


def group(*writes: ItemWrite, index: Index | None = None, by: Operation | None = None) -> WriteGroup:
    """Return a group of writes, with the tests' index if it has vectors."""
    if any(isinstance(write, PutItem) and write.vectors for write in writes):
        index = index or INDEX
    return WriteGroup(by or operation(), writes, index)


class Tenant:
    """A tenant and the store it uses."""

    def __init__(self, store: ItemStore, id: TenantId) -> None:
        self.store = store
        self.id = id

    async def apply(self, *groups: WriteGroup) -> Sequence[errors.TenureError | None]:
        """Write groups and return the outcome of each."""
        return await self.store.write(self.id, groups)

    async def write(self, *writes: ItemWrite, index: Index | None = None) -> None:
        """Write a group that must succeed."""
        (error,) = await self.apply(group(*writes, index=index))
        if error is not None:
            raise error

    async def read(
        self, *reads: ItemRead, within: Sequence[Namespace] | None = None, index: Index | None = None
    ) -> Sequence[ItemAnswer]:
        """Read a group that must succeed."""
        (answers,) = await self.store.read(self.id, [ReadGroup(operation(), reads, within, index)])
        if isinstance(answers, errors.TenureError):
            raise answers
        return answers

    async def get(self, key: str, ns: Namespace = NS, *, refresh: bool = False) -> Item | None:
        """Return an item."""
        (item,) = await self.read(get(key, ns, refresh=refresh))
        assert item is None or isinstance(item, Item)
        return item

    async def value(self, key: str, ns: Namespace = NS) -> Any:
        """Return the value of an item, None if it is absent."""
        item = await self.get(key, ns)
        return None if item is None else json.loads(item.value)

    async def found(
        self, wanted: SearchItems, within: Sequence[Namespace] | None = None, index: Index | None = None
    ) -> list[Item]:
        """Return what a search finds."""
        (items,) = await self.read(wanted, within=within, index=index)
        assert isinstance(items, Sequence)
        return [item for item in items if isinstance(item, Item)]

    async def keys(self, *prefix: str, within: Sequence[Namespace] | None = None, **more: Any) -> list[str]:
        """Return the keys that a search finds."""
        return [item.key for item in await self.found(search(*prefix, **more), within)]

    async def namespaces(
        self, *prefix: str, within: Sequence[Namespace] | None = None, **more: Any
    ) -> list[Namespace]:
        """Return what a listing finds."""
        (found,) = await self.read(listing(*prefix, **more), within=within)
        assert isinstance(found, Sequence)
        return [one for one in found if isinstance(one, tuple)]

    async def index(self) -> tuple[Index | None, int]:
        """Return the index and how many items wait."""
        return await self.store.index(self.id)

    async def set_index(self, index: Index, by: Operation | None = None) -> int:
        """Change the index."""
        return await self.store.set_index(self.id, by or operation(), index)

    async def waiting(
        self, after: tuple[Namespace, str] | None = None, limit: int = 1000
    ) -> Sequence[Unembedded]:
        """Return what waits to be embedded."""
        return await self.store.unembedded(self.id, after, limit)

    async def put_vectors(
        self, *items: ItemVectors, index: Index = INDEX, by: Operation | None = None
    ) -> None:
        """Store vectors."""
        await self.store.put_vectors(self.id, by or operation(), index, items)


@asynccontextmanager
async def opened(database: Database, tenants: int = 1) -> AsyncIterator[list[Tenant]]:
    """Open new tenants of a database, on Postgres without a queue."""
    connected = await pool.Database.open(database.app_url, max_size=4, application_name="tests")
    store = PostgresItems(connected)
    try:
        yield [Tenant(store, await database.tenants().create_tenant("items")) for _ in range(tenants)]
    finally:
        await store.close()
        await connected.close()


@asynccontextmanager
async def two_tenants(name: str, database: Database | None) -> AsyncIterator[list[Tenant]]:
    """Open two new tenants of one of `STORES`; only the one in memory needs no database."""
    async with AsyncExitStack() as stack:
        if database is None:
            memory = MemoryItems()
            yield [Tenant(memory, TenantId(uuid4())) for _ in range(2)]
            return
        tenants = await stack.enter_async_context(opened(database, tenants=2))
        if name == "queued postgres":
            queued = CoalescedItems(tenants[0].store)
            stack.push_async_callback(queued.close)
            tenants = [Tenant(queued, tenant.id) for tenant in tenants]
        yield tenants
