"""gRPC channels: sync ones per process, asyncio ones per running loop.

All are made at first use. An aio channel belongs to the loop that made it; those of closed loops are
dropped at the next use from another loop. A forked child forgets its parent's channels, whose sockets
both would write to, and makes its own.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio
from tenure.v1.checkpoints_pb2_grpc import CheckpointServiceStub
from tenure.v1.server_pb2_grpc import ServerServiceStub

from tenure_client.target import Target

C = TypeVar("C", grpc.Channel, grpc.aio.Channel)

_MIB = 1024 * 1024
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
        self._services = (CheckpointServiceStub(channel), ServerServiceStub(channel))

    def __getattr__(self, method: str) -> Any:
        for service in self._services:
            if hasattr(service, method):
                rpc = getattr(service, method)
                setattr(self, method, rpc)
                return rpc
        raise AttributeError(method)


class _Pool(Generic[C]):
    """The channels of one process or loop, used in turn."""

    def __init__(self, make: Callable[[], C], size: int) -> None:
        self.channels: list[C] = [make() for _ in range(size)]
        self._stubs = itertools.cycle([Stub(channel) for channel in self.channels])

    def stub(self) -> Stub:
        return next(self._stubs)


class Channels:
    """Channels to one server, made as they are needed; safe to use from any thread and loop.

    Args:
        target: The server.
        connections: Channels per process and per loop.
    """

    def __init__(self, target: Target, connections: int) -> None:
        self._target = target
        self._connections = connections
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._sync: _Pool[grpc.Channel] | None = None
        self._aio: dict[asyncio.AbstractEventLoop, _Pool[grpc.aio.Channel]] = {}

    def sync_stub(self) -> Stub:
        """Return the RPCs for blocking calls."""
        pool = self._sync
        if pool is None:
            with self._lock:
                if self._sync is None:
                    self._sync = _Pool(self._make_sync, self._connections)
                pool = self._sync
        return pool.stub()

    def aio_stub(self) -> Stub:
        """Return the RPCs for the running loop."""
        loop = asyncio.get_running_loop()
        pool = self._aio.get(loop)
        if pool is None:
            with self._lock:
                self._drop_closed_loops()
                pool = self._aio[loop] = _Pool(self._make_aio, self._connections)
        return pool.stub()

    def close(self) -> None:
        """Close all channels; calls in flight on other threads fail. They are made again if needed."""
        with self._lock:
            sync, self._sync = self._sync, None
            self._aio.clear()
        for channel in sync.channels if sync else ():
            channel.close()

    async def aclose(self) -> None:
        """Close all channels, those of the running loop in an orderly way."""
        with self._lock:
            aio = self._aio.pop(asyncio.get_running_loop(), None)
        for channel in aio.channels if aio else ():
            await channel.close()
        self.close()

    def before_fork(self) -> None:
        """Drop what only stays because its loop was closed: gRPC cannot be forked while it polls for aio."""
        with self._lock:
            self._drop_closed_loops()

    def _drop_closed_loops(self) -> None:
        for closed in [loop for loop in self._aio if loop.is_closed()]:
            del self._aio[closed]

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
