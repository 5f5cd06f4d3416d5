"""From requests to domain values: every limit is checked here, and every refusal names its field."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Sequence

from google.protobuf.message import Message
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1.common_pb2 import Operation as OperationMessage
from tenure.v1.store_pb2 import BatchRequest

from tenure_server import errors
from tenure_server.domain import (
    EMPTY,
    Blob,
    ChannelValue,
    CheckpointRef,
    ListQuery,
    Mutation,
    Operation,
    PendingWrite,
    PruneStrategy,
    PutCheckpoint,
    PutWrites,
    ValueEdit,
)
from tenure_server.limits import Limits
from tenure_server.wire import edits, fields
from tenure_server.wire.telling import Reader

_STRATEGIES = {
    pb.PRUNE_STRATEGY_KEEP_LATEST: PruneStrategy.KEEP_LATEST,
    pb.PRUNE_STRATEGY_DELETE_ALL: PruneStrategy.DELETE_ALL,
}
_SCALARS = (str, int, float, bool, type(None))
_to_json = json.JSONEncoder(ensure_ascii=False).encode
_OPERATION_ID_BYTES = 16
_TOKEN_VERSION = b"\x01"


class Requests:
    """Turns requests into domain values under the limits of a server."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def mutation(self, message: pb.Mutation, field: str) -> Mutation:
        """Return a put or put_writes."""
        operation = self.operation(message.operation, f"{field}.operation")
        kind = message.WhichOneof("kind")
        if kind == "put":
            return self._put(message.put, operation, f"{field}.put")
        if kind == "put_writes":
            return self._put_writes(message.put_writes, operation, f"{field}.put_writes")
        raise errors.InvalidField(f"{field}.kind", "must be put or put_writes")

    def read(self, message: pb.CheckpointRead, field: str) -> tuple[Operation, CheckpointRef, Reader]:
        """Return what to read, an empty checkpoint id meaning the latest, and what the reader has."""
        operation = self.operation(message.operation, f"{field}.operation", identified=False)
        ref = self._ref(message.ref, f"{field}.ref", latest=True)
        held = edits.held(f"{field}.held", message.held, self._limits)
        return operation, ref, Reader(message.accepts_edits, held if message.accepts_edits else {})

    def list(self, message: pb.ListRequest) -> tuple[Operation, ListQuery, int | None, Reader]:
        """Return a query, the number of checkpoints wanted, None = all, and what the reader takes."""
        limits = self._limits
        operation = self.operation(message.operation, "operation", identified=False)
        if message.HasField("thread_id"):
            fields.text("thread_id", message.thread_id, limits.max_id_bytes)
        fields.text("checkpoint_ns", message.checkpoint_ns, limits.max_namespace_bytes, empty=True)
        fields.text("checkpoint_id", message.checkpoint_id, limits.max_id_bytes, empty=True)
        fields.text("before_checkpoint_id", message.before_checkpoint_id, limits.max_id_bytes, empty=True)
        members = fields.json_object("filter_json", message.filter_json or "{}", limits)
        fields.count("filter_json", list(members), limits.max_filter_members)
        query = ListQuery(
            thread_id=message.thread_id if message.HasField("thread_id") else None,
            checkpoint_ns=message.checkpoint_ns if message.HasField("checkpoint_ns") else None,
            checkpoint_id=message.checkpoint_id or None,
            before=message.before_checkpoint_id or None,
            filter=members,
        )
        limit = message.limit if message.HasField("limit") else None
        return operation, query, limit, Reader(message.accepts_edits)

    def history(self, message: pb.GetChannelHistoryRequest) -> tuple[Operation, CheckpointRef, Sequence[str]]:
        """Return whose ancestors to walk, for which channels."""
        operation = self.operation(message.operation, "operation", identified=False)
        fields.count("channels", message.channels, self._limits.max_channels, empty=False)
        for channel in message.channels:
            fields.text("channels", channel, self._limits.max_id_bytes)
        ref = self._ref(message.ref, "ref", latest=True)
        return operation, ref, list(dict.fromkeys(message.channels))

    def threads(self, message: pb.ListThreadsRequest) -> tuple[Operation, str, str | None, int]:
        """Return the prefix, the id after which the page starts, and its size."""
        limits = self._limits
        operation = self.operation(message.operation, "operation", identified=False)
        prefix = fields.text("prefix", message.prefix, limits.max_id_bytes, empty=True)
        after = _parse_token(message.page_token, prefix) if message.page_token else None
        size = min(message.page_size or limits.default_page_size, limits.max_page_size)
        return operation, prefix, after, size

    def delete_thread(self, message: pb.DeleteThreadRequest) -> tuple[Operation, str]:
        """Return the thread to delete."""
        operation = self.operation(message.operation, "operation", whole=message)
        return operation, self.thread_id(message.thread_id, "thread_id")

    def delete_for_runs(self, message: pb.DeleteForRunsRequest) -> tuple[Operation, Sequence[str]]:
        """Return the runs whose checkpoints go."""
        operation = self.operation(message.operation, "operation", whole=message)
        fields.count("run_ids", message.run_ids, self._limits.max_threads_per_call)
        for run_id in message.run_ids:
            fields.text("run_ids", run_id, self._limits.max_id_bytes)
        return operation, list(dict.fromkeys(message.run_ids))

    def copy_thread(self, message: pb.CopyThreadRequest) -> tuple[Operation, str, str]:
        """Return the thread to copy and the thread to make."""
        operation = self.operation(message.operation, "operation", whole=message)
        source = self.thread_id(message.source_thread_id, "source_thread_id")
        target = self.thread_id(message.target_thread_id, "target_thread_id")
        if source == target:
            raise errors.InvalidField("target_thread_id", "must differ from source_thread_id")
        return operation, source, target

    def prune(self, message: pb.PruneThreadsRequest) -> tuple[Operation, Sequence[str], PruneStrategy]:
        """Return the threads to prune and what to keep."""
        operation = self.operation(message.operation, "operation", whole=message)
        fields.count("thread_ids", message.thread_ids, self._limits.max_threads_per_call)
        for thread_id in message.thread_ids:
            self.thread_id(thread_id, "thread_ids")
        if message.strategy not in _STRATEGIES:
            raise errors.InvalidField("strategy", "must be KEEP_LATEST or DELETE_ALL")
        return operation, list(dict.fromkeys(message.thread_ids)), _STRATEGIES[message.strategy]

    def operation(
        self,
        message: OperationMessage,
        field: str,
        *,
        identified: bool = True,
        whole: Message | None = None,
    ) -> Operation:
        """Return identity and deadline of an operation.

        Args:
            message: The operation as sent.
            field: Its path, for errors.
            identified: Whether an id is required: it is for everything that changes something.
            whole: The request whose content a repeated id must match, for the mutations that are not
                idempotent by their own ids.
        """
        identity = message.operation_id
        if len(identity) != _OPERATION_ID_BYTES and (identified or identity):
            raise errors.InvalidField(f"{field}.operation_id", f"must be {_OPERATION_ID_BYTES} random bytes")
        wanted = message.timeout_ms / 1000 or self._limits.default_timeout
        deadline = time.monotonic() + min(wanted, self._limits.max_timeout)
        return Operation(identity, deadline, b"" if whole is None else _digest(whole))

    def thread_id(self, value: str, field: str) -> str:
        """Return a thread id."""
        return fields.text(field, value, self._limits.max_id_bytes)

    def _ref(self, message: pb.CheckpointRef, field: str, *, latest: bool = False) -> CheckpointRef:
        limits = self._limits
        most = limits.max_id_bytes
        return CheckpointRef(
            fields.member(field, "thread_id", message.thread_id, most),
            fields.member(
                field, "checkpoint_ns", message.checkpoint_ns, limits.max_namespace_bytes, empty=True
            ),
            fields.member(field, "checkpoint_id", message.checkpoint_id, most, empty=latest) or None,
        )

    def _put(self, message: pb.PutCheckpoint, operation: Operation, field: str) -> PutCheckpoint:
        limits = self._limits
        most = limits.max_id_bytes
        parent = fields.member(field, "parent_checkpoint_id", message.parent_checkpoint_id, most, empty=True)
        expected = None
        if message.HasField("expected_parent"):
            expected = fields.member(field, "expected_parent", message.expected_parent, most, empty=True)
        held, new_values = message.channel_versions, message.new_values
        fields.count(f"{field}.channel_versions", held, limits.max_channels)
        fields.count(f"{field}.new_values", new_values, limits.max_channels)
        versions = self._versions(held, field)
        metadata = message.metadata_json or "{}"
        filterable, run_id = self._metadata(metadata, field)
        return PutCheckpoint(
            operation,
            self._ref(message.ref, f"{field}.ref"),
            parent or None,
            fields.blob(f"{field}.checkpoint", message.checkpoint),
            metadata,
            filterable,
            run_id,
            versions,
            self._values(new_values, f"{field}.new_values"),
            message.format_version,
            lease_token(message.lease_token, f"{field}.lease_token")
            if message.HasField("lease_token")
            else None,
            expected,
        )

    def _versions(self, messages: Sequence[pb.ChannelVersion], field: str) -> dict[str, str]:
        named = f"{field}.channel_versions"
        most = self._limits.max_id_bytes
        versions = {
            fields.member(named, "channel", message.channel, most): fields.member(
                named, "version", message.version, most
            )
            for message in messages
        }
        if len(versions) != len(messages):
            raise errors.InvalidField(named, "a channel stands twice")
        return versions

    def _values(self, messages: Sequence[pb.ChannelValue], field: str) -> Sequence[ChannelValue]:
        most = self._limits.max_id_bytes
        values = []
        for message in messages:
            channel = fields.member(field, "channel", message.channel, most)
            version = fields.member(field, "version", message.version, most)
            value: Blob | ValueEdit
            if message.HasField("edit"):
                value = self._edit(message, field)
            else:
                value = fields.blob(f"{field}.value", message.value)
            # What is not stored reads as no value: a third of the rows of a chat.
            if value.type != EMPTY:
                values.append(ChannelValue(channel, version, value))
        return values

    def _edit(self, message: pb.ChannelValue, field: str) -> ValueEdit:
        if message.HasField("value"):
            raise errors.InvalidField(f"{field}.edit", "must not stand beside a value")
        return edits.edit(f"{field}.edit", message.edit, self._limits)

    def _put_writes(self, message: pb.PutWrites, operation: Operation, field: str) -> PutWrites:
        limits = self._limits
        most = limits.max_id_bytes
        writes = f"{field}.writes"
        fields.count(writes, message.writes, limits.max_writes)
        value = f"{writes}.value"
        return PutWrites(
            operation,
            self._ref(message.ref, f"{field}.ref"),
            [
                PendingWrite(
                    fields.member(writes, "task_id", write.task_id, most),
                    fields.member(
                        writes, "task_path", write.task_path, limits.max_namespace_bytes, empty=True
                    ),
                    write.idx,
                    fields.member(writes, "channel", write.channel, most),
                    fields.blob(value, write.value),
                )
                for write in message.writes
            ],
            lease_token(message.lease_token, f"{field}.lease_token")
            if message.HasField("lease_token")
            else None,
        )

    def _metadata(self, text: str, field: str) -> tuple[str, str | None]:
        """Return what of the metadata is for filters, and the run."""
        metadata = fields.json_object(f"{field}.metadata_json", text, self._limits)
        run_id = metadata.get("run_id")
        if not isinstance(run_id, str) or len(run_id.encode()) > self._limits.max_id_bytes:
            run_id = None
        return self._filterable(metadata), run_id

    def _filterable(self, metadata: dict[str, object]) -> str:
        small = {
            key: value
            for key, value in metadata.items()
            if isinstance(value, _SCALARS)
            and (not isinstance(value, str) or len(value.encode()) <= self._limits.max_filterable_bytes)
        }
        return _to_json(small)


def lease_token(value: int, field: str) -> int:
    """Return the token of a lease."""
    if value <= 0:
        raise errors.InvalidField(field, "is not the token of a lease")
    return value


def page_token(prefix: str, last: str) -> str:
    """Return the opaque token of the page after `last`; it grants nothing and binds the prefix."""
    token = _TOKEN_VERSION + hashlib.sha256(prefix.encode()).digest()[:8] + last.encode()
    return base64.urlsafe_b64encode(token).decode()


def _parse_token(token: str, prefix: str) -> str:
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
        last = raw[9:].decode()
    except ValueError:
        raw, last = b"", ""
    if raw[:1] != _TOKEN_VERSION or raw[1:9] != hashlib.sha256(prefix.encode()).digest()[:8] or not last:
        raise errors.InvalidField("page_token", "is not a token of this listing")
    if "\0" in last:
        raise errors.InvalidField("page_token", "is not a token of this listing")
    return last


def _digest(message: Message) -> bytes:
    """Return the SHA-256 of what a request asks for, without its operation."""
    content = type(message)()
    content.CopyFrom(message)
    content.ClearField("operation")
    named = message.DESCRIPTOR.name.encode() + b"\0" + content.SerializeToString(deterministic=True)
    return hashlib.sha256(named).digest()


def traceparents(message: Message) -> list[str]:
    """Return the trace contexts of the operations in a request, without empty ones."""
    if isinstance(message, pb.WriteRequest):
        operations = [mutation.operation for mutation in message.mutations]
    elif isinstance(message, pb.ReadRequest):
        operations = [read.operation for read in message.reads]
    elif isinstance(message, BatchRequest):
        operations = [group.operation for group in message.groups]
    elif isinstance(message, pb.ReadSlicedRequest):
        operations = [message.read.operation]
    else:
        operation = getattr(message, "operation", None)
        operations = [operation] if operation is not None else []
    return [operation.traceparent for operation in operations if operation.traceparent]
