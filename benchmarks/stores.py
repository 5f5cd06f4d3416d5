"""How a client process opens each system's store, what it looks for, and how it calls it in either colour."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from langchain_core.embeddings import Embeddings
from langgraph.store.base import BaseStore

from benchmarks.systems import POOL, Endpoint, System
from benchmarks.work import Work

DIMS = 384
EMBEDDER = "benchmark"
"""How Tenure knows the embedder."""

Vectors = Mapping[str, Sequence[float]]
"""What the embedder makes of texts."""


class Prepared(Embeddings):
    """An embedder that takes no time: it knows the vectors of all texts that it will be asked for."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = {text: list(vector) for text, vector in vectors.items()}

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self._vectors[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self._vectors[text]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        return self._vectors[text]


@asynccontextmanager
async def open_store(
    system: System, endpoint: Endpoint, vectors: Vectors | None = None
) -> AsyncIterator[BaseStore]:
    """Open a store for one client process. Packages of other systems are not imported.

    Args:
        system: Whose.
        endpoint: Where.
        vectors: What its embedder knows; None = it has none.
    """
    index: Any = None if vectors is None else index_config(vectors)
    if system.kind == "memory":
        from langgraph.store.memory import InMemoryStore

        yield InMemoryStore(index=index)
    elif system.kind == "tenure":
        from tenure_client import TenureStore

        # The other stores have no deadline: an overloaded one is to be slow here, too.
        async with TenureStore(
            endpoint.target, api_key=endpoint.api_key, ca=endpoint.ca, timeout=60.0, index=index
        ) as tenure:
            yield tenure
    elif system.kind == "postgres":
        # All connections at once: a pool that grows while it is measured would be at a disadvantage.
        pool: Any = {"min_size": POOL, "max_size": POOL}
        if system.blocking:
            from langgraph.store.postgres import PostgresStore

            with PostgresStore.from_conn_string(endpoint.target, pool_config=pool, index=index) as postgres:
                yield postgres
        else:
            from langgraph.store.postgres import AsyncPostgresStore

            async with AsyncPostgresStore.from_conn_string(
                endpoint.target, pool_config=pool, index=index
            ) as async_postgres:
                yield async_postgres
    else:
        raise NotImplementedError(f"{system.name} has no store here")


def index_config(vectors: Vectors) -> dict[str, Any]:
    """Return LangGraph's IndexConfig; the kind of PostgresStore's index is its default, HNSW."""
    return {"dims": DIMS, "embed": Prepared(vectors), "embedder": EMBEDDER, "fields": ["text"]}


def set_up_postgres_store(url: str, *, searchable: bool = False) -> None:
    """Make the tables of PostgresStore; those that are there stay."""
    from langgraph.store.postgres import PostgresStore

    index: Any = index_config({}) if searchable else None
    with PostgresStore.from_conn_string(url, index=index) as store:
        store.setup()


@dataclass(frozen=True)
class Query:
    """A search and its exact answer.

    Attributes:
        tenant: Number of the tenant; 0 is the large one.
        text / vector: What is searched.
        kind: Value that a filter wants; None = no filter.
        part: Namespace below which it searches; None = in all of the tenant's.
        nearest: Keys of the items that it should find.
    """

    tenant: int
    text: str
    vector: Sequence[float]
    kind: str | None
    part: str | None
    nearest: frozenset[str]


@dataclass(frozen=True)
class Call:
    """One call of a store.

    Attributes:
        method: Name of the blocking one.
        arguments / options: Positional ones and others.
    """

    method: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def now(self, store: BaseStore) -> Any:
        """Make it, blocking."""
        return getattr(store, self.method)(*self.arguments, **self.options)

    async def later(self, store: BaseStore) -> Any:
        """Make it."""
        return await getattr(store, f"a{self.method}")(*self.arguments, **self.options)


async def perform(
    store: BaseStore, clients: Sequence[Sequence[Call]], *, blocking: bool
) -> tuple[Work, list[list[Any]]]:
    """Make calls: those of one client one after another, clients at once, in tasks or threads of their own.

    Returns:
        What was done, and what each client's calls returned.
    """
    latencies: list[float] = []

    def now(calls: Sequence[Call]) -> list[Any]:
        results = []
        for call in calls:
            began = time.perf_counter()
            results.append(call.now(store))
            latencies.append(1000 * (time.perf_counter() - began))
        return results

    async def later(calls: Sequence[Call]) -> list[Any]:
        results = []
        for call in calls:
            began = time.perf_counter()
            results.append(await call.later(store))
            latencies.append(1000 * (time.perf_counter() - began))
        return results

    if blocking:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(len(clients)) as threads:
            started = time.monotonic()
            results = await asyncio.gather(*(loop.run_in_executor(threads, now, calls) for calls in clients))
            ended = time.monotonic()
    else:
        started = time.monotonic()
        results = await asyncio.gather(*map(later, clients))
        ended = time.monotonic()
    return Work(len(latencies), started, ended, latencies), results
