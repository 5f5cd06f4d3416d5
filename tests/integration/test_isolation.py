"""Two tenants on one server: neither sees, changes or learns anything of the other, through any RPC."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest
import redis
from google.protobuf.message_factory import GetMessageClass
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import server_pb2
from tenure_server.domain import TENANT_SCOPES, Scope, TenantId
from tenure_server.keys import ApiKey

from tests.harness.databases import Database
from tests.harness.processes import PATIENCE
from tests.harness.running import run
from tests.harness.stack import Stack
from tests.integration.checkpoints_support import replicas, wait_until
from tests.integration.tenants_items_support import SCOPES
from tests.integration.tenants_support import (
    CASES,
    GUESSED,
    READS,
    SHARED,
    WRITES,
    Make,
    new_ids,
    reads,
    two_holders,
    writes,
)
from tests.integration.wire_support import (
    LEASES,
    METHODS,
    Answer,
    Wire,
    operation,
    outcome_of,
    reason_of,
)

REVOCATION = 5.0
"""Seconds after which a revoked key is refused by every replica: a promise."""

each_method = pytest.mark.parametrize("method", METHODS)
each_request = pytest.mark.parametrize(
    ("method", "make"),
    [
        pytest.param(method, make, id=f"{method}-{number}")
        for method, makes in CASES.items()
        for number, make in enumerate(makes)
    ],
)


def uuid_of(text: str) -> TenantId:
    """Return a tenant's id."""
    return TenantId(UUID(text))


def test_every_rpc_of_the_protocol_has_a_case() -> None:
    assert CASES.keys() | {*LEASES} == METHODS.keys()


@each_request
def test_foreign_ids_look_exactly_like_absent_ones(stack: Stack, method: str, make: Make) -> None:
    with two_holders(stack) as (a, b):
        foreign = b.wire.call(method, *make(a.own))
        absent = b.wire.call(method, *make(new_ids("absent12345678")))
        assert foreign == absent
        assert a.canary.encode() not in foreign.everything


@each_request
def test_names_that_both_use_lead_each_to_its_own(stack: Stack, method: str, make: Make) -> None:
    with two_holders(stack) as (a, b):
        before = a.everything()
        answer = b.wire.call(method, *make(SHARED))
        assert answer.code is grpc.StatusCode.OK
        assert outcome_of(method, answer).code == 0
        assert a.canary.encode() not in answer.everything
        assert a.everything() == before


@each_request
def test_requests_about_foreign_ids_change_nothing(stack: Stack, method: str, make: Make) -> None:
    with two_holders(stack) as (a, b):
        before = a.everything()
        b.wire.call(method, *make(a.own))
        assert a.everything() == before
        # The same request of the owner shows or changes something: it was no empty request.
        answer = a.wire.call(method, *make(a.own))
        if reads(method, make):
            assert a.canary.encode() in answer.everything
        if writes(method, make):
            assert a.everything() != before


def test_listings_of_everything_hold_what_is_ones_own(stack: Stack) -> None:
    with two_holders(stack) as (a, b):
        for one, other in ((a, b), (b, a)):
            for messages in one.everything():
                assert one.canary.encode() in b"".join(messages)
                assert other.canary.encode() not in b"".join(messages)


def test_chunks_that_both_have_stored_are_each_ones_own(stack: Stack) -> None:
    """The same bytes have the same ids: what one deletes must not be missing from the other."""
    with two_holders(stack) as (a, b):
        assert (
            a.wire.call(
                "DeleteThread", pb.DeleteThreadRequest(operation=operation(), thread_id=SHARED.thread)
            ).code
            is grpc.StatusCode.OK
        )
        (request,) = READS["Read"][1](SHARED)
        kept = b.wire.call("Read", request)
        assert GUESSED.data in kept.everything
        assert b.canary.encode() in kept.everything
        # B's value is no base for A, who has had the same.
        status = outcome_of("Write", a.wire.call("Write", *WRITES["Write"][2](SHARED)))
        assert reason_of(status)[0] == "CHUNKS_MISSING"
        assert outcome_of("Write", b.wire.call("Write", *WRITES["Write"][2](SHARED))).code == 0


def test_page_tokens_of_another_tenant_are_worth_nothing(stack: Stack) -> None:
    with two_holders(stack) as (a, b):
        page = a.wire.call("ListThreads", pb.ListThreadsRequest(page_size=1)).message(pb.ListThreadsResponse)
        assert page.next_page_token
        answer = b.wire.call("ListThreads", pb.ListThreadsRequest(page_token=page.next_page_token))
        found = {thread.thread_id for thread in answer.message(pb.ListThreadsResponse).threads}
        assert found <= {b.own.thread, SHARED.thread}
        assert a.canary.encode() not in answer.everything


@pytest.mark.parametrize("method", ["DeleteThread", "DeleteForRuns", "CopyThread", "PruneThreads"])
def test_operation_ids_of_another_tenant_are_unused(stack: Stack, method: str) -> None:
    with two_holders(stack) as (a, b):
        ours: Any = WRITES[method][0](a.own)[0]
        assert a.wire.call(method, ours).code is grpc.StatusCode.OK
        # Another content under the same id would be refused, and the same content would do nothing.
        theirs: Any = WRITES[method][0](b.own)[0]
        theirs.operation.operation_id = ours.operation.operation_id
        before = b.everything()
        assert b.wire.call(method, theirs).code is grpc.StatusCode.OK
        assert b.everything() != before


def contents_of(client: Any, key: bytes) -> bytes:
    """Return all that a key of Redis holds; what has expired meanwhile holds nothing."""
    kind = client.type(key)
    if kind == b"none":
        return b""
    if kind == b"hash":
        return b"\0".join(itertools.chain.from_iterable(client.hgetall(key).items()))
    if kind == b"zset":
        return b"\0".join(client.zrange(key, 0, -1))
    assert kind == b"string", (key, kind)
    value: bytes | None = client.get(key)
    return value or b""


def test_neither_the_log_nor_the_cache_of_another_tenant_holds_a_canary(stack: Stack) -> None:
    assert stack.redis_url is not None
    with two_holders(stack) as (a, b), redis.Redis.from_url(stack.redis_url) as client:
        for method, makes in CASES.items():
            for make in makes:
                b.wire.call(method, *make(a.own))
                b.wire.call(method, *make(SHARED))
        a.everything()

        def keys_with(canary: str) -> list[bytes]:
            return [
                key for key in client.scan_iter(count=1000) if canary.encode() in contents_of(client, key)
            ]

        scope = f":{{{a.tenant.tenant_id.replace('-', '')}"
        kinds = {f"{kind}{scope}".encode() for kind in ("tn1", "tc1", "te1")}
        size = len(min(kinds))

        def prefixes() -> set[bytes]:
            return {key[:size] for key in keys_with(a.canary)}

        wait_until(lambda: len(prefixes()) >= len(kinds), "a value, a chunk and a result of A are in Redis")
        assert prefixes() == kinds
        assert not any(a.canary.encode() in key for key in client.scan_iter(count=1000))
        log = stack.server.log.read_text()
        for holder in (a, b):
            assert holder.canary not in log
            assert holder.tenant.api_key not in log


# What a key may do.


def needed_scopes(method: str, make: Make) -> tuple[str, ...]:
    """Return the scopes without which a request is refused."""
    if method in SCOPES:
        return SCOPES[method]
    if writes(method, make):
        return ("write",)
    return ("read",) if reads(method, make) else ()


@each_request
def test_a_key_does_only_what_its_scopes_allow(stack: Stack, method: str, make: Make) -> None:
    needed = needed_scopes(method, make)
    for scope in ("read", "write", "admin"):
        key = stack.new_tenant((scope,)).api_key
        with Wire(stack.target, key) as wire:
            status = outcome_of(method, wire.call(method, *make(SHARED)))
        missing = [one for one in needed if one != scope]
        if not missing:
            # Nothing is there yet.
            assert reason_of(status)[0] in {"", "THREAD_NOT_FOUND", "CHUNKS_MISSING"}
        else:
            assert status.code == grpc.StatusCode.PERMISSION_DENIED.value[0]
            # A key with neither does not get as far as the groups of a batch, which are looked at one by one.
            named = "read or write" if method.startswith("Batch") and scope == "admin" else missing[0]
            assert reason_of(status) == ("SCOPE_MISSING", {"scope": named})


def test_a_read_key_has_changed_nothing(stack: Stack) -> None:
    with two_holders(stack) as (a, _):
        tenants = stack.database.tenants()
        key = run(tenants.create_key(uuid_of(a.tenant.tenant_id), frozenset({Scope.READ})))
        before = a.everything()
        with Wire(stack.target, key) as reader:
            for method, makes in WRITES.items():
                for make in makes:
                    status = outcome_of(method, reader.call(method, *make(a.own)))
                    assert status.code == grpc.StatusCode.PERMISSION_DENIED.value[0]
            assert reader.call("List", pb.ListRequest()).messages
        assert a.everything() == before


def refusal(stack: Stack, method: str, header: str | None) -> Answer:
    """Return how a request with such a header is answered."""
    with Wire(stack.target, None) as wire:
        wire.metadata = [("authorization", header)] if header is not None else []
        if method in LEASES:
            return wire.call(method, GetMessageClass(METHODS[method].input_type)())
        return wire.call(method, *CASES[method][0](SHARED))


@each_method
def test_keys_that_are_not_valid_are_refused_all_in_the_same_way(stack: Stack, method: str) -> None:
    with two_holders(stack) as (a, b):
        tenants = stack.database.tenants()
        tenant = uuid_of(a.tenant.tenant_id)
        everything = TENANT_SCOPES
        expired = run(tenants.create_key(tenant, everything, expires_in=0.0))
        revoked = run(tenants.create_key(tenant, everything))
        assert run(tenants.revoke_key(tenant, revoked.split("_")[2]))
        ours, theirs = a.tenant.api_key.split("_"), b.tenant.api_key.split("_")
        forged = {
            "expired": expired,
            "revoked": revoked,
            "A's tenant, B's key": "_".join(["tn", ours[1], theirs[2], theirs[3]]),
            "A's tenant and key id, B's secret": "_".join([*ours[:3], theirs[3]]),
            "B's tenant, A's key": "_".join(["tn", theirs[1], ours[2], ours[3]]),
            "another tenant": ApiKey.generate(TenantId(UUID(int=7))).text(),
            "an unknown key": ApiKey.generate(tenant).text(),
            "cut short": a.tenant.api_key[:-1],
            "longer": a.tenant.api_key + "x",
            "no key": "",
            "not one of ours": "secret",
            "SQL": "tn_' OR true --_x_y",
        }
        answers = {name: refusal(stack, method, f"Bearer {key}") for name, key in forged.items()}
        answers["no header"] = refusal(stack, method, None)
        answers["another scheme"] = refusal(stack, method, f"Basic {a.tenant.api_key}")
        expected = answers["no header"]
        assert expected.code is grpc.StatusCode.UNAUTHENTICATED
        assert reason_of(expected.status)[0] == "UNAUTHENTICATED"
        assert [name for name, answer in answers.items() if answer != expected] == []
        assert refusal(stack, method, f"Bearer {a.tenant.api_key}").code is not expected.code


def test_a_key_ends_when_it_expires_though_it_was_used_before(stack: Stack) -> None:
    tenant = uuid_of(stack.new_tenant().tenant_id)
    key = run(stack.database.tenants().create_key(tenant, TENANT_SCOPES, expires_in=3.0))
    made = time.monotonic()
    with Wire(stack.target, key) as wire:

        def accepted() -> bool:
            return wire.call("GetServerInfo", server_pb2.GetServerInfoRequest()).code is grpc.StatusCode.OK

        assert accepted()
        began = made
        while accepted():
            began = time.monotonic()
        assert began < made + 3.0, "accepted after it had expired"


def test_a_revocation_takes_effect_on_every_replica_in_time(
    database: Database, redis_url: str, open_folder: Path
) -> None:
    with replicas(2, open_folder, database, redis_url) as servers:
        stack = Stack(servers[0], database, redis_url)
        wires = [Wire(server.target, stack.api_key) for server in servers]

        def accepted(wire: Wire) -> bool:
            return wire.call("List", pb.ListRequest()).code is grpc.StatusCode.OK

        assert all(accepted(wire) for wire in wires)
        tenant = uuid_of(stack.default.tenant_id)
        assert run(database.tenants().revoke_key(tenant, stack.api_key.split("_")[2]))
        revoked = time.monotonic()
        # A promise of the service, not of the machine: no call that begins later is accepted.
        for wire in wires:
            with wire:
                began = revoked
                while accepted(wire):
                    assert began < revoked + REVOCATION, "accepted too long after it was revoked"
                    began = time.monotonic()


# Refused before anything is read.

BODY, BODIES = 3 << 20, 16
"""Bytes of a message, and messages that a caller would send."""
CALLS = 24


def test_without_a_key_the_body_is_not_parsed(stack: Stack) -> None:
    garbage = b"\xff" * BODY
    with Wire(stack.target, None) as stranger, Wire(stack.target, stack.api_key) as known:
        assert known.call("Write", garbage).code is not grpc.StatusCode.UNAUTHENTICATED
        assert stranger.call("Write", garbage).code is grpc.StatusCode.UNAUTHENTICATED


def test_without_a_key_the_body_is_not_waited_for(stack: Stack) -> None:
    answered = threading.Event()

    def sent_after_the_answer() -> Iterator[bytes]:
        answered.wait(PATIENCE)
        yield b""

    with Wire(stack.target, None) as stranger:
        for method in METHODS:
            answer = stranger.start(method, sent_after_the_answer())()
            assert answer.code is grpc.StatusCode.UNAUTHENTICATED
        answered.set()


def test_bodies_without_a_key_take_little_memory(database: Database, open_folder: Path) -> None:
    with replicas(1, open_folder, database) as (server,):
        status = Path(f"/proc/{server.pid}/status")
        if not status.exists():
            pytest.skip("needs /proc")

        def peak() -> int:
            (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
            return int(line.split()[1]) * 1024

        with Wire(server.target, None) as stranger:
            before = peak()
            pending = [
                stranger.start("WriteSliced", itertools.repeat(bytes(BODY), BODIES)) for _ in range(CALLS)
            ]
            assert {wait().code for wait in pending} == {grpc.StatusCode.UNAUTHENTICATED}
            assert peak() - before < CALLS * BODY * BODIES / 8
