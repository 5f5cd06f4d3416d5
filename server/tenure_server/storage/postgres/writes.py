"""Writing: mutations become batches, and a batch becomes one call of `write_batch_3`.

What can go wrong with a batch concerns one of its mutations, or one of its threads: a thread that somebody
else holds is waited for apart from the others, and a batch that Postgres refuses is halved until the faulty
mutation is alone. What cannot fit into a quota is left out at once, see `growth`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import LiteralString

from tenure_server import errors, telemetry
from tenure_server.domain import Mutation, TenantId
from tenure_server.storage.postgres import growth
from tenure_server.storage.postgres.batches import Batch, rounds
from tenure_server.storage.postgres.pool import Database

_STATEMENT: LiteralString = """
SELECT busy, missing, stale, stale_puts, conflicts
FROM tenure.write_batch_3(
    %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,
    %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s
)
"""
_INSERT_WAIT_MS = 100
"""A batch waits only where somebody else is making one of its threads right now."""
_PARALLEL_WAITS = 4
"""Threads of one batch that are waited for at the same time, each on a connection."""

_Outcomes = list[errors.TenureError | None]
_Indexes = Sequence[int]


async def write(
    database: Database, tenant: TenantId, mutations: Sequence[Mutation], *, wait: bool = True
) -> Sequence[errors.TenureError | None]:
    """See `ports.CheckpointStore.write`."""
    writer = _Writer(database, tenant, mutations, wait=wait)
    for indexes in rounds(mutations):
        await writer.apply(indexes)
    return writer.outcomes


class _Writer:
    def __init__(
        self, database: Database, tenant: TenantId, mutations: Sequence[Mutation], *, wait: bool
    ) -> None:
        self._database = database
        self._tenant = tenant
        self._mutations = mutations
        self._wait = wait
        self._waits = asyncio.Semaphore(_PARALLEL_WAITS)
        self._given_up: set[str] = set()
        self.outcomes: _Outcomes = [None] * len(mutations)

    async def apply(self, indexes: _Indexes) -> None:
        """Apply mutations and set their outcomes."""
        alive = self._alive(indexes)
        if not alive:
            return
        threads = {self._thread(index) for index in alive}
        # Nothing is held up by waiting for the only thread there is.
        wait = self._wait and len(threads) == 1
        try:
            busy = await self._call(alive, wait=wait)
        except errors.DeadlineExceeded as error:
            if wait and len(alive) == 1:
                self._fail(alive, error)
                return
            if not self._wait and len(threads) > 1:
                for thread in threads:
                    await self.apply([index for index in alive if self._thread(index) == thread])
                return
            busy = threads
        except (errors.InvalidField, errors.Conflict, errors.QuotaExceeded) as error:
            if len(alive) == 1:
                self._fail(alive, error)
            elif not isinstance(error, errors.QuotaExceeded) or not await self._refuse(alive, error):
                await self._halve(alive)
            return
        except errors.TenureError as error:
            self._fail(alive, error)
            return
        held = {thread: [index for index in alive if self._thread(index) == thread] for thread in busy}
        if self._wait:
            await asyncio.gather(*(self._apply_alone(its) for its in held.values()))
        else:
            # What comes later for these threads must not overtake what comes back now.
            self._given_up |= busy
            for its in held.values():
                self._alive(its)

    async def _halve(self, indexes: _Indexes) -> None:
        middle = len(indexes) // 2
        await self.apply(indexes[:middle])
        await self.apply(indexes[middle:])

    async def _refuse(self, indexes: _Indexes, error: errors.QuotaExceeded) -> bool:
        """Fail what cannot fit and apply the rest; False if it may be that each fits."""
        mutations = [self._mutations[index] for index in indexes]
        refused = await growth.refused_mutations(self._database, self._tenant, mutations, error)
        return await growth.leave_out(refused, indexes, self.outcomes, self.apply)

    async def _apply_alone(self, indexes: _Indexes) -> None:
        """Apply the mutations of a thread one after the other, each waiting under its own deadline."""
        async with self._waits:
            for index in indexes:
                await self.apply([index])

    def _alive(self, indexes: _Indexes) -> list[int]:
        """Return the mutations that can be tried; the others fail."""
        now = time.monotonic()
        alive = []
        for index in indexes:
            if self._mutations[index].operation.deadline <= now:
                self.outcomes[index] = errors.DeadlineExceeded()
            elif self._thread(index) in self._given_up:
                self.outcomes[index] = errors.ThreadBusy()
            else:
                alive.append(index)
        return alive

    def _fail(self, indexes: Iterable[int], error: errors.TenureError) -> None:
        for index in indexes:
            self.outcomes[index] = error

    def _thread(self, index: int) -> str:
        return self._mutations[index].ref.thread_id

    async def _call(self, indexes: _Indexes, *, wait: bool) -> set[str]:
        """Apply a batch, fail what may not be applied, and return the threads that are busy."""
        mutations = [self._mutations[index] for index in indexes]
        deadlines = [mutation.operation.deadline for mutation in mutations]
        wait_ms = int((min(deadlines) - time.monotonic()) * 1000) if wait else _INSERT_WAIT_MS
        batch = Batch(mutations)
        ((busy, missing, stale, stale_puts, conflicts),) = await self._database.call(
            self._tenant,
            _STATEMENT,
            [self._tenant, max(wait_ms, 1), wait, *batch.params()],
            operation="write_batch",
            deadline=max(deadlines),
            writes=True,
        )
        if conflicts:
            telemetry.version_conflicts.add(conflicts)
        self._fail((indexes[batch.puts[number - 1]] for number in missing or ()), errors.ChunksMissing())
        refused = {indexes[batch.puts[number - 1]] for number in stale_puts or ()}
        if stale:
            theirs = {batch.threads[number - 1] for number in stale}
            refused.update(index for index in indexes if self._thread(index) in theirs)
        if refused:
            self._fail(refused, errors.StaleWriter())
        return {batch.threads[number - 1] for number in busy or ()}
