"""Which operations travel together, and what each is told; no server, no time."""

from __future__ import annotations

import gc
import time
import weakref
from typing import Any

import pytest
from google.rpc import status_pb2
from tenure.v1 import checkpoints_pb2 as pb
from tenure_client import errors
from tenure_client.calls import MAX_UNARY_REQUEST, Call
from tenure_client.company import CROWD
from tenure_client.flights import PATIENCE, Ticket
from tenure_client.lanes import _MAX_ABANDONED as MAX_ABANDONED
from tenure_client.lanes import MAX_IN_FLIGHT, MAX_OPERATIONS
from tenure_client.retry import wanted_ms

from tests.unit.client.sending import Sent

LOST = errors.Unavailable("the connection was lost", maybe_applied=True)


@pytest.fixture
def sent() -> Sent:
    return Sent()


def code_of(outcome: pb.MutationResult) -> int:
    return outcome.status.code


def test_a_lone_operation_leaves_at_once(sent: Sent) -> None:
    sent.submit("a")

    assert sent.names == [["a"]]


def test_what_comes_while_batches_are_under_way_leaves_together(sent: Sent) -> None:
    sent.submit("a", "b", "c", "d", "e")
    assert sent.names == [["a"], ["b"]]

    sent.batches[0].answer(sent.batches[0].results())

    assert sent.names == [["a"], ["b"], ["c", "d", "e"]]
    assert code_of(sent.outcome("a")) == 0
    assert sent.outcomes["b"] == []


def test_what_is_put_in_before_a_flush_leaves_together(sent: Sent) -> None:
    for name in "abc":
        sent.ticket(name)
    sent.lane.flush()

    assert sent.names == [["a", "b", "c"]]


def test_so_many_batches_are_under_way_at_most(sent: Sent) -> None:
    for number in range(2000):
        sent.submit(str(number))
        assert len(sent.batches) <= MAX_IN_FLIGHT
    answered = 0
    while answered < len(sent.batches):
        sent.batches[answered].answer(sent.batches[answered].results())
        answered += 1
        assert len(sent.batches) - answered <= MAX_IN_FLIGHT

    assert [name for names in sent.names for name in names] == [str(number) for number in range(2000)]
    assert max(map(len, sent.names)) == MAX_OPERATIONS
    assert all(len(outcomes) == 1 for outcomes in sent.outcomes.values())


def test_a_batch_is_a_request_that_the_server_accepts(sent: Sent) -> None:
    size = MAX_UNARY_REQUEST // 5
    sent.submit("a", "b", *(f"large {number}" for number in range(8)), size=size)
    for batch in sent.batches:
        batch.answer(batch.results())

    assert [len(names) for names in sent.names] == [1, 1, 4, 4]
    assert all(batch.request.write.ByteSize() <= MAX_UNARY_REQUEST for batch in sent.batches)


def test_many_small_operations_fill_a_batch_up_to_its_last_byte_and_not_beyond(sent: Sent) -> None:
    sent.submit("a", "b", *(str(number) for number in range(MAX_OPERATIONS)), size=MAX_UNARY_REQUEST // 200)
    for batch in sent.batches:
        batch.answer(batch.results())

    assert max(map(len, sent.names)) < 200
    assert all(batch.request.write.ByteSize() <= MAX_UNARY_REQUEST for batch in sent.batches)


def test_an_operation_as_large_as_a_batch_goes_alone(sent: Sent) -> None:
    sent.submit("a", "b")
    sent.submit("largest", size=MAX_UNARY_REQUEST - 100)
    sent.submit("small")
    for batch in sent.batches:
        batch.answer(batch.results())

    assert sent.names == [["a"], ["b"], ["largest"], ["small"]]


def test_each_operation_is_told_its_own_result(sent: Sent) -> None:
    sent.submit("a", "b", "c", "d", "e")
    sent.batches[0].answer(sent.batches[0].results())
    sent.batches[2].answer(sent.batches[2].results(0, 10, 0))

    assert [code_of(sent.outcome(name)) for name in "cde"] == [0, 10, 0]


def test_an_answer_in_parts_is_told_when_it_is_whole(sent: Sent) -> None:
    sent.submit("a", "b", "c", "d", "e")
    sent.batches[0].answer(sent.batches[0].results())
    batch = sent.batches[2]
    first, second, third = (batch.results(code) for code in (1, 2, 3))
    first.more = second.more = True

    batch.answer(first)
    batch.answer(second)
    assert [sent.outcomes[name] for name in "cde"] == [[], [], []]
    batch.answer(third)

    assert [code_of(sent.outcome(name)) for name in "cde"] == [1, 2, 3]


@pytest.mark.parametrize("codes", [(0,), (0, 0, 0, 0)])
def test_results_that_cannot_be_told_apart_are_told_to_nobody(sent: Sent, codes: tuple[int, ...]) -> None:
    sent.submit("a", "b", "c", "d", "e")
    sent.batches[0].answer(sent.batches[0].results())
    sent.batches[2].answer(sent.batches[2].results(*codes))

    assert all(isinstance(sent.outcome(name), errors.UnreadableValue) for name in "cde")


def test_an_empty_answer_is_none(sent: Sent) -> None:
    sent.submit("a")
    sent.batches[0].answer(pb.SessionResponse())

    assert isinstance(sent.outcome("a"), errors.UnreadableValue)


def test_a_batch_that_is_refused_fails_whole_and_each_has_an_error_of_its_own(sent: Sent) -> None:
    sent.submit("a", "b", "c", "d")
    sent.batches[0].answer(sent.batches[0].results())
    sent.batches[2].answer(pb.SessionResponse(status=status_pb2.Status(code=10, message="later")))
    sent.batches[1].answer(LOST)

    first, second = sent.outcome("c"), sent.outcome("d")
    assert isinstance(first, errors.Conflict)
    assert isinstance(second, errors.Conflict)
    assert first is not second, "tracebacks of several callers would mix"
    assert sent.outcome("b").maybe_applied


def test_what_is_given_up_before_it_was_sent_is_not_sent(sent: Sent) -> None:
    _, _, gone, _ = sent.submit("a", "b", "gone", "neighbour")

    outcome = sent.lane.give_up(gone)
    sent.batches[0].answer(sent.batches[0].results())

    assert isinstance(outcome, errors.DeadlineExceeded)
    assert not outcome.maybe_applied
    assert sent.names == [["a"], ["b"], ["neighbour"]]
    assert sent.outcomes["gone"] == []


def test_what_is_given_up_after_it_was_sent_may_have_been_applied(sent: Sent) -> None:
    (ticket,) = sent.submit("a")

    outcome = sent.lane.give_up(ticket)

    assert isinstance(outcome, errors.DeadlineExceeded)
    assert outcome.maybe_applied


def test_giving_up_leaves_the_neighbours_of_a_batch_alone(sent: Sent) -> None:
    tickets = sent.submit("a", "b", "c", "d", "e")
    sent.batches[0].answer(sent.batches[0].results())

    sent.lane.give_up(tickets[3])
    sent.submit("f")
    assert len(sent.batches) == 3, "the batch is still under way: its place is not free"
    sent.batches[2].answer(sent.batches[2].results(1, 2, 3))

    assert code_of(sent.outcome("c")) == 1
    assert code_of(sent.outcome("e")) == 3
    assert sent.names[3] == ["f"]


def test_a_batch_for_which_nobody_waits_frees_its_place_once(sent: Sent) -> None:
    first, second, *_ = sent.submit("a", "b", "c", "d")

    sent.lane.give_up(first)
    assert sent.names == [["a"], ["b"], ["c", "d"]]
    sent.submit("e")
    sent.batches[0].answer(sent.batches[0].results())

    assert len(sent.batches) == 3, "a late answer frees no second place"
    assert sent.outcomes["a"] == [], "nobody waits for it"
    sent.lane.give_up(second)
    assert sent.names[3] == ["e"]


def test_giving_up_after_the_answer_frees_nothing(sent: Sent) -> None:
    (ticket,) = sent.submit("a")
    sent.batches[0].answer(sent.batches[0].results())
    sent.lane.give_up(ticket)

    sent.submit("b", "c", "d")

    assert sent.names == [["a"], ["b"], ["c"]]


def test_the_server_is_told_the_time_that_is_left_after_waiting_in_the_lane(sent: Sent) -> None:
    sent.submit("a", "b")
    waited = sent.ticket("waited")
    sent.ticket("late")
    waited.call.operation.timeout_ms = wanted_ms(60)
    waited.deadline = time.monotonic() + 20
    late = sent.ticket("too late")
    late.deadline = time.monotonic() - 1

    sent.batches[0].answer(sent.batches[0].results())

    told = [mutation.operation.timeout_ms for mutation in sent.batches[2].request.write.mutations]
    assert wanted_ms(10) < told[0] <= wanted_ms(20)
    assert wanted_ms(20) < told[1] <= wanted_ms(60)
    assert told[2] == 1, "none at all would mean the server's own default"


def test_an_operation_that_cannot_be_sent_may_be_sent_again(sent: Sent) -> None:
    sent.failure = errors.Unavailable("the session has ended")
    sent.submit("a", "b", "c")
    sent.failure = None
    sent.submit("d", "e")

    assert [type(sent.outcome(name)) for name in "abc"] == [errors.Unavailable] * 3
    assert not sent.outcome("a").maybe_applied
    assert sent.names == [["d"], ["e"]], "all places are free"


@pytest.mark.parametrize("failure", [ZeroDivisionError(), KeyboardInterrupt()])
def test_whatever_interrupts_sending_loses_neither_a_place_nor_a_neighbour(
    sent: Sent, failure: BaseException
) -> None:
    sent.ticket("neighbour")
    sent.ticket("a")
    sent.failure = failure
    with pytest.raises(type(failure)):
        sent.lane.flush()
    sent.failure = None
    sent.submit("b", "c")

    for name in ("neighbour", "a"):
        assert isinstance(sent.outcome(name), errors.Unavailable)
        assert sent.outcome(name).maybe_applied, "it is not known how far it came"
    assert sent.names == [["b"], ["c"]]


def test_pending_writes_wait_a_moment_for_company(sent: Sent) -> None:
    """LangGraph puts the next checkpoint right after them."""
    sent.pending("writes")
    sent.lane.flush()
    assert sent.names == []
    sent.submit("put")

    assert sent.names == [["writes", "put"]]


def test_pending_writes_that_have_waited_leave_alone(sent: Sent) -> None:
    ticket = sent.pending("writes")
    assert ticket.lingers
    sent.lane.flush()
    ticket.leaves_at = time.monotonic()
    sent.lane.flush()

    assert sent.names == [["writes"]]


def test_a_crowd_of_pending_writes_waits_for_nobody(sent: Sent) -> None:
    names = [str(number) for number in range(CROWD)]
    for name in names:
        assert sent.names == []
        sent.pending(name)
        sent.lane.flush()

    assert sent.names == [names]


def test_pending_writes_that_waited_for_a_place_leave_with_what_else_did(sent: Sent) -> None:
    sent.submit("a", "b")
    first, _ = sent.pending("c"), sent.pending("d")
    first.leaves_at = time.monotonic() - PATIENCE
    sent.batches[0].answer(sent.batches[0].results())

    assert sent.names == [["a"], ["b"], ["c", "d"]]


def test_pending_writes_wait_longer_while_a_batch_is_under_way(sent: Sent) -> None:
    """Whoever waits for its answer stores the next checkpoint then."""
    sent.submit("a")
    pending = sent.pending("b")
    pending.leaves_at = time.monotonic()
    sent.lane.flush()
    assert pending.waits()
    sent.batches[0].answer(sent.batches[0].results())
    assert sent.names == [["a"]]
    sent.submit("c")

    assert sent.names == [["a"], ["b", "c"]]
    assert not pending.waits()


def test_nothing_stays_in_memory_of_what_was_answered(sent: Sent) -> None:
    """Requests and results may be large; nobody should wait for the collector to find them."""

    def told(_outcome: Any) -> None: ...

    wanted, kept = pb.CheckpointRead(), weakref.ref(told)
    sent.lane.add(Ticket(Call("Read", wanted, wanted.operation), time.monotonic() + 60, told))
    del told
    gc.disable()
    try:
        sent.lane.flush()
        assert kept() is not None
        sent.batches[0].answer(pb.SessionResponse(read=pb.ReadResponse(results=[pb.ReadResult()])))
        assert kept() is None
    finally:
        gc.enable()


def test_reads_travel_as_reads(sent: Sent) -> None:
    sent.read("t")
    sent.lane.flush()
    result = pb.ReadResult(omitted=True)
    sent.batches[0].answer(pb.SessionResponse(read=pb.ReadResponse(results=[result])))

    assert sent.names == [["t"]]
    assert sent.outcome("t") == result


def test_reads_for_which_nobody_waits_are_cancelled_once_and_together(sent: Sent) -> None:
    first, second = sent.read("first"), sent.read("second")
    sent.lane.flush()

    sent.lane.give_up(first)
    assert sent.batches[0].cancelled == 0, "its neighbour waits"
    sent.lane.give_up(second)
    sent.lane.give_up(second)
    assert sent.batches[0].cancelled == 1


def test_what_was_answered_is_not_cancelled(sent: Sent) -> None:
    ticket = sent.read("t")
    sent.lane.flush()
    sent.batches[0].answer(pb.SessionResponse(read=pb.ReadResponse(results=[pb.ReadResult()])))
    sent.lane.give_up(ticket)

    assert sent.batches[0].cancelled == 0


def test_what_was_asked_to_be_stored_runs_on(sent: Sent) -> None:
    (ticket,) = sent.submit("a")
    sent.lane.give_up(ticket)

    assert sent.batches[0].cancelled == 0


def test_callers_that_give_up_at_once_cannot_bury_the_server(sent: Sent) -> None:
    for number in range(100):
        sent.lane.give_up(sent.submit(str(number))[0])
    assert len(sent.batches) == MAX_ABANDONED + MAX_IN_FLIGHT

    (waiting,) = sent.submit("patient")
    assert waiting.flight is None

    for batch in sent.batches[:]:
        batch.answer(batch.results())
    assert sent.names[-1] == ["patient"]
    sent.batches[-1].answer(sent.batches[-1].results())
    assert code_of(sent.outcome("patient")) == 0


def test_what_waits_for_company_is_looked_after_when_those_before_it_have_gone(sent: Sent) -> None:
    sent.submit("a", "b")
    ahead = sent.ticket("ahead")
    sent.pending("behind")

    assert sent.lane.lingers_for() is not None
    sent.lane.give_up(ahead)
    assert sent.lane.lingers_for() is not None
