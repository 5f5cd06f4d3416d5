"""Lanes: operations that are ready together travel together.

A lane sends batches, at most two at a time. Whatever is submitted while those are under way leaves in the
next one, so that a lone operation never waits and a crowd shares the price of a call. There is one lane for
writes and one for reads in each process, for blocking callers, and in each event loop.

No I/O and no waiting here: a `Ticket` is told the outcome, and whoever submitted it waits in its own way and
for its own time. So a caller that gives up neither cancels nor delays its neighbours.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from google.protobuf.message import Message
from tenure.v1 import checkpoints_pb2 as pb

from tenure_client.calls import MAX_UNARY_REQUEST, Call
from tenure_client.errors import DeadlineExceeded, TenureError, Unavailable, UnreadableValue, from_status
from tenure_client.retry import wanted_ms

MAX_IN_FLIGHT = 2
"""Batches of one lane at a time. With one, the server would idle while the answer travels; with more,
batches become smaller without being answered sooner."""
MAX_OPERATIONS = 256
_OVERHEAD = 16
"""Bytes that an operation takes in its batch beside its own, at most."""

Outcome = Any
"""A result of the batch, or a TenureError."""


class Ticket:
    """One operation in a lane.

    Args:
        call: What to send.
        deadline: `time.monotonic()` until which somebody waits for the outcome.
        tell: Called once with the outcome, on whichever thread learns it.
    """

    __slots__ = ("call", "deadline", "flight", "size", "tell")

    def __init__(self, call: Call, deadline: float, tell: Callable[[Outcome], None]) -> None:
        self.call = call
        self.deadline = deadline
        self.tell = tell
        self.size = call.size + _OVERHEAD
        self.flight: _Flight | None = None


class _Flight:
    """A batch under way.

    Attributes:
        tickets: Its operations, None in place of those that nobody waits for any more.
        waiting: How many are left.
    """

    __slots__ = ("over", "results", "tickets", "waiting")

    def __init__(self, tickets: Sequence[Ticket]) -> None:
        self.tickets = tickets
        self.waiting = len(tickets)
        self.results: list[Message] = []
        self.over = False


class Lane:
    """Operations of one kind on their way to the server; safe to use from any thread.

    Args:
        send: Sends a batch and sees to it that its second argument is called with each part of the answer,
            or once with a TenureError.
    """

    def __init__(self, send: Callable[[pb.SessionRequest, Callable[[Any], None]], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._pending: deque[Ticket] = deque()
        self._in_flight = 0

    def add(self, ticket: Ticket) -> None:
        """Put an operation into the lane; it leaves with the next `flush`."""
        with self._lock:
            self._pending.append(ticket)

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        while (flight := self._take()) is not None:
            request = _request(flight.tickets)
            try:
                self._send(request, partial(self._answered, flight))
            except TenureError as error:
                self._answered(flight, error)
            except BaseException as error:
                # Whatever interrupts this caller, the others must not wait for a batch that nobody sends.
                problem = f"sending was interrupted: {type(error).__name__}"
                self._answered(flight, Unavailable(problem, maybe_applied=True))
                raise

    def give_up(self, ticket: Ticket) -> TenureError:
        """Take an operation out for which nobody waits any more, and return what became of it."""
        freed = False
        with self._lock:
            flight = ticket.flight
            if flight is None:
                if ticket in self._pending:
                    self._pending.remove(ticket)
                return DeadlineExceeded("the operation was not sent in time; raise timeout=")
            flight.waiting -= 1
            if flight.waiting == 0 and not flight.over:
                # Nobody cares for this batch: its place is free, its answer will be ignored.
                flight.over = freed = True
                self._in_flight -= 1
        if freed:
            self.flush()
        return DeadlineExceeded("the server did not answer in time; raise timeout=", maybe_applied=True)

    def _take(self) -> _Flight | None:
        with self._lock:
            if not self._pending or self._in_flight >= MAX_IN_FLIGHT:
                return None
            batch = [self._pending.popleft()]
            room = MAX_UNARY_REQUEST - batch[0].size
            while self._pending and len(batch) < MAX_OPERATIONS and self._pending[0].size <= room:
                batch.append(self._pending.popleft())
                room -= batch[-1].size
            flight = _Flight(batch)
            for ticket in batch:
                ticket.flight = flight
            self._in_flight += 1
            return flight

    def _answered(self, flight: _Flight, answer: Any) -> None:
        outcomes: Sequence[Outcome]
        if isinstance(answer, TenureError):
            # One for each: an exception that several callers raise would collect all their tracebacks.
            outcomes = [copy.copy(answer) for _ in flight.tickets]
        else:
            whole = getattr(answer, answer.WhichOneof("outcome") or "", None)
            if isinstance(whole, (pb.WriteResponse, pb.ReadResponse)):
                flight.results += whole.results
                if answer.more:
                    return
                outcomes = flight.results
                if len(outcomes) != len(flight.tickets):
                    problem = f"the server sent {len(outcomes)} results for {len(flight.tickets)} operations"
                    outcomes = [UnreadableValue(problem) for _ in flight.tickets]
            else:
                error = from_status(answer.status) or UnreadableValue("the server sent an empty answer")
                outcomes = [copy.copy(error) for _ in flight.tickets]
        with self._lock:
            if flight.over:
                return
            flight.over = True
            self._in_flight -= 1
        try:
            self.flush()
        finally:
            for ticket, outcome in zip(flight.tickets, outcomes, strict=True):
                ticket.tell(outcome)


def _request(tickets: Sequence[Ticket]) -> pb.SessionRequest:
    now = time.monotonic()
    for ticket in tickets:
        # Waiting in the lane has taken some of the time.
        ticket.call.operation.timeout_ms = wanted_ms(max(ticket.deadline - now, 0.0))
    # Filled in place: each message that is nested by a constructor would be copied once more.
    request = pb.SessionRequest()
    for ticket in tickets:
        if isinstance(ticket.call.request, pb.Mutation):
            request.write.mutations.append(ticket.call.request)
        else:
            request.read.reads.append(cast("pb.CheckpointRead", ticket.call.request))
    return request
