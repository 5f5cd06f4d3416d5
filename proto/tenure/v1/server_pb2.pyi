from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_unary_request_bytes", "max_unary_reply_bytes", "max_operation_bytes", "slice_bytes", "max_id_bytes", "max_namespace_bytes", "max_metadata_bytes", "max_metadata_depth", "max_channels", "max_writes", "max_batch", "max_timeout_ms")
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
    def __init__(self, max_unary_request_bytes: _Optional[int] = ..., max_unary_reply_bytes: _Optional[int] = ..., max_operation_bytes: _Optional[int] = ..., slice_bytes: _Optional[int] = ..., max_id_bytes: _Optional[int] = ..., max_namespace_bytes: _Optional[int] = ..., max_metadata_bytes: _Optional[int] = ..., max_metadata_depth: _Optional[int] = ..., max_channels: _Optional[int] = ..., max_writes: _Optional[int] = ..., max_batch: _Optional[int] = ..., max_timeout_ms: _Optional[int] = ...) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "limits")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    version: str
    limits: Limits
    def __init__(self, version: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...
