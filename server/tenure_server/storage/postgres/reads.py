"""Reading: heads, bodies, listings, channel histories and threads, each in one round trip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

from tenure_server.domain import (
    Blob,
    ChannelHistory,
    CheckpointRef,
    Head,
    ListQuery,
    PendingWrite,
    TenantId,
    Thread,
    ValueRef,
)
from tenure_server.storage.postgres import filters
from tenure_server.storage.postgres.arrays import BigintArray, ByteaArray, IntArray, TextArray, UuidArray
from tenure_server.storage.postgres.pool import Database
from tenure_server.storage.postgres.writes import ns_hash

_READ_HEADS: LiteralString = "SELECT * FROM tenure.read_heads_1(%s, %s, %s, %s, %s, %s)"
_BODIES: LiteralString = "SELECT * FROM tenure.bodies_1(%s, %s, %s, %s, %s, %s, %s)"
_LIST_HEADS: LiteralString = """
SELECT *
FROM tenure.list_heads_1(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ORDER BY "position"
"""
_HISTORY: LiteralString = "SELECT * FROM tenure.channel_history_1(%s, %s, %s, %s, %s, %s)"
_THREADS: LiteralString = "SELECT * FROM tenure.list_threads_1(%s, %s, %s, %s)"


async def heads(
    database: Database, tenant: TenantId, refs: Sequence[CheckpointRef], inline_bytes: int
) -> list[Head | None]:
    """See `ports.CheckpointStore.heads`."""
    found: list[Head | None] = [None] * len(refs)
    if not refs:
        return found
    params = [
        tenant,
        TextArray([ref.thread_id for ref in refs]),
        TextArray([ref.checkpoint_ns for ref in refs]),
        ByteaArray([ns_hash(ref.checkpoint_ns) for ref in refs]),
        TextArray([ref.checkpoint_id for ref in refs]),
        inline_bytes,
    ]
    for position, *row in await database.call(tenant, _READ_HEADS, params, operation="read_heads"):
        ref = refs[position - 1]
        found[position - 1] = _head(ref.thread_id, ref.checkpoint_ns, row)
    return found


async def bodies(database: Database, tenant: TenantId, heads: Sequence[Head]) -> list[Sequence[Blob] | None]:
    """See `ports.CheckpointStore.bodies`; values that came with their heads are not fetched again."""
    values = [head.at_hand() for head in heads]
    wanted = [
        (number, index)
        for number, known in enumerate(values)
        for index, value in enumerate(known)
        if not value
    ]
    if wanted:
        refs = [heads[number].values[index] for number, index in wanted]
        params = [
            tenant,
            UuidArray([head.thread_key for head in heads]),
            BigintArray([head.generation for head in heads]),
            IntArray([number + 1 for number, _ in wanted]),
            ByteaArray([ns_hash(heads[number].checkpoint_ns) for number, _ in wanted]),
            TextArray([ref.channel for ref in refs]),
            TextArray([ref.version for ref in refs]),
        ]
        for position, kind, data in await database.call(tenant, _BODIES, params, operation="bodies"):
            number, index = wanted[position - 1]
            values[number][index] = Blob(kind, data)
    return [_complete(known) for known in values]


def _complete(values: Sequence[Blob | None]) -> Sequence[Blob] | None:
    present = [value for value in values if value is not None]
    return present if len(present) == len(values) else None


async def list_heads(
    database: Database, tenant: TenantId, query: ListQuery, limit: int, inline_bytes: int
) -> list[Head]:
    """See `ports.CheckpointStore.list_heads`."""
    params = [
        tenant,
        query.thread_id,
        query.checkpoint_ns,
        query.checkpoint_id,
        query.before,
        *(query.after or (None, None, None)),
        *filters.compiled(query.filter),
        limit,
        inline_bytes,
    ]
    rows = await database.call(tenant, _LIST_HEADS, params, operation="list_heads")
    return [_head(thread_id, checkpoint_ns, row) for thread_id, checkpoint_ns, _, *row in rows]


async def channel_history(
    database: Database, tenant: TenantId, ref: CheckpointRef, channels: Sequence[str]
) -> Mapping[str, ChannelHistory]:
    """See `ports.CheckpointStore.channel_history`."""
    params = [
        tenant,
        ref.thread_id,
        ref.checkpoint_ns,
        ns_hash(ref.checkpoint_ns),
        ref.checkpoint_id,
        TextArray(channels),
    ]
    writes: dict[str, list[tuple[str, Blob]]] = {channel: [] for channel in channels}
    seeds: dict[str, Blob] = {}
    for channel, task_id, kind, data in await database.call(
        tenant, _HISTORY, params, operation="channel_history"
    ):
        if task_id is None:
            seeds[channel] = Blob(kind, data)
        else:
            writes[channel].append((task_id, Blob(kind, data)))
    return {channel: ChannelHistory(found, seeds.get(channel)) for channel, found in writes.items()}


async def list_threads(
    database: Database, tenant: TenantId, prefix: str, after: str | None, limit: int
) -> list[Thread]:
    """See `ports.CheckpointStore.list_threads`."""
    rows = await database.call(tenant, _THREADS, [tenant, prefix, after, limit], operation="list_threads")
    return [Thread(thread_id, created_at) for thread_id, created_at in rows]


def _head(thread_id: str, checkpoint_ns: str, row: Sequence[Any]) -> Head:
    """Build a head from the columns of `read_heads_1` after the position; null stands for an empty array."""
    (
        thread_key,
        generation,
        checkpoint_id,
        parent,
        body_type,
        body,
        metadata,
        channels,
        versions,
        digests,
        sizes,
        types,
        data,
        *writes,
    ) = row
    inline: list[Blob | None] = []
    if data is not None and any(value is not None for value in data):
        inline = [
            None if value is None else Blob(kind, value) for kind, value in zip(types, data, strict=True)
        ]
    return Head(
        thread_id,
        thread_key,
        generation,
        checkpoint_ns,
        checkpoint_id,
        parent,
        Blob(body_type, body),
        metadata,
        [] if channels is None else list(map(ValueRef, channels, versions, digests, sizes)),
        []
        if writes[0] is None
        else [
            PendingWrite(task, path, idx, channel, Blob(kind, value))
            for task, path, idx, channel, kind, value in zip(*writes, strict=True)
        ],
        inline,
    )
