"""The index of a tenant's items: with what their vectors are made, and making them anew."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import LiteralString

from tenure_server import errors
from tenure_server.domain import Operation, TenantId
from tenure_server.items import Index, Item, ItemVectors, Namespace, Unembedded
from tenure_server.storage.postgres.arrays import BigintArray, IntArray, TextArray
from tenure_server.storage.postgres.items_namespaces import decoded, encoded
from tenure_server.storage.postgres.items_values import embeddings
from tenure_server.storage.postgres.pool import Database

_INDEX: LiteralString = "SELECT dims, embedder, waiting FROM tenure.item_index_2(%s)"
_SET_INDEX: LiteralString = "SELECT tenure.set_item_index_1(%s, %s, %s, %s, %s, %s)"
_UNEMBEDDED: LiteralString = "SELECT * FROM tenure.unembedded_items_2(%s, %s, %s, %s)"
_PUT_VECTORS: LiteralString = """
SELECT answer, dims, embedder
FROM tenure.put_vectors_1(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


async def index(database: Database, tenant: TenantId) -> tuple[Index | None, int]:
    """See `ports.ItemStore.index`."""
    ((dims, embedder, waiting),) = await database.call(tenant, _INDEX, [tenant], operation="item_index")
    return (None if dims is None else Index(dims, embedder)), waiting


async def set_index(database: Database, tenant: TenantId, operation: Operation, index: Index) -> int:
    """See `ports.ItemStore.set_index`."""
    params = [
        tenant,
        _milliseconds_left(operation),
        operation.operation_id,
        operation.digest,
        index.dims,
        index.embedder,
    ]
    ((answer,),) = await database.call(
        tenant, _SET_INDEX, params, operation="set_item_index", deadline=operation.deadline, writes=True
    )
    if answer == "mismatch":
        raise errors.OperationMismatch
    return int(answer)


async def unembedded(
    database: Database, tenant: TenantId, after: tuple[Namespace, str] | None, limit: int
) -> list[Unembedded]:
    """See `ports.ItemStore.unembedded`."""
    namespace, key = after or ((), "")
    rows = await database.call(
        tenant, _UNEMBEDDED, [tenant, encoded(namespace), key, limit], operation="unembedded_items"
    )
    return [
        Unembedded(Item(decoded(place), key, value, created_at, updated_at), paths or ())
        for place, key, value, created_at, updated_at, paths in rows
    ]


async def put_vectors(
    database: Database, tenant: TenantId, operation: Operation, index: Index, items: Sequence[ItemVectors]
) -> None:
    """See `ports.ItemStore.put_vectors`."""
    # The last of each item, in the order in which every call takes its locks.
    by_place = {(encoded(item.namespace).encode(), item.key.encode()): item for item in items}
    chosen = [by_place[place] for place in sorted(by_place)]
    vectors = [(number, vector) for number, item in enumerate(chosen, 1) for vector in item.vectors]
    params = [
        tenant,
        _milliseconds_left(operation),
        operation.operation_id,
        operation.digest,
        index.dims,
        index.embedder,
        TextArray([encoded(item.namespace) for item in chosen]),
        TextArray([item.key for item in chosen]),
        BigintArray([(item.updated_at - _EPOCH) // _MICROSECOND for item in chosen]),
        IntArray([number for number, _ in vectors]),
        TextArray([vector.path for _, vector in vectors]),
        embeddings(vector for _, vector in vectors),
    ]
    ((answer, dims, embedder),) = await database.call(
        tenant, _PUT_VECTORS, params, operation="put_vectors", deadline=operation.deadline, writes=True
    )
    if answer == "mismatch":
        raise errors.OperationMismatch
    if answer == "refused":
        raise errors.IndexMismatch(str(Index(dims, embedder)), str(index))


def _milliseconds_left(operation: Operation) -> int:
    return max(int((operation.deadline - time.monotonic()) * 1000), 1)
