"""LangGraph's store operations and items <-> protocol messages; pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    PutOp,
    SearchItem,
    SearchOp,
    validate_op_namespace,
)
from tenure.v1 import store_pb2 as pb

from tenure_client.errors import InvalidRequest, LimitExceeded
from tenure_client.jsontext import to_json

SearchMode = Literal["semantic", "keyword", "hybrid"]

MODES: Mapping[str, pb.SearchMode] = {
    "semantic": pb.SEARCH_MODE_SEMANTIC,
    "keyword": pb.SEARCH_MODE_KEYWORD,
    "hybrid": pb.SEARCH_MODE_HYBRID,
}
MAX_SEARCH_LIMIT = 1_000
MAX_NAMESPACES_LIMIT = 10_000
"""The largest page that the server gives."""
_MAX_NUMBER = 2**31 - 1
_MATCH_TYPES = {"prefix": pb.MATCH_TYPE_PREFIX, "suffix": pb.MATCH_TYPE_SUFFIX}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RESERVED_ROOT = "langgraph"


def check(op: Any) -> None:
    """Check the namespace of an operation by LangGraph's rules.

    Raises:
        InvalidNamespaceError: It breaks them.
        InvalidRequest: It is no operation that LangGraph has.
    """
    if isinstance(op, SearchOp):
        _check_labels(op.namespace_prefix)
    elif isinstance(op, (GetOp, PutOp)):
        _check_labels(op.namespace)
    elif not isinstance(op, ListNamespacesOp):
        raise InvalidRequest(f"unknown operation type: {type(op)}")
    validate_op_namespace(op)
    if isinstance(op, PutOp) and op.value is not None:
        if not op.namespace:
            raise InvalidNamespaceError("Namespace cannot be empty.")
        if op.namespace[0] == _RESERVED_ROOT:
            raise InvalidNamespaceError(
                f'Root label for namespace cannot be "{_RESERVED_ROOT}". Got: {op.namespace}'
            )


def get(op: GetOp) -> pb.StoreOp:
    """Return the message that reads an item."""
    message = pb.StoreOp()
    item = message.get
    _fill_namespace(item.namespace, op.namespace)
    item.key = _text(op.key, "key")
    item.refresh_ttl = bool(op.refresh_ttl)
    return message


def search(op: SearchOp, mode: str | None) -> pb.StoreOp:
    """Return the message that finds the first page of items; a mode that needs a vector gets it later."""
    message = pb.StoreOp()
    search = message.search
    _fill_namespace(search.namespace_prefix, op.namespace_prefix)
    search.limit = min(_number(op.limit, "limit"), MAX_SEARCH_LIMIT)
    search.offset = _number(op.offset, "offset")
    search.refresh_ttl = bool(op.refresh_ttl)
    if op.filter:
        search.filter_json = _json(op.filter, "filter")
    if op.query and mode is not None:
        search.mode = MODES[mode]
        if mode != "semantic":
            search.query_text = _text(op.query, "query")
    return message


def list_namespaces(op: ListNamespacesOp) -> pb.StoreOp:
    """Return the message that lists the first page of namespaces."""
    message = pb.ListNamespaces(
        limit=min(_number(op.limit, "limit"), MAX_NAMESPACES_LIMIT), offset=_number(op.offset, "offset")
    )
    if op.max_depth is not None:
        message.max_depth = _number(op.max_depth, "max_depth")
    for condition in op.match_conditions or ():
        if condition.match_type not in _MATCH_TYPES:
            raise InvalidRequest(
                f"unsupported match type {condition.match_type!r}: use 'prefix' or 'suffix'",
                metadata={"field": "match_conditions"},
            )
        given: object = condition.path  # one text is seen in the wild
        path = (given,) if isinstance(given, str) else condition.path
        if path:  # without labels it matches everything
            message.conditions.add(
                type=_MATCH_TYPES[condition.match_type], path=[_text(label, "path") for label in path]
            )
    return pb.StoreOp(list_namespaces=message)


def put(op: PutOp) -> pb.StoreOp:
    """Return the message that stores an item, without vectors and text, or removes it.

    Raises:
        TypeError: The value is not JSON; the message names the place.
        InvalidRequest: Another argument is not allowed.
    """
    message = pb.StoreOp()
    if op.value is None:
        _fill_namespace(message.delete.namespace, op.namespace)
        message.delete.key = _text(op.key, "key")
        return message
    if not isinstance(op.value, Mapping):
        raise TypeError(
            f"value is of type {type(op.value).__name__}, but an item is a mapping with text as keys"
        )
    item = message.put
    _fill_namespace(item.namespace, op.namespace)
    item.key = _text(op.key, "key")
    item.value_json = _json(op.value, "value")
    if op.ttl is not None:
        item.ttl_seconds = _seconds(op.ttl)
    if op.index is False or (op.index is not None and not op.index):
        item.unindexed = True
    elif op.index is not None:
        item.index_paths.extend(_index_paths(op.index))
    return message


def item(found: pb.Item) -> Item:
    """Return an item that was read."""
    return Item(
        namespace=tuple(found.namespace.labels),
        key=found.key,
        value=json.loads(found.value_json),
        created_at=_time(found.created_at_us),
        updated_at=_time(found.updated_at_us),
    )


def search_item(found: pb.Item) -> SearchItem:
    """Return an item that was found."""
    return SearchItem(
        namespace=tuple(found.namespace.labels),
        key=found.key,
        value=json.loads(found.value_json),
        created_at=_time(found.created_at_us),
        updated_at=_time(found.updated_at_us),
        score=found.score if found.HasField("score") else None,
    )


def answer(result: pb.StoreResult) -> Item | list[SearchItem] | list[tuple[str, ...]] | None:
    """Return what one operation found."""
    kind = result.WhichOneof("kind")
    if kind == "item":
        return item(result.item)
    if kind == "items":
        return [search_item(found) for found in result.items.items]
    if kind == "namespaces":
        return [tuple(found.labels) for found in result.namespaces.namespaces]
    return None


def _check_labels(labels: Any) -> None:
    if isinstance(labels, str):
        # Its letters would pass for labels.
        raise InvalidNamespaceError(f"A namespace is a tuple of labels, not one text: use ({labels!r},)")


def _fill_namespace(message: pb.Namespace, labels: Iterable[str]) -> None:
    message.SetInParent()
    message.labels.extend([_text(label, "namespace") for label in labels])


def _text(value: object, field: str) -> str:
    text = value if isinstance(value, str) else str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            f"{field} contains a lone surrogate, which is not Unicode text", metadata={"field": field}
        ) from None
    return text


def _json(value: Mapping[str, Any], field: str) -> str:
    try:
        return to_json(value, field)
    except RecursionError:
        raise LimitExceeded(f"{field} is nested too deeply", metadata={"field": field}) from None


def _number(value: Any, field: str) -> int:
    if not isinstance(value, int) or not 0 <= value <= _MAX_NUMBER:
        raise InvalidRequest(
            f"{field} is a whole number from 0 to {_MAX_NUMBER:,}, not {value!r}", metadata={"field": field}
        )
    return value


def _seconds(minutes: Any) -> float:
    if not isinstance(minutes, (int, float)) or not math.isfinite(minutes) or minutes < 0:
        raise InvalidRequest(
            f"ttl is a number of minutes, not negative, or None; not {minutes!r}", metadata={"field": "ttl"}
        )
    return minutes * 60.0


def _index_paths(paths: Any) -> Sequence[str]:
    if isinstance(paths, str) or not isinstance(paths, (list, tuple)):
        raise InvalidRequest(
            f"index is False, None or a list of paths, not {paths!r}", metadata={"field": "index"}
        )
    return [_text(path, "index") for path in paths]


def _time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
