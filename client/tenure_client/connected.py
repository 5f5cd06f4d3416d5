"""What TenureSaver, TenureStore and TenureCache share: a connection, which is their own or is shared."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Self

from tenure_client import calls
from tenure_client.connection import Connection


class Done:
    """Already done, and may be awaited."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


class Connected:
    """Has a connection, and closes it if it made it; a context manager of either colour.

    Attributes:
        connection: The connection, to be shared with savers and stores.
    """

    connection: Connection
    _owns_connection: bool

    def _connect(
        self,
        target_or_connection: str | Connection | None,
        *,
        api_key: str | None,
        timeout: float,
        ca: str | os.PathLike[str] | None,
        insecure: bool,
        connections: int,
    ) -> None:
        """Take the connection that is given, or make one of a target; see `Connection.of`."""
        self._owns_connection = not isinstance(target_or_connection, Connection)
        self.connection = Connection.of(
            target_or_connection,
            api_key=api_key,
            timeout=timeout,
            ca=ca,
            insecure=insecure,
            connections=connections,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.connection!r})"

    def close(self) -> None:
        """Close the connection if it is our own; it is opened again by the next operation."""
        if self._owns_connection:
            self.connection.close()

    async def aclose(self) -> None:
        """Close the connection if it is our own; see `close`."""
        if self._owns_connection:
            await self.connection.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class SetUp(Connected):
    """Has the `setup` that LangGraph's Postgres saver and store have."""

    def setup(self) -> Done:
        """Check, blocking, that the server answers and accepts the key; nothing has to be created.

        Returns:
            Something that may be awaited, as AsyncPostgresSaver's `setup` must be.
        """
        self.connection.run("tenure.server_info", calls.server_info())
        return Done()

    async def asetup(self) -> None:
        """Check that the server answers and accepts the key, without blocking the event loop."""
        await self.connection.arun("tenure.server_info", calls.server_info())
