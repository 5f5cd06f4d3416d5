"""Sessions on a real gRPC server: batches side by side, each let in on its own, none lost at the end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tenure.v1 import checkpoints_pb2 as pb
from tenure_server import errors, telemetry
from tenure_server.admission import SESSIONS, UNARY
from tenure_server.domain import Scope
from tenure_server.limits import MIB
from tenure_server.services import parts, sessions

from tests.harness.waiting import until
from tests.unit.server.serving import TRACE, Served, Stream, read, serving, write
from tests.unit.server.spans import recording

WRITE_METHOD = "/tenure.v1.CheckpointService/Write"
SECRET = "SELECT body FROM checkpoint -- of another tenant"
MOST = sessions._MAX_BATCHES


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A server that looks at a key each time."""
    async with serving(trust=0) as opened:
        yield opened
        opened.store.open.set()
        opened.store.freed.set()


def reason_of(status: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    return info.reason.removeprefix("ERROR_REASON_")


async def test_batches_are_answered_as_they_are_ready(served: Served) -> None:
    stream = Stream(served)
    served.store.held = {"write"}
    served.store.open.clear()
    slow = await stream.send(write("a"))
    quick = await stream.send(read("a", "b"))

    first = await stream.receive()
    assert first is not None
    assert (first.call_id, len(first.read.results)) == (quick, 2)
    served.store.open.set()
    second = await stream.receive()
    assert second is not None
    assert (second.call_id, len(second.write.results)) == (slow, 1)
    assert (await stream.ask(read("a"))).read.results[0].checkpoint.ref.checkpoint_id == "1"


async def test_so_many_batches_run_at_once_and_then_the_stream_is_not_read(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_PATIENCE", 60.0)  # what is said to take longer does not count
    stream = Stream(served)
    served.store.held = {"write"}
    served.store.open.clear()
    sent = [await stream.send(write(f"thread {number}")) for number in range(3 * MOST)]
    await until(lambda: served.store.running == MOST)
    # What was sent before on the same connection has arrived when this is answered.
    for _ in range(3):
        await served.call("Read")
    assert served.store.running == MOST

    served.store.open.set()
    answered = []
    for _ in sent:
        response = await stream.receive()
        assert response is not None
        answered.append(response.call_id)
    assert sorted(answered) == sent


async def test_each_batch_needs_the_scope_of_its_kind(served: Served) -> None:
    for own, other, allowed, refused in (
        (Scope.READ, "write", read("t"), write("t")),
        (Scope.WRITE, "read", write("t"), read("t")),
    ):
        stream = Stream(served, await served.key(own))
        answer = await stream.ask(refused)
        assert answer.status.code == grpc.StatusCode.PERMISSION_DENIED.value[0]
        assert reason_of(answer.status) == "SCOPE_MISSING"
        assert other in answer.status.message
        assert not (await stream.ask(allowed)).HasField("status")
        stream.call.cancel()


async def test_a_revocation_takes_effect_in_an_open_session(served: Served) -> None:
    metadata = await served.key(Scope.READ, Scope.WRITE)
    stream = Stream(served, metadata)
    assert (await stream.ask(write("t"))).write.results[0].status.code == 0

    assert await served.tenants.revoke_key(served.tenant, metadata[0][1].split("_")[2])

    for batch in (write("late"), read("t")):
        answer = await stream.ask(batch)
        assert reason_of(answer.status) == "UNAUTHENTICATED"
        assert not answer.HasField("read")
    found = await Stream(served).ask(read("late"))
    assert not found.read.results[0].HasField("checkpoint")


async def test_a_session_needs_a_key(served: Served) -> None:
    for metadata in ([], [("authorization", "Bearer tn_nonsense")]):
        assert await Stream(served, metadata).call.code() is grpc.StatusCode.UNAUTHENTICATED
    assert not served.store.asked.is_set()


async def test_sessions_of_two_tenants_are_two_worlds(served: Served) -> None:
    other = await served.tenants.create_tenant("other")
    ours = Stream(served)
    theirs = Stream(served, await served.key(Scope.READ, Scope.WRITE, tenant=other))
    await asyncio.gather(ours.ask(write("shared", value=b"ours")), theirs.ask(write("shared", value=b"no")))
    await ours.ask(write("only ours"))

    (found,) = (await ours.ask(read("shared"))).read.results
    assert found.checkpoint.checkpoint.data == b"ours"
    (found,) = (await theirs.ask(read("shared"))).read.results
    assert found.checkpoint.checkpoint.data == b"no"
    assert not (await theirs.ask(read("only ours"))).read.results[0].HasField("checkpoint")


async def test_a_batch_takes_a_slot_while_it_runs_and_an_idle_session_none(served: Served) -> None:
    stream = Stream(served)
    await stream.ask(read("t"))
    await until(lambda: not served.admission._running[UNARY, served.tenant])
    with ExitStack() as running:
        for _ in range(UNARY.per_tenant):
            running.enter_context(served.admission.slot(WRITE_METHOD, served.tenant))
        answer = await stream.ask(write("t"))
        assert reason_of(answer.status) == "OVERLOADED"
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in answer.status.details)
        assert retry.retry_delay.ToNanoseconds() > 0
    for _ in range(UNARY.per_tenant + 1):
        assert not (await stream.ask(write("t"))).HasField("status"), "each slot is given back"


async def test_a_tenant_with_too_many_sessions_is_pushed_back(served: Served) -> None:
    with ExitStack() as running:
        for _ in range(SESSIONS.per_tenant):
            running.enter_context(served.admission.slot("Session", served.tenant))
        call = Stream(served).call
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "grpc-retry-pushback-ms" in dict(await call.trailing_metadata())
        other = await served.tenants.create_tenant("other")
        theirs = Stream(served, await served.key(Scope.READ, tenant=other))
        assert not (await theirs.ask(read("t"))).HasField("status")
    assert not (await Stream(served).ask(read("t"))).HasField("status")


@pytest.mark.parametrize(
    "batch", [None, pb.WriteRequest(), pb.ReadRequest()], ids=["no kind", "write", "read"]
)
async def test_an_empty_batch_is_refused(served: Served, batch: Any) -> None:
    stream = Stream(served)
    answer = await stream.ask(batch)
    assert answer.status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert not (await stream.ask(read("t"))).HasField("status"), "the session goes on"


async def test_a_batch_that_is_too_large_is_refused(served: Served) -> None:
    stream = Stream(served)
    answer = await stream.ask(write("t", value=bytes(MIB)))
    assert reason_of(answer.status) == "LIMIT_EXCEEDED"
    assert not (await stream.ask(read("t"))).read.results[0].HasField("checkpoint")


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (RuntimeError(SECRET), "INTERNAL"),
        (errors.Unavailable(), "UNAVAILABLE"),
        (asyncio.CancelledError(), "UNAVAILABLE"),
    ],
)
async def test_a_batch_that_fails_fails_alone(served: Served, failure: BaseException, reason: str) -> None:
    stream = Stream(served)
    served.store.failure = failure
    for batch in (write("t"), read("t")):
        answer = await stream.ask(batch)
        assert reason_of(answer.status) == reason
        assert SECRET.encode() not in answer.SerializeToString()
    served.store.failure = None

    assert (await stream.ask(write("t"))).write.results[0].status.code == 0


async def test_a_mutation_that_fails_fails_alone(served: Served) -> None:
    batch = write("a", "", "b")
    results = (await Stream(served).ask(batch)).write.results
    assert [result.status.code == 0 for result in results] == [True, False, True]


async def test_draining_answers_what_was_read_and_ends_the_session(served: Served) -> None:
    stream = Stream(served)
    idle = Stream(served)
    await idle.ask(read("t"))
    served.store.open.clear()
    sent = [await stream.send(write(f"thread {number}")) for number in range(3)]
    await until(lambda: served.store.running == 3)
    served.sessions.drain()
    assert await idle.receive() is None
    assert await idle.call.code() is grpc.StatusCode.OK

    served.store.open.set()
    answers = [await stream.receive() for _ in sent]
    assert sorted(answer.call_id for answer in answers if answer) == sent
    assert all(answer.write.results[0].status.code == 0 for answer in answers if answer)
    assert await stream.receive() is None
    assert await stream.call.code() is grpc.StatusCode.OK


async def test_what_is_acknowledged_or_read_amid_a_drain_is_not_lost(served: Served) -> None:
    """Whatever the moment of the drain: a batch that took effect was answered."""
    stream = Stream(served)
    for number in range(200):
        await stream.send(write(str(number)))
    # Before any answer is looked at: by then a quick server would have read them all.
    served.sessions.drain()
    answered = set()
    while (answer := await stream.receive()) is not None:
        answered.add(answer.call_id)

    stored = [one.ref.thread_id for part in await served.call("List") for one in part.page.checkpoints]
    assert 1 <= len(answered) < 200
    assert sorted(stored) == sorted(str(call_id - 1) for call_id in answered)


async def test_a_session_that_ends_twice_ends_once(served: Served) -> None:
    """It grows old while the server drains."""
    stream = Stream(served)
    await stream.ask(read("t"))
    (session,) = served.sessions._open
    served.sessions.drain()
    session.end()
    assert await stream.receive() is None
    assert await stream.call.code() is grpc.StatusCode.OK


async def test_an_old_session_ends_by_itself(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_MAX_AGE", 0.01)
    stream = Stream(served)
    assert await stream.receive() is None
    assert await stream.call.code() is grpc.StatusCode.OK


async def test_a_large_answer_comes_in_parts_that_fit(served: Served) -> None:
    names = [f"thread {number}" for number in range(256)]
    stream = Stream(served)
    for name in names:
        await stream.ask(write(name, value=os.urandom(60_000)))
    sent = await stream.send(read(*names))
    parts: list[pb.SessionResponse] = []
    while not parts or parts[-1].more:
        part = await stream.receive()
        assert part is not None
        parts.append(part)

    assert len(parts) > 3
    assert {part.call_id for part in parts} == {sent}
    assert max(part.ByteSize() for part in parts) <= 4 * MIB
    found = [result.checkpoint.ref.thread_id for part in parts for result in part.read.results]
    assert found == names


async def part_of(stream: Stream, call_id: int) -> tuple[list[int], list[bool], bool]:
    """Return the next answer: positions, whether each was stored, whether more follows."""
    part = await stream.receive()
    assert part is not None
    assert part.call_id == call_id
    assert part.HasField("write")
    return list(part.positions), [result.status.code == 0 for result in part.write.results], part.more


async def test_a_write_with_a_busy_thread_is_answered_in_parts(served: Served) -> None:
    stream = Stream(served)
    served.store.busy = {"busy"}
    sent = await stream.send(write("busy", "free", "", "busy", "free too"))

    positions, stored, more = await part_of(stream, sent)
    assert more
    assert dict(zip(positions, stored, strict=True)) == {1: True, 2: False, 4: True}
    assert (await stream.ask(read("free"))).read.results[0].checkpoint.ref.checkpoint_id == "1"
    served.store.freed.set()
    assert await part_of(stream, sent) == ([0, 3], [True, True], False)


async def test_a_write_of_a_busy_thread_alone_says_that_it_takes_longer(served: Served) -> None:
    stream = Stream(served)
    served.store.busy = {"busy"}
    sent = await stream.send(write("busy", "busy"))
    assert await part_of(stream, sent) == ([], [], True)

    served.store.freed.set()
    assert await part_of(stream, sent) == ([], [True, True], False)


async def test_a_write_that_is_complete_in_time_is_answered_once(served: Served) -> None:
    answer = await Stream(served).ask(write("a", "", "b"))
    assert not answer.more
    assert not answer.positions
    assert len(answer.write.results) == 3


async def test_busy_batches_take_no_room_from_others(served: Served) -> None:
    stream = Stream(served)
    served.store.busy = {"busy"}
    sent = []
    for _ in range(2 * MOST):
        sent.append(await stream.send(write("busy", "free")))
        assert (await part_of(stream, sent[-1]))[2]
    assert not (await stream.ask(read("free"))).HasField("status")

    served.store.freed.set()
    answers = [await stream.receive() for _ in sent]
    assert sorted(answer.call_id for answer in answers if answer) == sent


async def test_a_session_that_its_client_leaves_gives_everything_back(served: Served) -> None:
    stream = Stream(served)
    served.store.open.clear()
    for number in range(MOST):
        await stream.send(write(f"thread {number}"))
    await until(lambda: served.store.running == MOST)
    stream.call.cancel()

    await until(lambda: not served.store.running)
    await until(lambda: not +served.admission._running)


async def test_a_session_that_its_client_leaves_after_a_part_gives_everything_back(served: Served) -> None:
    stream = Stream(served)
    served.store.busy = {"busy"}
    assert (await part_of(stream, await stream.send(write("busy", "free"))))[2]
    stream.call.cancel()

    await until(lambda: not +served.admission._running)


async def test_a_batch_is_a_span_in_its_callers_trace(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans: InMemorySpanExporter = recording(monkeypatch)
    await Stream(served).ask(write("a", "b"))
    (span,) = spans.get_finished_spans()
    assert span.name == "tenure.v1.CheckpointService/Write"
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert (span.attributes or {})[telemetry.OPERATIONS] == 2
    assert (span.attributes or {})[telemetry.RPC_CODE] == "OK"
