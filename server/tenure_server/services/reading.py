"""Reading checkpoints: heads first, then what is sent of the values, again if a thread changed in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import TypeVar

from tenure_server import errors
from tenure_server.domain import Blob, Checkpoint, CheckpointRef, Head, Operation, TenantId, Thread, ValueEdit
from tenure_server.limits import MIB
from tenure_server.storage.ports import CheckpointStore
from tenure_server.wire.telling import Reader, Telling

T = TypeVar("T")

_ATTEMPTS = 5
_ASSEMBLED_INLINE = MIB


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
    tellings: Sequence[Telling | None],
    readers: Sequence[Reader],
) -> list[Checkpoint | None]:
    """Add the values to checkpoints; one whose thread changed meanwhile is read again by its ref.

    Reading again by the ref, not by the id that was found, keeps "latest" the latest.

    Args:
        store: Where they are.
        tenant: Whose they are.
        refs: What was read.
        tellings: What was found and how it is told; None stays None.
        readers: Who reads each of them.

    Raises:
        Conflict: A thread kept changing.
        BadChunk: A stored chunk is damaged.
    """
    found: list[Checkpoint | None] = [None] * len(refs)
    waiting = {index: telling for index, telling in enumerate(tellings) if telling is not None}
    for _ in range(_ATTEMPTS):
        for index, values in (await _fetch(store, tenant, waiting)).items():
            found[index] = Checkpoint(waiting.pop(index).head, values)
        if not waiting:
            return found
        again = await heads_for(
            store, tenant, [refs[index] for index in waiting], [readers[index] for index in waiting]
        )
        waiting = {
            index: readers[index].tell(head)
            for index, head in zip(waiting, again, strict=True)
            if head is not None
        }
        if not waiting:
            return found
    raise errors.Conflict


async def heads_for(
    store: CheckpointStore, tenant: TenantId, refs: Sequence[CheckpointRef], readers: Sequence[Reader]
) -> Sequence[Head | None]:
    """Return heads, with the recipes of what their readers have."""
    if not any(reader.held for reader in readers):
        return await store.heads(tenant, refs)
    return await store.heads(tenant, refs, [list(reader.held.values()) for reader in readers])


async def _fetch(
    store: CheckpointStore, tenant: TenantId, tellings: Mapping[int, Telling]
) -> dict[int, list[Blob | ValueEdit | None]]:
    """Return the values of each checkpoint as they are told; those whose thread changed are left out."""
    whole = {index: indexes for index, telling in tellings.items() if (indexes := telling.bodies())}
    parts = {index: ids for index, telling in tellings.items() if (ids := telling.chunks())}
    if whole and parts:
        bodies, packed = await asyncio.gather(
            _bodies(store, tenant, tellings, whole), _chunks(store, tenant, tellings, parts)
        )
    else:
        bodies = await _bodies(store, tenant, tellings, whole)
        packed = await _chunks(store, tenant, tellings, parts)
    ready = {
        index: telling
        for index, telling in tellings.items()
        if (index not in whole or index in bodies) and (index not in parts or index in packed)
    }

    def assemble() -> dict[int, list[Blob | ValueEdit | None]]:
        return {
            index: telling.values(bodies.get(index, {}), packed.get(index, {}))
            for index, telling in ready.items()
        }

    if sum(telling.assembled_size() for telling in ready.values()) <= _ASSEMBLED_INLINE:
        return assemble()
    # Inflating megabytes would hold up everybody else on the loop.
    return await asyncio.to_thread(assemble)


async def _bodies(
    store: CheckpointStore,
    tenant: TenantId,
    tellings: Mapping[int, Telling],
    wanted: Mapping[int, Sequence[int]],
) -> dict[int, dict[int, Blob]]:
    if not wanted:
        return {}
    heads = [tellings[index].head.only(indexes) for index, indexes in wanted.items()]
    found = await store.bodies(tenant, heads)
    return {
        index: {at: blob for at, blob in zip(indexes, values, strict=True) if blob is not None}
        for (index, indexes), values in zip(wanted.items(), found, strict=True)
        if values is not None
    }


async def _chunks(
    store: CheckpointStore,
    tenant: TenantId,
    tellings: Mapping[int, Telling],
    wanted: Mapping[int, Sequence[bytes]],
) -> dict[int, Mapping[bytes, bytes]]:
    if not wanted:
        return {}
    found = await store.chunks(tenant, [(tellings[index].head, ids) for index, ids in wanted.items()])
    return {index: packed for index, packed in zip(wanted, found, strict=True) if packed is not None}


async def threads_below(
    store: CheckpointStore, tenant: TenantId, prefixes: Sequence[str], after: str | None, limit: int
) -> list[Thread]:
    """Return up to `limit` threads that start with one of the prefixes and sort after `after`, in order.

    The prefixes are sorted, and none starts with another.
    """
    threads: list[Thread] = []
    for prefix in prefixes:
        if after is not None and prefix < after and not after.startswith(prefix):
            continue
        if len(threads) == limit:
            break
        threads += await store.list_threads(tenant, prefix, after, limit - len(threads))
    return threads
