"""A sweeper at work in a client process, and the policy that gives it something to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tenure_server.keys import ApiKey
from tenure_server.retention import Policy, Threads
from tenure_server.storage.postgres.ops_pool import OpsPool
from tenure_server.storage.postgres.pool import Database
from tenure_server.storage.postgres.retention import PostgresRetention
from tenure_server.storage.postgres.retention_sweeping import PolicySweeping
from tenure_server.storage.postgres.sweeper import Sweeper

_SETTLE = 0.0
"""Seconds for which rows of what has expired stay. A server lets them stay for 5 minutes."""


@dataclass
class Swept:
    """What a sweeper did.

    Attributes:
        runs: How often it looked.
        deleted: Checkpoints that went.
    """

    runs: int = 0
    deleted: int = 0


async def keep_last(ops_url: str, app_url: str, api_key: str, prefix: str, count: int) -> None:
    """Set a policy for a tenant's threads.

    Args:
        ops_url / app_url: The database as `tenure_ops` and as `tenure_app`.
        api_key: One of the tenant's.
        prefix: Of the threads' ids.
        count: Checkpoints that stay of each.
    """
    key = ApiKey.parse(api_key)
    assert key is not None
    async with _database(app_url) as database:
        pool = await OpsPool.open(ops_url)
        try:
            retention = PostgresRetention(pool, database, _SETTLE)
            await retention.set_policy(key.tenant, Policy(Threads(prefix), keep_last=count))
        finally:
            await pool.close()


@asynccontextmanager
async def sweeping(ops_url: str, app_url: str) -> AsyncIterator[Sweeper]:
    """Give a sweeper that has not swept yet."""
    async with _database(app_url) as database:
        yield Sweeper(ops_url, PolicySweeping(database, _SETTLE))


async def sweep(sweeper: Sweeper, interval: float, seconds: float) -> Swept:
    """Delete what has expired until now, then sweep again and again.

    Args:
        sweeper: Which.
        interval: Seconds from the end of a run to the next.
        seconds: For how long, in all.

    Returns:
        What it did after that beginning.
    """
    end = time.monotonic() + seconds
    while (await sweeper.run_once()).expired_checkpoints:
        pass
    swept = Swept()
    while time.monotonic() < end:
        swept.deleted += (await sweeper.run_once()).expired_checkpoints
        swept.runs += 1
        await asyncio.sleep(interval)
    return swept


@asynccontextmanager
async def _database(app_url: str) -> AsyncIterator[Database]:
    database = await Database.open(app_url, max_size=2, application_name="benchmark sweeper")
    try:
        yield database
    finally:
        await database.close()
