"""The server's errors become exceptions."""

from __future__ import annotations

import pickle
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from tenure.v1.errors_pb2 import ErrorReason
from tenure_client import errors, statuses
from tenure_server import errors as server_errors
from tenure_server.wire import status as server_status

BY_THE_SERVER: list[tuple[server_errors.TenureError, type[errors.TenureError]]] = [
    (server_errors.InvalidField("thread_id", "is empty"), errors.InvalidRequest),
    (server_errors.OperationMismatch(), errors.InvalidRequest),
    (server_errors.LimitExceeded("metadata", "max_metadata_bytes", 5, 4), errors.LimitExceeded),
    (server_errors.Unauthenticated(), errors.Unauthenticated),
    (server_errors.ScopeMissing("write"), errors.PermissionDenied),
    (server_errors.ThreadNotFound(), errors.ThreadNotFound),
    (server_errors.ThreadExists(), errors.ThreadExists),
    (server_errors.DeltaChannelInUse(1), errors.DeltaChannelInUse),
    (server_errors.LegalHold(), errors.LegalHold),
    (server_errors.Overloaded("streams", 0.5), errors.Overloaded),
    (server_errors.RateLimited("operations_per_second", 0.5, 2.0), errors.RateLimited),
    (server_errors.QuotaExceeded("threads", 5, 5, 1), errors.QuotaExceeded),
    (server_errors.DeadlineExceeded(), errors.DeadlineExceeded),
    (server_errors.Unavailable(), errors.Unavailable),
    (server_errors.Conflict(), errors.Conflict),
]


class Failed(grpc.RpcError):
    """A failed RPC as gRPC presents it."""

    def __init__(self, code: grpc.StatusCode, details: str = "", **trailers: Any) -> None:
        self._code, self._details = code, details
        self._trailers = tuple((name.replace("_", "-"), value) for name, value in trailers.items())

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._trailers


@pytest.mark.parametrize(("sent", "expected"), BY_THE_SERVER, ids=lambda value: type(value).__name__)
def test_each_error_of_the_server_has_its_exception(
    sent: server_errors.TenureError, expected: type[errors.TenureError]
) -> None:
    status = server_status.of(sent)

    decoded = statuses.from_status(status)

    assert type(decoded) is expected
    assert decoded is not None
    assert sent.message in str(decoded)
    assert decoded.retry_after == sent.retry_after
    assert decoded.metadata == sent.metadata


def test_every_reason_of_the_protocol_is_known() -> None:
    reasons = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()} - {"UNSPECIFIED"}  # noqa: SIM118

    only_to_admins = {"TENANT_NOT_FOUND", "KEY_NOT_FOUND"}
    assert set(statuses._BY_REASON) == reasons - only_to_admins


def test_details_are_attributes() -> None:
    limit = statuses.from_status(server_status.of(server_errors.LimitExceeded("x", "max_x", 5, 4)))
    scope = statuses.from_status(server_status.of(server_errors.ScopeMissing("write")))

    assert isinstance(limit, errors.LimitExceeded)
    assert isinstance(limit, ValueError)
    assert (limit.field, limit.limit, limit.maximum) == ("x", "max_x", 4)
    assert isinstance(scope, errors.PermissionDenied)
    assert scope.scope == "write"


def test_a_fault_of_the_server_names_the_request() -> None:
    fault = statuses.from_status(server_status.of(RuntimeError("select secret from table")))

    assert isinstance(fault, errors.ServerError)
    assert fault.request_id
    assert "secret" not in str(fault)


def test_ok_is_no_error() -> None:
    assert statuses.from_status(status_pb2.Status()) is None


@pytest.mark.parametrize("sent", [error for error, _ in BY_THE_SERVER], ids=lambda e: type(e).__name__)
def test_an_rpc_and_a_result_in_a_batch_are_decoded_alike(sent: server_errors.TenureError) -> None:
    status = server_status.of(sent)
    code = server_status.CODES[sent.reason]

    of_rpc = statuses.from_rpc(
        Failed(code, status.message, grpc_status_details_bin=status.SerializeToString())
    )

    of_result = statuses.from_status(status)
    assert type(of_rpc) is type(of_result)
    assert of_result is not None
    assert (str(of_rpc), of_rpc.retry_after) == (str(of_result), of_result.retry_after)


def test_an_upload_that_broke_off_can_be_repeated_and_another_fault_cannot() -> None:
    """grpc.aio forgets what the server said when it ended an upload early."""
    broke_off = statuses.from_rpc(Failed(grpc.StatusCode.INTERNAL, "Internal error from Core"))
    other = statuses.from_rpc(Failed(grpc.StatusCode.INTERNAL, "Internal error"))

    assert type(broke_off) is errors.Unavailable
    assert (broke_off.retryable, broke_off.maybe_applied) == (True, True)
    assert type(other) is errors.ServerError
    assert not other.retryable


@pytest.mark.parametrize(
    ("pushback", "retry_after"), [("700", 0.7), ("0", 0.0), ("-1", None), ("soon", None)]
)
def test_pushback_outranks_retry_info(pushback: str, retry_after: float | None) -> None:
    status = server_status.of(server_errors.Overloaded("calls", 5))

    error = statuses.from_rpc(
        Failed(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc_status_details_bin=status.SerializeToString(),
            grpc_retry_pushback_ms=pushback,
        )
    )

    assert error.retry_after == retry_after
    assert error.retryable is (retry_after is not None)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.Unavailable),
        (grpc.StatusCode.CANCELLED, errors.Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (grpc.StatusCode.UNAUTHENTICATED, errors.Unauthenticated),
        (grpc.StatusCode.UNIMPLEMENTED, errors.ServerError),
        (grpc.StatusCode.UNKNOWN, errors.ServerError),
    ],
)
def test_errors_of_proxies_and_of_the_transport_go_by_their_code(
    code: grpc.StatusCode, kind: type[errors.TenureError]
) -> None:
    error = statuses.from_rpc(Failed(code, "from elsewhere"))

    assert type(error) is kind
    assert error.maybe_applied is (kind in {errors.Unavailable, errors.DeadlineExceeded, errors.ServerError})


@pytest.mark.parametrize("text", statuses._NEVER_SENT)
def test_a_connection_that_was_never_made_has_applied_nothing(text: str) -> None:
    error = statuses.from_rpc(Failed(grpc.StatusCode.UNAVAILABLE, f"{text}; last error: ..."))

    assert error.retryable
    assert not error.maybe_applied


def test_details_of_another_domain_are_not_believed() -> None:
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason="ERROR_REASON_THREAD_EXISTS", domain="elsewhere.example"))
    retry = any_pb2.Any()
    retry.Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2)))

    error = statuses.from_status(status_pb2.Status(code=8, message="m", details=[info, retry]))

    assert isinstance(error, errors.Overloaded)
    assert error.retry_after == 2


def test_unreadable_details_do_not_hide_the_error() -> None:
    error = statuses.from_rpc(Failed(grpc.StatusCode.ABORTED, "again", grpc_status_details_bin=b"\xff\xff"))

    assert isinstance(error, errors.Conflict)


def test_untrusted_type_survives_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(errors.UntrustedType("a.B", "do this")))

    assert (error.name, str(error)) == ("a.B", "refused to load a.B from a checkpoint: do this")


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = {line.split("─ ")[1].split()[0] for line in (errors.__doc__ or "").splitlines() if "─ " in line}
    made = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.TenureError)
    }

    assert drawn == made - {"TenureError"}
