"""The storages that keep the contract, each made ready for one test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

import pytest
from tenure_server.domain import TenantId
from tenure_server.storage.memory import MemoryCheckpoints
from tenure_server.storage.ports import CheckpointStore

from tests.harness.databases import Database as DatabaseNames

BACKENDS = ("memory", "postgres", "cached memory", "cached postgres")
INLINE_BYTES = 3
"""So small that most values of the tests take the way through `bodies` and Redis, but not all."""


@dataclass(frozen=True)
class Backend:
    """A storage and a way to make tenants in it."""

    store: CheckpointStore
    new_tenant: Callable[[], Awaitable[TenantId]]


@asynccontextmanager
async def open_backend(name: str, request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """Open one of `BACKENDS` on the session's Postgres and Redis."""
    async with AsyncExitStack() as stack:
        store: CheckpointStore
        if name.endswith("postgres"):
            from tenure_server.storage.postgres.checkpoints import PostgresCheckpoints
            from tenure_server.storage.postgres.pool import Database

            shared: DatabaseNames = request.getfixturevalue("contract_database")
            database = await Database.open(shared.app_url, max_size=4, application_name="tests")
            stack.push_async_callback(database.close)
            store = PostgresCheckpoints(database, inline_bytes=INLINE_BYTES)
            tenants = shared.tenants()

            async def new_tenant() -> TenantId:
                return await tenants.create_tenant("contract")
        else:
            store = MemoryCheckpoints()

            async def new_tenant() -> TenantId:
                return TenantId(uuid4())

        if name.startswith("cached"):
            from tenure_server.storage.cached import CachedCheckpoints
            from tenure_server.storage.redis_cache import RedisCache

            cache = RedisCache(request.getfixturevalue("redis_url"), ttl=60.0)
            stack.push_async_callback(cache.close)
            store = cached = CachedCheckpoints(store, cache, inline_bytes=INLINE_BYTES)
            stack.push_async_callback(cached.close)
        yield Backend(store, new_tenant)
