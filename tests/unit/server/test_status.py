"""Errors become statuses: one table, equal to the protocol's and the client's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from tenure.v1 import errors_pb2
from tenure_client import errors as client_errors
from tenure_client import statuses as client_statuses
from tenure_server import errors
from tenure_server.wire import status

M = TypeVar("M", bound=Message)

EXAMPLES: list[errors.TenureError] = [
    errors.InvalidField("put.ref.thread_id", "must not be empty"),
    errors.OperationMismatch(),
    errors.LimitExceeded("writes", "items", 5000, 4096),
    errors.Unauthenticated(),
    errors.ScopeMissing("write"),
    errors.ThreadNotFound(),
    errors.ThreadExists(),
    errors.DeltaChannelInUse(2),
    errors.LegalHold(),
    errors.Overloaded("calls"),
    errors.RateLimited("operations_per_second", 50.0, 0.25),
    errors.QuotaExceeded("threads", 10, 10, 1),
    errors.DeadlineExceeded(),
    errors.Unavailable(),
    errors.Conflict(),
    errors.StaleWriter(),
    errors.LeaseHeld(1500, "worker 1"),
    errors.ChunksMissing(),
    errors.TenantNotFound(),
    errors.KeyNotFound(),
    errors.OutsideRules("thread_id", "read"),
    errors.IndexMismatch("one (3 dimensions)", "another (4 dimensions)"),
]
ADMIN_ONLY = {"TENANT_NOT_FOUND", "KEY_NOT_FOUND"}
"""Reasons of AdminService, which the client package does not call."""
INSIDE = {errors.ThreadBusy}
"""Errors between parts of the server, which no client gets; see `test_queues`."""


def test_protocol_server_and_client_know_the_same_reasons() -> None:
    protocol = {
        name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.DESCRIPTOR.values_by_name
    }
    protocol.remove("UNSPECIFIED")
    assert status.CODES.keys() == protocol
    assert {"INTERNAL", *(error.reason for error in _all_errors(errors.TenureError))} == protocol
    assert client_statuses._BY_REASON.keys() == protocol - ADMIN_ONLY
    assert client_errors.DOMAIN == status.DOMAIN


def test_the_codes_are_those_that_the_protocol_tells() -> None:
    text = (Path(__file__).parents[3] / "proto/tenure/v1/errors.proto").read_text()
    told = {reason: code for code, reason in re.findall(r"([A-Z_]+)\.\n\s+ERROR_REASON_(\w+) = ", text)}
    assert told == {reason: code.name for reason, code in status.CODES.items()}


def test_every_error_has_an_example() -> None:
    assert {type(error) for error in EXAMPLES} == set(_all_errors(errors.TenureError)) - INSIDE


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_keeps_reason_text_and_details(error: errors.TenureError) -> None:
    made = status.of(error)
    assert made.code == status.CODES[error.reason].value[0]
    assert status.name(made) == status.CODES[error.reason].name
    assert made.message == str(error)
    info = _detail(made, error_details_pb2.ErrorInfo())
    assert info is not None
    assert (info.reason, info.domain) == (f"ERROR_REASON_{error.reason}", "tenure.dev")
    assert dict(info.metadata) == error.metadata


SHARED = [error for error in EXAMPLES if error.reason not in ADMIN_ONLY]


@pytest.mark.parametrize("error", SHARED, ids=lambda error: type(error).__name__)
def test_the_client_makes_the_same_error_of_it(error: errors.TenureError) -> None:
    made = client_statuses.from_status(status.of(error))
    assert made is not None
    assert type(made) is client_statuses._BY_REASON[error.reason]
    assert made.retry_after == error.retry_after
    assert made.metadata == error.metadata


def test_a_field_is_also_told_in_googles_way() -> None:
    bad = _detail(status.of(errors.InvalidField("writes", "is wrong")), error_details_pb2.BadRequest())
    assert bad is not None
    assert [violation.field for violation in bad.field_violations] == ["writes"]
    assert _detail(status.of(errors.ThreadNotFound()), error_details_pb2.BadRequest()) is None


def test_when_to_come_back() -> None:
    made = status.of(errors.Overloaded("calls", 1.5))
    retry = _detail(made, error_details_pb2.RetryInfo())
    assert retry is not None
    assert retry.retry_delay.ToMilliseconds() == 1500
    assert _detail(status.of(errors.Unavailable()), error_details_pb2.RetryInfo()) is None


def test_a_quota_is_named_with_its_figures_and_what_makes_room() -> None:
    made = status.of(errors.QuotaExceeded("threads", 1000, 999, 2))
    failure = _detail(made, error_details_pb2.QuotaFailure())
    assert failure is not None
    (violation,) = failure.violations
    assert violation.subject == "threads"
    assert violation.description == (
        "quota threads is used up: 999 of 1,000 used, 2 more asked for; delete threads"
    )
    assert _detail(made, error_details_pb2.RetryInfo()) is None, "waiting does not make room"


def test_a_rate_is_named_with_what_it_is_and_when_to_come_back() -> None:
    made = status.of(errors.RateLimited("operations_per_second", 50.0, 0.25))
    failure, retry = (
        _detail(made, error_details_pb2.QuotaFailure()),
        _detail(made, error_details_pb2.RetryInfo()),
    )
    assert failure is not None
    assert retry is not None
    assert [violation.subject for violation in failure.violations] == ["operations_per_second"]
    assert "of 50;" in failure.violations[0].description
    assert retry.retry_delay.ToMilliseconds() == 250


def test_what_is_not_expected_shows_a_request_id_only(caplog: pytest.LogCaptureFixture) -> None:
    secret = "SELECT * FROM checkpoint WHERE thread_id = 'of another tenant'"
    made, again = status.of(RuntimeError(secret)), status.of(RuntimeError(secret))
    info = _detail(made, error_details_pb2.ErrorInfo())
    assert info is not None
    assert made.code == grpc.StatusCode.INTERNAL.value[0]
    assert (info.reason, list(info.metadata)) == ("ERROR_REASON_INTERNAL", ["request_id"])
    assert b"SELECT" not in made.SerializeToString()
    assert made != again
    logged = [record for record in caplog.records if info.metadata["request_id"] in record.getMessage()]
    assert len(logged) == 1
    assert secret in caplog.text


def test_every_code_has_a_name() -> None:
    for code in grpc.StatusCode:
        assert status.name(status_pb2.Status(code=code.value[0])) == code_pb2.Code.Name(code.value[0])


def _all_errors(base: type[errors.TenureError]) -> Iterator[type[errors.TenureError]]:
    for kind in base.__subclasses__():
        # Those of single commands, such as a refused migration, never reach a client.
        if kind.__module__ == errors.__name__:
            yield kind
        yield from _all_errors(kind)


def _detail(made: status_pb2.Status, kind: M) -> M | None:
    for detail in made.details:
        if detail.Unpack(kind):
            return kind
    return None
