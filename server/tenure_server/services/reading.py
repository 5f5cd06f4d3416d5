"""Reading whole checkpoints: heads first, then the values, again if a thread changed in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from tenure_server import errors
from tenure_server.domain import Checkpoint, CheckpointRef, Head, Operation, TenantId
from tenure_server.storage.ports import CheckpointStore

T = TypeVar("T")

_ATTEMPTS = 5


def remaining(operations: Sequence[Operation]) -> float:
    """Return the seconds that the most patient caller still waits.

    Raises:
        DeadlineExceeded: Nobody waits any more; nothing has been started.
    """
    left = max(operation.deadline for operation in operations) - time.monotonic()
    if left <= 0:
        raise errors.DeadlineExceeded
    return left


async def within(seconds: float, work: Awaitable[T]) -> T:
    """Await work that changes nothing, for so many seconds at most.

    Raises:
        DeadlineExceeded: It takes longer.
    """
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise errors.DeadlineExceeded from None


async def complete(
    store: CheckpointStore,
    tenant: TenantId,
    refs: Sequence[CheckpointRef],
    heads: Sequence[Head | None],
) -> list[Checkpoint | None]:
    """Add the values to heads; a head whose thread changed meanwhile is read again by its ref.

    Reading again by the ref, not by the id that was found, keeps "latest" the latest.

    Raises:
        Conflict: A thread kept changing.
    """
    current = list(heads)
    found: list[Checkpoint | None] = [None] * len(current)
    waiting = [index for index, head in enumerate(current) if head is not None]
    for _ in range(_ATTEMPTS):
        bodies = await store.bodies(tenant, [head for index in waiting if (head := current[index])])
        stale = []
        for index, body in zip(waiting, bodies, strict=True):
            head = current[index]
            assert head is not None
            if body is None:
                stale.append(index)
            else:
                found[index] = Checkpoint(head, body)
        if not stale:
            return found
        for index, head in zip(
            stale, await store.heads(tenant, [refs[index] for index in stale]), strict=True
        ):
            current[index] = head
        waiting = [index for index in stale if current[index] is not None]
        if not waiting:
            return found
    raise errors.Conflict
