from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UsageKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    USAGE_KIND_UNSPECIFIED: _ClassVar[UsageKind]
    USAGE_KIND_THREAD: _ClassVar[UsageKind]
    USAGE_KIND_THREAD_PREFIX: _ClassVar[UsageKind]
    USAGE_KIND_NAMESPACE: _ClassVar[UsageKind]
    USAGE_KIND_DAY: _ClassVar[UsageKind]
USAGE_KIND_UNSPECIFIED: UsageKind
USAGE_KIND_THREAD: UsageKind
USAGE_KIND_THREAD_PREFIX: UsageKind
USAGE_KIND_NAMESPACE: UsageKind
USAGE_KIND_DAY: UsageKind

class Quota(_message.Message):
    __slots__ = ("max_stored_bytes", "max_threads", "max_items", "max_checkpoints_per_thread", "max_value_bytes", "soft_percent", "operations_per_second", "bytes_per_second", "burst_seconds", "max_concurrency")
    MAX_STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_THREADS_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_CHECKPOINTS_PER_THREAD_FIELD_NUMBER: _ClassVar[int]
    MAX_VALUE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SOFT_PERCENT_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    BURST_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    max_stored_bytes: int
    max_threads: int
    max_items: int
    max_checkpoints_per_thread: int
    max_value_bytes: int
    soft_percent: int
    operations_per_second: float
    bytes_per_second: int
    burst_seconds: float
    max_concurrency: int
    def __init__(self, max_stored_bytes: _Optional[int] = ..., max_threads: _Optional[int] = ..., max_items: _Optional[int] = ..., max_checkpoints_per_thread: _Optional[int] = ..., max_value_bytes: _Optional[int] = ..., soft_percent: _Optional[int] = ..., operations_per_second: _Optional[float] = ..., bytes_per_second: _Optional[int] = ..., burst_seconds: _Optional[float] = ..., max_concurrency: _Optional[int] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("stored_bytes", "threads", "items")
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    stored_bytes: int
    threads: int
    items: int
    def __init__(self, stored_bytes: _Optional[int] = ..., threads: _Optional[int] = ..., items: _Optional[int] = ...) -> None: ...

class UsageRow(_message.Message):
    __slots__ = ("name", "namespace", "stored_bytes", "threads", "checkpoints", "items", "grown_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    GROWN_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    namespace: _containers.RepeatedScalarFieldContainer[str]
    stored_bytes: int
    threads: int
    checkpoints: int
    items: int
    grown_bytes: int
    def __init__(self, name: _Optional[str] = ..., namespace: _Optional[_Iterable[str]] = ..., stored_bytes: _Optional[int] = ..., threads: _Optional[int] = ..., checkpoints: _Optional[int] = ..., items: _Optional[int] = ..., grown_bytes: _Optional[int] = ...) -> None: ...

class GetQuotaRequest(_message.Message):
    __slots__ = ("tenant_id",)
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    def __init__(self, tenant_id: _Optional[str] = ...) -> None: ...

class GetQuotaResponse(_message.Message):
    __slots__ = ("quota",)
    QUOTA_FIELD_NUMBER: _ClassVar[int]
    quota: Quota
    def __init__(self, quota: _Optional[_Union[Quota, _Mapping]] = ...) -> None: ...

class SetQuotaRequest(_message.Message):
    __slots__ = ("tenant_id", "quota", "update_mask")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    QUOTA_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    quota: Quota
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, tenant_id: _Optional[str] = ..., quota: _Optional[_Union[Quota, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class SetQuotaResponse(_message.Message):
    __slots__ = ("quota",)
    QUOTA_FIELD_NUMBER: _ClassVar[int]
    quota: Quota
    def __init__(self, quota: _Optional[_Union[Quota, _Mapping]] = ...) -> None: ...

class GetUsageRequest(_message.Message):
    __slots__ = ("tenant_id",)
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    def __init__(self, tenant_id: _Optional[str] = ...) -> None: ...

class GetUsageResponse(_message.Message):
    __slots__ = ("usage", "quota")
    USAGE_FIELD_NUMBER: _ClassVar[int]
    QUOTA_FIELD_NUMBER: _ClassVar[int]
    usage: Usage
    quota: Quota
    def __init__(self, usage: _Optional[_Union[Usage, _Mapping]] = ..., quota: _Optional[_Union[Quota, _Mapping]] = ...) -> None: ...

class ListUsageRequest(_message.Message):
    __slots__ = ("tenant_id", "by", "limit", "thread_prefix", "namespace")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    THREAD_PREFIX_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    by: UsageKind
    limit: int
    thread_prefix: str
    namespace: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tenant_id: _Optional[str] = ..., by: _Optional[_Union[UsageKind, str]] = ..., limit: _Optional[int] = ..., thread_prefix: _Optional[str] = ..., namespace: _Optional[_Iterable[str]] = ...) -> None: ...

class ListUsageResponse(_message.Message):
    __slots__ = ("rows", "rest")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    REST_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[UsageRow]
    rest: UsageRow
    def __init__(self, rows: _Optional[_Iterable[_Union[UsageRow, _Mapping]]] = ..., rest: _Optional[_Union[UsageRow, _Mapping]] = ...) -> None: ...
