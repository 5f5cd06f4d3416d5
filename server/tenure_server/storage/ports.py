"""The storage contract. Its docstrings are what every implementation and wrapper must keep.

Common to all methods: the tenant is explicit and comes from the credential; a foreign thread looks
exactly like an absent one; ids compare bytewise; `Unavailable` means nothing is known to have been
applied unless said otherwise; an operation whose deadline has passed raises `DeadlineExceeded`
without having been started. Nothing here ever decodes a payload.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

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
    Scope,
    StoredKey,
    TenantId,
    Thread,
)
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
from tenure_server.node_results import CacheShare, FoundResults, NodeKey, NodeResult
from tenure_server.rules import Rules

Answered = Callable[[int, TenureError | None], None]
"""Is told the index of a mutation in its batch and what became of it, once for each at most."""


class CheckpointStore(Protocol):
    """Checkpoints, channel values and pending writes of threads."""

    async def write(
        self,
        tenant: TenantId,
        mutations: Sequence[Mutation],
        *,
        wait: bool = True,
        answered: Answered | None = None,
    ) -> Sequence[TenureError | None]:
        """Apply mutations; those of one thread in the given order.

        Each mutation is atomic and fails alone. A put of a new id stores it; a put of a stored id
        replaces checkpoint, metadata and parent and does not move the latest. A channel version that is
        stored already keeps its first value. A pending write with a negative index replaces the one
        with the same (task, index), others keep the first. Both are idempotent.

        Latest of a namespace = greatest checkpoint id. Only when a NEW checkpoint whose parent is the
        latest sorts below it (a worker's slow clock) does that checkpoint become the latest, until a put
        sorts above all.

        A value that comes as an edit is put together from the recipe of its base, which must be stored in
        this namespace with the digest that the edit names, and must come out with the edit's own digest;
        else the put that brings it fails with `ChunksMissing`. A chunk that is stored is never replaced.

        Args:
            tenant: The tenant.
            mutations: What to apply.
            wait: Whether to wait, until an operation's deadline, for a thread that somebody else holds;
                else its mutations fail with `ThreadBusy`.
            answered: May be called as soon as the outcome of a mutation is known, before the call returns;
                a store may leave it out.

        Returns:
            For each mutation None if it is committed, else why it is not. Never a partial mutation.
        """
        ...

    async def heads(
        self,
        tenant: TenantId,
        refs: Sequence[CheckpointRef],
        held: Sequence[Sequence[HeldValue]] = (),
    ) -> Sequence[Head | None]:
        """Return the checkpoints without their channel values, all from one snapshot, None if absent.

        A read that begins after a write was acknowledged sees it, through any replica.

        Args:
            tenant: The tenant.
            refs: What to read.
            held: For each ref what its reader holds, for `Head.bases`; empty = nothing for any.
        """
        ...

    async def bodies(self, tenant: TenantId, heads: Sequence[Head]) -> Sequence[Sequence[Blob | None] | None]:
        """Return the channel values of each head in the order of `head.values`, None for chunked ones.

        None for a head whose values cannot be had any more because its thread has another generation by
        now: call `heads` again. Values that came along or are cached are those that the head names, and may
        be returned all the same.
        """
        ...

    async def chunks(
        self, tenant: TenantId, wanted: Sequence[tuple[Head, Sequence[bytes]]]
    ) -> Sequence[Mapping[bytes, bytes] | None]:
        """Return packed chunks by id, for each head those that are asked for.

        None for a head of which a chunk cannot be had any more, because its thread has another generation
        by now: call `heads` again. Every chunk that is returned matches its id.
        """
        ...

    async def list_heads(self, tenant: TenantId, query: ListQuery, limit: int) -> Sequence[Head]:
        """Return up to `limit` checkpoints without their channel values, in the order of `ListQuery`.

        A filter member matches if the metadata's top-level member equals it as Python values compare
        (1 == 1.0 == True); a missing member counts as null. Fewer than `limit` means there are no more.
        """
        ...

    async def channel_history(
        self, tenant: TenantId, ref: CheckpointRef, channels: Sequence[str]
    ) -> Mapping[str, ChannelHistory]:
        """Walk the ancestors of a checkpoint and return what each channel contributed, from one snapshot.

        The walk of a channel ends at the nearest ancestor that holds a value of it, whose own pending
        writes still count; the target's own pending writes do not. Every asked channel is in the
        result; an absent checkpoint has an empty history.
        """
        ...

    async def list_threads(
        self, tenant: TenantId, prefix: str, after: str | None, limit: int
    ) -> Sequence[Thread]:
        """Return up to `limit` threads whose id starts with `prefix` and sorts after `after`, in order."""
        ...

    async def delete_thread(self, tenant: TenantId, operation: Operation, thread_id: str) -> None:
        """Remove a thread with everything in it; an absent thread is fine.

        This and the following methods have one effect however often the same operation id comes, and
        give the same answer each time for at least 24 hours; a refusal (`ThreadNotFound`, `ThreadExists`,
        `DeltaChannelInUse`) is an answer, too.

        Raises:
            OperationMismatch: The operation id came before with another digest.
        """
        ...

    async def delete_for_runs(self, tenant: TenantId, operation: Operation, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints whose metadata's `run_id` is one of these, with their pending writes.

        One transaction per thread. A checkpoint that stays and whose parent goes has no parent then.

        Raises:
            OperationMismatch: The operation id came before with another digest.
            DeltaChannelInUse: Threads in which a DeltaChannel of a checkpoint that stays needs one that
                would go; those threads are left as they are, the others are done.
        """
        ...

    async def copy_thread(self, tenant: TenantId, operation: Operation, source: str, target: str) -> None:
        """Copy a thread with all checkpoints, values and pending writes to a new thread.

        Raises:
            OperationMismatch: The operation id came before with another digest.
            ThreadNotFound: There is no source.
            ThreadExists: There is a target.
        """
        ...

    async def prune_threads(
        self,
        tenant: TenantId,
        operation: Operation,
        thread_ids: Sequence[str],
        strategy: PruneStrategy,
    ) -> None:
        """Prune threads, one transaction each; absent ones are skipped.

        `KEEP_LATEST` keeps, in each namespace, the latest checkpoint, the ancestors back to the nearest
        stored value of each channel in its metadata's `counters_since_delta_snapshot`, and the parent of
        a checkpoint with format_version < 4 whose parent has writes to `__pregel_tasks`; with their
        pending writes and the values they hold. A namespace with ":" in its name goes as a whole if its
        latest `metadata.parents[""]` names a stored root checkpoint that goes. A checkpoint that
        stays and whose parent goes has no parent then. Pending writes of checkpoints that are not stored
        (yet) stay. `DELETE_ALL` deletes the threads.

        Raises:
            OperationMismatch: The operation id came before with another digest.
        """
        ...


class LeaseStore(Protocol):
    """Leases: a thread's only writer for a while, by the database's clock."""

    async def acquire(
        self, tenant: TenantId, operation: Operation, thread_id: str, holder: str, ttl_ms: int
    ) -> int:
        """Give a thread to a writer and return the token of its lease; a thread that is not there is made.

        The token is larger than any that a thread of this id ever had. All writes of others that were
        accepted are visible to a read that begins after this, and none is accepted from then on. A repeat of
        the same operation returns the same token, as long as nobody came between.

        Args:
            tenant: The tenant.
            operation: Identity and deadline.
            thread_id: The thread.
            holder: What the writer calls itself.
            ttl_ms: Milliseconds until somebody else may have the thread.

        Raises:
            LeaseHeld: Somebody else has it.
            QuotaExceeded: The thread would have to be made, and there may be no more.
        """
        ...

    async def renew(
        self, tenant: TenantId, operation: Operation, thread_id: str, token: int, ttl_ms: int
    ) -> None:
        """Let a lease end `ttl_ms` from now; also one that has run out and that nobody took over.

        Raises:
            StaleWriter: It was released, or somebody else had the thread since, or the thread was deleted.
        """
        ...

    async def release(self, tenant: TenantId, operation: Operation, thread_id: str, token: int) -> None:
        """End a lease, and its token with it; one that is over is fine."""
        ...


class ItemStore(Protocol):
    """Items of namespaces, see store.proto and docs/semantics.md."""

    async def read(
        self, tenant: TenantId, groups: Sequence[ReadGroup]
    ) -> Sequence[Sequence[ItemAnswer] | TenureError]:
        """Answer groups of reads, each group from one snapshot and alone.

        An item whose time has run out by the database's clock is not there, whether or not it has been
        removed. `refresh_ttl` renews the time of what is returned, soon after the answer: whoever holds an
        item at that moment renews it by a put anyway, so a busy one is skipped.

        Errors of a group: `IndexMismatch` if its query vectors were made with another index, `LimitExceeded`
        if what its searches find is larger than an answer may be.
        """
        ...

    async def write(self, tenant: TenantId, groups: Sequence[WriteGroup]) -> Sequence[TenureError | None]:
        """Apply groups of writes in their order, each atomic and alone; None = committed.

        A put keeps `created_at` and the place in the order of an item that is there (and has not expired).
        A group has one effect however often its operation id comes, for at least 24 hours.

        Errors of a group: `OperationMismatch`, `IndexMismatch`.
        """
        ...

    async def index(self, tenant: TenantId) -> tuple[Index | None, int]:
        """Return the tenant's index, and how many items wait to be embedded."""
        ...

    async def set_index(self, tenant: TenantId, operation: Operation, index: Index) -> int:
        """Change the tenant's index, forget vectors made with another one, return how many items wait.

        Raises:
            OperationMismatch: The operation id came before with another digest.
        """
        ...

    async def unembedded(
        self, tenant: TenantId, after: tuple[Namespace, str] | None, limit: int
    ) -> Sequence[Unembedded]:
        """Return items that have no vectors and may be embedded, in the order (namespace, key)."""
        ...

    async def put_vectors(
        self, tenant: TenantId, operation: Operation, index: Index, items: Sequence[ItemVectors]
    ) -> None:
        """Store vectors of items that have not been put since; one without vectors waits no longer.

        Raises:
            IndexMismatch: The tenant's index is another one.
        """
        ...


class NodeCache(Protocol):
    """Results of graph nodes, see cache.proto. A cache by contract: any result may be gone at any time."""

    async def get(self, share: CacheShare, keys: Sequence[NodeKey], room: int) -> FoundResults:
        """Return the results that are there, those of the first keys up to `room` bytes together.

        Never raises because the cache is away: nothing is found then.
        """
        ...

    async def set(self, share: CacheShare, results: Sequence[NodeResult]) -> None:
        """Keep results, or drop them; of several with one key the last counts.

        Never raises because the cache is away: all are dropped then.
        """
        ...

    async def clear(self, share: CacheShare, namespaces: Sequence[tuple[str, ...]] | None) -> None:
        """Remove all results of exactly these namespaces, None = of all; none of them ever comes back.

        A `set` that runs at the same time is dropped or counts as a later one.

        Raises:
            Unavailable: The cache is away. Unlike a lost `set` that is told: results that should be gone
                would be served when it is back.
        """
        ...


class KeyStore(Protocol):
    """API keys and tenants."""

    async def find_key(self, tenant: TenantId, key_id: str) -> StoredKey | None:
        """Return the key if it exists and its tenant is not suspended, expired and revoked ones too.

        A key with a rule that cannot be understood is not returned: it would be less limited than was meant.
        """
        ...

    async def mark_used(self, tenant: TenantId, key_id: str) -> None:
        """Note that a key is used now; of several notes within a minute the first counts."""
        ...


class TenantAdmin(Protocol):
    """What the command line does to tenants and keys."""

    async def create_tenant(self, name: str) -> TenantId:
        """Make a tenant and return its new id."""
        ...

    async def create_key(
        self,
        tenant: TenantId,
        scopes: frozenset[Scope],
        expires_in: float | None = None,
        *,
        rules: Rules | None = None,
    ) -> str:
        """Make a key; the only time its text is shown.

        Args:
            tenant: Whose key it is.
            scopes: What it may do.
            expires_in: Seconds that it lives, None = for ever.
            rules: To what it is limited, None = it is not.

        Raises:
            InvalidField: There is no such tenant.
        """
        ...

    async def revoke_key(self, tenant: TenantId, key_id: str) -> bool:
        """Revoke a key; False if there is none. Takes effect on every replica within 5 seconds."""
        ...
