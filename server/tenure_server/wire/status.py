"""The one place where errors become gRPC statuses (google.rpc.Status with ErrorInfo, AIP-193)."""

from __future__ import annotations

import logging
import secrets
from typing import Any, Final, NoReturn

import grpc
from google.protobuf import any_pb2, message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from tenure_server import errors, telemetry

DOMAIN = "tenure.dev"

CODES: Final = {
    "INVALID_FIELD": grpc.StatusCode.INVALID_ARGUMENT,
    "OPERATION_MISMATCH": grpc.StatusCode.INVALID_ARGUMENT,
    "LIMIT_EXCEEDED": grpc.StatusCode.INVALID_ARGUMENT,
    "UNAUTHENTICATED": grpc.StatusCode.UNAUTHENTICATED,
    "SCOPE_MISSING": grpc.StatusCode.PERMISSION_DENIED,
    "OUTSIDE_RULES": grpc.StatusCode.PERMISSION_DENIED,
    "THREAD_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "TENANT_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "KEY_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "THREAD_EXISTS": grpc.StatusCode.ALREADY_EXISTS,
    "DELTA_CHANNEL_IN_USE": grpc.StatusCode.FAILED_PRECONDITION,
    "LEGAL_HOLD": grpc.StatusCode.FAILED_PRECONDITION,
    "CHUNKS_MISSING": grpc.StatusCode.FAILED_PRECONDITION,
    "INDEX_MISMATCH": grpc.StatusCode.FAILED_PRECONDITION,
    "OVERLOADED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "QUOTA_EXCEEDED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "RATE_LIMITED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "DEADLINE_EXCEEDED": grpc.StatusCode.DEADLINE_EXCEEDED,
    "UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "CONFLICT": grpc.StatusCode.ABORTED,
    "STALE_WRITER": grpc.StatusCode.ABORTED,
    "LEASE_HELD": grpc.StatusCode.ABORTED,
    "INTERNAL": grpc.StatusCode.INTERNAL,
}
"""gRPC code of each reason; a test keeps it equal to `ErrorReason` and to the client's table."""

OK: Final = status_pb2.Status()

_log = logging.getLogger("tenure")


def of(error: BaseException) -> status_pb2.Status:
    """Return the status that a caller sees of an error.

    An unexpected error becomes INTERNAL with a fixed text and a request id; its cause goes to the log
    only, since exception texts of drivers and libraries may hold payloads, SQL or other tenants' ids.
    """
    if isinstance(error, errors.TenureError):
        telemetry.refused.add(1, {"reason": error.reason})
        return _status(error.reason, error.message, error.metadata, error.retry_after)
    request_id = secrets.token_hex(8)
    _log.error("unexpected error, request_id=%s", request_id, exc_info=error)
    telemetry.refused.add(1, {"reason": "INTERNAL"})
    return _status(
        "INTERNAL", "internal error; the server's log has the cause", {"request_id": request_id}, None
    )


def _status(reason: str, text: str, metadata: dict[str, str], retry_after: float | None) -> status_pb2.Status:
    details: list[message.Message] = [
        error_details_pb2.ErrorInfo(reason=f"ERROR_REASON_{reason}", domain=DOMAIN, metadata=metadata)
    ]
    if "field" in metadata:
        violation = error_details_pb2.BadRequest.FieldViolation(field=metadata["field"], description=text)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if reason in {"RATE_LIMITED", "QUOTA_EXCEEDED"}:
        failure = error_details_pb2.QuotaFailure.Violation(subject=metadata["limit"], description=text)
        details.append(error_details_pb2.QuotaFailure(violations=[failure]))
    if retry_after is not None:
        info = error_details_pb2.RetryInfo()
        info.retry_delay.FromNanoseconds(int(retry_after * 1e9))
        details.append(info)
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=CODES[reason].value[0], message=text, details=packed)


async def abort(context: grpc.aio.ServicerContext[Any, Any], status: status_pb2.Status) -> NoReturn:
    """End an RPC with a status; never returns.

    gRPC clients other than ours obey the `grpc-retry-pushback-ms` trailer, not RetryInfo.
    """
    trailers: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", status.SerializeToString())]
    for detail in status.details:
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            trailers.append(("grpc-retry-pushback-ms", str(info.retry_delay.ToMilliseconds())))
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    await context.abort(code, status.message, tuple(trailers))


def name(status: status_pb2.Status) -> str:
    """Return the name of a status' code, such as "OK" or "UNAVAILABLE"."""
    return code_pb2.Code.Name(status.code)
