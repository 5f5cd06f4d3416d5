"""Renewing the time of items that were read: after the answer, together, and never in anybody's way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import LiteralString

from tenure_server import errors
from tenure_server.domain import TenantId
from tenure_server.storage.postgres.arrays import TextArray
from tenure_server.storage.postgres.pool import Database

_log = logging.getLogger("tenure")

_STATEMENT: LiteralString = "SELECT tenure.touch_items_1(%s, %s, %s)"
_MAX_BATCH = 1000
_MAX_WAITING = 10_000
"""Items of one tenant that wait to be renewed; more are left out: they keep the time that they have."""

Place = tuple[str, str]
"""The text of a namespace, and a key."""


class Touches:
    """Items to be renewed, by tenant; of each tenant one call is under way at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[TenantId, dict[Place, None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, tenant: TenantId, places: Iterable[Place]) -> None:
        """Renew items soon."""
        waiting = self._waiting.get(tenant)
        if waiting is None:
            waiting = self._waiting[tenant] = {}
            task = asyncio.create_task(self._renew(tenant, waiting), name="renew items")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        for place in places:
            if len(waiting) < _MAX_WAITING:
                waiting[place] = None

    async def settled(self) -> None:
        """Return when nothing waits to be renewed."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def close(self) -> None:
        """Renew what waits."""
        await self.settled()

    async def _renew(self, tenant: TenantId, waiting: dict[Place, None]) -> None:
        try:
            while waiting:
                batch = list(waiting)[:_MAX_BATCH]
                for place in batch:
                    del waiting[place]
                await self._database.call(
                    tenant,
                    _STATEMENT,
                    [
                        tenant,
                        TextArray([namespace for namespace, _ in batch]),
                        TextArray([key for _, key in batch]),
                    ],
                    operation="touch_items",
                    writes=True,
                )
        except errors.TenureError as error:
            _log.warning("items that were read are not renewed: %s", error)
        except Exception:
            _log.exception("items that were read are not renewed")
        finally:
            del self._waiting[tenant]
