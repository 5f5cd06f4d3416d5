from google.rpc import status_pb2 as _status_pb2
from tenure.v1 import common_pb2 as _common_pb2
from tenure.v1 import store_pb2 as _store_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PruneStrategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRUNE_STRATEGY_UNSPECIFIED: _ClassVar[PruneStrategy]
    PRUNE_STRATEGY_KEEP_LATEST: _ClassVar[PruneStrategy]
    PRUNE_STRATEGY_DELETE_ALL: _ClassVar[PruneStrategy]
PRUNE_STRATEGY_UNSPECIFIED: PruneStrategy
PRUNE_STRATEGY_KEEP_LATEST: PruneStrategy
PRUNE_STRATEGY_DELETE_ALL: PruneStrategy

class CheckpointRef(_message.Message):
    __slots__ = ("thread_id", "checkpoint_ns", "checkpoint_id")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_NS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    def __init__(self, thread_id: _Optional[str] = ..., checkpoint_ns: _Optional[str] = ..., checkpoint_id: _Optional[str] = ...) -> None: ...

class ChannelVersion(_message.Message):
    __slots__ = ("channel", "version")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    channel: str
    version: str
    def __init__(self, channel: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class ChannelValue(_message.Message):
    __slots__ = ("channel", "version", "value", "edit")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    EDIT_FIELD_NUMBER: _ClassVar[int]
    channel: str
    version: str
    value: _common_pb2.Blob
    edit: ValueEdit
    def __init__(self, channel: _Optional[str] = ..., version: _Optional[str] = ..., value: _Optional[_Union[_common_pb2.Blob, _Mapping]] = ..., edit: _Optional[_Union[ValueEdit, _Mapping]] = ...) -> None: ...

class ValueEdit(_message.Message):
    __slots__ = ("type", "header", "digest", "base_version", "base_digest", "keep_first", "keep_last", "entries", "chunks")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIRST_FIELD_NUMBER: _ClassVar[int]
    KEEP_LAST_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    type: str
    header: bytes
    digest: bytes
    base_version: str
    base_digest: bytes
    keep_first: int
    keep_last: int
    entries: bytes
    chunks: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, type: _Optional[str] = ..., header: _Optional[bytes] = ..., digest: _Optional[bytes] = ..., base_version: _Optional[str] = ..., base_digest: _Optional[bytes] = ..., keep_first: _Optional[int] = ..., keep_last: _Optional[int] = ..., entries: _Optional[bytes] = ..., chunks: _Optional[_Iterable[bytes]] = ...) -> None: ...

class HeldValue(_message.Message):
    __slots__ = ("channel", "version", "digest")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    channel: str
    version: str
    digest: bytes
    def __init__(self, channel: _Optional[str] = ..., version: _Optional[str] = ..., digest: _Optional[bytes] = ...) -> None: ...

class PutCheckpoint(_message.Message):
    __slots__ = ("ref", "parent_checkpoint_id", "checkpoint", "metadata_json", "channel_versions", "new_values", "format_version", "lease_token", "expected_parent")
    REF_FIELD_NUMBER: _ClassVar[int]
    PARENT_CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    NEW_VALUES_FIELD_NUMBER: _ClassVar[int]
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_PARENT_FIELD_NUMBER: _ClassVar[int]
    ref: CheckpointRef
    parent_checkpoint_id: str
    checkpoint: _common_pb2.Blob
    metadata_json: str
    channel_versions: _containers.RepeatedCompositeFieldContainer[ChannelVersion]
    new_values: _containers.RepeatedCompositeFieldContainer[ChannelValue]
    format_version: int
    lease_token: int
    expected_parent: str
    def __init__(self, ref: _Optional[_Union[CheckpointRef, _Mapping]] = ..., parent_checkpoint_id: _Optional[str] = ..., checkpoint: _Optional[_Union[_common_pb2.Blob, _Mapping]] = ..., metadata_json: _Optional[str] = ..., channel_versions: _Optional[_Iterable[_Union[ChannelVersion, _Mapping]]] = ..., new_values: _Optional[_Iterable[_Union[ChannelValue, _Mapping]]] = ..., format_version: _Optional[int] = ..., lease_token: _Optional[int] = ..., expected_parent: _Optional[str] = ...) -> None: ...

class PendingWrite(_message.Message):
    __slots__ = ("task_id", "task_path", "idx", "channel", "value")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_PATH_FIELD_NUMBER: _ClassVar[int]
    IDX_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    task_path: str
    idx: int
    channel: str
    value: _common_pb2.Blob
    def __init__(self, task_id: _Optional[str] = ..., task_path: _Optional[str] = ..., idx: _Optional[int] = ..., channel: _Optional[str] = ..., value: _Optional[_Union[_common_pb2.Blob, _Mapping]] = ...) -> None: ...

class PutWrites(_message.Message):
    __slots__ = ("ref", "writes", "lease_token")
    REF_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ref: CheckpointRef
    writes: _containers.RepeatedCompositeFieldContainer[PendingWrite]
    lease_token: int
    def __init__(self, ref: _Optional[_Union[CheckpointRef, _Mapping]] = ..., writes: _Optional[_Iterable[_Union[PendingWrite, _Mapping]]] = ..., lease_token: _Optional[int] = ...) -> None: ...

class Mutation(_message.Message):
    __slots__ = ("operation", "put", "put_writes")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    PUT_WRITES_FIELD_NUMBER: _ClassVar[int]
    operation: _common_pb2.Operation
    put: PutCheckpoint
    put_writes: PutWrites
    def __init__(self, operation: _Optional[_Union[_common_pb2.Operation, _Mapping]] = ..., put: _Optional[_Union[PutCheckpoint, _Mapping]] = ..., put_writes: _Optional[_Union[PutWrites, _Mapping]] = ...) -> None: ...

class WriteRequest(_message.Message):
    __slots__ = ("mutations",)
    MUTATIONS_FIELD_NUMBER: _ClassVar[int]
    mutations: _containers.RepeatedCompositeFieldContainer[Mutation]
    def __init__(self, mutations: _Optional[_Iterable[_Union[Mutation, _Mapping]]] = ...) -> None: ...

class MutationResult(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: _status_pb2.Status
    def __init__(self, status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class WriteResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[MutationResult]
    def __init__(self, results: _Optional[_Iterable[_Union[MutationResult, _Mapping]]] = ...) -> None: ...

class WriteSlicedRequest(_message.Message):
    __slots__ = ("slice",)
    SLICE_FIELD_NUMBER: _ClassVar[int]
    slice: _common_pb2.Slice
    def __init__(self, slice: _Optional[_Union[_common_pb2.Slice, _Mapping]] = ...) -> None: ...

class WriteSlicedResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[MutationResult]
    def __init__(self, results: _Optional[_Iterable[_Union[MutationResult, _Mapping]]] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("ref", "parent_checkpoint_id", "checkpoint", "metadata_json", "channel_values", "pending_writes")
    REF_FIELD_NUMBER: _ClassVar[int]
    PARENT_CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_VALUES_FIELD_NUMBER: _ClassVar[int]
    PENDING_WRITES_FIELD_NUMBER: _ClassVar[int]
    ref: CheckpointRef
    parent_checkpoint_id: str
    checkpoint: _common_pb2.Blob
    metadata_json: str
    channel_values: _containers.RepeatedCompositeFieldContainer[ChannelValue]
    pending_writes: _containers.RepeatedCompositeFieldContainer[PendingWrite]
    def __init__(self, ref: _Optional[_Union[CheckpointRef, _Mapping]] = ..., parent_checkpoint_id: _Optional[str] = ..., checkpoint: _Optional[_Union[_common_pb2.Blob, _Mapping]] = ..., metadata_json: _Optional[str] = ..., channel_values: _Optional[_Iterable[_Union[ChannelValue, _Mapping]]] = ..., pending_writes: _Optional[_Iterable[_Union[PendingWrite, _Mapping]]] = ...) -> None: ...

class CheckpointRead(_message.Message):
    __slots__ = ("operation", "ref", "accepts_edits", "held")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    ACCEPTS_EDITS_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    operation: _common_pb2.Operation
    ref: CheckpointRef
    accepts_edits: bool
    held: _containers.RepeatedCompositeFieldContainer[HeldValue]
    def __init__(self, operation: _Optional[_Union[_common_pb2.Operation, _Mapping]] = ..., ref: _Optional[_Union[CheckpointRef, _Mapping]] = ..., accepts_edits: bool = ..., held: _Optional[_Iterable[_Union[HeldValue, _Mapping]]] = ...) -> None: ...

class ReadRequest(_message.Message):
    __slots__ = ("reads",)
    READS_FIELD_NUMBER: _ClassVar[int]
    reads: _containers.RepeatedCompositeFieldContainer[CheckpointRead]
    def __init__(self, reads: _Optional[_Iterable[_Union[CheckpointRead, _Mapping]]] = ...) -> None: ...

class ReadResult(_message.Message):
    __slots__ = ("status", "checkpoint", "omitted")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    OMITTED_FIELD_NUMBER: _ClassVar[int]
    status: _status_pb2.Status
    checkpoint: Checkpoint
    omitted: bool
    def __init__(self, status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., omitted: bool = ...) -> None: ...

class ReadResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ReadResult]
    def __init__(self, results: _Optional[_Iterable[_Union[ReadResult, _Mapping]]] = ...) -> None: ...

class SessionRequest(_message.Message):
    __slots__ = ("call_id", "write", "read", "store", "cancel")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    WRITE_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    write: WriteRequest
    read: ReadRequest
    store: _store_pb2.BatchRequest
    cancel: bool
    def __init__(self, call_id: _Optional[int] = ..., write: _Optional[_Union[WriteRequest, _Mapping]] = ..., read: _Optional[_Union[ReadRequest, _Mapping]] = ..., store: _Optional[_Union[_store_pb2.BatchRequest, _Mapping]] = ..., cancel: bool = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("call_id", "write", "read", "status", "store", "more", "positions")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    WRITE_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    write: WriteResponse
    read: ReadResponse
    status: _status_pb2.Status
    store: _store_pb2.BatchResponse
    more: bool
    positions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, call_id: _Optional[int] = ..., write: _Optional[_Union[WriteResponse, _Mapping]] = ..., read: _Optional[_Union[ReadResponse, _Mapping]] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., store: _Optional[_Union[_store_pb2.BatchResponse, _Mapping]] = ..., more: bool = ..., positions: _Optional[_Iterable[int]] = ...) -> None: ...

class ReadSlicedRequest(_message.Message):
    __slots__ = ("read",)
    READ_FIELD_NUMBER: _ClassVar[int]
    read: CheckpointRead
    def __init__(self, read: _Optional[_Union[CheckpointRead, _Mapping]] = ...) -> None: ...

class ReadSlicedResponse(_message.Message):
    __slots__ = ("slice",)
    SLICE_FIELD_NUMBER: _ClassVar[int]
    slice: _common_pb2.Slice
    def __init__(self, slice: _Optional[_Union[_common_pb2.Slice, _Mapping]] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("operation", "thread_id", "checkpoint_ns", "checkpoint_id", "before_checkpoint_id", "filter_json", "limit", "accepts_edits")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_NS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    BEFORE_CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    FILTER_JSON_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    ACCEPTS_EDITS_FIELD_NUMBER: _ClassVar[int]
    operation: _common_pb2.Operation
    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    before_checkpoint_id: str
    filter_json: str
    limit: int
    accepts_edits: bool
    def __init__(self, operation: _Optional[_Union[_common_pb2.Operation, _Mapping]] = ..., thread_id: _Optional[str] = ..., checkpoint_ns: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., before_checkpoint_id: _Optional[str] = ..., filter_json: _Optional[str] = ..., limit: _Optional[int] = ..., accepts_edits: bool = ...) -> None: ...

class CheckpointPage(_message.Message):
    __slots__ = ("checkpoints",)
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    checkpoints: _containers.RepeatedCompositeFieldContainer[Checkpoint]
    def __init__(self, checkpoints: _Optional[_Iterable[_Union[Checkpoint, _Mapping]]] = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("page", "slice")
    PAGE_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    page: CheckpointPage
    slice: _common_pb2.Slice
    def __init__(self, page: _Optional[_Union[CheckpointPage, _Mapping]] = ..., slice: _Optional[_Union[_common_pb2.Slice, _Mapping]] = ...) -> None: ...

class GetChannelHistoryRequest(_message.Message):
    __slots__ = ("operation", "ref", "channels")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    operation: _common_pb2.Operation
    ref: CheckpointRef
    channels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, operation: _Optional[_Union[_common_pb2.Operation, _Mapping]] = ..., ref: _Optional[_Union[CheckpointRef, _Mapping]] = ..., channels: _Optional[_Iterable[str]] = ...) -> None: ...

class ChannelWrite(_message.Message):
    __slots__ = ("channel", "task_id", "value")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    channel: str
    task_id: str
    value: _common_pb2.Blob
    def __init__(self, channel: _Optional[str] = ..., task_id: _Optional[str] = ..., value: _Optional[_Union[_common_pb2.Blob, _Mapping]] = ...) -> None: ...

class ChannelSeed(_message.Message):
    __slots__ = ("channel", "value")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    channel: str
    value: _common_pb2.Blob
    def __init__(self, channel: _Optional[str] = ..., value: _Optional[_Union[_common_pb2.Blob, _Mapping]] = ...) -> None: ...

class ChannelHistoryPage(_message.Message):
    __slots__ = ("writes", "seeds")
    WRITES_FIELD_NUMBER: _ClassVar[int]
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    writes: _containers.RepeatedCompositeFieldContainer[ChannelWrite]
    seeds: _containers.RepeatedCompositeFieldContainer[ChannelSeed]
    def __init__(self, writes: _Optional[_Iterable[_Union[ChannelWrite, _Mapping]]] = ..., seeds: _Optional[_Iterable[_Union[ChannelSeed, _Mapping]]] = ...) -> None: ...

class GetChannelHistoryResponse(_message.Message):
    __slots__ = ("page", "slice")
    PAGE_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    page: ChannelHistoryPage
    slice: _common_pb2.Slice
    def __init__(self, page: _Optional[_Union[ChannelHistoryPage, _Mapping]] = ..., slice: _Optional[_Union[_common_pb2.Slice, _Mapping]] = ...) -> None: ...

class ListThreadsRequest(_message.Message):
    __slots__ = ("operation", "page_size", "page_token", "prefix")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    operation: _common_pb2.Operation
    page_size: int
    page_token: str
    prefix: str
    def __init__(self, operation: _Optional[_Union[_common_pb2.Operation, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., prefix: _Optional[str] = ...) -> None: ...

class Thread(_message.Message):
    __slots__ = ("thread_id", "created_at_ms")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    created_at_ms: int
    def __init__(self, thread_id: _Optional[str] = ..., created_at_ms: _Optional[int] = ...) -> None: ...

class ListThreadsResponse(_message.Message):
    __slots__ = ("threads", "next_page_token")
    THREADS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    threads: _containers.RepeatedCompositeFieldContainer[Thread]
    next_page_token: str
    def __init__(self, threads: _Optional[_Iterable[_Union[Thread, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteThreadRequest(_message.Message):
    __slots__ = ("operation", "thread_id")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    operation: _common_pb2.Operation
    thread_id: str
    def __init__(self, operation: _Optional[_Union[_common_pb2.Operation, _Mapping]] = ..., thread_id: _Optional[str] = ...) -> None: ...

class DeleteThreadResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeleteForRunsRequest(_message.Message):
    __slots__ = ("operation", "run_ids")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    RUN_IDS_FIELD_NUMBER: _ClassVar[int]
    operation: _common_pb2.Operation
    run_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, operation: _Optional[_Union[_common_pb2.Operation, _Mapping]] = ..., run_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteForRunsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CopyThreadRequest(_message.Message):
    __slots__ = ("operation", "source_thread_id", "target_thread_id")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    operation: _common_pb2.Operation
    source_thread_id: str
    target_thread_id: str
    def __init__(self, operation: _Optional[_Union[_common_pb2.Operation, _Mapping]] = ..., source_thread_id: _Optional[str] = ..., target_thread_id: _Optional[str] = ...) -> None: ...

class CopyThreadResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PruneThreadsRequest(_message.Message):
    __slots__ = ("operation", "thread_ids", "strategy")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    THREAD_IDS_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    operation: _common_pb2.Operation
    thread_ids: _containers.RepeatedScalarFieldContainer[str]
    strategy: PruneStrategy
    def __init__(self, operation: _Optional[_Union[_common_pb2.Operation, _Mapping]] = ..., thread_ids: _Optional[_Iterable[str]] = ..., strategy: _Optional[_Union[PruneStrategy, str]] = ...) -> None: ...

class PruneThreadsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AcquireLeaseRequest(_message.Message):
    __slots__ = ("operation", "thread_id", "holder", "ttl_ms")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    operation: _common_pb2.Operation
    thread_id: str
    holder: str
    ttl_ms: int
    def __init__(self, operation: _Optional[_Union[_common_pb2.Operation, _Mapping]] = ..., thread_id: _Optional[str] = ..., holder: _Optional[str] = ..., ttl_ms: _Optional[int] = ...) -> None: ...

class AcquireLeaseResponse(_message.Message):
    __slots__ = ("lease_token", "ttl_ms")
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    lease_token: int
    ttl_ms: int
    def __init__(self, lease_token: _Optional[int] = ..., ttl_ms: _Optional[int] = ...) -> None: ...

class RenewLeaseRequest(_message.Message):
    __slots__ = ("operation", "thread_id", "lease_token", "ttl_ms")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    operation: _common_pb2.Operation
    thread_id: str
    lease_token: int
    ttl_ms: int
    def __init__(self, operation: _Optional[_Union[_common_pb2.Operation, _Mapping]] = ..., thread_id: _Optional[str] = ..., lease_token: _Optional[int] = ..., ttl_ms: _Optional[int] = ...) -> None: ...

class RenewLeaseResponse(_message.Message):
    __slots__ = ("ttl_ms",)
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    ttl_ms: int
    def __init__(self, ttl_ms: _Optional[int] = ...) -> None: ...

class ReleaseLeaseRequest(_message.Message):
    __slots__ = ("operation", "thread_id", "lease_token")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    operation: _common_pb2.Operation
    thread_id: str
    lease_token: int
    def __init__(self, operation: _Optional[_Union[_common_pb2.Operation, _Mapping]] = ..., thread_id: _Optional[str] = ..., lease_token: _Optional[int] = ...) -> None: ...

class ReleaseLeaseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
