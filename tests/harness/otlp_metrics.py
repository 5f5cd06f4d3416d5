"""A sink for OTLP metrics, so that tests see what servers really export."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc

from tests.harness.otlp import listening

Series = tuple[str, frozenset[tuple[str, str]]]
"""Name of a metric, and its attributes."""


class MetricSink(metrics_service_pb2_grpc.MetricsServiceServicer):
    """Keeps the last reading of every series of numbers."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readings: dict[Series, float] = {}
        self.target = ""

    def Export(
        self, request: pb.ExportMetricsServiceRequest, context: object
    ) -> pb.ExportMetricsServiceResponse:
        with self._changed:
            for resource in request.resource_metrics:
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        for point in (*metric.sum.data_points, *metric.gauge.data_points):
                            named = frozenset(
                                (item.key, item.value.string_value) for item in point.attributes
                            )
                            value = point.as_int if point.HasField("as_int") else point.as_double
                            self._readings[metric.name, named] = value
            self._changed.notify_all()
        return pb.ExportMetricsServiceResponse()

    def wait_for(
        self, name: str, enough: Callable[[Mapping[frozenset[tuple[str, str]], float]], bool], timeout: float
    ) -> dict[frozenset[tuple[str, str]], float]:
        """Return the readings of a metric, by attributes, once they are enough."""
        give_up = time.monotonic() + timeout
        with self._changed:
            while True:
                found = {named: value for (known, named), value in self._readings.items() if known == name}
                if enough(found):
                    return found
                if not self._changed.wait(give_up - time.monotonic()):
                    raise AssertionError(f"{name} is {found}")


@contextmanager
def metric_sink() -> Iterator[MetricSink]:
    """Run a sink on a free loopback port."""
    sink = MetricSink()
    with listening(
        partial(metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server, sink)
    ) as sink.target:
        yield sink
