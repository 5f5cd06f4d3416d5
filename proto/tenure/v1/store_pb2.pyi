from google.rpc import status_pb2 as _status_pb2
from tenure.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SearchMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEARCH_MODE_UNSPECIFIED: _ClassVar[SearchMode]
    SEARCH_MODE_SEMANTIC: _ClassVar[SearchMode]
    SEARCH_MODE_KEYWORD: _ClassVar[SearchMode]
    SEARCH_MODE_HYBRID: _ClassVar[SearchMode]

class MatchType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MATCH_TYPE_UNSPECIFIED: _ClassVar[MatchType]
    MATCH_TYPE_PREFIX: _ClassVar[MatchType]
    MATCH_TYPE_SUFFIX: _ClassVar[MatchType]
SEARCH_MODE_UNSPECIFIED: SearchMode
SEARCH_MODE_SEMANTIC: SearchMode
SEARCH_MODE_KEYWORD: SearchMode
SEARCH_MODE_HYBRID: SearchMode
MATCH_TYPE_UNSPECIFIED: MatchType
MATCH_TYPE_PREFIX: MatchType
MATCH_TYPE_SUFFIX: MatchType

class Namespace(_message.Message):
    __slots__ = ("labels",)
    LABELS_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, labels: _Optional[_Iterable[str]] = ...) -> None: ...

class GetItem(_message.Message):
    __slots__ = ("namespace", "key", "refresh_ttl")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    REFRESH_TTL_FIELD_NUMBER: _ClassVar[int]
    namespace: Namespace
    key: str
    refresh_ttl: bool
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ..., key: _Optional[str] = ..., refresh_ttl: bool = ...) -> None: ...

class Vector(_message.Message):
    __slots__ = ("path", "values")
    PATH_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    path: str
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, path: _Optional[str] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class PutItem(_message.Message):
    __slots__ = ("namespace", "key", "value_json", "ttl_seconds", "index_paths", "unindexed", "vectors", "text")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_JSON_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    INDEX_PATHS_FIELD_NUMBER: _ClassVar[int]
    UNINDEXED_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    namespace: Namespace
    key: str
    value_json: str
    ttl_seconds: float
    index_paths: _containers.RepeatedScalarFieldContainer[str]
    unindexed: bool
    vectors: _containers.RepeatedCompositeFieldContainer[Vector]
    text: str
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ..., key: _Optional[str] = ..., value_json: _Optional[str] = ..., ttl_seconds: _Optional[float] = ..., index_paths: _Optional[_Iterable[str]] = ..., unindexed: bool = ..., vectors: _Optional[_Iterable[_Union[Vector, _Mapping]]] = ..., text: _Optional[str] = ...) -> None: ...

class DeleteItem(_message.Message):
    __slots__ = ("namespace", "key")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    namespace: Namespace
    key: str
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ..., key: _Optional[str] = ...) -> None: ...

class SearchItems(_message.Message):
    __slots__ = ("namespace_prefix", "filter_json", "limit", "offset", "refresh_ttl", "mode", "query_vector", "query_text")
    NAMESPACE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    FILTER_JSON_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    REFRESH_TTL_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    QUERY_VECTOR_FIELD_NUMBER: _ClassVar[int]
    QUERY_TEXT_FIELD_NUMBER: _ClassVar[int]
    namespace_prefix: Namespace
    filter_json: str
    limit: int
    offset: int
    refresh_ttl: bool
    mode: SearchMode
    query_vector: _containers.RepeatedScalarFieldContainer[float]
    query_text: str
    def __init__(self, namespace_prefix: _Optional[_Union[Namespace, _Mapping]] = ..., filter_json: _Optional[str] = ..., limit: _Optional[int] = ..., offset: _Optional[int] = ..., refresh_ttl: bool = ..., mode: _Optional[_Union[SearchMode, str]] = ..., query_vector: _Optional[_Iterable[float]] = ..., query_text: _Optional[str] = ...) -> None: ...

class MatchCondition(_message.Message):
    __slots__ = ("type", "path")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    type: MatchType
    path: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, type: _Optional[_Union[MatchType, str]] = ..., path: _Optional[_Iterable[str]] = ...) -> None: ...

class ListNamespaces(_message.Message):
    __slots__ = ("conditions", "max_depth", "limit", "offset")
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_DEPTH_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    conditions: _containers.RepeatedCompositeFieldContainer[MatchCondition]
    max_depth: int
    limit: int
    offset: int
    def __init__(self, conditions: _Optional[_Iterable[_Union[MatchCondition, _Mapping]]] = ..., max_depth: _Optional[int] = ..., limit: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class StoreOp(_message.Message):
    __slots__ = ("get", "put", "delete", "search", "list_namespaces")
    GET_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    LIST_NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    get: GetItem
    put: PutItem
    delete: DeleteItem
    search: SearchItems
    list_namespaces: ListNamespaces
    def __init__(self, get: _Optional[_Union[GetItem, _Mapping]] = ..., put: _Optional[_Union[PutItem, _Mapping]] = ..., delete: _Optional[_Union[DeleteItem, _Mapping]] = ..., search: _Optional[_Union[SearchItems, _Mapping]] = ..., list_namespaces: _Optional[_Union[ListNamespaces, _Mapping]] = ...) -> None: ...

class StoreIndex(_message.Message):
    __slots__ = ("dims", "embedder")
    DIMS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDER_FIELD_NUMBER: _ClassVar[int]
    dims: int
    embedder: str
    def __init__(self, dims: _Optional[int] = ..., embedder: _Optional[str] = ...) -> None: ...

class StoreGroup(_message.Message):
    __slots__ = ("operation", "ops", "index")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    OPS_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    operation: _common_pb2.Operation
    ops: _containers.RepeatedCompositeFieldContainer[StoreOp]
    index: StoreIndex
    def __init__(self, operation: _Optional[_Union[_common_pb2.Operation, _Mapping]] = ..., ops: _Optional[_Iterable[_Union[StoreOp, _Mapping]]] = ..., index: _Optional[_Union[StoreIndex, _Mapping]] = ...) -> None: ...

class BatchRequest(_message.Message):
    __slots__ = ("groups",)
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[StoreGroup]
    def __init__(self, groups: _Optional[_Iterable[_Union[StoreGroup, _Mapping]]] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("namespace", "key", "value_json", "created_at_us", "updated_at_us", "score")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_JSON_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_US_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_US_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    namespace: Namespace
    key: str
    value_json: str
    created_at_us: int
    updated_at_us: int
    score: float
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ..., key: _Optional[str] = ..., value_json: _Optional[str] = ..., created_at_us: _Optional[int] = ..., updated_at_us: _Optional[int] = ..., score: _Optional[float] = ...) -> None: ...

class ItemList(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Item]
    def __init__(self, items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ...) -> None: ...

class NamespaceList(_message.Message):
    __slots__ = ("namespaces",)
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    namespaces: _containers.RepeatedCompositeFieldContainer[Namespace]
    def __init__(self, namespaces: _Optional[_Iterable[_Union[Namespace, _Mapping]]] = ...) -> None: ...

class StoreResult(_message.Message):
    __slots__ = ("item", "items", "namespaces")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    item: Item
    items: ItemList
    namespaces: NamespaceList
    def __init__(self, item: _Optional[_Union[Item, _Mapping]] = ..., items: _Optional[_Union[ItemList, _Mapping]] = ..., namespaces: _Optional[_Union[NamespaceList, _Mapping]] = ...) -> None: ...

class StoreGroupResult(_message.Message):
    __slots__ = ("status", "results", "omitted")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    OMITTED_FIELD_NUMBER: _ClassVar[int]
    status: _status_pb2.Status
    results: _containers.RepeatedCompositeFieldContainer[StoreResult]
    omitted: bool
    def __init__(self, status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., results: _Optional[_Iterable[_Union[StoreResult, _Mapping]]] = ..., omitted: bool = ...) -> None: ...

class BatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[StoreGroupResult]
    def __init__(self, results: _Optional[_Iterable[_Union[StoreGroupResult, _Mapping]]] = ...) -> None: ...

class BatchSlicedRequest(_message.Message):
    __slots__ = ("slice",)
    SLICE_FIELD_NUMBER: _ClassVar[int]
    slice: _common_pb2.Slice
    def __init__(self, slice: _Optional[_Union[_common_pb2.Slice, _Mapping]] = ...) -> None: ...

class BatchSlicedResponse(_message.Message):
    __slots__ = ("slice",)
    SLICE_FIELD_NUMBER: _ClassVar[int]
    slice: _common_pb2.Slice
    def __init__(self, slice: _Optional[_Union[_common_pb2.Slice, _Mapping]] = ...) -> None: ...

class GetIndexRequest(_message.Message):
    __slots__ = ("operation",)
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    operation: _common_pb2.Operation
    def __init__(self, operation: _Optional[_Union[_common_pb2.Operation, _Mapping]] = ...) -> None: ...

class GetIndexResponse(_message.Message):
    __slots__ = ("index", "unembedded")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    UNEMBEDDED_FIELD_NUMBER: _ClassVar[int]
    index: StoreIndex
    unembedded: int
    def __init__(self, index: _Optional[_Union[StoreIndex, _Mapping]] = ..., unembedded: _Optional[int] = ...) -> None: ...

class SetIndexRequest(_message.Message):
    __slots__ = ("operation", "index")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    operation: _common_pb2.Operation
    index: StoreIndex
    def __init__(self, operation: _Optional[_Union[_common_pb2.Operation, _Mapping]] = ..., index: _Optional[_Union[StoreIndex, _Mapping]] = ...) -> None: ...

class SetIndexResponse(_message.Message):
    __slots__ = ("unembedded",)
    UNEMBEDDED_FIELD_NUMBER: _ClassVar[int]
    unembedded: int
    def __init__(self, unembedded: _Optional[int] = ...) -> None: ...

class ListUnembeddedRequest(_message.Message):
    __slots__ = ("operation", "limit", "page_token")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    operation: _common_pb2.Operation
    limit: int
    page_token: str
    def __init__(self, operation: _Optional[_Union[_common_pb2.Operation, _Mapping]] = ..., limit: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class UnembeddedItem(_message.Message):
    __slots__ = ("item", "index_paths")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    INDEX_PATHS_FIELD_NUMBER: _ClassVar[int]
    item: Item
    index_paths: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, item: _Optional[_Union[Item, _Mapping]] = ..., index_paths: _Optional[_Iterable[str]] = ...) -> None: ...

class ListUnembeddedResponse(_message.Message):
    __slots__ = ("items", "next_page_token")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[UnembeddedItem]
    next_page_token: str
    def __init__(self, items: _Optional[_Iterable[_Union[UnembeddedItem, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ItemVectors(_message.Message):
    __slots__ = ("namespace", "key", "updated_at_us", "vectors")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_US_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    namespace: Namespace
    key: str
    updated_at_us: int
    vectors: _containers.RepeatedCompositeFieldContainer[Vector]
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ..., key: _Optional[str] = ..., updated_at_us: _Optional[int] = ..., vectors: _Optional[_Iterable[_Union[Vector, _Mapping]]] = ...) -> None: ...

class PutVectorsRequest(_message.Message):
    __slots__ = ("operation", "index", "items")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    operation: _common_pb2.Operation
    index: StoreIndex
    items: _containers.RepeatedCompositeFieldContainer[ItemVectors]
    def __init__(self, operation: _Optional[_Union[_common_pb2.Operation, _Mapping]] = ..., index: _Optional[_Union[StoreIndex, _Mapping]] = ..., items: _Optional[_Iterable[_Union[ItemVectors, _Mapping]]] = ...) -> None: ...

class PutVectorsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PutVectorsSlicedRequest(_message.Message):
    __slots__ = ("slice",)
    SLICE_FIELD_NUMBER: _ClassVar[int]
    slice: _common_pb2.Slice
    def __init__(self, slice: _Optional[_Union[_common_pb2.Slice, _Mapping]] = ...) -> None: ...

class PutVectorsSlicedResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
