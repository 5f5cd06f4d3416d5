"""Writing items: groups become rounds, and a round becomes one call of `write_items_1`.

A call that Postgres refuses, or in which a lock is waited for too long, is halved until the faulty group is
alone. What cannot fit into a quota is left out at once, see `growth`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import LiteralString

from tenure_server import errors
from tenure_server.domain import TenantId
from tenure_server.items import Index, WriteGroup
from tenure_server.storage.postgres import growth
from tenure_server.storage.postgres.items_batches import Batch, rounds
from tenure_server.storage.postgres.pool import Database

_STATEMENT: LiteralString = """
SELECT mismatched, refused, dims, embedder
FROM tenure.write_items_1(
    %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s
)
"""
_ATTEMPTS = 5
"""Of a group that meets a deadlock alone; locks are taken in one order, so there should be none."""


async def write(
    database: Database, tenant: TenantId, groups: Sequence[WriteGroup]
) -> list[errors.TenureError | None]:
    """See `ports.ItemStore.write`."""
    writer = _Writer(database, tenant, groups)
    for numbers in rounds(groups):
        await writer.apply(numbers)
    return writer.outcomes


class _Writer:
    def __init__(self, database: Database, tenant: TenantId, groups: Sequence[WriteGroup]) -> None:
        self._database = database
        self._tenant = tenant
        self._groups = groups
        self.outcomes: list[errors.TenureError | None] = [None] * len(groups)

    async def apply(self, numbers: Sequence[int], attempt: int = 1) -> None:
        """Apply groups and set their outcomes."""
        alive = self._alive(numbers)
        if not alive:
            return
        try:
            await self._call(alive)
        except (
            errors.InvalidField,
            errors.Conflict,
            errors.DeadlineExceeded,
            errors.QuotaExceeded,
            errors.LegalHold,
        ) as error:
            if len(alive) > 1:
                if not isinstance(error, errors.QuotaExceeded) or not await self._refuse(alive, error):
                    middle = len(alive) // 2
                    await self.apply(alive[:middle])
                    await self.apply(alive[middle:])
            elif isinstance(error, errors.Conflict) and attempt < _ATTEMPTS:
                await self.apply(alive, attempt + 1)
            else:
                self.outcomes[alive[0]] = error
        except errors.TenureError as error:
            for number in alive:
                self.outcomes[number] = error

    async def _refuse(self, numbers: Sequence[int], error: errors.QuotaExceeded) -> bool:
        """Fail what cannot fit and apply the rest; False if it may be that each fits."""
        groups = [self._groups[number] for number in numbers]
        refused = await growth.refused_groups(self._database, self._tenant, groups, error)
        return await growth.leave_out(refused, numbers, self.outcomes, self.apply)

    def _alive(self, numbers: Sequence[int]) -> list[int]:
        """Return the groups that can be tried; the others fail."""
        now = time.monotonic()
        alive = []
        for number in numbers:
            if self._groups[number].operation.deadline <= now:
                self.outcomes[number] = errors.DeadlineExceeded()
            else:
                alive.append(number)
        return alive

    async def _call(self, numbers: Sequence[int]) -> None:
        groups = [self._groups[number] for number in numbers]
        deadlines = [group.operation.deadline for group in groups]
        wait_ms = max(int((min(deadlines) - time.monotonic()) * 1000), 1)
        batch = Batch(groups)
        ((mismatched, refused, dims, embedder),) = await self._database.call(
            self._tenant,
            _STATEMENT,
            [self._tenant, wait_ms, *batch.params()],
            operation="write_items",
            deadline=max(deadlines),
            writes=True,
        )
        for position in mismatched or ():
            self.outcomes[numbers[position - 1]] = errors.OperationMismatch()
        for position in refused or ():
            self.outcomes[numbers[position - 1]] = errors.IndexMismatch(
                str(Index(dims, embedder)), str(groups[position - 1].index)
            )
