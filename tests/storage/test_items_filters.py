"""Filters of items: every condition on every type of JSON means the same in each store, and in Python."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tenure_server.storage.memory_matching import matches

from tests.harness.databases import Database
from tests.storage.item_tenant import Tenant, opened, put

VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, -1, 1.0, 0.5, 1e300, 2**70, "", "1", "a", "b", "é", "\U0001f600", "\uffff"),
    *(
        [],
        [1],
        [True],
        [1, 2],
        [[1]],
        ["a"],
        {},
        {"x": 1},
        {"x": 1, "y": None},
        {"y": None},
        {'"': "\\"},
        [None],
    ),
]
CONDITIONS = [
    *({name: value} for name in ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte") for value in VALUES),
    *({name: some} for name in ("$in", "$nin") for some in ([], [1, "a"], [None, {"x": True}], [[1], 2])),
    *({"$exists": there} for there in (True, False)),
    *VALUES,
    {"$gt": 0, "$lt": 2},
    {"$exists": True, "$ne": 1},
    {"$exists": False, "$ne": 1},
    {"x": {"$gte": 1}},
    {"x": {"$exists": False}},
    {"y": {"$exists": True}, "x": {"$exists": False}},
    [{"$gt": 0}],
    [{"$in": [1, "a"]}, {"$ne": 3}],
    [[{"$eq": True}]],
    [{"$exists": False}],
]
parts = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 1.5, "a", "1"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["x", "y", "é\"'"]), inner, max_size=2)
    ),
    max_leaves=4,
)
operands = st.one_of(
    st.builds(
        lambda name, part: {name: part}, st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]), parts
    ),
    st.builds(lambda name, some: {name: some}, st.sampled_from(["$in", "$nin"]), st.lists(parts, max_size=3)),
    st.builds(lambda there: {"$exists": there}, st.booleans()),
)
conditions = st.recursive(
    parts | operands,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["x", "y", "é\"'"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@pytest.fixture
async def tenant(contract_database: Database) -> AsyncIterator[Tenant]:
    async with opened(contract_database) as (tenant,):
        yield tenant


async def test_each_condition_on_each_type(tenant: Tenant) -> None:
    stored = {str(number): {"v": value} for number, value in enumerate(VALUES)} | {"missing": {"w": 1}}
    await tenant.write(*(put(key, value) for key, value in stored.items()))
    for condition in CONDITIONS:
        wanted = {"v": condition}
        expected = [key for key, value in stored.items() if matches(value, wanted)]
        assert await tenant.keys(filter=wanted) == expected, wanted


@given(
    value=st.dictionaries(st.sampled_from("vw"), parts),
    wanted=st.dictionaries(st.sampled_from("vwz"), conditions),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_random_conditions(tenant: Tenant, value: dict[str, Any], wanted: dict[str, Any]) -> None:
    await tenant.write(put("k", value))
    assert bool(await tenant.keys(filter=wanted)) == matches(value, wanted)


@pytest.mark.parametrize(
    "name", ["", "$", "a.b", "a b", '"', "\\", "'", "é", "@", "*", "$v0", "\n", "\U0001f600", "\\u0041"]
)
async def test_names_of_members_are_taken_as_they_are(tenant: Tenant, name: str) -> None:
    await tenant.write(put("k", {"in": {name: 1}}), put("other", {"in": {"A" + name: 1}}))
    assert await tenant.keys(filter={"in": {"$eq": {name: 1}}}) == ["k"]
    if not name.startswith("$"):
        assert await tenant.keys(filter={"in": {name: 1}}) == ["k"]


async def test_several_members_must_all_match(tenant: Tenant) -> None:
    values = [dict(zip("ab", pair, strict=True)) for pair in itertools.product([1, 2], repeat=2)]
    await tenant.write(*(put(json.dumps(value), value) for value in values))
    assert await tenant.keys(filter={"a": 1, "b": {"$ne": 1}}) == [json.dumps({"a": 1, "b": 2})]
