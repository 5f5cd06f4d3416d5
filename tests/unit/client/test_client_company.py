"""Threads that are answered together travel together, once they have come back in time."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from google.rpc import code_pb2
from tenure.v1 import checkpoints_pb2 as pb
from tenure_client import errors
from tenure_client.calls import Call
from tenure_client.channels import Channels
from tenure_client.company import CROWD, Company
from tenure_client.lanes import Lane
from tenure_client.riding import ThreadRides
from tenure_client.target import Target

from tests.harness.clock import Clock
from tests.unit.client.sending import Sent


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def company(clock: Clock) -> Company:
    return Company(clock)


@pytest.fixture
def sent(company: Company) -> Sent:
    return Sent(company)


def answer(sent: Sent, at: int) -> None:
    sent.batches[at].answer(sent.batches[at].results())


@pytest.fixture
def close(sent: Sent) -> Sent:
    """Return a lane that four threads use; a, the first to be answered, came back at once and waits."""
    sent.submit("a", "b", "c", "d")
    answer(sent, 0)
    sent.submit("a")
    assert sent.names == [["a"], ["b"], ["c", "d"]]
    return sent


def test_nobody_is_waited_for_before_threads_have_come_back_at_once(sent: Sent) -> None:
    sent.submit("a", "b", "c", "d")
    answer(sent, 0)

    assert sent.names == [["a"], ["b"], ["c", "d"]]


def test_threads_that_come_back_at_once_are_waited_for_and_travel_together(close: Sent) -> None:
    answer(close, 1)
    close.submit("b")
    answer(close, 2)
    close.submit("c")
    assert close.names[3:] == []

    close.submit("d")

    assert close.names[3:] == [["a", "b", "c", "d"]]


def test_threads_that_are_close_have_one_batch_under_way(close: Sent) -> None:
    answer(close, 1)
    close.submit("b")

    assert close.names[3:] == [], "the batch of c and d is still under way"


def test_a_crowd_waits_neither_for_the_batch_under_way_nor_for_anybody(close: Sent) -> None:
    answer(close, 1)
    close.submit(*(f"more {number}" for number in range(CROWD - 2)))
    assert close.names[3:] == []

    close.submit("the last")

    assert [len(names) for names in close.names[3:]] == [CROWD]


def test_who_waits_in_the_lane_flushes_when_the_wait_is_over(close: Sent, clock: Clock) -> None:
    answer(close, 1)
    assert close.led == ["a"]
    waiting = close.tickets["a"]
    close.lane.flush()
    assert close.names[3:] == []
    seconds = close.lane.flushes_after(waiting)
    assert seconds is not None
    assert 0 < seconds < 1

    clock.now += 1
    assert close.lane.flushes_after(waiting) == 0
    close.lane.flush()

    assert close.names[3:] == [["a"]]
    assert close.lane.flushes_after(waiting) is None


@pytest.mark.parametrize("seconds", [0, 1], ids=["during the wait", "when it is over"])
def test_another_flushes_for_one_that_gives_up(close: Sent, clock: Clock, seconds: float) -> None:
    waiting = close.ticket("x")
    answer(close, 1)
    assert close.led == ["a"]
    clock.now += seconds

    close.lane.give_up(close.tickets["a"])

    assert close.led == ["a", "x"]
    assert waiting.flight is None


def test_threads_that_stay_away_are_not_waited_for_again(close: Sent, clock: Clock) -> None:
    answer(close, 1)
    clock.now += 1
    close.lane.flush()
    assert close.names[3:] == [["a"]]

    close.submit("x")
    answer(close, 2)

    assert close.names[3:] == [["a"], ["x"]]


def test_strangers_do_not_wait_for_each_other_because_others_once_did(close: Sent, clock: Clock) -> None:
    answer(close, 1)
    answer(close, 2)
    clock.now += 1
    close.lane.flush()
    answer(close, 3)
    clock.now += 3600

    close.submit("x", "y")

    assert close.names[4:] == [["x"], ["y"]]


def test_threads_that_come_back_late_are_not_waited_for(sent: Sent, clock: Clock) -> None:
    sent.submit("a", "b", "c", "d")
    answer(sent, 0)
    clock.now += 1
    sent.submit("a")

    answer(sent, 1)

    assert sent.names[3:] == [["a"]]


def test_a_lone_thread_never_waits(sent: Sent) -> None:
    for number in range(20):
        sent.submit("a")
        assert sent.names[number:] == [["a"]]
        answer(sent, number)


def test_nobody_is_waited_for_after_a_batch_was_lost(close: Sent) -> None:
    close.batches[1].answer(errors.Unavailable("the connection was lost", maybe_applied=True))
    assert close.names[3:] == [["a"]]

    answer(close, 2)
    close.submit("x", "y")

    assert close.names[3:] == [["a"], ["x"]]


def test_nobody_is_waited_for_after_a_batch_was_refused(close: Sent) -> None:
    refusal = pb.SessionResponse()
    refusal.status.code = code_pb2.RESOURCE_EXHAUSTED

    close.batches[1].answer(refusal)

    assert close.names[3:] == [["a"]]


def test_nobody_is_waited_for_again_who_has_stayed_away(company: Company) -> None:
    come_back(company, 4)
    company.answered(4, 0, 1)
    company.joined()
    assert company.holds_for()

    company.answered(4, 0, 1)

    assert not company.holds_for()


@pytest.mark.parametrize("pending", [CROWD, CROWD + 20])
def test_nobody_is_waited_for_while_a_crowd_waits(company: Company, pending: int) -> None:
    come_back(company, 4)

    company.answered(4, pending, 1)

    assert not company.holds_for()


def test_no_more_are_waited_for_than_make_a_crowd(company: Company) -> None:
    come_back(company, 4)
    company.answered(4, CROWD - 2, 1)
    company.joined()
    assert company.holds_for()

    company.joined()

    assert not company.holds_for()


def test_the_wait_is_a_share_of_what_the_batch_took_and_short(company: Company) -> None:
    come_back(company, 4)
    company.answered(4, 0, 0.01)
    assert 0 < company.holds_for() < 0.005

    come_back(company, 4)
    company.answered(4, 0, 60)
    assert 0 < company.holds_for() <= 0.005


def test_a_thread_that_is_answered_alone_parts_them(company: Company) -> None:
    come_back(company, 2)

    company.answered(1, 0, 1)
    parted = not company.close
    company.joined()

    assert parted
    assert not company.close, "nobody is close to itself"


def come_back(company: Company, count: int) -> None:
    company.answered(count, 0, 1)
    for _ in range(count):
        company.joined()


class Answering:
    """A lane for real threads, and a thread that answers their batches after a while.

    Attributes:
        sizes: Operations of each batch.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.sizes: list[int] = []
        self.rides = ThreadRides(Lane(self._send, Company()))
        self._seconds = seconds

    def _send(self, request: pb.SessionRequest, on_answer: Callable[[Any], None]) -> Callable[[], None]:
        count = len(request.write.mutations)
        self.sizes.append(count)
        response = pb.SessionResponse(write=pb.WriteResponse(results=[pb.MutationResult()] * count))
        threading.Timer(self._seconds(), on_answer, [response]).start()
        return lambda: None

    def put(self) -> Any:
        mutation = pb.Mutation(put=pb.PutCheckpoint(ref=pb.CheckpointRef(thread_id="t")))
        call = Call("Write", mutation, mutation.operation)
        call.timeout = 20.0
        return self.rides.ride(call)


def test_four_threads_that_do_nothing_else_share_batches() -> None:
    answering = Answering(lambda: 0.02)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: [answering.put() for _ in range(20)], range(4)))

    assert sum(answering.sizes) == 80
    assert 4 in answering.sizes


def test_nobody_is_forgotten_whatever_threads_do_in_between() -> None:
    chance = random.Random(7)
    answering = Answering(lambda: chance.choice([0.0, 0.002, 0.02]))

    def work(seed: int) -> list[Any]:
        own = random.Random(seed)
        found = []
        for _ in range(60):
            found.append(answering.put())
            time.sleep(own.choice([0, 0, 0, 0.001, 0.008]))
        return found

    with ThreadPoolExecutor(6) as threads:
        outcomes = [one for found in threads.map(work, range(6)) for one in found]

    assert [one for one in outcomes if not isinstance(one, pb.MutationResult)] == []


def test_threads_have_company_for_items_and_tasks_have_none() -> None:
    channels = Channels(Target.resolve("localhost:1", api_key="tn_x", ca=None, insecure=False), 1)
    lanes = channels.sync().lanes
    try:
        have = {method: lane._lane._company is not None for method, lane in lanes.items()}
        assert {method for method, company in have.items() if company} == {"WriteItems", "ReadItems"}
    finally:
        channels.close()
