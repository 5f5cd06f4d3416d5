"""Sessions: the long-lived streams on which lanes send their batches, one class for each colour.

A batch on an open stream costs half of what a call of its own does, on both sides. A session that has
ended, because the server drains or the connection was lost, fails what it was carrying and is replaced; the
operations are repeated by their own retry loops.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import grpc
from tenure.v1 import checkpoints_pb2 as pb

from tenure_client.errors import TenureError, Unavailable
from tenure_client.statuses import from_rpc

_BROKEN = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
"""How gRPC calls a stream that was reset, or that ended while a message was being sent."""
_REST = 0.5
"""Seconds that a fork waits for a session to end."""
_SECOND_THOUGHT = 0.01
"""Seconds after which the server is told that a batch on a loop was given up. Most have been answered by
then; and a loop that is being closed forgets a timer, but complains about a task."""

Metadata = tuple[tuple[str, str], ...]
OnAnswer = Callable[[Any], None]
"""Is called with each SessionResponse of a batch, or once with a TenureError."""
Cancel = Callable[[], None]
"""Tells the server that nobody waits for a batch any more."""


class Session(Protocol):
    """A stream that carries batches."""

    @property
    def ended(self) -> bool:
        """Whether another session must be opened for further batches."""
        ...

    def send(self, request: pb.SessionRequest, on_answer: OnAnswer) -> Cancel:
        """Send a batch without waiting.

        Returns:
            What cancels it on the server; its answer comes all the same.

        Raises:
            Unavailable: The session has ended.
        """
        ...

    def close(self) -> None:
        """End the stream; batches under way fail."""
        ...


class _Batches:
    """The batches that wait for answers, by call id."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._waiting: dict[int, OnAnswer] = {}
        self._lock = threading.Lock()
        self._why = "the session has ended"
        self.ended = False

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, call_id: int) -> bool:
        return call_id in self._waiting

    def add(self, request: pb.SessionRequest, on_answer: OnAnswer) -> int:
        """Give a batch its call id, and return that."""
        with self._lock:
            if self.ended:
                # For whoever tries until its time is over: why nothing came of it.
                raise Unavailable(self._why)
            call_id = request.call_id = next(self._ids)
            self._waiting[call_id] = on_answer
            return call_id

    def answered(self, response: pb.SessionResponse) -> None:
        with self._lock:
            if response.more:
                on_answer = self._waiting.get(response.call_id)
            else:
                on_answer = self._waiting.pop(response.call_id, None)
        if on_answer is not None:
            on_answer(response)

    def end(self, error: TenureError) -> None:
        with self._lock:
            self.ended = True
            self._why = error.message
            lost, self._waiting = list(self._waiting.values()), {}
        for on_answer in lost:
            on_answer(error)


def _finished() -> TenureError:
    return Unavailable("the server ended the session; retry", maybe_applied=True)


def _lost(failure: grpc.RpcError) -> TenureError:
    """Return what a batch under way is told when its session fails."""
    call: Any = failure
    error = from_rpc(failure)
    if call.code() in _BROKEN and not error.metadata:
        # A stream that breaks off: batches that the server itself cannot serve have statuses of their own.
        return Unavailable(f"the session was lost: {error.message}", maybe_applied=True)
    return error


class AioSession:
    """A session on an event loop. Its tasks live only while batches are under way."""

    def __init__(self, stub: Any, metadata: Metadata) -> None:
        self._call: grpc.aio.StreamStreamCall[Any, Any] = stub.Session(metadata=metadata)
        self._batches = _Batches()
        self._outbox: deque[pb.SessionRequest] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        return self._batches.ended or self._call.done()

    def send(self, request: pb.SessionRequest, on_answer: OnAnswer) -> Cancel:
        call_id = self._batches.add(request, on_answer)
        self._put(request)
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())
        return partial(self._cancel_soon, call_id)

    def _cancel_soon(self, call_id: int) -> None:
        asyncio.get_running_loop().call_later(_SECOND_THOUGHT, self._cancel, call_id)

    def _cancel(self, call_id: int) -> None:
        if call_id in self._batches:
            self._put(pb.SessionRequest(call_id=call_id, cancel=True))

    def _put(self, request: pb.SessionRequest) -> None:
        self._outbox.append(request)
        # gRPC takes one message at a time.
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())

    def close(self) -> None:
        self._call.cancel()

    async def _write(self) -> None:
        try:
            while self._outbox:
                await self._call.write(self._outbox.popleft())
        except (grpc.RpcError, asyncio.InvalidStateError):
            # The reader learns why.
            self._outbox.clear()
        finally:
            self._writer = None

    async def _read(self) -> None:
        error: TenureError | None = None
        try:
            while self._batches:
                response: Any = await self._call.read()
                if response is grpc.aio.EOF:
                    error = _finished()
                    break
                self._batches.answered(response)
        except grpc.RpcError as lost:
            error = _lost(lost)
        except asyncio.CancelledError:
            error = Unavailable("the connection was closed", maybe_applied=True)
            raise
        finally:
            self._reader = None
            if error is not None:
                self._batches.end(error)
                self._call.cancel()


class SyncSession:
    """A session for blocking callers, with a thread that takes the answers."""

    def __init__(self, stub: Any, metadata: Metadata) -> None:
        self._outbox: queue.SimpleQueue[pb.SessionRequest | None] = queue.SimpleQueue()
        self._batches = _Batches()
        self._call = stub.Session(iter(self._outbox.get, None), metadata=metadata)
        self._reader = threading.Thread(target=self._read, name="tenure-session", daemon=True)
        self._reader.start()

    @property
    def ended(self) -> bool:
        return self._batches.ended

    def send(self, request: pb.SessionRequest, on_answer: OnAnswer) -> Cancel:
        call_id = self._batches.add(request, on_answer)
        self._outbox.put(request)
        return partial(self._cancel, call_id)

    def _cancel(self, call_id: int) -> None:
        self._outbox.put(pb.SessionRequest(call_id=call_id, cancel=True))

    def close(self) -> None:
        self._call.cancel()

    def rest(self) -> None:
        """End the stream unless batches are under way, and wait until its thread is out of gRPC."""
        if not self._batches:
            self._call.cancel()
            self._reader.join(_REST)

    def _read(self) -> None:
        error = _finished()
        try:
            for response in self._call:
                self._batches.answered(response)
        except grpc.RpcError as lost:
            error = _lost(lost)
        finally:
            self._outbox.put(None)
            self._batches.end(error)
