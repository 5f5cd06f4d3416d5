"""What puts say of their writer, and the lease of a block, against a scripted connection."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from tenure.v1 import checkpoints_pb2 as pb
from tenure_client import InvalidRequest, LeaseHeld, StaleWriter, TenureSaver, Unavailable, operations
from tenure_client.calls import Call
from tenure_client.held import HeldValues
from tenure_client.single_writer import SingleWriter
from tenure_client.writing import Writing

SERDE = JsonPlusSerializer()
PARENT: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "1"}}
FIRST: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


def put(writing: Writing, config: Any = PARENT) -> pb.PutCheckpoint:
    from langgraph.checkpoint.base import empty_checkpoint

    call = next(operations.put(config, empty_checkpoint(), {}, {}, SERDE, HeldValues(), writing))
    assert isinstance(call.request, pb.Mutation)
    return call.request.put


def put_writes(writing: Writing) -> pb.PutWrites:
    call = next(operations.put_writes(PARENT, [("a", 1)], "task", "", SERDE, writing))
    assert isinstance(call.request, pb.Mutation)
    return call.request.put_writes


def told(message: pb.PutCheckpoint | pb.PutWrites) -> dict[str, object]:
    """Return what a message says of its writer."""
    return {
        name: getattr(message, name)
        for name in ("lease_token", "expected_parent")
        if name in message.DESCRIPTOR.fields_by_name and message.HasField(name)  # type: ignore[arg-type]
    }


def test_without_opt_in_nothing_is_said() -> None:
    writing = Writing(expects_parent=False)
    assert told(put(writing)) == told(put(writing, FIRST)) == told(put_writes(writing)) == {}


def test_a_careful_put_says_what_it_builds_on() -> None:
    writing = Writing(expects_parent=True)
    assert told(put(writing)) == {"expected_parent": "1"}
    assert told(put(writing, FIRST)) == {"expected_parent": ""}
    assert told(put_writes(writing)) == {}


@pytest.mark.parametrize("expects_parent", [False, True])
def test_a_lease_is_said_on_all_that_goes_to_its_thread_while_it_lasts(expects_parent: bool) -> None:
    writing = Writing(expects_parent=expects_parent)
    before = told(put(writing))
    writing.begin("t", 7)
    assert told(put(writing)) == told(put_writes(writing)) == {"lease_token": 7}
    writing.begin("other", 8)
    writing.end("t", 6)
    assert told(put(writing)) == {"lease_token": 7}, "only its own block ends it"
    writing.end("t", 7)
    assert told(put(writing)) == before


def test_a_child_that_was_forked_has_no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    writing = Writing(expects_parent=False)
    writing.begin("t", 7)
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    assert told(put(writing)) == {}
    writing.end("t", 7)
    monkeypatch.setattr(os, "getpid", lambda: parent)
    assert told(put(writing)) == {"lease_token": 7}


class Server:
    """Plays the server, and the connection to it.

    Attributes:
        calls: Names of what was called.
        answers: What the next calls of a name are answered with; afterwards they go well.
        renewed: Set by each renewal.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.answers: dict[str, list[Exception]] = {}
        self.renewed = threading.Event()
        self.tokens = 0

    def run(self, name: str, plan: Any, budget: object = None) -> Any:
        call: Call = next(plan)
        self.calls.append(call.method)
        if call.method == "RenewLease":
            self.renewed.set()
        if self.answers.get(call.method):
            plan.throw(self.answers[call.method].pop(0))
        self.tokens += call.method == "AcquireLease"
        try:
            plan.send(pb.AcquireLeaseResponse(lease_token=self.tokens))
        except StopIteration as done:
            return done.value
        raise AssertionError("a second call")

    async def arun(self, name: str, plan: Any, budget: object = None) -> Any:
        return self.run(name, plan, budget)


def block(server: Server, *, ttl: float = 1.0, wait: float = 0.0) -> tuple[SingleWriter, Writing]:
    writing = Writing(expects_parent=False)
    made = SingleWriter(server, writing, "t", ttl=ttl, wait=wait, holder="me")  # type: ignore[arg-type]
    return made, writing


def held(ms: int = 100) -> LeaseHeld:
    return LeaseHeld("held", metadata={"held_for_ms": str(ms), "holder": "another"})


def test_a_block_renews_and_gives_back_also_when_it_fails() -> None:
    server = Server()
    lease, writing = block(server)

    def fail() -> None:
        with lease as entered:
            assert entered.token == 1
            assert told(put(writing)) == {"lease_token": 1}
            assert server.renewed.wait(30)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (server.calls[0], server.calls[-1]) == ("AcquireLease", "ReleaseLease")
    assert told(put(writing)) == {}
    assert not [one for one in threading.enumerate() if one.name == "tenure-lease"]
    with pytest.raises(InvalidRequest):
        _ = lease.token


async def test_an_asynchronous_block_does_the_same() -> None:
    server = Server()
    lease, writing = block(server)
    async with lease:
        while not server.renewed.is_set():
            await asyncio.sleep(0.01)
        assert told(put(writing)) == {"lease_token": 1}
    assert (server.calls[0], server.calls[-1]) == ("AcquireLease", "ReleaseLease")
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "tenure-lease"]


async def test_a_block_that_is_cancelled_gives_its_lease_back() -> None:
    server = Server()
    lease, _ = block(server)

    async def inside() -> None:
        async with lease:
            await asyncio.Event().wait()

    task = asyncio.create_task(inside())
    while not server.calls:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.calls[-1] == "ReleaseLease"


def test_a_renewal_that_fails_is_tried_again_and_one_that_is_refused_is_not() -> None:
    server = Server()
    server.answers["RenewLease"] = [Unavailable("away"), StaleWriter("gone")]
    lease, writing = block(server)
    with lease:
        assert lease._renewing is not None
        lease._renewing.join(30)
        assert server.calls.count("RenewLease") == 2
        assert told(put(writing)) == {"lease_token": 1}, "so that the put is refused rather than unprotected"


def test_a_lease_that_cannot_be_given_back_is_left_to_end() -> None:
    server = Server()
    server.answers["ReleaseLease"] = [Unavailable("away")]
    lease, _ = block(server)
    with lease:
        pass
    with lease:
        assert lease.token == 2, "a block may be entered again"


def test_somebody_elses_lease_is_waited_for_as_long_as_one_likes() -> None:
    server = Server()
    server.answers["AcquireLease"] = [held(), held(), held()]
    with block(server, wait=60.0)[0] as lease:
        assert lease.token == 1
    server.answers["AcquireLease"] = [held(60_000)]
    with pytest.raises(LeaseHeld) as caught, block(server)[0]:
        pass
    assert (caught.value.held_for, caught.value.holder) == (60.0, "another")
    assert not caught.value.retryable


async def test_it_is_waited_for_without_blocking() -> None:
    server = Server()
    server.answers["AcquireLease"] = [held(), held()]
    async with block(server, wait=60.0)[0] as lease:
        assert lease.token == 1


def test_a_block_within_itself_is_a_mistake() -> None:
    lease, _ = block(Server())
    with lease, pytest.raises(InvalidRequest, match="another one"), lease:
        pass


@pytest.mark.parametrize(
    "wrong",
    [{"ttl": 0.5}, {"ttl": 3601.0}, {"ttl": float("nan")}, {"wait": -1.0}, {"wait": float("nan")}],
)
def test_times_that_cannot_be_are_refused_before_anything_is_sent(wrong: dict[str, float]) -> None:
    saver = TenureSaver("127.0.0.1:1", api_key="tn_key")
    with pytest.raises(InvalidRequest):
        saver.single_writer("t", **wrong)
    with pytest.raises(InvalidRequest):
        saver.single_writer("")


def test_refusals_are_typed_and_are_not_repeated() -> None:
    assert not StaleWriter("stale").retryable
    assert not LeaseHeld("held").retryable
