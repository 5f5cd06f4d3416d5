"""The shape of a search's filter: which conditions there are, and how they may be put together.

What they mean is said in docs/semantics.md; what an operator compares with is any JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tenure_server import errors
from tenure_server.limits import Limits
from tenure_server.wire.json_text import parsed_object

OPERATORS: Final = frozenset({"$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists"})

_SHOWN = 32


def checked(field: str, text: str, limits: Limits) -> Mapping[str, object]:
    """Return a filter: an object of conditions on the members of an item's value, empty = any item.

    A condition is an object of operators, an object of conditions on the members of a member, a list of
    conditions on all elements of a list, or a scalar that the member equals.

    Raises:
        InvalidField: It is no such object.
        LimitExceeded: It is too large.
    """
    if not text:
        return {}
    conditions = parsed_object(field, text, limits.max_filter_bytes, limits.max_filter_depth)
    for name in conditions:
        if name.startswith("$"):
            raise errors.InvalidField(field, f"{_shown(name)} stands where the name of a member is expected")
    size = _Size(field, limits)
    size.add_members(len(conditions))
    for condition in conditions.values():
        _check(field, condition, size)
    return conditions


class _Size:
    """Counts what a filter has, so that what is made of it stays small."""

    def __init__(self, field: str, limits: Limits) -> None:
        self._field = field
        self._limits = limits
        self._members = 0
        self._elements = 0

    def add_members(self, count: int) -> None:
        self._members += count
        if self._members > self._limits.max_filter_members:
            raise errors.LimitExceeded(self._field, "members", self._members, self._limits.max_filter_members)

    def add_elements(self, count: int) -> None:
        self._elements += count
        if self._elements > self._limits.max_filter_elements:
            raise errors.LimitExceeded(
                self._field, "elements", self._elements, self._limits.max_filter_elements
            )

    def add_parts(self, value: object) -> None:
        """Count everything in a value that is compared with: each part becomes a comparison of its own."""
        if isinstance(value, (list, dict)):
            self.add_elements(len(value))
            for part in value.values() if isinstance(value, dict) else value:
                self.add_parts(part)


def _check(field: str, condition: object, size: _Size) -> None:
    if isinstance(condition, list):
        size.add_elements(len(condition))
        for element in condition:
            _check(field, element, size)
    elif isinstance(condition, dict):
        size.add_members(len(condition))
        operators = [name for name in condition if name.startswith("$")]
        if operators and len(operators) < len(condition):
            raise errors.InvalidField(field, f"{_shown(operators[0])} stands beside the name of a member")
        for name, value in condition.items():
            if operators:
                _check_operator(field, name, value, size)
            else:
                _check(field, value, size)


def _check_operator(field: str, operator: str, value: object, size: _Size) -> None:
    if operator not in OPERATORS:
        known = ", ".join(sorted(OPERATORS))
        raise errors.InvalidField(field, f"unknown operator {_shown(operator)}; there are {known}")
    if operator in ("$in", "$nin") and not isinstance(value, list):
        raise errors.InvalidField(field, f"{operator} needs a list")
    if operator == "$exists" and not isinstance(value, bool):
        raise errors.InvalidField(field, "$exists needs true or false")
    size.add_parts(value)


def _shown(name: str) -> str:
    return ascii(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}...")
