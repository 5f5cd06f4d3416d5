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


def edit(value: ValueEdit) -> pb.ValueEdit:
    """Return a large value, told by what is new."""
    base = value.base
    return pb.ValueEdit(
        type=value.type,
        header=value.header,
        digest=value.digest,
        base_version="" if base is None else base.version,
        base_digest=b"" if base is None else base.digest,
        keep_first=value.keep_first,
        keep_last=value.keep_last,
        entries=value.entries,
        chunks=value.chunks.values(),
    )


def checkpoint(stored: Checkpoint) -> pb.Checkpoint:
    """Return a stored checkpoint, its values as they are told."""
    head = stored.head
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
                channel=ref.channel,
                version=ref.version,
                value=blob(value) if isinstance(value, Blob) else None,
                edit=edit(value) if isinstance(value, ValueEdit) else None,
            )
            for ref, value in zip(head.values, stored.values, strict=True)
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
