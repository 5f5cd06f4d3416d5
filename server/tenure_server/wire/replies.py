"""From domain values to replies, and how large they will be."""

from __future__ import annotations

from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import common_pb2, server_pb2

from tenure_server import __version__
from tenure_server.domain import Blob, Checkpoint, Head, Thread
from tenure_server.limits import Limits

_PER_ROW = 64
"""Bytes that field tags, lengths and short ids of one value or write take at most, about."""


def blob(value: Blob) -> common_pb2.Blob:
    """Return a payload."""
    return common_pb2.Blob(type=value.type, data=value.data)


def size_of(head: Head) -> int:
    """Return about how many bytes the checkpoint takes in a reply, before its values are fetched."""
    return (
        len(head.body.data)
        + len(head.metadata)
        + sum(value.size + len(value.channel) + len(value.version) + _PER_ROW for value in head.values)
        + sum(
            len(write.value.data) + len(write.task_path) + len(write.channel) + 2 * _PER_ROW
            for write in head.pending_writes
        )
        + len(head.thread_id)
        + len(head.checkpoint_ns)
        + 2 * _PER_ROW
    )


def checkpoint(stored: Checkpoint, repeated: frozenset[tuple[str, str]] = frozenset()) -> pb.Checkpoint:
    """Return a stored checkpoint.

    Args:
        stored: The checkpoint; `stored.values` may leave out the repeated ones.
        repeated: (channel, version) whose value the client has from the checkpoint just before.
    """
    head = stored.head
    values = iter(stored.values)
    return pb.Checkpoint(
        ref=pb.CheckpointRef(
            thread_id=head.thread_id,
            checkpoint_ns=head.checkpoint_ns,
            checkpoint_id=head.checkpoint_id,
        ),
        parent_checkpoint_id=head.parent_checkpoint_id or "",
        checkpoint=blob(head.body),
        metadata_json=head.metadata,
        channel_values=[
            pb.ChannelValue(
                channel=value.channel,
                version=value.version,
                value=None if (value.channel, value.version) in repeated else blob(next(values)),
            )
            for value in head.values
        ],
        pending_writes=[
            pb.PendingWrite(
                task_id=write.task_id,
                task_path=write.task_path,
                idx=write.idx,
                channel=write.channel,
                value=blob(write.value),
            )
            for write in head.pending_writes
        ],
    )


def thread(stored: Thread) -> pb.Thread:
    """Return a thread."""
    return pb.Thread(thread_id=stored.thread_id, created_at_ms=int(stored.created_at.timestamp() * 1000))


def server_info(limits: Limits) -> server_pb2.GetServerInfoResponse:
    """Return the server's version and limits."""
    return server_pb2.GetServerInfoResponse(
        version=__version__,
        limits=server_pb2.Limits(
            max_unary_request_bytes=limits.max_unary_request_bytes,
            max_unary_reply_bytes=limits.max_unary_reply_bytes,
            max_operation_bytes=limits.max_operation_bytes,
            slice_bytes=limits.slice_bytes,
            max_id_bytes=limits.max_id_bytes,
            max_namespace_bytes=limits.max_namespace_bytes,
            max_metadata_bytes=limits.max_metadata_bytes,
            max_metadata_depth=limits.max_metadata_depth,
            max_channels=limits.max_channels,
            max_writes=limits.max_writes,
            max_batch=limits.max_batch,
            max_timeout_ms=int(limits.max_timeout * 1000),
        ),
    )
