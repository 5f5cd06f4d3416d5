"""Limits and usage of tenants in Postgres, as `tenure_ops`; see `quotas.Quotas`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Any, Final, LiteralString

from psycopg import AsyncConnection, sql

from tenure_server import errors
from tenure_server.domain import TenantId
from tenure_server.quotas import BURST, SOFT_PERCENT, Quota, Usage, UsageRow
from tenure_server.storage.postgres.ops_pool import OpsPool

_STORED: Final = (
    *("max_stored_bytes", "max_threads", "max_items"),
    *("max_checkpoints_per_thread", "max_value_bytes", "soft_percent"),
)
_FAST: Final = ("operations_per_second", "bytes_per_second", "burst_seconds", "max_concurrency")
_NAMES: Final = tuple(field.name for field in fields(Quota))

_TENANT: LiteralString = "SELECT FROM tenure.tenant WHERE tenant_id = %(tenant)s"
_LIVING: LiteralString = """
SELECT FROM tenure.tenant WHERE tenant_id = %(tenant)s AND deleted_at IS NULL FOR SHARE
"""
_GET_QUOTA: LiteralString = """
SELECT
    u.max_stored_bytes, u.max_threads, u.max_items, u.max_checkpoints_per_thread, u.max_value_bytes,
    u.soft_percent, r.operations_per_second, r.bytes_per_second, r.burst_seconds, r.max_concurrency
FROM (SELECT) AS one
LEFT JOIN tenure.tenant_usage AS u ON u.tenant_id = %(tenant)s
LEFT JOIN tenure.tenant_rate AS r ON r.tenant_id = %(tenant)s
"""
_NO_RATES: LiteralString = """
DELETE FROM tenure.tenant_rate
WHERE tenant_id = %(tenant)s
    AND operations_per_second IS NULL AND bytes_per_second IS NULL AND max_concurrency IS NULL
    AND burst_seconds = %(burst)s
"""
_USAGE: LiteralString = """
SELECT u.stored_bytes, u.threads, u.items FROM tenure.tenant_usage AS u WHERE u.tenant_id = %(tenant)s
"""
_DAYS: LiteralString = """
WITH day AS (
    SELECT d.day, d.stored_bytes, d.threads, d.items
    FROM tenure.usage_day AS d
    WHERE d.tenant_id = %(tenant)s AND d.day <> (now() AT TIME ZONE 'UTC')::date
    UNION ALL
    SELECT (now() AT TIME ZONE 'UTC')::date, u.stored_bytes, u.threads, u.items
    FROM tenure.tenant_usage AS u
    WHERE u.tenant_id = %(tenant)s
), grown AS (
    SELECT day.*, day.stored_bytes - lag(day.stored_bytes) OVER (ORDER BY day.day) AS bytes
    FROM day
)
SELECT g.day, g.stored_bytes, g.threads, g.items, g.bytes
FROM (SELECT grown.* FROM grown ORDER BY grown.day DESC LIMIT %(limit)s) AS g
ORDER BY g.day
"""


class PostgresQuotas:
    """See `quotas.Quotas`."""

    def __init__(self, pool: OpsPool) -> None:
        self._pool = pool

    async def get_quota(self, tenant: TenantId) -> Quota:
        async with self._pool.connection() as connection:
            await _must_be(connection, _TENANT, tenant)
            return await _quota(connection, tenant)

    async def set_quota(self, tenant: TenantId, quota: Quota, fields: Collection[str]) -> Quota:
        async with self._pool.connection() as connection, connection.transaction():
            # The tenant cannot be deleted meanwhile: its row of limits would stay for ever.
            await _must_be(connection, _LIVING, tenant)
            for table, columns in (("tenant_usage", _STORED), ("tenant_rate", _FAST)):
                given = {name: getattr(quota, name) for name in columns if name in fields}
                if given:
                    await connection.execute(_upsert(table, given), {"tenant": tenant, **given})
            await connection.execute(_NO_RATES, {"tenant": tenant, "burst": BURST})
            return await _quota(connection, tenant)

    async def get_usage(self, tenant: TenantId) -> Usage:
        async with self._pool.connection() as connection:
            await _must_be(connection, _TENANT, tenant)
            row = await (await connection.execute(_USAGE, {"tenant": tenant})).fetchone()
        return Usage() if row is None else Usage(*row)

    async def list_days(self, tenant: TenantId, limit: int) -> Sequence[UsageRow]:
        async with self._pool.connection() as connection:
            await _must_be(connection, _TENANT, tenant)
            cursor = await connection.execute(_DAYS, {"tenant": tenant, "limit": limit})
            return [
                UsageRow(
                    day.isoformat(), stored_bytes=stored, threads=threads, items=items, grown_bytes=grown
                )
                for day, stored, threads, items, grown in await cursor.fetchall()
            ]


async def _must_be(connection: AsyncConnection[Any], statement: LiteralString, tenant: TenantId) -> None:
    if (await connection.execute(statement, {"tenant": tenant})).rowcount == 0:
        raise errors.TenantNotFound


async def _quota(connection: AsyncConnection[Any], tenant: TenantId) -> Quota:
    row = await (await connection.execute(_GET_QUOTA, {"tenant": tenant})).fetchone()
    assert row is not None
    found = dict(zip(_NAMES, row, strict=True))
    defaults = {"soft_percent": SOFT_PERCENT, "burst_seconds": BURST}
    return Quota(**found | {name: value for name, value in defaults.items() if found[name] is None})


def _upsert(table: str, values: Collection[str]) -> sql.Composed:
    names = [sql.Identifier(name) for name in values]
    return sql.SQL(
        "INSERT INTO tenure.{table} (tenant_id, {names}) VALUES (%(tenant)s, {values}) "
        "ON CONFLICT (tenant_id) DO UPDATE SET {changes}"
    ).format(
        table=sql.Identifier(table),
        names=sql.SQL(", ").join(names),
        values=sql.SQL(", ").join(sql.Placeholder(name) for name in values),
        changes=sql.SQL(", ").join(sql.SQL("{0} = EXCLUDED.{0}").format(name) for name in names),
    )
