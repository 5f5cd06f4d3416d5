"""Metadata and filters as JSON text that comes back as it was."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

_encode_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

_SCALARS = frozenset({str, int, bool, float, type(None)})
_EMPTY = frozenset({dict, list})
_NUL = "\\u0000"


def to_json(value: Mapping[str, Any], name: str) -> str:
    """Return a mapping as JSON text from which `json.loads` makes the same mapping.

    Tuples become lists. InMemorySaver would take any value that msgpack takes; here metadata is JSON, so
    that the server can filter by it.

    Raises:
        TypeError: A value is not JSON, or is NaN, infinite, or text that Postgres cannot hold; the message
            names its place.
    """
    if _is_flat(value):
        # Nearly always; walking in Python takes several times what encoding does.
        with suppress(ValueError):  # not finite, or a lone surrogate
            text = _encode_json(value)
            text.encode()
            if _NUL not in text:
                return text
    return _encode_json(_plain(value, name))


def _is_flat(value: Mapping[str, Any]) -> bool:
    for key, item in value.items():
        if type(key) is not str or (type(item) not in _SCALARS and (item or type(item) not in _EMPTY)):
            return False
    return True


def _plain(value: Any, place: str) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return _text(value, place)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{place} is {value}, which is not JSON: use None or text")
        return value
    if isinstance(value, Mapping):
        return {_key(key, place): _plain(item, f"{place}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    raise TypeError(
        f"{place} is of type {type(value).__name__}, which is not JSON: put it into the graph's state, or "
        "store its text here"
    )


def _key(key: Any, place: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{place} has the key {key!r}, but the keys of JSON are text")
    return _text(key, f"a key of {place}")


def _text(text: str, place: str) -> str:
    if "\x00" in text:
        raise TypeError(f"{place} contains the character NUL, which cannot be stored")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TypeError(f"{place} contains a lone surrogate, which is not Unicode text") from None
    return text
