"""Semantic search in many items: how long it takes, and how much of what is nearest it finds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from langgraph.store.base import BaseStore

from benchmarks.stores import Call, Query, Vectors, open_store, perform, set_up_postgres_store
from benchmarks.systems import Endpoint, System
from benchmarks.work import Work
from benchmarks.workloads.base import Measure, Metric, Phases
from benchmarks.workloads.items import StoreWorkload

if TYPE_CHECKING:
    from benchmarks.bench import Bench, Phase

_BY = {"": "", "kind": ", filter", "part": ", namespace"}
"""What narrows a search, and how metrics say so."""
_WARM_UP = 20

_Open = Callable[[Vectors, str], Awaitable[BaseStore]]
"""Opens a tenant's store, given what its embedder knows and the tenant's key."""


@dataclass(frozen=True, kw_only=True)
class VectorSearches(StoreWorkload):
    """Searches of one tenant with many items, or of many small ones in turn.

    With Tenure each of them is a tenant. With PostgresStore they are namespaces of one store, since it has
    no tenants. Searches come one after another, narrowed by nothing, by a filter that a tenth of a tenant's
    items match, and by a namespace that holds a tenth.

    Attributes:
        large: Items of the one tenant; 0 = there are only small ones.
        tenants: Small ones, of 1,000 items each.
        searches: How many of each kind are measured.
        limit: Of each.
    """

    searches: int
    large: int = 0
    tenants: int = 0
    limit: int = 10
    operation: str = "search"

    @property
    def metrics(self) -> Sequence[Metric]:
        return [
            metric
            for narrowed in _BY.values()
            for metric in (
                Metric(f"p50{narrowed}", "ms"),
                Metric(f"recall@{self.limit}{narrowed}", "%", higher_is_better=True),
            )
        ]

    def open(self, system: System, endpoint: Endpoint) -> AbstractAsyncContextManager[_Open]:
        return _stores(system, endpoint)

    def prepare(self, bench: Bench) -> None:
        # Imports numpy, which a client has no use for.
        from benchmarks.collection import collection, load_postgres, load_tenure

        items = collection(self.large, self.tenants)
        assert bench.place.admin_url is not None
        if bench.system.kind == "postgres":
            set_up_postgres_store(bench.place.admin_url, searchable=True)
            load_postgres(bench.place.admin_url, items)
        else:
            bench.place.keys = load_tenure(bench.place.admin_url, items)

    def sample(self, bench: Bench, number: int) -> list[Measure]:
        from benchmarks.collection import collection

        items = collection(self.large, self.tenants)
        warm_up, *parts = [
            items.queries(small=self.large == 0, by=by, limit=self.limit, count=count, seed=seed)
            for seed, (by, count) in enumerate(
                [("", _WARM_UP), *((by, self.searches) for by in _BY)], start=100 * number
            )
        ]
        with bench.client(warm_up=warm_up, parts=parts, keys=bench.place.keys) as client:
            phases = [bench.measure(client) for _ in parts]
        measures = []
        for narrowed, queries, phase in zip(_BY.values(), parts, phases, strict=True):
            measures += [
                Measure(f"p50{narrowed}", phase.percentile(50), phase.cpu_ms),
                Measure(f"recall@{self.limit}{narrowed}", _recall(phase, queries)),
            ]
        return measures

    async def work(self, open_: _Open, /, *, blocking: bool, **options: Any) -> Phases:
        warm_up: Sequence[Query] = options["warm_up"]
        parts: Sequence[Sequence[Query]] = options["parts"]
        keys: Sequence[str] = options["keys"]
        vectors = {query.text: query.vector for part in (warm_up, *parts) for query in part}
        stores: dict[str, BaseStore] = {}

        async def search(queries: Sequence[Query]) -> Work:
            works, found = [], []
            for query in queries:
                key = keys[query.tenant] if keys else ""
                if key not in stores:
                    stores[key] = await open_(vectors, key)
                call = self._call(query, shared=not keys)
                work, ((items,),) = await perform(stores[key], [[call]], blocking=blocking)
                works.append(work)
                found.append([item.key for item in items])
            latencies = [latency for work in works for latency in work.latencies]
            return Work(len(works), works[0].started, works[-1].ended, latencies, {"found": found})

        # Everybody who will search does so once: connecting is not what is measured.
        firsts = {query.tenant: query for part in parts for query in part}
        await search([*firsts.values(), *warm_up])
        yield None
        for part in parts:
            yield await search(part)

    def _call(self, query: Query, *, shared: bool) -> Call:
        namespace: tuple[str, ...] = ("docs",) if query.part is None else ("docs", query.part)
        if shared:
            namespace = (f"tenant-{query.tenant}", *namespace)
        wanted = {"kind": query.kind} if query.kind else None
        return Call("search", (namespace,), {"query": query.text, "filter": wanted, "limit": self.limit})


def _recall(phase: Phase, queries: Sequence[Query]) -> float:
    """Return the percentage of the items that should have been found that were."""
    hits = sum(
        len(query.nearest & set(found)) for query, found in zip(queries, phase.extra["found"], strict=True)
    )
    return 100 * hits / sum(len(query.nearest) for query in queries)


@asynccontextmanager
async def _stores(system: System, endpoint: Endpoint) -> AsyncIterator[_Open]:
    async with AsyncExitStack() as opened:

        async def open_(vectors: Vectors, key: str) -> BaseStore:
            return await opened.enter_async_context(
                open_store(system, replace(endpoint, api_key=key), vectors)
            )

        yield open_
