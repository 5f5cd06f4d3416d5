"""What the sweeper does to tenants that were deleted: it frees all their rows, and then the tenants."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString

from psycopg import AsyncConnection, sql

GRACE = 120.0
"""Seconds for which a deleted tenant's rows stay: servers trust a key for a few seconds more, and what they
have begun with it ends within its time. After that nobody adds a row."""

TABLES: Final[Mapping[str, Sequence[str]]] = {
    # First: what is held cannot be deleted.
    "retention_hold": ("kind", "prefix"),
    "retention_policy": ("kind", "prefix"),
    "retention_pin": ("thread_key", "ns_hash", "checkpoint_id"),
    "retention_expired": ("thread_key", "ns_hash", "checkpoint_id"),
    "pending_write": ("thread_key", "ns_hash", "checkpoint_id", "task_id", "idx"),
    "channel_value": ("thread_key", "ns_hash", "channel", "version"),
    "chunk": ("thread_key", "chunk_id"),
    "checkpoint": ("thread_key", "checkpoint_ns", "checkpoint_id"),
    "head_override": ("thread_key", "ns_hash"),
    "garbage": ("thread_key",),
    "thread_head": ("thread_id",),
    "operation": ("operation_id", "part"),
    "item_vector": ("namespace", "key", "n"),
    "item": ("namespace", "key"),
    "item_namespace": ("namespace",),
    "item_index": (),
    "tenant_usage": (),
    "tenant_rate": (),
    "usage_day": ("day",),
    "writer_policy": ("thread_prefix",),
    "api_key": ("key_id",),
    "tenant": (),
}
"""Every table of tenants in the order in which it is emptied, with its primary key after `tenant_id`."""

_DELETED: LiteralString = """
SELECT tenant_id FROM tenure.tenant
WHERE deleted_at < now() - make_interval(secs => %s)
ORDER BY deleted_at
"""


async def free(
    connection: AsyncConnection[Any], grace: float, slice_rows: int, slices: int, stop: asyncio.Event
) -> int:
    """Remove rows of tenants deleted for longer than `grace` seconds, a slice in a transaction.

    Returns:
        How many rows were removed. What is left after `slices` slices waits for the next run.
    """
    removed = 0
    cursor = await connection.execute(_DELETED, [grace])
    for (tenant,) in await cursor.fetchall():
        for table, key in TABLES.items():
            statement = _slice_of(table, key)
            rows = slice_rows
            while rows == slice_rows:
                if stop.is_set() or slices == 0:
                    return removed
                rows = (await connection.execute(statement, {"tenant": tenant, "limit": slice_rows})).rowcount
                slices -= rows > 0
                removed += rows
    return removed


def _slice_of(table: str, key: Sequence[str]) -> sql.Composed:
    columns = [sql.Identifier(name) for name in ("tenant_id", *key)]
    return sql.SQL(
        "DELETE FROM tenure.{table} AS t USING ("
        "SELECT {columns} FROM tenure.{table} WHERE tenant_id = %(tenant)s LIMIT %(limit)s"
        ") AS d WHERE t.tenant_id = %(tenant)s AND ({theirs}) = ({ours})"
    ).format(
        table=sql.Identifier(table),
        columns=sql.SQL(", ").join(columns),
        theirs=sql.SQL(", ").join(sql.SQL("t.{}").format(column) for column in columns),
        ours=sql.SQL(", ").join(sql.SQL("d.{}").format(column) for column in columns),
    )
