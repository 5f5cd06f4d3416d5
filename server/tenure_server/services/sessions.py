"""Sessions: many batches of Write, Read and the store's Batch over one long-lived stream.

A session is a transport: each batch passes the gate as a call of its own does, and is served by the same
code. At most a few batches of a session run at once; beyond that its stream is not read, so that HTTP/2
holds the sender back. A client may give a batch up, as it may a call of its own.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import code_pb2, status_pb2
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
_CANCELLED = status_pb2.Status(code=code_pb2.CANCELLED, message="the client gave the batch up")
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


class _Batch:
    """A batch that is being served, and may be given up.

    Attributes:
        call_id: Its client's name for it.
        task: Serves it.
    """

    __slots__ = ("_broken_off", "_ends", "_sending", "_unwanted", "call_id", "task")

    def __init__(self, call_id: int) -> None:
        self.call_id = call_id
        self.task: asyncio.Task[None] | None = None
        self._sending = 0
        self._ends = False
        self._unwanted = False
        self._broken_off = False

    def give_up(self) -> None:
        """Break it off, unless its answer is on its way."""
        self._unwanted = True
        self._look()

    @contextmanager
    def sending(self, part: pb.SessionResponse) -> Iterator[None]:
        """Run a block that sends a part; it is not broken off, after which gRPC would take no other part."""
        self._sending += 1
        self._ends = self._ends or not part.more
        try:
            yield
        finally:
            self._sending -= 1
            if self._unwanted:
                # Not at once: this may be the task that would be cancelled, about to send the next part.
                asyncio.get_running_loop().call_soon(self._look)

    def given_up(self) -> bool:
        """Tell whether its task was cancelled because of `give_up` alone, and take that back then."""
        return self._broken_off and self.task is not None and self.task.uncancel() == 0

    def _look(self) -> None:
        if self._unwanted and not (self._broken_off or self._sending or self._ends) and self.task is not None:
            self._broken_off = True
            self.task.cancel()


class _Session:
    def __init__(self, context: Context, serve: Serve) -> None:
        self._context = context
        self._serve = serve
        self._guard = guard.get()
        self._room = asyncio.Semaphore(_MAX_BATCHES)
        self._batches: dict[asyncio.Task[None], _Batch] = {}
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
                if request.cancel:
                    self._room.release()
                    self._give_up(request.call_id)
                    continue
                batch = _Batch(request.call_id)
                batch.task = asyncio.create_task(self._answer(request, batch))
                self._batches[batch.task] = batch
                batch.task.add_done_callback(self._answered)
            if self._batches:
                await asyncio.wait(self._batches)
        finally:
            for task in self._batches:
                task.cancel()

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

    def _give_up(self, call_id: int) -> None:
        for batch in self._batches.values():
            if batch.call_id == call_id:
                batch.give_up()

    async def _answer(self, request: pb.SessionRequest, batch: _Batch) -> None:
        counts = True

        def leave() -> None:
            nonlocal counts
            if counts:
                counts = False
                self._room.release()

        async def send(part: pb.SessionResponse) -> None:
            with batch.sending(part):
                await self._send(part, request)
            if _takes_longer(part):
                leave()

        try:
            await self._answer_by(send, request)
        except asyncio.CancelledError:
            if not batch.given_up():
                raise
            await self._send(pb.SessionResponse(status=_CANCELLED), request)
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
            await send(pb.SessionResponse(status=refusal))

    async def _send(self, response: pb.SessionResponse, request: pb.SessionRequest) -> None:
        response.call_id = request.call_id
        charge_message(response)
        async with self._sending:
            await self._context.write(response)

    def _answered(self, task: asyncio.Task[None]) -> None:
        del self._batches[task]
        if not task.cancelled():
            # It can only be that the stream is gone, which the reader learns, too.
            task.exception()


def _takes_longer(part: pb.SessionResponse) -> bool:
    """Tell whether operations of the batch are still under way, rather than results on their way."""
    if not part.more or part.HasField("read"):
        return False
    return bool(part.positions) or not (part.write.results or part.store.results)
