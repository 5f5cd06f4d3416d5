"""Requests above a limit or with bad values are refused by name, store nothing, and hurt no channel."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import psycopg
import pytest
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import server_pb2
from tenure.v1.common_pb2 import Blob, Slice

from tests.harness.stack import Stack
from tests.integration.key_rules_support import ITEMS, RESULTS
from tests.integration.wire_support import (
    LEASES,
    METHODS,
    Wire,
    operation,
    outcome_of,
    outcome_of_batch,
    reason_of,
    session_request,
)

ID, NS, METADATA, DEPTH, CHANNELS, WRITES = 512, 2048, 256 * 1024, 32, 1024, 4096
BATCH, PER_CALL, UNARY, SLICE, OPERATION = 256, 1000, 1 << 20, 256 * 1024, 128 << 20
OK = grpc.StatusCode.OK
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def ref(**changes: str) -> pb.CheckpointRef:
    return pb.CheckpointRef(**{"thread_id": "thread", "checkpoint_id": "id"} | changes)


def put(**changes: Any) -> pb.WriteRequest:
    message = pb.PutCheckpoint(
        **{"ref": ref(), "checkpoint": Blob(type="msgpack"), "metadata_json": "{}"} | changes
    )
    return pb.WriteRequest(mutations=[pb.Mutation(operation=operation(), put=message)])


def put_writes(writes: list[pb.PendingWrite], **changes: str) -> pb.WriteRequest:
    message = pb.PutWrites(ref=ref(**changes), writes=writes)
    return pb.WriteRequest(mutations=[pb.Mutation(operation=operation(), put_writes=message)])


def write(**changes: Any) -> pb.PendingWrite:
    return pb.PendingWrite(**{"task_id": "task", "channel": "c", "value": Blob(type="msgpack")} | changes)


def version(channel: str = "c", text: str = "1") -> pb.ChannelVersion:
    return pb.ChannelVersion(channel=channel, version=text)


def value(channel: str = "c", text: str = "1", tag: str = "msgpack", size: int = 0) -> pb.ChannelValue:
    return pb.ChannelValue(channel=channel, version=text, value=Blob(type=tag, data=bytes(size)))


def with_operation_id(length: int) -> pb.WriteRequest:
    request = put()
    request.mutations[0].operation.operation_id = bytes(length)
    return request


def read(operation_id: bytes = b"", **changes: str) -> pb.CheckpointRead:
    return pb.CheckpointRead(operation=operation(operation_id), ref=ref(**changes))


def slices(*parts: bytes, total: int) -> list[pb.WriteSlicedRequest]:
    first, *rest = parts
    return [
        pb.WriteSlicedRequest(slice=Slice(data=first, total_bytes=total)),
        *(pb.WriteSlicedRequest(slice=Slice(data=part)) for part in rest),
    ]


def history(channels: list[str], **changes: str) -> pb.GetChannelHistoryRequest:
    return pb.GetChannelHistoryRequest(ref=ref(**changes), channels=channels)


def listing(**changes: Any) -> pb.ListRequest:
    return pb.ListRequest(**changes)


def delete(thread_id: str = "thread", operation_id: bytes | None = None) -> pb.DeleteThreadRequest:
    return pb.DeleteThreadRequest(operation=operation(operation_id), thread_id=thread_id)


def delete_runs(*run_ids: str, operation_id: bytes | None = None) -> pb.DeleteForRunsRequest:
    return pb.DeleteForRunsRequest(operation=operation(operation_id), run_ids=run_ids)


def copy(source: str, target: str, operation_id: bytes | None = None) -> pb.CopyThreadRequest:
    return pb.CopyThreadRequest(
        operation=operation(operation_id), source_thread_id=source, target_thread_id=target
    )


def prune(
    *thread_ids: str, strategy: int = pb.PRUNE_STRATEGY_DELETE_ALL, operation_id: bytes | None = None
) -> pb.PruneThreadsRequest:
    request = pb.PruneThreadsRequest(operation=operation(operation_id), thread_ids=thread_ids)
    request.strategy = strategy  # type: ignore[assignment]
    return request


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


PUT, PUT_WRITES = "mutations[0].put", "mutations[0].put_writes"
REFUSED: dict[str, list[tuple[Any, str]]] = {
    "Write": [
        (pb.WriteRequest(), "mutations"),
        (pb.WriteRequest(mutations=list(put().mutations) * (BATCH + 1)), "mutations"),
        (pb.WriteRequest(mutations=[pb.Mutation(operation=operation())]), "mutations[0].kind"),
        *((with_operation_id(length), "mutations[0].operation.operation_id") for length in (0, 15, 17)),
        (put(new_values=[value(size=UNARY)]), "request"),
        (put(ref=ref(thread_id="")), f"{PUT}.ref.thread_id"),
        (put(ref=ref(thread_id="x" * (ID + 1))), f"{PUT}.ref.thread_id"),
        (put(ref=ref(thread_id="é" * (ID // 2 + 1))), f"{PUT}.ref.thread_id"),
        (put(ref=ref(thread_id="a\0b")), f"{PUT}.ref.thread_id"),
        (put(ref=ref(checkpoint_ns="x" * (NS + 1))), f"{PUT}.ref.checkpoint_ns"),
        (put(ref=ref(checkpoint_ns="\0")), f"{PUT}.ref.checkpoint_ns"),
        (put(ref=ref(checkpoint_id="")), f"{PUT}.ref.checkpoint_id"),
        (put(ref=ref(checkpoint_id="x" * (ID + 1))), f"{PUT}.ref.checkpoint_id"),
        (put(parent_checkpoint_id="x" * (ID + 1)), f"{PUT}.parent_checkpoint_id"),
        *(
            (put(checkpoint=Blob(type=tag)), f"{PUT}.checkpoint.type")
            for tag in ("", "pickle", "json", "pickle+aes", "x" * 65, "a\0")
        ),
        (put(metadata_json=json.dumps({"a": "x" * METADATA})), f"{PUT}.metadata_json"),
        (put(metadata_json=nested(DEPTH + 1)), f"{PUT}.metadata_json"),
        (put(metadata_json=nested(100_000)[:METADATA]), f"{PUT}.metadata_json"),
        *(
            (put(metadata_json=text), f"{PUT}.metadata_json")
            for text in ("[]", "1", "{", '{"a": NaN}', '{"a": 1e999}', r'{"a": "\u0000"}', r'{"\ud800": 1}')
        ),
        (put(metadata_json='{"a": 1, "a": 2}'), f"{PUT}.metadata_json"),
        (put(channel_versions=[version(str(n)) for n in range(CHANNELS + 1)]), f"{PUT}.channel_versions"),
        (put(channel_versions=[version(), version()]), f"{PUT}.channel_versions"),
        (put(channel_versions=[version("")]), f"{PUT}.channel_versions.channel"),
        (put(channel_versions=[version(text="x" * (ID + 1))]), f"{PUT}.channel_versions.version"),
        (put(new_values=[value(str(n)) for n in range(CHANNELS + 1)]), f"{PUT}.new_values"),
        (put(new_values=[value("x" * (ID + 1))]), f"{PUT}.new_values.channel"),
        (put(new_values=[value(text="\0")]), f"{PUT}.new_values.version"),
        (put(new_values=[value(tag="pickle")]), f"{PUT}.new_values.value.type"),
        (put_writes([write()], checkpoint_id=""), f"{PUT_WRITES}.ref.checkpoint_id"),
        (put_writes([write()] * (WRITES + 1)), f"{PUT_WRITES}.writes"),
        (put_writes([write(task_id="")]), f"{PUT_WRITES}.writes.task_id"),
        (put_writes([write(task_id="x" * (ID + 1))]), f"{PUT_WRITES}.writes.task_id"),
        (put_writes([write(task_path="x" * (NS + 1))]), f"{PUT_WRITES}.writes.task_path"),
        (put_writes([write(channel="\0")]), f"{PUT_WRITES}.writes.channel"),
        (put_writes([write(value=Blob(type="json"))]), f"{PUT_WRITES}.writes.value.type"),
    ],
    "WriteSliced": [
        (slices(b"", total=OPERATION + 1), "slice.total_bytes"),
        (slices(bytes(SLICE + 1), total=SLICE + 1), "slice.data"),
        (slices(b"ab", total=3), "slice.total_bytes"),
        (slices(b"ab", b"cd", total=3), "slice.total_bytes"),
        (slices(b"ab", b"", total=3), "slice.data"),
        (slices(b"\xff\xff", total=2), "slice"),
        (slices(b"", total=0), "mutations"),
        (
            slices((body := put(ref=ref(thread_id="")).SerializeToString()), total=len(body)),
            f"{PUT}.ref.thread_id",
        ),
    ],
    "Read": [
        (pb.ReadRequest(), "reads"),
        (pb.ReadRequest(reads=[read()] * (BATCH + 1)), "reads"),
        (pb.ReadRequest(reads=[read(b"short")]), "reads[0].operation.operation_id"),
        (pb.ReadRequest(reads=[read(thread_id="")]), "reads[0].ref.thread_id"),
        (pb.ReadRequest(reads=[read(checkpoint_ns="x" * (NS + 1))]), "reads[0].ref.checkpoint_ns"),
        (pb.ReadRequest(reads=[read(checkpoint_id="\0")]), "reads[0].ref.checkpoint_id"),
    ],
    "ReadSliced": [
        (pb.ReadSlicedRequest(read=read(b"short")), "read.operation.operation_id"),
        (pb.ReadSlicedRequest(read=read(thread_id="x" * (ID + 1))), "read.ref.thread_id"),
    ],
    "List": [
        (listing(operation=operation(b"short")), "operation.operation_id"),
        (listing(thread_id=""), "thread_id"),
        (listing(thread_id="\0"), "thread_id"),
        (listing(checkpoint_ns="x" * (NS + 1)), "checkpoint_ns"),
        (listing(checkpoint_id="x" * (ID + 1)), "checkpoint_id"),
        (listing(before_checkpoint_id="x" * (ID + 1)), "before_checkpoint_id"),
        (listing(filter_json="[]"), "filter_json"),
        (listing(filter_json=nested(DEPTH + 1)), "filter_json"),
        (listing(filter_json=json.dumps({str(n): n for n in range(33)})), "filter_json"),
    ],
    "GetChannelHistory": [
        (history([]), "channels"),
        (history([str(n) for n in range(CHANNELS + 1)]), "channels"),
        (history(["x" * (ID + 1)]), "channels"),
        (history(["c"], thread_id=""), "ref.thread_id"),
    ],
    "ListThreads": [
        (pb.ListThreadsRequest(prefix="x" * (ID + 1)), "prefix"),
        *((pb.ListThreadsRequest(page_token=token), "page_token") for token in ("x", "AQ==", "é", "\0")),
    ],
    "DeleteThread": [
        (delete(operation_id=b"x" * 15), "operation.operation_id"),
        (delete(""), "thread_id"),
        (delete("x" * (ID + 1)), "thread_id"),
    ],
    "DeleteForRuns": [
        (delete_runs("r", operation_id=b""), "operation.operation_id"),
        (delete_runs(*map(str, range(PER_CALL + 1))), "run_ids"),
        (delete_runs("x" * (ID + 1)), "run_ids"),
        (delete_runs("\0"), "run_ids"),
    ],
    "CopyThread": [
        (copy("a", "b", b"x" * 17), "operation.operation_id"),
        (copy("", "b"), "source_thread_id"),
        (copy("a", "x" * (ID + 1)), "target_thread_id"),
        (copy("a", "a"), "target_thread_id"),
    ],
    "PruneThreads": [
        (prune("a", operation_id=b""), "operation.operation_id"),
        (prune(*map(str, range(PER_CALL + 1))), "thread_ids"),
        (prune("a", "\0"), "thread_ids"),
        (prune("a", strategy=pb.PRUNE_STRATEGY_UNSPECIFIED), "strategy"),
        (prune("a", strategy=99), "strategy"),
    ],
}
BATCHES = [*REFUSED["Write"], *REFUSED["Read"]]
REFUSED["Session"] = [(session_request(batch), field) for batch, field in BATCHES]
REFUSED["Session"].append((pb.SessionRequest(call_id=1), "batch"))


@pytest.fixture(scope="module")
def wire(stack: Stack) -> Iterator[Wire]:
    """One channel for all tests: it must live through all refusals."""
    with Wire(stack.target, stack.new_tenant().api_key) as opened:
        yield opened


@pytest.fixture
def nothing_stored(wire: Wire) -> Iterator[None]:
    """Afterwards the same channel still works, and the tenant has nothing."""
    yield
    answer = wire.call("ListThreads", pb.ListThreadsRequest()).message(pb.ListThreadsResponse)
    assert not answer.threads


def test_every_rpc_with_arguments_has_refused_ones_here_or_with_the_store_or_the_node_cache() -> None:
    assert REFUSED.keys() == METHODS.keys() - {"GetServerInfo", *LEASES} - ITEMS.keys() - RESULTS.keys()


@pytest.mark.usefixtures("nothing_stored")
@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        pytest.param(method, request_, field, id=f"{method}-{number}-{field}")
        for method, cases in REFUSED.items()
        for number, (request_, field) in enumerate(cases)
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_field(
    wire: Wire, method: str, request_: Any, field: str
) -> None:
    messages = request_ if isinstance(request_, list) else [request_]
    status = outcome_of(method, wire.call(method, *messages))
    reason, metadata = reason_of(status)
    assert status.code == INVALID.value[0]
    assert reason in {"INVALID_FIELD", "LIMIT_EXCEEDED"}
    assert metadata["field"] == field
    if reason == "LIMIT_EXCEEDED":
        assert metadata["limit"]
        assert int(metadata["maximum"]) > 0


@pytest.mark.usefixtures("nothing_stored")
def test_a_session_outlives_the_batches_that_it_refuses(wire: Wire) -> None:
    good = pb.ReadRequest(reads=[read()])
    with wire.session() as ask:
        for batch, field in BATCHES:
            reason, metadata = reason_of(outcome_of_batch(ask(batch)))
            assert reason in {"INVALID_FIELD", "LIMIT_EXCEEDED"}
            assert metadata["field"] == field
            assert outcome_of_batch(ask(good)).code == 0


def test_a_value_at_its_limit_is_taken(stack: Stack) -> None:
    whole = ref(thread_id="é" * (ID // 2), checkpoint_ns="n" * NS, checkpoint_id="i" * ID)
    metadata = nested(DEPTH - 1).replace("1", json.dumps("x" * 1000))
    padded = json.dumps({"a": "x" * (METADATA - 9)})
    assert len(padded) == METADATA
    channels = [version(str(n), "v" * 100) for n in range(CHANNELS)]
    taken = [
        put(ref=whole, metadata_json=metadata, channel_versions=channels),
        put(ref=ref(checkpoint_id="2"), metadata_json=padded),
        put_writes([write(task_id=str(n)) for n in range(WRITES)]),
    ]
    with Wire(stack.target, stack.new_tenant().api_key) as wire:
        for request_ in taken:
            assert outcome_of("Write", wire.call("Write", request_)).code == 0
        writes = pb.WriteRequest(mutations=list(put().mutations) * BATCH)
        reads = pb.ReadRequest(reads=[read()] * BATCH)
        assert len(wire.call("Write", writes).message(pb.WriteResponse).results) == BATCH
        assert len(wire.call("Read", reads).message(pb.ReadResponse).results) == BATCH
        full = put(new_values=[value(size=UNARY)])
        blob = full.mutations[0].put.new_values[0].value
        blob.data = bytes(2 * UNARY - full.ByteSize())
        assert full.ByteSize() == UNARY
        with wire.session() as ask:
            assert len(ask(writes).write.results) == BATCH
            assert len(ask(reads).read.results) == BATCH
            assert outcome_of_batch(ask(full)).code == 0
        assert outcome_of("Write", wire.call("Write", full)).code == 0


@pytest.mark.parametrize("in_a_session", [False, True])
def test_a_bad_operation_of_a_batch_fails_alone(stack: Stack, in_a_session: bool) -> None:
    good, bad = put(ref=ref(thread_id="good")).mutations[0], put(ref=ref(thread_id="")).mutations[0]
    batch = pb.WriteRequest(mutations=[good, bad, good])
    with Wire(stack.target, stack.new_tenant().api_key) as wire:
        if in_a_session:
            answer = wire.call("Session", session_request(batch)).message(pb.SessionResponse).write
        else:
            answer = wire.call("Write", batch).message(pb.WriteResponse)
        assert [result.status.code for result in answer.results] == [0, INVALID.value[0], 0]
        threads = wire.call("ListThreads", pb.ListThreadsRequest()).message(pb.ListThreadsResponse).threads
        assert [thread.thread_id for thread in threads] == ["good"]


@pytest.mark.usefixtures("nothing_stored")
@pytest.mark.parametrize("method", ["Write", "Session"])
def test_a_message_that_grpc_itself_refuses_leaves_the_channel_usable(wire: Wire, method: str) -> None:
    large = put(new_values=[value(size=5 << 20)])
    answer = wire.call(method, session_request(large) if method == "Session" else large)
    assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.usefixtures("nothing_stored")
@pytest.mark.parametrize("method", METHODS)
def test_bytes_that_are_no_message_leave_the_channel_usable(wire: Wire, method: str) -> None:
    assert wire.call(method, b"\xff\xff\xff").code is not OK


def test_a_page_size_above_the_limit_is_lowered(stack: Stack) -> None:
    with Wire(stack.target, stack.new_tenant().api_key) as wire:
        for start in range(0, 1001, BATCH):
            mutations = [
                put(ref=ref(thread_id=f"{n:04}")).mutations[0] for n in range(start, min(start + BATCH, 1001))
            ]
            wire.call("Write", pb.WriteRequest(mutations=mutations)).message(pb.WriteResponse)
        page = wire.call("ListThreads", pb.ListThreadsRequest(page_size=2**32 - 1))
        reply = page.message(pb.ListThreadsResponse)
        assert len(reply.threads) == 1000
        rest = wire.call("ListThreads", pb.ListThreadsRequest(page_token=reply.next_page_token))
        assert [t.thread_id for t in rest.message(pb.ListThreadsResponse).threads] == ["1000"]


WAITING: dict[str, Callable[[int], Any]] = {
    "Write": lambda ms: _hurried(put(ref=ref(checkpoint_id="2")), ms),
    "Session": lambda ms: session_request(_hurried(put(ref=ref(checkpoint_id="2")), ms)),
    "DeleteThread": lambda ms: pb.DeleteThreadRequest(operation=operation(timeout_ms=ms), thread_id="thread"),
    "CopyThread": lambda ms: pb.CopyThreadRequest(
        operation=operation(timeout_ms=ms), source_thread_id="thread", target_thread_id="copy"
    ),
    "PruneThreads": lambda ms: pb.PruneThreadsRequest(
        operation=operation(timeout_ms=ms), thread_ids=["thread"], strategy=pb.PRUNE_STRATEGY_DELETE_ALL
    ),
    "DeleteForRuns": lambda ms: pb.DeleteForRunsRequest(operation=operation(timeout_ms=ms), run_ids=["run"]),
}


def _hurried(request_: pb.WriteRequest, timeout_ms: int) -> pb.WriteRequest:
    request_.mutations[0].operation.timeout_ms = timeout_ms
    return request_


@pytest.mark.parametrize("method", WAITING)
def test_an_operation_whose_time_runs_out_is_not_applied_later(stack: Stack, method: str) -> None:
    with Wire(stack.target, stack.new_tenant().api_key) as wire:
        first = put(metadata_json='{"run_id": "run"}')
        assert outcome_of("Write", wire.call("Write", first)).code == 0
        before = wire.call("List", pb.ListRequest())
        with psycopg.connect(stack.database.admin_url) as other:
            # Somebody holds the thread for longer than the caller waits.
            other.execute("SELECT FROM tenure.thread_head WHERE thread_id = 'thread' FOR UPDATE")
            status = outcome_of(method, wire.call(method, WAITING[method](300)))
            assert status.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
            assert reason_of(status)[0] == "DEADLINE_EXCEEDED"
        assert wire.call("List", pb.ListRequest()) == before


def test_a_call_whose_deadline_has_passed_is_not_started(stack: Stack) -> None:
    with Wire(stack.target, stack.new_tenant().api_key) as wire:
        assert wire.call("Write", put(), timeout=0).code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert not wire.call("ListThreads", pb.ListThreadsRequest()).message(pb.ListThreadsResponse).threads
        wire.call("GetServerInfo", server_pb2.GetServerInfoRequest()).message(
            server_pb2.GetServerInfoResponse
        )
