"""What operations are told when the answer to their batch comes in parts; no server, no time."""

from __future__ import annotations

from typing import Any

import pytest
from google.rpc import status_pb2
from tenure.v1 import checkpoints_pb2 as pb
from tenure_client import errors

from tests.unit.client.sending import Batch, Sent

LOST = errors.Unavailable("the connection was lost", maybe_applied=True)


@pytest.fixture
def sent() -> Sent:
    return Sent()


def code_of(outcome: pb.MutationResult) -> int:
    return outcome.status.code


def crowd(sent: Sent) -> Batch:
    """Send a batch of c, d and e."""
    for name in "cde":
        sent.ticket(name)
    sent.lane.flush()
    return sent.batches[-1]


def part(batch: Batch, *positions: int, more: bool = True, codes: tuple[int, ...] = ()) -> pb.SessionResponse:
    """Return a part with the results of these positions; each has its position as its code."""
    answer = (
        batch.results(*(codes or positions)) if positions else pb.SessionResponse(write=pb.WriteResponse())
    )
    answer.positions.extend(positions)
    answer.more = more
    return answer


def told_by_now(sent: Sent) -> dict[str, list[int]]:
    return {name: [code_of(one) for one in sent.outcomes[name]] for name in "cde"}


def test_a_part_with_positions_is_told_at_once(sent: Sent) -> None:
    batch = crowd(sent)

    batch.answer(part(batch, 2))
    assert told_by_now(sent) == {"c": [], "d": [], "e": [2]}
    batch.answer(part(batch, 1))
    assert told_by_now(sent) == {"c": [], "d": [1], "e": [2]}
    batch.answer(part(batch, 0, more=False))
    assert told_by_now(sent) == {"c": [0], "d": [1], "e": [2]}


def test_a_last_part_may_bring_nothing_new(sent: Sent) -> None:
    batch = crowd(sent)
    batch.answer(part(batch, 2, 0, 1))
    batch.answer(part(batch, more=False))

    assert told_by_now(sent) == {"c": [0], "d": [1], "e": [2]}


def test_a_batch_of_which_nothing_is_known_may_be_answered_whole_later(sent: Sent) -> None:
    batch = crowd(sent)
    batch.answer(part(batch))
    assert told_by_now(sent) == {"c": [], "d": [], "e": []}
    batch.answer(batch.results(0, 1, 2))

    assert told_by_now(sent) == {"c": [0], "d": [1], "e": [2]}


@pytest.mark.parametrize("first", [(), (1,)], ids=["without results", "with a result"])
def test_the_first_part_frees_the_place_of_a_batch_once(sent: Sent, first: tuple[int, ...]) -> None:
    crowd(sent)
    crowd(sent)
    sent.submit("f", "g")
    assert len(sent.batches) == 2
    for batch in sent.batches[:2]:
        batch.answer(part(batch, *first))
    assert sent.names[2:] == [["f", "g"]], "busy threads hold up nobody"

    sent.submit("h", "i")
    assert sent.names[3:] == [["h"]]
    for batch in sent.batches[:2]:
        batch.answer(part(batch, 0))
        batch.answer(part(batch, *({0, 1, 2} - {0, *first}), more=False))
    assert len(sent.batches) == 4, "further parts free no second place"
    sent.batches[2].answer(sent.batches[2].results())
    assert sent.names[4:] == [["i"]]


@pytest.mark.parametrize(
    ("positions", "codes"), [((1,), ()), ((0, 0), ()), ((0, 3), ()), ((0, 2), (0,))], ids=str
)
def test_results_that_belong_to_no_operation_fail_those_that_were_not_told(
    sent: Sent, positions: tuple[int, ...], codes: tuple[int, ...]
) -> None:
    batch = crowd(sent)
    batch.answer(part(batch, 1))
    batch.answer(part(batch, *positions, codes=codes))
    batch.answer(part(batch, 0, 2, more=False))

    assert code_of(sent.outcome("d")) == 1
    assert all(isinstance(sent.outcome(name), errors.UnreadableValue) for name in "ce")


@pytest.mark.parametrize("last", [(), (0,)], ids=["no result", "too few"])
def test_operations_that_the_last_part_leaves_out_fail(sent: Sent, last: tuple[int, ...]) -> None:
    batch = crowd(sent)
    batch.answer(part(batch, 1))
    batch.answer(part(batch, *last, more=False))

    left = [name for at, name in enumerate("cde") if at not in (1, *last)]
    assert all(isinstance(sent.outcome(name), errors.UnreadableValue) for name in left)
    assert code_of(sent.outcome("d")) == 1


@pytest.mark.parametrize(
    "failure", [LOST, pb.SessionResponse(status=status_pb2.Status(code=14))], ids=["lost", "refused"]
)
def test_a_failure_after_a_part_fails_only_those_that_were_not_told(sent: Sent, failure: Any) -> None:
    batch = crowd(sent)
    batch.answer(part(batch, 1))
    batch.answer(failure)

    assert code_of(sent.outcome("d")) == 1
    assert all(isinstance(sent.outcome(name), errors.Unavailable) for name in "ce")
    sent.submit("f", "g", "h")
    assert sent.names[1:] == [["f"], ["g"]], "its place is freed once"


def test_giving_up_what_the_parts_have_left_ends_the_batch_and_frees_nothing_more(sent: Sent) -> None:
    tickets = [sent.ticket(name) for name in "cde"]
    sent.lane.flush()
    batch = sent.batches[0]
    batch.answer(part(batch, 1))
    for ticket in tickets:
        sent.lane.give_up(ticket)
    batch.answer(part(batch, 0, 2, more=False))

    assert told_by_now(sent) == {"c": [], "d": [1], "e": []}
    sent.submit("f", "g", "h")
    assert sent.names[1:] == [["f"], ["g"]]
