"""LangGraph's values as messages and back."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import common_pb2
from tenure_client import codec, jsontext
from tenure_client.errors import UnreadableValue

SERDE = JsonPlusSerializer()
VERSIONS = st.one_of(
    st.text(), st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


def blob(value: Any) -> common_pb2.Blob:
    made = common_pb2.Blob()
    codec.fill_blob(made, value, SERDE)
    return made


@given(VERSIONS, VERSIONS)
def test_versions_have_the_same_text_exactly_if_they_are_equal(a: Any, b: Any) -> None:
    assert (codec.encode_version(a) == codec.encode_version(b)) == (a == b)


@pytest.mark.parametrize("version", [1, 1.0, True])
def test_numbers_that_are_equal_as_dict_keys_are_one_version(version: Any) -> None:
    assert codec.encode_version(version) == "i:1"


@pytest.mark.parametrize("version", [None, math.nan, math.inf, b"1", (1,)])
def test_what_is_no_version_is_refused(version: Any) -> None:
    with pytest.raises(TypeError, match="version"):
        codec.encode_version(version)


@given(st.dictionaries(st.sampled_from("abc"), JSON_VALUES))
def test_metadata_comes_back_as_it_was(metadata: dict[str, Any]) -> None:
    assert json.loads(jsontext.to_json(metadata, "metadata")) == metadata


def test_whole_numbers_stay_whole() -> None:
    text = jsontext.to_json({"step": 3, "share": 3.0}, "metadata")

    assert text == '{"step":3,"share":3.0}'


def test_tuples_become_lists() -> None:
    assert jsontext.to_json({"counters": {"a": (1, 2)}}, "metadata") == '{"counters":{"a":[1,2]}}'


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": {"b": math.nan}}, r"metadata\['a'\]\['b'\] is nan"),
        ({"a": [1, -math.inf]}, r"metadata\['a'\]\[1\] is -inf"),
        ({"a": "\0"}, r"metadata\['a'\] contains the character NUL"),
        ({"a": "\ud800"}, r"metadata\['a'\] contains a lone surrogate"),
        ({"a": {1: 2}}, r"metadata\['a'\] has the key 1"),
        ({"a": {"\0": 2}}, r"a key of metadata\['a'\]"),
        ({"a": object()}, r"metadata\['a'\] is of type object"),
        ({"a": b"bytes"}, r"metadata\['a'\] is of type bytes"),
    ],
)
def test_what_is_not_json_is_refused_by_its_place(value: dict[str, Any], place: str) -> None:
    with pytest.raises(TypeError, match=place):
        jsontext.to_json(value, "metadata")


def test_a_put_carries_values_of_new_versions_only() -> None:
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"old": 1, "new": 2}
    checkpoint["channel_versions"] = {"old": "1", "new": "2", "gone": "2"}
    config: Any = {"configurable": {"thread_id": 7, "checkpoint_ns": "ns", "checkpoint_id": "parent"}}

    mutation, large = codec.put_checkpoint(config, checkpoint, {}, {"new": "2", "gone": "2"}, SERDE, {})
    put = mutation.put

    assert put.ref == pb.CheckpointRef(thread_id="7", checkpoint_ns="ns", checkpoint_id=checkpoint["id"])
    assert put.parent_checkpoint_id == "parent"
    assert {value.channel: value.value for value in put.new_values} == {"new": blob(2)}
    assert {item.channel: item.version for item in put.channel_versions} == {
        "old": "s:1",
        "new": "s:2",
        "gone": "s:2",
    }
    body = codec.decode_blob(put.checkpoint, SERDE)
    assert body == {key: value for key, value in checkpoint.items() if key != "channel_values"}
    assert put.format_version == checkpoint["v"]
    assert large == {}


def test_metadata_takes_scalars_of_the_config_as_every_saver_does() -> None:
    config: Any = {
        "configurable": {"thread_id": "t", "user": "ann", "__secret": "x", "object": object()},
        "metadata": {"run_id": "r", "text": "a\0b"},
    }

    mutation, _ = codec.put_checkpoint(config, empty_checkpoint(), {"source": "loop"}, {}, SERDE, {})

    assert json.loads(mutation.put.metadata_json) == {
        "source": "loop",
        "run_id": "r",
        "text": "ab",
        "user": "ann",
    }


def test_special_writes_have_their_own_indexes() -> None:
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_id": "1"}}

    mutation = codec.put_writes(config, [("a", 1), ("__error__", 2), ("b", 3)], "task", "path", SERDE)

    writes = mutation.put_writes.writes
    assert [(write.channel, write.idx) for write in writes] == [("a", 0), ("__error__", -1), ("b", 2)]


def stored(parent: str = "") -> pb.Checkpoint:
    return pb.Checkpoint(
        ref=pb.CheckpointRef(thread_id="t", checkpoint_ns="ns", checkpoint_id="2"),
        parent_checkpoint_id=parent,
        checkpoint=blob({"id": "2", "channel_versions": {"b": 1, "a": 1, "empty": 1}}),
        metadata_json='{"step":1}',
        pending_writes=[pb.PendingWrite(task_id="task", channel="a", value=blob(5))],
    )


def test_a_stored_checkpoint_comes_back_whole() -> None:
    found = codec.checkpoint_tuple(stored("1"), {"a": blob(1), "b": blob(2)}, SERDE)

    assert found.config["configurable"] == {"thread_id": "t", "checkpoint_ns": "ns", "checkpoint_id": "2"}
    assert found.parent_config is not None
    assert found.parent_config["configurable"]["checkpoint_id"] == "1"
    assert list(found.checkpoint["channel_values"].items()) == [("b", 2), ("a", 1)]
    assert found.metadata == {"step": 1}
    assert found.pending_writes == [("task", "a", 5)]


def test_the_config_that_named_the_checkpoint_is_returned_itself() -> None:
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_id": "2"}, "tags": ["mine"]}

    found = codec.checkpoint_tuple(stored(), {}, SERDE, config)

    assert found.config is config
    assert found.parent_config is None


@pytest.mark.parametrize("body", [None, "text", [], {}, {"channel_versions": 1}])
def test_a_checkpoint_that_reads_as_something_else_is_unreadable(body: Any) -> None:
    checkpoint = stored()
    checkpoint.checkpoint.CopyFrom(blob(body))

    with pytest.raises(UnreadableValue, match="serializer"):
        codec.checkpoint_tuple(checkpoint, {}, SERDE)


def test_an_unset_namespace_lists_all_and_the_empty_one_lists_the_root() -> None:
    any_namespace: Any = {"configurable": {"thread_id": "t"}}
    root: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}

    assert not codec.list_request(any_namespace, None, None, None).HasField("checkpoint_ns")
    assert codec.list_request(root, None, None, None).HasField("checkpoint_ns")
    assert not codec.list_request(None, None, None, None).HasField("thread_id")


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_lists_nothing(limit: int) -> None:
    request = codec.list_request(None, None, None, limit)

    assert request.HasField("limit")
    assert request.limit == 0


def test_history_is_turned_oldest_first_and_keeps_every_asked_channel() -> None:
    pages = [
        pb.ChannelHistoryPage(writes=[pb.ChannelWrite(channel="a", task_id="2", value=blob(2))]),
        pb.ChannelHistoryPage(
            writes=[pb.ChannelWrite(channel="a", task_id="1", value=blob(1))],
            seeds=[pb.ChannelSeed(channel="a", value=blob(0))],
        ),
    ]

    assert codec.channel_history(["a", "b"], pages, SERDE) == {
        "a": {"writes": [("1", "a", 1), ("2", "a", 2)], "seed": 0},
        "b": {"writes": []},
    }
