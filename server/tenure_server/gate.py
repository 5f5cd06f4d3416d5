"""What every RPC passes before and after its servicer, in this order:

1. authenticate and authorize, before the message body is read: refusing from a handler that takes the
   request as a stream leaves the body undelivered (24 anonymous calls of 12 MiB cost a server 58 MiB
   instead of 490);
2. a span, outside everything that can fail, so that it sees every final code;
3. errors become statuses;
4. the tenant's rates, if it has any, and admission: a slot for the tenant. Or a refusal with a pushback.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2
from opentelemetry.trace import SpanKind, Status, StatusCode, get_current_span

from tenure_server import auth, errors, telemetry
from tenure_server.admission import Admission
from tenure_server.domain import Principal
from tenure_server.metering import Meter
from tenure_server.rates import Amount
from tenure_server.services.caller import charge_message, spending
from tenure_server.services.caller import guard as current_guard
from tenure_server.services.caller import principal as current_principal
from tenure_server.wire import costs, status
from tenure_server.wire.requests import traceparents

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]
    Metadata = Sequence[tuple[str, str | bytes]]

_SESSION = "/tenure.v1.CheckpointService/Session"


class Gate(grpc.aio.ServerInterceptor):
    """The only interceptor of the server."""

    def __init__(
        self, authenticator: auth.Authenticator, admission: Admission, meter: Meter | None = None
    ) -> None:
        """Take what is asked in turn.

        Args:
            authenticator: Knows who calls.
            admission: Knows how much runs.
            meter: Knows how fast tenants go; None = nobody is held to a rate.
        """
        self._authenticator = authenticator
        self._admission = admission
        self._meter = meter

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        if handler is None or method in auth.PUBLIC:
            return handler
        metadata = handler_call_details.invocation_metadata or ()
        try:
            principal = await self._authenticator.authenticate(metadata)
            auth.authorize(principal, method)
        except Exception as error:
            return _refusal(status.of(error))
        if method == _SESSION:
            return self._session(handler, metadata, principal)
        if handler.request_streaming:
            parents = [str(value) for name, value in metadata if name == "traceparent"]
            if handler.response_streaming:
                return self._stream_stream(handler, method, principal, parents)
            return self._stream_unary(handler, method, principal, parents)
        if handler.response_streaming:
            return self._unary_stream(handler, method, principal)
        return self._unary_unary(handler, method, principal)

    def _unary_unary(self, handler: Handler, method: str, principal: Principal) -> Handler:
        serve: Any = handler.unary_unary

        async def guarded(request: Message, context: Context) -> Any:
            rpc = _Rpc(method, principal, traceparents(request), costs.operations(request))
            with rpc:
                await self._pay(principal, request)
                with self._slot(method, principal):
                    _refuse_late(context)
                    response = await serve(request, context)
                    charge_message(response)
                    return response
            return await rpc.abort(context)

        return grpc.unary_unary_rpc_method_handler(
            guarded, handler.request_deserializer, handler.response_serializer
        )

    def _unary_stream(self, handler: Handler, method: str, principal: Principal) -> Handler:
        serve: Any = handler.unary_stream

        async def guarded(request: Message, context: Context) -> AsyncIterator[Any]:
            rpc = _Rpc(method, principal, traceparents(request), costs.operations(request))
            with rpc:
                await self._pay(principal, request)
                with self._slot(method, principal):
                    _refuse_late(context)
                    async for response in serve(request, context):
                        charge_message(response)
                        yield response
                    return
            await rpc.abort(context)

        return grpc.unary_stream_rpc_method_handler(
            guarded, handler.request_deserializer, handler.response_serializer
        )

    def _stream_unary(
        self, handler: Handler, method: str, principal: Principal, parents: Sequence[str]
    ) -> Handler:
        serve: Any = handler.stream_unary

        async def guarded(requests: AsyncIterator[Message], context: Context) -> Any:
            rpc = _Rpc(method, principal, parents)
            with rpc:
                await self._pay(principal)
                with self._slot(method, principal):
                    _refuse_late(context)
                    response = await serve(_charged(requests), context)
                    charge_message(response)
                    return response
            return await rpc.abort(context)

        return grpc.stream_unary_rpc_method_handler(
            guarded, handler.request_deserializer, handler.response_serializer
        )

    def _stream_stream(
        self, handler: Handler, method: str, principal: Principal, parents: Sequence[str]
    ) -> Handler:
        serve: Any = handler.stream_stream

        async def guarded(requests: AsyncIterator[Message], context: Context) -> AsyncIterator[Any]:
            rpc = _Rpc(method, principal, parents)
            with rpc:
                await self._pay(principal)
                with self._slot(method, principal):
                    _refuse_late(context)
                    async for response in serve(_charged(requests), context):
                        charge_message(response)
                        yield response
                    return
            await rpc.abort(context)

        return grpc.stream_stream_rpc_method_handler(
            guarded, handler.request_deserializer, handler.response_serializer
        )

    def _session(self, handler: Handler, metadata: Metadata, opener: Principal) -> Handler:
        """Guard a stream of batches, each of which passes as a call of its own would.

        The key is looked at again for each batch: a session must not outlive a revocation.
        """
        serve: Any = handler.stream_stream

        async def batch(
            method: str, request: Message, run: Callable[[], Awaitable[None]]
        ) -> status_pb2.Status | None:
            name = f"/tenure.v1.{method}"
            try:
                principal = await self._authenticator.authenticate(metadata)
                auth.authorize(principal, name)
            except Exception as error:
                return status.of(error)
            rpc = _Rpc(name, principal, traceparents(request), costs.operations(request))
            with rpc:
                await self._pay(principal, request)
                with self._slot(name, principal):
                    await run()
            return rpc.failure

        async def guarded(requests: AsyncIterator[Message], context: Context) -> None:
            current_guard.set(batch)
            try:
                with self._admission.slot("Session", opener.tenant):
                    await serve(requests, context)
                    return
            except errors.TenureError as error:
                refusal = status.of(error)
            await status.abort(context, refusal)

        return grpc.stream_stream_rpc_method_handler(
            guarded, handler.request_deserializer, handler.response_serializer
        )

    async def _pay(self, principal: Principal, request: Message | None = None) -> None:
        """Hold a call to its tenant's rates; what it costs further goes to the same account.

        Raises:
            RateLimited: It must wait.
        """
        if self._meter is None or principal.rates is None:
            spending.set(None)
            return
        cost = Amount(operations=1) if request is None else costs.of(request)
        await self._meter.admit(principal.tenant, principal.rates, cost)
        spending.set(partial(self._meter.charge, principal.tenant))

    def _slot(self, method: str, principal: Principal) -> AbstractContextManager[None]:
        most = None if principal.rates is None else principal.rates.concurrency
        return self._admission.slot(method, principal.tenant, most)


class _Rpc:
    """Runs a block as one RPC, in its span; an error is kept, to be sent once the block is left.

    The span continues the trace of the first operation and links to those of the others.

    Attributes:
        failure: What the block failed with.
    """

    def __init__(
        self, method: str, principal: Principal, parents: Sequence[str], operations: int = 1
    ) -> None:
        self._principal = principal
        self._operations = operations
        self.failure: status_pb2.Status | None = None
        self._span = telemetry.span(
            method.removeprefix("/"),
            parent=telemetry.context_of(parents[0]) if parents else None,
            links=parents[1:],
            kind=SpanKind.SERVER,
            attributes={
                telemetry.TENANT: telemetry.tenant_hash(principal.tenant),
                telemetry.OPERATIONS: operations,
            },
        )

    def __enter__(self) -> None:
        current_principal.set(self._principal)
        self._span.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        span = get_current_span()
        if isinstance(error, asyncio.CancelledError) and not _is_cancelled():
            # Something below was cancelled, not this call: left alone, its client would hang (grpc #29248).
            error = errors.Unavailable("the operation was interrupted; retry")
        if isinstance(error, Exception):
            self.failure = status.of(error)
        code = "CANCELLED" if error is not None else "OK"
        if self.failure is not None:
            code = status.name(self.failure)
            span.set_status(Status(StatusCode.ERROR, code))
        telemetry.count_operations(self._principal.tenant, self._operations, code)
        span.set_attribute(telemetry.RPC_CODE, code)
        self._span.__exit__(None, None, None)
        return self.failure is not None

    async def abort(self, context: Context) -> NoReturn:
        """Send the error."""
        assert self.failure is not None
        await status.abort(context, self.failure)


def _refuse_late(context: Context) -> None:
    """Refuse a call whose caller has stopped waiting while it was on its way: it must not take effect."""
    left = context.time_remaining()
    if left is not None and left <= 0:
        raise errors.DeadlineExceeded


async def _charged(requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
    """Yield messages, and count their bytes."""
    async for request in requests:
        charge_message(request)
        yield request


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _refusal(failure: status_pb2.Status) -> Handler:
    """Return a handler that refuses without reading the request, whatever the shape of the RPC."""

    async def refuse(requests: AsyncIterator[bytes], context: Context) -> bytes:
        await status.abort(context, failure)

    return grpc.stream_unary_rpc_method_handler(refuse)
