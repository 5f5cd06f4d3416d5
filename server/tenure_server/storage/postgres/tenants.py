"""API keys as the server finds them, and tenants and keys as the command line makes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import LiteralString
from uuid import uuid4

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tenure_server import errors
from tenure_server.domain import OPERATORS, Scope, StoredKey, TenantId
from tenure_server.keys import ApiKey
from tenure_server.rates import Rates
from tenure_server.rules import Rules, parse
from tenure_server.storage.postgres import faults
from tenure_server.storage.postgres.pool import Database

_FIND_KEY: LiteralString = "SELECT * FROM tenure.find_key_3(%s, %s)"
_KEY_USED: LiteralString = "SELECT tenure.key_used_1(%s, %s)"
_CREATE_TENANT: LiteralString = "INSERT INTO tenure.tenant (tenant_id, name) VALUES (%s, %s)"
_CREATE_KEY: LiteralString = """
INSERT INTO tenure.api_key (tenant_id, key_id, digest, scopes, rules, expires_at)
SELECT
    t.tenant_id, %(key_id)s, %(digest)s, %(scopes)s, %(rules)s,
    now() + make_interval(secs => %(expires_in)s)
FROM tenure.tenant AS t
WHERE t.tenant_id = %(tenant)s AND t.deleted_at IS NULL
"""
_REVOKE_KEY: LiteralString = """
UPDATE tenure.api_key
SET revoked_at = coalesce(revoked_at, now())
WHERE tenant_id = %s AND key_id = %s
"""


class PostgresKeys:
    """See `ports.KeyStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_key(self, tenant: TenantId, key_id: str) -> StoredKey | None:
        if tenant == OPERATORS:
            return None
        rows = await self._database.call(tenant, _FIND_KEY, [tenant, key_id], operation="find_key")
        return stored_key(tenant, key_id, rows[0]) if rows else None

    async def mark_used(self, tenant: TenantId, key_id: str) -> None:
        await self._database.call(tenant, _KEY_USED, [tenant, key_id], operation="key_used", writes=True)


def stored_key(tenant: TenantId, key_id: str, row: TupleRow) -> StoredKey | None:
    """Return the key that a row of `find_key_3` is about, None if its rules cannot be understood.

    The columns of rates may be left out.
    """
    digest, scopes, texts, expires_at, revoked_at, *fast = row
    try:
        limits = parse(texts)
    except ValueError:
        return None
    # Without a row of rates there is no burst either.
    rates = Rates(*fast) if fast and fast[2] is not None else None
    return StoredKey(tenant, key_id, digest, known_scopes(scopes), expires_at, revoked_at, limits, rates)


def known_scopes(names: Sequence[str]) -> frozenset[Scope]:
    """Return what a key may do; a scope of a later version means nothing here."""
    return frozenset(Scope(name) for name in names if name in {scope.value for scope in Scope})


class PostgresTenants:
    """See `ports.TenantAdmin`; a connection for each call, as `tenure_ops`."""

    def __init__(self, dsn: str) -> None:
        """Take where to connect.

        Args:
            dsn: As `tenure_ops`, or as a superuser or another role that may act as it.
        """
        self._dsn = dsn

    async def create_tenant(self, name: str) -> TenantId:
        tenant = TenantId(uuid4())
        async with self._connection() as connection:
            await connection.execute(_CREATE_TENANT, [tenant, name])
        return tenant

    async def create_key(
        self,
        tenant: TenantId,
        scopes: frozenset[Scope],
        expires_in: float | None = None,
        *,
        rules: Rules | None = None,
    ) -> str:
        key = ApiKey.generate(tenant)
        params = {
            "tenant": tenant,
            "key_id": key.key_id,
            "digest": key.digest(),
            "scopes": sorted(scope.value for scope in scopes),
            "rules": [] if rules is None else rules.format(),
            "expires_in": expires_in,
        }
        async with self._connection() as connection:
            if (await connection.execute(_CREATE_KEY, params)).rowcount == 0:
                raise errors.InvalidField("tenant", "there is no such tenant")
        return key.text()

    async def revoke_key(self, tenant: TenantId, key_id: str) -> bool:
        async with self._connection() as connection:
            return (await connection.execute(_REVOKE_KEY, [tenant, key_id])).rowcount > 0

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        with faults.translated():
            async with await AsyncConnection.connect(
                self._dsn, autocommit=True, application_name="tenure tenants", connect_timeout=5
            ) as connection:
                await connection.execute("SET ROLE tenure_ops")
                yield connection
