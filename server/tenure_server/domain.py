"""What the service talks about: frozen values without gRPC, SQL or Redis.

What is made by the dozen for each operation is a named tuple: a frozen data class takes three times as long
to make.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import NamedTuple, NewType
from uuid import UUID

from tenure_server.rates import Rates
from tenure_server.rules import Rules

TenantId = NewType("TenantId", UUID)
"""A tenant; always taken from the credential, never from a request."""

EMPTY = "empty"
"""Type tag of a channel version that has no value (LangGraph's InMemorySaver uses the same tag)."""

DIGEST_BYTES = 16


OPERATORS = TenantId(UUID(int=0))
"""Stands for no tenant: operators' keys are kept under it, and no tenant has this id."""


class Scope(Enum):
    """What an API key may do."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    OPERATOR = "operator"


TENANT_SCOPES = frozenset({Scope.READ, Scope.WRITE, Scope.ADMIN})
"""What keys of tenants may do at most; those of operators have the remaining scope alone."""


class Role(Enum):
    """Names of the usual sets of scopes; only the scopes are stored."""

    READER = "reader"
    AGENT = "agent"
    ADMIN = "admin"
    OPERATOR = "operator"

    @property
    def scopes(self) -> frozenset[Scope]:
        """What keys of this role may do; those of an admin do not reach what agents stored."""
        return _ROLES[self]


_ROLES = {
    Role.READER: frozenset({Scope.READ}),
    Role.AGENT: frozenset({Scope.READ, Scope.WRITE}),
    Role.ADMIN: frozenset({Scope.ADMIN}),
    Role.OPERATOR: frozenset({Scope.OPERATOR}),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of an RPC: a key of a tenant.

    Attributes:
        tenant: The tenant the key belongs to, OPERATORS for an operator.
        key_id: The public part of the key, safe to log.
        scopes: What the key may do.
        rules: To what the key is limited, None = it is not.
        rates: How fast its tenant may go, None = as fast as it can.
    """

    tenant: TenantId
    key_id: str
    scopes: frozenset[Scope]
    rules: Rules | None = None
    rates: Rates | None = None


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An API key as it is stored: the SHA-256 of its secret, never the secret.

    Attributes:
        rules: To what the key is limited, None = it is not.
        rates: How fast its tenant may go, None = as fast as it can.
    """

    tenant: TenantId
    key_id: str
    digest: bytes
    scopes: frozenset[Scope]
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    rules: Rules | None = None
    rates: Rates | None = None


class Operation(NamedTuple):
    """Identity and time of one operation of the data plane.

    Attributes:
        operation_id: Sixteen random bytes made by the client, the same for every attempt.
        deadline: `time.monotonic()` in seconds after which the caller no longer waits.
        digest: SHA-256 of what the request asks for, without the operation itself; a repeat with the
            same id and another digest is refused. Empty for put and put_writes, which are idempotent
            by their own ids.
    """

    operation_id: bytes
    deadline: float
    digest: bytes = b""


class Blob(NamedTuple):
    """An opaque payload: the serializer's type tag and its bytes."""

    type: str
    data: bytes

    def digest(self) -> bytes:
        """Return the 16-byte BLAKE2b of tag and bytes, by which a cached copy is checked."""
        state = hashlib.blake2b(digest_size=DIGEST_BYTES)
        state.update(len(self.type).to_bytes(4, "big") + self.type.encode())
        state.update(self.data)
        return state.digest()


class CheckpointRef(NamedTuple):
    """Names a checkpoint; `checkpoint_id` None means the latest of the namespace."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str | None = None


class Base(NamedTuple):
    """The value against which an edit is told: of the same channel, with this digest."""

    version: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class ValueEdit:
    """A large value, told by what is new against another one; see `ValueEdit` in checkpoints.proto.

    Attributes:
        type: The serializer's type tag.
        header: The value's first bytes, which belong to no chunk.
        digest: `chunks.recipe_digest` of the whole value.
        base: What it is told against, None = nothing.
        keep_first: Entries taken from the start of the base's recipe.
        keep_last: Entries taken from the end of the base's recipe.
        entries: Recipe of what is in between, 20 bytes for each chunk.
        chunks: The packed chunks of `entries` by id, already checked against their ids.
    """

    type: str
    header: bytes
    digest: bytes
    base: Base | None
    keep_first: int
    keep_last: int
    entries: bytes
    chunks: Mapping[bytes, bytes]


class ChannelValue(NamedTuple):
    """The value of one version of a channel; its type is `EMPTY` if the version has none."""

    channel: str
    version: str
    value: Blob | ValueEdit


class HeldValue(NamedTuple):
    """A chunked value of a thread's namespace that the reader has already."""

    channel: str
    version: str
    digest: bytes


class PendingWrite(NamedTuple):
    """One write of a task; a negative `idx` replaces, others keep the first."""

    task_id: str
    task_path: str
    idx: int
    channel: str
    value: Blob


class PutCheckpoint(NamedTuple):
    """Store a checkpoint; `checkpoint_id` of `ref` is set.

    Attributes:
        body: The checkpoint without its channel values.
        metadata: JSON text of one object, as the client sent it.
        filterable: JSON text of the metadata's top-level scalars of at most 1 KiB, for filters.
        run_id: `run_id` of the metadata if it is a string.
        channel_versions: Version of every channel that the checkpoint holds.
        new_values: Values of the versions that are new.
        format_version: LangGraph's `v` of the checkpoint.
        lease_token: The writer's lease on the thread, None = it has none.
        expected_parent: What must be the latest checkpoint of the namespace, "" = there must be none, None =
            it does not matter.
    """

    operation: Operation
    ref: CheckpointRef
    parent_checkpoint_id: str | None
    body: Blob
    metadata: str
    filterable: str
    run_id: str | None
    channel_versions: Mapping[str, str]
    new_values: Sequence[ChannelValue]
    format_version: int
    lease_token: int | None = None
    expected_parent: str | None = None


class PutWrites(NamedTuple):
    """Store pending writes of the checkpoint `ref`, which need not exist yet.

    Attributes:
        lease_token: The writer's lease on the thread, None = it has none.
    """

    operation: Operation
    ref: CheckpointRef
    writes: Sequence[PendingWrite]
    lease_token: int | None = None


Mutation = PutCheckpoint | PutWrites


class Recipe(NamedTuple):
    """How a large value is put together: its header, then its chunks in order.

    Attributes:
        type: The serializer's type tag.
        entries: 20 bytes for each chunk, see `chunks`.
    """

    type: str
    header: bytes
    entries: bytes


class ValueRef(NamedTuple):
    """Which value a checkpoint holds for a channel, without the bytes.

    Attributes:
        digest: What the bytes must match: `Blob.digest()` of the stored value, or `chunks.recipe_digest`
            of its recipe.
        size: Size of the value in bytes.
        recipe: How the value is put together, None for one that is stored whole.
    """

    channel: str
    version: str
    digest: bytes
    size: int
    recipe: Recipe | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """A stored checkpoint without its channel values, read from one snapshot.

    Attributes:
        thread_key: Internal id of this life of the thread; a thread deleted and made again has another.
        generation: Changes when stored rows of the thread may have gone or changed (delete, prune,
            delete_for_runs, a re-put); values fetched under another generation are not used.
        values: The channel values, `EMPTY` ones left out.
        pending_writes: In the order (task_path, task_id, idx).
        inline: The channel values themselves, in the order of `values`, where storage sent them along
            because they are small; None for a value that is to be fetched with `bodies` or `chunks`, and
            an empty sequence if storage sends none along.
        bases: Recipe entries of values that the reader holds, by channel, where they are still stored with
            the digest that the reader named and differ from the chunked value in `values`.
    """

    thread_id: str
    thread_key: UUID
    generation: int
    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str | None
    body: Blob
    metadata: str
    values: Sequence[ValueRef]
    pending_writes: Sequence[PendingWrite]
    inline: Sequence[Blob | None] = ()
    bases: Mapping[str, bytes] = field(default_factory=dict)

    def at_hand(self) -> list[Blob | None]:
        """Return the values that came along, None for each that is to be fetched."""
        return list(self.inline) if self.inline else [None] * len(self.values)

    def only(self, indexes: Sequence[int]) -> Head:
        """Return the head with these of its values."""
        return replace(
            self,
            values=[self.values[index] for index in indexes],
            inline=[self.inline[index] for index in indexes] if self.inline else (),
        )


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A stored checkpoint with its channel values as they are told to a reader.

    Attributes:
        head: The checkpoint.
        values: In the order of `head.values`: whole, as an edit against what the reader has, or None for
            one that the reader has.
    """

    head: Head
    values: Sequence[Blob | ValueEdit | None]


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What to list, newest checkpoint id first over everything asked.

    Attributes:
        thread_id: The thread, None = every thread of the tenant.
        checkpoint_ns: The namespace, None = any, "" = the root graph's.
        checkpoint_id: Only this id, if not None.
        before: Only ids that sort before this one, if not None.
        filter: Top-level members that the metadata must equal; values as JSON gives them.
        after: Position (checkpoint_id, thread_id, checkpoint_ns) of the last checkpoint already
            returned, None at the start. The order is checkpoint_id descending, then thread_id and
            checkpoint_ns ascending, all bytewise.
    """

    thread_id: str | None = None
    checkpoint_ns: str | None = None
    checkpoint_id: str | None = None
    before: str | None = None
    filter: Mapping[str, object] = field(default_factory=dict)
    after: tuple[str, str, str] | None = None


@dataclass(frozen=True, slots=True)
class ChannelHistory:
    """What one channel contributed along the ancestors of a checkpoint.

    Attributes:
        writes: (task_id, value) from the newest to the oldest; within one checkpoint in reverse order of
            (task_path, task_id, idx).
        seed: The stored value at the nearest ancestor that has one, None if the walk reached the root.
    """

    writes: Sequence[tuple[str, Blob]]
    seed: Blob | None


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread of the tenant."""

    thread_id: str
    created_at: datetime


class PruneStrategy(Enum):
    """What pruning a thread keeps."""

    KEEP_LATEST = "keep_latest"
    DELETE_ALL = "delete_all"
