"""How long an operation may take and when a failed attempt is repeated; no I/O.

Full jitter: before attempt n the client waits a random time below `min(CAP, BASE * 2**n)`, plus what the
server asked for. gRPC's own retries are off: they silently stop at requests of 256 KiB.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from tenure_client.calls import Call, Plan, Shape
from tenure_client.errors import DeadlineExceeded, OutcomeUnknown, TenureError

T = TypeVar("T")

BASE = 0.05
CAP = 2.0
_SEND_MARGIN = 0.2
"""Seconds by which the server gives up before the transport does, so that its answer still arrives."""


class Budget:
    """The time one operation may take, over all its attempts.

    Args:
        timeout: Seconds.
        retries: Whether a failed attempt may be repeated.
        clock: Returns the time in seconds.
        jitter: Returns a number from 0 to 1.
    """

    __slots__ = ("_clock", "_deadline", "_jitter", "_retries", "attempts")

    def __init__(
        self,
        timeout: float,
        *,
        retries: bool = True,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._retries = retries
        self._clock = clock
        self._jitter = jitter
        self._deadline = clock() + timeout
        self.attempts = 0

    def extend(self, seconds: float) -> None:
        """Allow more time, for a transfer that is known to be large."""
        self._deadline += seconds

    def begin_attempt(self, verdict: TenureError | None = None) -> float:
        """Count an attempt and return the seconds it may take, more than 0.

        Args:
            verdict: What the attempts before have come to.

        Raises:
            TenureError: No time is left: `verdict`, or DeadlineExceeded if there was no attempt.
        """
        left = self._deadline - self._clock()
        if left <= 0:
            raise verdict or DeadlineExceeded("no time is left for the operation; raise timeout=")
        self.attempts += 1
        return left

    def pause_after(self, error: TenureError) -> float | None:
        """Return the seconds to wait before the next attempt, None to give up."""
        if not self._retries or not error.retryable:
            return None
        backoff = self._jitter() * min(CAP, BASE * 2 ** (self.attempts - 1))
        pause = backoff + (error.retry_after or 0)
        return pause if self._clock() + pause < self._deadline else None


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait for some seconds."""

    seconds: float


Steps = Generator[Call | Sleep, Any, T]
"""A call is to be sent once; the driver sends back its reply or a TenureError."""


class Observer(Protocol):
    """What learns about attempts; see `tracing`."""

    @property
    def traceparent(self) -> str: ...

    def sent(self, size: int) -> None: ...


def steps(plan: Plan[T], budget: Budget, observer: Observer) -> Steps[T]:
    """Turn a plan into the steps of a driver: attempts and pauses.

    Raises:
        TenureError: What the last attempt said, unless the plan knows better; OutcomeUnknown if the operation
            changes something and an attempt may have been applied.
    """
    reply: Any = None
    failure: TenureError | None = None
    while True:
        try:
            call = plan.send(reply) if failure is None else plan.throw(failure)
        except StopIteration as done:
            value: T = done.value
            return value
        failure = None
        budget.extend(call.extra_seconds)
        maybe_applied = False
        verdict: TenureError | None = None
        try:
            while True:
                stamp(call, budget.begin_attempt(verdict), observer)
                outcome = yield call
                try:
                    if isinstance(outcome, TenureError):
                        raise outcome
                    reply = call.receive(outcome)
                    break
                except TenureError as error:
                    maybe_applied = maybe_applied or error.maybe_applied
                    verdict = _verdict(error, call, maybe_applied)
                    pause = budget.pause_after(error)
                    if pause is None:
                        raise verdict from None
                yield Sleep(pause)
        except TenureError as error:
            failure = error


def _verdict(error: TenureError, call: Call, maybe_applied: bool) -> TenureError:
    """Return what the attempts have come to, of which this is the last one's error."""
    if call.mutates and maybe_applied and error.transient:
        return OutcomeUnknown(
            "the change may or may not have been applied; repeating the operation is safe "
            f"({type(error).__name__}: {error})",
            metadata=error.metadata,
            maybe_applied=True,
        )
    return error


def stamp(call: Call, timeout: float, observer: Observer) -> None:
    """Write into a call what changes with each attempt."""
    call.timeout = timeout
    if call.shape is not Shape.BATCHED:  # a lane says itself what waiting in it has left
        call.operation.timeout_ms = wanted_ms(timeout)
    if observer.traceparent:
        call.operation.traceparent = observer.traceparent
    observer.sent(call.size)


def wanted_ms(timeout: float) -> int:
    """Return the milliseconds that the server may take, for a caller that waits `timeout` seconds."""
    return max(int((timeout - min(_SEND_MARGIN, timeout / 10)) * 1000), 1)
