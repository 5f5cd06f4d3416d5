"""Operations are generators without I/O: these tests play the server by `send()`."""

from __future__ import annotations

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
from tenure_client.errors import Conflict, UnreadableValue

SERDE = JsonPlusSerializer()
CONFIG: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


def finish(plan: Generator[Call, Any, Any], reply: Any) -> Any:
    with pytest.raises(StopIteration) as done:
        plan.send(reply)
    return done.value.value


def put(checkpoint: Any, new_versions: dict[str, Any]) -> Generator[Call, Any, Any]:
    return operations.put(CONFIG, checkpoint, {"source": "loop"}, new_versions, SERDE)


def large_put() -> Call:
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"a": b"x" * (MAX_UNARY_REQUEST + 1)}
    checkpoint["channel_versions"] = {"a": "1"}
    return next(put(checkpoint, {"a": "1"}))


def test_a_put_is_one_call_and_returns_the_config_of_the_checkpoint() -> None:
    checkpoint = empty_checkpoint()
    plan = put(checkpoint, {})

    call = next(plan)

    assert (call.method, call.shape, call.mutates) == ("Write", Shape.UNARY, True)
    assert len(call.operation.operation_id) == 16
    config = finish(plan, pb.MutationResult())
    assert config["configurable"] == {
        "thread_id": "t",
        "checkpoint_ns": "",
        "checkpoint_id": checkpoint["id"],
    }


def test_operations_have_different_ids() -> None:
    first, second = next(operations.delete_thread("t")), next(operations.delete_thread("t"))

    assert first.operation.operation_id != second.operation.operation_id


def test_the_stamped_operation_is_the_one_that_is_sent() -> None:
    call = next(put(empty_checkpoint(), {}))

    call.operation.timeout_ms = 1234

    assert isinstance(call.request, pb.WriteRequest)
    assert call.request.mutations[0].operation.timeout_ms == 1234


def test_a_put_above_one_mebibyte_goes_in_slices_and_gets_more_time() -> None:
    call = large_put()

    assert (call.method, call.shape) == ("WriteSliced", Shape.UPLOAD)
    assert 0.25 < call.extra_seconds < 0.3


def test_an_operation_that_failed_in_its_batch_is_an_error() -> None:
    call = next(put(empty_checkpoint(), {}))
    failed = pb.MutationResult(status=status_pb2.Status(code=code_pb2.ABORTED, message="again"))

    with pytest.raises(Conflict, match="again"):
        call.receive(pb.WriteResponse(results=[failed]))


def test_a_reply_with_another_number_of_results_is_an_error() -> None:
    call = next(put(empty_checkpoint(), {}))

    with pytest.raises(UnreadableValue):
        call.receive(pb.WriteResponse())


def test_an_absent_checkpoint_reads_as_none() -> None:
    plan = operations.get_tuple(CONFIG, SERDE)
    next(plan)

    assert finish(plan, pb.ReadResult()) is None


def test_an_omitted_checkpoint_is_read_in_slices() -> None:
    plan = operations.get_tuple(CONFIG, SERDE)
    next(plan)
    call = plan.send(pb.ReadResult(omitted=True))
    body = SERDE.dumps_typed({"id": "1", "channel_versions": {"a": "1"}})
    result = pb.ReadResult(
        checkpoint=pb.Checkpoint(
            ref=pb.CheckpointRef(thread_id="t", checkpoint_id="1"),
            checkpoint=common_pb2.Blob(type=body[0], data=body[1]),
            metadata_json="{}",
            channel_values=[
                pb.ChannelValue(
                    channel="a", version="s:1", value=common_pb2.Blob(type="bytes", data=b"x" * 600_000)
                )
            ],
        )
    )
    parts = [pb.ReadSlicedResponse(slice=part) for part in slices.split(result)]

    assert (call.method, call.shape) == ("ReadSliced", Shape.COLLECT)
    assert len(parts) == 3
    found = finish(plan, call.receive(parts))
    assert found.checkpoint["channel_values"] == {"a": b"x" * 600_000}


def test_writing_nothing_asks_nothing_of_the_server() -> None:
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_id": "1"}}

    assert list(operations.put_writes(config, [], "task", "", SERDE)) == []


def test_the_history_of_no_channels_asks_nothing_of_the_server() -> None:
    assert list(operations.channel_history(CONFIG, [], SERDE)) == []


def test_many_threads_are_pruned_in_portions_with_their_own_operations() -> None:
    calls = list(operations.prune([str(number) for number in range(2001)], "keep_latest"))

    assert [len(call.request.thread_ids) for call in calls] == [1000, 1000, 1]  # type: ignore[attr-defined]
    assert len({call.operation.operation_id for call in calls}) == 3


@pytest.mark.parametrize("strategy", ["delete", "delete_all"])
def test_both_names_of_deleting_are_known(strategy: str) -> None:
    (call,) = operations.prune(["t"], strategy)

    assert isinstance(call.request, pb.PruneThreadsRequest)
    assert call.request.strategy == pb.PRUNE_STRATEGY_DELETE_ALL


def test_one_text_is_not_taken_for_a_sequence_of_ids() -> None:
    with pytest.raises(TypeError, match=r"\['thread'\]"):
        next(operations.prune("thread", "keep_latest"))
    with pytest.raises(TypeError):
        next(operations.delete_for_runs("run"))


def test_an_unknown_strategy_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="keep_latest"):
        next(operations.prune(["t"], "keep_first"))


def test_writes_to_no_checkpoint_are_refused() -> None:
    with pytest.raises(ValueError, match="checkpoint_id"):
        next(operations.put_writes(CONFIG, [("a", 1)], "task", "", SERDE))


@pytest.mark.parametrize("configurable", [{}, {"thread_id": None}, {"thread_id": ""}])
def test_a_config_without_thread_is_refused(configurable: dict[str, Any]) -> None:
    config: Any = {"configurable": configurable}

    with pytest.raises(ValueError, match="thread_id"):
        next(operations.get_tuple(config, SERDE))
