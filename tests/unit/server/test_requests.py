"""Requests become domain values; every refusal is one of our errors and names its field."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import common_pb2
from tenure_server import errors
from tenure_server.domain import (
    Blob,
    ChannelValue,
    CheckpointRef,
    ListQuery,
    Operation,
    PendingWrite,
    PruneStrategy,
    PutCheckpoint,
    PutWrites,
)
from tenure_server.limits import Limits
from tenure_server.wire.requests import Requests, page_token, traceparents
from tenure_server.wire.telling import WHOLE

LIMITS = Limits()
REQUESTS = Requests(LIMITS)
OPERATION = common_pb2.Operation(operation_id=b"i" * 16, timeout_ms=5000)
REF = pb.CheckpointRef(thread_id="thread", checkpoint_ns="ns:1", checkpoint_id="2")
BLOB = common_pb2.Blob(type="msgpack", data=b"data")


def _put() -> pb.Mutation:
    return pb.Mutation(
        operation=OPERATION,
        put=pb.PutCheckpoint(
            ref=REF,
            parent_checkpoint_id="1",
            checkpoint=BLOB,
            metadata_json='{"step": 1}',
            channel_versions=[pb.ChannelVersion(channel="a", version="i:1")],
            new_values=[pb.ChannelValue(channel="a", version="i:1", value=BLOB)],
            format_version=4,
        ),
    )


def _put_writes() -> pb.Mutation:
    write = pb.PendingWrite(task_id="task", task_path="~path", idx=-4, channel="a", value=BLOB)
    return pb.Mutation(operation=OPERATION, put_writes=pb.PutWrites(ref=REF, writes=[write]))


def _read() -> pb.CheckpointRead:
    return pb.CheckpointRead(operation=OPERATION, ref=REF)


def _list() -> pb.ListRequest:
    return pb.ListRequest(
        operation=OPERATION,
        thread_id="thread",
        checkpoint_ns="",
        checkpoint_id="2",
        before_checkpoint_id="3",
        filter_json='{"step": 1}',
        limit=5,
    )


def _history() -> pb.GetChannelHistoryRequest:
    return pb.GetChannelHistoryRequest(operation=OPERATION, ref=REF, channels=["a", "b", "a"])


def _threads() -> pb.ListThreadsRequest:
    return pb.ListThreadsRequest(operation=OPERATION, prefix="pre", page_token=page_token("pre", "prefixed"))


def _delete() -> pb.DeleteThreadRequest:
    return pb.DeleteThreadRequest(operation=OPERATION, thread_id="thread")


def _runs() -> pb.DeleteForRunsRequest:
    return pb.DeleteForRunsRequest(operation=OPERATION, run_ids=["b", "a", "b"])


def _copy() -> pb.CopyThreadRequest:
    return pb.CopyThreadRequest(operation=OPERATION, source_thread_id="thread", target_thread_id="copy")


def _prune() -> pb.PruneThreadsRequest:
    return pb.PruneThreadsRequest(
        operation=OPERATION, thread_ids=["b", "a", "b"], strategy=pb.PRUNE_STRATEGY_KEEP_LATEST
    )


Parse = Callable[[Any], Any]
PARSERS: dict[str, tuple[Callable[[], Message], Parse]] = {
    "put": (_put, lambda message: REQUESTS.mutation(message, "m")),
    "put_writes": (_put_writes, lambda message: REQUESTS.mutation(message, "m")),
    "read": (_read, lambda message: REQUESTS.read(message, "r")),
    "list": (_list, REQUESTS.list),
    "history": (_history, REQUESTS.history),
    "threads": (_threads, REQUESTS.threads),
    "delete": (_delete, REQUESTS.delete_thread),
    "runs": (_runs, REQUESTS.delete_for_runs),
    "copy": (_copy, REQUESTS.copy_thread),
    "prune": (_prune, REQUESTS.prune),
}


def test_a_put() -> None:
    put = REQUESTS.mutation(_put(), "m")
    assert isinstance(put, PutCheckpoint)
    assert (put.ref, put.parent_checkpoint_id) == (CheckpointRef("thread", "ns:1", "2"), "1")
    assert (put.body, put.metadata, put.filterable) == (
        Blob("msgpack", b"data"),
        '{"step": 1}',
        '{"step": 1}',
    )
    assert put.channel_versions == {"a": "i:1"}
    assert put.new_values == [ChannelValue("a", "i:1", Blob("msgpack", b"data"))]
    assert (put.run_id, put.format_version) == (None, 4)
    assert (put.operation.operation_id, put.operation.digest) == (b"i" * 16, b"")


def test_an_empty_parent_is_none() -> None:
    message = _put()
    message.put.ClearField("parent_checkpoint_id")
    message.put.ClearField("metadata_json")
    put = REQUESTS.mutation(message, "m")
    assert isinstance(put, PutCheckpoint)
    assert (put.parent_checkpoint_id, put.metadata) == (None, "{}")


def test_what_of_the_metadata_is_for_filters() -> None:
    metadata = {
        "run_id": "run",
        "int": 1,
        "float": 1.5,
        "bool": True,
        "null": None,
        "text": "é" * 512,
        "long text": "é" * 512 + "x",
        "list": [1],
        "object": {"a": 1},
    }
    message = _put()
    message.put.metadata_json = json.dumps(metadata)
    put = REQUESTS.mutation(message, "m")
    assert isinstance(put, PutCheckpoint)
    assert put.run_id == "run"
    kept = ["run_id", "int", "float", "bool", "null", "text"]
    assert json.loads(put.filterable) == {name: metadata[name] for name in kept}
    assert put.metadata == message.put.metadata_json


@pytest.mark.parametrize("run_id", [5, None, ["run"], "x" * 513])
def test_a_run_id_that_no_request_can_name_is_none(run_id: object) -> None:
    message = _put()
    message.put.metadata_json = json.dumps({"run_id": run_id})
    put = REQUESTS.mutation(message, "m")
    assert isinstance(put, PutCheckpoint)
    assert put.run_id is None


def test_put_writes() -> None:
    writes = REQUESTS.mutation(_put_writes(), "m")
    assert isinstance(writes, PutWrites)
    assert writes.ref == CheckpointRef("thread", "ns:1", "2")
    assert writes.writes == [PendingWrite("task", "~path", -4, "a", Blob("msgpack", b"data"))]


def test_a_read_of_the_latest() -> None:
    message = pb.CheckpointRead(ref=pb.CheckpointRef(thread_id="thread"))
    assert REQUESTS.read(message, "r")[1:] == (CheckpointRef("thread", "", None), WHOLE)


def test_a_list() -> None:
    _, query, limit, reader = REQUESTS.list(_list())
    assert query == ListQuery("thread", "", "2", "3", {"step": 1})
    assert (limit, reader) == (5, WHOLE)


def test_a_list_of_everything() -> None:
    _, query, limit, reader = REQUESTS.list(pb.ListRequest())
    assert (query, limit, reader) == (ListQuery(), None, WHOLE)


def test_names_that_stand_twice_count_once() -> None:
    assert REQUESTS.history(_history())[2] == ["a", "b"]
    assert REQUESTS.delete_for_runs(_runs())[1] == ["b", "a"]
    assert REQUESTS.prune(_prune())[1:] == (["b", "a"], PruneStrategy.KEEP_LATEST)


def test_the_size_of_a_page_of_threads() -> None:
    def size(asked: int) -> int:
        return REQUESTS.threads(pb.ListThreadsRequest(page_size=asked))[3]

    assert [size(asked) for asked in (0, 1, 1000, 1001, 2**32 - 1)] == [100, 1, 1000, 1000, 1000]


def test_how_long_an_operation_may_take() -> None:
    def seconds(timeout_ms: int) -> float:
        message = common_pb2.Operation(timeout_ms=timeout_ms)
        before = time.monotonic()
        return round(REQUESTS.operation(message, "o", identified=False).deadline - before)

    assert [seconds(asked) for asked in (0, 2000, 60_000, 2**32 - 1)] == [10, 2, 60, 60]


def test_a_repeated_id_is_bound_to_what_was_asked() -> None:
    def digest(message: Message, parse: Parse) -> bytes:
        operation: Operation = parse(message)[0]
        return operation.digest

    first, again, other = _copy(), _copy(), _copy()
    again.operation.timeout_ms = 7
    again.operation.traceparent = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    other.target_thread_id = "another"
    assert digest(first, REQUESTS.copy_thread) == digest(again, REQUESTS.copy_thread)
    assert digest(first, REQUESTS.copy_thread) != digest(other, REQUESTS.copy_thread)
    # The same bytes in another request ask for something else.
    runs = pb.DeleteForRunsRequest(operation=OPERATION, run_ids=["thread"])
    prune = pb.PruneThreadsRequest(
        operation=OPERATION, thread_ids=["thread"], strategy=pb.PRUNE_STRATEGY_DELETE_ALL
    )
    digests = {
        digest(_delete(), REQUESTS.delete_thread),
        digest(runs, REQUESTS.delete_for_runs),
        digest(prune, REQUESTS.prune),
    }
    assert len(digests) == 3


def _set(path: str, value: object) -> Callable[[Any], None]:
    *parents, last = path.split(".")

    def change(message: Any) -> None:
        for name in parents:
            message = message[int(name)] if name.isdigit() else getattr(message, name)
        setattr(message, last, value)

    return change


def _grow(path: str, item: Any, count: int) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        *parents, last = path.split(".")
        for name in parents:
            message = getattr(message, name)
        getattr(message, last).extend([item] * count)

    return change


LONG, NUL, LONG_IN_BYTES = "x" * 513, "a\0b", "é" * 257
REFUSALS: list[tuple[str, Callable[[Any], None], str]] = [
    ("put", lambda message: message.ClearField("put"), "m.kind"),
    ("put", lambda message: message.ClearField("operation"), "m.operation.operation_id"),
    ("put", _set("operation.operation_id", b"i" * 15), "m.operation.operation_id"),
    ("put", _set("operation.operation_id", b"i" * 17), "m.operation.operation_id"),
    *(
        ("put", _set(f"put.{path}", value), f"m.put.{path.replace('.0', '')}")
        for path, values in {
            "ref.thread_id": ["", LONG, NUL],
            "ref.checkpoint_ns": ["x" * 2049, NUL],
            "ref.checkpoint_id": ["", LONG, NUL],
            "parent_checkpoint_id": [LONG, NUL],
            "checkpoint.type": ["", "pickle", "json", "x" * 65, NUL],
            "metadata_json": [
                "[]",
                "{",
                '{"a": NaN}',
                '{"a": 1e999}',
                '{"a": "\\u0000"}',
                '{"a": "\\ud800"}',
            ],
            "channel_versions.0.channel": ["", LONG, NUL, LONG_IN_BYTES],
            "channel_versions.0.version": ["", LONG, NUL, LONG_IN_BYTES],
            "new_values.0.channel": ["", LONG, NUL, LONG_IN_BYTES],
            "new_values.0.version": ["", LONG, NUL, LONG_IN_BYTES],
            "new_values.0.value.type": ["", "pickle", "json+aes"],
        }.items()
        for value in values
    ),
    ("put", _set("put.metadata_json", '{"a":' * 100_000), "m.put.metadata_json"),
    ("put", _set("put.metadata_json", json.dumps({"a": "x" * 2**18})), "m.put.metadata_json"),
    ("put", lambda message: message.put.ClearField("checkpoint"), "m.put.checkpoint.type"),
    ("put", lambda message: message.put.new_values[0].ClearField("value"), "m.put.new_values.value.type"),
    (
        "put",
        _grow("put.channel_versions", pb.ChannelVersion(channel="a", version="2"), 1),
        "m.put.channel_versions",
    ),
    ("put", _grow("put.channel_versions", pb.ChannelVersion(channel="b"), 1024), "m.put.channel_versions"),
    ("put", _grow("put.new_values", pb.ChannelValue(channel="b"), 1024), "m.put.new_values"),
    ("put_writes", lambda message: message.put_writes.ClearField("ref"), "m.put_writes.ref.thread_id"),
    *(
        ("put_writes", _set(f"put_writes.{path}", value), f"m.put_writes.{path.replace('.0', '')}")
        for path, values in {
            "ref.thread_id": ["", LONG, NUL],
            "ref.checkpoint_id": ["", LONG, NUL],
            "writes.0.task_id": ["", LONG, NUL],
            "writes.0.task_path": ["x" * 2049, NUL],
            "writes.0.channel": ["", LONG, NUL],
            "writes.0.value.type": ["", "pickle"],
        }.items()
        for value in values
    ),
    ("put_writes", _grow("put_writes.writes", pb.PendingWrite(), 4096), "m.put_writes.writes"),
    ("read", _set("operation.operation_id", b"short"), "r.operation.operation_id"),
    ("read", _set("ref.thread_id", ""), "r.ref.thread_id"),
    ("read", _set("ref.checkpoint_id", LONG), "r.ref.checkpoint_id"),
    ("list", _set("thread_id", ""), "thread_id"),
    ("list", _set("thread_id", LONG), "thread_id"),
    ("list", _set("checkpoint_ns", NUL), "checkpoint_ns"),
    ("list", _set("checkpoint_id", LONG), "checkpoint_id"),
    ("list", _set("before_checkpoint_id", NUL), "before_checkpoint_id"),
    ("list", _set("filter_json", "5"), "filter_json"),
    ("list", _set("filter_json", json.dumps({str(number): 1 for number in range(33)})), "filter_json"),
    ("history", lambda message: message.ClearField("channels"), "channels"),
    ("history", _grow("channels", "x", 1022), "channels"),
    ("history", _grow("channels", LONG, 1), "channels"),
    ("history", _grow("channels", "", 1), "channels"),
    ("history", _set("ref.thread_id", NUL), "ref.thread_id"),
    ("threads", _set("prefix", LONG), "prefix"),
    ("threads", _set("prefix", "another"), "page_token"),
    ("threads", _set("page_token", "x"), "page_token"),
    ("delete", _set("thread_id", ""), "thread_id"),
    ("delete", _set("operation.operation_id", b""), "operation.operation_id"),
    ("runs", _grow("run_ids", "x", 998), "run_ids"),
    ("runs", _grow("run_ids", "", 1), "run_ids"),
    ("runs", _set("operation.operation_id", b""), "operation.operation_id"),
    ("copy", _set("source_thread_id", ""), "source_thread_id"),
    ("copy", _set("target_thread_id", LONG), "target_thread_id"),
    ("copy", _set("target_thread_id", "thread"), "target_thread_id"),
    ("prune", _grow("thread_ids", "x", 998), "thread_ids"),
    ("prune", _grow("thread_ids", NUL, 1), "thread_ids"),
    ("prune", _set("strategy", 0), "strategy"),
    ("prune", _set("strategy", 77), "strategy"),
]


@pytest.mark.parametrize(("kind", "change", "field"), REFUSALS, ids=range(len(REFUSALS)))
def test_a_refusal_names_its_field(kind: str, change: Callable[[Any], None], field: str) -> None:
    make, parse = PARSERS[kind]
    message = make()
    parse(message)
    change(message)
    assert refused(parse, message) == field


def test_a_token_continues_its_listing() -> None:
    for last in ["a", "é", "🦜", "x" * 512, "a:b"]:
        token = page_token("pre", last)
        message = pb.ListThreadsRequest(prefix="pre", page_token=token)
        assert REQUESTS.threads(message)[2] == last


@given(st.data())
def test_a_tampered_token_is_refused_or_only_another_position(data: st.DataObject) -> None:
    token = page_token("pre", "thread")
    index = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(exclude_categories=["Cs"]))
    tampered = data.draw(
        st.sampled_from([token[:index], token[:index] + other + token[index + 1 :], token + other])
    )
    message = pb.ListThreadsRequest(prefix="pre", page_token=tampered)
    if refused(REQUESTS.threads, message) is None:
        after = REQUESTS.threads(message)[2]
        assert bool(after) == bool(tampered)
        assert "\0" not in (after or "")


def test_traceparents_are_found_wherever_they_are() -> None:
    one, two = common_pb2.Operation(traceparent="one"), common_pb2.Operation(traceparent="two")
    write = pb.WriteRequest(mutations=[pb.Mutation(operation=one), pb.Mutation(), pb.Mutation(operation=two)])
    assert traceparents(write) == ["one", "two"]
    assert traceparents(pb.ReadRequest(reads=[pb.CheckpointRead(operation=two)])) == ["two"]
    assert traceparents(pb.ReadSlicedRequest(read=pb.CheckpointRead(operation=one))) == ["one"]
    assert traceparents(pb.ListRequest(operation=one)) == ["one"]
    assert traceparents(pb.ListRequest()) == []


def refused(parse: Parse, message: Message) -> str | None:
    """Return the field that a refusal names, None if there is no refusal."""
    try:
        parse(message)
    except errors.TenureError as error:
        return error.metadata["field"]
    return None
