"""Policies, pins and holds in Postgres, set as `tenure_ops`; see `retention.Retention`.

What has expired is told by `tenure_app`, within the tenant: `tenure_ops` cannot read what that takes.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any, Final, LiteralString

from psycopg import AsyncConnection

from tenure_server import errors
from tenure_server.domain import TenantId
from tenure_server.retention import Expired, Hold, Items, Pin, Policy, Scope, Threads
from tenure_server.storage.postgres import retention_preview as preview
from tenure_server.storage.postgres.batches import ns_hash
from tenure_server.storage.postgres.items_namespaces import decoded, encoded
from tenure_server.storage.postgres.ops_pool import OpsPool
from tenure_server.storage.postgres.pool import Database
from tenure_server.storage.postgres.retention_lines import calling, draw_lines

MAX_POLICIES: Final = 1000
MAX_PINS: Final = 10_000
MAX_PREVIEWS: Final = 2
"""Previews at once, of a tenant one: each keeps a connection busy."""
PREVIEW_SECONDS: Final = 300.0

_log = logging.getLogger("tenure")

_TENANT: LiteralString = "SELECT FROM tenure.tenant WHERE tenant_id = %s AND deleted_at IS NULL FOR SHARE"
_COUNT_POLICIES: LiteralString = """
SELECT count(*) FROM tenure.retention_policy
WHERE tenant_id = %(tenant)s AND (kind, prefix) <> (%(kind)s, %(prefix)s)
"""
_COUNT_HOLDS: LiteralString = """
SELECT count(*) FROM tenure.retention_hold
WHERE tenant_id = %(tenant)s AND (kind, prefix) <> (%(kind)s, %(prefix)s)
"""
_COUNT_PINS: LiteralString = "SELECT count(*) FROM tenure.retention_pin WHERE tenant_id = %(tenant)s"
# A policy that changes draws a line of its own.
_SET: LiteralString = """
INSERT INTO tenure.retention_policy AS x (
    tenant_id, kind, prefix, max_age, max_idle, keep_last, item_ttl, max_bytes, floor
)
VALUES (
    %(tenant)s, %(kind)s, %(prefix)s, make_interval(secs => %(max_age)s), make_interval(secs => %(max_idle)s),
    %(keep_last)s, make_interval(secs => %(item_ttl)s), %(max_bytes)s, %(floor)s
)
ON CONFLICT (tenant_id, kind, prefix) DO UPDATE SET
    max_age = excluded.max_age, max_idle = excluded.max_idle, keep_last = excluded.keep_last,
    item_ttl = excluded.item_ttl, max_bytes = excluded.max_bytes, floor = excluded.floor,
    updated_at = now(), line_at = NULL, line_name = NULL, line_since = NULL,
    settled_at = NULL, settled_name = NULL
"""
_LIST: LiteralString = """
SELECT
    kind, prefix, extract(epoch FROM max_age)::float8, extract(epoch FROM max_idle)::float8, keep_last,
    extract(epoch FROM item_ttl)::float8, max_bytes, floor, updated_at
FROM tenure.retention_policy
WHERE tenant_id = %(tenant)s
ORDER BY kind DESC, prefix
"""
_LIST_HOLDS: LiteralString = """
SELECT kind, prefix, reason, created_at
FROM tenure.retention_hold
WHERE tenant_id = %(tenant)s
ORDER BY kind DESC, prefix
"""
_DELETE: LiteralString = """
DELETE FROM tenure.retention_policy WHERE tenant_id = %(tenant)s AND kind = %(kind)s AND prefix = %(prefix)s
"""
_THREAD: LiteralString = """
SELECT thread_key FROM tenure.thread_head WHERE tenant_id = %(tenant)s AND thread_id = %(thread)s
"""
# A deleter waits.
_LOCK_THREAD: LiteralString = """
SELECT FROM tenure.thread_head WHERE tenant_id = %(tenant)s AND thread_key = %(key)s FOR KEY SHARE
"""
_CHECKPOINT: LiteralString = """
SELECT FROM tenure.checkpoint AS c
WHERE c.tenant_id = %(tenant)s AND c.thread_key = %(key)s
    AND c.checkpoint_ns = %(ns)s AND c.checkpoint_id = %(id)s
"""
_HIDDEN: LiteralString = "SELECT tenure.is_hidden_1(%s, %s, %s, %s)"
_PIN: LiteralString = """
INSERT INTO tenure.retention_pin (tenant_id, thread_key, ns_hash, checkpoint_id, checkpoint_ns, reason)
VALUES (%(tenant)s, %(key)s, %(ns_hash)s, %(id)s, %(ns)s, %(reason)s)
ON CONFLICT (tenant_id, thread_key, ns_hash, checkpoint_id) DO UPDATE SET reason = excluded.reason
RETURNING created_at
"""
_UNPIN: LiteralString = """
DELETE FROM tenure.retention_pin AS p
USING tenure.thread_head AS h
WHERE h.tenant_id = %(tenant)s AND h.thread_id = %(thread)s
    AND p.tenant_id = %(tenant)s AND p.thread_key = h.thread_key
    AND p.ns_hash = %(ns_hash)s AND p.checkpoint_id = %(id)s
"""
_LIST_PINS: LiteralString = """
SELECT h.thread_id, p.checkpoint_ns, p.checkpoint_id, p.reason, p.created_at
FROM tenure.retention_pin AS p
JOIN tenure.thread_head AS h ON h.tenant_id = p.tenant_id AND h.thread_key = p.thread_key
WHERE p.tenant_id = %(tenant)s AND (
    %(thread)s::text IS NULL OR (h.thread_id, p.checkpoint_ns, p.checkpoint_id) > (%(thread)s, %(ns)s, %(id)s)
)
ORDER BY h.thread_id, p.checkpoint_ns, p.checkpoint_id
LIMIT %(limit)s
"""
_HOLDS_LOCK: LiteralString = "SELECT pg_advisory_xact_lock(tenure.holds_lock_1(%s))"
_HOLD: LiteralString = """
INSERT INTO tenure.retention_hold (tenant_id, kind, prefix, reason)
VALUES (%(tenant)s, %(kind)s, %(prefix)s, %(reason)s)
ON CONFLICT (tenant_id, kind, prefix) DO UPDATE SET reason = excluded.reason
RETURNING created_at
"""
_RELEASE: LiteralString = """
DELETE FROM tenure.retention_hold WHERE tenant_id = %(tenant)s AND kind = %(kind)s AND prefix = %(prefix)s
"""


class PostgresRetention:
    """See `retention.Retention`."""

    def __init__(
        self, pool: OpsPool, database: Database, settle: float, previews: Database | None = None
    ) -> None:
        """Make a store.

        Args:
            pool: Connections as `tenure_ops`.
            database: Connections as `tenure_app`.
            settle: See `retention_sweeping.SETTLE`.
            previews: Connections as `tenure_app` for previews, which keep them for long; None = `database`.
        """
        self._pool = pool
        self._database = database
        self._settle = settle
        self._previews = previews or database
        self._previewed: set[TenantId] = set()

    async def set_policy(self, tenant: TenantId, policy: Policy) -> Policy:
        params = _params(tenant, policy)
        async with self._change(tenant) as connection:
            await _check_count(connection, _COUNT_POLICIES, params, "policies", MAX_POLICIES)
            await connection.execute(_SET, params)
        try:
            await draw_lines(calling(self._database, tenant), tenant, self._settle)
        except errors.TenureError as error:
            # The policy is set: the sweeper draws its line.
            _log.warning("retention: the line of a policy: %s", error)
        policies, _ = await self.list_policies(tenant)
        made = next((found for found in policies if found.scope == policy.scope), None)
        if made is None:
            raise errors.Conflict
        return made

    async def list_policies(self, tenant: TenantId) -> tuple[Sequence[Policy], Sequence[Hold]]:
        async with self._change(tenant) as connection:
            policies = await (await connection.execute(_LIST, {"tenant": tenant})).fetchall()
            holds = await (await connection.execute(_LIST_HOLDS, {"tenant": tenant})).fetchall()
        return (
            [Policy(_scope(kind, prefix), *rest) for kind, prefix, *rest in policies],
            [
                Hold(None if kind == "tenant" else _scope(kind, prefix), reason, created_at)
                for kind, prefix, reason, created_at in holds
            ],
        )

    async def delete_policy(self, tenant: TenantId, scope: Scope) -> None:
        async with self._change(tenant) as connection:
            if (await connection.execute(_DELETE, {"tenant": tenant, **_place(scope)})).rowcount == 0:
                raise errors.InvalidField("scope", "is not the scope of a policy; list them")

    async def preview(self, tenant: TenantId, proposed: Policy | None) -> AsyncGenerator[Expired, None]:
        async with self._change(tenant):
            pass
        if tenant in self._previewed or len(self._previewed) >= MAX_PREVIEWS:
            raise errors.Overloaded("previews", retry_after=1.0)
        statement = None if proposed is None else (_SET, _params(tenant, proposed))
        self._previewed.add(tenant)
        try:
            telling = preview.preview(self._previews, tenant, self._settle, statement)
            async with aclosing(preview.apart(telling, PREVIEW_SECONDS)) as found:
                async for one in found:
                    yield one
        finally:
            self._previewed.remove(tenant)

    async def pin(self, tenant: TenantId, pin: Pin) -> Pin:
        params = _pin_params(tenant, pin)
        async with self._change(tenant) as connection:
            row = await (await connection.execute(_THREAD, params)).fetchone()
        if row is None:
            raise errors.ThreadNotFound
        params["key"] = row[0]
        # Not with a connection in hand, for one of another pool.
        if await self._is_hidden(tenant, row[0], None, None):
            raise errors.ThreadNotFound
        if pin.checkpoint_id and await self._is_hidden(tenant, row[0], pin.checkpoint_ns, pin.checkpoint_id):
            raise _no_checkpoint()
        async with self._change(tenant) as connection:
            if (await connection.execute(_LOCK_THREAD, params)).rowcount == 0:
                raise errors.ThreadNotFound
            if pin.checkpoint_id and (await connection.execute(_CHECKPOINT, params)).rowcount == 0:
                raise _no_checkpoint()
            await _check_count(connection, _COUNT_PINS, params, "pins", MAX_PINS)
            made = await (await connection.execute(_PIN, params)).fetchone()
        assert made is not None
        return replace(pin, created_at=made[0])

    async def unpin(self, tenant: TenantId, pin: Pin) -> None:
        async with self._change(tenant) as connection:
            if (await connection.execute(_UNPIN, _pin_params(tenant, pin))).rowcount == 0:
                raise errors.InvalidField("pin", "is not there; list the pins")

    async def list_pins(
        self, tenant: TenantId, limit: int, after: tuple[str, str, str] | None
    ) -> Sequence[Pin]:
        thread, ns, checkpoint_id = after or (None, None, None)
        params = {"tenant": tenant, "thread": thread, "ns": ns, "id": checkpoint_id, "limit": limit}
        async with self._change(tenant) as connection:
            cursor = await connection.execute(_LIST_PINS, params)
            return [Pin(*row) for row in await cursor.fetchall()]

    async def hold(self, tenant: TenantId, hold: Hold) -> Hold:
        params = {"tenant": tenant, "reason": hold.reason, **_place(hold.scope)}
        async with self._change(tenant) as connection:
            await connection.execute(_HOLDS_LOCK, [tenant])
            await _check_count(connection, _COUNT_HOLDS, params, "holds", MAX_POLICIES)
            made = await (await connection.execute(_HOLD, params)).fetchone()
        assert made is not None
        return replace(hold, created_at=made[0])

    async def release(self, tenant: TenantId, scope: Scope | None) -> None:
        async with self._change(tenant) as connection:
            if (await connection.execute(_RELEASE, {"tenant": tenant, **_place(scope)})).rowcount == 0:
                raise errors.InvalidField("scope", "is not the scope of a hold; list them")

    async def _is_hidden(self, tenant: TenantId, key: object, ns: str | None, id: str | None) -> bool:
        async with self._database.transaction(tenant, snapshot=True) as connection:
            row = await (await connection.execute(_HIDDEN, [tenant, key, ns, id])).fetchone()
        return row == (True,)

    @asynccontextmanager
    async def _change(self, tenant: TenantId) -> AsyncIterator[AsyncConnection[Any]]:
        """Give a transaction in which the tenant is there and is not being deleted."""
        async with self._pool.connection() as connection, connection.transaction():
            if (await connection.execute(_TENANT, [tenant])).rowcount == 0:
                raise errors.TenantNotFound
            yield connection


async def _check_count(
    connection: AsyncConnection[Any],
    statement: LiteralString,
    params: dict[str, Any],
    what: str,
    maximum: int,
) -> None:
    row = await (await connection.execute(statement, params)).fetchone()
    if row is not None and row[0] >= maximum:
        raise errors.LimitExceeded(what, f"{what} of a tenant", row[0] + 1, maximum)


def _no_checkpoint() -> errors.InvalidField:
    return errors.InvalidField("checkpoint_id", "is not of a checkpoint of this thread and namespace")


def _place(scope: Scope | None) -> dict[str, Any]:
    if scope is None:
        return {"kind": "tenant", "prefix": ""}
    if isinstance(scope, Threads):
        return {"kind": "threads", "prefix": scope.prefix}
    return {"kind": "items", "prefix": encoded(scope.namespace) if scope.namespace else ""}


def _scope(kind: str, prefix: str) -> Scope:
    if kind == "threads":
        return Threads(prefix)
    return Items(decoded(prefix) if prefix else ())


def _params(tenant: TenantId, policy: Policy) -> dict[str, Any]:
    return {
        "tenant": tenant,
        **_place(policy.scope),
        "max_age": policy.max_age,
        "max_idle": policy.max_idle,
        "keep_last": policy.keep_last,
        "item_ttl": policy.item_ttl,
        "max_bytes": policy.max_bytes,
        "floor": policy.floor,
    }


def _pin_params(tenant: TenantId, pin: Pin) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "thread": pin.thread_id,
        "ns": pin.checkpoint_ns,
        "ns_hash": ns_hash(pin.checkpoint_ns),
        "id": pin.checkpoint_id,
        "reason": pin.reason,
    }
