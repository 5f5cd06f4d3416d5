"""Checkpoints with their larger channel values in Redis: Postgres decides, Redis supplies bytes.

Every read asks Postgres for the heads, which name each value by the digest of its bytes, and each chunk of a
large one by its id. Only the bytes may come from Redis, and only if they hash to that digest or id; so the
answer is the same whatever Redis holds, and nothing has to be invalidated. See docs/cache.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from tenure_server import errors
from tenure_server.chunks import entries
from tenure_server.domain import (
    Blob,
    ChannelHistory,
    CheckpointRef,
    Head,
    HeldValue,
    ListQuery,
    Mutation,
    Operation,
    PruneStrategy,
    PutCheckpoint,
    TenantId,
    Thread,
    ValueEdit,
)
from tenure_server.storage.cache_keys import ChunkKey, Key, ValueKey, scope_of
from tenure_server.storage.fills import Fills
from tenure_server.storage.flights import Flights
from tenure_server.storage.ports import Answered, CheckpointStore
from tenure_server.storage.redis_cache import RedisCache

MAX_VALUE_BYTES = 4 * 1024 * 1024
"""A larger value would push many others out, and moving it takes longer than finding it."""
_LOAD_TIMEOUT = 10.0
"""A shared load outlives its callers, so it has a time of its own (SpiceDB #3142)."""


class _Load(NamedTuple):
    """Names what is loaded: callers who want the same share it."""

    tenant: TenantId
    thread_key: UUID
    generation: int
    contents: tuple[bytes, ...]

    @classmethod
    def of(cls, tenant: TenantId, head: Head, contents: Iterable[bytes]) -> _Load:
        return cls(tenant, head.thread_key, head.generation, tuple(contents))


class CachedCheckpoints:
    """See `ports.CheckpointStore`.

    Delegates every method by hand: one that is added to the contract and forgotten here is a type error,
    not a silent bypass.
    """

    def __init__(self, store: CheckpointStore, cache: RedisCache, *, inline_bytes: int) -> None:
        self._store = store
        self._cache = cache
        self._inline_bytes = inline_bytes
        self._bodies = Flights(self._load_bodies)
        self._chunks = Flights(self._load_chunks)
        self._fills = Fills(cache)

    async def close(self) -> None:
        """Give up loads and fills that still run, before the cache and the database are closed."""
        loads = [*self._bodies.tasks(), *self._chunks.tasks()]
        for task in loads:
            task.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        await self._fills.close()

    async def write(
        self,
        tenant: TenantId,
        mutations: Sequence[Mutation],
        *,
        wait: bool = True,
        answered: Answered | None = None,
    ) -> Sequence[errors.TenureError | None]:
        outcomes = await self._store.write(tenant, mutations, wait=wait, answered=answered)
        # Off the request's path: the next turn finds them, this one does not wait.
        for mutation, error in zip(mutations, outcomes, strict=True):
            if error is None and isinstance(mutation, PutCheckpoint) and mutation.new_values:
                scope = scope_of(tenant, mutation.ref.thread_id)
                for new in mutation.new_values:
                    if isinstance(new.value, ValueEdit):
                        self._fill_chunks(tenant, scope, new.value.chunks, gather=True)
                    elif self._is_cached(new.value):
                        self._fill_value(tenant, scope, new.value.digest(), new.value, gather=True)
        return outcomes

    async def heads(
        self,
        tenant: TenantId,
        refs: Sequence[CheckpointRef],
        held: Sequence[Sequence[HeldValue]] = (),
    ) -> Sequence[Head | None]:
        return await self._store.heads(tenant, refs, held)

    async def bodies(self, tenant: TenantId, heads: Sequence[Head]) -> Sequence[Sequence[Blob | None] | None]:
        scopes = [scope_of(tenant, head.thread_id) for head in heads]
        sizes: dict[Key[Blob], int] = {
            ValueKey(scope, head.values[index].digest): head.values[index].size
            for head, scope in zip(heads, scopes, strict=True)
            for index in _to_fetch(head, head.at_hand())
            if head.values[index].size <= MAX_VALUE_BYTES
        }
        cached = await self._cache.get(sizes)
        found: list[list[Blob | None] | None] = []
        loads: dict[_Load, Head] = {}
        missing: dict[int, tuple[_Load, list[int]]] = {}
        for at, (head, scope) in enumerate(zip(heads, scopes, strict=True)):
            values = head.at_hand()
            for index in _to_fetch(head, values):
                values[index] = cached.get(ValueKey(scope, head.values[index].digest))
            found.append(values)
            if lacking := _to_fetch(head, values):
                load = _Load.of(tenant, head, (head.values[index].digest for index in lacking))
                loads[load] = head.only(lacking)
                missing[at] = load, lacking
        loaded = await self._bodies.get(loads)
        for at, (load, lacking) in missing.items():
            brought, known = loaded[load], found[at]
            if brought is None or known is None:
                found[at] = None
                continue
            for index, value in zip(lacking, brought, strict=True):
                known[index] = value
        return found

    async def chunks(
        self, tenant: TenantId, wanted: Sequence[tuple[Head, Sequence[bytes]]]
    ) -> Sequence[Mapping[bytes, bytes] | None]:
        scopes = [scope_of(tenant, head.thread_id) for head, _ in wanted]
        sizes: dict[Key[bytes], int] = {}
        for (head, ids), scope in zip(wanted, scopes, strict=True):
            lengths = _lengths(head)
            sizes |= {ChunkKey(scope, chunk): lengths.get(chunk, 0) for chunk in ids}
        cached = await self._cache.get(sizes)
        found: list[Mapping[bytes, bytes] | None] = []
        loads: dict[_Load, tuple[Head, Sequence[bytes]]] = {}
        missing: dict[int, tuple[_Load, dict[bytes, bytes]]] = {}
        for at, ((head, ids), scope) in enumerate(zip(wanted, scopes, strict=True)):
            looked_up = ((chunk, cached.get(ChunkKey(scope, chunk))) for chunk in ids)
            known = {chunk: data for chunk, data in looked_up if data is not None}
            found.append(known)
            if lacking := [chunk for chunk in ids if chunk not in known]:
                load = _Load.of(tenant, head, lacking)
                loads[load] = head, lacking
                missing[at] = load, known
        loaded = await self._chunks.get(loads)
        for at, (load, known) in missing.items():
            brought = loaded[load]
            found[at] = None if brought is None else known | dict(brought)
        return found

    async def _load_bodies(self, loads: Mapping[_Load, Head]) -> Mapping[_Load, Sequence[Blob | None] | None]:
        """Read values from Postgres and put them into the cache."""
        tenant = next(iter(loads)).tenant
        heads = list(loads.values())
        async with asyncio.timeout(_LOAD_TIMEOUT):
            loaded = await self._store.bodies(tenant, heads)
        for head, values in zip(heads, loaded, strict=True):
            scope = scope_of(tenant, head.thread_id)
            for ref, value in zip(head.values, values or (), strict=values is not None):
                if value is not None and self._is_cached(value):
                    self._fill_value(tenant, scope, ref.digest, value)
        return dict(zip(loads, loaded, strict=True))

    async def _load_chunks(
        self, loads: Mapping[_Load, tuple[Head, Sequence[bytes]]]
    ) -> Mapping[_Load, Mapping[bytes, bytes] | None]:
        """Read chunks from Postgres and put them into the cache."""
        tenant = next(iter(loads)).tenant
        wanted = list(loads.values())
        async with asyncio.timeout(_LOAD_TIMEOUT):
            loaded = await self._store.chunks(tenant, wanted)
        for (head, _), packed in zip(wanted, loaded, strict=True):
            self._fill_chunks(tenant, scope_of(tenant, head.thread_id), packed or {})
        return dict(zip(loads, loaded, strict=True))

    def _is_cached(self, value: Blob) -> bool:
        return self._inline_bytes < len(value.data) <= MAX_VALUE_BYTES

    def _fill_value(
        self, tenant: TenantId, scope: bytes, digest: bytes, value: Blob, *, gather: bool = False
    ) -> None:
        self._fills.add(tenant, {ValueKey(scope, digest): value}, len(value.data), gather=gather)

    def _fill_chunks(
        self, tenant: TenantId, scope: bytes, packed: Mapping[bytes, bytes], *, gather: bool = False
    ) -> None:
        entries: dict[Key[bytes], bytes] = {ChunkKey(scope, chunk): data for chunk, data in packed.items()}
        self._fills.add(tenant, entries, sum(map(len, packed.values())), gather=gather)

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


def _to_fetch(head: Head, values: Sequence[Blob | None]) -> list[int]:
    """Return the indexes of the values that are stored whole and are not at hand."""
    return [
        index
        for index, (ref, value) in enumerate(zip(head.values, values, strict=True))
        if value is None and ref.recipe is None
    ]


def _lengths(head: Head) -> dict[bytes, int]:
    """Return the raw length of each chunk of a head, about what it has packed at most."""
    return {
        chunk: length
        for value in head.values
        if value.recipe is not None
        for chunk, length in entries(value.recipe.entries)
    }
