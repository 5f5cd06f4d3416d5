"""What of a batch cannot fit into a tenant's quota, so that it need not be tried.

A batch that would pass a limit fails as a whole. Were it only halved until each mutation is alone, a tenant
that is full would cost twice as many transactions as it sends mutations. So the database is asked by how much
each would let the tenant grow at least, and those that find no room are refused together: no room even if all
of the batch that replaces something with less, or deletes, had gone before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableSequence, Sequence
from typing import Any, LiteralString

from tenure_server import errors
from tenure_server.domain import (
    Blob,
    ChannelValue,
    Mutation,
    PendingWrite,
    PutCheckpoint,
    TenantId,
    ValueEdit,
)
from tenure_server.items import WriteGroup
from tenure_server.storage.postgres.arrays import Array, BigintArray, ByteaArray, IntArray, TextArray
from tenure_server.storage.postgres.batches import ns_hash
from tenure_server.storage.postgres.items_batches import Batch
from tenure_server.storage.postgres.pool import Database

_OF_MUTATIONS: LiteralString = """
SELECT threads, bytes, 0::bigint, freed
FROM tenure.growth_1(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_OF_GROUPS: LiteralString = """
SELECT items, bytes, freed_items, freed FROM tenure.items_growth_1(%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""

_TENANT_WIDE = {"threads": 0, "items": 0, "stored_bytes": 1}
"""Where the growth by a limit is in the answers; what makes room stands two columns on."""

Refusals = dict[int, errors.QuotaExceeded]
"""Why a mutation or group is refused, by its place in the batch."""


async def refused_mutations(
    database: Database, tenant: TenantId, mutations: Sequence[Mutation], error: errors.QuotaExceeded
) -> Refusals:
    """Return which mutations of a batch that was refused cannot fit; nothing if only trying can tell."""
    if error.metadata["limit"] not in _TENANT_WIDE:
        return {}
    deadline = max(mutation.operation.deadline for mutation in mutations)
    return await _refused(database, tenant, _OF_MUTATIONS, _of_mutations(mutations), deadline, error)


async def leave_out(
    refused: Refusals,
    numbers: Sequence[int],
    outcomes: MutableSequence[errors.TenureError | None],
    apply: Callable[[Sequence[int]], Awaitable[None]],
) -> bool:
    """Set the outcomes of what is refused and apply the rest; False if nothing is.

    Args:
        refused: By place in `numbers`.
        numbers: What was tried together.
        outcomes: Those of all, by number.
        apply: Applies what is left.
    """
    for place, refusal in refused.items():
        outcomes[numbers[place]] = refusal
    if refused:
        await apply([number for place, number in enumerate(numbers) if place not in refused])
    return bool(refused)


async def refused_groups(
    database: Database, tenant: TenantId, groups: Sequence[WriteGroup], error: errors.QuotaExceeded
) -> Refusals:
    """`refused_mutations` of a batch of groups of items."""
    if error.metadata["limit"] not in _TENANT_WIDE:
        return {}
    deadline = max(group.operation.deadline for group in groups)
    return await _refused(database, tenant, _OF_GROUPS, _of_groups(groups), deadline, error)


async def _refused(
    database: Database,
    tenant: TenantId,
    statement: LiteralString,
    params: Sequence[Any],
    deadline: float,
    error: errors.QuotaExceeded,
) -> Refusals:
    try:
        (row,) = await database.call(
            tenant, statement, [tenant, *params], operation="growth", deadline=deadline
        )
    except errors.TenureError:
        return {}
    limit = error.metadata["limit"]
    maximum, used = int(error.metadata["maximum"]), int(error.metadata["used"])
    column = _TENANT_WIDE[limit]
    room = max(maximum - used + int(row[column + 2]), 0)
    return {
        place: errors.QuotaExceeded(limit, maximum, used, int(grown))
        for place, grown in enumerate(row[column])
        if grown > room
    }


def _of_mutations(mutations: Sequence[Mutation]) -> list[Array]:
    """Return the arguments of growth_1 from p_threads on."""
    puts: list[tuple[int, PutCheckpoint]] = []
    values: list[tuple[int, bytes, ChannelValue]] = []
    chunks: list[tuple[int, bytes, bytes]] = []
    writes: list[tuple[int, bytes, str, PendingWrite]] = []
    for number, mutation in enumerate(mutations, 1):
        namespace = ns_hash(mutation.ref.checkpoint_ns)
        if isinstance(mutation, PutCheckpoint):
            puts.append((number, mutation))
            # Of two values for a version the first is stored.
            for new in {(new.channel, new.version): new for new in reversed(mutation.new_values)}.values():
                values.append((number, namespace, new))
                if isinstance(new.value, ValueEdit):
                    chunks += [(len(values), *chunk) for chunk in new.value.chunks.items()]
        else:
            named: dict[tuple[str, int], PendingWrite] = {}
            for write in mutation.writes:
                if write.idx < 0 or (write.task_id, write.idx) not in named:
                    named[write.task_id, write.idx] = write
            writes += [
                (number, namespace, mutation.ref.checkpoint_id or "", write) for write in named.values()
            ]
    return [
        TextArray([mutation.ref.thread_id for mutation in mutations]),
        IntArray([number for number, _ in puts]),
        TextArray([put.ref.checkpoint_ns for _, put in puts]),
        TextArray([put.ref.checkpoint_id for _, put in puts]),
        BigintArray([len(put.body.data) + len(put.metadata.encode()) for _, put in puts]),
        IntArray([number for number, _, _ in values]),
        ByteaArray([namespace for _, namespace, _ in values]),
        TextArray([new.channel for _, _, new in values]),
        TextArray([new.version for _, _, new in values]),
        BigintArray([_stored_bytes(new.value) for _, _, new in values]),
        IntArray([value for value, _, _ in chunks]),
        ByteaArray([chunk_id for _, chunk_id, _ in chunks]),
        BigintArray([len(packed) for _, _, packed in chunks]),
        IntArray([number for number, _, _, _ in writes]),
        ByteaArray([namespace for _, namespace, _, _ in writes]),
        TextArray([checkpoint_id for _, _, checkpoint_id, _ in writes]),
        TextArray([write.task_id for _, _, _, write in writes]),
        IntArray([write.idx for _, _, _, write in writes]),
        BigintArray([len(write.value.data) for _, _, _, write in writes]),
    ]


def _stored_bytes(value: Blob | ValueEdit) -> int:
    """Return what a value has at least, without its chunks: how its recipe is stored is not known here."""
    return len(value.data) if isinstance(value, Blob) else len(value.header)


def _of_groups(groups: Sequence[WriteGroup]) -> list[Any]:
    """Return the arguments of items_growth_1 from p_operation on: some of those of write_items_1."""
    operation, _, _, dims, _, *writes, vector_write, _, _ = Batch(groups).params()
    return [operation, dims, *writes[:5], vector_write]
