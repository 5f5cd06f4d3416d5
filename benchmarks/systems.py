"""What is compared, and how a client process opens each of them: as its documentation says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from langgraph.checkpoint.base import BaseCheckpointSaver

POOL = 16
"""Connections of a PostgresSaver's pool."""
Kind = Literal["memory", "postgres", "sqlite", "plainredis", "redis", "tenure"]


@dataclass(frozen=True)
class System:
    """One saver in one configuration, and the store that comes with it.

    Attributes:
        name: As on the command line.
        label / store_label: As in tables about checkpoints, and about long-term memory.
        kind: Whose it is.
        blocking: Driven through the blocking API, one thread per conversation.
        tls: Over TLS.
        workers: Processes of the server, if it is ours.
        durable: Whether an answer means that the data is on disk.
    """

    name: str
    label: str
    kind: Kind
    blocking: bool = False
    tls: bool = False
    workers: int = 1
    durable: bool = True
    store_label: str = ""


REFERENCE = "postgres"
"""The system that ratios refer to."""
BLOCKING_REFERENCE = "postgres-sync"

SYSTEMS = {
    system.name: system
    for system in (
        System("memory", "InMemorySaver", "memory", durable=False, store_label="InMemoryStore"),
        System(
            "postgres",
            f"AsyncPostgresSaver (pool {POOL})",
            "postgres",
            store_label=f"AsyncPostgresStore (pool {POOL})",
        ),
        System(
            "postgres-sync",
            f"PostgresSaver (pool {POOL}), sync",
            "postgres",
            blocking=True,
            store_label=f"PostgresStore (pool {POOL}), sync",
        ),
        System("sqlite", "AsyncSqliteSaver", "sqlite"),
        System("plainredis", "plainredis (not durable)", "plainredis", durable=False),
        System("redis", "langgraph-checkpoint-redis", "redis", durable=False),
        System("tenure", "Tenure", "tenure", store_label="Tenure"),
        System("tenure-sync", "Tenure, sync", "tenure", blocking=True, store_label="Tenure, sync"),
        System("tenure-tls", "Tenure over TLS", "tenure", tls=True),
        System("tenure-w2", "Tenure, 2 workers", "tenure", workers=2),
    )
}


@dataclass(frozen=True)
class Endpoint:
    """Where a system is.

    Attributes:
        target: URL, host:port or file; "" for memory.
        api_key: Of Tenure.
        ca: PEM file with the certificate to trust, if TLS is used.
    """

    target: str = ""
    api_key: str = ""
    ca: str | None = None


@asynccontextmanager
async def open_saver(system: System, endpoint: Endpoint) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    """Open a saver for one client process. Packages of other systems are not imported."""
    if system.kind == "memory":
        from langgraph.checkpoint.memory import InMemorySaver

        yield InMemorySaver()
    elif system.kind == "tenure":
        from tenure_client import TenureSaver

        # The other savers have no deadline: an overloaded one is to be slow here, too.
        async with TenureSaver(
            endpoint.target, api_key=endpoint.api_key, ca=endpoint.ca, timeout=60.0
        ) as tenure:
            yield tenure
    elif system.kind == "postgres":
        async with _open_postgres(endpoint.target, blocking=system.blocking) as postgres:
            yield postgres
    elif system.kind == "sqlite":
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        async with AsyncSqliteSaver.from_conn_string(endpoint.target) as sqlite:
            yield sqlite
    elif system.kind == "plainredis":
        from langgraph_checkpoint_plainredis import AsyncRedisSaver as PlainRedisSaver
        from redis.asyncio import BlockingConnectionPool, Redis

        # Its own pool refuses more than 100 calls at a time; this one, with redis-py's default size, waits.
        connections = BlockingConnectionPool.from_url(endpoint.target, protocol=2, timeout=None)
        plain = PlainRedisSaver(Redis.from_pool(connections))
        try:
            yield plain
        finally:
            await plain.aclose()
    else:
        from langgraph.checkpoint.redis.aio import AsyncRedisSaver

        async with AsyncRedisSaver.from_conn_string(endpoint.target) as modules:
            await modules.asetup()
            yield modules


@asynccontextmanager
async def _open_postgres(url: str, *, blocking: bool) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    from psycopg.rows import dict_row

    kwargs = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    # All connections at once: a pool that grows while it is measured would be at a disadvantage.
    if blocking:
        from langgraph.checkpoint.postgres import PostgresSaver
        from psycopg_pool import ConnectionPool

        with ConnectionPool(url, min_size=POOL, max_size=POOL, kwargs=kwargs) as pool:
            pool.wait()
            yield PostgresSaver(pool)  # type: ignore[arg-type]
    else:
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
        from psycopg_pool import AsyncConnectionPool

        async with AsyncConnectionPool(
            url, min_size=POOL, max_size=POOL, kwargs=kwargs, open=False
        ) as async_pool:
            await async_pool.wait()
            yield AsyncPostgresSaver(async_pool)  # type: ignore[arg-type]
