"""How LangGraph's store operations become messages, and which of them are refused before anything is sent."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
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
from tenure.v1 import store_pb2 as pb
from tenure_client import store_codec as codec
from tenure_client.errors import InvalidRequest, LimitExceeded


def put(value: Any = None, **given: Any) -> pb.PutItem:
    return codec.put(PutOp(("a",), "k", {} if value is None else value, **given)).put


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"text": "naïve 🦜", "n": [1, 2.5, None, True, {"deep": [[]]}]},
        {"large": 2**80, "small": 5e-324, "": "empty key"},
    ],
)
def test_a_value_is_json_text_that_comes_back_as_it_was(value: dict[str, Any]) -> None:
    assert json.loads(put(value).value_json) == value


def test_tuples_become_lists() -> None:
    assert json.loads(put({"pair": (1, ("x",))}).value_json) == {"pair": [1, ["x"]]}


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [1, {"b": math.nan}]}, r"value\['a'\]\[1\]\['b'\]"),
        ({"a": math.inf}, r"value\['a'\]"),
        ({"a": "x\0"}, r"value\['a'\]"),
        ({"a": "\ud800"}, r"value\['a'\]"),
        ({"a": {1: 2}}, r"value\['a'\]"),
        ({"a": {1, 2}}, r"value\['a'\]"),
        ({"a": datetime.now(UTC)}, r"value\['a'\]"),
        ([1], "value is of type list"),
    ],
)
def test_what_is_not_json_is_refused_by_its_place(value: Any, place: str) -> None:
    with pytest.raises(TypeError, match=place):
        put(value)


def test_a_value_that_contains_itself_is_refused() -> None:
    value: dict[str, Any] = {}
    value["self"] = value

    with pytest.raises(LimitExceeded, match="nested too deeply"):
        put(value)


def test_minutes_become_seconds() -> None:
    assert put(ttl=1.5).ttl_seconds == 90
    assert not put(ttl=None).HasField("ttl_seconds")


@pytest.mark.parametrize("ttl", [-1, math.nan, math.inf, "5"])
def test_a_time_to_live_is_a_number_of_minutes(ttl: Any) -> None:
    with pytest.raises(InvalidRequest, match="ttl"):
        put(ttl=ttl)


@pytest.mark.parametrize(
    ("index", "paths", "unindexed"),
    [(None, [], False), (False, [], True), ([], [], True), (["a", "b[*].c"], ["a", "b[*].c"], False)],
)
def test_what_is_indexed_travels_for_a_rebuild(index: Any, paths: list[str], unindexed: bool) -> None:
    message = put(index=index)

    assert (list(message.index_paths), message.unindexed) == (paths, unindexed)


@pytest.mark.parametrize("index", [True, "a", 3])
def test_an_index_is_false_or_a_list_of_paths(index: Any) -> None:
    with pytest.raises(InvalidRequest, match="index"):
        put(index=index)


def test_no_value_deletes() -> None:
    message = codec.put(PutOp(("a", "b"), "k", None))

    assert message.delete == pb.DeleteItem(namespace=pb.Namespace(labels=["a", "b"]), key="k")


BAD_LABELS: list[Any] = [("a.b",), ("a", ""), (1,), ("a\0",), "text"]


@pytest.mark.parametrize("labels", BAD_LABELS)
@pytest.mark.parametrize(
    "make",
    [
        lambda labels: GetOp(labels, "k"),
        lambda labels: PutOp(labels, "k", {}),
        lambda labels: PutOp(labels, "k", None),
        lambda labels: SearchOp(labels),
    ],
    ids=["get", "put", "delete", "search"],
)
def test_namespaces_keep_the_rules_of_langgraph(make: Any, labels: Any) -> None:
    with pytest.raises(InvalidNamespaceError):
        codec.check(make(labels))


@pytest.mark.parametrize("labels", BAD_LABELS[:-1])
def test_patterns_of_namespaces_keep_them_too(labels: Any) -> None:
    with pytest.raises(InvalidNamespaceError):
        codec.check(ListNamespacesOp((MatchCondition("prefix", labels),)))


@pytest.mark.parametrize("labels", [(), ("langgraph",), ("langgraph", "x")])
def test_puts_past_the_public_methods_keep_the_rules_for_puts(labels: Any) -> None:
    with pytest.raises(InvalidNamespaceError):
        codec.check(PutOp(labels, "k", {}))
    codec.check(PutOp(("x", "langgraph"), "k", {}))


def test_what_is_no_operation_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown operation type"):
        codec.check(("a", "b"))


def test_a_search_without_a_mode_ignores_its_query() -> None:
    message = codec.search(SearchOp(("a",), {"n": {"$gt": 1}}, 5, 7, "words", refresh_ttl=False), None).search

    assert message == pb.SearchItems(
        namespace_prefix=pb.Namespace(labels=["a"]), filter_json='{"n":{"$gt":1}}', limit=5, offset=7
    )


@pytest.mark.parametrize(
    ("mode", "wire", "text"),
    [
        ("semantic", pb.SEARCH_MODE_SEMANTIC, ""),
        ("keyword", pb.SEARCH_MODE_KEYWORD, "words"),
        ("hybrid", pb.SEARCH_MODE_HYBRID, "words"),
    ],
)
def test_words_travel_for_the_modes_that_need_them(mode: str, wire: int, text: str) -> None:
    message = codec.search(SearchOp((), query="words"), mode).search

    assert (message.mode, message.query_text) == (wire, text)


@pytest.mark.parametrize("query", [None, ""])
def test_no_query_needs_no_mode(query: str | None) -> None:
    assert codec.search(SearchOp((), query=query), "hybrid").search.mode == pb.SEARCH_MODE_UNSPECIFIED


def test_a_filter_is_json() -> None:
    with pytest.raises(TypeError, match=r"filter\['a'\]"):
        codec.search(SearchOp((), {"a": math.nan}), None)


@pytest.mark.parametrize("bad", [{"limit": -1}, {"offset": -1}, {"limit": 1.5}, {"offset": 2**31}])
def test_numbers_that_make_no_sense_are_refused_by_name(bad: dict[str, Any]) -> None:
    (field,) = bad
    with pytest.raises(InvalidRequest) as caught:
        codec.search(SearchOp((), **bad), None)
    assert caught.value.field == field
    with pytest.raises(InvalidRequest, match=field):
        codec.list_namespaces(ListNamespacesOp(**bad))


def test_a_listing_of_namespaces() -> None:
    conditions = (MatchCondition("prefix", ("a", "*")), MatchCondition("suffix", ("z",)))

    message = codec.list_namespaces(ListNamespacesOp(conditions, 0, 50_000, 3)).list_namespaces

    assert message == pb.ListNamespaces(
        conditions=[
            pb.MatchCondition(type=pb.MATCH_TYPE_PREFIX, path=["a", "*"]),
            pb.MatchCondition(type=pb.MATCH_TYPE_SUFFIX, path=["z"]),
        ],
        max_depth=0,
        limit=codec.MAX_NAMESPACES_LIMIT,
        offset=3,
    )
    assert not codec.list_namespaces(ListNamespacesOp()).list_namespaces.HasField("max_depth")


def test_a_match_type_that_is_not_known_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="middle"):
        codec.list_namespaces(ListNamespacesOp((MatchCondition("middle", ("a",)),)))  # type: ignore[arg-type]


def test_a_lone_surrogate_is_refused_by_the_name_of_its_field() -> None:
    with pytest.raises(InvalidRequest) as caught:
        codec.get(GetOp(("a",), "\ud800"))
    assert caught.value.field == "key"


def test_an_item_has_its_times_to_the_microsecond() -> None:
    item = codec.search_item(
        pb.Item(
            namespace=pb.Namespace(labels=["a", "b"]),
            key="k",
            value_json='{"n":[1]}',
            created_at_us=1_700_000_000_123_456,
            updated_at_us=1_700_000_000_123_457,
            score=0.0,
        )
    )

    assert item.namespace == ("a", "b")
    assert item.value == {"n": [1]}
    assert item.created_at == datetime(2023, 11, 14, 22, 13, 20, 123456, UTC)
    assert (item.updated_at - item.created_at).microseconds == 1
    assert item.score == 0.0
    assert codec.search_item(pb.Item(value_json="{}")).score is None
