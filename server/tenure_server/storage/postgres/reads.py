"""Reading: heads, bodies, listings, channel histories and threads, each in one round trip."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

from tenure_server import chunks as chunking
from tenure_server.domain import (
    Blob,
    ChannelHistory,
    CheckpointRef,
    Head,
    HeldValue,
    ListQuery,
    PendingWrite,
    Recipe,
    TenantId,
    Thread,
    ValueRef,
)
from tenure_server.storage.postgres import filters
from tenure_server.storage.postgres.arrays import BigintArray, ByteaArray, IntArray, TextArray, UuidArray
from tenure_server.storage.postgres.batches import ns_hash
from tenure_server.storage.postgres.pool import Database

_READ_HEADS: LiteralString = "SELECT * FROM tenure.read_heads_3(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
_BODIES: LiteralString = "SELECT * FROM tenure.bodies_1(%s, %s, %s, %s, %s, %s, %s)"
_CHUNKS: LiteralString = "SELECT * FROM tenure.chunks_1(%s, %s, %s, %s, %s)"
_LIST_HEADS: LiteralString = """
SELECT *
FROM tenure.list_heads_3(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ORDER BY "position"
"""
_HISTORY: LiteralString = "SELECT * FROM tenure.channel_history_3(%s, %s, %s, %s, %s, %s)"
_THREADS: LiteralString = "SELECT * FROM tenure.list_threads_2(%s, %s, %s, %s)"


async def heads(
    database: Database,
    tenant: TenantId,
    refs: Sequence[CheckpointRef],
    held: Sequence[Sequence[HeldValue]],
    inline_bytes: int,
) -> list[Head | None]:
    """See `ports.CheckpointStore.heads`."""
    found: list[Head | None] = [None] * len(refs)
    if not refs:
        return found
    lasts = list(itertools.accumulate(map(len, held)))
    values = [value for of_ref in held for value in of_ref]
    params = [
        tenant,
        TextArray([ref.thread_id for ref in refs]),
        TextArray([ref.checkpoint_ns for ref in refs]),
        ByteaArray([ns_hash(ref.checkpoint_ns) for ref in refs]),
        TextArray([ref.checkpoint_id for ref in refs]),
        inline_bytes,
        IntArray([last - len(of_ref) + 1 for last, of_ref in zip(lasts, held, strict=True)]),
        IntArray(lasts),
        TextArray([value.channel for value in values]),
        TextArray([value.version for value in values]),
        ByteaArray([value.digest for value in values]),
    ]
    for position, *row in await database.call(tenant, _READ_HEADS, params, operation="read_heads"):
        ref = refs[position - 1]
        found[position - 1] = _head(ref.thread_id, ref.checkpoint_ns, row, values)
    return found


async def bodies(
    database: Database, tenant: TenantId, heads: Sequence[Head]
) -> list[Sequence[Blob | None] | None]:
    """See `ports.CheckpointStore.bodies`; values that came with their heads are not fetched again."""
    values = [head.at_hand() for head in heads]
    wanted = [
        (number, index)
        for number, head in enumerate(heads)
        for index, ref in enumerate(head.values)
        if values[number][index] is None and ref.recipe is None
    ]
    if not wanted:
        return list(values)
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
    stale = {number for number, index in wanted if values[number][index] is None}
    return [None if number in stale else known for number, known in enumerate(values)]


async def chunks(
    database: Database, tenant: TenantId, wanted: Sequence[tuple[Head, Sequence[bytes]]]
) -> list[Mapping[bytes, bytes] | None]:
    """See `ports.CheckpointStore.chunks`; what several heads of a thread name comes once."""
    lives = [(head.thread_key, head.generation) for head, _ in wanted]
    numbers = {life: number for number, life in enumerate(dict.fromkeys(lives), start=1)}
    asked = list(
        dict.fromkeys(
            (life, chunk_id)
            for life, (_, chunk_ids) in zip(lives, wanted, strict=True)
            for chunk_id in chunk_ids
        )
    )
    if not asked:
        return [{} for _ in wanted]
    params = [
        tenant,
        UuidArray([thread_key for thread_key, _ in numbers]),
        BigintArray([generation for _, generation in numbers]),
        IntArray([numbers[life] for life, _ in asked]),
        ByteaArray([chunk_id for _, chunk_id in asked]),
    ]
    rows = await database.call(tenant, _CHUNKS, params, operation="chunks")
    found = {asked[position - 1]: packed for position, packed in rows}
    return [
        _all_of({chunk_id: found.get((life, chunk_id)) for chunk_id in chunk_ids})
        for life, (_, chunk_ids) in zip(lives, wanted, strict=True)
    ]


def _all_of(packed: Mapping[bytes, bytes | None]) -> Mapping[bytes, bytes] | None:
    present = {chunk_id: data for chunk_id, data in packed.items() if data is not None}
    return present if len(present) == len(packed) else None


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
    rows = await database.call(tenant, _HISTORY, params, operation="channel_history")
    for channel, task_id, kind, data, recipe, chunk_ids, packed in rows:
        if task_id is not None:
            writes[channel].append((task_id, Blob(kind, data)))
        elif recipe is None:
            seeds[channel] = Blob(kind, data)
        else:
            by_id = dict(zip(chunk_ids or (), packed or (), strict=True))
            seeds[channel] = Blob(kind, chunking.assemble(data, recipe, by_id))
    return {channel: ChannelHistory(found, seeds.get(channel)) for channel, found in writes.items()}


async def list_threads(
    database: Database, tenant: TenantId, prefix: str, after: str | None, limit: int
) -> list[Thread]:
    """See `ports.CheckpointStore.list_threads`."""
    rows = await database.call(tenant, _THREADS, [tenant, prefix, after, limit], operation="list_threads")
    return [Thread(thread_id, created_at) for thread_id, created_at in rows]


def _head(thread_id: str, checkpoint_ns: str, row: Sequence[Any], held: Sequence[HeldValue] = ()) -> Head:
    """Build a head from the columns of `read_heads_3` after the position; null stands for an empty array."""
    thread_key, generation, checkpoint_id, parent, body_type, body, metadata, *arrays = row
    channels, versions, digests, sizes, types, data, recipes = (array or () for array in arrays[:7])
    writes = [array or () for array in arrays[7:13]]
    values = [
        ValueRef(channel, version, digest, size)
        if recipe is None
        else ValueRef(channel, version, digest, chunking.size(header, recipe), Recipe(kind, header, recipe))
        for channel, version, digest, size, kind, header, recipe in zip(
            channels, versions, digests, sizes, types, data, recipes, strict=True
        )
    ]
    inline = [
        None if value is None or recipe is not None else Blob(kind, value)
        for kind, value, recipe in zip(types, data, recipes, strict=True)
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
        values,
        [
            PendingWrite(task, path, idx, channel, Blob(kind, value))
            for task, path, idx, channel, kind, value in zip(*writes, strict=True)
        ],
        inline if any(inline) else [],
        {} if arrays[13] is None else _bases(values, held, *arrays[13:]),
    )


def _bases(
    values: Sequence[ValueRef], held: Sequence[HeldValue], numbers: Sequence[int], recipes: Sequence[bytes]
) -> dict[str, bytes]:
    """Return the recipes of held values by channel, where they say something about the value that is read."""
    current = {ref.channel: ref.digest for ref in values if ref.recipe is not None}
    bases = {}
    for number, recipe in zip(numbers, recipes, strict=True):
        base = held[number - 1]
        if current.get(base.channel, base.digest) != base.digest:
            bases[base.channel] = recipe
    return bases
