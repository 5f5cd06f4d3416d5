"""Connections as `tenure_ops` for what administers: a pool of its own, so that payloads never wait for it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.errors import InsufficientPrivilege, InvalidParameterValue
from psycopg_pool import AsyncConnectionPool

from tenure_server.errors import ConfigError
from tenure_server.storage.postgres import faults

_MAX_SIZE = 4
_TIMEOUT = 3.0
_KWARGS: dict[str, Any] = {
    "autocommit": True,
    "prepare_threshold": None,
    "application_name": "tenure admin",
    "connect_timeout": 5,
}

_log = logging.getLogger("tenure")


class OpsPool:
    """A few connections, each acting as `tenure_ops`."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[Any]]) -> None:
        self._pool = pool

    @classmethod
    async def open(cls, dsn: str) -> OpsPool:
        """Open it. An unreachable database is no error, but is logged.

        Args:
            dsn: As `tenure_ops`, or as a role that may act as it.

        Raises:
            ConfigError: The role may not, or this is no URL.
        """
        try:
            async with await AsyncConnection.connect(dsn, **_KWARGS) as connection:
                await _configure(connection)
        except psycopg.OperationalError as error:
            _log.warning("TENURE_OPS_DATABASE_URL: cannot connect yet (%s)", type(error).__name__)
        except (InsufficientPrivilege, InvalidParameterValue):
            raise ConfigError(
                ["TENURE_OPS_DATABASE_URL: its role may not act as tenure_ops; connect as tenure_ops"]
            ) from None
        except psycopg.ProgrammingError as error:
            raise ConfigError(
                [f"TENURE_OPS_DATABASE_URL is not a Postgres URL ({type(error).__name__})"]
            ) from None
        pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
            dsn,
            kwargs=_KWARGS,
            min_size=0,
            max_size=_MAX_SIZE,
            open=False,
            name="tenure admin",
            timeout=_TIMEOUT,
            max_waiting=100,
            max_idle=60.0,
            configure=_configure,
            check=AsyncConnectionPool.check_connection,
        )
        await pool.open(wait=False)
        return cls(pool)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[Any]]:
        """Give a connection; each statement is a transaction unless the block begins one.

        Raises:
            Unavailable: The database is away.
            TenureError: What the block's statements fail with, see `faults`.
        """
        with faults.translated():
            async with self._pool.connection() as connection:
                yield connection

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close(timeout=1.0)


async def _configure(connection: AsyncConnection[Any]) -> None:
    await connection.execute("SET ROLE tenure_ops")
    await connection.execute("SELECT set_config('statement_timeout', '10s', false)")
