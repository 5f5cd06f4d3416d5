"""The storage contract on dictionaries: the reference for tests and `tenure dev --memory`.

It keeps nothing on disk. Being the reference, it prefers the plainest code to the fastest. Python compares
text by code points, which is the bytewise order of its UTF-8.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from tenure_server import errors
from tenure_server.domain import (
    EMPTY,
    Blob,
    ChannelHistory,
    CheckpointRef,
    Head,
    ListQuery,
    Mutation,
    Operation,
    PendingWrite,
    PruneStrategy,
    PutCheckpoint,
    PutWrites,
    Scope,
    StoredKey,
    TenantId,
    Thread,
    ValueRef,
)
from tenure_server.keys import ApiKey

TASKS = "__pregel_tasks"
"""Channel of LangGraph's pending sends."""


@dataclass(slots=True)
class _Namespace:
    """The rows of one namespace of a thread."""

    checkpoints: dict[str, PutCheckpoint] = field(default_factory=dict)
    values: dict[tuple[str, str], Blob] = field(default_factory=dict)
    writes: dict[str, dict[tuple[str, int], PendingWrite]] = field(default_factory=dict)
    override: str | None = None

    def latest(self) -> str | None:
        return self.override or max(self.checkpoints, default=None)

    def put(self, put: PutCheckpoint, checkpoint_id: str) -> bool:
        """Store a checkpoint; True if its id was stored before."""
        again = checkpoint_id in self.checkpoints
        if not again:
            greatest = max(self.checkpoints, default="")
            if checkpoint_id > greatest:
                self.override = None
            elif put.parent_checkpoint_id is not None and put.parent_checkpoint_id == self.latest():
                self.override = checkpoint_id
        self.checkpoints[checkpoint_id] = put
        for new in put.new_values:
            self.values.setdefault((new.channel, new.version), new.value)
        return again

    def value(self, checkpoint_id: str, channel: str) -> Blob | None:
        """Return what a checkpoint holds for a channel, None if nothing."""
        version = self.checkpoints[checkpoint_id].channel_versions.get(channel)
        value = None if version is None else self.values.get((channel, version))
        return None if value is None or value.type == EMPTY else value

    def pending(self, checkpoint_id: str) -> list[PendingWrite]:
        writes = self.writes.get(checkpoint_id, {}).values()
        return sorted(writes, key=lambda write: (write.task_path, write.task_id, write.idx))

    def ancestors(self, checkpoint_id: str) -> Iterator[str]:
        """Yield the stored ancestors, nearest first; parents that form a circle are walked once."""
        seen = {checkpoint_id}
        current = self.checkpoints[checkpoint_id].parent_checkpoint_id
        while current is not None and current in self.checkpoints and current not in seen:
            yield current
            seen.add(current)
            current = self.checkpoints[current].parent_checkpoint_id

    def delta_needs(self, checkpoint_id: str) -> set[str]:
        """Return the ancestors from which the checkpoint's DeltaChannels are rebuilt."""
        counters = _metadata(self.checkpoints[checkpoint_id]).get("counters_since_delta_snapshot")
        needed: set[str] = set()
        for channel in counters if isinstance(counters, dict) else ():
            if self.value(checkpoint_id, channel) is not None:
                continue
            for ancestor in self.ancestors(checkpoint_id):
                needed.add(ancestor)
                if self.value(ancestor, channel) is not None:
                    break
        return needed

    def sends_parent(self, checkpoint_id: str) -> set[str]:
        """Return the parent that holds the pending sends of a checkpoint before format 4."""
        put = self.checkpoints[checkpoint_id]
        parent = put.parent_checkpoint_id
        if put.format_version >= 4 or parent is None:
            return set()
        return {parent} if any(write.channel == TASKS for write in self.pending(parent)) else set()

    def drop(self, doomed: set[str]) -> None:
        """Remove checkpoints, their pending writes, and values that only they held."""
        for checkpoint_id in doomed:
            del self.checkpoints[checkpoint_id]
            self.writes.pop(checkpoint_id, None)
        for checkpoint_id, put in self.checkpoints.items():
            if put.parent_checkpoint_id in doomed:
                self.checkpoints[checkpoint_id] = dataclasses.replace(put, parent_checkpoint_id=None)
        held = {item for put in self.checkpoints.values() for item in put.channel_versions.items()}
        self.values = {key: value for key, value in self.values.items() if key in held}
        if self.override in doomed:
            self.override = None


@dataclass(slots=True)
class _Thread:
    key: UUID = field(default_factory=uuid4)
    generation: int = 1
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    namespaces: defaultdict[str, _Namespace] = field(default_factory=lambda: defaultdict(_Namespace))

    def head(self, thread_id: str, checkpoint_ns: str, checkpoint_id: str) -> Head:
        namespace = self.namespaces[checkpoint_ns]
        put = namespace.checkpoints[checkpoint_id]
        values = [
            ValueRef(channel, version, value.digest(), len(value.data))
            for channel, version in put.channel_versions.items()
            if (value := namespace.values.get((channel, version))) is not None and value.type != EMPTY
        ]
        return Head(
            thread_id,
            self.key,
            self.generation,
            checkpoint_ns,
            checkpoint_id,
            put.parent_checkpoint_id,
            put.body,
            put.metadata,
            values,
            namespace.pending(checkpoint_id),
        )


class MemoryCheckpoints:
    """See `ports.CheckpointStore`."""

    def __init__(self) -> None:
        self._tenants: defaultdict[TenantId, dict[str, _Thread]] = defaultdict(dict)
        self._operations: dict[tuple[TenantId, bytes], tuple[bytes, Exception | None]] = {}

    async def write(
        self, tenant: TenantId, mutations: Sequence[Mutation]
    ) -> Sequence[errors.TenureError | None]:
        return [self._apply(tenant, mutation) for mutation in mutations]

    def _apply(self, tenant: TenantId, mutation: Mutation) -> errors.TenureError | None:
        if time.monotonic() >= mutation.operation.deadline:
            return errors.DeadlineExceeded()
        thread = self._tenants[tenant].setdefault(mutation.ref.thread_id, _Thread())
        namespace = thread.namespaces[mutation.ref.checkpoint_ns]
        checkpoint_id = mutation.ref.checkpoint_id
        assert checkpoint_id is not None
        if isinstance(mutation, PutWrites):
            writes = namespace.writes.setdefault(checkpoint_id, {})
            for write in mutation.writes:
                if write.idx < 0 or (write.task_id, write.idx) not in writes:
                    writes[write.task_id, write.idx] = write
        elif namespace.put(mutation, checkpoint_id):
            thread.generation += 1
        return None

    async def heads(self, tenant: TenantId, refs: Sequence[CheckpointRef]) -> Sequence[Head | None]:
        return [self._head(tenant, ref) for ref in refs]

    def _head(self, tenant: TenantId, ref: CheckpointRef) -> Head | None:
        thread = self._tenants[tenant].get(ref.thread_id)
        if thread is None:
            return None
        namespace = thread.namespaces[ref.checkpoint_ns]
        checkpoint_id = ref.checkpoint_id or namespace.latest()
        if checkpoint_id not in namespace.checkpoints:
            return None
        return thread.head(ref.thread_id, ref.checkpoint_ns, checkpoint_id)

    async def bodies(self, tenant: TenantId, heads: Sequence[Head]) -> Sequence[Sequence[Blob] | None]:
        return [self._body(tenant, head) for head in heads]

    def _body(self, tenant: TenantId, head: Head) -> Sequence[Blob] | None:
        thread = self._tenants[tenant].get(head.thread_id)
        if thread is None or (thread.key, thread.generation) != (head.thread_key, head.generation):
            return None
        values = thread.namespaces[head.checkpoint_ns].values
        return [values[value.channel, value.version] for value in head.values]

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
            and _matches(_metadata(put), query.filter)
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
        namespace = self._tenants[tenant][ref.thread_id].namespaces[ref.checkpoint_ns]
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
            histories[channel] = ChannelHistory(writes, seed)
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
            for checkpoint_ns, ids in doomed.items():
                thread.namespaces[checkpoint_ns].drop(ids)
            thread.generation += 1
        self._record(tenant, operation, errors.DeltaChannelInUse(refused) if refused else None)

    async def copy_thread(self, tenant: TenantId, operation: Operation, source: str, target: str) -> None:
        if self._done_before(tenant, operation):
            return
        threads = self._tenants[tenant]
        if source not in threads:
            self._record(tenant, operation, errors.ThreadNotFound())
        if target in threads:
            self._record(tenant, operation, errors.ThreadExists())
        copy = _Thread()
        for checkpoint_ns, namespace in threads[source].namespaces.items():
            copy.namespaces[checkpoint_ns] = _Namespace(
                dict(namespace.checkpoints),
                dict(namespace.values),
                {checkpoint_id: dict(writes) for checkpoint_id, writes in namespace.writes.items()},
                namespace.override,
            )
        threads[target] = copy
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
                _keep_latest(thread)
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

    async def create_tenant(self, name: str) -> TenantId:
        tenant = TenantId(uuid4())
        self._tenants.add(tenant)
        return tenant

    async def create_key(
        self, tenant: TenantId, scopes: frozenset[Scope], expires_in: float | None = None
    ) -> str:
        if tenant not in self._tenants:
            raise errors.InvalidField("tenant", "there is no such tenant")
        key = ApiKey.generate(tenant)
        expires_at = None if expires_in is None else datetime.now(UTC) + timedelta(seconds=expires_in)
        self._keys[tenant, key.key_id] = StoredKey(tenant, key.key_id, key.digest(), scopes, expires_at)
        return key.text()

    async def revoke_key(self, tenant: TenantId, key_id: str) -> bool:
        key = self._keys.get((tenant, key_id))
        if key is not None:
            self._keys[tenant, key_id] = dataclasses.replace(key, revoked_at=datetime.now(UTC))
        return key is not None


def _metadata(put: PutCheckpoint) -> dict[str, object]:
    metadata: dict[str, object] = json.loads(put.metadata)
    return metadata


def _matches(metadata: Mapping[str, object], filter: Mapping[str, object]) -> bool:
    return all(metadata.get(key) == value for key, value in filter.items())


def _is_after(position: tuple[str, str, str], after: tuple[str, str, str]) -> bool:
    """Tell whether a position follows another: id descending, then thread and namespace ascending."""
    return position[0] < after[0] or (position[0] == after[0] and position[1:] > after[1:])


def _keep_latest(thread: _Thread) -> None:
    root = thread.namespaces[""]
    keep: dict[str, set[str]] = {}
    for checkpoint_ns, namespace in thread.namespaces.items():
        latest = namespace.latest()
        keep[checkpoint_ns] = set() if latest is None else {latest} | namespace.delta_needs(latest)
        for checkpoint_id in list(keep[checkpoint_ns]):
            keep[checkpoint_ns] |= namespace.sends_parent(checkpoint_id)
    for checkpoint_ns, namespace in thread.namespaces.items():
        latest = namespace.latest()
        if ":" in checkpoint_ns and latest is not None:
            parents = _metadata(namespace.checkpoints[latest]).get("parents")
            caller = parents.get("") if isinstance(parents, dict) else None
            if isinstance(caller, str) and caller in root.checkpoints.keys() - keep[""]:
                keep[checkpoint_ns] = set()
    for checkpoint_ns, namespace in thread.namespaces.items():
        namespace.drop(namespace.checkpoints.keys() - keep[checkpoint_ns])
    thread.generation += 1
