"""A queue whose calls end when a test says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from tenure_server import errors
from tenure_server.storage.queues import MAX_READS, Queue, Waiting

BUSY = errors.ThreadBusy()
CALLER: ContextVar[str] = ContextVar("caller")


@dataclass(eq=False)
class Made:
    """A call under way.

    Attributes:
        batch: What it is about.
        wait: Whether it waits for busy threads.
        answers: To be set: what the store says.
        caller: In whose context it runs.
    """

    batch: Sequence[Any]
    wait: bool
    answers: asyncio.Future[Sequence[Any]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    caller: str = field(default_factory=lambda: CALLER.get(""))

    def end(self, busy: Sequence[str] = ()) -> None:
        """Answer each operation with itself, or that its thread is busy."""
        self.answers.set_result([BUSY if one in busy else f"did {one}" for one in self.batch])


class Asked:
    """A queue and the calls it has made."""

    def __init__(self, patience: float = 0.0) -> None:
        self.calls: list[Made] = []
        self.emptied = 0
        self.queue: Queue[Any, Any] = Queue(self._call, self._emptied, calls=MAX_READS, patience=patience)

    async def _call(self, batch: Sequence[Any], wait: bool) -> Sequence[Any]:
        self.calls.append(Made(batch, wait))
        return await self.calls[-1].answers

    def _emptied(self) -> None:
        self.emptied += 1

    def ask(
        self,
        *operations: Any,
        size: int = 0,
        thread: str | None = None,
        seconds: float = 600,
        answered: Callable[[int, Any], None] | None = None,
    ) -> asyncio.Task[list[Any]]:
        """Ask without waiting; each operation is of the thread of its own name unless one is given."""
        deadline = time.monotonic() + seconds

        async def ask() -> list[Any]:
            CALLER.set(str(operations[0]))
            waiting: list[Waiting[Any, Any]] = [
                Waiting(one, size, thread or one, deadline) for one in operations
            ]
            return await self.queue.ask(waiting, answered)

        return asyncio.create_task(ask())

    @property
    def batches(self) -> list[Sequence[Any]]:
        return [call.batch for call in self.calls]

    async def hold(self) -> None:
        """Make as many calls as there may be."""
        for number in range(MAX_READS):
            self.ask(f"held {number}")
            await self.until(lambda number=number: len(self.calls) == number + 1)

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not holds():
                await asyncio.sleep(0)

    async def settle(self) -> None:
        """Let everything run that can."""
        for _ in range(20):
            await asyncio.sleep(0)
