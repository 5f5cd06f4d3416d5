"""By what a tenant's usage is made up, as `tenure_ops`: from the sizes of rows, never from what is in them.

Sizes are those that `recount_usage_1` adds up, so that all parts together are the usage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

from psycopg.rows import TupleRow

from tenure_server import errors
from tenure_server.domain import TenantId
from tenure_server.quotas import UsageRow
from tenure_server.storage.postgres.items_namespaces import decoded, encoded, ranges
from tenure_server.storage.postgres.ops_pool import OpsPool

_AT_ONCE = 2
_TIMEOUT: LiteralString = "SELECT set_config('statement_timeout', '20s', true)"

# No regular expression per thread but on what comes after the prefix; ids compare bytewise.
_THREADS: LiteralString = """
WITH head AS MATERIALIZED (
    SELECT
        h.thread_key,
        CASE WHEN %(grouped)s THEN
            %(prefix)s || coalesce(
                substring(substr(h.thread_id, length(%(prefix)s) + 1) FROM '^[^-_:/.|@#]*[-_:/.|@#]'),
                substr(h.thread_id, length(%(prefix)s) + 1)
            )
        ELSE h.thread_id END COLLATE "C" AS name
    FROM tenure.thread_head AS h
    WHERE h.tenant_id = %(tenant)s AND h.thread_id >= %(prefix)s AND starts_with(h.thread_id, %(prefix)s)
), part AS (
    SELECT c.thread_key, count(*) AS checkpoints, sum(c.bytes) AS stored_bytes
    FROM tenure.checkpoint AS c WHERE c.tenant_id = %(tenant)s GROUP BY 1
    UNION ALL
    SELECT v.thread_key, 0, sum(v.bytes)
    FROM tenure.channel_value AS v WHERE v.tenant_id = %(tenant)s GROUP BY 1
    UNION ALL
    SELECT k.thread_key, 0, sum(k.bytes)
    FROM tenure.chunk AS k WHERE k.tenant_id = %(tenant)s GROUP BY 1
    UNION ALL
    SELECT w.thread_key, 0, sum(w.bytes)
    FROM tenure.pending_write AS w WHERE w.tenant_id = %(tenant)s GROUP BY 1
), thread AS (
    SELECT p.thread_key, sum(p.checkpoints) AS checkpoints, sum(p.stored_bytes) AS stored_bytes
    FROM part AS p GROUP BY 1
), named AS (
    SELECT
        h.name, count(*) AS threads, coalesce(sum(t.checkpoints), 0) AS checkpoints,
        coalesce(sum(t.stored_bytes), 0) AS stored_bytes
    FROM head AS h LEFT JOIN thread AS t USING (thread_key)
    GROUP BY 1
), placed AS (
    SELECT n.*, row_number() OVER (ORDER BY n.stored_bytes DESC, n.name) AS place FROM named AS n
)
SELECT
    CASE WHEN p.place <= %(limit)s THEN p.name END,
    sum(p.stored_bytes)::bigint, sum(p.threads)::bigint, sum(p.checkpoints)::bigint, 0::bigint
FROM placed AS p
GROUP BY p.place <= %(limit)s, CASE WHEN p.place <= %(limit)s THEN p.name END
ORDER BY p.place <= %(limit)s DESC, 2 DESC, 1
"""
_NAMESPACES: LiteralString = """
WITH vector AS (
    SELECT v.namespace, v.key, sum(4::bigint * v.dims) AS bytes
    FROM tenure.item_vector AS v
    WHERE v.tenant_id = %(tenant)s AND v.namespace >= %(first)s AND v.namespace < %(after)s
    GROUP BY 1, 2
), item AS (
    SELECT
        array_to_string(
            (string_to_array(i.namespace, %(separator)s))[1:%(depth)s], %(separator)s
        ) COLLATE "C" AS name,
        i.bytes + coalesce(v.bytes, 0) AS stored_bytes
    FROM tenure.item AS i
    LEFT JOIN vector AS v USING (namespace, key)
    WHERE i.tenant_id = %(tenant)s AND i.namespace >= %(first)s AND i.namespace < %(after)s
), named AS (
    SELECT i.name, count(*) AS items, sum(i.stored_bytes) AS stored_bytes FROM item AS i GROUP BY 1
), placed AS (
    SELECT n.*, row_number() OVER (ORDER BY n.stored_bytes DESC, n.name) AS place FROM named AS n
)
SELECT
    CASE WHEN p.place <= %(limit)s THEN p.name END,
    sum(p.stored_bytes)::bigint, 0::bigint, 0::bigint, sum(p.items)::bigint
FROM placed AS p
GROUP BY p.place <= %(limit)s, CASE WHEN p.place <= %(limit)s THEN p.name END
ORDER BY p.place <= %(limit)s DESC, 2 DESC, 1
"""


class PostgresUsageParts:
    """See `quotas.UsageParts`."""

    def __init__(self, pool: OpsPool) -> None:
        self._pool = pool
        self._running = 0

    async def threads(
        self, tenant: TenantId, prefix: str, limit: int, *, grouped: bool
    ) -> tuple[Sequence[UsageRow], UsageRow]:
        params = {"prefix": prefix, "limit": limit, "grouped": grouped}
        found = await self._read(tenant, _THREADS, params)
        return [UsageRow(name, (), *counts) for name, *counts in found if name is not None], _rest(found)

    async def namespaces(
        self, tenant: TenantId, below: tuple[str, ...], limit: int
    ) -> tuple[Sequence[UsageRow], UsageRow]:
        ((first, after),) = ranges(below, None)
        params = {
            "separator": encoded(("", "")),
            "depth": len(below) + 1,
            "first": first,
            "after": after,
            "limit": limit,
        }
        found = await self._read(tenant, _NAMESPACES, params)
        rows = [UsageRow("", decoded(name), *counts) for name, *counts in found if name is not None]
        return rows, _rest(found)

    async def _read(
        self, tenant: TenantId, statement: LiteralString, params: dict[str, Any]
    ) -> list[TupleRow]:
        # What adds up a large tenant must not keep administration waiting for a connection.
        if self._running == _AT_ONCE:
            raise errors.Overloaded("questions by what usage is made up")
        self._running += 1
        try:
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(_TIMEOUT)
                cursor = await connection.execute(statement, {"tenant": tenant, **params})
                return await cursor.fetchall()
        finally:
            self._running -= 1


def _rest(found: Sequence[TupleRow]) -> UsageRow:
    """Return what the row without a name holds."""
    return next((UsageRow("", (), *counts) for name, *counts in found if name is None), UsageRow())
