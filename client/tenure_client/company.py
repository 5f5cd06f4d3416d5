"""Company: threads that were answered together, and that may ask together again.

The tasks of an event loop come back in one tick, and one batch carries what they ask next. Threads come back
one by one: the first one would leave alone, and crowds would fall into batches of one and two, whose price
is almost that of a full one. No I/O here, and no waiting but in `wait`.
"""

from __future__ import annotations

import threading
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
    """What a lane knows of the threads that use it. Nobody waits for any before they came back in time once.

    The lane's lock guards all but `wait`.

    Args:
        clock: Returns the time in seconds.

    Attributes:
        close: Whether all threads that were answered last asked again at once. Another batch under way would
            only part them.
        awaited: Whether the thread that brought an answer waits for them, and will send what they ask.
    """

    __slots__ = ("_all_back", "_answered_at", "_clock", "_due", "_patience", "awaited", "close")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.close = False
        self.awaited = False
        self._due = 0
        self._answered_at = 0.0
        self._patience = 0.0
        self._all_back = threading.Event()

    def answered(self, count: int, pending: int, took: float) -> bool:
        """Note that threads are about to be told their outcomes.

        Args:
            count: How many.
            pending: Operations that wait in the lane meanwhile.
            took: Seconds since their batch left.

        Returns:
            Whether whoever tells them shall `wait` for them.
        """
        lone = count + pending < 2
        if lone or self._due:
            self.close = False
        self._due = 0 if lone else max(min(count, CROWD - pending), 0)
        self._answered_at = self._clock()
        self._patience = min(_SHARE * took, _MOST)
        self.awaited = self.close and self._due > 0
        if self.awaited:
            self._all_back.clear()
        return self.awaited

    def joined(self) -> None:
        """Note that an operation was put into the lane."""
        if self._due:
            self._due -= 1
            if not self._due:
                self.close = self._clock() < self._answered_at + self._patience
                self._all_back.set()

    def wait(self) -> None:
        """Wait until the threads are back, or have had the time for it."""
        self._all_back.wait(self._patience)
