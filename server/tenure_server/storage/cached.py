"""Checkpoints with their larger channel values in Redis: Postgres decides, Redis supplies bytes.

Every read asks Postgres for the heads, which name each value by the digest of its bytes. Only the bytes may
come from Redis, and only if they hash to that digest; so the answer is the same whatever Redis holds, and
nothing has to be invalidated. See docs/cache.md.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any
from uuid import UUID

from tenure_server import errors
from tenure_server.domain import (
    Blob,
    ChannelHistory,
    CheckpointRef,
    Head,
    ListQuery,
    Mutation,
    Operation,
    PruneStrategy,
    PutCheckpoint,
    TenantId,
    Thread,
)
from tenure_server.storage.ports import CheckpointStore
from tenure_server.storage.redis_cache import RedisCache, ValueKey

MAX_VALUE_BYTES = 4 * 1024 * 1024
"""A larger value would push many others out, and moving it takes longer than finding it."""
_MAX_FILLS_PER_TENANT = 8
_LOAD_TIMEOUT = 10.0
"""A shared load outlives its callers, so it has a time of its own (SpiceDB #3142)."""


_LoadKey = tuple[TenantId, UUID, int, tuple[bytes, ...]]


class CachedCheckpoints:
    """See `ports.CheckpointStore`.

    Delegates every method by hand: one that is added to the contract and forgotten here is a type error,
    not a silent bypass.
    """

    def __init__(self, store: CheckpointStore, cache: RedisCache, *, inline_bytes: int) -> None:
        self._store = store
        self._cache = cache
        self._inline_bytes = inline_bytes
        self._loading: dict[_LoadKey, asyncio.Task[Sequence[Blob] | None]] = {}
        self._filling: Counter[TenantId] = Counter()
        self._background: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Give up loads and fills that still run, before the cache and the database are closed."""
        tasks = [*self._background, *self._loading.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def write(
        self, tenant: TenantId, mutations: Sequence[Mutation]
    ) -> Sequence[errors.TenureError | None]:
        outcomes = await self._store.write(tenant, mutations)
        entries = {
            ValueKey.of(tenant, mutation.ref.thread_id, new.value.digest()): new.value
            for mutation, error in zip(mutations, outcomes, strict=True)
            if error is None and isinstance(mutation, PutCheckpoint)
            for new in mutation.new_values
            if self._is_cached(new.value)
        }
        if entries:
            # Off the request's path: the next turn finds the values, this one does not wait.
            self._start_fill(tenant, self._cache.set(entries))
        return outcomes

    async def heads(self, tenant: TenantId, refs: Sequence[CheckpointRef]) -> Sequence[Head | None]:
        return await self._store.heads(tenant, refs)

    async def bodies(self, tenant: TenantId, heads: Sequence[Head]) -> Sequence[Sequence[Blob] | None]:
        keys = {
            ValueKey.of(tenant, head.thread_id, ref.digest)
            for head in heads
            for ref, value in zip(head.values, head.at_hand(), strict=True)
            if value is None and ref.size <= MAX_VALUE_BYTES
        }
        cached = await self._cache.get(list(keys))
        return await asyncio.gather(*(self._body(tenant, head, cached) for head in heads))

    async def _body(
        self, tenant: TenantId, head: Head, cached: Mapping[ValueKey, Blob]
    ) -> Sequence[Blob] | None:
        values = head.at_hand()
        for index, ref in enumerate(head.values):
            if values[index] is None:
                values[index] = cached.get(ValueKey.of(tenant, head.thread_id, ref.digest))
        missing = [index for index, value in enumerate(values) if value is None]
        if missing:
            loaded = await self._load(tenant, head, missing)
            if loaded is None:
                return None
            for index, value in zip(missing, loaded, strict=True):
                values[index] = value
        return [value for value in values if value is not None]

    async def _load(self, tenant: TenantId, head: Head, missing: Sequence[int]) -> Sequence[Blob] | None:
        """Read values from Postgres, once for all callers that want the same ones now."""
        wanted = [head.values[index] for index in missing]
        key = (tenant, head.thread_key, head.generation, tuple(ref.digest for ref in wanted))
        task = self._loading.get(key)
        if task is None:
            task = asyncio.create_task(self._load_and_fill(tenant, head, missing))
            self._loading[key] = task
            task.add_done_callback(lambda done: self._loaded(key, done))
        return await asyncio.shield(task)

    def _loaded(self, key: _LoadKey, task: asyncio.Task[Sequence[Blob] | None]) -> None:
        self._loading.pop(key, None)
        if not task.cancelled():
            task.exception()

    async def _load_and_fill(
        self, tenant: TenantId, head: Head, missing: Sequence[int]
    ) -> Sequence[Blob] | None:
        partial = head.only(missing)
        async with asyncio.timeout(_LOAD_TIMEOUT):
            (loaded,) = await self._store.bodies(tenant, [partial])
        if loaded is not None:
            entries = {
                ValueKey.of(tenant, head.thread_id, ref.digest): value
                for ref, value in zip(partial.values, loaded, strict=True)
                if self._is_cached(value)
            }
            self._start_fill(tenant, self._cache.set(entries))
        return loaded

    def _is_cached(self, value: Blob) -> bool:
        return self._inline_bytes < len(value.data) <= MAX_VALUE_BYTES

    def _start_fill(self, tenant: TenantId, work: Coroutine[Any, Any, None]) -> None:
        """Run a fill in the background; a tenant with too many loses this one, not its neighbours' time."""
        if self._filling[tenant] >= _MAX_FILLS_PER_TENANT:
            work.close()
            return
        self._filling[tenant] += 1
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(lambda done: self._filled(tenant, done))

    def _filled(self, tenant: TenantId, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        self._filling[tenant] -= 1
        if not self._filling[tenant]:
            del self._filling[tenant]

    async def list_heads(self, tenant: TenantId, query: ListQuery, limit: int) -> Sequence[Head]:
        return await self._store.list_heads(tenant, query, limit)

    async def channel_history(
        self, tenant: TenantId, ref: CheckpointRef, channels: Sequence[str]
    ) -> Mapping[str, ChannelHistory]:
        return await self._store.channel_history(tenant, ref, channels)

    async def list_threads(
        self, tenant: TenantId, prefix: str, after: str | None, limit: int
    ) -> Sequence[Thread]:
        return await self._store.list_threads(tenant, prefix, after, limit)

    async def delete_thread(self, tenant: TenantId, operation: Operation, thread_id: str) -> None:
        await self._store.delete_thread(tenant, operation, thread_id)

    async def delete_for_runs(self, tenant: TenantId, operation: Operation, run_ids: Sequence[str]) -> None:
        await self._store.delete_for_runs(tenant, operation, run_ids)

    async def copy_thread(self, tenant: TenantId, operation: Operation, source: str, target: str) -> None:
        await self._store.copy_thread(tenant, operation, source, target)

    async def prune_threads(
        self,
        tenant: TenantId,
        operation: Operation,
        thread_ids: Sequence[str],
        strategy: PruneStrategy,
    ) -> None:
        await self._store.prune_threads(tenant, operation, thread_ids, strategy)
