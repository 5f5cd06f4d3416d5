"""The storage contract: listings filtered by metadata, compared as InMemorySaver does, in Python."""

from __future__ import annotations

import json

import pytest

from tests.storage.tenant import Tenant, put

FILTERS = [
    # metadata's member, what is asked, whether they are equal; JSON texts, None = the member is missing
    ("1", "1", True),
    ("1", "1.0", True),
    ("1", "true", True),
    ("1.0", "true", True),
    ("0", "false", True),
    ("-0.0", "0", True),
    ("1", '"1"', False),
    ("1", "2", False),
    ("0.1", "0.10", True),
    ("0.1", "0.1000000000000000055511151231257827", True),
    ("1e2", "100", True),
    ("9007199254740993", "9007199254740992.0", False),
    ("9007199254740992", "9007199254740992.0", True),
    ("100000000000000000000001", "100000000000000000000000", False),
    ("1e308", "1e308", True),
    ("5e-324", "5e-324", True),
    ("null", "null", True),
    (None, "null", True),
    ("null", "0", False),
    ("null", '""', False),
    (None, "1", False),
    ('""', '""', True),
    ('"a"', '"a"', True),
    ('"a"', '"A"', False),
    ('"a"', '"a "', False),
    ('"\u00e9"', '"\\u00e9"', True),
    ('"e\u0301"', '"\u00e9"', False),
    (json.dumps("x" * 1024), json.dumps("x" * 1024), True),
    (json.dumps("x" * 1025), json.dumps("x" * 1025), True),
    (json.dumps("x" * 5000 + "y"), json.dumps("x" * 5000 + "z"), False),
    (json.dumps("x" * 5000), "null", False),
    (json.dumps("x" * 5000), '"x"', False),
    ("[]", "[]", True),
    ("[]", "{}", False),
    ("[]", "null", False),
    ("[1, [2.0, true]]", "[1.0, [2, 1]]", True),
    ("[1, 2]", "[2, 1]", False),
    ("[1, 2]", "[1]", False),
    ('{"a": 1, "b": {}}', '{"b": {}, "a": true}', True),
    ('{"a": 1}', '{"a": 1, "b": null}', False),
    ('{"a": [null]}', '{"a": [null]}', True),
    ("[0]", "[false]", True),
]


@pytest.mark.parametrize(("held", "asked", "equal"), FILTERS, ids=range(len(FILTERS)))
async def test_a_filter_compares_as_python_does(
    tenant: Tenant, held: str | None, asked: str, equal: bool
) -> None:
    metadata = "{}" if held is None else f'{{"step": 3, "k": {held}}}'
    assert (json.loads(metadata).get("k") == json.loads(asked)) is equal
    await tenant.write(put("t", "1", metadata=metadata))
    assert await tenant.ids("t", filter={"k": json.loads(asked)}) == (["1"] if equal else [])


async def test_every_member_of_a_filter_must_match(tenant: Tenant) -> None:
    await tenant.write(
        put("t", "1", metadata={"source": "loop", "step": 1, "parents": {}}),
        put("t", "2", metadata={"source": "loop", "step": 2, "parents": {"": "1"}}),
        put("t", "3", metadata={"source": "input", "step": 1, "parents": {}}),
    )
    assert await tenant.ids("t", filter={"source": "loop", "step": 1}) == ["1"]
    assert await tenant.ids("t", filter={"step": 1, "parents": {}}) == ["3", "1"]
    assert await tenant.ids("t", filter={"source": "loop", "absent": None}) == ["2", "1"]
    assert await tenant.ids("t", filter={"source": "loop", "absent": 0}) == []
    assert await tenant.ids("t", filter={}) == ["3", "2", "1"]


async def test_filter_names_are_not_paths_or_patterns(tenant: Tenant) -> None:
    await tenant.write(put("t", "1", metadata={"a": {"b": 1}, "$.c": 2, "d'\"\\": 3, "": 4, "%": 5}))
    assert await tenant.ids("t", filter={"a.b": 1}) == []
    for name, value in [("$.c", 2), ("d'\"\\", 3), ("", 4), ("%", 5)]:
        assert await tenant.ids("t", filter={name: value}) == ["1"]
