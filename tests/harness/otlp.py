"""A sink for OTLP traces, so that tests see what servers really export."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True)
class Received:
    """One exported span, with ids as hex text."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    attributes: dict[str, str]
    links: tuple[str, ...]

    @classmethod
    def of(cls, span: Span) -> Received:
        attributes = {item.key: str(item.value).strip() for item in span.attributes}
        links = tuple(link.span_id.hex() for link in span.links)
        return cls(
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.kind,
            attributes,
            links,
        )


class TraceSink(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every span it is sent."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._spans: list[Received] = []
        self.target = ""

    def Export(self, request: pb.ExportTraceServiceRequest, context: object) -> pb.ExportTraceServiceResponse:
        with self._changed:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    self._spans += [Received.of(span) for span in scope.spans]
            self._changed.notify_all()
        return pb.ExportTraceServiceResponse()

    def spans(self) -> list[Received]:
        with self._changed:
            return list(self._spans)

    def wait_for(self, *names: str, trace_id: str, timeout: float = 15.0) -> list[Received]:
        """Return the spans of a trace once all these names are among them."""

        def complete() -> bool:
            return set(names) <= {span.name for span in self._spans if span.trace_id == trace_id}

        with self._changed:
            if not self._changed.wait_for(complete, timeout):
                found = sorted({span.name for span in self._spans if span.trace_id == trace_id})
                raise AssertionError(f"of {names} only {found} came in trace {trace_id}")
            return [span for span in self._spans if span.trace_id == trace_id]


@contextmanager
def trace_sink() -> Iterator[TraceSink]:
    """Run a sink on a free loopback port."""
    sink = TraceSink()
    with listening(partial(trace_service_pb2_grpc.add_TraceServiceServicer_to_server, sink)) as sink.target:
        yield sink


@contextmanager
def listening(add_to: Callable[[grpc.Server], None]) -> Iterator[str]:
    """Serve what is added to a server, and give host:port."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    add_to(server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield target
    finally:
        server.stop(None).wait()
