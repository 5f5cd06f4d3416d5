"""What the sweeper does to items: it removes those whose time has run out, then namespaces that hold none."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any, LiteralString
from uuid import UUID

from psycopg import AsyncConnection

_DELETE_EXPIRED: LiteralString = "SELECT tenure.expire_items_1(%s)"
_NEXT_NAMESPACES: LiteralString = """
SELECT
    s.tenant_id, s.namespace,
    NOT EXISTS (SELECT FROM tenure.item AS i WHERE i.tenant_id = s.tenant_id AND i.namespace = s.namespace)
FROM tenure.item_namespace AS s
WHERE (s.tenant_id, s.namespace) > (%s, %s)
ORDER BY s.tenant_id, s.namespace
LIMIT %s
"""
_LOCK_TENANT: LiteralString = "SELECT pg_try_advisory_xact_lock(tenure.items_lock_1(%s))"
_DELETE_EMPTY: LiteralString = """
DELETE FROM tenure.item_namespace AS s
WHERE s.tenant_id = %(tenant)s AND s.namespace = ANY (%(namespaces)s) AND NOT EXISTS (
    SELECT FROM tenure.item AS i WHERE i.tenant_id = s.tenant_id AND i.namespace = s.namespace
)
"""
_START = (UUID(int=0), "")


async def delete_expired(
    connection: AsyncConnection[Any], slice_rows: int, slices: int, stop: asyncio.Event
) -> int:
    """Remove expired items with their vectors, a slice in a transaction, and return how many there were."""
    removed = 0
    for _ in range(slices):
        if stop.is_set():
            break
        cursor = await connection.execute(_DELETE_EXPIRED, [slice_rows])
        (rows,) = await cursor.fetchone() or (0,)
        removed += rows
        if rows < slice_rows:
            break
    return removed


class EmptyNamespaces:
    """Looks at all namespaces in turn, and goes on in the next run where the last one ended."""

    def __init__(self) -> None:
        self._position: tuple[UUID, str] = _START

    async def delete(
        self, connection: AsyncConnection[Any], slice_rows: int, slices: int, stop: asyncio.Event
    ) -> int:
        """Remove namespaces without items and return how many; a tenant that writes has its turn later."""
        removed = 0
        for _ in range(slices):
            if stop.is_set():
                break
            cursor = await connection.execute(_NEXT_NAMESPACES, [*self._position, slice_rows])
            rows = await cursor.fetchall()
            empty: defaultdict[UUID, list[str]] = defaultdict(list)
            for tenant, namespace, is_empty in rows:
                if is_empty:
                    empty[tenant].append(namespace)
            for tenant, namespaces in empty.items():
                removed += await _delete(connection, tenant, namespaces)
            if len(rows) < slice_rows:
                self._position = _START
                break
            self._position = rows[-1][:2]
        return removed


async def _delete(connection: AsyncConnection[Any], tenant: UUID, namespaces: list[str]) -> int:
    """Remove what is still empty once no put of the tenant is under way."""
    async with connection.transaction():
        cursor = await connection.execute(_LOCK_TENANT, [tenant])
        if await cursor.fetchone() != (True,):
            return 0
        params = {"tenant": tenant, "namespaces": namespaces}
        return (await connection.execute(_DELETE_EMPTY, params)).rowcount
