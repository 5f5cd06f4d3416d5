"""The gate, on a real gRPC server: refusals, errors, cancellations, slots and spans of each shape of RPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import common_pb2
from tenure_server import errors, telemetry
from tenure_server.admission import SLICED
from tenure_server.domain import Scope
from tenure_server.limits import Limits

from tests.unit.server.serving import OPERATION, READ, TRACE, Served, serving
from tests.unit.server.spans import recording

SECRET = "SELECT body FROM checkpoint -- of another tenant"


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A server."""
    async with serving() as opened:
        yield opened


every_shape = pytest.mark.parametrize("method", ["Read", "List", "WriteSliced"])


@every_shape
async def test_without_a_key_nothing_is_asked(served: Served, method: str) -> None:
    for metadata in [[], [("authorization", "Bearer tn_nonsense")]]:
        error = await _failure(served.call(method, metadata))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert _info(error).reason == "ERROR_REASON_UNAUTHENTICATED"
    assert not served.store.asked.is_set()


@every_shape
async def test_a_key_without_the_scope_is_refused(served: Served, method: str) -> None:
    other = Scope.READ if method == "WriteSliced" else Scope.WRITE
    key = await served.tenants.create_key(served.tenant, frozenset({other, Scope.ADMIN}))
    error = await _failure(served.call(method, [("authorization", f"Bearer {key}")]))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert _info(error).reason == "ERROR_REASON_SCOPE_MISSING"
    assert not served.store.asked.is_set()


async def test_a_refusal_does_not_wait_for_the_request(served: Served) -> None:
    call = served.stub.WriteSliced(metadata=[])
    assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


@every_shape
async def test_an_unexpected_error_shows_a_request_id_and_no_cause(
    served: Served, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    served.store.failure = RuntimeError(SECRET)
    error = await _failure(served.call(method))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details() == "internal error; the server's log has the cause"
    info = _info(error)
    assert info.reason == "ERROR_REASON_INTERNAL"
    trailers = str(tuple(error.trailing_metadata()))
    assert "SELECT" not in trailers
    assert "acme" not in trailers
    assert info.metadata["request_id"] in caplog.text
    assert SECRET in caplog.text


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (errors.Unavailable(), grpc.StatusCode.UNAVAILABLE),
        (errors.Conflict(), grpc.StatusCode.ABORTED),
        (errors.DeadlineExceeded(), grpc.StatusCode.DEADLINE_EXCEEDED),
    ],
)
@every_shape
async def test_our_errors_keep_their_code(
    served: Served, method: str, failure: errors.TenureError, code: grpc.StatusCode
) -> None:
    served.store.failure = failure
    error = await _failure(served.call(method))
    assert error.code() is code
    assert error.details() == str(failure)
    assert _info(error).reason == f"ERROR_REASON_{failure.reason}"
    served.store.failure = None
    assert await served.call(method) is not None


async def test_overload_tells_every_client_when_to_come_back(served: Served) -> None:
    served.store.failure = errors.Overloaded("calls", retry_after=0.25)
    error = await _failure(served.call("Read"))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == "250"


@every_shape
async def test_what_is_cancelled_below_does_not_leave_the_caller_hanging(served: Served, method: str) -> None:
    served.store.failure = asyncio.CancelledError()
    error = await _failure(served.call(method))
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_tenant_with_too_many_sliced_transfers_is_pushed_back(served: Served) -> None:
    running = [served.stub.WriteSliced(metadata=served.metadata) for _ in range(SLICED.per_tenant)]
    first = pb.WriteSlicedRequest(slice=common_pb2.Slice(data=b"x", total_bytes=2))
    for call in running:
        await call.write(first)
    # A call that was answered has passed the gate after those before it on the same connection.
    await served.call("Read")
    error = await _failure(served.call("WriteSliced"))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "grpc-retry-pushback-ms" in dict(error.trailing_metadata())
    assert await served.call("List") == [], "streams have slots of their own"
    for call in running:
        call.cancel()
    while await _code(served.call("WriteSliced")) is not grpc.StatusCode.OK:
        await asyncio.sleep(0)


async def test_a_sender_that_stalls_loses_its_slot() -> None:
    async with serving(Limits(max_timeout=0.1)) as served:
        call = served.stub.WriteSliced(metadata=served.metadata)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_an_unknown_method_is_unimplemented(served: Served) -> None:
    unknown: Any = served.channel.unary_unary("/tenure.v1.CheckpointService/Forgotten")
    error = await _failure(unknown(b"", metadata=served.metadata))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What telemetry exports during the test."""
    return recording(monkeypatch)


@every_shape
async def test_an_rpc_is_a_span_in_its_callers_trace(
    served: Served, spans: InMemorySpanExporter, method: str
) -> None:
    traceparent = ("traceparent", OPERATION.traceparent)
    await served.call(method, [*served.metadata, traceparent])
    (span,) = spans.get_finished_spans()
    assert span.name == f"tenure.v1.CheckpointService/{method}"
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert dict(span.attributes or {}) == {
        telemetry.TENANT: telemetry.tenant_hash(served.tenant),
        telemetry.OPERATIONS: 1,
        telemetry.RPC_CODE: "OK",
    }
    assert span.status.status_code is StatusCode.UNSET


@every_shape
async def test_a_span_has_the_code_and_not_the_cause(
    served: Served, spans: InMemorySpanExporter, method: str
) -> None:
    served.store.failure = RuntimeError(SECRET)
    await _failure(served.call(method))
    (span,) = spans.get_finished_spans()
    assert (span.attributes or {})[telemetry.RPC_CODE] == "INTERNAL"
    assert span.status.status_code is StatusCode.ERROR
    _shows_nothing(span, SECRET, "of a customer", str(served.tenant))


async def test_a_call_that_its_caller_cancels_is_no_error_of_the_server(
    served: Served, spans: InMemorySpanExporter
) -> None:
    served.store.open.clear()
    call = served.stub.Read(READ, metadata=served.metadata)
    # Starts the call; awaiting it here would wait for the answer.
    waiting = asyncio.ensure_future(call.code())
    await served.store.asked.wait()
    call.cancel()
    assert await waiting is grpc.StatusCode.CANCELLED
    while not spans.get_finished_spans():
        await asyncio.sleep(0)
    (span,) = spans.get_finished_spans()
    assert (span.attributes or {})[telemetry.RPC_CODE] == "CANCELLED"
    served.store.open.set()
    assert len((await served.call("Read")).results) == 1, "the slot is free again"


async def _failure(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def _code(call: Awaitable[Any]) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def _info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert info.domain == "tenure.dev"
    return info


def _shows_nothing(span: ReadableSpan, *secrets: str) -> None:
    shown = span.to_json()
    assert not [secret for secret in secrets if secret in shown]
    assert not span.events
