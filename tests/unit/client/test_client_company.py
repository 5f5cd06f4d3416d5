"""Threads that are answered together travel together, once they have come back in time; no real threads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tenure_client import errors
from tenure_client.company import CROWD, Company

from tests.unit.client.sending import Sent


class Watched(Company):
    """Company whose test says what happens while threads are waited for.

    Attributes:
        now: Seconds on its clock.
        meanwhile: What happens; None = nobody may be waited for.
    """

    def __init__(self) -> None:
        super().__init__(lambda: self.now)
        self.now = 0.0
        self.meanwhile: Callable[[], None] | None = None
        self.waits = 0

    def wait(self) -> None:
        self.waits += 1
        assert self.meanwhile is not None, "somebody is waited for"
        self.meanwhile()


@pytest.fixture
def company() -> Watched:
    return Watched()


@pytest.fixture
def sent(company: Watched) -> Sent:
    return Sent(company)


def answer(sent: Sent, at: int) -> None:
    """Answer a batch, which can have taken no time: whoever comes back before time goes on is in time."""
    sent.batches[at].answer(sent.batches[at].results())


def submit(sent: Sent, *names: str) -> None:
    sent.submit(*names)


@pytest.fixture
def close(sent: Sent) -> Sent:
    """Return a lane that four threads use; the first to be answered came back at once."""
    sent.submit("a", "b", "c", "d")
    answer(sent, 0)
    sent.submit("a")
    assert sent.names == [["a"], ["b"], ["c", "d"]]
    return sent


def test_nobody_waits_before_threads_have_come_back_at_once(sent: Sent) -> None:
    sent.submit("a", "b", "c", "d")
    answer(sent, 0)
    assert sent.names == [["a"], ["b"], ["c", "d"]]
    answer(sent, 1)
    answer(sent, 2)


def test_threads_that_come_back_at_once_are_waited_for_and_travel_together(
    close: Sent, company: Watched
) -> None:
    company.meanwhile = lambda: submit(close, "b")
    answer(close, 1)
    company.meanwhile = lambda: submit(close, "c", "d")
    answer(close, 2)

    assert close.names[3:] == [["a", "b", "c", "d"]]


def test_threads_that_are_close_have_one_batch_under_way(close: Sent, company: Watched) -> None:
    company.meanwhile = lambda: submit(close, "b")

    answer(close, 1)

    assert close.names[3:] == [], "the batch of c and d is still under way"


def test_a_crowd_does_not_wait_for_the_batch_under_way(close: Sent, company: Watched) -> None:
    company.meanwhile = lambda: submit(close, "b")
    answer(close, 1)

    others = [f"more {number}" for number in range(CROWD)]
    close.submit(*others)

    assert close.names[3:] == [["a", "b", *others[: CROWD - 2]]]


def test_what_others_ask_while_threads_are_waited_for_leaves_when_the_wait_is_over(
    close: Sent, company: Watched
) -> None:
    company.meanwhile = lambda: None
    answer(close, 1)
    answer(close, 2)

    assert close.names[3:] == [["a"]]
    assert company.waits == 1, "who has not come back in time once is not waited for again"
    assert close.names == [["a"], ["b"], ["c", "d"], ["a"]]


def test_threads_that_come_back_late_are_not_waited_for(sent: Sent, company: Watched) -> None:
    sent.submit("a", "b", "c", "d")
    answer(sent, 0)
    company.now += 1
    sent.submit("a")

    answer(sent, 1)
    answer(sent, 2)

    assert company.waits == 0


def test_a_lone_thread_is_never_waited_for(sent: Sent, company: Watched) -> None:
    for number in range(20):
        sent.submit("a")
        answer(sent, number)

    assert company.waits == 0


def test_a_thread_that_is_alone_again_leaves_at_once(close: Sent, company: Watched) -> None:
    company.meanwhile = lambda: submit(close, "b")
    answer(close, 1)
    company.meanwhile = lambda: None
    answer(close, 2)
    company.meanwhile = None
    for at in range(3, 6):
        answer(close, at)
        close.submit("a")

    assert close.names[3:] == [["a", "b"], ["a"], ["a"], ["a"]]


def test_nobody_is_waited_for_after_a_batch_was_lost(close: Sent, company: Watched) -> None:
    close.batches[1].answer(errors.Unavailable("the connection was lost", maybe_applied=True))

    assert company.waits == 0
    assert [close.outcome(name).retryable for name in "b"] == [True]


@pytest.mark.parametrize("pending", [CROWD, CROWD + 20])
def test_nobody_is_waited_for_while_a_crowd_waits(company: Watched, pending: int) -> None:
    company.answered(4, 0, 1)
    for _ in range(4):
        company.joined()
    assert company.close

    assert not company.answered(4, pending, 1)


def test_no_more_are_waited_for_than_make_a_crowd(company: Watched) -> None:
    company.answered(4, CROWD - 2, 1)
    for _ in range(2):
        company.joined()

    assert company.close


def test_a_thread_that_is_answered_alone_parts_them(company: Watched) -> None:
    company.answered(2, 0, 1)
    company.joined()
    company.joined()
    assert company.close

    company.answered(1, 0, 1)
    assert not company.close
    company.joined()
    assert not company.close, "nobody is close to itself"
