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
├── Overloaded               too much at once, come back later
├── QuotaExceeded            a quota of the tenant is used up
├── DeadlineExceeded         the caller's time ran out
├── Unavailable              the database is away, or the server drains
├── Conflict                 another writer came between
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


class Overloaded(TenureError):
    """Too many operations at once."""

    reason = "OVERLOADED"

    def __init__(self, what: str, retry_after: float = 0.1) -> None:
        super().__init__(f"too many {what} at once; retry later", retry_after=retry_after)


class QuotaExceeded(TenureError):
    """A quota of the tenant is used up."""

    reason = "QUOTA_EXCEEDED"

    def __init__(self, quota: str, used: int, maximum: int, retry_after: float | None = None) -> None:
        super().__init__(
            f"quota {quota} is used up: {used:,} of {maximum:,}",
            retry_after=retry_after,
            quota=quota,
            used=str(used),
            maximum=str(maximum),
        )


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
