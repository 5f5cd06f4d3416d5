"""Tests of what only the Postgres adapter promises, and how they watch other sessions."""

from __future__ import annotations

import asyncio
from typing import Any

from psycopg import AsyncConnection

Session = AsyncConnection[Any]

_WAITERS = "SELECT pid FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"


async def blocked_by(holder: Session, admin_url: str) -> list[int]:
    """Return once a session waits for a lock of the holder: the process ids of all that do."""
    async with await AsyncConnection.connect(admin_url, autocommit=True) as watcher:
        while True:
            cursor = await watcher.execute(_WAITERS, [holder.info.backend_pid])
            waiters = [pid for (pid,) in await cursor.fetchall()]
            if waiters:
                return waiters
            await asyncio.sleep(0.01)
