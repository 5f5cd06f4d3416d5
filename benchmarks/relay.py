"""A TCP relay on loopback that counts bytes. Used in separate passes only: it costs time itself."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

_HOST = "127.0.0.1"
_CHUNK = 1 << 18


class CountingRelay:
    """Passes connections on to one server and counts what goes through. A context manager.

    Attributes:
        sent: Bytes from clients to the server so far.
        received: Bytes from the server to clients so far.
    """

    def __init__(self, target: str) -> None:
        """Describe it.

        Args:
            target: "host:port", or a URL with them in it.
        """
        place = urlsplit(target if "//" in target else f"//{target}")
        if place.hostname is None or place.port is None:
            raise ValueError("the target needs a host and a port")
        self._upstream = (place.hostname, place.port)
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._links: set[asyncio.Task[None]] = set()
        self.sent = 0
        self.received = 0

    @property
    def total(self) -> int:
        """Bytes in both directions so far."""
        return self.sent + self.received

    def through(self, target: str) -> str:
        """Return a target, "host:port" or a URL, with the relay in place of the server."""
        if "//" not in target:
            return f"{_HOST}:{self._port}"
        parts = urlsplit(target)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}{_HOST}:{self._port}"))

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._accept, _HOST, 0)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._listener.close()
        for link in list(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        link.add_done_callback(self._links.discard)
        try:
            upstream = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        try:
            await asyncio.gather(
                self._pump(reader, upstream[1], sent=True), self._pump(upstream[0], writer, sent=False)
            )
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            upstream[1].transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, sent: bool) -> None:
        while data := await source.read(_CHUNK):
            if sent:
                self.sent += len(data)
            else:
                self.received += len(data)
            sink.write(data)
            await sink.drain()
        with suppress(OSError):
            sink.write_eof()
