"""Waiting for what a test cannot be told of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_PATIENCE = 30.0


async def until(holds: Callable[[], object]) -> None:
    """Wait for something that has no event to wait for."""
    async with asyncio.timeout(_PATIENCE):
        while not holds():
            await asyncio.sleep(0.001)
