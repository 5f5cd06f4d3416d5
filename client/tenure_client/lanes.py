"""Lanes: operations that are ready together travel together.

A lane sends batches, a few at a time. Whatever is submitted while those are under way leaves in the
next one, so that a lone operation never waits and a crowd shares the price of a call. A batch that is held
up, because somebody else holds a thread, is answered in parts, and the next may leave after the first one.
Threads that ask at one time again and again send one batch at a time, and may wait for one another for a
moment, see `company`.
There is one lane each for writes and reads of checkpoints and of items, and for searches, in each process,
for blocking callers, and in each event loop.

No I/O here: a `Ticket` is told the outcome, and whoever submitted it waits in its own way and for its own
time. So a caller that gives up neither cancels nor delays its neighbours.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import store_pb2

from tenure_client.calls import MAX_UNARY_REQUEST
from tenure_client.company import CROWD, Company
from tenure_client.errors import DeadlineExceeded, TenureError, Unavailable
from tenure_client.flights import LINGER, PATIENCE, Flight, Outcome, Ticket
from tenure_client.retry import wanted_ms

MAX_IN_FLIGHT = 2
"""Batches of most lanes at a time. With one, the server would idle while the answer travels; with more,
batches become smaller without being answered sooner."""
MAX_OPERATIONS = 256
_MAX_ABANDONED = 8
"""Batches that nobody waits for any more and that do not count as under way. The server works on them, on
reads until it has heard of it: without a bound, callers that give up quickly would bury it, and their
neighbours with it."""

Send = Callable[[pb.SessionRequest, Callable[[Any], None]], Callable[[], None]]
"""Sends a batch and sees to it that its second argument is called with each part of the answer, or once with
a TenureError. Returns what tells the server that nobody waits for the batch any more."""


class Lane:
    """Operations of one kind on their way to the server; safe to use from any thread.

    Args:
        send: Sends a batch.
        company: If threads use the lane: which of them are waited for.
        max_in_flight: Batches at a time.
    """

    def __init__(
        self, send: Send, company: Company | None = None, max_in_flight: int = MAX_IN_FLIGHT
    ) -> None:
        self._send = send
        self._company = company
        self._max_in_flight = max_in_flight
        self._to_be_flushed = False
        self._lock = threading.Lock()
        self._pending: deque[Ticket] = deque()
        self._in_flight = 0
        self._abandoned = 0
        self._answered_at = 0.0

    def add(self, ticket: Ticket) -> bool:
        """Put an operation into the lane; it leaves with the next `flush`.

        Returns:
            Whether nobody else has added one since the last flush: who flushes for all later may rely on it.
        """
        with self._lock:
            self._pending.append(ticket)
            if self._company is not None:
                self._company.joined()
            first, self._to_be_flushed = not self._to_be_flushed, True
            return first

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        self._to_be_flushed = False
        while (flight := self._take()) is not None:
            request = _request(flight.tickets)
            try:
                flight.cancel = self._send(request, partial(self._answered, flight))
            except TenureError as error:
                self._answered(flight, error)
            except BaseException as error:
                # Whatever interrupts this caller, the others must not wait for a batch that nobody sends.
                problem = f"sending was interrupted: {type(error).__name__}"
                self._answered(flight, Unavailable(problem, maybe_applied=True))
                raise

    def lingers_for(self) -> float | None:
        """Return the seconds after which to flush for what waits for company, None if nothing does."""
        with self._lock:
            first = next((ticket for ticket in self._pending if ticket.waits()), None)
            if first is None:
                return None
            left = first.leaves_at - time.monotonic()
            return left if left > 0 else LINGER

    def flushes_after(self, ticket: Ticket) -> float | None:
        """Return the seconds after which whoever waits for an operation flushes, None if others will."""
        if ticket.flight is not None:
            return None
        if ticket.waits():
            return LINGER
        if self._company is None:
            return None
        with self._lock:
            # A hold may have ended since the last flush. Without room, whoever brings an answer flushes.
            return self._company.holds_for() or (0.0 if self._has_room() else None)

    def give_up(self, ticket: Ticket) -> TenureError:
        """Take an operation out for which nobody waits any more, and return what became of it."""
        with self._lock:
            flight = ticket.flight
            if flight is None:
                if ticket in self._pending:
                    self._pending.remove(ticket)
                if self._company is not None and self._pending:
                    # It may have been the one who was to flush for all.
                    self._pending[0].lead()
                return DeadlineExceeded("the operation was not sent in time; raise timeout=")
            answered = flight.over
            flight.give_up(ticket)
            abandoned = flight.over and not answered
            if abandoned:
                flight.abandoned = True
                self._abandoned += 1
            # If nobody cares for this batch, its place is free and its answer will be ignored.
            freed = self._abandoned <= _MAX_ABANDONED and self._make_room(flight)
        if abandoned and not ticket.call.mutates:
            # What was asked to be stored runs on: whoever asked may have gone in the belief that it would be.
            flight.cancel()
        if freed:
            self.flush()
        return DeadlineExceeded("the server did not answer in time; raise timeout=", maybe_applied=True)

    def _take(self) -> Flight | None:
        with self._lock:
            if not self._pending or not self._has_room() or self._all_linger():
                return None
            batch = [self._pending.popleft()]
            room = MAX_UNARY_REQUEST - batch[0].size
            while self._pending and len(batch) < MAX_OPERATIONS and self._pending[0].size <= room:
                batch.append(self._pending.popleft())
                room -= batch[-1].size
            flight = Flight(batch)
            for ticket in batch:
                ticket.flight = flight
            self._in_flight += 1
            return flight

    def _has_room(self) -> bool:
        company = self._company
        if company is None or len(self._pending) >= CROWD:
            return self._in_flight < self._max_in_flight
        return not company.holds_for() and self._in_flight < (1 if company.close else self._max_in_flight)

    def _leader(self) -> Ticket | None:
        """Return whose thread is to flush when the hold ends: nobody else may come by."""
        held = self._company is not None and self._company.holds_for() and self._pending
        return self._pending[0] if held else None

    def _all_linger(self) -> bool:
        if len(self._pending) >= CROWD or not self._pending[0].leaves_at:
            return False
        now = time.monotonic()
        longer = PATIENCE if self._in_flight or now < self._answered_at + LINGER else 0.0
        return all(ticket.leaves_at + longer > now for ticket in self._pending)

    def _make_room(self, flight: Flight) -> bool:
        """Give the place of a flight to others if it needs none any more; return whether that is new."""
        if not flight.holds_place or not (flight.over or flight.slow):
            return False
        flight.holds_place = False
        self._in_flight -= 1
        return True

    def _answered(self, flight: Flight, answer: Any) -> None:
        with self._lock:
            if flight.abandoned and (isinstance(answer, TenureError) or not answer.more):
                flight.abandoned = False
                self._abandoned -= 1
            if not flight.over:
                outcomes = flight.answered(answer)
            elif flight.abandoned:
                return
            else:
                outcomes = []
            leader = None
            if freed := self._make_room(flight):
                self._answered_at = time.monotonic()
                leader = self._note_company(flight, outcomes)
        try:
            if freed:
                self.flush()
        finally:
            for ticket, outcome in outcomes:
                ticket.tell(outcome)
            if leader is not None:
                leader.lead()

    def _note_company(self, flight: Flight, outcomes: Sequence[tuple[Ticket, Outcome]]) -> Ticket | None:
        """Note who may come back; return whose thread is to flush when they have had the time for it."""
        if self._company is None:
            return None
        if any(isinstance(outcome, TenureError) for _, outcome in outcomes):
            self._company.part()
        else:
            took = self._answered_at - flight.left_at
            self._company.answered(len(outcomes), len(self._pending), took)
        return self._leader()


def _request(tickets: Sequence[Ticket]) -> pb.SessionRequest:
    now = time.monotonic()
    for ticket in tickets:
        # Waiting in the lane has taken some of the time.
        ticket.call.operation.timeout_ms = wanted_ms(max(ticket.deadline - now, 0.0))
    # Filled in place: each message that is nested by a constructor would be copied once more.
    request = pb.SessionRequest()
    kind = type(tickets[0].call.request)  # of all: a lane has one kind
    messages: Any
    if kind is pb.Mutation:
        messages = request.write.mutations
    elif kind is store_pb2.StoreGroup:
        messages = request.store.groups
    else:
        messages = request.read.reads
    messages.extend([ticket.call.request for ticket in tickets])
    return request
