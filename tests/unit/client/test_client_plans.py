"""Operations are generators without I/O: these tests play the server by `send()`."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest
from google.rpc import code_pb2, status_pb2
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import common_pb2
from tenure_client import operations, slices
from tenure_client.calls import MAX_UNARY_REQUEST, Call, Shape
from tenure_client.errors import ChunksMissing, Conflict, DeadlineExceeded, UnreadableValue
from tenure_client.held import HeldValues
from tenure_client.payloads import CHUNKED_FROM
from tenure_client.values import Value, apply, tell
from tenure_client.writing import Writing

SERDE = JsonPlusSerializer()
WRITING = Writing(expects_parent=False)
CONFIG: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


def finish(plan: Generator[Call, Any, Any], reply: Any) -> Any:
    with pytest.raises(StopIteration) as done:
        plan.send(reply)
    return done.value.value


def put(
    checkpoint: Any, new_versions: dict[str, Any], held: HeldValues | None = None
) -> Generator[Call, Any, Any]:
    return operations.put(
        CONFIG, checkpoint, {"source": "loop"}, new_versions, SERDE, held or HeldValues(), WRITING
    )


def put_value(version: str, value: Any, held: HeldValues) -> Generator[Call, Any, Any]:
    """Put a checkpoint with one channel."""
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"a": value}
    checkpoint["channel_versions"] = {"a": version}
    return put(checkpoint, {"a": version}, held)


def get(held: HeldValues) -> Generator[Call, Any, Any]:
    return operations.get_tuple(CONFIG, SERDE, held)


def large_put() -> Call:
    return next(put_value("1", os.urandom(MAX_UNARY_REQUEST + 1), HeldValues()))


def sent(call: Call) -> pb.ChannelValue:
    """Return a copy of the one value that a put sends."""
    assert isinstance(call.request, pb.Mutation)
    (value,) = call.request.put.new_values
    copy = pb.ChannelValue()
    copy.CopyFrom(value)
    return copy


def stored(*values: pb.ChannelValue) -> pb.ReadResult:
    """Return the answer to a read of a checkpoint with these values."""
    versions = {value.channel: value.version for value in values}
    body = SERDE.dumps_typed({"id": "1", "channel_versions": versions})
    return pb.ReadResult(
        checkpoint=pb.Checkpoint(
            ref=pb.CheckpointRef(thread_id="t", checkpoint_id="1"),
            checkpoint=common_pb2.Blob(type=body[0], data=body[1]),
            metadata_json="{}",
            channel_values=values,
        )
    )


def told(version: str, data: bytes, base: Value | None) -> tuple[pb.ChannelValue, Value]:
    """Return a value of type bytes as a server tells it."""
    message = pb.ChannelValue(channel="a", version=version)
    value = tell(message.edit, "bytes", data, version, base)
    assert value is not None
    return message, value


def test_a_put_is_one_call_and_returns_the_config_of_the_checkpoint() -> None:
    checkpoint = empty_checkpoint()
    plan = put(checkpoint, {})

    call = next(plan)

    assert (call.method, call.shape, call.mutates) == ("Write", Shape.BATCHED, True)
    assert len(call.operation.operation_id) == 16
    config = finish(plan, pb.MutationResult())
    assert config["configurable"] == {
        "thread_id": "t",
        "checkpoint_ns": "",
        "checkpoint_id": checkpoint["id"],
    }


def test_operations_have_different_ids() -> None:
    first, second = (next(operations.delete_thread("t", HeldValues())) for _ in range(2))

    assert first.operation.operation_id != second.operation.operation_id


def test_the_stamped_operation_is_the_one_that_is_sent() -> None:
    call = next(put(empty_checkpoint(), {}))

    call.operation.timeout_ms = 1234

    assert isinstance(call.request, pb.Mutation)
    assert call.request.operation.timeout_ms == 1234


def test_a_put_above_one_mebibyte_goes_in_slices_and_gets_more_time() -> None:
    call = large_put()

    assert (call.method, call.shape) == ("WriteSliced", Shape.UPLOAD)
    assert 0.25 < call.extra_seconds < 0.3


def test_an_operation_that_failed_in_its_batch_is_an_error() -> None:
    call = next(put(empty_checkpoint(), {}))
    failed = pb.MutationResult(status=status_pb2.Status(code=code_pb2.ABORTED, message="again"))

    with pytest.raises(Conflict, match="again"):
        call.receive(failed)


def test_a_reply_with_another_number_of_results_is_an_error() -> None:
    with pytest.raises(UnreadableValue):
        large_put().receive(pb.WriteSlicedResponse())


def test_an_absent_checkpoint_reads_as_none() -> None:
    plan = get(HeldValues())
    next(plan)

    assert finish(plan, pb.ReadResult()) is None


def test_an_omitted_checkpoint_is_read_in_slices() -> None:
    plan = get(HeldValues())
    next(plan)
    call = plan.send(pb.ReadResult(omitted=True))
    blob = common_pb2.Blob(type="bytes", data=b"x" * 600_000)
    result = stored(pb.ChannelValue(channel="a", version="s:1", value=blob))
    parts = [pb.ReadSlicedResponse(slice=part) for part in slices.split(result)]

    assert (call.method, call.shape) == ("ReadSliced", Shape.COLLECT)
    assert len(parts) == 3
    found = finish(plan, call.receive(parts))
    assert found.checkpoint["channel_values"] == {"a": b"x" * 600_000}


def test_writing_nothing_asks_nothing_of_the_server() -> None:
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_id": "1"}}

    assert list(operations.put_writes(config, [], "task", "", SERDE, WRITING)) == []


def test_the_history_of_no_channels_asks_nothing_of_the_server() -> None:
    assert list(operations.channel_history(CONFIG, [], SERDE)) == []


def test_many_threads_are_pruned_in_portions_with_their_own_operations() -> None:
    calls = list(operations.prune([str(number) for number in range(2001)], "keep_latest", HeldValues()))

    assert [len(call.request.thread_ids) for call in calls] == [1000, 1000, 1]  # type: ignore[attr-defined]
    assert len({call.operation.operation_id for call in calls}) == 3


@pytest.mark.parametrize("strategy", ["delete", "delete_all"])
def test_both_names_of_deleting_are_known(strategy: str) -> None:
    (call,) = operations.prune(["t"], strategy, HeldValues())

    assert isinstance(call.request, pb.PruneThreadsRequest)
    assert call.request.strategy == pb.PRUNE_STRATEGY_DELETE_ALL


def test_one_text_is_not_taken_for_a_sequence_of_ids() -> None:
    with pytest.raises(TypeError, match=r"\['thread'\]"):
        next(operations.prune("thread", "keep_latest", HeldValues()))
    with pytest.raises(TypeError):
        next(operations.delete_for_runs("run"))


def test_an_unknown_strategy_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="keep_latest"):
        next(operations.prune(["t"], "keep_first", HeldValues()))


def test_writes_to_no_checkpoint_are_refused() -> None:
    with pytest.raises(ValueError, match="checkpoint_id"):
        next(operations.put_writes(CONFIG, [("a", 1)], "task", "", SERDE, WRITING))


@pytest.mark.parametrize("configurable", [{}, {"thread_id": None}, {"thread_id": ""}])
def test_a_config_without_thread_is_refused(configurable: dict[str, Any]) -> None:
    config: Any = {"configurable": configurable}

    with pytest.raises(ValueError, match="thread_id"):
        next(operations.get_tuple(config, SERDE, HeldValues()))


SMALL = b"x" * CHUNKED_FROM
LARGE = os.urandom(40_000)
LARGER = LARGE + b"more"


def test_small_values_go_whole_and_are_not_held() -> None:
    held = HeldValues()
    plan = put_value("1", SMALL, held)

    value = sent(next(plan))
    finish(plan, pb.MutationResult())

    assert value.value.data == SMALL
    assert not value.HasField("edit")
    assert held.of(("t", "")) == {}


def test_a_large_value_goes_with_all_chunks_and_the_next_one_with_what_is_new() -> None:
    held = HeldValues()
    first = put_value("1", LARGE, held)
    whole = sent(next(first))
    finish(first, pb.MutationResult())
    second = put_value("2", LARGER, held)
    change = sent(next(second))
    finish(second, pb.MutationResult())

    assert not whole.HasField("value")
    assert whole.edit.base_version == ""
    base = apply(whole.edit, whole.version, None)
    assert base.data == LARGE
    assert (change.edit.base_version, change.edit.base_digest) == ("s:1", base.digest)
    assert len(change.edit.chunks) == 1
    assert apply(change.edit, change.version, base).data == LARGER
    assert held.of(("t", ""))["a"].version == "s:2"


def test_values_of_a_put_that_failed_are_no_base() -> None:
    held = HeldValues()
    plan = put_value("1", LARGE, held)
    next(plan)

    with pytest.raises(DeadlineExceeded):
        plan.throw(DeadlineExceeded("late"))

    assert held.of(("t", "")) == {}


def hold(held: HeldValues, version: str, data: bytes) -> None:
    """Put a value, so that it is held."""
    plan = put_value(version, data, held)
    next(plan)
    finish(plan, pb.MutationResult())


def test_a_value_whose_base_is_gone_goes_again_with_all_chunks() -> None:
    held = HeldValues()
    hold(held, "1", LARGE)
    plan = put_value("2", LARGER, held)
    change = sent(next(plan))

    again = sent(plan.throw(ChunksMissing("gone")))

    assert change.edit.base_version
    assert held.of(("t", "")) == {}
    assert apply(again.edit, again.version, None).data == LARGER
    finish(plan, pb.MutationResult())
    assert held.of(("t", ""))["a"].version == "s:2"


def test_chunks_that_miss_twice_are_an_error() -> None:
    held = HeldValues()
    hold(held, "1", LARGE)
    plan = put_value("2", LARGER, held)
    next(plan)
    plan.throw(ChunksMissing("gone"))

    with pytest.raises(ChunksMissing, match="gone again"):
        plan.throw(ChunksMissing("gone again"))


def test_values_that_differ_wholly_go_without_a_base() -> None:
    held = HeldValues()
    hold(held, "1", LARGE)

    value = sent(next(put_value("2", os.urandom(40_000), held)))

    assert (value.edit.base_version, value.edit.base_digest) == ("", b"")
    assert (value.edit.keep_first, value.edit.keep_last) == (0, 0)


def test_a_read_names_what_is_held_and_takes_edits() -> None:
    held = HeldValues()
    hold(held, "1", LARGE)
    plan = get(held)

    call = next(plan)

    assert isinstance(call.request, pb.CheckpointRead)
    assert call.request.accepts_edits
    base = held.of(("t", ""))["a"]
    assert list(call.request.held) == [pb.HeldValue(channel="a", version="s:1", digest=base.digest)]
    change, value = told("s:2", LARGER, base)
    found = finish(plan, stored(change))
    assert found.checkpoint["channel_values"] == {"a": LARGER}
    assert held.of(("t", "")) == {"a": value}


def test_what_was_read_is_held_but_for_what_came_whole() -> None:
    held = HeldValues()
    plan = get(held)
    next(plan)
    large, value = told("s:1", LARGE, None)
    small = pb.ChannelValue(channel="b", version="s:1", value=common_pb2.Blob(type="bytes", data=SMALL))

    found = finish(plan, stored(large, small))

    assert found.checkpoint["channel_values"] == {"a": LARGE, "b": SMALL}
    assert held.of(("t", "")) == {"a": value}


def wrong() -> pb.ChannelValue:
    """Return an edit that makes another value than it says."""
    value, _ = told("s:2", LARGER, None)
    value.edit.digest = bytes(16)
    return value


def test_a_read_that_does_not_fit_is_made_again_without_what_is_held() -> None:
    held = HeldValues()
    hold(held, "1", LARGE)
    plan = get(held)
    first = next(plan)

    second = plan.send(stored(wrong()))

    assert isinstance(second.request, pb.CheckpointRead)
    assert second.operation.operation_id != first.operation.operation_id
    assert not second.request.held
    assert second.request.accepts_edits
    assert held.of(("t", "")) == {}
    found = finish(plan, stored(told("s:2", LARGER, None)[0]))
    assert found.checkpoint["channel_values"] == {"a": LARGER}


@pytest.mark.parametrize("value", [wrong(), pb.ChannelValue(channel="a", version="s:2")])
def test_a_read_that_cannot_be_right_without_what_is_held_is_an_error(value: pb.ChannelValue) -> None:
    plan = get(HeldValues())
    next(plan)

    with pytest.raises(UnreadableValue):
        plan.send(stored(value))


@pytest.mark.parametrize(
    ("plan_of", "kept"),
    [
        (lambda held: operations.delete_thread("t", held), False),
        (lambda held: operations.prune(["t"], "delete", held), False),
        (lambda held: operations.prune(["t"], "keep_latest", held), True),
        (lambda held: operations.delete_thread("u", held), True),
    ],
)
def test_values_of_deleted_threads_are_not_kept(plan_of: Any, kept: bool) -> None:
    held = HeldValues()
    hold(held, "1", LARGE)

    for _ in plan_of(held):
        pass

    assert bool(held.of(("t", ""))) is kept
