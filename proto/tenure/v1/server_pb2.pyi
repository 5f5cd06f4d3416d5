from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_unary_request_bytes", "max_unary_reply_bytes", "max_operation_bytes", "slice_bytes", "max_id_bytes", "max_namespace_bytes", "max_metadata_bytes", "max_metadata_depth", "max_channels", "max_writes", "max_batch", "max_timeout_ms", "max_group_ops", "max_labels", "max_labels_bytes", "max_value_bytes", "max_value_depth", "max_text_bytes", "max_filter_members", "max_filter_depth", "max_search_limit", "max_list_limit", "max_dims", "max_vectors")
    MAX_UNARY_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_UNARY_REPLY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_OPERATION_BYTES_FIELD_NUMBER: _ClassVar[int]
    SLICE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_ID_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_NAMESPACE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_METADATA_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_METADATA_DEPTH_FIELD_NUMBER: _ClassVar[int]
    MAX_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    MAX_WRITES_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_FIELD_NUMBER: _ClassVar[int]
    MAX_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_GROUP_OPS_FIELD_NUMBER: _ClassVar[int]
    MAX_LABELS_FIELD_NUMBER: _ClassVar[int]
    MAX_LABELS_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_VALUE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_VALUE_DEPTH_FIELD_NUMBER: _ClassVar[int]
    MAX_TEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_FILTER_MEMBERS_FIELD_NUMBER: _ClassVar[int]
    MAX_FILTER_DEPTH_FIELD_NUMBER: _ClassVar[int]
    MAX_SEARCH_LIMIT_FIELD_NUMBER: _ClassVar[int]
    MAX_LIST_LIMIT_FIELD_NUMBER: _ClassVar[int]
    MAX_DIMS_FIELD_NUMBER: _ClassVar[int]
    MAX_VECTORS_FIELD_NUMBER: _ClassVar[int]
    max_unary_request_bytes: int
    max_unary_reply_bytes: int
    max_operation_bytes: int
    slice_bytes: int
    max_id_bytes: int
    max_namespace_bytes: int
    max_metadata_bytes: int
    max_metadata_depth: int
    max_channels: int
    max_writes: int
    max_batch: int
    max_timeout_ms: int
    max_group_ops: int
    max_labels: int
    max_labels_bytes: int
    max_value_bytes: int
    max_value_depth: int
    max_text_bytes: int
    max_filter_members: int
    max_filter_depth: int
    max_search_limit: int
    max_list_limit: int
    max_dims: int
    max_vectors: int
    def __init__(self, max_unary_request_bytes: _Optional[int] = ..., max_unary_reply_bytes: _Optional[int] = ..., max_operation_bytes: _Optional[int] = ..., slice_bytes: _Optional[int] = ..., max_id_bytes: _Optional[int] = ..., max_namespace_bytes: _Optional[int] = ..., max_metadata_bytes: _Optional[int] = ..., max_metadata_depth: _Optional[int] = ..., max_channels: _Optional[int] = ..., max_writes: _Optional[int] = ..., max_batch: _Optional[int] = ..., max_timeout_ms: _Optional[int] = ..., max_group_ops: _Optional[int] = ..., max_labels: _Optional[int] = ..., max_labels_bytes: _Optional[int] = ..., max_value_bytes: _Optional[int] = ..., max_value_depth: _Optional[int] = ..., max_text_bytes: _Optional[int] = ..., max_filter_members: _Optional[int] = ..., max_filter_depth: _Optional[int] = ..., max_search_limit: _Optional[int] = ..., max_list_limit: _Optional[int] = ..., max_dims: _Optional[int] = ..., max_vectors: _Optional[int] = ...) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "limits")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    version: str
    limits: Limits
    def __init__(self, version: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...
