"""OpenTelemetry: every span, metric and attribute name as a constant, and how they are exported.

Nothing is exported unless the standard variables say so (`OTEL_TRACES_EXPORTER=otlp|console`,
`OTEL_METRICS_EXPORTER=...`, `OTEL_EXPORTER_OTLP_ENDPOINT`, ...). Attributes are an allow-list: sizes, counts,
codes and a hash of the tenant; never a payload, a key, SQL parameters or a raw id.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    ProxyTracer,
    ProxyTracerProvider,
    Span,
    SpanKind,
    Status,
    StatusCode,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from tenure_server.domain import TenantId

SQL = "tenure.sql"
REDIS = "tenure.redis"

RPC_METHOD = "rpc.method"
RPC_CODE = "rpc.grpc.status_code"
TENANT = "tenure.tenant"
REQUEST_ID = "tenure.request_id"
OPERATIONS = "tenure.operations"
FAILED = "tenure.operations.failed"
STATEMENT = "db.operation.name"
ROWS = "db.response.returned_rows"
REDIS_COMMAND = "db.operation.name"
KEYS = "tenure.cache.keys"
CACHE_HITS = "tenure.cache.hits"
CACHE_MISSES = "tenure.cache.misses"
BYTES = "tenure.bytes"
WRITER_REFUSED = "tenure.writer_refused"

_MAX_RATIOS = 100
_propagator = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("tenure.server")
_meter = metrics.get_meter("tenure.server")
_NO_SPAN: AbstractContextManager[Span] = nullcontext(INVALID_SPAN)

cache_reads = _meter.create_counter(
    "tenure.cache.reads", description="Channel values asked of Redis, by result hit | miss | invalid | off"
)
node_cache_reads = _meter.create_counter(
    "tenure.node_cache.reads", description="Results of nodes asked for, by result hit | miss | invalid | off"
)
node_cache_writes = _meter.create_counter(
    "tenure.node_cache.writes",
    description="Results of nodes to be kept, by result stored | forgotten | dropped",
)
version_conflicts = _meter.create_counter(
    "tenure.version_conflicts", description="Channel versions met again with other bytes; the first is kept"
)
refused = _meter.create_counter("tenure.refused", description="RPCs and operations refused, by reason")
writers_refused = _meter.create_counter(
    "tenure.writers.refused",
    description="Writers refused as a thread has another one, by tenant and reason STALE_WRITER | LEASE_HELD",
)
admin_changes = _meter.create_counter(
    "tenure.admin.changes", description="Changes asked of AdminService, by RPC and outcome"
)
tenant_operations = _meter.create_counter(
    "tenure.tenant.operations",
    description="Operations by tenant and outcome ok | refused | failed; a batch has one outcome",
)
swept = _meter.create_counter("tenure.swept", description="Rows removed by the sweeper, by kind")


@lru_cache(maxsize=1024)
def tenant_hash(tenant: TenantId) -> str:
    """Return what telemetry shows of a tenant: 12 hex digits of a hash, the same on every replica."""
    return hashlib.blake2b(tenant.bytes, digest_size=6, person=b"tenure.tenant").hexdigest()


class TenantLabels:
    """Names tenants in metrics, a bounded number of them: a series is kept for the life of a process.

    The first 64 have a label of their own, and so has each that makes a thousand operations in a minute,
    until there are 512. All others are `other`.
    """

    _FREE, _MOST, _MANY, _WINDOW = 64, 512, 1000, 60.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._labels: dict[TenantId, str] = {}
        self._counts: Counter[TenantId] = Counter()
        self._since = clock()

    def of(self, tenant: TenantId, operations: int = 1) -> str:
        """Return the label of a tenant that makes some operations."""
        label = self._labels.get(tenant)
        if label is not None:
            return label
        if self._clock() - self._since > self._WINDOW or len(self._counts) > 100 * self._MOST:
            self._counts.clear()
            self._since = self._clock()
        self._counts[tenant] += operations
        known = len(self._labels)
        if known < self._FREE or (known < self._MOST and self._counts[tenant] >= self._MANY):
            del self._counts[tenant]
            return self._labels.setdefault(tenant, tenant_hash(tenant))
        return "other"


tenant_labels = TenantLabels()


def count_operations(tenant: TenantId, operations: int, code: str) -> None:
    """Count operations of a tenant that ended with the gRPC code of this name."""
    outcome = {"OK": "ok", "RESOURCE_EXHAUSTED": "refused"}.get(code, "failed")
    tenant_operations.add(operations, {TENANT: tenant_labels.of(tenant, operations), "outcome": outcome})


_quota_ratios: Mapping[tuple[str, str], float] = {}


def show_quotas(ratios: Mapping[tuple[TenantId, str], float]) -> None:
    """Export how much of their limits tenants use, until told otherwise.

    Args:
        ratios: By tenant and name of the limit; 1.0 = all of it. The hundred highest are exported.
    """
    global _quota_ratios
    highest = sorted(ratios.items(), key=lambda entry: entry[1], reverse=True)[:_MAX_RATIOS]
    _quota_ratios = {(tenant_hash(tenant), limit): ratio for (tenant, limit), ratio in highest}


def _observe_quotas(options: metrics.CallbackOptions) -> Iterator[metrics.Observation]:
    for (tenant, limit), ratio in _quota_ratios.items():
        yield metrics.Observation(ratio, {TENANT: tenant, "limit": limit})


_meter.create_observable_gauge(
    "tenure.quota.usage_ratio",
    callbacks=[_observe_quotas],
    description="Used part of a limit, by tenant and limit; the hundred highest, by the replica that sweeps",
)


def context_of(traceparent: str) -> Context | None:
    """Return the W3C context that a caller sent, None if there is none."""
    return _propagator.extract({"traceparent": traceparent}) if traceparent else None


def span(
    name: str,
    *,
    parent: Context | None = None,
    links: Sequence[str] = (),
    kind: SpanKind = SpanKind.CLIENT,
    attributes: Mapping[str, AttributeValue] | None = None,
) -> AbstractContextManager[Span]:
    """Return what runs a block in a span; an exception marks it as an error by its type alone.

    Args:
        name: One of the constants of this module, or an RPC's method.
        parent: Context of the parent, None = the current span.
        links: Traceparents of other callers that the block also works for.
        kind: CLIENT for calls to Postgres and Redis.
        attributes: Values for keys that are constants of this module.
    """
    if isinstance(_tracer, ProxyTracer) and isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
        # Nobody set one, so nothing is exported: even a span of nothing takes a tenth of a small batch.
        return _NO_SPAN
    return _recorded(name, parent, links, kind, attributes)


@contextmanager
def _recorded(
    name: str,
    parent: Context | None,
    links: Sequence[str],
    kind: SpanKind,
    attributes: Mapping[str, AttributeValue] | None,
) -> Iterator[Span]:
    with _tracer.start_as_current_span(
        name,
        context=parent,
        kind=kind,
        links=[
            Link(trace.get_current_span(context).get_span_context())
            for traceparent in links
            if (context := context_of(traceparent)) is not None
        ],
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield current
        except BaseException as error:
            current.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


def configure(version: str) -> None:
    """Export traces and metrics as the OTEL_* variables ask; without them spans cost next to nothing."""
    traces = _exporter_names("OTEL_TRACES_EXPORTER")
    readings = _exporter_names("OTEL_METRICS_EXPORTER")
    if not traces and not readings:
        return
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource

    resource = Resource.create({SERVICE_NAME: "tenure", SERVICE_VERSION: version}).merge(
        OTELResourceDetector().detect()
    )
    if traces:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

        provider = TracerProvider(resource=resource)
        for name in traces:
            exporter: SpanExporter
            if name == "otlp":
                from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

                exporter = OTLPSpanExporter()
            else:
                exporter = ConsoleSpanExporter()
            provider.add_span_processor(BatchSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
    if readings:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import (
            ConsoleMetricExporter,
            MetricExporter,
            PeriodicExportingMetricReader,
        )

        readers = []
        for name in readings:
            metric_exporter: MetricExporter
            if name == "otlp":
                from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

                metric_exporter = OTLPMetricExporter()
            else:
                metric_exporter = ConsoleMetricExporter()
            readers.append(PeriodicExportingMetricReader(metric_exporter))
        metrics.set_meter_provider(MeterProvider(resource=resource, metric_readers=readers))


def flush() -> None:
    """Send what is still buffered; called once when the server stops."""
    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
        shutdown = getattr(provider, "shutdown", None)
        if shutdown is not None:
            shutdown()


def _exporter_names(variable: str) -> list[str]:
    names = [name.strip() for name in os.environ.get(variable, "none").split(",")]
    for name in names:
        if name not in {"otlp", "console", "none", ""}:
            raise ValueError(f"{variable}: {name!r} is not supported; use otlp, console or none")
    return [name for name in names if name not in {"none", ""}]
