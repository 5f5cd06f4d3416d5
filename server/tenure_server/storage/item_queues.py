"""Items whose operations wait for one another: each tenant's go to the database in batches.

Each tenant has a queue for groups that write and one for groups that only get, so that a flooding tenant
queues behind itself; see `queues`. Other reads take their time and would hold up what shares a call with
them: each is a call of its own, a few at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from tenure_server import errors
from tenure_server.domain import Operation, TenantId
from tenure_server.items import (
    GetItem,
    Index,
    ItemAnswer,
    ItemVectors,
    Namespace,
    PutItem,
    ReadGroup,
    Unembedded,
    WriteGroup,
)
from tenure_server.storage.ports import ItemStore
from tenure_server.storage.queues import MAX_READS, MAX_WAITING, MAX_WRITES, TenantQueues, Waiting

MAX_SEARCHES = 4
"""Searches and listings of one tenant that are under way at a time, each on a connection."""
_PATIENCE = 0.005
"""Seconds that a tenant's gets leave a call of others to itself. With two calls at any time a crowd of 32
took 8 % more CPU and was answered later."""
_EXPECTED_BYTES = 4096
"""Of an item that is read: so what one call brings is bounded, too, but for items that are larger."""

_Answer = Sequence[ItemAnswer] | errors.TenureError


class _Searches:
    """The searches of one tenant.

    Attributes:
        room: For those that are under way.
        users: How many there are, those that wait included.
    """

    def __init__(self) -> None:
        self.room = asyncio.Semaphore(MAX_SEARCHES)
        self.users = 0


class CoalescedItems:
    """See `ports.ItemStore`."""

    def __init__(self, store: ItemStore) -> None:
        self._store = store
        self._writes: TenantQueues[WriteGroup, errors.TenureError | None] = TenantQueues(
            self._apply, calls=MAX_WRITES
        )
        self._gets: TenantQueues[ReadGroup, _Answer] = TenantQueues(
            self._fetch, calls=MAX_READS, patience=_PATIENCE
        )
        self._searches: dict[TenantId, _Searches] = {}

    async def close(self) -> None:
        """Give up what is under way."""
        await asyncio.gather(self._writes.close(), self._gets.close())

    async def read(self, tenant: TenantId, groups: Sequence[ReadGroup]) -> Sequence[_Answer]:
        if all(map(_only_gets, groups)):
            return await self._get(tenant, groups)
        answers = await asyncio.gather(*(self._read(tenant, group) for group in groups))
        return list(answers)

    async def _read(self, tenant: TenantId, group: ReadGroup) -> _Answer:
        if _only_gets(group):
            return (await self._get(tenant, [group]))[0]
        return await self._search(tenant, group)

    async def _get(self, tenant: TenantId, groups: Sequence[ReadGroup]) -> Sequence[_Answer]:
        return await self._gets.of(tenant).ask(
            [
                Waiting(group, _EXPECTED_BYTES * len(group.reads), None, group.operation.deadline)
                for group in groups
            ]
        )

    async def _search(self, tenant: TenantId, group: ReadGroup) -> _Answer:
        searches = self._searches.setdefault(tenant, _Searches())
        if searches.users >= MAX_WAITING:
            return errors.Overloaded("searches")
        searches.users += 1
        try:
            async with asyncio.timeout(group.operation.deadline - time.monotonic()) as waiting:
                async with searches.room:
                    # The store keeps the deadline from here on, and tells a late answer from none.
                    waiting.reschedule(None)
                    (answer,) = await self._store.read(tenant, [group])
                    return answer
        except TimeoutError:
            return errors.DeadlineExceeded()
        finally:
            searches.users -= 1
            if not searches.users:
                self._searches.pop(tenant, None)

    async def write(
        self, tenant: TenantId, groups: Sequence[WriteGroup]
    ) -> Sequence[errors.TenureError | None]:
        return await self._writes.of(tenant).ask(
            [Waiting(group, _size(group), None, group.operation.deadline) for group in groups]
        )

    async def index(self, tenant: TenantId) -> tuple[Index | None, int]:
        return await self._store.index(tenant)

    async def set_index(self, tenant: TenantId, operation: Operation, index: Index) -> int:
        return await self._store.set_index(tenant, operation, index)

    async def unembedded(
        self, tenant: TenantId, after: tuple[Namespace, str] | None, limit: int
    ) -> Sequence[Unembedded]:
        return await self._store.unembedded(tenant, after, limit)

    async def put_vectors(
        self, tenant: TenantId, operation: Operation, index: Index, items: Sequence[ItemVectors]
    ) -> None:
        await self._store.put_vectors(tenant, operation, index, items)

    async def _apply(
        self, tenant: TenantId, groups: Sequence[WriteGroup], wait: bool
    ) -> Sequence[errors.TenureError | None]:
        return await self._store.write(tenant, groups)

    async def _fetch(self, tenant: TenantId, groups: Sequence[ReadGroup], wait: bool) -> Sequence[_Answer]:
        return await self._store.read(tenant, groups)


def _only_gets(group: ReadGroup) -> bool:
    return all(isinstance(read, GetItem) for read in group.reads)


def _size(group: WriteGroup) -> int:
    """Return about how many bytes a group sends to the database."""
    return sum(
        len(write.value) + len(write.text) + sum(8 * len(vector.values) for vector in write.vectors)
        for write in group.writes
        if isinstance(write, PutItem)
    )
