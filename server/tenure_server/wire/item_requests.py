"""From requests about items to domain values: every limit is checked here, every refusal names its field."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Sequence

from google.protobuf.message import Message
from tenure.v1 import store_pb2 as pb

from tenure_server import errors
from tenure_server.domain import Operation
from tenure_server.items import (
    DeleteItem,
    GetItem,
    Index,
    ItemRead,
    ItemVectors,
    ItemWrite,
    ListNamespaces,
    MatchCondition,
    MatchType,
    Namespace,
    PutItem,
    ReadGroup,
    SearchItems,
    SearchMode,
    Vector,
    WriteGroup,
)
from tenure_server.limits import Limits
from tenure_server.wire import fields
from tenure_server.wire.item_filters import checked
from tenure_server.wire.items import LAST_US, time_of
from tenure_server.wire.json_text import parsed_object
from tenure_server.wire.requests import Requests

_RESERVED = "langgraph"
_MODES = {
    pb.SEARCH_MODE_UNSPECIFIED: SearchMode.NONE,
    pb.SEARCH_MODE_SEMANTIC: SearchMode.SEMANTIC,
    pb.SEARCH_MODE_KEYWORD: SearchMode.KEYWORD,
    pb.SEARCH_MODE_HYBRID: SearchMode.HYBRID,
}
_WITH_VECTOR = (SearchMode.SEMANTIC, SearchMode.HYBRID)
_WITH_TEXT = (SearchMode.KEYWORD, SearchMode.HYBRID)
_MATCH_TYPES = {pb.MATCH_TYPE_PREFIX: MatchType.PREFIX, pb.MATCH_TYPE_SUFFIX: MatchType.SUFFIX}
_WRITES = frozenset({"put", "delete"})
_TOKEN_VERSION = b"\x01"


class ItemRequests:
    """Turns requests about items into domain values under the limits of a server."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._requests = Requests(limits)

    def group(
        self, message: pb.StoreGroup, field: str, within: Sequence[Namespace] | None
    ) -> ReadGroup | WriteGroup:
        """Return a group; `within` are the namespaces that the caller may read, None = all."""
        fields.count(f"{field}.ops", message.ops, self._limits.max_group_ops, empty=False)
        kinds = [op.WhichOneof("kind") for op in message.ops]
        if None in kinds:
            known = ", ".join(one.name for one in pb.StoreOp.DESCRIPTOR.fields)
            raise errors.InvalidField(f"{field}.ops[{kinds.index(None)}].kind", f"must be one of {known}")
        writes = _WRITES.intersection(kinds)
        if writes and not _WRITES.issuperset(kinds):
            raise errors.InvalidField(f"{field}.ops", "has reads and writes; make two groups of them")
        operation = self._requests.operation(message.operation, f"{field}.operation", identified=bool(writes))
        index = self.index(message.index, f"{field}.index") if message.HasField("index") else None
        if writes:
            digest = _digest(message)
            return WriteGroup(
                Operation(operation.operation_id, operation.deadline, digest),
                [self._write(op, f"{field}.ops[{at}]", index, field) for at, op in enumerate(message.ops)],
                index if any(op.put.vectors for op in message.ops) else None,
            )
        reads = [self._read(op, f"{field}.ops[{at}]", index, field) for at, op in enumerate(message.ops)]
        asks = any(isinstance(read, SearchItems) and read.query_vector for read in reads)
        return ReadGroup(operation, reads, within, index if asks else None)

    def get_index(self, message: pb.GetIndexRequest) -> Operation:
        """Return who asks for the index."""
        return self._requests.operation(message.operation, "operation", identified=False)

    def set_index(self, message: pb.SetIndexRequest) -> tuple[Operation, Index]:
        """Return the index to be."""
        operation = self._requests.operation(message.operation, "operation", whole=message)
        return operation, self.index(message.index, "index")

    def unembedded(
        self, message: pb.ListUnembeddedRequest
    ) -> tuple[Operation, tuple[Namespace, str] | None, int]:
        """Return after which item the page starts, and its size."""
        limits = self._limits
        operation = self._requests.operation(message.operation, "operation", identified=False)
        after = _parse_token(message.page_token) if message.page_token else None
        return operation, after, min(message.limit or limits.default_page_size, limits.max_page_size)

    def put_vectors(self, message: pb.PutVectorsRequest) -> tuple[Operation, Index, Sequence[ItemVectors]]:
        """Return the vectors to store."""
        operation = self._requests.operation(message.operation, "operation", whole=message)
        index = self.index(message.index, "index")
        fields.count("items", message.items, self._limits.max_group_ops, empty=False)
        items = [self._item_vectors(one, f"items[{at}]", index) for at, one in enumerate(message.items)]
        return operation, index, items

    def index(self, message: pb.StoreIndex, field: str) -> Index:
        """Return with what vectors are made."""
        if not 1 <= message.dims <= self._limits.max_dims:
            raise errors.InvalidField(f"{field}.dims", f"must be 1 to {self._limits.max_dims:,}")
        embedder = fields.text(f"{field}.embedder", message.embedder, self._limits.max_id_bytes, empty=True)
        return Index(message.dims, embedder)

    def _read(self, op: pb.StoreOp, field: str, index: Index | None, group: str) -> ItemRead:
        if op.HasField("get"):
            get = op.get
            return GetItem(
                self._namespace(get.namespace.labels, f"{field}.get.namespace"),
                self._key(get.key, f"{field}.get.key"),
                get.refresh_ttl,
            )
        if op.HasField("search"):
            return self._search(op.search, f"{field}.search", index, group)
        return self._listing(op.list_namespaces, f"{field}.list_namespaces")

    def _search(self, search: pb.SearchItems, field: str, index: Index | None, group: str) -> SearchItems:
        limits = self._limits
        mode = _MODES.get(search.mode)
        if mode is None:
            raise errors.InvalidField(f"{field}.mode", "is not known")
        if bool(search.query_vector) != (mode in _WITH_VECTOR):
            raise errors.InvalidField(f"{field}.query_vector", _presence(mode in _WITH_VECTOR))
        if bool(search.query_text) != (mode in _WITH_TEXT):
            raise errors.InvalidField(f"{field}.query_text", _presence(mode in _WITH_TEXT))
        _at_most(f"{field}.limit", "max_search_limit", search.limit, limits.max_search_limit)
        _at_most(f"{field}.offset", "max_offset", search.offset, limits.max_offset)
        vector: Sequence[float] = ()
        if search.query_vector:
            vector = _numbers(search.query_vector, f"{field}.query_vector", index, group)
        return SearchItems(
            self._namespace(search.namespace_prefix.labels, f"{field}.namespace_prefix"),
            checked(f"{field}.filter_json", search.filter_json, limits),
            search.limit,
            search.offset,
            search.refresh_ttl,
            mode,
            vector,
            fields.text(f"{field}.query_text", search.query_text, limits.max_query_text_bytes, empty=True),
        )

    def _listing(self, listing: pb.ListNamespaces, field: str) -> ListNamespaces:
        limits = self._limits
        fields.count(f"{field}.conditions", listing.conditions, limits.max_conditions)
        conditions = []
        for at, condition in enumerate(listing.conditions):
            if condition.type not in _MATCH_TYPES:
                raise errors.InvalidField(f"{field}.conditions[{at}].type", "must be PREFIX or SUFFIX")
            path = self._labels(condition.path, f"{field}.conditions[{at}].path")
            conditions.append(MatchCondition(_MATCH_TYPES[condition.type], path))
        _at_most(f"{field}.limit", "max_list_limit", listing.limit, limits.max_list_limit)
        _at_most(f"{field}.offset", "max_offset", listing.offset, limits.max_offset)
        # No namespace is longer, and a database's integers are smaller than those of the request.
        depth = min(listing.max_depth, limits.max_labels) if listing.HasField("max_depth") else None
        return ListNamespaces(conditions, depth, listing.limit, listing.offset)

    def _write(self, op: pb.StoreOp, field: str, index: Index | None, group: str) -> ItemWrite:
        if op.HasField("put"):
            return self._put(op.put, f"{field}.put", index, group)
        return DeleteItem(
            self._namespace(op.delete.namespace.labels, f"{field}.delete.namespace"),
            self._key(op.delete.key, f"{field}.delete.key"),
        )

    def _put(self, put: pb.PutItem, field: str, index: Index | None, group: str) -> PutItem:
        limits = self._limits
        namespace = self._namespace(put.namespace.labels, f"{field}.namespace")
        if not namespace:
            raise errors.InvalidField(f"{field}.namespace.labels", "must not be empty")
        if namespace[0] == _RESERVED:
            raise errors.InvalidField(f"{field}.namespace.labels[0]", f"must not be {_RESERVED!r}")
        key = self._key(put.key, f"{field}.key")
        ttl = put.ttl_seconds if put.HasField("ttl_seconds") else None
        if ttl is not None and not 0 <= ttl <= limits.max_ttl:
            raise errors.InvalidField(f"{field}.ttl_seconds", f"must be 0 to {limits.max_ttl:,.0f}")
        if put.unindexed:
            for name in ("index_paths", "vectors", "text"):
                if getattr(put, name):
                    raise errors.InvalidField(f"{field}.{name}", "must be empty for an unindexed item")
        fields.count(f"{field}.index_paths", put.index_paths, limits.max_vectors)
        paths = tuple(
            fields.text(f"{field}.index_paths[{at}]", path, limits.max_id_bytes, empty=True)
            for at, path in enumerate(put.index_paths)
        )
        text = fields.text(f"{field}.text", put.text, limits.max_text_bytes, empty=True)
        vectors = self._vectors(put.vectors, f"{field}.vectors", index, group)
        parsed_object(f"{field}.value_json", put.value_json, limits.max_value_bytes, limits.max_value_depth)
        return PutItem(
            namespace, key, put.value_json, ttl, paths if paths or put.unindexed else None, vectors, text
        )

    def _item_vectors(self, message: pb.ItemVectors, field: str, index: Index) -> ItemVectors:
        if not 0 <= message.updated_at_us <= LAST_US:
            raise errors.InvalidField(f"{field}.updated_at_us", "is not a time")
        return ItemVectors(
            self._namespace(message.namespace.labels, f"{field}.namespace"),
            self._key(message.key, f"{field}.key"),
            time_of(message.updated_at_us),
            self._vectors(message.vectors, f"{field}.vectors", index, field),
        )

    def _vectors(
        self, vectors: Sequence[pb.Vector], field: str, index: Index | None, group: str
    ) -> Sequence[Vector]:
        if not vectors:
            return ()
        fields.count(field, vectors, self._limits.max_vectors)
        made: dict[str, Vector] = {}
        for at, vector in enumerate(vectors):
            path = fields.text(f"{field}[{at}].path", vector.path, self._limits.max_id_bytes, empty=True)
            if path in made:
                raise errors.InvalidField(f"{field}[{at}].path", "stands twice")
            made[path] = Vector(path, _numbers(vector.values, f"{field}[{at}].values", index, group))
        return list(made.values())

    def _namespace(self, labels: Sequence[str], field: str) -> Namespace:
        return self._labels(labels, f"{field}.labels")

    def _labels(self, labels: Sequence[str], field: str) -> tuple[str, ...]:
        fields.count(field, labels, self._limits.max_labels)
        known = tuple(labels)
        together = "".join(known)
        if "." in together or "\0" in together or not all(known):
            at = next(at for at, label in enumerate(known) if not label or "." in label or "\0" in label)
            raise errors.InvalidField(f"{field}[{at}]", 'must not be empty or contain "." or NUL')
        size = len(together.encode())
        if size > self._limits.max_labels_bytes:
            raise errors.LimitExceeded(field, "max_labels_bytes", size, self._limits.max_labels_bytes)
        return known

    def _key(self, key: str, field: str) -> str:
        return fields.text(field, key, self._limits.max_id_bytes, empty=True)


def _numbers(values: Iterable[float], field: str, index: Index | None, group: str) -> Sequence[float]:
    if index is None:
        raise errors.InvalidField(f"{group}.index", "is required: there are vectors")
    numbers = list(values)
    if len(numbers) != index.dims:
        raise errors.InvalidField(field, f"has {len(numbers):,} numbers, its index says {index.dims:,}")
    # Numbers of four bytes do not overflow here, so the sum is finite if all of them are.
    if not math.isfinite(sum(numbers)):
        raise errors.InvalidField(field, "must be finite")
    if not any(numbers):
        raise errors.InvalidField(field, "must not be all 0")
    return numbers


def _presence(wanted: bool) -> str:
    return "is required in this mode" if wanted else "must be empty in this mode"


def _at_most(field: str, limit: str, value: int, maximum: int) -> None:
    if value > maximum:
        raise errors.LimitExceeded(field, limit, value, maximum)


def _digest(group: pb.StoreGroup) -> bytes:
    """Return the SHA-256 of what a group asks for, without its operation; op by op, for it may be large."""
    state = hashlib.sha256(group.DESCRIPTOR.name.encode() + b"\0")
    parts: list[Message] = [group.index, *group.ops]
    for part in parts:
        serialized = part.SerializeToString(deterministic=True)
        state.update(len(serialized).to_bytes(8, "big") + serialized)
    return state.digest()


def page_token(namespace: Namespace, key: str) -> str:
    """Return the opaque token of the page after an item; it grants nothing."""
    position = json.dumps([*namespace, key], ensure_ascii=False)
    return base64.urlsafe_b64encode(_TOKEN_VERSION + position.encode()).decode()


def _parse_token(token: str) -> tuple[Namespace, str]:
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
        position = json.loads(raw[1:])
    except (ValueError, RecursionError):
        raw, position = b"", None
    texts = isinstance(position, list) and position and all(isinstance(part, str) for part in position)
    if raw[:1] != _TOKEN_VERSION or not texts or "\0" in "".join(position):
        raise errors.InvalidField("page_token", "is not a token of this listing")
    try:
        "".join(position).encode()
    except UnicodeEncodeError:
        raise errors.InvalidField("page_token", "is not a token of this listing") from None
    return tuple(position[:-1]), position[-1]
