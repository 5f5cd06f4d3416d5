"""The storage contract on dictionaries: the reference for tests and `tenure dev --memory`.

It keeps nothing on disk and has no quotas. Being the reference, it prefers the plainest code to the fastest.
Python compares text by code points, which is the bytewise order of its UTF-8.
"""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

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
    PutWrites,
    Scope,
    StoredKey,
    TenantId,
    Thread,
)
from tenure_server.keys import ApiKey
from tenure_server.rules import Rules
from tenure_server.storage.memory_rows import Thread as ThreadRows
from tenure_server.storage.memory_rows import keep_latest, metadata
from tenure_server.storage.ports import Answered


class MemoryCheckpoints:
    """See `ports.CheckpointStore`."""

    def __init__(self) -> None:
        self._tenants: defaultdict[TenantId, dict[str, ThreadRows]] = defaultdict(dict)
        self._operations: dict[tuple[TenantId, bytes], tuple[bytes, Exception | None]] = {}

    def threads(self, tenant: TenantId) -> dict[str, ThreadRows]:
        """Return the threads of a tenant by their ids."""
        return self._tenants[tenant]

    async def write(
        self,
        tenant: TenantId,
        mutations: Sequence[Mutation],
        *,
        wait: bool = True,
        answered: Answered | None = None,
    ) -> Sequence[errors.TenureError | None]:
        return [self._apply(tenant, mutation) for mutation in mutations]

    def _apply(self, tenant: TenantId, mutation: Mutation) -> errors.TenureError | None:
        if time.monotonic() >= mutation.operation.deadline:
            return errors.DeadlineExceeded()
        thread = self._tenants[tenant].get(mutation.ref.thread_id) or ThreadRows()
        checkpoint_id = mutation.ref.checkpoint_id
        assert checkpoint_id is not None
        if thread.has_another_writer(mutation):
            return errors.StaleWriter()
        if isinstance(mutation, PutWrites):
            writes = thread.namespaces[mutation.ref.checkpoint_ns].writes.setdefault(checkpoint_id, {})
            for write in mutation.writes:
                if write.idx < 0 or (write.task_id, write.idx) not in writes:
                    writes[write.task_id, write.idx] = write
        else:
            try:
                thread.put(mutation, checkpoint_id)
            except errors.ChunksMissing as error:
                return error
        self._tenants[tenant][mutation.ref.thread_id] = thread
        return None

    async def heads(
        self,
        tenant: TenantId,
        refs: Sequence[CheckpointRef],
        held: Sequence[Sequence[HeldValue]] = (),
    ) -> Sequence[Head | None]:
        return [
            self._head(tenant, ref, of_ref)
            for ref, of_ref in zip(refs, held or [()] * len(refs), strict=True)
        ]

    def _head(self, tenant: TenantId, ref: CheckpointRef, held: Sequence[HeldValue] = ()) -> Head | None:
        thread = self._tenants[tenant].get(ref.thread_id)
        if thread is None:
            return None
        namespace = thread.namespaces[ref.checkpoint_ns]
        checkpoint_id = ref.checkpoint_id or namespace.latest()
        if checkpoint_id not in namespace.checkpoints:
            return None
        return thread.head(ref.thread_id, ref.checkpoint_ns, checkpoint_id, held)

    async def bodies(self, tenant: TenantId, heads: Sequence[Head]) -> Sequence[Sequence[Blob | None] | None]:
        return [self._body(tenant, head) for head in heads]

    def _body(self, tenant: TenantId, head: Head) -> Sequence[Blob | None] | None:
        thread = self._same(tenant, head)
        if thread is None:
            return None
        values = thread.namespaces[head.checkpoint_ns].values
        found = [values[ref.channel, ref.version] for ref in head.values]
        return [value if isinstance(value, Blob) else None for value in found]

    async def chunks(
        self, tenant: TenantId, wanted: Sequence[tuple[Head, Sequence[bytes]]]
    ) -> Sequence[Mapping[bytes, bytes] | None]:
        return [self._chunks(tenant, head, chunk_ids) for head, chunk_ids in wanted]

    def _chunks(
        self, tenant: TenantId, head: Head, chunk_ids: Sequence[bytes]
    ) -> Mapping[bytes, bytes] | None:
        stored = thread.chunks if (thread := self._same(tenant, head)) else {}
        if not all(chunk_id in stored for chunk_id in chunk_ids):
            return None
        return {chunk_id: stored[chunk_id] for chunk_id in chunk_ids}

    def _same(self, tenant: TenantId, head: Head) -> ThreadRows | None:
        """Return the thread of a head unless it has another generation by now."""
        thread = self._tenants[tenant].get(head.thread_id)
        if thread is None or (thread.key, thread.generation) != (head.thread_key, head.generation):
            return None
        return thread

    async def list_heads(self, tenant: TenantId, query: ListQuery, limit: int) -> Sequence[Head]:
        found = [
            (checkpoint_id, thread_id, checkpoint_ns)
            for thread_id, thread in self._tenants[tenant].items()
            if query.thread_id is None or thread_id == query.thread_id
            for checkpoint_ns, namespace in thread.namespaces.items()
            if query.checkpoint_ns is None or checkpoint_ns == query.checkpoint_ns
            for checkpoint_id, put in namespace.checkpoints.items()
            if (query.checkpoint_id is None or checkpoint_id == query.checkpoint_id)
            and (query.before is None or checkpoint_id < query.before)
            and _matches(metadata(put), query.filter)
        ]
        found.sort(key=lambda position: position[1:])
        found.sort(key=lambda position: position[0], reverse=True)
        found = [position for position in found if query.after is None or _is_after(position, query.after)]
        return [
            self._tenants[tenant][thread_id].head(thread_id, checkpoint_ns, checkpoint_id)
            for checkpoint_id, thread_id, checkpoint_ns in found[:limit]
        ]

    async def channel_history(
        self, tenant: TenantId, ref: CheckpointRef, channels: Sequence[str]
    ) -> Mapping[str, ChannelHistory]:
        target = self._head(tenant, ref)
        if target is None:
            return {channel: ChannelHistory([], None) for channel in channels}
        thread = self._tenants[tenant][ref.thread_id]
        namespace = thread.namespaces[ref.checkpoint_ns]
        histories = {}
        for channel in channels:
            writes: list[tuple[str, Blob]] = []
            seed = None
            for ancestor in namespace.ancestors(target.checkpoint_id):
                writes += [
                    (write.task_id, write.value)
                    for write in reversed(namespace.pending(ancestor))
                    if write.channel == channel
                ]
                seed = namespace.value(ancestor, channel)
                if seed is not None:
                    break
            histories[channel] = ChannelHistory(writes, None if seed is None else thread.whole(seed))
        return histories

    async def list_threads(
        self, tenant: TenantId, prefix: str, after: str | None, limit: int
    ) -> Sequence[Thread]:
        return [
            Thread(thread_id, thread.created_at)
            for thread_id, thread in sorted(self._tenants[tenant].items(), key=lambda item: item[0])
            if thread_id.startswith(prefix) and (after is None or thread_id > after)
        ][:limit]

    async def delete_thread(self, tenant: TenantId, operation: Operation, thread_id: str) -> None:
        if self._done_before(tenant, operation):
            return
        self._tenants[tenant].pop(thread_id, None)
        self._record(tenant, operation)

    async def delete_for_runs(self, tenant: TenantId, operation: Operation, run_ids: Sequence[str]) -> None:
        if self._done_before(tenant, operation):
            return
        refused = 0
        for thread in self._tenants[tenant].values():
            doomed = {
                checkpoint_ns: {i for i, put in namespace.checkpoints.items() if put.run_id in run_ids}
                for checkpoint_ns, namespace in thread.namespaces.items()
            }
            if not any(doomed.values()):
                continue
            if any(
                namespace.delta_needs(checkpoint_id) & doomed[checkpoint_ns]
                for checkpoint_ns, namespace in thread.namespaces.items()
                for checkpoint_id in namespace.checkpoints.keys() - doomed[checkpoint_ns]
            ):
                refused += 1
                continue
            thread.drop(doomed)
        self._record(tenant, operation, errors.DeltaChannelInUse(refused) if refused else None)

    async def copy_thread(self, tenant: TenantId, operation: Operation, source: str, target: str) -> None:
        if self._done_before(tenant, operation):
            return
        threads = self._tenants[tenant]
        if source not in threads:
            self._record(tenant, operation, errors.ThreadNotFound())
        if target in threads:
            self._record(tenant, operation, errors.ThreadExists())
        threads[target] = threads[source].copy()
        self._record(tenant, operation)

    async def prune_threads(
        self,
        tenant: TenantId,
        operation: Operation,
        thread_ids: Sequence[str],
        strategy: PruneStrategy,
    ) -> None:
        if self._done_before(tenant, operation):
            return
        for thread_id in thread_ids:
            thread = self._tenants[tenant].get(thread_id)
            if thread is not None and strategy is PruneStrategy.KEEP_LATEST:
                keep_latest(thread)
            elif thread is not None:
                del self._tenants[tenant][thread_id]
        self._record(tenant, operation)

    def _done_before(self, tenant: TenantId, operation: Operation) -> bool:
        if time.monotonic() >= operation.deadline:
            raise errors.DeadlineExceeded
        digest, refusal = self._operations.get((tenant, operation.operation_id), (None, None))
        if digest is not None and digest != operation.digest:
            raise errors.OperationMismatch
        if refusal is not None:
            raise refusal
        return digest is not None

    def _record(self, tenant: TenantId, operation: Operation, refusal: Exception | None = None) -> None:
        self._operations[tenant, operation.operation_id] = operation.digest, refusal
        if refusal is not None:
            raise refusal


class MemoryTenants:
    """See `ports.KeyStore` and `ports.TenantAdmin`."""

    def __init__(self) -> None:
        self._tenants: set[TenantId] = set()
        self._keys: dict[tuple[TenantId, str], StoredKey] = {}

    async def find_key(self, tenant: TenantId, key_id: str) -> StoredKey | None:
        return self._keys.get((tenant, key_id))

    async def mark_used(self, tenant: TenantId, key_id: str) -> None:
        return

    async def create_tenant(self, name: str) -> TenantId:
        tenant = TenantId(uuid4())
        self._tenants.add(tenant)
        return tenant

    async def create_key(
        self,
        tenant: TenantId,
        scopes: frozenset[Scope],
        expires_in: float | None = None,
        *,
        rules: Rules | None = None,
    ) -> str:
        if tenant not in self._tenants:
            raise errors.InvalidField("tenant", "there is no such tenant")
        key = ApiKey.generate(tenant)
        expires_at = None if expires_in is None else datetime.now(UTC) + timedelta(seconds=expires_in)
        self._keys[tenant, key.key_id] = StoredKey(
            tenant, key.key_id, key.digest(), scopes, expires_at, rules=rules
        )
        return key.text()

    async def revoke_key(self, tenant: TenantId, key_id: str) -> bool:
        key = self._keys.get((tenant, key_id))
        if key is not None:
            self._keys[tenant, key_id] = dataclasses.replace(key, revoked_at=datetime.now(UTC))
        return key is not None


def _matches(metadata: Mapping[str, object], filter: Mapping[str, object]) -> bool:
    return all(metadata.get(key) == value for key, value in filter.items())


def _is_after(position: tuple[str, str, str], after: tuple[str, str, str]) -> bool:
    """Tell whether a position follows another: id descending, then thread and namespace ascending."""
    return position[0] < after[0] or (position[0] == after[0] and position[1:] > after[1:])
