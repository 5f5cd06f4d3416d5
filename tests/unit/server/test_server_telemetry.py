"""Spans: what they carry, where they hang, and what they never show."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tenure_server import telemetry
from tenure_server.domain import TenantId

from tests.unit.server.spans import recording

ONE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TWO = "00-1af7651916cd43dd8448eb211c80319d-c7ad6b7169203332-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What is exported."""
    return recording(monkeypatch)


def test_a_span_carries_its_attributes(spans: InMemorySpanExporter) -> None:
    with telemetry.span(telemetry.SQL, attributes={telemetry.STATEMENT: "write_batch_1"}) as current:
        current.set_attribute(telemetry.ROWS, 3)
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind) == ("tenure.sql", SpanKind.CLIENT)
    assert dict(span.attributes or {}) == {
        "db.operation.name": "write_batch_1",
        "db.response.returned_rows": 3,
    }
    assert span.status.status_code is StatusCode.UNSET


def test_spans_hang_below_each_other(spans: InMemorySpanExporter) -> None:
    with telemetry.span("rpc", parent=telemetry.context_of(ONE)), telemetry.span(telemetry.REDIS):
        pass
    inner, outer = spans.get_finished_spans()
    assert inner.parent is not None
    assert outer.context is not None
    assert inner.parent.span_id == outer.context.span_id
    assert outer.parent is not None
    assert f"{outer.parent.trace_id:032x}-{outer.parent.span_id:016x}" in ONE


def test_a_span_that_works_for_others_links_to_them(spans: InMemorySpanExporter) -> None:
    with telemetry.span(telemetry.SQL, parent=telemetry.context_of(ONE), links=[TWO, "", TWO]):
        pass
    (span,) = spans.get_finished_spans()
    assert [f"{link.context.trace_id:032x}" in TWO for link in span.links] == [True, True]


@pytest.mark.parametrize(
    "garbage", ["x", "00-0-0-00", "\0", "🦜", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "a" * 10_000]
)
def test_a_traceparent_that_is_none_starts_a_new_trace(spans: InMemorySpanExporter, garbage: str) -> None:
    with telemetry.span("rpc", parent=telemetry.context_of(garbage), links=[garbage]):
        pass
    (span,) = spans.get_finished_spans()
    assert span.parent is None


def test_an_error_shows_its_type_only(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="secret"), telemetry.span(telemetry.SQL):
        raise ValueError("secret of a tenant")
    (span,) = spans.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "ValueError"
    assert "secret" not in span.to_json()
    assert not span.events


def test_a_tenant_is_shown_as_a_hash_that_is_always_the_same() -> None:
    tenant = TenantId(UUID("01234567-89ab-cdef-0123-456789abcdef"))
    shown = telemetry.tenant_hash(tenant)
    assert shown == telemetry.tenant_hash(TenantId(UUID(tenant.hex)))
    assert len(shown) == 12
    assert shown not in tenant.hex
    assert shown != telemetry.tenant_hash(TenantId(uuid4()))


@pytest.mark.parametrize("variable", ["OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"])
def test_an_exporter_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "otlp,zipkin")
    with pytest.raises(ValueError, match=f"{variable}: 'zipkin'"):
        telemetry.configure("0.0.0")


def test_few_tenants_have_labels_of_their_own_and_floods_get_one() -> None:
    now = 0.0
    labels = telemetry.TenantLabels(clock=lambda: now)
    early = [TenantId(uuid4()) for _ in range(64)]
    assert [labels.of(tenant) for tenant in early] == [telemetry.tenant_hash(tenant) for tenant in early]
    late, noisy = TenantId(uuid4()), TenantId(uuid4())
    assert labels.of(late) == "other"
    assert {labels.of(noisy, 256) for _ in range(3)} == {"other"}
    assert labels.of(noisy, 256) == telemetry.tenant_hash(noisy)
    assert labels.of(noisy) == telemetry.tenant_hash(noisy), "a label stays"
    labels.of(late, 998)
    now = 61.0
    assert labels.of(late) == "other", "a minute begins anew"
    shown = {labels.of(TenantId(uuid4()), 1000) for _ in range(1000)}
    assert len(shown) == 512 - 65 + 1
