"""How callers wait for operations that travel in a lane: threads by a queue, tasks by a future."""

from __future__ import annotations

import asyncio
import queue
import time
from contextlib import suppress
from functools import partial
from typing import Any

from tenure_client.calls import Call
from tenure_client.flights import LINGER, Outcome, Ticket
from tenure_client.lanes import Lane

_GLANCE = 1.0
"""Seconds between two looks at the deadlines, at most: so long a timer keeps a connection that was closed."""
_LEAD: Outcome = object()
"""In place of an outcome: flush the lane when its hold is over."""


class ThreadRides:
    """Rides of threads, each of which waits for itself.

    Args:
        lane: Where the operations travel.
    """

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    def ride(self, call: Call) -> Any:
        """Send an operation and return its outcome, at `call.timeout` that it is late."""
        lane = self._lane
        arrived: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        ticket = Ticket(call, time.monotonic() + call.timeout, arrived.put, partial(arrived.put, _LEAD))
        lane.add(ticket)
        try:
            while (left := ticket.deadline - time.monotonic()) > 0:
                lane.flush()
                pause = lane.flushes_after(ticket)
                with suppress(queue.Empty):
                    outcome = arrived.get(timeout=left if pause is None else min(pause, left))
                    if outcome is not _LEAD:
                        return outcome
        except BaseException:
            lane.give_up(ticket)
            raise
        late = lane.give_up(ticket)
        while not arrived.empty():
            if (outcome := arrived.get()) is not _LEAD:
                return outcome
        return late


class TaskRides:
    """Rides of the tasks of one event loop; they share a flush for each tick and a timer for all deadlines.

    Args:
        loop: The loop.
        lane: Where the operations travel; no other loop uses it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, lane: Lane) -> None:
        self._loop = loop
        self._lane = lane
        self._waiting: set[Ticket] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self._nudging = False

    async def ride(self, call: Call) -> Any:
        """Send an operation and return its outcome, at `call.timeout` that it is late."""
        arrived: asyncio.Future[Outcome] = self._loop.create_future()
        now = time.monotonic()
        ticket = Ticket(call, now + call.timeout, partial(_tell, arrived))
        if self._lane.add(ticket):
            # What other tasks submit in this tick travels along.
            self._loop.call_soon(self._lane.flush)
        if ticket.leaves_at and not self._nudging:
            self._nudge_after(LINGER)
        self._waiting.add(ticket)
        if self._alarm is None or ticket.deadline < self._alarm_at:
            self._set_alarm(ticket.deadline, now)
        try:
            return await arrived
        except asyncio.CancelledError:
            self._lane.give_up(ticket)
            raise
        finally:
            self._waiting.remove(ticket)

    def _nudge_after(self, seconds: float) -> None:
        self._nudging = True
        self._loop.call_later(seconds, self._nudge)

    def _nudge(self) -> None:
        """Flush as long as something waits for company."""
        self._nudging = False
        self._lane.flush()
        left = self._lane.lingers_for()
        if left is not None:
            self._nudge_after(left)

    def _set_alarm(self, deadline: float, now: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = min(deadline, now + _GLANCE)
        self._alarm = self._loop.call_later(self._alarm_at - now, self._look)

    def _look(self) -> None:
        """Give up what is late, and look again when the next may be."""
        self._alarm = None
        now = time.monotonic()
        left: list[float] = []
        for ticket in self._waiting:
            if ticket.deadline > now:
                left.append(ticket.deadline)
            else:
                # Each by itself: giving up may send what else waits, which may fail.
                self._loop.call_soon(self._give_up, ticket)
        if left:
            self._set_alarm(min(left), now)

    def _give_up(self, ticket: Ticket) -> None:
        ticket.tell(self._lane.give_up(ticket))


def _tell(arrived: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not arrived.done():
        arrived.set_result(outcome)
