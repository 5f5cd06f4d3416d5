"""The connection: runs plans over gRPC, blocking or on the running event loop.

Both colours share everything but the few lines that wait. A blocking call made on the thread of a
running loop blocks that loop for its duration and works.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any, Self, TypeVar, cast

import grpc
from google.protobuf.message import Message
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import store_pb2

from tenure_client import slices, tracing
from tenure_client.calls import Call, Plan, Shape
from tenure_client.channels import Channels, Stub
from tenure_client.errors import DeadlineExceeded, InvalidRequest
from tenure_client.held import HeldValues
from tenure_client.listing import Listing
from tenure_client.retry import Budget, Sleep, steps, wanted_ms
from tenure_client.statuses import from_rpc
from tenure_client.target import Target

T = TypeVar("T")

_SLICED = frozenset({"WriteSliced", "ReadSliced", "BatchSliced", "PutVectorsSliced"})
"""Calls of which few run at once; the others wait here, where waiting costs neither side anything."""
_UPLOADS: dict[str, Callable[..., Message]] = {
    "WriteSliced": pb.WriteSlicedRequest,
    "BatchSliced": store_pb2.BatchSlicedRequest,
    "PutVectorsSliced": store_pb2.PutVectorsSlicedRequest,
}
"""What carries one slice of a request."""
_UPLOADED = frozenset({Shape.UPLOAD, Shape.EXCHANGE})
_STREAMED = frozenset({Shape.COLLECT, Shape.EXCHANGE})


class Connection:
    """A connection to a Tenure server, shared by savers and stores.

    One object serves all threads, event loops and forked workers. Nothing is connected before the first
    operation. An operation is retried within its time if that may help.

    gRPC can be forked as long as no event loop that uses it is running and GRPC_ENABLE_FORK_SUPPORT is left
    unset: set to either value, children of a process with busy threads hang.

    Args:
        target: "host:port", "unix:/path" or "tenure://KEY@host:port"; None = the variable TENURE_TARGET.
        api_key: The tenant's key; None = the one in `target`, else TENURE_API_KEY.
        timeout: Seconds for one operation with all its retries. A request or reply above 1 MiB gets one
            second more for each 4 MiB; a listing may take so long for each checkpoint.
        ca: PEM file with the certificates to trust; None = TENURE_CA, else the system's.
        insecure: Speak plaintext to an address that is not on this machine.
        connections: gRPC channels per process and event loop; more than one helps when many threads
            move large values.

    Attributes:
        held: Large values that were sent and received, up to 64 MiB, against which the next ones are told.

    Raises:
        InvalidRequest: An argument is missing or contradicts another.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 10.0,
        ca: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        connections: int = 1,
    ) -> None:
        if timeout <= 0:
            raise InvalidRequest("timeout must be more than 0 seconds", metadata={"field": "timeout"})
        if connections < 1:
            raise InvalidRequest("connections must be at least 1", metadata={"field": "connections"})
        self._target = Target.resolve(target, api_key=api_key, ca=ca, insecure=insecure)
        self._timeout = timeout
        self.held = HeldValues()
        self._channels = Channels(self._target, connections)

    @classmethod
    def of(
        cls,
        target_or_connection: str | Connection | None,
        *,
        api_key: str | None,
        timeout: float,
        ca: str | os.PathLike[str] | None,
        insecure: bool,
        connections: int,
    ) -> Connection:
        """Return the connection that is given, or make one of a target; see the class for the arguments."""
        if not isinstance(target_or_connection, Connection):
            return cls(
                target_or_connection,
                api_key=api_key,
                timeout=timeout,
                ca=ca,
                insecure=insecure,
                connections=connections,
            )
        if api_key or ca or insecure:
            raise InvalidRequest(
                "a Connection has its own api_key, ca and insecure", metadata={"field": "api_key"}
            )
        return target_or_connection

    def __repr__(self) -> str:
        tls = "plaintext" if self._target.plaintext else "tls"
        return f"Connection({self._target.address!r}, {tls}, api_key='tn_***')"

    def run(self, name: str, plan: Plan[T], budget: Budget | None = None) -> T:
        """Run a plan and return its value, blocking.

        Args:
            name: The operation's name in traces.
            plan: What to do.
            budget: The time it may take; None = the connection's timeout.

        Raises:
            TenureError: The operation failed, see `tenure_client.errors`.
        """
        with tracing.operation(name) as observer:
            moves = steps(plan, budget or Budget(self._timeout), observer)
            outcome: Any = None
            while True:
                try:
                    step = moves.send(outcome)
                except StopIteration as done:
                    return cast("T", done.value)
                outcome = self._perform(step)

    async def arun(self, name: str, plan: Plan[T], budget: Budget | None = None) -> T:
        """Run a plan and return its value; see `run`."""
        with tracing.operation(name) as observer:
            moves = steps(plan, budget or Budget(self._timeout), observer)
            outcome: Any = None
            while True:
                try:
                    step = moves.send(outcome)
                except StopIteration as done:
                    return cast("T", done.value)
                outcome = await self._aperform(step)

    def stream(self, name: str, listing: Listing[T]) -> Iterator[T]:
        """Yield the items of a listing; leaving the iterator cancels its stream.

        Raises:
            TenureError: The listing cannot go on.
        """
        with tracing.operation(name, current=False) as observer:
            budget = Budget(self._timeout)
            while not listing.done:
                timeout, request = listing.begin(budget, observer)
                rpc = (
                    self._channels.sync()
                    .stub()
                    .List(
                        request,
                        timeout=timeout,
                        metadata=self._channels.metadata(request.operation.traceparent),
                    )
                )
                try:
                    while not listing.done and (part := self._next(rpc, listing)) is not None:
                        yield from listing.items(part)
                finally:
                    rpc.cancel()
                if listing.failure is not None:
                    budget, pause = listing.recover(budget, self._timeout)
                    time.sleep(pause)

    async def astream(self, name: str, listing: Listing[T]) -> AsyncGenerator[T]:
        """Yield the items of a listing; see `stream`."""
        with tracing.operation(name, current=False) as observer:
            budget = Budget(self._timeout)
            while not listing.done:
                timeout, request = listing.begin(budget, observer)
                rpc = (
                    self._channels.aio()
                    .stub()
                    .List(
                        request,
                        timeout=timeout,
                        metadata=self._channels.metadata(request.operation.traceparent),
                    )
                )
                try:
                    while not listing.done and (part := await self._anext(rpc, listing)) is not None:
                        for item in listing.items(part):
                            yield item
                finally:
                    rpc.cancel()
                if listing.failure is not None:
                    budget, pause = listing.recover(budget, self._timeout)
                    await asyncio.sleep(pause)

    def close(self) -> None:
        """Close the channels; they are made again if the connection is used again."""
        self._channels.close()

    async def aclose(self) -> None:
        """Close the channels, those of the running loop in an orderly way."""
        await self._channels.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _perform(self, step: Call | Sleep) -> Any:
        if isinstance(step, Sleep):
            return time.sleep(step.seconds)
        pool = self._channels.sync()
        if step.shape is Shape.BATCHED:
            return pool.lanes[step.method].ride(step)
        if step.method not in _SLICED:
            return self._call(pool.stub(), step)
        deadline = time.monotonic() + step.timeout
        if not pool.room.acquire(timeout=step.timeout):
            return _not_sent()
        try:
            return self._call(pool.stub(), _hurried(step, deadline))
        finally:
            pool.room.release()

    def _aperform(self, step: Call | Sleep) -> Awaitable[Any]:
        if isinstance(step, Sleep):
            return asyncio.sleep(step.seconds)
        pool = self._channels.aio()
        if step.shape is Shape.BATCHED:
            return pool.lanes[step.method].ride(step)
        if step.method not in _SLICED:
            return self._acall(pool.stub(), step)
        return self._atransfer(pool.stub(), pool.aroom, step)

    async def _atransfer(self, stub: Stub, room: asyncio.Semaphore, call: Call) -> Any:
        deadline = time.monotonic() + call.timeout
        try:
            async with asyncio.timeout(call.timeout):
                await room.acquire()
        except TimeoutError:
            return _not_sent()
        try:
            return await self._acall(stub, _hurried(call, deadline))
        finally:
            room.release()

    def _call(self, stub: Stub, call: Call) -> Any:
        try:
            rpc = self._open(stub, call)
            return list(rpc) if call.shape in _STREAMED else rpc
        except grpc.RpcError as error:
            return from_rpc(error)

    async def _acall(self, stub: Stub, call: Call) -> Any:
        try:
            rpc = self._open(stub, call)
            return [part async for part in rpc] if call.shape in _STREAMED else await rpc
        except grpc.RpcError as error:
            return from_rpc(error)

    def _open(self, stub: Stub, call: Call) -> Any:
        return getattr(stub, call.method)(
            _uploaded(call) if call.shape in _UPLOADED else call.request,
            timeout=call.timeout,
            metadata=self._channels.metadata(call.operation.traceparent),
        )

    @staticmethod
    def _next(rpc: Any, listing: Listing[Any]) -> pb.ListResponse | None:
        try:
            part: pb.ListResponse | None = next(rpc, None)
        except grpc.RpcError as error:
            listing.failed(from_rpc(error))
            return None
        if part is None:
            listing.finish()
        return part

    @staticmethod
    async def _anext(rpc: Any, listing: Listing[Any]) -> pb.ListResponse | None:
        try:
            part = await rpc.read()
        except grpc.RpcError as error:
            listing.failed(from_rpc(error))
            return None
        if part is grpc.aio.EOF:
            listing.finish()
            return None
        read: pb.ListResponse = part
        return read


def _hurried(call: Call, deadline: float) -> Call:
    """Leave a call the time that waiting has left of its own, at least a moment."""
    call.timeout = max(deadline - time.monotonic(), 0.001)
    call.operation.timeout_ms = wanted_ms(call.timeout)
    return call


def _not_sent() -> DeadlineExceeded:
    return DeadlineExceeded("the operation waited for other large values to be moved; raise timeout=")


def _uploaded(call: Call) -> Iterator[Message]:
    kind = _UPLOADS[call.method]
    return (kind(slice=part) for part in slices.split(call.request))
