"""Leases on threads in Postgres; see `ports.LeaseStore` and 0010_leases.sql."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, LiteralString

from tenure_server import errors
from tenure_server.domain import Operation, TenantId
from tenure_server.storage.postgres.pool import Database

_ACQUIRE: LiteralString = "SELECT token, held_ms, holder FROM tenure.acquire_lease_1(%s, %s, %s, %s, %s, %s)"
_RENEW: LiteralString = "SELECT tenure.renew_lease_1(%s, %s, %s, %s, %s)"
_RELEASE: LiteralString = "SELECT tenure.release_lease_1(%s, %s, %s, %s)"


class PostgresLeases:
    """See `ports.LeaseStore`. A thread that is being written to is waited for until the deadline."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def acquire(
        self, tenant: TenantId, operation: Operation, thread_id: str, holder: str, ttl_ms: int
    ) -> int:
        params = [operation.operation_id, thread_id, holder, ttl_ms]
        ((token, held_ms, other),) = await self._call(tenant, operation, _ACQUIRE, params)
        if token is None:
            raise errors.LeaseHeld(held_ms, other)
        return int(token)

    async def renew(
        self, tenant: TenantId, operation: Operation, thread_id: str, token: int, ttl_ms: int
    ) -> None:
        ((renewed,),) = await self._call(tenant, operation, _RENEW, [thread_id, token, ttl_ms])
        if not renewed:
            raise errors.StaleWriter

    async def release(self, tenant: TenantId, operation: Operation, thread_id: str, token: int) -> None:
        await self._call(tenant, operation, _RELEASE, [thread_id, token])

    async def _call(
        self, tenant: TenantId, operation: Operation, statement: LiteralString, params: Sequence[object]
    ) -> list[tuple[Any, ...]]:
        wait_ms = max(int((operation.deadline - time.monotonic()) * 1000), 1)
        return await self._database.call(
            tenant,
            statement,
            [tenant, wait_ms, *params],
            operation=statement.partition("tenure.")[2].partition("_1(")[0],
            deadline=operation.deadline,
            writes=True,
        )
