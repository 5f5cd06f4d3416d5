"""What every item that a filter matches contains; what filters mean is tested against databases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tenure_server.storage.postgres.item_filters import compiled


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        ({"a": "x", "b": 2.5, "c": None}, {"a": "x", "b": 2.5, "c": None}),
        ({"a": {"$eq": "x", "$ne": "y"}}, {"a": "x"}),
        ({"a": {"b": {"c": 7, "d": {"$gt": 1}}}}, {"a": {"b": {"c": 7}}}),
        ({"a": {"$eq": {"b": "x", "c": 1}}}, {"a": {"b": "x"}}),
        ({"a": {}}, {"a": {}}),
        ({"a": "x", "b": {"$in": ["y"]}}, {"a": "x"}),
    ],
)
def test_equalities_are_part_of_every_match(wanted: dict[str, Any], part: dict[str, Any]) -> None:
    assert part_of(wanted) == part


@pytest.mark.parametrize("number", [0, 1, 0.0, -0.0, 1.0, True, False])
def test_what_equals_a_boolean_is_left_out(number: object) -> None:
    """Of Python, 1 is true: an item with either matches, and none contains both."""
    assert part_of({"a": number}) is None
    assert part_of({"a": {"$eq": {"b": number}}}) == {"a": {}}


@pytest.mark.parametrize(
    "condition",
    [
        *({name: 5} for name in ("$gt", "$gte", "$lt", "$lte", "$ne")),
        *({"$in": ["x"]}, {"$nin": ["x"]}, {"$exists": True}, {"$exists": False}),
    ],
    ids=str,
)
def test_nothing_is_asked_for_where_nothing_is_known(condition: dict[str, Any]) -> None:
    assert part_of({"a": condition}) is None


def test_elements_of_lists_are_left_out() -> None:
    """For each of them `@>` would look through all that an item has, and could not be cancelled."""
    many = list(range(2, 1000))

    assert part_of({"a": many}) == {"a": []}
    assert part_of({"a": {"$eq": {"b": many}}}) == {"a": {"b": []}}


def test_without_a_filter_nothing_is_compiled() -> None:
    assert compiled({}) is None


def part_of(wanted: dict[str, Any]) -> object:
    found = compiled(wanted)
    assert found is not None
    return None if found[2] is None else json.loads(found[2])
