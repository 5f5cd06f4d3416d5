import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RetentionScope(_message.Message):
    __slots__ = ("thread_prefix", "namespace")
    THREAD_PREFIX_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    thread_prefix: str
    namespace: NamespacePrefix
    def __init__(self, thread_prefix: _Optional[str] = ..., namespace: _Optional[_Union[NamespacePrefix, _Mapping]] = ...) -> None: ...

class NamespacePrefix(_message.Message):
    __slots__ = ("labels",)
    LABELS_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, labels: _Optional[_Iterable[str]] = ...) -> None: ...

class RetentionPolicy(_message.Message):
    __slots__ = ("scope", "max_age", "max_idle", "keep_last", "item_ttl", "max_bytes", "floor", "updated_at")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_FIELD_NUMBER: _ClassVar[int]
    MAX_IDLE_FIELD_NUMBER: _ClassVar[int]
    KEEP_LAST_FIELD_NUMBER: _ClassVar[int]
    ITEM_TTL_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    scope: RetentionScope
    max_age: float
    max_idle: float
    keep_last: int
    item_ttl: float
    max_bytes: int
    floor: int
    updated_at: _timestamp_pb2.Timestamp
    def __init__(self, scope: _Optional[_Union[RetentionScope, _Mapping]] = ..., max_age: _Optional[float] = ..., max_idle: _Optional[float] = ..., keep_last: _Optional[int] = ..., item_ttl: _Optional[float] = ..., max_bytes: _Optional[int] = ..., floor: _Optional[int] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class LegalHold(_message.Message):
    __slots__ = ("scope", "reason", "created_at")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    scope: RetentionScope
    reason: str
    created_at: _timestamp_pb2.Timestamp
    def __init__(self, scope: _Optional[_Union[RetentionScope, _Mapping]] = ..., reason: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RetentionPin(_message.Message):
    __slots__ = ("thread_id", "checkpoint_ns", "checkpoint_id", "reason", "created_at")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_NS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    reason: str
    created_at: _timestamp_pb2.Timestamp
    def __init__(self, thread_id: _Optional[str] = ..., checkpoint_ns: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., reason: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class SetPolicyRequest(_message.Message):
    __slots__ = ("tenant_id", "policy")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    policy: RetentionPolicy
    def __init__(self, tenant_id: _Optional[str] = ..., policy: _Optional[_Union[RetentionPolicy, _Mapping]] = ...) -> None: ...

class SetPolicyResponse(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: RetentionPolicy
    def __init__(self, policy: _Optional[_Union[RetentionPolicy, _Mapping]] = ...) -> None: ...

class ListPoliciesRequest(_message.Message):
    __slots__ = ("tenant_id",)
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    def __init__(self, tenant_id: _Optional[str] = ...) -> None: ...

class ListPoliciesResponse(_message.Message):
    __slots__ = ("policies", "holds")
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[RetentionPolicy]
    holds: _containers.RepeatedCompositeFieldContainer[LegalHold]
    def __init__(self, policies: _Optional[_Iterable[_Union[RetentionPolicy, _Mapping]]] = ..., holds: _Optional[_Iterable[_Union[LegalHold, _Mapping]]] = ...) -> None: ...

class DeletePolicyRequest(_message.Message):
    __slots__ = ("tenant_id", "scope")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    scope: RetentionScope
    def __init__(self, tenant_id: _Optional[str] = ..., scope: _Optional[_Union[RetentionScope, _Mapping]] = ...) -> None: ...

class DeletePolicyResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PreviewRequest(_message.Message):
    __slots__ = ("tenant_id", "policy")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    policy: RetentionPolicy
    def __init__(self, tenant_id: _Optional[str] = ..., policy: _Optional[_Union[RetentionPolicy, _Mapping]] = ...) -> None: ...

class PreviewResponse(_message.Message):
    __slots__ = ("seen", "total", "threads", "checkpoints", "items", "bytes", "done")
    SEEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    seen: int
    total: int
    threads: int
    checkpoints: int
    items: int
    bytes: int
    done: bool
    def __init__(self, seen: _Optional[int] = ..., total: _Optional[int] = ..., threads: _Optional[int] = ..., checkpoints: _Optional[int] = ..., items: _Optional[int] = ..., bytes: _Optional[int] = ..., done: bool = ...) -> None: ...

class PinRequest(_message.Message):
    __slots__ = ("tenant_id", "pin")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    PIN_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    pin: RetentionPin
    def __init__(self, tenant_id: _Optional[str] = ..., pin: _Optional[_Union[RetentionPin, _Mapping]] = ...) -> None: ...

class PinResponse(_message.Message):
    __slots__ = ("pin",)
    PIN_FIELD_NUMBER: _ClassVar[int]
    pin: RetentionPin
    def __init__(self, pin: _Optional[_Union[RetentionPin, _Mapping]] = ...) -> None: ...

class UnpinRequest(_message.Message):
    __slots__ = ("tenant_id", "pin")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    PIN_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    pin: RetentionPin
    def __init__(self, tenant_id: _Optional[str] = ..., pin: _Optional[_Union[RetentionPin, _Mapping]] = ...) -> None: ...

class UnpinResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListPinsRequest(_message.Message):
    __slots__ = ("tenant_id", "page_size", "page_token")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    page_size: int
    page_token: str
    def __init__(self, tenant_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListPinsResponse(_message.Message):
    __slots__ = ("pins", "next_page_token")
    PINS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    pins: _containers.RepeatedCompositeFieldContainer[RetentionPin]
    next_page_token: str
    def __init__(self, pins: _Optional[_Iterable[_Union[RetentionPin, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class HoldRequest(_message.Message):
    __slots__ = ("tenant_id", "hold")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    hold: LegalHold
    def __init__(self, tenant_id: _Optional[str] = ..., hold: _Optional[_Union[LegalHold, _Mapping]] = ...) -> None: ...

class HoldResponse(_message.Message):
    __slots__ = ("hold",)
    HOLD_FIELD_NUMBER: _ClassVar[int]
    hold: LegalHold
    def __init__(self, hold: _Optional[_Union[LegalHold, _Mapping]] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("tenant_id", "scope")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    scope: RetentionScope
    def __init__(self, tenant_id: _Optional[str] = ..., scope: _Optional[_Union[RetentionScope, _Mapping]] = ...) -> None: ...

class ReleaseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
