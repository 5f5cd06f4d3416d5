"""Tenants and keys in Postgres, as `tenure_ops`; see `administration.Administration`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, LiteralString
from uuid import uuid4

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tenure_server import errors
from tenure_server.administration import Key, NewKey, Tenant
from tenure_server.domain import OPERATORS, Scope, StoredKey, TenantId
from tenure_server.keys import ApiKey
from tenure_server.rules import Rules
from tenure_server.storage.postgres.ops_pool import OpsPool
from tenure_server.storage.postgres.tenants import known_scopes, stored_key

_FIND_KEY: LiteralString = """
SELECT k.digest, k.scopes, k.rules, k.expires_at, k.revoked_at
FROM tenure.api_key AS k
JOIN tenure.tenant AS t ON t.tenant_id = k.tenant_id
WHERE k.tenant_id = %s AND k.key_id = %s AND t.suspended_at IS NULL
"""
_KEY_USED: LiteralString = "SELECT tenure.key_used_1(%s, %s)"

_CREATE_TENANT: LiteralString = "INSERT INTO tenure.tenant (tenant_id, name) VALUES (%(tenant)s, %(name)s)"
_GET_TENANT: LiteralString = """
SELECT t.tenant_id, t.name, t.created_at, t.suspended_at, t.deleted_at
FROM tenure.tenant AS t
WHERE t.tenant_id = %(tenant)s
"""
_LIST_TENANTS: LiteralString = """
SELECT t.tenant_id, t.name, t.created_at, t.suspended_at, t.deleted_at
FROM tenure.tenant AS t
WHERE t.tenant_id <> %(operators)s AND (
    %(name)s::text IS NULL
    OR (t.name COLLATE "C", t.tenant_id) > (%(name)s COLLATE "C", %(tenant)s::uuid)
)
ORDER BY t.name COLLATE "C", t.tenant_id
LIMIT %(limit)s
"""
_SUSPEND: LiteralString = """
UPDATE tenure.tenant SET suspended_at = coalesce(suspended_at, now())
WHERE tenant_id = %(tenant)s AND deleted_at IS NULL
"""
_RESUME: LiteralString = """
UPDATE tenure.tenant SET suspended_at = NULL WHERE tenant_id = %(tenant)s AND deleted_at IS NULL
"""
_DELETE: LiteralString = """
UPDATE tenure.tenant
SET suspended_at = coalesce(suspended_at, now()), deleted_at = coalesce(deleted_at, now())
WHERE tenant_id = %(tenant)s AND name = %(name)s
"""

_CREATE_KEY: LiteralString = """
INSERT INTO tenure.api_key (tenant_id, key_id, digest, name, scopes, rules, expires_at)
SELECT
    t.tenant_id, %(key_id)s, %(digest)s, %(name)s, %(scopes)s, %(rules)s,
    now() + make_interval(secs => %(expires_in)s)
FROM tenure.tenant AS t
WHERE t.tenant_id = %(tenant)s AND t.deleted_at IS NULL
"""
_LOCK_KEY: LiteralString = """
SELECT FROM tenure.api_key WHERE tenant_id = %(tenant)s AND key_id = %(key_id)s FOR UPDATE
"""
_GET_KEY: LiteralString = """
SELECT
    k.tenant_id, k.key_id, k.name, k.scopes, k.rules, k.created_at, k.expires_at, k.revoked_at,
    k.last_used_at, coalesce(k.replaced_by, ''), coalesce(k.expires_at <= now(), false)
FROM tenure.api_key AS k
WHERE k.tenant_id = %(tenant)s AND k.key_id = %(key_id)s
"""
_LIST_KEYS: LiteralString = """
SELECT
    k.tenant_id, k.key_id, k.name, k.scopes, k.rules, k.created_at, k.expires_at, k.revoked_at,
    k.last_used_at, coalesce(k.replaced_by, ''), coalesce(k.expires_at <= now(), false)
FROM tenure.api_key AS k
WHERE k.tenant_id = %(tenant)s
    AND (%(created)s::timestamptz IS NULL OR (k.created_at, k.key_id) > (%(created)s, %(key_id)s))
ORDER BY k.created_at, k.key_id
LIMIT %(limit)s
"""
_COPY_KEY: LiteralString = """
INSERT INTO tenure.api_key (tenant_id, key_id, digest, name, scopes, rules, expires_at)
SELECT
    o.tenant_id, %(new_id)s, %(digest)s, o.name, o.scopes, o.rules, now() + (o.expires_at - o.created_at)
FROM tenure.api_key AS o
WHERE o.tenant_id = %(tenant)s AND o.key_id = %(key_id)s
"""
_REPLACE: LiteralString = """
UPDATE tenure.api_key
SET expires_at = least(expires_at, now() + make_interval(secs => %(overlap)s)), replaced_by = %(new_id)s
WHERE tenant_id = %(tenant)s AND key_id = %(key_id)s
"""
_EXPIRE: LiteralString = """
UPDATE tenure.api_key
SET expires_at = least(expires_at, now() + make_interval(secs => %(expires_in)s))
WHERE tenant_id = %(tenant)s AND key_id = %(key_id)s
"""
_REVOKE: LiteralString = """
UPDATE tenure.api_key SET revoked_at = coalesce(revoked_at, now())
WHERE tenant_id = %(tenant)s AND key_id = %(key_id)s
"""


class PostgresAdministration:
    """See `administration.Administration`."""

    def __init__(self, pool: OpsPool) -> None:
        self._pool = pool

    async def find_key(self, tenant: TenantId, key_id: str) -> StoredKey | None:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(_FIND_KEY, [tenant, key_id])).fetchone()
        return None if row is None else stored_key(tenant, key_id, row)

    async def mark_used(self, tenant: TenantId, key_id: str) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(_KEY_USED, [tenant, key_id])

    async def create_tenant(self, name: str) -> Tenant:
        return await self._change_tenant(_CREATE_TENANT, TenantId(uuid4()), name=name)

    async def get_tenant(self, tenant: TenantId) -> Tenant:
        async with self._pool.connection() as connection:
            return await _tenant(connection, tenant)

    async def list_tenants(self, limit: int, after: tuple[str, TenantId] | None) -> Sequence[Tenant]:
        name, last = after or (None, None)
        params = {"operators": OPERATORS, "name": name, "tenant": last, "limit": limit}
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_LIST_TENANTS, params)
            return [Tenant(*row) for row in await cursor.fetchall()]

    async def suspend_tenant(self, tenant: TenantId) -> Tenant:
        return await self._change_tenant(_SUSPEND, tenant)

    async def resume_tenant(self, tenant: TenantId) -> Tenant:
        return await self._change_tenant(_RESUME, tenant)

    async def delete_tenant(self, tenant: TenantId, name: str) -> Tenant:
        async with self._transaction() as connection:
            if (await connection.execute(_DELETE, {"tenant": tenant, "name": name})).rowcount == 0:
                await _tenant(connection, tenant)
                raise errors.InvalidField("name", "is not the name of this tenant; nothing was deleted")
            return await _tenant(connection, tenant)

    async def create_key(
        self,
        tenant: TenantId,
        scopes: frozenset[Scope],
        *,
        name: str = "",
        rules: Rules | None = None,
        expires_in: float | None = None,
    ) -> NewKey:
        new = ApiKey.generate(tenant)
        params = {
            "tenant": tenant,
            "key_id": new.key_id,
            "digest": new.digest(),
            "name": name,
            "scopes": sorted(scope.value for scope in scopes),
            "rules": [] if rules is None else rules.format(),
            "expires_in": expires_in,
        }
        async with self._transaction() as connection:
            if (await connection.execute(_CREATE_KEY, params)).rowcount == 0:
                raise errors.TenantNotFound
            return NewKey(await _key(connection, tenant, new.key_id), new.text())

    async def get_key(self, tenant: TenantId, key_id: str) -> Key:
        async with self._pool.connection() as connection:
            return await _key(connection, tenant, key_id)

    async def list_keys(
        self, tenant: TenantId, limit: int, after: tuple[datetime, str] | None
    ) -> Sequence[Key]:
        created, last = after or (None, None)
        params = {"tenant": tenant, "created": created, "key_id": last, "limit": limit}
        async with self._pool.connection() as connection:
            await _tenant(connection, tenant)
            cursor = await connection.execute(_LIST_KEYS, params)
            return [_key_of(row) for row in await cursor.fetchall()]

    async def rotate_key(self, tenant: TenantId, key_id: str, overlap: float) -> tuple[NewKey, Key]:
        new = ApiKey.generate(tenant)
        params = {
            "tenant": tenant,
            "key_id": key_id,
            "new_id": new.key_id,
            "digest": new.digest(),
            "overlap": overlap,
        }
        async with self._transaction() as connection:
            # Of two rotations of one key at the same time the second sees that there was a first.
            await connection.execute(_LOCK_KEY, params)
            old = await _key(connection, tenant, key_id)
            if old.revoked_at is not None or old.expired:
                raise errors.InvalidField("key_id", "is of a key that has ended; make a new key instead")
            if old.replaced_by:
                raise errors.InvalidField("key_id", f"was replaced by {old.replaced_by}; rotate that one")
            await connection.execute(_COPY_KEY, params)
            await connection.execute(_REPLACE, params)
            made = NewKey(await _key(connection, tenant, new.key_id), new.text())
            return made, await _key(connection, tenant, key_id)

    async def expire_key(self, tenant: TenantId, key_id: str, expires_in: float) -> Key:
        return await self._change_key(_EXPIRE, tenant, key_id, expires_in=expires_in)

    async def revoke_key(self, tenant: TenantId, key_id: str) -> Key:
        return await self._change_key(_REVOKE, tenant, key_id)

    async def _change_tenant(self, statement: LiteralString, tenant: TenantId, **params: object) -> Tenant:
        async with self._transaction() as connection:
            if (await connection.execute(statement, {"tenant": tenant, **params})).rowcount == 0:
                raise errors.TenantNotFound
            return await _tenant(connection, tenant)

    async def _change_key(
        self, statement: LiteralString, tenant: TenantId, key_id: str, **params: object
    ) -> Key:
        async with self._transaction() as connection:
            await connection.execute(statement, {"tenant": tenant, "key_id": key_id, **params})
            return await _key(connection, tenant, key_id)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection[Any]]:
        async with self._pool.connection() as connection, connection.transaction():
            yield connection


async def _tenant(connection: AsyncConnection[Any], tenant: TenantId) -> Tenant:
    row = await (await connection.execute(_GET_TENANT, {"tenant": tenant})).fetchone()
    if row is None:
        raise errors.TenantNotFound
    return Tenant(*row)


async def _key(connection: AsyncConnection[Any], tenant: TenantId, key_id: str) -> Key:
    row = await (await connection.execute(_GET_KEY, {"tenant": tenant, "key_id": key_id})).fetchone()
    if row is None:
        await _tenant(connection, tenant)
        raise errors.KeyNotFound
    return _key_of(row)


def _key_of(row: TupleRow) -> Key:
    tenant, key_id, name, scopes, *rest = row
    return Key(tenant, key_id, name, known_scopes(scopes), *rest)
