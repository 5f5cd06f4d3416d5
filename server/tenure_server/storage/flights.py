"""Loads that are shared: what is being loaded for one caller is not loaded again for another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Mapping
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
W = TypeVar("W")
V = TypeVar("V")


class Flights(Generic[K, W, V]):
    """Loads that are under way.

    A load belongs to all who wait for it: that one of them is cancelled does not end it.
    """

    def __init__(self, load: Callable[[Mapping[K, W]], Coroutine[Any, Any, Mapping[K, V]]]) -> None:
        """Share calls of `load`, which returns a result for every key it is given, all at once."""
        self._load = load
        self._flying: dict[K, asyncio.Task[Mapping[K, V]]] = {}

    async def get(self, wanted: Mapping[K, W]) -> dict[K, V]:
        """Return what is wanted, loading at once whatever is not under way already."""
        fresh = {key: what for key, what in wanted.items() if key not in self._flying}
        if fresh:
            task = asyncio.create_task(self._load(fresh))
            self._flying.update(dict.fromkeys(fresh, task))
            task.add_done_callback(lambda done: self._landed(fresh, done))
        found: dict[K, V] = {}
        for task in dict.fromkeys(self._flying[key] for key in wanted):
            landed = await asyncio.shield(task)
            found.update((key, landed[key]) for key in wanted.keys() & landed.keys())
        return found

    def tasks(self) -> list[asyncio.Task[Mapping[K, V]]]:
        """Return the loads that are under way."""
        return list(dict.fromkeys(self._flying.values()))

    def _landed(self, keys: Mapping[K, W], task: asyncio.Task[Mapping[K, V]]) -> None:
        for key in keys:
            del self._flying[key]
        if not task.cancelled():
            # Whoever still waits raises it; nobody may.
            task.exception()
