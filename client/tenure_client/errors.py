"""What can go wrong, as exceptions that say what to do about it.

TenureError
├── InvalidRequest (ValueError)   an argument is not allowed; `field` names it
│   └── LimitExceeded             larger than the server accepts
├── Unauthenticated               the API key is missing, unknown, expired or revoked
├── PermissionDenied              the API key lacks a scope
│   └── OutsideRules              the API key is limited to other threads or namespaces
├── ThreadNotFound
├── ThreadExists                  the target of a copy exists already
├── FailedPrecondition            the state of what is stored forbids it
│   ├── IndexMismatch             the store's vectors were made with another embedder
│   ├── DeltaChannelInUse         a DeltaChannel still needs what would be deleted
│   ├── LegalHold                 what would be deleted is under a legal hold
│   └── ChunksMissing             a value was told against one that is gone; the saver sends it whole then
├── QuotaExceeded                 a quota of the tenant is used up; see `retry_after`
├── Overloaded                    too much at once; see `retry_after`
│   └── RateLimited               the tenant goes faster than it may
├── Conflict                      another writer came between; safe to repeat
├── StaleWriter                   the thread has another writer; read it again before writing
├── LeaseHeld                     somebody else has the thread; see `held_for`
├── Unavailable                   the server or its database cannot be reached
├── DeadlineExceeded              the time for the operation ran out; nothing was changed
├── OutcomeUnknown                a change may or may not have been applied; safe to repeat
├── ServerError                   a fault of the server; `request_id` finds it in the server's log
├── UntrustedType                 a payload names a class that is not trusted
└── UnreadableValue               a payload cannot be turned back into a value

`statuses` makes them of what the server says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

DOMAIN = "tenure.dev"


class TenureError(Exception):
    """Base class of all errors of this package.

    Attributes:
        retry_after: Seconds after which a repeat may succeed, None if that is not known.
        metadata: What the server tells about the error.
        maybe_applied: Whether a change may have been applied although it failed.
    """

    transient: ClassVar[bool] = False
    """Whether the same operation may succeed later without anything being changed."""

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
        maybe_applied: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.metadata = dict(metadata or {})
        self.maybe_applied = maybe_applied

    @property
    def retryable(self) -> bool:
        """Whether the client itself repeats the operation while there is time."""
        return self.transient


class InvalidRequest(TenureError, ValueError):
    """An argument is not allowed.

    Attributes:
        field: The argument or the field of the request, empty if it is not known.
    """

    @property
    def field(self) -> str:
        return self.metadata.get("field", "")


class LimitExceeded(InvalidRequest):
    """A request or value is larger than the server accepts.

    Attributes:
        limit: Name of the limit.
        maximum: What the server accepts at most, None if it did not say.
    """

    @property
    def limit(self) -> str:
        return self.metadata.get("limit", "")

    @property
    def maximum(self) -> int | None:
        text = self.metadata.get("maximum", "")
        return int(text) if text.isdecimal() else None


class Unauthenticated(TenureError):
    """The API key is missing, unknown, expired or revoked."""


class PermissionDenied(TenureError):
    """The API key lacks a scope.

    Attributes:
        scope: The scope it would need, empty if it is not known.
    """

    @property
    def scope(self) -> str:
        return self.metadata.get("scope", "")


class OutsideRules(PermissionDenied):
    """The API key is limited to other threads or namespaces, or to reading them."""


class ThreadNotFound(TenureError):
    """There is no such thread."""


class ThreadExists(TenureError):
    """The target of a copy exists already; delete it first or choose another id."""


class FailedPrecondition(TenureError):
    """The state of what is stored forbids the operation."""


class IndexMismatch(FailedPrecondition):
    """The vectors of the tenant's items were made with another embedder, and cannot be compared with these.

    Use that embedder, or embed all items anew: `TenureStore.rebuild_index()`, or on the command line
    `python -m tenure_client rebuild-index`. Nothing was stored.

    Attributes:
        stored: The embedder of the stored vectors, with their length.
        given: The one that was refused.
    """

    @property
    def stored(self) -> str:
        return self.metadata.get("stored", "")

    @property
    def given(self) -> str:
        return self.metadata.get("given", "")


class DeltaChannelInUse(FailedPrecondition):
    """A DeltaChannel of a checkpoint that stays is rebuilt from one that would go."""


class LegalHold(FailedPrecondition):
    """What would be deleted is under a legal hold, which an admin of the tenant may release."""


class ChunksMissing(FailedPrecondition):
    """A value was told against one that the server no longer has; nothing was stored.

    The saver then sends the value with all its chunks, so that callers never see this.
    """


class QuotaExceeded(TenureError):
    """A quota of the tenant is used up: the operation would pass it, and nothing of it was stored.

    The message says what makes room.

    Attributes:
        limit: stored_bytes, threads, items, checkpoints_per_thread or value_bytes; empty if it is not known.
        maximum: What the tenant may use of it, None if the server did not say.
        used: What it used before the operation, None if the server did not say.
        asked: What the operation would have added, None if the server did not say.
    """

    @property
    def limit(self) -> str:
        return self.metadata.get("limit", "")

    @property
    def maximum(self) -> int | None:
        return self._number("maximum")

    @property
    def used(self) -> int | None:
        return self._number("used")

    @property
    def asked(self) -> int | None:
        return self._number("asked")

    def _number(self, name: str) -> int | None:
        text = self.metadata.get(name, "")
        return int(text) if text.isdecimal() else None

    @property
    def retryable(self) -> bool:
        return self.retry_after is not None


class Overloaded(TenureError):
    """Too many operations at once."""

    transient = True

    @property
    def retryable(self) -> bool:
        return self.retry_after is not None


class RateLimited(Overloaded):
    """The tenant goes faster than it may; the client repeats the operation while there is time.

    Attributes:
        limit: operations_per_second, bytes_per_second or max_concurrency.
        maximum: How much of it the tenant may, None if the server did not say.
    """

    @property
    def limit(self) -> str:
        return self.metadata.get("limit", "")

    @property
    def maximum(self) -> float | None:
        try:
            return float(self.metadata.get("maximum", ""))
        except ValueError:
            return None


class Conflict(TenureError):
    """Another writer changed the thread between two steps of the operation."""

    transient = True


class StaleWriter(TenureError):
    """The thread has another writer, and this put was not stored.

    Either somebody else has or had a lease on the thread, or it went on from the checkpoint that this put
    builds on. Repeating the put is of no use: read the thread again and run again from its latest checkpoint.
    To go on from an older checkpoint on purpose, hold a lease: `with saver.single_writer(thread_id): ...`.
    """


class LeaseHeld(TenureError):
    """Somebody else is the only writer of the thread.

    Attributes:
        held_for: Seconds until the lease ends if it is not renewed.
        holder: What its holder calls itself, empty if it did not say.
    """

    @property
    def held_for(self) -> float:
        text = self.metadata.get("held_for_ms", "")
        return int(text) / 1000 if text.isdecimal() else 0.0

    @property
    def holder(self) -> str:
        return self.metadata.get("holder", "")


class Unavailable(TenureError):
    """The server or its database cannot be reached."""

    transient = True


class DeadlineExceeded(TenureError):
    """The time for the operation ran out."""

    transient = True

    @property
    def retryable(self) -> bool:
        return False


class OutcomeUnknown(TenureError):
    """A change may or may not have been applied.

    Every operation may be repeated safely: it has the effect of having been done once.
    """


class ServerError(TenureError):
    """A fault of the server.

    Attributes:
        request_id: Finds the cause in the server's log, None if the server did not say.
    """

    @property
    def request_id(self) -> str | None:
        return self.metadata.get("request_id")


class UntrustedType(TenureError):
    """A payload names a class that is not trusted, so it was neither imported nor called.

    Attributes:
        name: The class as `module.name`.
    """

    def __init__(self, name: str, help: str) -> None:
        super().__init__(f"refused to load {name} from a checkpoint: {help}")
        self.name = name
        self.help = help

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.help)


class UnreadableValue(TenureError):
    """A payload is damaged, or its class no longer accepts what was stored."""
