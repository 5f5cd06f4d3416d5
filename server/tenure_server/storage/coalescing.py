"""Checkpoints whose operations wait for one another: each tenant's go to the database in batches.

Each tenant has a queue for mutations and one for reads, so that a flooding tenant queues behind itself. See
`queues`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tenure_server import errors
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
from tenure_server.storage.ports import Answered, CheckpointStore
from tenure_server.storage.queues import MAX_READS, MAX_WRITES, TenantQueues, Waiting


@dataclass(frozen=True, slots=True)
class _Read:
    ref: CheckpointRef
    held: Sequence[HeldValue]


class CoalescedCheckpoints:
    """See `ports.CheckpointStore`.

    Delegates every other method by hand: one that is added to the contract and forgotten here is a type
    error.
    """

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._writes: TenantQueues[Mutation, errors.TenureError | None] = TenantQueues(
            self._write, calls=MAX_WRITES
        )
        self._reads: TenantQueues[_Read, Head | None] = TenantQueues(self._heads, calls=MAX_READS)

    async def close(self) -> None:
        """Give up what is under way."""
        await asyncio.gather(self._writes.close(), self._reads.close())

    async def write(
        self,
        tenant: TenantId,
        mutations: Sequence[Mutation],
        *,
        wait: bool = True,
        answered: Answered | None = None,
    ) -> Sequence[errors.TenureError | None]:
        return await self._writes.of(tenant).ask(
            [
                Waiting(mutation, _size(mutation), mutation.ref.thread_id, mutation.operation.deadline)
                for mutation in mutations
            ],
            answered,
        )

    async def _write(
        self, tenant: TenantId, mutations: Sequence[Mutation], wait: bool
    ) -> Sequence[errors.TenureError | None]:
        return await self._store.write(tenant, mutations, wait=wait)

    async def heads(
        self,
        tenant: TenantId,
        refs: Sequence[CheckpointRef],
        held: Sequence[Sequence[HeldValue]] = (),
    ) -> Sequence[Head | None]:
        return await self._reads.of(tenant).ask(
            [Waiting(_Read(ref, held[index] if held else ()), 0, None) for index, ref in enumerate(refs)]
        )

    async def _heads(self, tenant: TenantId, reads: Sequence[_Read], wait: bool) -> Sequence[Head | None]:
        return await self._store.heads(tenant, [read.ref for read in reads], [read.held for read in reads])

    async def bodies(self, tenant: TenantId, heads: Sequence[Head]) -> Sequence[Sequence[Blob | None] | None]:
        return await self._store.bodies(tenant, heads)

    async def chunks(
        self, tenant: TenantId, wanted: Sequence[tuple[Head, Sequence[bytes]]]
    ) -> Sequence[Mapping[bytes, bytes] | None]:
        return await self._store.chunks(tenant, wanted)

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


def _size(mutation: Mutation) -> int:
    """Return the bytes of payloads in a mutation, which are most of what it sends to the database."""
    if not isinstance(mutation, PutCheckpoint):
        return sum(len(write.value.data) for write in mutation.writes)
    size = len(mutation.body.data) + len(mutation.metadata)
    for new in mutation.new_values:
        if isinstance(new.value, ValueEdit):
            size += len(new.value.entries) + sum(map(len, new.value.chunks.values()))
        else:
            size += len(new.value.data)
    return size
