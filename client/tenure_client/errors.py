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
│   └── ChunksMissing             a value was told against one that is gone; the saver sends it whole then
├── QuotaExceeded                 a quota of the tenant is used up; see `retry_after`
├── Overloaded                    too much at once; see `retry_after`
├── Conflict                      another writer came between; safe to repeat
├── Unavailable                   the server or its database cannot be reached
├── DeadlineExceeded              the time for the operation ran out; nothing was changed
├── OutcomeUnknown                a change may or may not have been applied; safe to repeat
├── ServerError                   a fault of the server; `request_id` finds it in the server's log
├── UntrustedType                 a payload names a class that is not trusted
└── UnreadableValue               a payload cannot be turned back into a value

`from_rpc` and `from_status` decode the server's errors, by `ErrorInfo.reason` first and by gRPC code if a
proxy or the transport made the error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "tenure.dev"
_STATUS_DETAILS = "grpc-status-details-bin"
_PUSHBACK = "grpc-retry-pushback-ms"
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_NEVER_SENT = (
    "connections to all backends failing",
    "failed to connect to all addresses",
    "DNS resolution failed",
    "empty address list",
)
"""How gRPC's messages begin when no connection could be made, so that no request has left."""
_BROKEN_OFF = "Internal error from Core"
"""What grpc.aio says when a message of an upload could not be sent as the server had ended the call already.
What the server said is lost then."""


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


class ChunksMissing(FailedPrecondition):
    """A value was told against one that the server no longer has; nothing was stored.

    The saver then sends the value with all its chunks, so that callers never see this.
    """


class QuotaExceeded(TenureError):
    """A quota of the tenant is used up."""

    @property
    def retryable(self) -> bool:
        return self.retry_after is not None


class Overloaded(TenureError):
    """Too many operations at once."""

    transient = True

    @property
    def retryable(self) -> bool:
        return self.retry_after is not None


class Conflict(TenureError):
    """Another writer changed the thread between two steps of the operation."""

    transient = True


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


_BY_REASON: dict[str, type[TenureError]] = {
    "INVALID_FIELD": InvalidRequest,
    "OPERATION_MISMATCH": InvalidRequest,
    "LIMIT_EXCEEDED": LimitExceeded,
    "UNAUTHENTICATED": Unauthenticated,
    "SCOPE_MISSING": PermissionDenied,
    "OUTSIDE_RULES": OutsideRules,
    "INDEX_MISMATCH": IndexMismatch,
    "THREAD_NOT_FOUND": ThreadNotFound,
    "THREAD_EXISTS": ThreadExists,
    "DELTA_CHANNEL_IN_USE": DeltaChannelInUse,
    "CHUNKS_MISSING": ChunksMissing,
    "OVERLOADED": Overloaded,
    "QUOTA_EXCEEDED": QuotaExceeded,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNAVAILABLE": Unavailable,
    "CONFLICT": Conflict,
    "INTERNAL": ServerError,
}
_BY_CODE: dict[grpc.StatusCode, type[TenureError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: ThreadNotFound,
    grpc.StatusCode.ALREADY_EXISTS: ThreadExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    # A draining server or proxy cancels what it no longer waits for; our own cancellation never gets here.
    grpc.StatusCode.CANCELLED: Unavailable,
}


def from_rpc(error: grpc.RpcError) -> TenureError:
    """Return the exception for a failed RPC of either colour."""
    call: Any = error
    if call.code() is grpc.StatusCode.INTERNAL and call.details() == _BROKEN_OFF:
        return Unavailable("the server ended the call before all was sent; retry", maybe_applied=True)
    trailers: dict[str, Any] = dict(call.trailing_metadata() or ())
    status = status_pb2.Status()
    try:
        status.ParseFromString(trailers.get(_STATUS_DETAILS, b""))
    except DecodeError:
        status.Clear()
    status.code = call.code().value[0]
    status.message = call.details() or status.message
    pushback = trailers.get(_PUSHBACK)
    return _decode(status, pushback if isinstance(pushback, str) else None)


def from_status(status: status_pb2.Status) -> TenureError | None:
    """Return the exception for one operation's status inside a batch, None if it is OK."""
    return _decode(status, None) if status.code else None


def _decode(status: status_pb2.Status, pushback: str | None) -> TenureError:
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    info, retry_after = _details(status)
    ours = info.domain == DOMAIN
    reason = info.reason.removeprefix("ERROR_REASON_") if ours else ""
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code, ServerError)
    if pushback is not None:
        retry_after = int(pushback) / 1000 if pushback.isdecimal() else None
    return kind(
        _message(kind, code, status.message, ours),
        retry_after=retry_after,
        metadata=dict(info.metadata) if ours else None,
        maybe_applied=_maybe_applied(kind, status.message, reason),
    )


def _details(status: status_pb2.Status) -> tuple[error_details_pb2.ErrorInfo, float | None]:
    info = error_details_pb2.ErrorInfo()
    retry_info = error_details_pb2.RetryInfo()
    retry_after = None
    for detail in status.details:
        # Unpack leaves the message alone and returns False if the detail is of another type.
        if not detail.Unpack(info) and detail.Unpack(retry_info):
            retry_after = retry_info.retry_delay.ToNanoseconds() / 1e9
    return info, retry_after


def _maybe_applied(kind: type[TenureError], message: str, reason: str) -> bool:
    if kind is Unavailable:
        return not message.startswith(_NEVER_SENT)
    # The server says DEADLINE_EXCEEDED itself only for what it has not applied.
    return (kind is DeadlineExceeded and not reason) or kind is ServerError


def _message(kind: type[TenureError], code: grpc.StatusCode, text: str, ours: bool) -> str:
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return (
            f"the server does not know this method; it may be older than this client, or not Tenure: {text}"
        )
    if ours:
        return f"{text} (set TENURE_API_KEY or api_key=)" if kind is Unauthenticated else text
    if kind is Unavailable:
        return f"cannot reach the server; check the target, TLS and that it runs: {text}"
    if kind is DeadlineExceeded:
        return "no answer in time; raise timeout= if the server is only slow"
    return f"{code.name}: {text}"
