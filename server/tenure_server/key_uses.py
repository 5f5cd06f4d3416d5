"""When keys were last used: noted off the path of requests, seldom, and one after the other."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from tenure_server.domain import TenantId

_INTERVAL = 61.0
"""Seconds between two notes of one key: a little more than the minute that the database waits."""
_MAX_KEYS = 10_000

_log = logging.getLogger("tenure")


class KeyUses:
    """Passes uses of keys on, at most one a minute for each key; a use that cannot be passed on is lost."""

    def __init__(self, mark: Callable[[TenantId, str], Awaitable[None]]) -> None:
        """Take what stores that a key is used now."""
        self._mark = mark
        self._noted: dict[tuple[TenantId, str], float] = {}
        self._waiting: dict[tuple[TenantId, str], None] = {}
        self._passing: asyncio.Task[None] | None = None

    def note(self, tenant: TenantId, key_id: str) -> None:
        """Note that a key is used; returns at once."""
        key, now = (tenant, key_id), time.monotonic()
        last = self._noted.get(key)
        if last is not None and now - last < _INTERVAL:
            return
        if len(self._noted) >= _MAX_KEYS:
            self._noted.clear()
        self._noted[key] = now
        if len(self._waiting) < _MAX_KEYS:
            self._waiting[key] = None
        if self._passing is None or self._passing.done():
            self._passing = asyncio.create_task(self._pass_on(), name="key uses")

    async def _pass_on(self) -> None:
        """One at a time, so that many keys at once do not take the connections that requests need."""
        while self._waiting:
            key = next(iter(self._waiting))
            del self._waiting[key]
            try:
                await self._mark(*key)
            except Exception as error:
                _log.debug("the use of a key was not noted: %s", type(error).__name__)
