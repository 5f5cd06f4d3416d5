"""Policies for single writers in Postgres, as `tenure_ops`; see `writer_policies.WriterPolicies`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, LiteralString

from tenure_server import errors
from tenure_server.domain import TenantId
from tenure_server.storage.postgres.ops_pool import OpsPool
from tenure_server.writer_policies import WriterPolicy

MAX_POLICIES: Final = 1000
_SLICE = 500
"""Threads whose heads are locked at a time."""

_TENANT: LiteralString = """
SELECT count(p.tenant_id), count(*) FILTER (WHERE p.thread_prefix = %(prefix)s)
FROM tenure.tenant AS t
LEFT JOIN tenure.writer_policy AS p ON p.tenant_id = t.tenant_id
WHERE t.tenant_id = %(tenant)s AND t.deleted_at IS NULL
GROUP BY t.tenant_id
"""
_CREATE: LiteralString = """
INSERT INTO tenure.writer_policy (tenant_id, thread_prefix) VALUES (%(tenant)s, %(prefix)s)
ON CONFLICT DO NOTHING
"""
_LIST: LiteralString = """
SELECT p.thread_prefix, p.created_at
FROM tenure.writer_policy AS p
WHERE p.tenant_id = %(tenant)s AND (%(prefix)s::text IS NULL OR p.thread_prefix = %(prefix)s)
ORDER BY p.thread_prefix
"""
_DELETE: LiteralString = """
DELETE FROM tenure.writer_policy WHERE tenant_id = %(tenant)s AND thread_prefix = %(prefix)s
"""
_APPLY: LiteralString = "SELECT last, changed FROM tenure.apply_writer_policies_1(%s, %s, %s, %s)"


class PostgresWriterPolicies:
    """See `writer_policies.WriterPolicies`."""

    def __init__(self, pool: OpsPool) -> None:
        self._pool = pool

    async def create(self, tenant: TenantId, thread_prefix: str) -> tuple[WriterPolicy, int]:
        params = {"tenant": tenant, "prefix": thread_prefix}
        async with self._pool.connection() as connection:
            row = await (await connection.execute(_TENANT, params)).fetchone()
            if row is None:
                raise errors.TenantNotFound
            if row[0] >= MAX_POLICIES and not row[1]:
                raise errors.LimitExceeded("thread_prefix", "policies of a tenant", row[0] + 1, MAX_POLICIES)
            await connection.execute(_CREATE, params)
        # Threads made from here on see the policy; those before are found now.
        changed = await self._apply(tenant, thread_prefix)
        made = await self._list(tenant, thread_prefix)
        if not made:
            raise errors.Conflict
        return made[0], changed

    async def list_policies(self, tenant: TenantId) -> Sequence[WriterPolicy]:
        async with self._pool.connection() as connection:
            params = {"tenant": tenant, "prefix": ""}
            if await (await connection.execute(_TENANT, params)).fetchone() is None:
                raise errors.TenantNotFound
        return await self._list(tenant, None)

    async def delete(self, tenant: TenantId, thread_prefix: str) -> int:
        params = {"tenant": tenant, "prefix": thread_prefix}
        async with self._pool.connection() as connection:
            if await (await connection.execute(_TENANT, params)).fetchone() is None:
                raise errors.TenantNotFound
            if (await connection.execute(_DELETE, params)).rowcount == 0:
                raise errors.InvalidField("thread_prefix", "is not the prefix of a policy; list them")
        return await self._apply(tenant, thread_prefix)

    async def _list(self, tenant: TenantId, thread_prefix: str | None) -> list[WriterPolicy]:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_LIST, {"tenant": tenant, "prefix": thread_prefix})
            return [WriterPolicy(*row) for row in await cursor.fetchall()]

    async def _apply(self, tenant: TenantId, thread_prefix: str) -> int:
        """Let threads be what the policies say, a slice in a transaction: writers wait for one at most."""
        changed: int = 0
        last: str | None = None
        while True:
            async with self._pool.connection() as connection:
                cursor = await connection.execute(_APPLY, [tenant, thread_prefix, last, _SLICE])
                row = await cursor.fetchone()
            assert row is not None
            last, more = row
            changed += more
            if last is None:
                return changed
