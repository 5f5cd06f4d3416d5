"""What filters and queries mean, on parsed JSON: the reference for what Postgres does with SQL."""

from __future__ import annotations

import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tenure_server.items import MatchCondition, MatchType, Namespace

RANK_CONSTANT = 60
"""k of reciprocal rank fusion."""

_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_WORD = re.compile(r"\w+")


def matches(value: Mapping[str, object], filter: Mapping[str, object]) -> bool:
    """Tell whether a value has what a filter asks for; a missing member matches `$exists: false` alone."""
    return all(
        _holds(value[name], condition) if name in value else condition == {"$exists": False}
        for name, condition in filter.items()
    )


def _holds(value: object, condition: object) -> bool:
    if isinstance(condition, list):
        return isinstance(value, list) and len(value) == len(condition) and all(map(_holds, value, condition))
    if not isinstance(condition, dict):
        return value == condition
    if any(name.startswith("$") for name in condition):
        return all(_compares(value, name, operand) for name, operand in condition.items())
    return isinstance(value, dict) and matches(value, condition)


def _compares(value: object, name: str, operand: Any) -> bool:
    if name == "$eq":
        return bool(value == operand)
    if name == "$ne":
        return bool(value != operand)
    if name == "$in":
        return value in operand
    if name == "$nin":
        return value not in operand
    if name == "$exists":
        return bool(operand)
    for kind in ((int, float), str):
        if isinstance(value, kind) and isinstance(operand, kind):
            return _ORDER[name](value, operand)
    return False


def is_match(condition: MatchCondition, namespace: Namespace) -> bool:
    """Tell whether a namespace has the labels of a condition at the end that it looks at."""
    path = condition.path
    if len(namespace) < len(path):
        return False
    start = 0 if condition.type is MatchType.PREFIX else len(namespace) - len(path)
    labels = namespace[start : start + len(path)]
    return all(wanted in ("*", label) for wanted, label in zip(path, labels, strict=True))


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the cosine similarity of two vectors of one length, neither of which is all 0."""
    product = math.fsum(a * b for a, b in zip(one, other, strict=True))
    return product / (math.sqrt(math.fsum(a * a for a in one)) * math.sqrt(math.fsum(b * b for b in other)))


def word_score(text: str, query: str) -> float | None:
    """Return how often a text has the words of a query, None unless it has all of them.

    Postgres knows word stems as well, and weighs in other ways.
    """
    words = Counter(_WORD.findall(text.lower()))
    wanted = set(_WORD.findall(query.lower()))
    if not wanted or not all(words[word] for word in wanted):
        return None
    return sum(words[word] for word in wanted) / sum(words.values())
