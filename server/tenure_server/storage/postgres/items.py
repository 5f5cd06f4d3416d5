"""`PostgresItems`: the contract of item storage, method by method."""

from __future__ import annotations

from collections.abc import Sequence

from tenure_server.domain import Operation, TenantId
from tenure_server.errors import TenureError
from tenure_server.items import (
    Index,
    ItemAnswer,
    ItemVectors,
    Namespace,
    ReadGroup,
    Unembedded,
    WriteGroup,
)
from tenure_server.storage.postgres import items_index, items_reads, items_writes
from tenure_server.storage.postgres.items_touches import Touches
from tenure_server.storage.postgres.pool import Database

_MAX_ANSWER_BYTES = 128 * 1024 * 1024
"""No reply is larger, see `limits.max_operation_bytes`."""


class PostgresItems:
    """See `ports.ItemStore`.

    Values are kept as jsonb: equal to what was put, but with the members of objects in another order.
    """

    def __init__(self, database: Database, *, max_answer_bytes: int = _MAX_ANSWER_BYTES) -> None:
        """Make a store.

        Args:
            database: Connections as `tenure_app`.
            max_answer_bytes: Values that a group finds by searches, together; with more it fails by
                `LimitExceeded` before they are all read.
        """
        self._database = database
        self._max_answer_bytes = max_answer_bytes
        self.touches = Touches(database)

    async def close(self) -> None:
        """Renew what was read last; before the connections close."""
        await self.touches.close()

    async def read(
        self, tenant: TenantId, groups: Sequence[ReadGroup]
    ) -> Sequence[Sequence[ItemAnswer] | TenureError]:
        return await items_reads.read(self._database, self.touches, tenant, groups, self._max_answer_bytes)

    async def write(self, tenant: TenantId, groups: Sequence[WriteGroup]) -> Sequence[TenureError | None]:
        return await items_writes.write(self._database, tenant, groups)

    async def index(self, tenant: TenantId) -> tuple[Index | None, int]:
        return await items_index.index(self._database, tenant)

    async def set_index(self, tenant: TenantId, operation: Operation, index: Index) -> int:
        return await items_index.set_index(self._database, tenant, operation, index)

    async def unembedded(
        self, tenant: TenantId, after: tuple[Namespace, str] | None, limit: int
    ) -> Sequence[Unembedded]:
        return await items_index.unembedded(self._database, tenant, after, limit)

    async def put_vectors(
        self, tenant: TenantId, operation: Operation, index: Index, items: Sequence[ItemVectors]
    ) -> None:
        await items_index.put_vectors(self._database, tenant, operation, index, items)
