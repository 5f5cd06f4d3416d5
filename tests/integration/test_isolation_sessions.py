"""Sessions of two tenants on one server: each batch passes the gate by itself, with the key of its stream."""

from __future__ import annotations

import time
from uuid import UUID

import pytest
from tenure_server.domain import TENANT_SCOPES, Scope, TenantId

from tests.harness.running import run
from tests.harness.stack import Stack
from tests.integration.tenants_support import CASES, READS, SHARED, two_holders
from tests.integration.wire_support import Wire, outcome_of_batch, reason_of

REVOCATION = 5.0
"""Seconds after which batches of a session whose key was revoked are refused: a promise."""


def uuid_of(text: str) -> TenantId:
    """Return a tenant's id."""
    return TenantId(UUID(text))


def test_sessions_at_the_same_time_lead_each_to_its_own(stack: Stack) -> None:
    with two_holders(stack) as (a, b), a.wire.session() as ask_a, b.wire.session() as ask_b:
        for make in READS["Read"]:
            for ids in (SHARED, a.own, b.own, SHARED):
                for one, other, ask in ((a, b, ask_a), (b, a, ask_b)):
                    (request,) = make(ids)
                    answer = ask(request)
                    assert outcome_of_batch(answer).code == 0
                    (result,) = answer.read.results
                    assert result.HasField("checkpoint") is (ids is not other.own)
                    text = answer.SerializeToString()
                    assert (one.canary.encode() in text) is (ids is not other.own)
                    assert other.canary.encode() not in text


@pytest.mark.parametrize("scope", ["read", "write", "admin"])
def test_each_batch_of_a_session_needs_its_scope(stack: Stack, scope: str) -> None:
    with two_holders(stack) as (a, _):
        tenants = stack.database.tenants()
        key = run(tenants.create_key(uuid_of(a.tenant.tenant_id), frozenset({Scope(scope)})))
        before = a.everything()
        with Wire(stack.target, key) as wire, wire.session() as ask:
            for needed, method in (
                ("read", "Read"),
                ("write", "Write"),
                ("read", "Read"),
                ("write", "Write"),
            ):
                for make in CASES[method]:
                    (request,) = make(a.own)
                    answer = ask(request)
                    if needed == scope:
                        assert outcome_of_batch(answer).code == 0
                    else:
                        assert answer.WhichOneof("outcome") == "status"
                        assert reason_of(answer.status) == ("SCOPE_MISSING", {"scope": needed})
                        assert a.canary.encode() not in answer.SerializeToString()
        assert (a.everything() == before) is (scope != "write")


def test_a_session_that_a_revoked_key_has_opened_serves_no_more_batches(stack: Stack) -> None:
    with two_holders(stack) as (a, _):
        tenants, tenant = stack.database.tenants(), uuid_of(a.tenant.tenant_id)
        key = run(tenants.create_key(tenant, TENANT_SCOPES))
        with Wire(stack.target, key) as wire, wire.session() as ask:

            def refused(method: str) -> bool:
                answers = [ask(*make(a.own)) for make in CASES[method]]
                reasons = {reason_of(outcome_of_batch(answer))[0] for answer in answers}
                return reasons == {"UNAUTHENTICATED"}

            assert not refused("Read")
            assert run(tenants.revoke_key(tenant, key.split("_")[2]))
            began = revoked = time.monotonic()
            while not refused("Read"):
                assert began < revoked + REVOCATION, "served too long after it was revoked"
                began = time.monotonic()
            before = a.everything()
            assert refused("Write")
            assert a.everything() == before
