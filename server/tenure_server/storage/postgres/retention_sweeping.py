"""What the sweeper does for policies: in each run it deletes what has expired of some threads and items.

Its leader's connection is `tenure_ops`, which may not read what tells what has expired; that is done by
`tenure_app`, within the tenant.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, LiteralString

from psycopg import AsyncConnection

from tenure_server import errors
from tenure_server.domain import TenantId
from tenure_server.storage.postgres.pool import Database
from tenure_server.storage.postgres.retention_lines import calling, draw_lines

SETTLE: Final = 300.0
"""Seconds for which the rows of what has expired stay, hidden: a run that began before others came after its
checkpoint may be under way, and what it puts refers to values of that one."""
CHECKPOINTS: Final = 100
"""Checkpoints that one transaction deletes at most, with what is theirs."""
_PAGE = 200
_PAGES = 50
"""Pages of threads, and of items, of one tenant in one run; the next goes on from there."""

_log = logging.getLogger("tenure")

_TENANTS: LiteralString = """
SELECT DISTINCT x.tenant_id
FROM tenure.retention_policy AS x
JOIN tenure.tenant AS t ON t.tenant_id = x.tenant_id
WHERE t.deleted_at IS NULL
"""
_NEXT: LiteralString = """
SELECT e.thread_id, e.thread_key,
    (e.whole OR e.checkpoints > 0) AND e.ready <= now() - make_interval(secs => %s)
FROM tenure.expired_threads_1(%s, %s, %s, false) AS e
"""
_SWEEP: LiteralString = "SELECT threads, checkpoints FROM tenure.sweep_thread_1(%s, %s, %s, %s)"
_SWEEP_ITEMS: LiteralString = "SELECT namespace, key, items FROM tenure.sweep_items_1(%s, %s, %s, %s)"


@dataclass
class Removed:
    """What went."""

    threads: int = 0
    checkpoints: int = 0
    items: int = 0


class _Stopped(Exception):
    """Somebody waits for the sweeper to end."""


class PolicySweeping:
    """Looks at all threads and items of tenants with policies in turn."""

    def __init__(self, database: Database, settle: float = SETTLE) -> None:
        """Take where to work.

        Args:
            database: Connections as `tenure_app`.
            settle: See `SETTLE`.
        """
        self._database = database
        self._settle = settle
        self._threads: dict[TenantId, str] = {}
        self._items: dict[TenantId, tuple[str, str]] = {}

    async def sweep(self, leader: AsyncConnection[Any], stop: asyncio.Event) -> Removed:
        """Delete what has expired, as the leader; a tenant that fails does not keep the others waiting."""
        removed = Removed()
        cursor = await leader.execute(_TENANTS)
        tenants = {tenant for (tenant,) in await cursor.fetchall()}
        for positions in (self._threads, self._items):
            for gone in positions.keys() - tenants:
                del positions[gone]
        for tenant in tenants:
            if stop.is_set():
                break
            for work in (self._draw_lines, self._sweep_threads, self._sweep_items):
                try:
                    await work(tenant, removed, stop)
                except errors.TenureError as error:
                    _log.warning("sweeper: policies of a tenant: %s", error)
        return removed

    async def _draw_lines(self, tenant: TenantId, removed: Removed, stop: asyncio.Event) -> None:
        call = calling(self._database, tenant)

        async def unless_stopped(statement: LiteralString, params: list[Any]) -> Sequence[tuple[Any, ...]]:
            if stop.is_set():
                raise _Stopped
            return await call(statement, params)

        with suppress(_Stopped):
            await draw_lines(unless_stopped, tenant, self._settle)

    async def _sweep_threads(self, tenant: TenantId, removed: Removed, stop: asyncio.Event) -> None:
        for _ in range(_PAGES):
            after = self._threads.get(tenant, "")
            rows = await self._call(tenant, _NEXT, [self._settle, tenant, after, _PAGE], writes=False)
            for _thread, key, ready in rows:
                if ready and not stop.is_set():
                    await self._sweep_thread(tenant, key, removed, stop)
            if stop.is_set() or len(rows) < _PAGE:
                self._threads.pop(tenant, None)
                return
            self._threads[tenant] = rows[-1][0]

    async def _sweep_thread(
        self, tenant: TenantId, key: object, removed: Removed, stop: asyncio.Event
    ) -> None:
        while not stop.is_set():
            ((threads, checkpoints),) = await self._call(
                tenant, _SWEEP, [tenant, key, self._settle, CHECKPOINTS]
            )
            removed.threads += threads
            removed.checkpoints += checkpoints
            if threads or checkpoints < CHECKPOINTS:
                return

    async def _sweep_items(self, tenant: TenantId, removed: Removed, stop: asyncio.Event) -> None:
        for _ in range(_PAGES):
            namespace, key = self._items.get(tenant, ("", ""))
            ((last, last_key, items),) = await self._call(
                tenant, _SWEEP_ITEMS, [tenant, namespace, key, _PAGE]
            )
            removed.items += items
            if stop.is_set() or last is None:
                self._items.pop(tenant, None)
                return
            self._items[tenant] = last, last_key

    async def _call(
        self, tenant: TenantId, statement: LiteralString, params: list[Any], *, writes: bool = True
    ) -> list[tuple[Any, ...]]:
        name = statement.partition("tenure.")[2].partition("_1(")[0]
        return await self._database.call(tenant, statement, params, operation=name, writes=writes)
