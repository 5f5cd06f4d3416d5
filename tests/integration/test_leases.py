"""Leases on the wire: whose they are, who may have them, and what becomes of a writer without one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import grpc
import psycopg
import pytest
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1.common_pb2 import Blob

from tests.harness.running import run
from tests.harness.stack import Stack, TenantHandle
from tests.integration.checkpoints_support import wait_until
from tests.integration.wire_support import (
    LEASES,
    METHODS,
    Answer,
    Wire,
    operation,
    outcome_of,
    reason_of,
    session_request,
)

THREAD = "thread"


@pytest.fixture
def tenant(stack: Stack) -> TenantHandle:
    return stack.new_tenant()


@pytest.fixture
def wire(stack: Stack, tenant: TenantHandle) -> Iterator[Wire]:
    with Wire(stack.target, tenant.api_key) as opened:
        yield opened


def acquire(wire: Wire, thread: str = THREAD, **more: Any) -> Answer:
    request = pb.AcquireLeaseRequest(**{"operation": operation(), "thread_id": thread, "holder": "me"} | more)
    return wire.call("AcquireLease", request)


def token_of(answer: Answer) -> int:
    token: int = answer.message(pb.AcquireLeaseResponse).lease_token
    return token


def renew(wire: Wire, token: int, thread: str = THREAD, ttl_ms: int = 0) -> Answer:
    request = pb.RenewLeaseRequest(operation=operation(), thread_id=thread, lease_token=token, ttl_ms=ttl_ms)
    return wire.call("RenewLease", request)


def release(wire: Wire, token: int, thread: str = THREAD) -> Answer:
    return wire.call(
        "ReleaseLease", pb.ReleaseLeaseRequest(operation=operation(), thread_id=thread, lease_token=token)
    )


def request_of(method: str, thread: str) -> Any:
    token = {} if method == "AcquireLease" else {"lease_token": 1}
    kind = getattr(pb, f"{method}Request")
    return kind(operation=operation(), thread_id=thread, **token)


def put(id: str = "1", parent: str = "", thread: str = THREAD, **more: Any) -> pb.WriteRequest:
    message = pb.PutCheckpoint(
        ref=pb.CheckpointRef(thread_id=thread, checkpoint_id=id),
        parent_checkpoint_id=parent,
        checkpoint=Blob(type="msgpack", data=b"body"),
        metadata_json="{}",
        format_version=4,
        **more,
    )
    return pb.WriteRequest(mutations=[pb.Mutation(operation=operation(), put=message)])


def put_writes(id: str = "1", **more: Any) -> pb.WriteRequest:
    write = pb.PendingWrite(task_id="task", channel="c", value=Blob(type="msgpack", data=b"w"))
    message = pb.PutWrites(ref=pb.CheckpointRef(thread_id=THREAD, checkpoint_id=id), writes=[write], **more)
    return pb.WriteRequest(mutations=[pb.Mutation(operation=operation(), put_writes=message)])


def reason(answer: Answer) -> str:
    return reason_of(answer.status)[0]


def outcomes(wire: Wire, request: pb.WriteRequest) -> list[str]:
    """Write, and return the reason of each refusal, "" for what was stored."""
    results = wire.call("Write", request).message(pb.WriteResponse).results
    return [reason_of(result.status)[0] for result in results]


def stored(wire: Wire) -> list[tuple[bytes, ...]]:
    return [
        wire.call("List", pb.ListRequest()).messages,
        wire.call("ListThreads", pb.ListThreadsRequest()).messages,
    ]


def test_a_lease_is_of_one_caller_until_it_is_released(wire: Wire) -> None:
    token = token_of(acquire(wire, ttl_ms=60_000))
    held = acquire(wire, holder="another")
    assert (held.code, reason(held)) == (grpc.StatusCode.ABORTED, "LEASE_HELD")
    metadata = reason_of(held.status)[1]
    assert metadata["holder"] == "me"
    assert 0 < int(metadata["held_for_ms"]) <= 60_000
    assert str(token) not in str(held.status)
    assert renew(wire, token).message(pb.RenewLeaseResponse).ttl_ms == 30_000
    assert release(wire, token).code is grpc.StatusCode.OK
    assert release(wire, token).code is grpc.StatusCode.OK, "one that is over is fine"
    assert reason(renew(wire, token)) == "STALE_WRITER"
    assert token_of(acquire(wire, holder="another")) > token


def test_a_repeat_of_a_lost_answer_gets_the_same_lease(wire: Wire) -> None:
    request = pb.AcquireLeaseRequest(operation=operation(), thread_id=THREAD)
    tokens = {token_of(wire.call("AcquireLease", request)) for _ in range(3)}
    assert len(tokens) == 1
    (token,) = tokens
    release(wire, token)
    other = token_of(acquire(wire))
    assert reason(wire.call("AcquireLease", request)) == "LEASE_HELD"
    assert other > token


def test_all_ways_to_write_are_refused_to_others_and_open_to_the_holder(wire: Wire) -> None:
    token = token_of(acquire(wire))
    before = stored(wire)
    for more in ({}, {"lease_token": token - 1}, {"lease_token": token + 1}, {"lease_token": 2**63 - 1}):
        for request in (put(**more), put_writes(**more)):
            assert outcomes(wire, request) == ["STALE_WRITER"]
            assert reason_of(outcome_of("Session", wire.call("Session", session_request(request))))[0] == (
                "STALE_WRITER"
            )
            slices = sliced(request)
            assert (
                reason_of(outcome_of("WriteSliced", wire.call("WriteSliced", *slices)))[0] == "STALE_WRITER"
            )
    assert outcomes(wire, put(expected_parent="")) == ["STALE_WRITER"]
    assert stored(wire) == before
    assert outcomes(wire, put(lease_token=token)) == [""]
    assert outcomes(wire, put_writes(lease_token=token)) == [""]


def sliced(request: pb.WriteRequest) -> list[pb.WriteSlicedRequest]:
    sent = pb.WriteSlicedRequest()
    sent.slice.data = request.SerializeToString()
    sent.slice.total_bytes = len(sent.slice.data)
    return [sent]


def test_of_a_batch_only_what_comes_from_another_writer_is_refused(wire: Wire) -> None:
    token = token_of(acquire(wire))
    batch = pb.WriteRequest()
    for request in (
        put("1"),
        put("2", lease_token=token),
        put_writes("2"),
        put("1", thread="other"),
        put("3", lease_token=token + 7),
        put_writes("2", lease_token=token),
        put("4", lease_token=token),
    ):
        batch.mutations.extend(request.mutations)
    assert outcomes(wire, batch) == ["STALE_WRITER", "", "STALE_WRITER", "", "STALE_WRITER", "", ""]
    found = wire.call("List", pb.ListRequest(thread_id=THREAD)).message(pb.ListResponse).page.checkpoints
    assert [(one.ref.checkpoint_id, len(one.pending_writes)) for one in found] == [("4", 0), ("2", 1)]


def test_a_lease_that_ran_out_and_that_nobody_took_still_writes(stack: Stack, wire: Wire) -> None:
    token = token_of(acquire(wire, "lapsing", ttl_ms=1000))

    def over() -> bool:
        with psycopg.connect(stack.database.admin_url) as connection:
            row = connection.execute(
                "SELECT lease_until < clock_timestamp() FROM tenure.thread_head WHERE lease_token = %s",
                [token],
            ).fetchone()
        return row == (True,)

    wait_until(over, "the lease has run out")
    assert outcomes(wire, put("1", thread="lapsing", lease_token=token)) == [""]
    assert renew(wire, token, "lapsing").code is grpc.StatusCode.OK
    assert reason(acquire(wire, "lapsing")) == "LEASE_HELD"
    release(wire, token, "lapsing")
    assert outcomes(wire, put("2", thread="lapsing", lease_token=token)) == ["STALE_WRITER"]


def test_a_token_without_a_lease_is_refused_and_makes_no_thread(wire: Wire) -> None:
    for request in (put(lease_token=1), put_writes(lease_token=2**63 - 1)):
        assert outcomes(wire, request) == ["STALE_WRITER"]
    assert reason(renew(wire, 1)) == "STALE_WRITER"
    assert release(wire, 1).code is grpc.StatusCode.OK
    assert not wire.call("ListThreads", pb.ListThreadsRequest()).message(pb.ListThreadsResponse).threads


def test_an_expected_parent_is_compared_with_the_latest_of_its_namespace(wire: Wire) -> None:
    assert outcomes(wire, put("1", "0", expected_parent="0")) == ["STALE_WRITER"]
    assert outcomes(wire, put("1", expected_parent="")) == [""]
    assert outcomes(wire, put("1", expected_parent="")) == [""], "a repeat"
    assert outcomes(wire, put("2", expected_parent="")) == ["STALE_WRITER"]
    assert outcomes(wire, put("2", "1", expected_parent="1")) == [""]
    assert outcomes(wire, put("3", "1", expected_parent="1")) == ["STALE_WRITER"]
    chain = pb.WriteRequest()
    for number in range(3, 9):
        parent = str(number - 1)
        chain.mutations.extend(put(str(number), parent, expected_parent=parent).mutations)
    chain.mutations.extend(put("9", "7", expected_parent="7").mutations)
    assert outcomes(wire, chain) == [""] * 6 + ["STALE_WRITER"]


def test_a_slow_clock_does_not_make_a_child_stale(wire: Wire) -> None:
    """What counts is which checkpoint is the latest, not whose id is the greatest."""
    assert outcomes(wire, put("5", expected_parent="")) == [""]
    assert outcomes(wire, put("3", "5", expected_parent="5")) == [""]
    assert outcomes(wire, put("6", "5", expected_parent="5")) == ["STALE_WRITER"]
    assert outcomes(wire, put("4", "3", expected_parent="3")) == [""]


def test_pending_writes_under_way_are_waited_for_before_a_lease_is_given(
    stack: Stack, tenant: TenantHandle, wire: Wire
) -> None:
    """Or else they would be stored after the next writer has read the thread."""
    assert outcomes(wire, put("1")) == [""]
    with psycopg.connect(stack.database.admin_url) as writing:
        # The lock that pending writes take.
        writing.execute(
            "SELECT FROM tenure.thread_head WHERE tenant_id = %s FOR KEY SHARE", [tenant.tenant_id]
        )
        held = acquire(wire, operation=operation(timeout_ms=300))
        assert held.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert token_of(acquire(wire)) > 0


BAD_THREADS = ["", "a\0b", "x" * 513]
BAD_TOKENS = [0, -1, -(2**63)]
BAD_TIMES = [1, 999, 3_600_001, 2**32 - 1]
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    *((method, {"operation": None}, "operation.operation_id") for method in LEASES),
    *((method, {"thread_id": text}, "thread_id") for method in LEASES for text in BAD_THREADS),
    *((method, {"lease_token": token}, "lease_token") for method in LEASES[1:] for token in BAD_TOKENS),
    *((method, {"ttl_ms": ms}, "ttl_ms") for method in LEASES[:2] for ms in BAD_TIMES),
    *(("AcquireLease", {"holder": text}, "holder") for text in ("x" * 129, "\0", "a\nb", "\x1b[2J")),
]


@pytest.mark.parametrize(("method", "wrong", "field"), REFUSED)
def test_a_bad_value_is_refused_by_the_name_of_its_field(
    wire: Wire, method: str, wrong: dict[str, Any], field: str
) -> None:
    token = {} if method == "AcquireLease" else {"lease_token": 1}
    good = {"operation": operation(), "thread_id": THREAD, **token}
    refused = wire.call(method, getattr(pb, f"{method}Request")(**good | wrong))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(refused.status)[1]["field"] == field
    assert not wire.call("ListThreads", pb.ListThreadsRequest()).message(pb.ListThreadsResponse).threads


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        *(({"lease_token": token}, "lease_token") for token in BAD_TOKENS),
        *(({"expected_parent": text}, "expected_parent") for text in ("x" * 513, "\0")),
    ],
)
def test_a_put_with_a_bad_one_is_refused_by_the_name_of_its_field(
    wire: Wire, wrong: dict[str, Any], field: str
) -> None:
    status = outcome_of("Write", wire.call("Write", put(**wrong)))
    assert reason_of(status)[1]["field"] == f"mutations[0].put.{field}"
    if field == "lease_token":
        status = outcome_of("Write", wire.call("Write", put_writes(**wrong)))
        assert reason_of(status)[1]["field"] == "mutations[0].put_writes.lease_token"


@pytest.mark.parametrize("method", LEASES)
def test_leases_of_one_tenant_are_nothing_to_another(stack: Stack, wire: Wire, method: str) -> None:
    token = token_of(acquire(wire))
    with Wire(stack.target, stack.new_tenant().api_key) as stranger:
        foreign = stranger.call(method, request_of(method, THREAD))
        absent = stranger.call(method, request_of(method, f"absent-{os.urandom(4).hex()}"))
        assert (foreign.code, foreign.text) == (absent.code, absent.text)
        assert reason(renew(stranger, token)) == "STALE_WRITER"
        release(stranger, token)
        assert outcomes(stranger, put(lease_token=token)) == ["STALE_WRITER"]
    assert reason(acquire(wire)) == "LEASE_HELD"
    assert outcomes(wire, put(lease_token=token)) == [""]


@pytest.mark.parametrize("method", LEASES)
def test_a_lease_needs_the_right_to_write_the_thread(
    stack: Stack, tenant: TenantHandle, wire: Wire, method: str
) -> None:
    token_of(acquire(wire, "a-1"))
    before = stored(wire)
    reader = stack.new_key(tenant, scopes=("read",))
    for key, expected in (
        (reader, "SCOPE_MISSING"),
        (stack.new_key(tenant, "threads:b-:rw", "threads:a-:r"), "OUTSIDE_RULES"),
        (stack.new_key(tenant, "namespaces:*:rw"), "OUTSIDE_RULES"),
    ):
        with Wire(stack.target, key) as limited:
            for thread in ("a-1", "a-absent"):
                assert reason(limited.call(method, request_of(method, thread))) == expected
    assert stored(wire) == before
    assert METHODS[method].name == method


def test_a_key_limited_to_some_threads_has_leases_on_them(stack: Stack, tenant: TenantHandle) -> None:
    with Wire(stack.target, stack.new_key(tenant, "threads:a-:rw")) as limited:
        token = token_of(acquire(limited, "a-1"))
        assert renew(limited, token, "a-1").code is grpc.StatusCode.OK
        assert release(limited, token, "a-1").code is grpc.StatusCode.OK


def test_threads_made_by_leases_are_counted_and_limited(
    stack: Stack, tenant: TenantHandle, wire: Wire
) -> None:
    async def limit() -> None:
        async with await psycopg.AsyncConnection.connect(stack.database.admin_url) as connection:
            await connection.execute(
                "INSERT INTO tenure.tenant_usage (tenant_id, max_threads) VALUES (%s, 2) "
                "ON CONFLICT (tenant_id) DO UPDATE SET max_threads = 2",
                [tenant.tenant_id],
            )

    run(limit())
    first = token_of(acquire(wire, "1"))
    token_of(acquire(wire, "2"))
    assert reason(acquire(wire, "3")) == "QUOTA_EXCEEDED"
    assert renew(wire, first, "1").code is grpc.StatusCode.OK
    wire.call("DeleteThread", pb.DeleteThreadRequest(operation=operation(), thread_id="1"))
    assert token_of(acquire(wire, "3")) > first
