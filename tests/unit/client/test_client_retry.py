"""When an attempt is repeated, and what is said when none succeeds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenure.v1 import checkpoints_pb2 as pb
from tenure_client import calls, errors, operations
from tenure_client.calls import Call
from tenure_client.held import HeldValues
from tenure_client.retry import BASE, CAP, Budget, Sleep, steps
from tenure_client.tracing import Operation

from tests.harness.clock import Clock

LOST = errors.Unavailable("connection lost", maybe_applied=True)
NEVER_SENT = errors.Unavailable("nobody listens")
NO_ANSWER = errors.DeadlineExceeded("no answer", maybe_applied=True)
REFUSED = errors.DeadlineExceeded("too late, not applied")


def budget(clock: Clock, jitter: float = 1.0, timeout: float = 10.0) -> Budget:
    return Budget(timeout, clock=clock, jitter=lambda: jitter)


def play(plan: Any, outcomes: list[Any], timeout: float = 10.0) -> tuple[Any, list[Any]]:
    """Drive a plan with given outcomes of its attempts; return its value and the steps taken."""
    clock = Clock()
    moves = steps(plan, budget(clock, timeout=timeout), Operation("00-trace"))
    taken: list[Any] = []
    outcome: Any = None
    try:
        while True:
            step = moves.send(outcome)
            taken.append(step)
            if isinstance(step, Sleep):
                clock.now += step.seconds
                outcome = None
            else:
                outcome = outcomes.pop(0)
    except StopIteration as done:
        return done.value, taken


def deletion() -> Any:
    return operations.delete_thread("t", HeldValues())


def reading() -> Any:
    return calls.read(pb.CheckpointRead(ref=pb.CheckpointRef(thread_id="t")))


def test_pauses_grow_up_to_a_cap() -> None:
    clock = Clock()
    time = budget(clock, timeout=1000)
    pauses = []
    for _ in range(10):
        time.begin_attempt()
        pauses.append(time.pause_after(LOST))

    assert pauses[:3] == [BASE, BASE * 2, BASE * 4]
    assert pauses[-1] == CAP


@given(st.floats(0, 1), st.integers(1, 30))
def test_jitter_is_full(jitter: float, attempts: int) -> None:
    time = budget(Clock(), jitter, timeout=1000)
    time.attempts = attempts

    pause = time.pause_after(LOST)

    assert pause == jitter * min(CAP, BASE * 2 ** (attempts - 1))


def test_the_server_says_how_long_to_wait() -> None:
    time = budget(Clock(), jitter=0)
    time.begin_attempt()

    assert time.pause_after(errors.Overloaded("busy", retry_after=3)) == 3
    assert time.pause_after(errors.QuotaExceeded("used up", retry_after=2)) == 2


def test_no_pause_reaches_beyond_the_deadline() -> None:
    time = budget(Clock(), jitter=0)
    time.begin_attempt()

    assert time.pause_after(errors.QuotaExceeded("used up", retry_after=10)) is None


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidRequest("no"),
        errors.Unauthenticated("no"),
        errors.ThreadExists("no"),
        errors.QuotaExceeded("no word when to come back"),
        errors.Overloaded("no word when to come back"),
        errors.ServerError("no"),
        REFUSED,
    ],
)
def test_what_a_repeat_cannot_mend_is_not_repeated(error: errors.TenureError) -> None:
    with pytest.raises(type(error)) as raised:
        play(deletion(), [error])

    assert raised.value is error


def test_attempts_share_one_id_and_are_told_the_time_left() -> None:
    seen = []
    clock = Clock()
    moves = steps(deletion(), budget(clock), Operation("00-trace"))
    outcome: Any = None
    for _ in range(5):
        step = moves.send(outcome)
        outcome = None
        if isinstance(step, Call):
            operation = step.operation
            seen.append((bytes(operation.operation_id), operation.timeout_ms, operation.traceparent))
            clock.now += 3
            outcome = errors.Conflict("again")

    assert len({operation_id for operation_id, _, _ in seen}) == 1
    assert [timeout for _, timeout, _ in seen] == [9800, 6800, 3800]
    assert {traceparent for _, _, traceparent in seen} == {"00-trace"}


def test_a_repeat_that_succeeds_returns_the_value() -> None:
    value, taken = play(reading(), [LOST, pb.ReadResult()])

    assert value == pb.ReadResult()
    assert [type(step) for step in taken] == [Call, Sleep, Call]


@pytest.mark.parametrize("last", [LOST, NO_ANSWER])
def test_a_change_without_a_last_word_has_an_unknown_outcome(last: errors.TenureError) -> None:
    with pytest.raises(errors.OutcomeUnknown, match="repeating the operation is safe"):
        play(deletion(), [last] * 100, timeout=1)


def test_a_change_that_may_have_been_applied_before_stays_unknown() -> None:
    with pytest.raises(errors.OutcomeUnknown):
        play(deletion(), [LOST] + [NEVER_SENT] * 100, timeout=1)


def test_a_change_that_was_never_sent_is_known_not_to_be_applied() -> None:
    with pytest.raises(errors.Unavailable):
        play(deletion(), [NEVER_SENT] * 100, timeout=1)


def test_a_change_that_the_server_refused_in_time_is_known_not_to_be_applied() -> None:
    with pytest.raises(errors.DeadlineExceeded):
        play(deletion(), [REFUSED])


def test_a_definite_answer_to_a_repeat_is_the_answer() -> None:
    with pytest.raises(errors.InvalidRequest):
        play(deletion(), [LOST, errors.InvalidRequest("no")])


@pytest.mark.parametrize("last", [LOST, NO_ANSWER])
def test_a_read_never_has_an_unknown_outcome(last: errors.TenureError) -> None:
    with pytest.raises(type(last)):
        play(reading(), [last] * 100, timeout=1)


def test_a_plan_may_answer_an_error_with_another_call() -> None:
    """Such as a value that is told whole when what it was told against is gone."""

    def plan() -> Any:
        try:
            yield calls.write(pb.Mutation())
        except errors.ChunksMissing:
            yield from reading()
            return "told otherwise"

    value, taken = play(plan(), [errors.ChunksMissing("gone"), LOST, pb.ReadResult()])

    assert value == "told otherwise"
    assert [step.method for step in taken if isinstance(step, Call)] == ["Write", "Read", "Read"]


def test_no_attempt_starts_after_the_deadline() -> None:
    clock = Clock()
    time = budget(clock)
    clock.now += 10

    with pytest.raises(errors.DeadlineExceeded):
        time.begin_attempt()


@pytest.mark.parametrize(
    ("plan", "failure", "told"),
    [
        (deletion, LOST, errors.OutcomeUnknown),
        (deletion, NEVER_SENT, errors.Unavailable),
        (reading, LOST, errors.Unavailable),
    ],
    ids=["change that may have been applied", "change that was not", "read"],
)
def test_after_a_pause_that_takes_too_long_the_last_attempt_has_the_last_word(
    plan: Any, failure: errors.TenureError, told: type[errors.TenureError]
) -> None:
    clock = Clock()
    moves = steps(plan(), budget(clock), Operation("00-trace"))
    next(moves)
    assert isinstance(moves.send(failure), Sleep)
    clock.now += 60

    with pytest.raises(told, match=failure.message):
        moves.send(None)
