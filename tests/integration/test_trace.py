"""One trace from the client's span through the RPC to SQL and Redis, and nothing private in it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from tenure_client import TenureSaver, TenureStore

from tests.harness.databases import Database
from tests.harness.otlp import Received, TraceSink, trace_sink
from tests.harness.server import ServerProcess
from tests.harness.stack import Stack
from tests.integration.checkpoints_support import wait_until

SERVER_KIND, CLIENT_KIND = 2, 3
SECRET = "canary-payload"
THREAD = "canary-thread"


@pytest.fixture(scope="module")
def provider() -> TracerProvider:
    """A provider of this process: a program that uses the client has one."""
    provider = TracerProvider()
    trace.set_tracer_provider(provider)
    return provider


@pytest.fixture
def sink() -> Iterator[TraceSink]:
    with trace_sink() as sink:
        yield sink


@pytest.fixture
def traced(database: Database, redis_url: str, open_folder: Path, sink: TraceSink) -> Iterator[Stack]:
    server = ServerProcess(
        open_folder,
        database,
        redis_url,
        env={
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{sink.target}",
            "OTEL_EXPORTER_OTLP_INSECURE": "true",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        },
    )
    try:
        yield Stack(server.start(), database, redis_url)
    finally:
        server.close()


def put_and_get(stack: Stack, key: str, provider: TracerProvider) -> str:
    """Put a value too large to come with its head, read it elsewhere, and return the trace's id."""
    with (
        provider.get_tracer("test").start_as_current_span("agent turn") as span,
        TenureSaver(stack.target, api_key=key) as writer,
    ):
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"messages": [SECRET] * 2000}
        checkpoint["channel_versions"] = {"messages": writer.get_next_version(None, None)}
        config = {"configurable": {"thread_id": THREAD, "checkpoint_ns": ""}}
        writer.put(config, checkpoint, {"source": "input", "step": -1}, checkpoint["channel_versions"])
        for _ in range(2):
            with TenureSaver(stack.target, api_key=key) as reader:
                found = reader.get_tuple(config)
            assert found is not None
            assert len(found.checkpoint["channel_values"]["messages"]) == 2000
        return f"{span.get_span_context().trace_id:032x}"


def spans_with_their_parents(sink: TraceSink, *names: str, trace_id: str) -> list[Received]:
    """Return the spans of a trace once there are these, and those in which SQL and Redis were asked."""

    def are_whole() -> bool:
        spans = sink.wait_for(*names, trace_id=trace_id)
        ids = {span.span_id for span in spans}
        return all(span.parent_id in ids for span in spans if not _is_rpc(span))

    wait_until(are_whole, "the spans that end last are sent, too")
    return sink.wait_for(*names, trace_id=trace_id)


def test_one_trace_leads_from_the_clients_span_through_the_rpc_to_sql_and_redis(
    traced: Stack, sink: TraceSink, provider: TracerProvider
) -> None:
    trace_id = put_and_get(traced, traced.api_key, provider)
    spans = spans_with_their_parents(
        sink,
        "tenure.v1.CheckpointService/Write",
        "tenure.v1.CheckpointService/Read",
        "tenure.sql",
        "tenure.redis",
        trace_id=trace_id,
    )
    by_id = {span.span_id: span for span in spans}
    rpcs = [span for span in spans if span.name.startswith("tenure.v1.")]
    assert {span.kind for span in rpcs} == {SERVER_KIND}
    assert all(span.parent_id and span.parent_id not in by_id for span in rpcs), "parents are the client's"
    for span in spans:
        if span.name == "tenure.sql":
            assert span.kind == CLIENT_KIND
            assert by_id[span.parent_id].name.startswith("tenure.v1.CheckpointService/")
    reads = [span for span in spans if span.name == "tenure.redis" and "MGET" in str(span.attributes)]
    assert reads
    assert all(by_id[span.parent_id].name == "tenure.v1.CheckpointService/Read" for span in reads)


def test_one_trace_leads_from_a_store_through_its_calls_to_sql(
    traced: Stack, sink: TraceSink, provider: TracerProvider
) -> None:
    with (
        provider.get_tracer("test").start_as_current_span("agent turn") as span,
        TenureStore(traced.target, api_key=traced.api_key) as store,
    ):
        store.put((THREAD,), SECRET, {"text": SECRET}, ttl=1)
        assert store.get((THREAD,), SECRET) is not None
        assert len(store.search((THREAD,), filter={"text": SECRET})) == 1
        trace_id = f"{span.get_span_context().trace_id:032x}"

    def are_sent() -> bool:
        told = str([one.attributes for one in sink.spans() if one.name == "tenure.sql"])
        return all(statement in told for statement in ("write_items", "read_items", "search_items"))

    wait_until(are_sent, "the spans of all statements are sent")
    spans = spans_with_their_parents(sink, "tenure.v1.StoreService/Batch", "tenure.sql", trace_id=trace_id)
    by_id = {one.span_id: one for one in spans}
    for one in spans:
        if one.name == "tenure.sql":
            assert by_id[one.parent_id].name == "tenure.v1.StoreService/Batch"
    shown = "".join(map(repr, sink.spans())) + traced.server.log.read_text()
    for secret in (SECRET, THREAD, traced.api_key):
        assert secret not in shown


def test_telemetry_holds_no_payload_no_key_and_no_thread_id(
    traced: Stack, sink: TraceSink, provider: TracerProvider
) -> None:
    trace_id = put_and_get(traced, traced.api_key, provider)
    spans = sink.wait_for("tenure.v1.CheckpointService/Read", "tenure.sql", trace_id=trace_id)
    shown = "".join(map(repr, spans)) + traced.server.log.read_text()
    tenant = traced.default.tenant_id
    for secret in (SECRET, THREAD, traced.api_key, tenant, uuid.UUID(tenant).hex):
        assert secret not in shown
    assert all("tenure.tenant" in span.attributes for span in spans if _is_rpc(span))


def test_nothing_is_exported_unless_asked_for(
    stack: Stack, sink: TraceSink, provider: TracerProvider
) -> None:
    put_and_get(stack, stack.new_tenant().api_key, provider)
    assert sink.spans() == []


def _is_rpc(span: Received) -> bool:
    return span.name.startswith("tenure.v1.")
