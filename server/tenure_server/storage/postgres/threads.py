"""What removes or copies threads, once for each operation id.

An operation on one thread is one call. One on several is a call for each, with a record of the whole around
them: a repeat that finds the record finished gives its answer, one that finds it begun goes on where the
first stopped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, LiteralString

from tenure_server import errors
from tenure_server.domain import Operation, PruneStrategy, TenantId
from tenure_server.storage.postgres.arrays import TextArray
from tenure_server.storage.postgres.pool import Database

_DELETE: LiteralString = "SELECT tenure.delete_thread_1(%s, %s, %s, %s, %s, %s)"
_COPY: LiteralString = "SELECT tenure.copy_thread_1(%s, %s, %s, %s, %s, %s)"
_PRUNE: LiteralString = "SELECT tenure.prune_thread_1(%s, %s, %s, %s, %s)"
_DELETE_RUNS: LiteralString = "SELECT tenure.delete_runs_1(%s, %s, %s, %s, %s, %s)"
_THREADS_OF_RUNS: LiteralString = "SELECT thread_id FROM tenure.threads_of_runs_1(%s, %s)"
_CLAIM: LiteralString = "SELECT tenure.claim_operation_1(%s, %s, %s, %s, %s)"
_FINISH: LiteralString = "SELECT tenure.finish_operation_1(%s, %s, %s, %s)"

_OK, _MISMATCH, _IN_USE, _NOT_FOUND, _EXISTS = "ok", "mismatch", "in_use", "not_found", "exists"
_BEGUN = "begun"
_WHOLE = ""
"""The part that stands for the whole operation."""


class Removals:
    """Deletes, prunes and copies the threads of one tenant for one operation."""

    def __init__(self, database: Database, tenant: TenantId, operation: Operation) -> None:
        self._database = database
        self._tenant = tenant
        self._operation = operation

    async def delete(self, thread_id: str, part: str = _WHOLE) -> None:
        """See `ports.CheckpointStore.delete_thread`."""
        operation = self._operation
        await self._destroy(_DELETE, operation.operation_id, part, operation.digest, thread_id)

    async def copy(self, source: str, target: str) -> None:
        """See `ports.CheckpointStore.copy_thread`."""
        operation = self._operation
        answer = await self._destroy(_COPY, operation.operation_id, operation.digest, source, target)
        if answer == _NOT_FOUND:
            raise errors.ThreadNotFound
        if answer == _EXISTS:
            raise errors.ThreadExists

    async def prune(self, thread_ids: Sequence[str], strategy: PruneStrategy) -> None:
        """See `ports.CheckpointStore.prune_threads`."""
        operation = self._operation
        if await self._begin() != _BEGUN:
            return
        for thread_id in thread_ids:
            if strategy is PruneStrategy.DELETE_ALL:
                await self.delete(thread_id, part=thread_id)
            else:
                await self._destroy(_PRUNE, operation.operation_id, operation.digest, thread_id)
        await self._finish(_OK)

    async def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """See `ports.CheckpointStore.delete_for_runs`."""
        operation = self._operation
        answer = await self._begin()
        if answer == _BEGUN:
            runs = TextArray(run_ids)
            refused = 0
            for (thread_id,) in await self._call(_THREADS_OF_RUNS, [self._tenant, runs]):
                outcome = await self._destroy(
                    _DELETE_RUNS, operation.operation_id, operation.digest, thread_id, runs
                )
                refused += outcome == _IN_USE
            answer = f"{_IN_USE}:{refused}" if refused else _OK
            await self._finish(answer)
        if answer != _OK:
            raise errors.DeltaChannelInUse(int(answer.partition(":")[2]))

    async def _begin(self) -> str:
        """Record an operation on several threads; return what was answered before, `_BEGUN` if nothing."""
        operation = self._operation
        rows = await self._call(
            _CLAIM, [self._tenant, operation.operation_id, _WHOLE, operation.digest, _BEGUN], writes=True
        )
        return _answer(rows[0][0]) if rows[0][0] is not None else _BEGUN

    async def _finish(self, answer: str) -> None:
        params = [self._tenant, self._operation.operation_id, _WHOLE, answer]
        await self._call(_FINISH, params, writes=True)

    async def _destroy(self, statement: LiteralString, *params: object) -> str:
        """Call one of the functions that lock a head, and return its answer."""
        wait_ms = max(int((self._operation.deadline - time.monotonic()) * 1000), 1)
        rows = await self._call(statement, [self._tenant, wait_ms, *params], writes=True)
        return _answer(rows[0][0])

    async def _call(
        self, statement: LiteralString, params: Sequence[object], *, writes: bool = False
    ) -> list[tuple[Any, ...]]:
        return await self._database.call(
            self._tenant,
            statement,
            params,
            operation=statement.partition("tenure.")[2].partition("_1(")[0],
            deadline=self._operation.deadline,
            writes=writes,
        )


def _answer(answer: str) -> str:
    if answer == _MISMATCH:
        raise errors.OperationMismatch
    return answer
