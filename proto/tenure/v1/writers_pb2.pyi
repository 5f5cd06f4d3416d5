import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WriterPolicy(_message.Message):
    __slots__ = ("thread_prefix", "created_at")
    THREAD_PREFIX_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    thread_prefix: str
    created_at: _timestamp_pb2.Timestamp
    def __init__(self, thread_prefix: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CreateWriterPolicyRequest(_message.Message):
    __slots__ = ("tenant_id", "thread_prefix")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_PREFIX_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    thread_prefix: str
    def __init__(self, tenant_id: _Optional[str] = ..., thread_prefix: _Optional[str] = ...) -> None: ...

class CreateWriterPolicyResponse(_message.Message):
    __slots__ = ("policy", "threads")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    policy: WriterPolicy
    threads: int
    def __init__(self, policy: _Optional[_Union[WriterPolicy, _Mapping]] = ..., threads: _Optional[int] = ...) -> None: ...

class ListWriterPoliciesRequest(_message.Message):
    __slots__ = ("tenant_id",)
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    def __init__(self, tenant_id: _Optional[str] = ...) -> None: ...

class ListWriterPoliciesResponse(_message.Message):
    __slots__ = ("policies",)
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[WriterPolicy]
    def __init__(self, policies: _Optional[_Iterable[_Union[WriterPolicy, _Mapping]]] = ...) -> None: ...

class DeleteWriterPolicyRequest(_message.Message):
    __slots__ = ("tenant_id", "thread_prefix")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_PREFIX_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    thread_prefix: str
    def __init__(self, tenant_id: _Optional[str] = ..., thread_prefix: _Optional[str] = ...) -> None: ...

class DeleteWriterPolicyResponse(_message.Message):
    __slots__ = ("threads",)
    THREADS_FIELD_NUMBER: _ClassVar[int]
    threads: int
    def __init__(self, threads: _Optional[int] = ...) -> None: ...
