"""What the sweeper does for usage: a row a tenant and day, and a warning to those near a limit."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, LiteralString
from uuid import UUID

from psycopg import AsyncConnection

from tenure_server import telemetry
from tenure_server.domain import TenantId

_log = logging.getLogger("tenure.quota")
# Whoever filters by level still gets it: it is what a soft limit is for.
_log.setLevel(logging.INFO)

_KEPT_DAYS = 400
_START = UUID(int=0)

# In the order of the primary key. A row that is as it was is not written.
_NOTE: LiteralString = """
WITH slice AS MATERIALIZED (
    SELECT u.tenant_id, u.stored_bytes, u.threads, u.items
    FROM tenure.tenant_usage AS u
    WHERE u.tenant_id > %(after)s
    ORDER BY u.tenant_id
    LIMIT %(limit)s
), noted AS (
    INSERT INTO tenure.usage_day AS d (tenant_id, day, stored_bytes, threads, items)
    SELECT s.tenant_id, (now() AT TIME ZONE 'UTC')::date, s.stored_bytes, s.threads, s.items
    FROM slice AS s
    -- Of a tenant that is being freed no row may come back.
    JOIN tenure.tenant AS t ON t.tenant_id = s.tenant_id AND t.deleted_at IS NULL
    ON CONFLICT (tenant_id, day) DO UPDATE
    SET stored_bytes = EXCLUDED.stored_bytes, threads = EXCLUDED.threads, items = EXCLUDED.items
    WHERE (d.stored_bytes, d.threads, d.items) <> (EXCLUDED.stored_bytes, EXCLUDED.threads, EXCLUDED.items)
)
SELECT s.tenant_id FROM slice AS s ORDER BY s.tenant_id
"""
_FORGET: LiteralString = """
DELETE FROM tenure.usage_day AS d
USING (
    SELECT o.tenant_id, o.day FROM tenure.usage_day AS o
    WHERE o.day < (now() AT TIME ZONE 'UTC')::date - %(days)s::int
    LIMIT %(limit)s
) AS old
WHERE d.tenant_id = old.tenant_id AND d.day = old.day
"""
# The highest, so that the warnings of one run are bounded.
_RATIOS: LiteralString = """
SELECT u.tenant_id, l.name, l.used, l.maximum, u.soft_percent
FROM tenure.tenant_usage AS u
CROSS JOIN LATERAL (
    VALUES
        ('stored_bytes', u.stored_bytes, u.max_stored_bytes),
        ('threads', u.threads, u.max_threads),
        ('items', u.items, u.max_items)
) AS l (name, used, maximum)
JOIN tenure.tenant AS t ON t.tenant_id = u.tenant_id AND t.deleted_at IS NULL
WHERE l.maximum IS NOT NULL
ORDER BY l.used / greatest(l.maximum, 1)::float8 DESC, u.tenant_id, l.name
LIMIT 1000
"""


class UsageSweeping:
    """Goes on where the run before ended, and warns of each limit once until it is left again."""

    def __init__(self) -> None:
        self._position = _START
        self._warned: set[tuple[TenantId, str]] = set()

    async def run(
        self, connection: AsyncConnection[Any], slice_rows: int, slices: int, stop: asyncio.Event
    ) -> None:
        """Note usage of the next `slices` slices of tenants, and look at all limits."""
        for _ in range(slices):
            if stop.is_set():
                return
            cursor = await connection.execute(_NOTE, {"after": self._position, "limit": slice_rows})
            rows = await cursor.fetchall()
            self._position = rows[-1][0] if len(rows) == slice_rows else _START
            if len(rows) < slice_rows:
                break
        await connection.execute(_FORGET, {"days": _KEPT_DAYS, "limit": slice_rows})
        await self._warn(connection)

    async def _warn(self, connection: AsyncConnection[Any]) -> None:
        cursor = await connection.execute(_RATIOS)
        ratios: dict[tuple[TenantId, str], float] = {}
        warned: set[tuple[TenantId, str]] = set()
        for tenant, limit, used, maximum, soft_percent in await cursor.fetchall():
            ratios[tenant, limit] = ratio = used / max(maximum, 1)
            if ratio * 100 < soft_percent:
                continue
            warned.add((tenant, limit))
            if (tenant, limit) not in self._warned:
                _log.warning(
                    "tenant %s uses %d of %d %s, %.1f %%",
                    *(telemetry.tenant_hash(tenant), used, maximum, limit, ratio * 100),
                )
        self._warned = warned
        telemetry.show_quotas(ratios)
