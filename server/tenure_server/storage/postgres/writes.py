"""Writing: mutations become batches, and a batch becomes one call of `write_batch_1`.

What can go wrong with a batch concerns one of its mutations, or one of its threads: a thread that somebody
else holds is waited for apart from the others, and a batch that Postgres refuses is halved until the faulty
mutation is alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from typing import LiteralString

from tenure_server import errors, telemetry
from tenure_server.domain import ChannelValue, Mutation, PendingWrite, PutCheckpoint, TenantId
from tenure_server.storage.postgres.arrays import Array, ByteaArray, IntArray, TextArray
from tenure_server.storage.postgres.pool import Database

_STATEMENT: LiteralString = """
SELECT busy, conflicts
FROM tenure.write_batch_1(
    %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,
    %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s
)
"""
_INSERT_WAIT_MS = 100
"""A batch waits only where somebody else is making one of its threads right now."""
_PARALLEL_WAITS = 4
"""Threads of one batch that are waited for at the same time, each on a connection."""

_Outcomes = list[errors.TenureError | None]
_Indexes = Sequence[int]


def ns_hash(checkpoint_ns: str) -> bytes:
    """Return what stands for a namespace in keys; the SQL function of that name does the same."""
    return hashlib.sha256(checkpoint_ns.encode()).digest()[:16]


async def write(
    database: Database, tenant: TenantId, mutations: Sequence[Mutation]
) -> Sequence[errors.TenureError | None]:
    """See `ports.CheckpointStore.write`."""
    writer = _Writer(database, tenant, mutations)
    for indexes in _rounds(mutations):
        await writer.apply(indexes)
    return writer.outcomes


class _Writer:
    def __init__(self, database: Database, tenant: TenantId, mutations: Sequence[Mutation]) -> None:
        self._database = database
        self._tenant = tenant
        self._mutations = mutations
        self._waits = asyncio.Semaphore(_PARALLEL_WAITS)
        self.outcomes: _Outcomes = [None] * len(mutations)

    async def apply(self, indexes: _Indexes) -> None:
        """Apply mutations and set their outcomes."""
        now = time.monotonic()
        alive = []
        for index in indexes:
            if self._mutations[index].operation.deadline <= now:
                self.outcomes[index] = errors.DeadlineExceeded()
            else:
                alive.append(index)
        if not alive:
            return
        threads = {self._mutations[index].ref.thread_id for index in alive}
        # Nothing is held up by waiting for the only thread there is.
        wait = len(threads) == 1
        try:
            busy = await self._call(alive, wait=wait)
        except errors.DeadlineExceeded as error:
            if wait and len(alive) == 1:
                self._fail(alive, error)
                return
            busy = threads
        except (errors.InvalidField, errors.Conflict) as error:
            if len(alive) == 1:
                self._fail(alive, error)
                return
            middle = len(alive) // 2
            await self.apply(alive[:middle])
            await self.apply(alive[middle:])
            return
        except errors.TenureError as error:
            self._fail(alive, error)
            return
        if busy:
            await asyncio.gather(
                *(
                    self._apply_alone([i for i in alive if self._mutations[i].ref.thread_id == t])
                    for t in busy
                )
            )

    async def _apply_alone(self, indexes: _Indexes) -> None:
        """Apply the mutations of a thread one after the other, each waiting under its own deadline."""
        async with self._waits:
            for index in indexes:
                await self.apply([index])

    def _fail(self, indexes: _Indexes, error: errors.TenureError) -> None:
        for index in indexes:
            self.outcomes[index] = error

    async def _call(self, indexes: _Indexes, *, wait: bool) -> set[str]:
        """Apply a batch and return the threads that are busy."""
        mutations = [self._mutations[index] for index in indexes]
        deadlines = [mutation.operation.deadline for mutation in mutations]
        wait_ms = int((min(deadlines) - time.monotonic()) * 1000) if wait else _INSERT_WAIT_MS
        batch = _Batch(mutations)
        ((busy, conflicts),) = await self._database.call(
            self._tenant,
            _STATEMENT,
            [self._tenant, max(wait_ms, 1), wait, *batch.params()],
            operation="write_batch",
            deadline=max(deadlines),
            writes=True,
        )
        if conflicts:
            telemetry.version_conflicts.add(conflicts)
        return {batch.threads[number - 1] for number in busy or ()}


def _rounds(mutations: Sequence[Mutation]) -> Iterator[list[int]]:
    """Cut a batch where a namespace's puts are not in ascending order of their ids.

    Within a round no checkpoint is put twice, and the SQL function need not look at the puts of the round
    itself to know which checkpoint is the latest.
    """
    current: list[int] = []
    last: dict[tuple[str, str], bytes] = {}
    for index, mutation in enumerate(mutations):
        if isinstance(mutation, PutCheckpoint):
            namespace = (mutation.ref.thread_id, mutation.ref.checkpoint_ns)
            checkpoint_id = _id(mutation).encode("utf-8", "surrogatepass")
            if namespace in last and checkpoint_id <= last[namespace]:
                yield current
                current, last = [], {}
            last[namespace] = checkpoint_id
        current.append(index)
    if current:
        yield current


class _Batch:
    """The arguments of one call.

    Attributes:
        threads: Thread ids in the order that the SQL function counts them.
    """

    def __init__(self, mutations: Sequence[Mutation]) -> None:
        self._puts = [mutation for mutation in mutations if isinstance(mutation, PutCheckpoint)]
        self._put_threads = _sorted({put.ref.thread_id for put in self._puts})
        self._write_threads = _sorted({m.ref.thread_id for m in mutations} - set(self._put_threads))
        self.threads = [*self._put_threads, *self._write_threads]
        self._number = {thread_id: number for number, thread_id in enumerate(self.threads, start=1)}
        self._values: list[tuple[int, bytes, ChannelValue]] = [
            (self._number[put.ref.thread_id], ns_hash(put.ref.checkpoint_ns), value)
            for put in self._puts
            for value in put.new_values
        ]
        self._writes = self._fold(mutations)

    def _fold(self, mutations: Sequence[Mutation]) -> list[tuple[int, bytes, str, PendingWrite]]:
        """Return each pending write once: of the ordinary ones the first, of the special ones the last."""
        folded: dict[tuple[int, bytes, str, str, int], PendingWrite] = {}
        for mutation in mutations:
            if isinstance(mutation, PutCheckpoint):
                continue
            where = (self._number[mutation.ref.thread_id], ns_hash(mutation.ref.checkpoint_ns), _id(mutation))
            for write in mutation.writes:
                key = (*where, write.task_id, write.idx)
                if write.idx < 0 or key not in folded:
                    folded[key] = write
        return [(key[0], key[1], key[2], write) for key, write in folded.items()]

    def params(self) -> list[Array]:
        """Return the arguments from p_put_threads on."""
        puts, values, writes = self._puts, self._values, self._writes
        return [
            TextArray(self._put_threads),
            TextArray(self._write_threads),
            IntArray([self._number[put.ref.thread_id] for put in puts]),
            TextArray([put.ref.checkpoint_ns for put in puts]),
            ByteaArray([ns_hash(put.ref.checkpoint_ns) for put in puts]),
            TextArray([_id(put) for put in puts]),
            TextArray([put.parent_checkpoint_id for put in puts]),
            TextArray([put.body.type for put in puts]),
            ByteaArray([put.body.data for put in puts]),
            TextArray([put.metadata for put in puts]),
            TextArray([put.filterable for put in puts]),
            TextArray([put.run_id for put in puts]),
            IntArray([put.format_version for put in puts]),
            TextArray([json.dumps(dict(put.channel_versions), ensure_ascii=False) for put in puts]),
            IntArray([thread for thread, _, _ in values]),
            ByteaArray([ns for _, ns, _ in values]),
            TextArray([value.channel for _, _, value in values]),
            TextArray([value.version for _, _, value in values]),
            TextArray([value.value.type for _, _, value in values]),
            ByteaArray([value.value.digest() for _, _, value in values]),
            ByteaArray([value.value.data for _, _, value in values]),
            IntArray([thread for thread, _, _, _ in writes]),
            ByteaArray([ns for _, ns, _, _ in writes]),
            TextArray([checkpoint_id for _, _, checkpoint_id, _ in writes]),
            TextArray([write.task_id for _, _, _, write in writes]),
            IntArray([write.idx for _, _, _, write in writes]),
            TextArray([write.task_path for _, _, _, write in writes]),
            TextArray([write.channel for _, _, _, write in writes]),
            TextArray([write.value.type for _, _, _, write in writes]),
            ByteaArray([write.value.data for _, _, _, write in writes]),
        ]


def _id(mutation: Mutation) -> str:
    assert mutation.ref.checkpoint_id is not None
    return mutation.ref.checkpoint_id


def _sorted(ids: set[str]) -> list[str]:
    return sorted(ids, key=lambda thread_id: thread_id.encode("utf-8", "surrogatepass"))
