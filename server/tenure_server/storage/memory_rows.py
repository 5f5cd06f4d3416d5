"""The rows of a thread, as `memory` keeps them: dictionaries, and the rules by which they change."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID, uuid4

from tenure_server import chunks, errors
from tenure_server.domain import (
    EMPTY,
    Blob,
    Head,
    HeldValue,
    Mutation,
    PendingWrite,
    PutCheckpoint,
    Recipe,
    ValueEdit,
    ValueRef,
)

TASKS = "__pregel_tasks"
"""Channel of LangGraph's pending sends."""

_Stored = Blob | Recipe


@dataclass(slots=True)
class Namespace:
    """The rows of one namespace of a thread."""

    checkpoints: dict[str, PutCheckpoint] = field(default_factory=dict)
    values: dict[tuple[str, str], _Stored] = field(default_factory=dict)
    writes: dict[str, dict[tuple[str, int], PendingWrite]] = field(default_factory=dict)
    override: str | None = None

    def expanded(self, put: PutCheckpoint) -> list[_Stored]:
        """Return the new values of a put, in their order, as they are to be stored.

        Raises:
            ChunksMissing: The base of an edit is not stored, or the edit does not come out as it says.
        """
        return [
            new.value if isinstance(new.value, Blob) else self._expand(new.channel, new.value)
            for new in put.new_values
        ]

    def _expand(self, channel: str, edit: ValueEdit) -> Recipe:
        base, first, last = b"", 0, 0
        if edit.base is not None:
            stored = self.values.get((channel, edit.base.version))
            if not isinstance(stored, Recipe) or digest(stored) != edit.base.digest:
                raise errors.ChunksMissing
            base = stored.entries
            first, last = edit.keep_first * chunks.ENTRY_BYTES, edit.keep_last * chunks.ENTRY_BYTES
        if first + last > len(base):
            raise errors.ChunksMissing
        recipe = Recipe(edit.type, edit.header, base[:first] + edit.entries + base[len(base) - last :])
        if digest(recipe) != edit.digest:
            raise errors.ChunksMissing
        return recipe

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
        return again

    def value(self, checkpoint_id: str, channel: str) -> _Stored | None:
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
        counters = metadata(self.checkpoints[checkpoint_id]).get("counters_since_delta_snapshot")
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
                self.checkpoints[checkpoint_id] = put._replace(parent_checkpoint_id=None)
        held = {item for put in self.checkpoints.values() for item in put.channel_versions.items()}
        self.values = {key: value for key, value in self.values.items() if key in held}
        if self.override in doomed:
            self.override = None


@dataclass(slots=True)
class Thread:
    key: UUID = field(default_factory=uuid4)
    generation: int = 1
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    namespaces: defaultdict[str, Namespace] = field(default_factory=lambda: defaultdict(Namespace))
    chunks: dict[bytes, bytes] = field(default_factory=dict)
    lease_token: int = 0
    lease_until: datetime | None = None
    lease_holder: str = ""
    lease_operation: bytes | None = None
    single_writer: bool = False

    def has_another_writer(self, mutation: Mutation) -> bool:
        """Tell whether a mutation comes from a writer that is not, or no longer, the one of this thread."""
        token = mutation.lease_token
        if token is not None and token != self.lease_token:
            return True
        if token is None and self.lease_until is not None and self.lease_until > datetime.now(UTC):
            return True
        if not isinstance(mutation, PutCheckpoint):
            return False
        expected = mutation.expected_parent
        if expected is None:
            return self.single_writer and token is None
        namespace = self.namespaces[mutation.ref.checkpoint_ns]
        again = namespace.checkpoints.get(mutation.ref.checkpoint_id or "")
        if again is not None and (again.parent_checkpoint_id or "") == expected:
            return False
        return (namespace.latest() or "") != expected

    def end_lease(self) -> None:
        """End a lease, and its token with it."""
        self.lease_token += 1
        self.lease_until, self.lease_holder, self.lease_operation = None, "", None

    def put(self, put: PutCheckpoint, checkpoint_id: str) -> None:
        """Store a checkpoint with its values and their chunks.

        Without a token it ends a lease that has run out: the holder would go on from what it knew.

        Raises:
            ChunksMissing: See `Namespace.expanded`; nothing is stored.
        """
        namespace = self.namespaces[put.ref.checkpoint_ns]
        expanded = namespace.expanded(put)
        if put.lease_token is None and self.lease_until is not None:
            self.end_lease()
        if namespace.put(put, checkpoint_id):
            self.generation += 1
        for new, value in zip(put.new_values, expanded, strict=True):
            is_first = namespace.values.setdefault((new.channel, new.version), value) is value
            if is_first and isinstance(new.value, ValueEdit):
                for chunk_id, packed in new.value.chunks.items():
                    self.chunks.setdefault(chunk_id, packed)

    def free_chunks(self) -> None:
        """Remove the chunks that no value names."""
        named = {
            chunk
            for namespace in self.namespaces.values()
            for value in namespace.values.values()
            if isinstance(value, Recipe)
            for chunk in chunks.ids(value.entries)
        }
        self.chunks = {chunk: packed for chunk, packed in self.chunks.items() if chunk in named}

    def drop(self, doomed: Mapping[str, set[str]]) -> None:
        """Remove checkpoints by namespace, with all that only they held."""
        for checkpoint_ns, ids in doomed.items():
            self.namespaces[checkpoint_ns].drop(ids)
        self.free_chunks()
        self.generation += 1

    def copy(self) -> Thread:
        """Return another thread with the same rows."""
        copy = Thread(chunks=dict(self.chunks))
        for checkpoint_ns, namespace in self.namespaces.items():
            copy.namespaces[checkpoint_ns] = Namespace(
                dict(namespace.checkpoints),
                dict(namespace.values),
                {checkpoint_id: dict(writes) for checkpoint_id, writes in namespace.writes.items()},
                namespace.override,
            )
        return copy

    def whole(self, value: _Stored) -> Blob:
        """Return a value, put together if it is in chunks."""
        if isinstance(value, Blob):
            return value
        return Blob(value.type, chunks.assemble(value.header, value.entries, self.chunks))

    def head(
        self, thread_id: str, checkpoint_ns: str, checkpoint_id: str, held: Sequence[HeldValue] = ()
    ) -> Head:
        namespace = self.namespaces[checkpoint_ns]
        put = namespace.checkpoints[checkpoint_id]
        values = [
            _ref(channel, version, value)
            for channel, version in put.channel_versions.items()
            if (value := namespace.values.get((channel, version))) is not None and value.type != EMPTY
        ]
        current = {ref.channel: ref.digest for ref in values if ref.recipe is not None}
        bases = {
            base.channel: stored.entries
            for base in held
            if isinstance(stored := namespace.values.get((base.channel, base.version)), Recipe)
            and digest(stored) == base.digest
            and current.get(base.channel, base.digest) != base.digest
        }
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
            bases=bases,
        )


def digest(value: _Stored) -> bytes:
    """Return what a value is known by; see `ValueRef.digest`."""
    if isinstance(value, Blob):
        return value.digest()
    return chunks.recipe_digest(value.type, value.header, value.entries)


def _ref(channel: str, version: str, value: _Stored) -> ValueRef:
    if isinstance(value, Blob):
        return ValueRef(channel, version, value.digest(), len(value.data))
    return ValueRef(channel, version, digest(value), chunks.size(value.header, value.entries), value)


def metadata(put: PutCheckpoint) -> dict[str, object]:
    """Return the metadata of a checkpoint."""
    parsed: dict[str, object] = json.loads(put.metadata)
    return parsed


def keep_latest(thread: Thread) -> None:
    """Prune a thread; see `ports.CheckpointStore.prune_threads`."""
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
            parents = metadata(namespace.checkpoints[latest]).get("parents")
            caller = parents.get("") if isinstance(parents, dict) else None
            if isinstance(caller, str) and caller in root.checkpoints.keys() - keep[""]:
                keep[checkpoint_ns] = set()
    thread.drop({ns: thread.namespaces[ns].checkpoints.keys() - kept for ns, kept in keep.items()})
