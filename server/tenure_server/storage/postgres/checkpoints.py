"""`PostgresCheckpoints`: the storage contract, method by method, on `writes`, `reads` and `threads`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tenure_server.domain import (
    Blob,
    ChannelHistory,
    CheckpointRef,
    Head,
    HeldValue,
    ListQuery,
    Mutation,
    Operation,
    PruneStrategy,
    TenantId,
    Thread,
)
from tenure_server.errors import TenureError
from tenure_server.storage.ports import Answered
from tenure_server.storage.postgres import reads, writes
from tenure_server.storage.postgres.pool import Database
from tenure_server.storage.postgres.threads import Removals


class PostgresCheckpoints:
    """See `ports.CheckpointStore`.

    A lock is waited for until the operation's deadline. `Unavailable` after a lost connection leaves open
    whether a mutation was applied, as every lost reply does; all of them can be repeated.
    """

    def __init__(self, database: Database, *, inline_bytes: int = 4096) -> None:
        """Make a store.

        Args:
            database: Connections as `tenure_app`.
            inline_bytes: Channel values up to this size come along with their head.
        """
        self._database = database
        self._inline_bytes = inline_bytes

    async def write(
        self,
        tenant: TenantId,
        mutations: Sequence[Mutation],
        *,
        wait: bool = True,
        answered: Answered | None = None,
    ) -> Sequence[TenureError | None]:
        return await writes.write(self._database, tenant, mutations, wait=wait)

    async def heads(
        self,
        tenant: TenantId,
        refs: Sequence[CheckpointRef],
        held: Sequence[Sequence[HeldValue]] = (),
    ) -> Sequence[Head | None]:
        return await reads.heads(self._database, tenant, refs, held, self._inline_bytes)

    async def bodies(self, tenant: TenantId, heads: Sequence[Head]) -> Sequence[Sequence[Blob | None] | None]:
        return await reads.bodies(self._database, tenant, heads)

    async def chunks(
        self, tenant: TenantId, wanted: Sequence[tuple[Head, Sequence[bytes]]]
    ) -> Sequence[Mapping[bytes, bytes] | None]:
        return await reads.chunks(self._database, tenant, wanted)

    async def list_heads(self, tenant: TenantId, query: ListQuery, limit: int) -> Sequence[Head]:
        return await reads.list_heads(self._database, tenant, query, limit, self._inline_bytes)

    async def channel_history(
        self, tenant: TenantId, ref: CheckpointRef, channels: Sequence[str]
    ) -> Mapping[str, ChannelHistory]:
        return await reads.channel_history(self._database, tenant, ref, channels)

    async def list_threads(
        self, tenant: TenantId, prefix: str, after: str | None, limit: int
    ) -> Sequence[Thread]:
        return await reads.list_threads(self._database, tenant, prefix, after, limit)

    async def delete_thread(self, tenant: TenantId, operation: Operation, thread_id: str) -> None:
        await Removals(self._database, tenant, operation).delete(thread_id)

    async def delete_for_runs(self, tenant: TenantId, operation: Operation, run_ids: Sequence[str]) -> None:
        await Removals(self._database, tenant, operation).delete_for_runs(run_ids)

    async def copy_thread(self, tenant: TenantId, operation: Operation, source: str, target: str) -> None:
        await Removals(self._database, tenant, operation).copy(source, target)

    async def prune_threads(
        self,
        tenant: TenantId,
        operation: Operation,
        thread_ids: Sequence[str],
        strategy: PruneStrategy,
    ) -> None:
        await Removals(self._database, tenant, operation).prune(thread_ids, strategy)
