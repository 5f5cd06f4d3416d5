"""Shows a saver's blocking methods to a suite that calls the asynchronous ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple


class SyncAsAsync(BaseCheckpointSaver[Any]):
    """Runs `saver.put` where `aput` is called, and so on, in a thread."""

    def __init__(self, saver: BaseCheckpointSaver[Any]) -> None:
        super().__init__(serde=saver.serde)
        self._saver = saver

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self._saver.get_next_version(current, channel)

    async def alist(self, *args: Any, **kwargs: Any) -> AsyncIterator[CheckpointTuple]:
        for item in await asyncio.to_thread(lambda: list(self._saver.list(*args, **kwargs))):
            yield item

    async def aget_tuple(self, *args: Any) -> Any:
        return await asyncio.to_thread(self._saver.get_tuple, *args)

    async def aput(self, *args: Any) -> Any:
        return await asyncio.to_thread(self._saver.put, *args)

    async def aput_writes(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.to_thread(self._saver.put_writes, *args, **kwargs)

    async def adelete_thread(self, *args: Any) -> None:
        await asyncio.to_thread(self._saver.delete_thread, *args)

    async def adelete_for_runs(self, *args: Any) -> None:
        await asyncio.to_thread(self._saver.delete_for_runs, *args)

    async def acopy_thread(self, *args: Any) -> None:
        await asyncio.to_thread(self._saver.copy_thread, *args)

    async def aprune(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.to_thread(self._saver.prune, *args, **kwargs)

    async def aget_delta_channel_history(self, **kwargs: Any) -> Any:
        return await asyncio.to_thread(lambda: self._saver.get_delta_channel_history(**kwargs))
