"""Sessions: many batches of Write, Read and the store's Batch over one long-lived stream.

A session is a transport: each batch passes the gate as a call of its own does, and is served by the same
code. At most a few batches of a session run at once; beyond that its stream is not read, so that HTTP/2
holds the sender back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import status_pb2
from tenure.v1 import checkpoints_pb2 as pb

from tenure_server import errors
from tenure_server.services.caller import charge_message, guard
from tenure_server.services.parts import Send
from tenure_server.wire import status

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

Serve = Callable[[pb.SessionRequest, Send], Awaitable[None]]
"""Serves one batch; sends the parts of its answer without call ids."""

_MAX_BATCHES = 12
"""Batches of one session at a time; the five lanes of a client have twelve. One that was answered in part,
and waits for a busy thread or a long search, does not count: others would wait with it. The gate bounds
those."""
_METHODS = {
    "write": "CheckpointService/Write",
    "read": "CheckpointService/Read",
    "store": "StoreService/Batch",
}
"""The RPC as which each kind of batch passes the gate."""
_MAX_AGE = 300.0
"""Seconds after which a session ends at the next chance, so that clients spread over replicas anew."""


class Sessions:
    """The sessions of a server."""

    def __init__(self) -> None:
        self._open: set[_Session] = set()
        self._draining = False

    def drain(self) -> None:
        """End all sessions once they have answered what they have read."""
        self._draining = True
        for session in self._open:
            session.end()

    async def run(self, context: Context, serve: Serve) -> None:
        """Serve a session until its client, its age or draining ends it."""
        session = _Session(context, serve)
        self._open.add(session)
        # Jitter, so that clients that came together do not come back together.
        age = _MAX_AGE * random.uniform(0.8, 1.2)  # noqa: S311
        timer = asyncio.get_running_loop().call_later(age, session.end)
        if self._draining:
            session.end()
        try:
            await session.run()
        finally:
            timer.cancel()
            self._open.discard(session)


class _Session:
    def __init__(self, context: Context, serve: Serve) -> None:
        self._context = context
        self._serve = serve
        self._guard = guard.get()
        self._room = asyncio.Semaphore(_MAX_BATCHES)
        self._batches: set[asyncio.Task[None]] = set()
        # gRPC takes one message of a stream at a time.
        self._sending = asyncio.Lock()
        self._ending = False
        self._reader: asyncio.Task[Any] | None = None

    def end(self) -> None:
        """Read no further batch."""
        if self._ending:
            return
        self._ending = True
        if self._reader is not None:
            self._reader.cancel()

    def _ended(self) -> bool:
        return self._ending

    async def run(self) -> None:
        try:
            while (request := await self._next()) is not None:
                batch = asyncio.create_task(self._answer(request))
                self._batches.add(batch)
                batch.add_done_callback(self._answered)
            if self._batches:
                await asyncio.wait(self._batches)
        finally:
            for batch in self._batches:
                batch.cancel()

    async def _next(self) -> pb.SessionRequest | None:
        """Return the next batch, None at the end."""
        task = asyncio.current_task()
        assert task is not None
        if self._ended():
            return None
        # Cancelled rather than raced: a race would cost two tasks for each batch.
        self._reader = task
        try:
            await self._room.acquire()
            request = await self._context.read()
        except asyncio.CancelledError:
            if self._ended() and task.uncancel() == 0:
                return None
            raise
        finally:
            self._reader = None
        ended: Any = grpc.aio.EOF
        return None if request is ended else request

    async def _answer(self, request: pb.SessionRequest) -> None:
        counts = True

        def leave() -> None:
            nonlocal counts
            if counts:
                counts = False
                self._room.release()

        async def send(part: pb.SessionResponse) -> None:
            await self._send(part, request)
            if _takes_longer(part):
                leave()

        try:
            await self._answer_by(send, request)
        finally:
            leave()

    async def _answer_by(self, send: Send, request: pb.SessionRequest) -> None:
        kind = request.WhichOneof("batch")
        if kind is None:
            refusal: status_pb2.Status | None = status.of(
                errors.InvalidField("batch", "must be write, read or store")
            )
        else:
            batch = getattr(request, kind)
            refusal = await self._guard(_METHODS[kind], batch, lambda: self._serve(request, send))
        if refusal is not None:
            await self._send(pb.SessionResponse(status=refusal), request)

    async def _send(self, response: pb.SessionResponse, request: pb.SessionRequest) -> None:
        response.call_id = request.call_id
        charge_message(response)
        async with self._sending:
            await self._context.write(response)

    def _answered(self, batch: asyncio.Task[None]) -> None:
        self._batches.discard(batch)
        if not batch.cancelled():
            # It can only be that the stream is gone, which the reader learns, too.
            batch.exception()


def _takes_longer(part: pb.SessionResponse) -> bool:
    """Tell whether operations of the batch are still under way, rather than results on their way."""
    if not part.more or part.HasField("read"):
        return False
    return bool(part.positions) or not (part.write.results or part.store.results)
