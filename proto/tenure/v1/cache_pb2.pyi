from tenure.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CacheNamespace(_message.Message):
    __slots__ = ("labels",)
    LABELS_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, labels: _Optional[_Iterable[str]] = ...) -> None: ...

class CacheKey(_message.Message):
    __slots__ = ("namespace", "key")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    namespace: CacheNamespace
    key: str
    def __init__(self, namespace: _Optional[_Union[CacheNamespace, _Mapping]] = ..., key: _Optional[str] = ...) -> None: ...

class CacheEntry(_message.Message):
    __slots__ = ("key", "value", "ttl_seconds")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    key: CacheKey
    value: _common_pb2.Blob
    ttl_seconds: float
    def __init__(self, key: _Optional[_Union[CacheKey, _Mapping]] = ..., value: _Optional[_Union[_common_pb2.Blob, _Mapping]] = ..., ttl_seconds: _Optional[float] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("operation", "keys")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    operation: _common_pb2.Operation
    keys: _containers.RepeatedCompositeFieldContainer[CacheKey]
    def __init__(self, operation: _Optional[_Union[_common_pb2.Operation, _Mapping]] = ..., keys: _Optional[_Iterable[_Union[CacheKey, _Mapping]]] = ...) -> None: ...

class CacheHit(_message.Message):
    __slots__ = ("index", "value")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    index: int
    value: _common_pb2.Blob
    def __init__(self, index: _Optional[int] = ..., value: _Optional[_Union[_common_pb2.Blob, _Mapping]] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("hits", "omitted")
    HITS_FIELD_NUMBER: _ClassVar[int]
    OMITTED_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[CacheHit]
    omitted: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, hits: _Optional[_Iterable[_Union[CacheHit, _Mapping]]] = ..., omitted: _Optional[_Iterable[int]] = ...) -> None: ...

class SetRequest(_message.Message):
    __slots__ = ("operation", "entries")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    operation: _common_pb2.Operation
    entries: _containers.RepeatedCompositeFieldContainer[CacheEntry]
    def __init__(self, operation: _Optional[_Union[_common_pb2.Operation, _Mapping]] = ..., entries: _Optional[_Iterable[_Union[CacheEntry, _Mapping]]] = ...) -> None: ...

class SetResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ClearRequest(_message.Message):
    __slots__ = ("operation", "namespaces", "everything")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    EVERYTHING_FIELD_NUMBER: _ClassVar[int]
    operation: _common_pb2.Operation
    namespaces: _containers.RepeatedCompositeFieldContainer[CacheNamespace]
    everything: bool
    def __init__(self, operation: _Optional[_Union[_common_pb2.Operation, _Mapping]] = ..., namespaces: _Optional[_Iterable[_Union[CacheNamespace, _Mapping]]] = ..., everything: bool = ...) -> None: ...

class ClearResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
