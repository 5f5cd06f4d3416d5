"""Checks of single fields, each with an error that names the field."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from tenure.v1.common_pb2 import Blob as BlobMessage

from tenure_server import errors
from tenure_server.domain import Blob
from tenure_server.limits import Limits

REFUSED_TYPES = frozenset({"pickle", "json"})
"""Type tags that revive arbitrary code in some readers (CVE-2025-64439, CVE-2026-27794)."""
_USUAL_TYPES = frozenset({"msgpack", "null", "bytes", "bytearray"})
"""Type tags of LangGraph's own serializer that are not refused: those of most payloads."""
_MAX_TYPE_BYTES = 64


def text(field: str, value: str, maximum: int, *, empty: bool = False) -> str:
    """Return a text of 1 (or 0, if it may be empty) to `maximum` bytes without NUL."""
    # Most texts of most requests, and there are a dozen in each operation.
    if value and len(value) <= maximum // 4 and "\0" not in value:
        return value
    if not value and not empty:
        raise errors.InvalidField(field, "must not be empty")
    if len(value) > maximum // 4 and (size := len(value.encode())) > maximum:
        raise errors.LimitExceeded(field, "bytes", size, maximum)
    if "\0" in value:
        raise errors.InvalidField(field, "must not contain NUL")
    return value


def member(field: str, name: str, value: str, maximum: int, *, empty: bool = False) -> str:
    """Return a text as `text` does; `name` is that of the member of `field` that has it.

    Putting the path together takes as long as the check, and only an error needs it.
    """
    if (value or empty) and len(value) <= maximum // 4 and "\0" not in value:
        return value
    return text(f"{field}.{name}", value, maximum, empty=empty)


def count(field: str, items: Sequence[object], maximum: int, *, empty: bool = True) -> None:
    """Refuse a list that is too long, or empty where it must not be."""
    if not items and not empty:
        raise errors.InvalidField(field, "must not be empty")
    if len(items) > maximum:
        raise errors.LimitExceeded(field, "items", len(items), maximum)


def blob(field: str, value: BlobMessage) -> Blob:
    """Return a payload with an acceptable type tag; its bytes are not looked at."""
    tag = value.type
    if tag not in _USUAL_TYPES:
        type_tag(f"{field}.type", tag)
    return Blob(tag, value.data)


def type_tag(field: str, value: str) -> str:
    """Return an acceptable type tag."""
    tag = text(field, value, _MAX_TYPE_BYTES)
    if tag.split("+", 1)[0] in REFUSED_TYPES:
        raise errors.InvalidField(field, f"{tag!r} is refused because reading it can run code; use msgpack")
    return tag


def json_object(field: str, value: str, limits: Limits) -> dict[str, Any]:
    """Return a JSON object that Postgres' jsonb takes as well: no NaN, NUL or lone surrogates.

    The depth is checked before parsing, since the parser itself recurses.
    """
    size = len(value.encode())
    if size > limits.max_metadata_bytes:
        raise errors.LimitExceeded(field, "bytes", size, limits.max_metadata_bytes)
    if _depth(value, limits.max_metadata_depth) > limits.max_metadata_depth:
        raise errors.LimitExceeded(field, "depth", limits.max_metadata_depth + 1, limits.max_metadata_depth)
    try:
        parsed = _parse_json(value)
    except (ValueError, RecursionError) as error:
        problem = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise errors.InvalidField(field, f"is not JSON that can be stored: {problem}") from None
    if not isinstance(parsed, dict):
        raise errors.InvalidField(field, "must be a JSON object")
    # Only an escape can bring NUL or a lone surrogate past protobuf's own UTF-8 check.
    if "\\u" in value:
        storable(field, parsed)
    return parsed


def _depth(value: str, stop: int) -> int:
    if value.count("[") + value.count("{") <= stop:
        return stop
    depth = deepest = 0
    in_string = escaped = False
    for character in value:
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > stop:
                break
        elif character in "]}":
            depth -= 1
    return deepest


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError("a number is out of range")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    parsed = dict(pairs)
    if len(parsed) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return parsed


_parse_json = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_unique).decode


def storable(field: str, value: object) -> None:
    """Refuse texts, anywhere in parsed JSON, that Postgres does not store."""
    if isinstance(value, str):
        if "\0" in value:
            raise errors.InvalidField(field, "must not contain NUL")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise errors.InvalidField(field, "must not contain lone surrogates")
    elif isinstance(value, dict):
        for key, member in value.items():
            storable(field, key)
            storable(field, member)
    elif isinstance(value, list):
        for member in value:
            storable(field, member)
