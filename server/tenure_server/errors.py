"""What can go wrong, without gRPC: one exception for each `ErrorReason` of the protocol.

TenureError
├── InvalidField             a field has a value that is not allowed
│   └── OperationMismatch    the operation id came before with another content
├── LimitExceeded            larger than the server accepts
├── Unauthenticated          missing, unknown, expired or revoked key
├── ScopeMissing             the key may not do this
├── OutsideRules             the key may not do this here
├── ThreadNotFound / ThreadExists
├── TenantNotFound / KeyNotFound   of AdminService alone
├── DeltaChannelInUse        a row that would go is needed by one that stays
├── LegalHold                what would be deleted is under a legal hold
├── Overloaded               too much at once, come back later
├── RateLimited              the tenant goes faster than it may, come back later
├── QuotaExceeded            a quota of the tenant is used up
├── DeadlineExceeded         the caller's time ran out
├── Unavailable              the database is away, or the server drains
├── Conflict                 another writer came between
├── StaleWriter              the thread has another writer
├── LeaseHeld                somebody else has a lease on the thread
├── IndexMismatch            vectors were made with another embedder
└── ChunksMissing            a value was told against one that is not there

`ThreadBusy` is between the storage and the queue before it, and never reaches a client.

`ConfigError` stands apart: it ends the process at its start and never reaches a client.

`tenure_server.wire.status` is the one place that turns them into gRPC statuses. Messages reach clients:
they never hold payloads, keys, SQL, or ids of threads.
"""

from __future__ import annotations

from typing import ClassVar


class TenureError(Exception):
    """Base class.

    Attributes:
        reason: Name of the protocol's ErrorReason without its prefix.
        metadata: Details for ErrorInfo; safe to show to the caller.
        retry_after: Seconds after which a retry may succeed, None if that is not known.
    """

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, retry_after: float | None = None, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.metadata = metadata


class InvalidField(TenureError):
    """A field has a value that is not allowed."""

    reason = "INVALID_FIELD"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}", field=field)
        self.field = field
        self.problem = problem


class OperationMismatch(InvalidField):
    """The same operation id came before with another content."""

    reason = "OPERATION_MISMATCH"

    def __init__(self) -> None:
        super().__init__(
            "operation.operation_id", "was used before for another request; make a new id for each"
        )


class LimitExceeded(TenureError):
    """A request or value is larger than the server accepts."""

    reason = "LIMIT_EXCEEDED"

    def __init__(self, field: str, limit: str, actual: int, maximum: int) -> None:
        super().__init__(
            f"{field}: {actual:,} is above {limit} of {maximum:,}",
            field=field,
            limit=limit,
            maximum=str(maximum),
        )
        self.field = field


class Unauthenticated(TenureError):
    """The key is missing, unknown, expired or revoked; which of them is not told."""

    reason = "UNAUTHENTICATED"

    def __init__(self) -> None:
        super().__init__("the API key is missing or not valid; send it as `authorization: Bearer tn_...`")


class ScopeMissing(TenureError):
    """The key lacks a scope."""

    reason = "SCOPE_MISSING"

    def __init__(self, scope: str) -> None:
        super().__init__(f"the API key lacks the scope {scope!r}", scope=scope)


class ThreadNotFound(TenureError):
    """The thread does not exist in this tenant."""

    reason = "THREAD_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("there is no such thread")


class ThreadExists(TenureError):
    """The target of a copy exists already."""

    reason = "THREAD_EXISTS"

    def __init__(self) -> None:
        super().__init__("the target thread exists already; delete it first or choose another id")


class TenantNotFound(TenureError):
    """There is no such tenant, or it is not the caller's."""

    reason = "TENANT_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("there is no such tenant")


class KeyNotFound(TenureError):
    """The tenant has no such key."""

    reason = "KEY_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("there is no such key")


class DeltaChannelInUse(TenureError):
    """A DeltaChannel of a checkpoint that stays needs a row that would go."""

    reason = "DELTA_CHANNEL_IN_USE"

    def __init__(self, threads: int) -> None:
        super().__init__(
            f"{threads} thread(s) left as they are: a DeltaChannel of a checkpoint that stays is rebuilt "
            "from one that would go; prune these threads instead",
            threads=str(threads),
        )


class LegalHold(TenureError):
    """What would be deleted is under a legal hold."""

    reason = "LEGAL_HOLD"

    def __init__(self) -> None:
        super().__init__(
            "it is under a legal hold and cannot be deleted; an admin of the tenant may release it"
        )


class Overloaded(TenureError):
    """Too many operations at once."""

    reason = "OVERLOADED"

    def __init__(self, what: str, retry_after: float = 0.1) -> None:
        super().__init__(f"too many {what} at once; retry later", retry_after=retry_after)


class RateLimited(TenureError):
    """The tenant goes faster than it may."""

    reason = "RATE_LIMITED"

    def __init__(self, limit: str, maximum: float, retry_after: float) -> None:
        """Make the error.

        Args:
            limit: Name of the limit in `Quota`.
            maximum: How much the tenant may.
            retry_after: Seconds after which a retry may succeed.
        """
        super().__init__(
            f"the tenant is above its {limit} of {maximum:,.10g}; retry later",
            retry_after=retry_after,
            limit=limit,
            maximum=f"{maximum:.10g}",
        )


class QuotaExceeded(TenureError):
    """A quota of the tenant is used up: the operation would pass it, and nothing of it was stored."""

    reason = "QUOTA_EXCEEDED"

    def __init__(self, limit: str, maximum: int, used: int, asked: int) -> None:
        """Make the error.

        Args:
            limit: stored_bytes, threads, items, checkpoints_per_thread or value_bytes.
            maximum: What the tenant may use of it.
            used: What it used before the operation.
            asked: What the operation would have added.
        """
        super().__init__(
            f"quota {limit} is used up: {used:,} of {maximum:,} used, {asked:,} more asked for; "
            f"{_FREES[limit]}",
            limit=limit,
            maximum=str(maximum),
            used=str(used),
            asked=str(asked),
        )


_FREES = {
    "stored_bytes": "delete or prune threads, or delete items",
    "threads": "delete threads",
    "items": "delete items",
    "checkpoints_per_thread": "prune the thread, or go on in a new one",
    "value_bytes": "store less in one value",
}
"""What makes room, by limit."""


class DeadlineExceeded(TenureError):
    """The caller's time ran out before the operation was applied."""

    reason = "DEADLINE_EXCEEDED"

    def __init__(self) -> None:
        super().__init__("the caller's time ran out before the operation was applied")


class Unavailable(TenureError):
    """The database cannot be reached, or the server drains."""

    reason = "UNAVAILABLE"

    def __init__(self, message: str = "the database cannot be reached; retry") -> None:
        super().__init__(message)


class Conflict(TenureError):
    """Another writer changed the thread between two steps of an operation."""

    reason = "CONFLICT"

    def __init__(self) -> None:
        super().__init__("another writer changed the thread meanwhile; retry")


class StaleWriter(TenureError):
    """The thread has another writer: nothing of the operation was stored, and repeating it is of no use."""

    reason = "STALE_WRITER"

    def __init__(self) -> None:
        super().__init__(
            "the thread has another writer: somebody else has or had a lease on it, or its latest checkpoint "
            "is not the parent that was expected. Read the thread again and go on from its latest "
            "checkpoint; to go on from an older one on purpose, hold a lease (TenureSaver.single_writer)"
        )


class LeaseHeld(TenureError):
    """Somebody else has a lease on the thread."""

    reason = "LEASE_HELD"

    def __init__(self, held_for_ms: int, holder: str) -> None:
        """Make the error.

        Args:
            held_for_ms: Milliseconds until the lease ends, if it is not renewed.
            holder: What its holder calls itself; of the same tenant, as the caller is.
        """
        super().__init__(
            f"somebody else is the thread's only writer, for {held_for_ms / 1000:.3g} s if the lease is not "
            "renewed; wait, or only read",
            retry_after=held_for_ms / 1000,
            held_for_ms=str(held_for_ms),
            holder=holder,
        )


class ChunksMissing(TenureError):
    """A value was told against one that is not there or has other bytes; nothing of the put was stored."""

    reason = "CHUNKS_MISSING"

    def __init__(self) -> None:
        super().__init__("a value was told against one that is not stored; send it with all its chunks")


class IndexMismatch(TenureError):
    """Vectors were made with another embedder than those that are stored."""

    reason = "INDEX_MISMATCH"

    def __init__(self, stored: str, given: str) -> None:
        super().__init__(
            f"the items are embedded with {stored}, not with {given}: rebuild the index (TenureStore."
            "rebuild_index) or use that embedder",
            stored=stored,
            given=given,
        )


class OutsideRules(TenureError):
    """The key is limited to other threads or namespaces, or to reading them."""

    reason = "OUTSIDE_RULES"

    def __init__(self, field: str, access: str, what: str = "it") -> None:
        super().__init__(f"{field}: the rules of this API key do not allow to {access} {what}", field=field)


class ThreadBusy(Conflict):
    """Somebody else holds the thread, and the caller did not want to wait; nothing was applied."""


class ConfigError(Exception):
    """Settings that cannot work, all of them at once, each with what to do."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults
