"""The one compiler of item filters, to a jsonpath predicate, its variables, and a part of what matches.

The path is strict: a lax one would look into arrays by itself. In a strict path a missing member is an error,
which makes a condition neither true nor false, and so never a match, negated or not.

The part is what every value that matches contains (`@>`). It decides nothing, but of a small value it takes a
tenth of the time that the predicate takes, which then is asked of few values only.

Keys are written into the path as JSON strings, values are variables. Conditions look at the type first, since
jsonpath leaves open whether values of different types are equal. Python's True is 1, and here so is JSON's.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_COMPARISONS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_ANY = object()
_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def compiled(filter: Mapping[str, object]) -> tuple[str, str, str | None] | None:
    """Return a jsonpath, its variables and a part as JSON for a checked filter, None if every item matches.

    They are arguments of `tenure.item_matches_1`; the part is None if it would say nothing.
    """
    if not filter:
        return None
    compiler = _Compiler()
    condition = compiler.members(filter)
    variables = json.dumps(compiler.variables, ensure_ascii=False)
    part = _members_part(filter)
    return (
        f"strict exists($ ? ({condition}))",
        variables,
        json.dumps(part, ensure_ascii=False) if part else None,
    )


class _Compiler:
    """Makes conditions on `@`.

    Attributes:
        variables: What they refer to, by name.
    """

    def __init__(self) -> None:
        self.variables: dict[str, object] = {}

    def members(self, filter: Mapping[str, object]) -> str:
        """Every member of the filter matches that of the object."""
        conditions = [self._member(key, wanted) for key, wanted in filter.items()]
        return _all(['@.type() == "object"', *conditions])

    def _member(self, key: str, wanted: object) -> str:
        """Match a member as `InMemoryStore` does, but for one that is missing."""
        if wanted == {"$exists": False}:
            return f"!{_has(key)}"
        return f"exists(@.{_quoted(key)} ? ({self._matches(wanted)}))"

    def _matches(self, wanted: object) -> str:
        if isinstance(wanted, Mapping):
            if any(key.startswith("$") for key in wanted):
                return _all([self._operator(name, operand) for name, operand in wanted.items()])
            return self.members(wanted)
        if isinstance(wanted, list):
            return self._elements([self._matches(one) for one in wanted])
        return self._equals(wanted)

    def _operator(self, name: str, operand: object) -> str:
        if name == "$exists":
            return "1 == 1" if operand else "1 == 0"
        if name == "$eq":
            return self._equals(operand)
        if name == "$ne":
            return f"!({self._equals(operand)})"
        if name in {"$in", "$nin"}:
            assert isinstance(operand, list)
            one_of = _any([self._equals(one) for one in operand])
            return one_of if name == "$in" else f"!({one_of})"
        return self._compares(_COMPARISONS[name], operand)

    def _equals(self, wanted: object) -> str:
        """Equality as of Python values; what is in an object or an array is compared, too."""
        if wanted is None:
            return "@ == null"
        if isinstance(wanted, Mapping):
            others = _all([f"@.key != {_quoted(key)}" for key in wanted])
            members = [
                f"{_has(key)} && exists(@.{_quoted(key)} ? ({self._equals(member)}))"
                for key, member in wanted.items()
            ]
            return _all(['@.type() == "object"', f"!exists(@.keyvalue() ? ({others}))", *members])
        if isinstance(wanted, list):
            return self._elements([self._equals(one) for one in wanted])
        return self._compares("==", wanted)

    def _elements(self, conditions: Sequence[str]) -> str:
        """An array of so many elements, each of which meets its condition."""
        return _all(
            [
                '@.type() == "array"',
                f"@.size() == {len(conditions)}",
                *(f"exists(@[{index}] ? ({condition}))" for index, condition in enumerate(conditions)),
            ]
        )

    def _compares(self, sign: str, operand: object) -> str:
        """Compare a text with texts, a number with numbers and booleans; nothing else compares."""
        if isinstance(operand, str):
            return f'(@.type() == "string" && @ {sign} {self._variable(operand)})'
        if not isinstance(operand, int | float):
            return "1 == 0"
        number = self._variable(int(operand) if isinstance(operand, bool) else operand)
        truths = [truth for truth in (True, False) if _ORDER[sign](truth, operand)]
        return _any(
            [
                f'@.type() == "number" && @ {sign} {number}',
                *(f'@.type() == "boolean" && @ == {json.dumps(truth)}' for truth in truths),
            ]
        )

    def _variable(self, value: object) -> str:
        name = f"v{len(self.variables)}"
        self.variables[name] = value
        return f"${name}"


def _members_part(filter: Mapping[str, object]) -> dict[str, object]:
    parts = {key: _part(wanted) for key, wanted in filter.items()}
    return {key: part for key, part in parts.items() if part is not _ANY}


def _part(wanted: object) -> object:
    """Return what every value that meets a condition contains, `_ANY` if that may be nothing."""
    if isinstance(wanted, Mapping):
        if any(key.startswith("$") for key in wanted):
            return _equal_part(wanted["$eq"]) if "$eq" in wanted else _ANY
        return _members_part(wanted)
    return _equal_part(wanted)


def _equal_part(wanted: object) -> object:
    """Return what every value that equals this one contains."""
    if isinstance(wanted, Mapping):
        parts = {key: _equal_part(member) for key, member in wanted.items()}
        return {key: part for key, part in parts.items() if part is not _ANY}
    if isinstance(wanted, list):
        # Of each element `@>` asks all of the value's, and cannot be cancelled.
        return []
    # Of Python, true is 1 and false is 0; `@>` knows better.
    return _ANY if wanted in (0, 1) else wanted


def _has(key: str) -> str:
    return f"exists(@.keyvalue() ? (@.key == {_quoted(key)}))"


def _quoted(key: str) -> str:
    return json.dumps(key)


def _all(conditions: Sequence[str]) -> str:
    return " && ".join(f"({condition})" for condition in conditions) if conditions else "1 == 1"


def _any(conditions: Sequence[str]) -> str:
    return " || ".join(f"({condition})" for condition in conditions) if conditions else "1 == 0"
