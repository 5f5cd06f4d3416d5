"""A TCP proxy on loopback that does what networks do: delay, cut, reset, swallow, refuse, lose a reply.

It runs in a thread of its own, so tests of any colour use it the same way. All methods return when the
fault is in force.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

from tests.harness.framing import Framing, PostgresFraming, ReplyFraming

HOST = "127.0.0.1"
_CHUNK = 1 << 16
T = TypeVar("T")


class FaultProxy:
    """A proxy in front of one server. A context manager.

    Attributes:
        port: On 127.0.0.1, the same for its whole life.
        cuts: Replies that were dropped by `cut_reply`.
        connections: Connections that were accepted so far.
    """

    def __init__(self, target: str, *, postgres: bool = False) -> None:
        """Start it.

        Args:
            target: "host:port", or a URL with them in it.
            postgres: The server speaks Postgres' protocol without TLS: `cut_reply` then drops whole
                replies, from the marked request to the server's ReadyForQuery.
        """
        place = urlsplit(target if "//" in target else f"//{target}")
        if place.hostname is None or place.port is None:
            raise ValueError(f"{target}: needs a host and a port")
        self._upstream = (place.hostname, place.port)
        self._framing: Callable[[], Framing] = PostgresFraming if postgres else ReplyFraming
        self._latency = 0.0
        self._links: set[_Link] = set()
        self._marker = b""
        self._every = 0
        self._seen = 0
        self.cuts = 0
        self.connections = 0
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self._flowing = asyncio.Event()
        self._loop.call_soon_threadsafe(self._flowing.set)
        self.port = 0
        self._run(self._listen())

    @property
    def target(self) -> str:
        """host:port of the proxy."""
        return f"{HOST}:{self.port}"

    def url(self, url: str) -> str:
        """Return a server's URL with the proxy in place of the server."""
        parts = urlsplit(url)
        user = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{user}@{self.target}" if user else self.target))

    def delay(self, seconds: float) -> None:
        """Delay every piece of data, in both directions; 0 ends it."""
        self._latency = seconds

    def cut(self) -> None:
        """Close all connections, as a server that goes away in an orderly way."""
        self._run(self._end_all(reset=False))

    def reset(self) -> None:
        """Reset all connections, as a crashed host's network stack does."""
        self._run(self._end_all(reset=True))

    def black_hole(self) -> None:
        """Let nothing pass, in either direction, while connections stay open and can be made."""
        self._loop.call_soon_threadsafe(self._flowing.clear)
        self._run(_nothing())

    def refuse(self) -> None:
        """Refuse new connections; those that are open stay."""
        self._run(self._close_listener())

    def heal(self) -> None:
        """End every fault; what a black hole held back passes now."""
        self._latency, self._marker, self._every = 0.0, b"", 0
        self._loop.call_soon_threadsafe(self._flowing.set)
        self._run(self._listen())

    def cut_reply(self, marker: bytes, *, every: int = 1) -> None:
        """Let each n-th request that contains `marker` through, then drop its reply and reset.

        The server has done the work by then, and the client cannot know.
        """
        self._marker, self._every, self._seen = marker, every, 0

    def close(self) -> None:
        """End the proxy with all connections."""
        if self._loop.is_closed():
            return
        self._run(self._close_listener())
        self._run(self._end_all(reset=False))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._accept, HOST, self.port)
            self.port = self._listener.sockets[0].getsockname()[1]

    async def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _end_all(self, *, reset: bool) -> None:
        links = list(self._links)
        for link in links:
            link.end(reset=reset)
        await asyncio.gather(*(link.done.wait() for link in links))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            upstream = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        link = _Link((reader, writer), upstream, self._framing())
        self._links.add(link)
        try:
            await asyncio.gather(self._to_server(link), self._to_client(link))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            link.end(reset=False)
            self._links.discard(link)
            link.done.set()

    async def _to_server(self, link: _Link) -> None:
        while data := await link.client[0].read(_CHUNK):
            await self._pass()
            # Fed always: a connection may be older than the fault.
            marked = link.framing.sent(data, self._marker)
            if self._marker and marked:
                self._seen += 1
                if self._seen % self._every == 0:
                    link.framing.doom()
            link.server[1].write(data)
            await link.server[1].drain()
        link.server[1].write_eof()

    async def _to_client(self, link: _Link) -> None:
        while data := await link.server[0].read(_CHUNK):
            await self._pass()
            verdict = link.framing.received(data)
            if verdict == "cut":
                self.cuts += 1
                link.end(reset=True)
                return
            if verdict == "pass":
                link.client[1].write(data)
                await link.client[1].drain()
        link.client[1].write_eof()

    async def _pass(self) -> None:
        if self._latency:
            await asyncio.sleep(self._latency)
        await self._flowing.wait()


class _Link:
    """One connection through the proxy."""

    Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]

    def __init__(self, client: Pair, server: Pair, framing: Framing) -> None:
        self.client = client
        self.server = server
        self.framing = framing
        self.done = asyncio.Event()
        self._task = asyncio.current_task()

    def end(self, *, reset: bool) -> None:
        """Close both sides; what is under way is lost."""
        for _, writer in (self.client, self.server):
            if reset and not writer.transport.is_closing():
                peer: socket.socket = writer.get_extra_info("socket")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()


async def _nothing() -> None:
    """Run after what was scheduled before."""
