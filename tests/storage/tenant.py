"""One tenant's use of a store, in the words that storage tests use.

Mutations are made by the server's own request validation, so that what the store gets (run id, members to
filter by) is what it gets in production. Reads go through the server's own `complete`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import common_pb2
from tenure_server import errors
from tenure_server.domain import (
    EMPTY,
    Blob,
    ChannelHistory,
    Checkpoint,
    CheckpointRef,
    Head,
    ListQuery,
    Mutation,
    Operation,
    PendingWrite,
    PruneStrategy,
    TenantId,
)
from tenure_server.limits import Limits
from tenure_server.services.reading import complete
from tenure_server.storage.ports import CheckpointStore
from tenure_server.wire.requests import Requests
from tenure_server.wire.telling import WHOLE

_requests = Requests(Limits())


@dataclass(frozen=True)
class Write:
    """A pending write, with what most tests do not care about filled in."""

    channel: str = "messages"
    data: bytes = b"w"
    task: str = "task"
    idx: int = 0
    path: str = ""


@dataclass(frozen=True)
class Stored:
    """A checkpoint as a caller sees it: without what only means something inside one store."""

    thread: str
    ns: str
    id: str
    parent: str | None
    body: bytes
    metadata: str
    values: Mapping[str, tuple[str, bytes]]
    writes: Sequence[Write]


def operation(seconds: float = 30.0, *, digest: bytes = b"d" * 32, id: bytes | None = None) -> Operation:
    """Return the operation of a mutation with `seconds` left; a new one unless the id is given."""
    return Operation(id or os.urandom(16), time.monotonic() + seconds, digest)


def put(
    thread: str,
    id: str,
    parent: str | None = None,
    *,
    ns: str = "",
    versions: Mapping[str, str] | None = None,
    new: Mapping[str, bytes | None] | None = None,
    metadata: Mapping[str, object] | str | None = None,
    body: bytes | None = None,
    format: int = 4,
) -> Mutation:
    """Return a put.

    Args:
        thread: Thread id.
        id: Checkpoint id.
        parent: Parent's id.
        ns: Namespace.
        versions: Version of each channel that the checkpoint holds.
        new: Values of the new versions by channel, None = the version has no value. The version is the one
            in `versions`, or "1".
        metadata: Metadata, or its very text.
        body: The checkpoint without its values.
        format: LangGraph's `v`.
    """
    held = dict.fromkeys(new or {}, "1") | dict(versions or {})
    message = pb.PutCheckpoint(
        ref=pb.CheckpointRef(thread_id=thread, checkpoint_ns=ns, checkpoint_id=id),
        parent_checkpoint_id=parent or "",
        checkpoint=_blob(f"body of {id}".encode() if body is None else body),
        metadata_json=metadata if isinstance(metadata, str) else json.dumps(metadata or {}),
        channel_versions=[
            pb.ChannelVersion(channel=channel, version=version) for channel, version in held.items()
        ],
        new_values=[
            pb.ChannelValue(channel=channel, version=held[channel], value=_blob(data))
            for channel, data in (new or {}).items()
        ],
        format_version=format,
    )
    return _mutation(pb.Mutation(put=message))


def put_writes(thread: str, id: str, *writes: Write, ns: str = "") -> Mutation:
    """Return a put_writes."""
    message = pb.PutWrites(
        ref=pb.CheckpointRef(thread_id=thread, checkpoint_ns=ns, checkpoint_id=id),
        writes=[
            pb.PendingWrite(
                task_id=write.task,
                task_path=write.path,
                idx=write.idx,
                channel=write.channel,
                value=_blob(write.data),
            )
            for write in writes
        ],
    )
    return _mutation(pb.Mutation(put_writes=message))


def _mutation(message: pb.Mutation) -> Mutation:
    message.operation.operation_id = os.urandom(16)
    return _requests.mutation(message, "mutation")


def _blob(data: bytes | None) -> common_pb2.Blob:
    return common_pb2.Blob(type=EMPTY) if data is None else common_pb2.Blob(type="bytes", data=data)


class Tenant:
    """A tenant and the store it uses."""

    def __init__(self, store: CheckpointStore, id: TenantId) -> None:
        self.store = store
        self.id = id

    async def apply(self, *mutations: Mutation) -> Sequence[errors.TenureError | None]:
        """Write a batch and return the outcome of each mutation."""
        return await self.store.write(self.id, mutations)

    async def write(self, *mutations: Mutation) -> None:
        """Write a batch of which every mutation must succeed."""
        for error in await self.apply(*mutations):
            if error is not None:
                raise error

    async def head(self, thread: str, id: str | None = None, ns: str = "") -> Head | None:
        """Return one head."""
        (head,) = await self.store.heads(self.id, [CheckpointRef(thread, ns, id)])
        return head

    async def get(self, thread: str, id: str | None = None, ns: str = "") -> Stored | None:
        """Return a checkpoint, the latest if no id is given."""
        ref = CheckpointRef(thread, ns, id)
        (found,) = await self._complete([ref], await self.store.heads(self.id, [ref]))
        return None if found is None else stored(found)

    async def _complete(
        self, refs: Sequence[CheckpointRef], heads: Sequence[Head | None]
    ) -> Sequence[Checkpoint | None]:
        tellings = [None if head is None else WHOLE.tell(head) for head in heads]
        return await complete(self.store, self.id, refs, tellings, [WHOLE] * len(refs))

    async def one(self, thread: str, id: str | None = None, ns: str = "") -> Stored:
        """Return a checkpoint that must be there."""
        found = await self.get(thread, id, ns)
        assert found is not None, f"there is no checkpoint {id} in {thread}"
        return found

    async def latest(self, thread: str, ns: str = "") -> str | None:
        """Return the id of the latest checkpoint."""
        head = await self.head(thread, None, ns)
        return None if head is None else head.checkpoint_id

    async def listing(self, limit: int = 1000, **query: Any) -> list[tuple[str, str, str]]:
        """Return (thread, namespace, id) of a listing; arguments as of `ListQuery`."""
        heads = await self.store.list_heads(self.id, ListQuery(**query), limit)
        return [(head.thread_id, head.checkpoint_ns, head.checkpoint_id) for head in heads]

    async def ids(self, thread: str, ns: str = "", **query: Any) -> list[str]:
        """Return the ids of a namespace, newest first."""
        return [step for _, _, step in await self.listing(thread_id=thread, checkpoint_ns=ns, **query)]

    async def stored(self, **query: Any) -> list[Stored]:
        """Return the checkpoints of a listing in full."""
        heads = await self.store.list_heads(self.id, ListQuery(**query), 1000)
        refs = [CheckpointRef(head.thread_id, head.checkpoint_ns, head.checkpoint_id) for head in heads]
        found = await self._complete(refs, heads)
        return [stored(checkpoint) for checkpoint in found if checkpoint is not None]

    async def history(
        self, thread: str, *channels: str, id: str | None = None, ns: str = ""
    ) -> Mapping[str, ChannelHistory]:
        """Return what channels contributed along the ancestors."""
        return await self.store.channel_history(self.id, CheckpointRef(thread, ns, id), channels)

    async def threads(self, prefix: str = "", after: str | None = None, limit: int = 1000) -> list[str]:
        """Return thread ids."""
        return [thread.thread_id for thread in await self.store.list_threads(self.id, prefix, after, limit)]

    async def delete(self, thread: str, by: Operation | None = None) -> None:
        """Delete a thread."""
        await self.store.delete_thread(self.id, by or operation(), thread)

    async def delete_for_runs(self, *runs: str, by: Operation | None = None) -> None:
        """Delete what runs made."""
        await self.store.delete_for_runs(self.id, by or operation(), runs)

    async def copy(self, source: str, target: str, by: Operation | None = None) -> None:
        """Copy a thread."""
        await self.store.copy_thread(self.id, by or operation(), source, target)

    async def prune(
        self,
        *threads: str,
        strategy: PruneStrategy = PruneStrategy.KEEP_LATEST,
        by: Operation | None = None,
    ) -> None:
        """Prune threads."""
        await self.store.prune_threads(self.id, by or operation(), threads, strategy)


def stored(checkpoint: Checkpoint) -> Stored:
    """Return a checkpoint as callers see it."""
    head = checkpoint.head
    return Stored(
        head.thread_id,
        head.checkpoint_ns,
        head.checkpoint_id,
        head.parent_checkpoint_id,
        head.body.data,
        head.metadata,
        {
            ref.channel: (ref.version, value.data)
            for ref, value in zip(head.values, checkpoint.values, strict=True)
            if isinstance(value, Blob)
        },
        [as_write(write) for write in head.pending_writes],
    )


def as_write(write: PendingWrite) -> Write:
    """Return a pending write in the tests' words."""
    return Write(write.channel, write.value.data, write.task_id, write.idx, write.task_path)
