"""gRPC channels: sync ones per process, asyncio ones per running loop.

All are made at first use. An aio channel belongs to the loop that made it; those of closed loops are
dropped at the next use from another loop. A forked child forgets its parent's channels, whose sockets
both would write to, and makes its own.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1.cache_pb2_grpc import CacheServiceStub
from tenure.v1.checkpoints_pb2_grpc import CheckpointServiceStub
from tenure.v1.server_pb2_grpc import ServerServiceStub
from tenure.v1.store_pb2_grpc import StoreServiceStub

from tenure_client.company import Company
from tenure_client.errors import Unavailable
from tenure_client.lanes import Lane
from tenure_client.riding import TaskRides, ThreadRides
from tenure_client.sessions import AioSession, Cancel, Metadata, OnAnswer, Session, SyncSession
from tenure_client.target import Target

C = TypeVar("C", grpc.Channel, grpc.aio.Channel)
R = TypeVar("R", ThreadRides, TaskRides)

_MIB = 1024 * 1024
_MAX_TRANSFERS = 2
"""Transfers in slices at a time, of blocking callers and on each loop. They share the connection's bandwidth
anyway, and the server refuses a tenant's fifth."""
_MAX_SEARCHES = 4
"""Batches of searches at a time. The server works on as many searches of a tenant: in one batch they would
wait for one another."""
OPTIONS: Sequence[tuple[str, Any]] = (
    # Larger messages travel in slices; the limits stay modest so that no peer can fill our memory.
    ("grpc.max_receive_message_length", 4 * _MIB),
    ("grpc.max_send_message_length", 2 * _MIB),
    # Our own loop retries: gRPC's stops silently at requests of 256 KiB.
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 90_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # With the shared pool several channels to one server would share one connection, even across a fork.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
)

_all: weakref.WeakSet[Channels] = weakref.WeakSet()


class Stub:
    """The RPCs of one channel, by name."""

    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None:
        self._services = (
            CheckpointServiceStub(channel),
            StoreServiceStub(channel),
            CacheServiceStub(channel),
            ServerServiceStub(channel),
        )

    def __getattr__(self, method: str) -> Any:
        for service in self._services:
            if hasattr(service, method):
                rpc = getattr(service, method)
                setattr(self, method, rpc)
                return rpc
        raise AttributeError(method)


class _Pool(Generic[C, R]):
    """The channels of one process or loop, used in turn, with their sessions and lanes.

    Attributes:
        writes: The lane of the operations that change checkpoints.
        reads: The lane of the reads of checkpoints.
        lanes: The lane of each batched method; items have lanes of their own, so that neither kind waits for
            the other.
        room: Held by a blocking caller while it moves a large value.
        aroom: Held by a task while it moves one.
    """

    def __init__(
        self,
        make: Callable[[], C],
        size: int,
        open_session: Callable[[Stub], Session],
        rides: Callable[[Lane], R],
        company: Callable[[], Company | None],
    ) -> None:
        self.channels: list[C] = [make() for _ in range(size)]
        self._stubs = [Stub(channel) for channel in self.channels]
        self._turns = itertools.cycle(range(size))
        self._open_session = open_session
        self._sessions: dict[int, Session] = {}
        self._closed = False
        self._lock = threading.Lock()
        self.writes: R = rides(Lane(self._send))
        self.reads: R = rides(Lane(self._send))
        self.lanes: dict[str, R] = {
            "Write": self.writes,
            "Read": self.reads,
            # Between two checkpoints of a thread LangGraph works: nobody asks again at once.
            "WriteItems": rides(Lane(self._send, company())),
            "ReadItems": rides(Lane(self._send, company())),
            "SearchItems": rides(Lane(self._send, max_in_flight=_MAX_SEARCHES)),
        }
        self.room = threading.Semaphore(_MAX_TRANSFERS)
        self.aroom = asyncio.Semaphore(_MAX_TRANSFERS)

    def stub(self) -> Stub:
        return self._stubs[next(self._turns)]

    def sessions(self) -> Iterable[Session]:
        return self._sessions.values()

    def end(self) -> list[C]:
        """End the sessions for good and return the channels, to be closed."""
        with self._lock:
            self._closed = True
            sessions = list(self._sessions.values())
        for session in sessions:
            session.close()
        return self.channels

    def clear(self) -> None:
        """Let go of the channels at once: the lanes refer back to the pool and would keep it."""
        self._sessions.clear()
        self._stubs.clear()
        self.channels.clear()

    def _send(self, request: pb.SessionRequest, on_answer: OnAnswer) -> Cancel:
        turn = next(self._turns)
        with self._lock:
            if self._closed:
                raise Unavailable("the connection was closed")
            session = self._sessions.get(turn)
            if session is None or session.ended:
                session = self._sessions[turn] = self._open_session(self._stubs[turn])
        return session.send(request, on_answer)


class Channels:
    """Channels to one server, made as they are needed; safe to use from any thread and loop.

    Args:
        target: The server.
        connections: Channels per process and per loop.
    """

    def __init__(self, target: Target, connections: int) -> None:
        self._target = target
        self._credentials: Metadata = (("authorization", f"Bearer {target.api_key}"),)
        self._connections = connections
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._sync: _Pool[grpc.Channel, ThreadRides] | None = None
        self._aio: dict[asyncio.AbstractEventLoop, _Pool[grpc.aio.Channel, TaskRides]] = {}

    def sync(self) -> _Pool[grpc.Channel, ThreadRides]:
        """Return the RPCs and lanes for blocking calls."""
        pool = self._sync
        if pool is None:
            with self._lock:
                if self._sync is None:
                    self._sync = _Pool(
                        self._make_sync,
                        self._connections,
                        lambda stub: SyncSession(stub, self._credentials),
                        ThreadRides,
                        Company,
                    )
                pool = self._sync
        return pool

    def aio(self) -> _Pool[grpc.aio.Channel, TaskRides]:
        """Return the RPCs and lanes for the running loop."""
        loop = asyncio.get_running_loop()
        pool = self._aio.get(loop)
        if pool is None:
            with self._lock:
                self._drop_closed_loops()
                pool = self._aio[loop] = _Pool(
                    self._make_aio,
                    self._connections,
                    lambda stub: AioSession(stub, self._credentials),
                    partial(TaskRides, loop),
                    lambda: None,
                )
        return pool

    def metadata(self, traceparent: str) -> Metadata:
        """Return what goes with every RPC: the key, and the caller's trace if there is one."""
        return (*self._credentials, ("traceparent", traceparent)) if traceparent else self._credentials

    def close(self) -> None:
        """Close all channels; calls in flight on other threads fail. They are made again if needed."""
        with self._lock:
            sync, self._sync = self._sync, None
            self._aio.clear()
        for channel in sync.end() if sync else ():
            channel.close()

    async def aclose(self) -> None:
        """Close all channels, those of the running loop in an orderly way."""
        with self._lock:
            aio = self._aio.pop(asyncio.get_running_loop(), None)
        for channel in aio.end() if aio else ():
            await channel.close()
        self.close()

    def before_fork(self) -> None:
        """Drop what only stays because its loop was closed: gRPC cannot be forked while it polls for aio.

        It can while a thread waits for a stream, but says on stderr that it may not; so idle streams end.
        """
        with self._lock:
            dropped = self._drop_closed_loops()
            for session in self._sync.sessions() if self._sync else ():
                if isinstance(session, SyncSession):
                    session.rest()
        if dropped:
            # A stream and its tasks refer to one another, so that only the collector frees them.
            gc.collect()

    def _drop_closed_loops(self) -> bool:
        closed = [loop for loop in self._aio if loop.is_closed()]
        for loop in closed:
            self._aio.pop(loop).clear()
        return bool(closed)

    def forget(self) -> None:
        """Leave the channels of the parent process alone: closing them here would disturb it."""
        _inherited.append((self._sync, self._aio))
        self._reset()

    def _make_sync(self) -> grpc.Channel:
        credentials = self._target.credentials()
        if credentials is None:
            return grpc.insecure_channel(self._target.address, options=OPTIONS)
        return grpc.secure_channel(self._target.address, credentials, options=OPTIONS)

    def _make_aio(self) -> grpc.aio.Channel:
        credentials = self._target.credentials()
        if credentials is None:
            return grpc.aio.insecure_channel(self._target.address, options=OPTIONS)
        return grpc.aio.secure_channel(self._target.address, credentials, options=OPTIONS)


_inherited: list[object] = []
"""Channels of parent processes, kept so that they are never finalised here."""


def _before_fork() -> None:
    for channels in list(_all):
        channels.before_fork()


def _after_fork_in_child() -> None:
    for channels in list(_all):
        channels.forget()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
