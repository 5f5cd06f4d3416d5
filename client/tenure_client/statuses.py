"""Statuses as exceptions: by `ErrorInfo.reason`, or by gRPC code if a proxy or the transport spoke."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from tenure_client.errors import (
    DOMAIN,
    ChunksMissing,
    Conflict,
    DeadlineExceeded,
    DeltaChannelInUse,
    FailedPrecondition,
    IndexMismatch,
    InvalidRequest,
    LeaseHeld,
    LegalHold,
    LimitExceeded,
    OutsideRules,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    ServerError,
    StaleWriter,
    TenureError,
    ThreadExists,
    ThreadNotFound,
    Unauthenticated,
    Unavailable,
)

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
    "LEGAL_HOLD": LegalHold,
    "CHUNKS_MISSING": ChunksMissing,
    "OVERLOADED": Overloaded,
    "RATE_LIMITED": RateLimited,
    "QUOTA_EXCEEDED": QuotaExceeded,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNAVAILABLE": Unavailable,
    "CONFLICT": Conflict,
    "STALE_WRITER": StaleWriter,
    "LEASE_HELD": LeaseHeld,
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
