"""OpenTelemetry spans around operations, for applications that use OpenTelemetry.

An application that has not imported `opentelemetry.trace` exports no spans, so it pays neither for
the import nor for spans. Attributes are sizes and counts; never a payload, a key or a thread id.
"""

from __future__ import annotations

import sys
from typing import Any, Self

BYTES = "tenure.bytes"
OPERATIONS = "tenure.operations"
ATTEMPTS = "tenure.attempts"


class Operation:
    """One operation as tracing sees it: a block that its span covers, if it has one.

    Args:
        traceparent: See below.

    Attributes:
        traceparent: W3C trace context for the server, empty if there is none.
        attempts: How many calls were sent.
        bytes: Size of what was sent.
    """

    __slots__ = ("_span", "_token", "attempts", "bytes", "traceparent")

    def __init__(self, traceparent: str = "", *, span: Any = None, token: Any = None) -> None:
        self.traceparent = traceparent
        self.attempts = 0
        self.bytes = 0
        self._span = span
        self._token = token

    def sent(self, size: int) -> None:
        """Count an attempt of `size` bytes."""
        self.attempts += 1
        self.bytes += size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        span = self._span
        if span is None:
            return
        if kind is not None and not issubclass(kind, GeneratorExit):
            trace: Any = sys.modules["opentelemetry.trace"]
            span.set_status(trace.Status(trace.StatusCode.ERROR, kind.__name__))
        if self._token is not None:
            sys.modules["opentelemetry.context"].detach(self._token)
        span.set_attributes({BYTES: self.bytes, OPERATIONS: 1, ATTEMPTS: self.attempts})
        span.end()


class _Untraced(Operation):
    """What all operations share that have no span, and so nothing to count for."""

    __slots__ = ()

    def sent(self, size: int) -> None:
        pass


_UNTRACED = _Untraced()


def active() -> bool:
    """Whether the application traces."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    return trace is not None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def operation(name: str, *, current: bool = True) -> Operation:
    """Begin an operation, in a CLIENT span or in none if the application does not trace.

    Args:
        name: Such as "tenure.saver.put".
        current: Whether the span is the current one until the block ends. False for iterators, whose body
            runs in between the caller's own code.
    """
    if not active():
        return _UNTRACED
    trace: Any = sys.modules["opentelemetry.trace"]
    span = trace.get_tracer("tenure.client").start_span(name, kind=trace.SpanKind.CLIENT)
    if not span.get_span_context().is_valid:
        return _UNTRACED
    token = _attach(trace, span) if current else None
    return Operation(_traceparent(span.get_span_context()), span=span, token=token)


def _attach(trace: Any, span: Any) -> Any:
    return sys.modules["opentelemetry.context"].attach(trace.set_span_in_context(span))


def _traceparent(context: Any) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
