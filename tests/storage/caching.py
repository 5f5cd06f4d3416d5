"""A store with the run's cache in front of it, and what is behind and in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

import redis.asyncio as redis
from tenure_server import errors
from tenure_server.domain import Blob, Head, TenantId
from tenure_server.storage.cached import CachedCheckpoints
from tenure_server.storage.memory import MemoryCheckpoints
from tenure_server.storage.redis_cache import RedisCache

from tests.storage.tenant import Stored, Tenant


class Counting(MemoryCheckpoints):
    """A store that counts the values and chunks asked of it, and can be held up or be away."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0
        self.chunks_asked = 0
        self.calls = 0
        self.asked = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.away = False

    async def bodies(self, tenant: TenantId, heads: Sequence[Head]) -> Sequence[Sequence[Blob | None] | None]:
        self.values += sum(len(head.values) for head in heads)
        await self._answer()
        return await super().bodies(tenant, heads)

    async def chunks(
        self, tenant: TenantId, wanted: Sequence[tuple[Head, Sequence[bytes]]]
    ) -> Sequence[Mapping[bytes, bytes] | None]:
        self.chunks_asked += sum(len(ids) for _, ids in wanted)
        await self._answer()
        return await super().chunks(tenant, wanted)

    async def _answer(self) -> None:
        self.calls += 1
        self.asked.set()
        await self.open.wait()
        if self.away:
            raise errors.Unavailable


class Cached:
    """A tenant whose store has a cache, and what is behind and in it."""

    def __init__(self, url: str) -> None:
        self.store = Counting()
        # A busy machine must not look like a Redis that is away: what is not stored in time is left out.
        self._cache = RedisCache(url, ttl=60.0, timeout=10.0)
        self.front = CachedCheckpoints(self.store, self._cache, inline_bytes=3)
        self.tenant = Tenant(self.front, TenantId(uuid4()))
        self.client = redis.Redis.from_url(url)

    async def filled(self) -> None:
        """Wait until what is being stored in the cache is there."""
        while (task := self.front._fills._task) is not None:
            await asyncio.wait([task])

    async def read(self, *name: str) -> Stored:
        """Read a checkpoint and wait until the cache knows it."""
        found = await self.tenant.one(*name)
        await self.filled()
        return found

    async def keys(self) -> list[bytes]:
        """Return the keys that Redis holds of the tenant."""
        return [key async for key in self.client.scan_iter(b"t?1:{%s*" % self.tenant.id.hex.encode())]


@asynccontextmanager
async def open_cached(url: str) -> AsyncIterator[Cached]:
    """Open a store behind a Redis."""
    opened = Cached(url)
    yield opened
    await opened.front.close()
    await opened._cache.close()
    await opened.client.aclose()
