"""What is being put into the cache, off everybody's path."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tenure_server.domain import TenantId
from tenure_server.storage.cache_keys import Key
from tenure_server.storage.redis_cache import RedisCache

MAX_WAITING_BYTES = 64 * 1024 * 1024
MAX_WAITING_BYTES_PER_TENANT = 32 * 1024 * 1024
"""What is above is not stored: it would take memory, and the neighbours' time."""

_GATHER = 0.025
"""Seconds in which entries gather before they are stored."""


class Fills:
    """Stores entries one pipeline after the other.

    What comes while one is under way leaves with the next: under load a pipeline carries the entries of many
    puts.
    """

    def __init__(self, cache: RedisCache) -> None:
        self._cache = cache
        self._entries: dict[Key[Any], Any] = {}
        self._waiting: Counter[TenantId] = Counter()
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    def add(
        self, tenant: TenantId, entries: Mapping[Key[Any], Any], size: int, *, gather: bool = False
    ) -> None:
        """Store entries soon, or not at all if too much is waiting.

        Args:
            tenant: Whose they are.
            entries: What to store.
            size: Their bytes, about.
            gather: Whether they may wait a moment for more. What was read may not: others want it now.
        """
        if (
            not entries
            or self._waiting.total() + size > MAX_WAITING_BYTES
            or self._waiting[tenant] + size > MAX_WAITING_BYTES_PER_TENANT
        ):
            return
        self._waiting[tenant] += size
        self._entries.update(entries)
        if not gather:
            self._hurry.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Give up what is waiting."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while self._entries:
                # A turn makes several puts: they share a pipeline. Who reads before finds them in Postgres.
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), _GATHER)
                self._hurry.clear()
                entries, self._entries = self._entries, {}
                leaving = self._waiting.copy()
                await self._cache.set(entries)
                self._waiting -= leaving
        finally:
            self._task = None
