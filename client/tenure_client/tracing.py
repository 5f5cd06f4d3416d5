"""OpenTelemetry spans around operations, for applications that use OpenTelemetry.

An application that has not imported `opentelemetry.trace` exports no spans, so it pays neither for
the import nor for spans. Attributes are sizes and counts; never a payload, a key or a thread id.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

BYTES = "tenure.bytes"
OPERATIONS = "tenure.operations"
ATTEMPTS = "tenure.attempts"


class Operation:
    """One operation as tracing sees it.

    Attributes:
        traceparent: W3C trace context for the server, empty if there is none.
        attempts: How many calls were sent.
        bytes: Size of what was sent.
    """

    def __init__(self, traceparent: str = "") -> None:
        self.traceparent = traceparent
        self.attempts = 0
        self.bytes = 0

    def sent(self, size: int) -> None:
        """Count an attempt of `size` bytes."""
        self.attempts += 1
        self.bytes += size


@contextmanager
def operation(name: str, *, current: bool = True) -> Iterator[Operation]:
    """Run a block in a CLIENT span, or in none if the application does not trace.

    Args:
        name: Such as "tenure.saver.put".
        current: Whether the span is the current one inside the block. False for iterators, whose body
            runs in between the caller's own code.
    """
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        yield Operation()
        return
    span = trace.get_tracer("tenure.client").start_span(name, kind=trace.SpanKind.CLIENT)
    if not span.get_span_context().is_valid:
        yield Operation()
        return
    observed = Operation(_traceparent(span.get_span_context()))
    token = _attach(trace, span) if current else None
    try:
        yield observed
    except GeneratorExit:
        raise
    except BaseException as error:
        span.set_status(trace.Status(trace.StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        if token is not None:
            sys.modules["opentelemetry.context"].detach(token)
        span.set_attributes({BYTES: observed.bytes, OPERATIONS: 1, ATTEMPTS: observed.attempts})
        span.end()


def _attach(trace: Any, span: Any) -> Any:
    return sys.modules["opentelemetry.context"].attach(trace.set_span_in_context(span))


def _traceparent(context: Any) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
