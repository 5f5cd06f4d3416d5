"""Sessions: many Write and Read batches over one long-lived stream.

A session is a transport: each batch passes the gate as a call of its own does, and is served by the same
code. At most a few batches of a session run at once; beyond that its stream is not read, so that HTTP/2
holds the sender back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import status_pb2
from tenure.v1 import checkpoints_pb2 as pb

from tenure_server import errors
from tenure_server.services.caller import guard
from tenure_server.wire import status

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

Serve = Callable[[pb.SessionRequest], AsyncIterator[pb.SessionResponse]]
"""Serves one batch; yields the parts of its answer without call ids."""

_MAX_BATCHES = 8
"""Batches of one session at a time; two lanes of a client have four."""
_MAX_AGE = 300.0
"""Seconds after which a session ends at the next chance, so that clients spread over replicas anew."""


class Sessions:
    """The sessions of a server."""

    def __init__(self) -> None:
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """End all sessions once they have answered what they have read."""
        self._draining.set()

    async def run(self, context: Context, serve: Serve) -> None:
        """Serve a session until its client, its age or draining ends it."""
        ending = asyncio.create_task(self._end())
        try:
            await _Session(context, serve).run(ending)
        finally:
            ending.cancel()

    async def _end(self) -> None:
        with suppress(TimeoutError):
            # Jitter, so that clients that came together do not come back together.
            await asyncio.wait_for(self._draining.wait(), _MAX_AGE * random.uniform(0.8, 1.2))  # noqa: S311


class _Session:
    def __init__(self, context: Context, serve: Serve) -> None:
        self._context = context
        self._serve = serve
        self._guard = guard.get()
        self._room = asyncio.Semaphore(_MAX_BATCHES)
        self._batches: set[asyncio.Task[None]] = set()
        # gRPC takes one message of a stream at a time.
        self._sending = asyncio.Lock()

    async def run(self, ending: asyncio.Task[None]) -> None:
        try:
            while (request := await self._next(ending)) is not None:
                batch = asyncio.create_task(self._answer(request))
                self._batches.add(batch)
                batch.add_done_callback(self._answered)
            if self._batches:
                await asyncio.wait(self._batches)
        finally:
            for batch in self._batches:
                batch.cancel()

    async def _next(self, ending: asyncio.Task[None]) -> pb.SessionRequest | None:
        """Return the next batch, None at the end."""
        await self._room.acquire()
        reading = asyncio.ensure_future(self._context.read())
        try:
            await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not reading.done():
                reading.cancel()
        if reading.cancelled() or not reading.done():
            return None
        request = reading.result()
        return None if request is grpc.aio.EOF else request

    async def _answer(self, request: pb.SessionRequest) -> None:
        kind = request.WhichOneof("batch")
        if kind is None:
            refusal: status_pb2.Status | None = status.of(
                errors.InvalidField("batch", "must be write or read")
            )
        else:
            message = request.write if kind == "write" else request.read
            refusal = await self._guard(kind.capitalize(), message, lambda: self._send_parts(request))
        if refusal is not None:
            await self._send(pb.SessionResponse(status=refusal), request)

    async def _send_parts(self, request: pb.SessionRequest) -> None:
        async for part in self._serve(request):
            await self._send(part, request)

    async def _send(self, response: pb.SessionResponse, request: pb.SessionRequest) -> None:
        response.call_id = request.call_id
        async with self._sending:
            await self._context.write(response)

    def _answered(self, batch: asyncio.Task[None]) -> None:
        self._batches.discard(batch)
        self._room.release()
        if not batch.cancelled():
            # It can only be that the stream is gone, which the reader learns, too.
            batch.exception()
