"""Spans of operations, and none where the application does not trace."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tenure_client import InvalidRequest, TenureSaver

from tests.unit.client import scripted
from tests.unit.client.scripted import fail

CONFIG: Any = {"configurable": {"thread_id": "private", "checkpoint_ns": ""}}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # The global provider can be set only once in a process.
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return exporter


@pytest.fixture
def server() -> Iterator[scripted.Script]:
    with scripted.running() as script:
        yield script


def test_the_server_learns_the_operations_span(server: scripted.Script, spans: InMemorySpanExporter) -> None:
    server.answers.append(fail(grpc.StatusCode.UNAVAILABLE))

    with TenureSaver(server.target, api_key="tn_x") as saver:
        saver.get_tuple(CONFIG)
        asyncio.run(saver.aget_tuple(CONFIG))
        list(saver.list(CONFIG))
        saver.delete_thread("private")

    finished = spans.get_finished_spans()
    assert [span.name for span in finished] == [
        "tenure.saver.get_tuple",
        "tenure.saver.get_tuple",
        "tenure.saver.list",
        "tenure.saver.delete_thread",
    ]
    assert [(span.attributes or {})["tenure.attempts"] for span in finished] == [2, 1, 1, 1]
    contexts = [span.context for span in finished]
    sent = [f"00-{one.trace_id:032x}-{one.span_id:016x}-{one.trace_flags:02x}" for one in contexts]
    expected = [sent[0], sent[0], sent[1], sent[2], sent[3]]
    assert [seen.operation.traceparent for seen in server.seen] == expected
    # A session carries operations of many spans: its own metadata names none of them.
    by_method = {seen.method: seen.metadata.get("traceparent") for seen in server.seen}
    assert by_method == {"Read": None, "List": sent[2], "DeleteThread": sent[3]}


def test_no_span_holds_what_was_stored(server: scripted.Script, spans: InMemorySpanExporter) -> None:
    with TenureSaver(server.target, api_key="tn_x") as saver:
        saver.put_writes(
            {"configurable": {"thread_id": "private", "checkpoint_id": "private"}}, [("a", "private")], "task"
        )

    (span,) = spans.get_finished_spans()
    assert "private" not in span.to_json()
    assert set(span.attributes or {}) == {"tenure.bytes", "tenure.operations", "tenure.attempts"}


def test_a_failure_marks_the_span_by_its_type_alone(
    server: scripted.Script, spans: InMemorySpanExporter
) -> None:
    server.answers.append(fail(grpc.StatusCode.INVALID_ARGUMENT, "private"))

    with TenureSaver(server.target, api_key="tn_x") as saver, pytest.raises(InvalidRequest):
        saver.get_tuple(CONFIG)

    (span,) = spans.get_finished_spans()
    assert span.status.description == "InvalidRequest"
    assert "private" not in span.to_json()


def test_an_operation_belongs_to_the_callers_span(
    server: scripted.Script, spans: InMemorySpanExporter
) -> None:
    with (
        TenureSaver(server.target, api_key="tn_x") as saver,
        trace.get_tracer("application").start_as_current_span("node") as node,
    ):
        saver.get_tuple(CONFIG)
        next(saver.list(CONFIG), None)
        assert trace.get_current_span() is node

    *operations, _ = spans.get_finished_spans()
    assert {span.parent.span_id for span in operations if span.parent} == {node.get_span_context().span_id}
    assert len(operations) == 2


def test_importing_the_client_imports_neither_a_tracer_nor_a_graph_nor_a_server() -> None:
    program = """
import sys, tenure_client
unwanted = "opentelemetry langgraph.graph langgraph.pregel langgraph.types tenure_server psycopg redis"
for name in unwanted.split():
    assert name not in sys.modules, name
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
