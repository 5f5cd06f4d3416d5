"""From domain values to replies."""

from __future__ import annotations

from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import common_pb2, server_pb2

from tenure_server import __version__
from tenure_server.domain import Blob, Checkpoint, Thread, ValueEdit
from tenure_server.limits import Limits


def blob(value: Blob) -> common_pb2.Blob:
    """Return a payload."""
    return common_pb2.Blob(type=value.type, data=value.data)


def fill_edit(message: pb.ValueEdit, value: ValueEdit) -> None:
    """Tell a large value by what is new."""
    message.type = value.type
    message.header = value.header
    message.digest = value.digest
    if value.base is not None:
        message.base_version = value.base.version
        message.base_digest = value.base.digest
    message.keep_first = value.keep_first
    message.keep_last = value.keep_last
    message.entries = value.entries
    message.chunks.extend(value.chunks.values())


def fill_checkpoint(message: pb.Checkpoint, stored: Checkpoint) -> None:
    """Tell a stored checkpoint, its values as they are to be told.

    It is filled in place: a message that a constructor nests into another is copied, values and all.
    """
    head = stored.head
    message.ref.thread_id = head.thread_id
    message.ref.checkpoint_ns = head.checkpoint_ns
    message.ref.checkpoint_id = head.checkpoint_id
    message.parent_checkpoint_id = head.parent_checkpoint_id or ""
    message.checkpoint.type = head.body.type
    message.checkpoint.data = head.body.data
    message.metadata_json = head.metadata
    for ref, value in zip(head.values, stored.values, strict=True):
        told = message.channel_values.add(channel=ref.channel, version=ref.version)
        if isinstance(value, Blob):
            told.value.type = value.type
            told.value.data = value.data
        elif value is not None:
            fill_edit(told.edit, value)
    for write in head.pending_writes:
        pending = message.pending_writes.add(
            task_id=write.task_id, task_path=write.task_path, idx=write.idx, channel=write.channel
        )
        pending.value.type = write.value.type
        pending.value.data = write.value.data


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
            max_group_ops=limits.max_group_ops,
            max_labels=limits.max_labels,
            max_labels_bytes=limits.max_labels_bytes,
            max_value_bytes=limits.max_value_bytes,
            max_value_depth=limits.max_value_depth,
            max_text_bytes=limits.max_text_bytes,
            max_filter_members=limits.max_filter_members,
            max_filter_depth=limits.max_filter_depth,
            max_search_limit=limits.max_search_limit,
            max_list_limit=limits.max_list_limit,
            max_dims=limits.max_dims,
            max_vectors=limits.max_vectors,
        ),
    )
