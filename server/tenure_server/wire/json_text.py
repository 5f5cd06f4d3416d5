"""JSON that a caller sends as text: one object that Python and Postgres read alike."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from tenure_server import errors
from tenure_server.wire.fields import storable

_NESTING = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
"""Strings, whole so that brackets in them do not count, and brackets."""
_LONG_NUMBER = re.compile(r"[0-9](?:[0-9]{199}|[eE][+-]?[0-9]{3})")
"""Without a match every number is small enough; checking them one by one takes several times as long.

Both cases begin with a digit: a search for either of two beginnings takes five times as long.
"""
_MAX_DIGITS = 1000
_MAX_EXPONENT = 400


def parsed_object(field: str, text: str, maximum: int, depth: int) -> dict[str, Any]:
    """Return the JSON object that a text is.

    Args:
        field: Its path, for errors.
        text: At most `maximum` bytes, nested at most `depth` deep.
        maximum: In bytes.
        depth: In levels; the object itself is the first.

    Raises:
        LimitExceeded: It is too large or too deep.
        InvalidField: It is no JSON object, or has what Postgres or JSON itself does not know: NUL, lone
            surrogates, NaN, infinity, or a number out of range.
    """
    if len(text) > maximum // 4 and (size := len(text.encode())) > maximum:
        raise errors.LimitExceeded(field, "bytes", size, maximum)
    # The parser recurses: what is too deep must not reach it.
    _check_depth(field, text, depth)
    try:
        parsed = (_CAREFUL if _LONG_NUMBER.search(text) else _QUICK).decode(text)
    except (ValueError, RecursionError) as error:
        problem = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise errors.InvalidField(field, f"is not JSON that can be stored: {problem}") from None
    if not isinstance(parsed, dict):
        raise errors.InvalidField(field, "must be a JSON object")
    # Only an escape can bring NUL or a lone surrogate past protobuf's own UTF-8 check.
    if "\\u" in text:
        storable(field, parsed)
    return parsed


def _check_depth(field: str, text: str, maximum: int) -> None:
    if text.count("[") + text.count("{") <= maximum:
        return
    depth = 0
    for token in _NESTING.finditer(text):
        first = text[token.start()]
        if first in "[{":
            depth += 1
            if depth > maximum:
                raise errors.LimitExceeded(field, "depth", depth, maximum)
        elif first != '"':
            depth -= 1


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _int(digits: str) -> int:
    if len(digits.lstrip("-")) > _MAX_DIGITS:
        raise ValueError(f"a number has more than {_MAX_DIGITS:,} digits")
    return int(digits)


def _float(text: str) -> float:
    exponent = text.lower().partition("e")[2].lstrip("+-0")
    # Postgres keeps numbers exactly, up to a limit of its own, and so cannot keep 1e-99999.
    if len(text) > _MAX_DIGITS or (exponent and (len(exponent) > 3 or int(exponent) > _MAX_EXPONENT)):
        raise ValueError("a number is out of range")
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is out of range")
    return value


# `json.loads` would make one for each text.
_QUICK = json.JSONDecoder(parse_constant=_refuse)
_CAREFUL = json.JSONDecoder(parse_constant=_refuse, parse_int=_int, parse_float=_float)
