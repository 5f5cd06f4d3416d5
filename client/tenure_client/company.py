"""Company: threads that were answered together, and that may ask together again.

The tasks of an event loop come back in one tick, and one batch carries what they ask next. Threads come back
one by one: the first one would leave alone, and crowds would fall into batches of one and two, whose price
is almost that of a full one. So threads that have come back at once are given a moment to do so again.

No I/O and no waiting here: a lane asks whether to hold its operations, which the lane's lock guards. A hold
ends by itself, since it is a time, and whoever waits in the lane flushes it then.
"""

from __future__ import annotations

import time
from collections.abc import Callable

CROWD = 8
"""Operations that do not wait for more: they share the price of a batch well enough."""
_SHARE = 0.25
"""Of the time that the last batch took, how long its threads are waited for: on a busy machine it takes
them longer to come back, and a wait is a small part of what an operation takes there."""
_MOST = 0.005
"""Seconds that they are waited for at most."""


class Company:
    """What a lane knows of the threads that use it. None is waited for before all came back in time once.

    Args:
        clock: Returns the time in seconds.
    """

    __slots__ = ("_clock", "_close", "_due", "_until")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._close = False
        self._due = 0
        self._until = 0.0

    def answered(self, count: int, pending: int, took: float) -> None:
        """Note that threads are about to be told their outcomes.

        Args:
            count: How many.
            pending: Operations that wait in the lane meanwhile.
            took: Seconds since their batch left.
        """
        lone = count + pending < 2
        if lone or self._due:
            self._close = False
        self._due = 0 if lone else max(min(count, CROWD - pending), 0)
        self._until = self._clock() + min(_SHARE * took, _MOST)

    def joined(self) -> None:
        """Note that an operation was put into the lane."""
        if self._due:
            self._due -= 1
            if not self._due:
                self._close = self._clock() < self._until

    def part(self) -> None:
        """Expect nobody: those who were told have failed, and wait before they try again."""
        self._close = False
        self._due = 0

    def holds_for(self) -> float:
        """Return the seconds for which operations wait for those who are due, 0 if they do not."""
        return max(self._until - self._clock(), 0.0) if self._close and self._due else 0.0

    @property
    def close(self) -> bool:
        """Whether those who are answered together ask again at once.

        Another batch under way would only part them.
        """
        return self._close and (not self._due or self._clock() < self._until)
