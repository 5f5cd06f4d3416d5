"""Flights: batches under way, and the tickets of the operations in them.

No I/O here, and no lock: a lane guards its flights.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from google.protobuf.message import Message
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import store_pb2

from tenure_client.calls import Call
from tenure_client.errors import TenureError, UnreadableValue
from tenure_client.statuses import from_status

LINGER = 0.002
"""Seconds that pending writes wait for company. LangGraph stores what a task wrote just before it stores the
next checkpoint, which would otherwise follow in a batch of its own: a fifth of the work of a lone turn."""
PATIENCE = 0.02
"""Seconds that they wait while a batch is under way: the next checkpoint is stored when it is answered."""
OVERHEAD = 96
"""Bytes that an operation takes in its batch beside its own, at most: its place, its time, its trace."""

Outcome = Any
"""A result of the batch, or a TenureError."""


class Ticket:
    """One operation in a lane.

    Args:
        call: What to send.
        deadline: `time.monotonic()` until which somebody waits for the outcome.
        tell: Called once with the outcome, on whichever thread learns it.
        lead: Called when its thread, which waits for room in the lane, is to flush for all when a hold ends.

    Attributes:
        lingers: Whether it may wait a moment for company.
        flight: The batch with which it left.
        settled: Whether nobody waits for the outcome any more.
    """

    __slots__ = ("call", "deadline", "flight", "lead", "leaves_at", "lingers", "settled", "size", "tell")

    def __init__(
        self,
        call: Call,
        deadline: float,
        tell: Callable[[Outcome], None],
        lead: Callable[[], None] = lambda: None,
    ) -> None:
        self.call = call
        self.deadline = deadline
        self.tell = tell
        self.lead = lead
        self.size = call.size + OVERHEAD
        self.flight: Flight | None = None
        self.settled = False
        request = call.request
        self.lingers = type(request) is pb.Mutation and request.HasField("put_writes")
        self.leaves_at = time.monotonic() + LINGER if self.lingers else 0.0

    def waits(self) -> bool:
        """Whether it still waits for company; whoever added it flushes every `LINGER` seconds meanwhile."""
        return self.flight is None and time.monotonic() < self.leaves_at + PATIENCE + LINGER


def _nothing() -> None:
    pass


class Flight:
    """A batch under way.

    Attributes:
        left_at: `time.monotonic()` when it was sent.
        tickets: Its operations.
        waiting: How many of them somebody waits for.
        slow: Whether the server has said that it takes longer.
        holds_place: Whether it counts among those that a lane may have under way.
        over: Whether further answers are ignored.
        abandoned: Whether it is over because nobody waits any more, and the server is not done with it.
        cancel: Tells the server so.
    """

    __slots__ = (
        "_in_order",
        "_told",
        "abandoned",
        "cancel",
        "holds_place",
        "left_at",
        "over",
        "slow",
        "tickets",
        "waiting",
    )

    def __init__(self, tickets: Sequence[Ticket]) -> None:
        self.left_at = time.monotonic()
        self.tickets = tickets
        self.waiting = len(tickets)
        self.slow = False
        self.holds_place = True
        self.over = False
        self.abandoned = False
        self.cancel: Callable[[], None] = _nothing
        self._in_order: list[Message] = []
        self._told: set[int] = set()

    def answered(self, answer: Any) -> list[tuple[Ticket, Outcome]]:
        """Take an answer or a part of one, and return who is to be told what."""
        if isinstance(answer, TenureError):
            return self._failed(answer)
        whole = getattr(answer, answer.WhichOneof("outcome") or "", None)
        if not isinstance(whole, (pb.WriteResponse, pb.ReadResponse, store_pb2.BatchResponse)):
            error = from_status(answer.status) or UnreadableValue("the server sent an empty answer")
            return self._failed(error)
        if answer.positions:
            outcomes = self._told_apart(answer.positions, whole.results)
            return outcomes if answer.more else outcomes + self._incomplete()
        self._in_order += whole.results
        if answer.more:
            self.slow = self.slow or not whole.results
            return []
        if self._told or len(self._in_order) != len(self.tickets):
            return self._incomplete()
        return self._end(zip(self.tickets, self._in_order, strict=True))

    def give_up(self, ticket: Ticket) -> None:
        """Leave out an operation for which nobody waits any more."""
        self._settle([(ticket, None)])
        if self.waiting == 0:
            self._end([])

    def _told_apart(
        self, positions: Sequence[int], results: Sequence[Message]
    ) -> list[tuple[Ticket, Outcome]]:
        told = self._told.union(positions)
        twice = len(told) != len(self._told) + len(positions)
        if twice or len(results) != len(positions) or max(told) >= len(self.tickets):
            return self._failed(UnreadableValue("the server sent results that cannot be told apart"))
        self._told, self.slow = told, True
        return self._settle(zip((self.tickets[at] for at in positions), results, strict=True))

    def _incomplete(self) -> list[tuple[Ticket, Outcome]]:
        count = len(self._told) + len(self._in_order)
        return self._failed(
            UnreadableValue(f"the server sent {count} results for {len(self.tickets)} operations")
        )

    def _failed(self, error: TenureError) -> list[tuple[Ticket, Outcome]]:
        """End the flight; whoever has not been told is told this."""
        # One for each: an exception that several callers raise would collect all their tracebacks.
        return self._end([(one, copy.copy(error)) for one in self.tickets if not one.settled])

    def _end(self, outcomes: Iterable[tuple[Ticket, Outcome]]) -> list[tuple[Ticket, Outcome]]:
        wanted = self._settle(outcomes)
        self.over = True
        # A ticket knows its flight: requests and results would stay until the collector finds the circle.
        self.tickets, self._in_order = (), []
        return wanted

    def _settle(self, outcomes: Iterable[tuple[Ticket, Outcome]]) -> list[tuple[Ticket, Outcome]]:
        """Return those of the outcomes that somebody waits for."""
        wanted = [(ticket, outcome) for ticket, outcome in outcomes if not ticket.settled]
        for ticket, _ in wanted:
            ticket.settled = True
        self.waiting -= len(wanted)
        return wanted
