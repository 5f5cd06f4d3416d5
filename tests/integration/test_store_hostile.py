"""What nobody should ask of a store, through the public client in both colours: a typed error that says
where, nothing stored, and the next call works. And what looks odd but is fine."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)
from tenure_client import TenureStore, errors

from tests.harness.embedders import DIMS, embed_letters
from tests.harness.stack import Stack, TenantHandle

INDEX: Any = {"dims": DIMS, "embed": embed_letters, "fields": ["text"]}
Do = Callable[[list[Any]], list[Any]]


@pytest.fixture
def tenant(stack: Stack) -> TenantHandle:
    return stack.new_tenant()


@pytest.fixture
def store(stack: Stack, tenant: TenantHandle) -> Iterator[TenureStore]:
    with TenureStore(stack.target, api_key=tenant.api_key, index=INDEX, search_mode="hybrid") as opened:
        yield opened


@pytest.fixture(params=["sync", "async"])
def do(store: TenureStore, request: pytest.FixtureRequest) -> Iterator[Do]:
    """`batch` in one of the colours."""
    if request.param == "sync":
        yield store.batch
        return
    with asyncio.Runner() as runner:

        async def call(ops: list[Any]) -> list[Any]:
            return await store.abatch(ops)

        yield lambda ops: runner.run(call(ops))
        runner.run(store.aclose())


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def put(namespace: Any = ("a",), key: Any = "k", value: Any = None, **more: Any) -> PutOp:
    return PutOp(namespace, key, {"text": "x"} if value is None else value, **more)


def suffix(*path: str) -> tuple[MatchCondition, ...]:
    return (MatchCondition("suffix", path),)


INVALID, LIMIT = errors.InvalidRequest, errors.LimitExceeded
NAN, INFINITY = math.nan, math.inf
BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "no namespace": (put(()), InvalidNamespaceError, "(?i)namespace"),
    "an empty label": (put(("a", "")), InvalidNamespaceError, "(?i)label"),
    "a label with a period": (put(("a.b",)), InvalidNamespaceError, "(?i)label|namespace"),
    "a label that is no text": (put(("a", 1)), InvalidNamespaceError, "(?i)label|namespace"),
    "a namespace that is a text": (put("abc"), InvalidNamespaceError, "(?i)namespace"),
    "the reserved root": (put(("langgraph", "a")), InvalidNamespaceError, "langgraph"),
    "a label with NUL": (put(("a\0",)), InvalidNamespaceError, "(?i)namespace"),
    "a label with half a character": (put(("\ud800",)), INVALID, "namespace"),
    "an empty label to read": (GetOp(("a", ""), "k"), InvalidNamespaceError, "(?i)label"),
    "an empty label to search": (SearchOp(("a", "")), InvalidNamespaceError, "(?i)label"),
    "an empty label to delete": (PutOp(("a", ""), "k", None), InvalidNamespaceError, "(?i)label"),
    "too many labels": (put(("a",) * 33), INVALID, "namespace"),
    "long labels": (put(("a" * 600, "b" * 600)), LIMIT, "namespace"),
    "a long label to read": (GetOp(("a" * 1025,), "k"), LIMIT, "namespace"),
    "a long key": (put(key="k" * 513), INVALID, "key"),
    "a key of 3 MiB": (put(key="k" * (3 << 20)), INVALID, "key"),
    "a key of 3 MiB to read": (GetOp(("a",), "k" * (3 << 20)), INVALID, "key"),
    "a key of 3 MiB to delete": (PutOp(("a",), "k" * (3 << 20), None), INVALID, "key"),
    "a key with NUL": (put(key="\0"), INVALID, "key"),
    "a key with half a character": (put(key="\udfff"), INVALID, "key"),
    "a value that is a list": (put(value=[1]), TypeError, "value"),
    "a value with NaN": (put(value={"a": [{"b": NAN}]}), TypeError, r"value\['a'\]\[0\]\['b'\]"),
    "a value with infinity": (put(value={"a": -INFINITY}), TypeError, r"value\['a'\]"),
    "a value with NUL": (put(value={"a": "\0"}), TypeError, r"value\['a'\]"),
    "a value with a key with NUL": (put(value={"a": {"\0": 1}}), TypeError, r"value\['a'\]"),
    "a value with half a character": (put(value={"a": "\ud800"}), TypeError, r"value\['a'\]"),
    "a value with bytes": (put(value={"a": b"x"}), TypeError, r"value\['a'\]"),
    "a value with numbers as keys": (put(value={"a": {1: 2}}), TypeError, r"value\['a'\]"),
    "a deep value": (put(value={"a": nested(70)}, index=False), LIMIT, "value"),
    "a very deep value": (put(value={"a": nested(5_000)}, index=False), LIMIT, "value"),
    "a bottomless value": (put(value={"a": nested(200_000)}, index=False), LIMIT, "value"),
    "a value of 9 MiB": (put(value={"a": "x" * (9 << 20)}, index=False), LIMIT, "value"),
    "a huge number": (put(value={"a": 10**2000}), INVALID, "value"),
    "a negative time to live": (put(ttl=-1.0), INVALID, "ttl"),
    "a time to live that is no number": (put(ttl=NAN), INVALID, "ttl"),
    "an endless time to live": (put(ttl=INFINITY), INVALID, "ttl"),
    "a time to live of ages": (put(ttl=1e12), INVALID, "ttl"),
    "a time to live that is a text": (put(ttl="1"), INVALID, "ttl"),
    "an index that is a text": (put(index="text"), INVALID, "index"),
    "an unknown operator": (SearchOp((), {"a": {"$like": "x"}}), INVALID, r"\$like"),
    "an operator that needs a list": (SearchOp((), {"a": {"$in": 1}}), INVALID, "filter"),
    "an operator beside a member": (SearchOp((), {"a": {"$eq": 1, "b": 2}}), INVALID, "filter"),
    "an operator for the whole": (SearchOp((), {"$eq": 1}), INVALID, "filter"),
    "a deep filter": (SearchOp((), {"a": nested(40)}), LIMIT, "filter"),
    "a bottomless filter": (SearchOp((), {"a": nested(200_000)}), LIMIT, "filter"),
    "a wide filter": (SearchOp((), {str(at): at for at in range(33)}), LIMIT, "filter"),
    "a filter with NaN": (SearchOp((), {"a": NAN}), TypeError, "filter"),
    "a filter with a class": (SearchOp((), {"a": object()}), TypeError, "filter"),
    "a negative limit": (SearchOp((), None, -1), INVALID, "limit"),
    "a limit that is no number": (SearchOp((), None, 1.5), INVALID, "limit"),  # type: ignore[arg-type]
    "a huge offset": (SearchOp((), None, 1, 2**31), INVALID, "offset"),
    "a long query": (SearchOp((), None, 1, 0, "x" * 10_000), LIMIT, "query"),
    "a query with NUL": (SearchOp((), None, 1, 0, "a\0b"), INVALID, "query"),
    "a query with half a character": (SearchOp((), None, 1, 0, "\ud800"), INVALID, "query"),
    "an unknown match type": (ListNamespacesOp((MatchCondition("infix", ("a",)),)), INVALID, "match"),  # type: ignore[arg-type]
    "an empty label to match": (ListNamespacesOp(suffix("")), InvalidNamespaceError, "(?i)label"),
    "many conditions": (ListNamespacesOp(suffix("a") * 9), INVALID, "conditions"),
    "a negative depth": (ListNamespacesOp(None, -1), INVALID, "max_depth"),
    "what is no operation": ("put", INVALID, "operation"),
}


@pytest.mark.parametrize(("op", "error", "where"), BAD.values(), ids=BAD)
def test_bad_input_is_a_typed_error_that_says_where_and_changes_nothing(
    do: Do, op: Any, error: type[Exception], where: str
) -> None:
    do([put(key="before", value={"n": 1})])
    with pytest.raises(error, match=where) as caught:
        do([put(key="beside"), op, put(("b",), "beside")])
    assert not isinstance(caught.value, (errors.OutcomeUnknown, errors.ServerError, UnicodeError)), caught
    assert [(found.key, found.value) for found in do([SearchOp(())])[0]] == [("before", {"n": 1})]
    assert do([ListNamespacesOp()]) == [[("a",)]]


@pytest.mark.parametrize(
    "made", [[1.0], [1.0] * (DIMS + 1), [NAN] * DIMS, [INFINITY] * DIMS, [], ["x"] * DIMS]
)
async def test_vectors_that_are_none(stack: Stack, tenant: TenantHandle, made: Any) -> None:
    index: Any = {"dims": DIMS, "embed": lambda texts: [made for _ in texts], "fields": ["text"]}
    async with TenureStore(stack.target, api_key=tenant.api_key, index=index) as store:
        for call in (lambda: store.put(("a",), "k", {"text": "x"}), lambda: store.search((), query="x")):
            with pytest.raises((INVALID, TypeError)):
                call()
        for work in (store.aput(("a",), "k", {"text": "x"}), store.asearch((), query="x")):
            with pytest.raises((INVALID, TypeError)):
                await work
        assert store.search(()) == []
        store.put(("a",), "k", {"other": "x"})
        assert len(store.search(())) == 1


ODD = [
    *(
        "'",
        '"',
        "\\",
        "%",
        "_",
        "a%",
        "a_",
        "*",
        "$",
        "\x01",
        "\x01\x01",
        "\x01\x02",
        "\x02",
        "\x7f",
        "\u2028",
    ),
    *(" ", "é", "e\u0301", "\U0001f600", "\U0010ffff", "\ufeff", "{}", "null", "'; DROP SCHEMA tenure; --"),
    *("a", "A", "acme", "acme-corp", "acme\x01", "@", "a/b", "a:b"),
]


def test_odd_labels_and_keys_are_just_text(do: Do) -> None:
    places = [(label,) for label in ODD] + [("acme", label) for label in ODD] + [("acme\x01", "x")]
    places = list(dict.fromkeys(places))
    do([put(place, key, {"at": [*place, key]}) for place in places for key in ("k", place[-1], "")])
    for place in places:
        below = [other for other in places if other[: len(place)] == place]
        matching = [
            other
            for other in places
            if len(other) >= len(place)
            and all(one in ("*", at) for one, at in zip(place, other, strict=False))
        ]
        (found, named, ends, *items) = do(
            [
                SearchOp(place, limit=1000),
                ListNamespacesOp((MatchCondition("prefix", place),), limit=1000),
                ListNamespacesOp(suffix(place[-1]), limit=1000),
                *(GetOp(place, key) for key in ("k", place[-1], "")),
            ]
        )
        assert {item.namespace for item in found} == set(below)
        assert named == sorted(matching)
        assert ends == sorted(other for other in places if place[-1] in ("*", other[-1]))
        assert [item.value["at"] for item in items] == [[*place, key] for key in ("k", place[-1], "")]
    assert do([ListNamespacesOp(limit=1000)]) == [sorted(places)]
    assert do([ListNamespacesOp(limit=1000, max_depth=1)]) == [sorted({place[:1] for place in places})]
    do([PutOp(place, place[-1], None) for place in places])
    assert [do([GetOp(place, place[-1])])[0] for place in places] == [None] * len(places)


def test_odd_members_in_values_and_filters(do: Do) -> None:
    do([put(("a",), str(at), {name: {name: at}}, index=False) for at, name in enumerate(ODD)])
    for at, name in enumerate(ODD):
        if not name.startswith("$"):
            (found,) = do([SearchOp((), {name: {name: {"$eq": at}}})])
            assert [item.key for item in found] == [str(at)]
    texts = [put(("b",), str(at), {"is": name}, index=False) for at, name in enumerate(ODD)]
    do(texts)
    for at, name in enumerate(ODD):
        assert [item.key for item in do([SearchOp(("b",), {"is": name})])[0]] == [str(at)]


def test_a_batch_of_thousands_mixed_and_large(do: Do) -> None:
    keys = [f"{at:05}" for at in range(2_500)]
    assert do([put(("a",), key, {"n": int(key)}, index=False) for key in keys]) == [None] * len(keys)
    ops = [op for key in keys for op in (GetOp(("a",), key), PutOp(("a",), key, None))]
    results = do(ops)
    assert [item.value["n"] for item in results[::2]] == list(map(int, keys))
    assert do([SearchOp((), limit=5)]) == [[]]
    large = "é" * 700_000
    do([put(("b",), str(at), {"text": large}, index=False) for at in range(20)])
    got = do([*(GetOp(("b",), str(at)) for at in range(20)), SearchOp(("b",), limit=20)])
    assert all(item.value == {"text": large} for item in [*got[:20], *got[20]])
    found = do([SearchOp(("b",), {"text": large[:10]}), SearchOp(("b",), {"text": {"$ne": ""}}, 3, 18)])
    assert [len(each) for each in found] == [0, 2]


def test_the_last_write_to_a_key_counts_wherever_it_stands(do: Do) -> None:
    results = do(
        [
            put(key="k", value={"n": 1}),
            GetOp(("a",), "k"),
            PutOp(("a",), "k", None),
            put(key="l", value={"n": 2}),
            put(key="k", value={"n": 3}),
            PutOp(("a",), "l", None),
            SearchOp(()),
        ]
    )
    assert results == [None, None, None, None, None, None, []]
    (found,) = do([SearchOp(())])
    assert [(item.key, item.value) for item in found] == [("k", {"n": 3})]


def test_values_come_back_as_they_were(do: Do) -> None:
    value = {
        "numbers": [0, -0.0, 1e5, 1.0, 1e-7, 123456789012345678901234567890, 0.1, 1e300, 5e-324, 2**63],
        "texts": ["", "\\u0000", "\u2028", "\U0001f600", "a\tb\n", '"'],
        "": {"": [None, True, False, {}, []]},
    }
    do([put(key="k", value=value, index=False)])
    (item,) = do([GetOp(("a",), "k")])
    assert json.dumps(item.value, sort_keys=True) == json.dumps(value, sort_keys=True)
