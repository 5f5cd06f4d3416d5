"""Keys made, rotated and ended through AdminService."""

from __future__ import annotations

import time

import psycopg
import pytest
from tenure.v1 import admin_pb2 as pb
from tenure_client import TenureSaver

from tests.harness.processes import PATIENCE
from tests.harness.server import ServerProcess
from tests.harness.stack import Stack
from tests.integration.admin_support import (
    Caller,
    callers,
    key_id_of,
    new_admin,
    wait_until_refused,
    works,
)
from tests.integration.checkpoints_support import config_of, put, value_of


def test_a_new_key_does_what_it_was_made_for(stack: Stack) -> None:
    tenant = new_admin(stack)
    with callers(stack.admin_target, tenant.api_key) as (admin,):
        request = pb.CreateKeyRequest(
            name="checkout",
            scopes=[pb.SCOPE_READ, pb.SCOPE_WRITE],
            rules=["threads:a-:rw"],
            expires_in=3600,
        )
        made = admin.call(request)
        assert made.key.tenant_id == tenant.tenant_id
        assert (made.key.name, list(made.key.rules)) == ("checkout", ["threads:a-:rw"])
        assert made.key.expires_at.seconds - made.key.created_at.seconds == 3600
        with TenureSaver(stack.target, api_key=made.api_key) as saver:
            put(saver, "a-1", 1, "mine")
            assert value_of(saver.get_tuple(config_of("a-1"))) == "mine"
        listed = admin.call(pb.ListKeysRequest())
        assert [key.key_id for key in listed.keys] == [key_id_of(tenant.api_key), made.key.key_id]
        assert made.api_key.rpartition("_")[2] not in str(listed)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": [pb.SCOPE_OPERATOR]}, "scopes"),
        ({"scopes": [pb.SCOPE_READ, 99]}, "scopes"),
        ({"rules": ["threads::rw"]}, "rules"),
        ({"name": "a\x1b[2J"}, "name"),
        ({"name": "n" * 201}, "name"),
        ({"expires_in": 0}, "expires_in"),
        ({"expires_in": float("nan")}, "expires_in"),
        ({"expires_in": 1e300}, "expires_in"),
        ({"tenant_id": "acme"}, "tenant_id"),
    ],
)
def test_a_key_that_cannot_be_made_names_the_field(
    stack: Stack, change: dict[str, object], field: str
) -> None:
    with callers(stack.admin_target, new_admin(stack).api_key) as (admin,):
        refused = admin.refusal(pb.CreateKeyRequest(**{"scopes": [pb.SCOPE_READ], **change}))
        assert refused.reason in {"INVALID_FIELD", "LIMIT_EXCEEDED"}
        assert str(refused).startswith(field)
        assert len(admin.call(pb.ListKeysRequest()).keys) == 1


def test_operators_make_keys_for_operators_and_only_such(operator: Caller) -> None:
    made = operator.call(pb.CreateKeyRequest(scopes=[pb.SCOPE_OPERATOR], name="second"))
    assert made.key.tenant_id == ""
    second = Caller(operator.stub, made.api_key)
    assert second.call(pb.GetPrincipalRequest()).key.name == "second"
    assert not second.call(pb.GetPrincipalRequest()).HasField("tenant")
    for scopes in ([pb.SCOPE_READ], [pb.SCOPE_READ, pb.SCOPE_OPERATOR]):
        assert operator.refusal(pb.CreateKeyRequest(scopes=scopes)).reason == "INVALID_FIELD"
    assert operator.refusal(pb.GetTenantRequest()).reason == "INVALID_FIELD"
    operator.call(pb.RevokeKeyRequest(key_id=made.key.key_id))
    assert second.refusal(pb.GetPrincipalRequest()).reason == "UNAUTHENTICATED"


def test_both_keys_work_during_a_rotation_and_the_new_one_after_it(
    stack: Stack, replica: ServerProcess
) -> None:
    tenant = new_admin(stack)
    with callers(stack.admin_target, tenant.api_key) as (admin,):
        request = pb.CreateKeyRequest(
            name="ci", scopes=[pb.SCOPE_READ, pb.SCOPE_WRITE], rules=["threads:a-:rw"], expires_in=9000
        )
        old = admin.call(request)
        rotated = admin.call(pb.RotateKeyRequest(key_id=old.key.key_id, overlap=6))
        new, replaced = rotated.key, rotated.replaced
        assert (new.name, new.scopes, new.rules) == (old.key.name, old.key.scopes, old.key.rules)
        assert new.expires_at.seconds - new.created_at.seconds == 9000
        assert replaced.key_id == old.key.key_id
        assert replaced.replaced_by == new.key_id
        for target in (stack.target, replica.target):
            assert works(target, old.api_key)
            assert works(target, rotated.api_key)
        again = admin.refusal(pb.RotateKeyRequest(key_id=old.key.key_id))
        assert new.key_id in str(again)
        for target in (stack.target, replica.target):
            wait_until_refused(target, old.api_key)
            assert works(target, rotated.api_key)
        ended = admin.refusal(pb.RotateKeyRequest(key_id=old.key.key_id))
        assert "has ended" in str(ended)
        states = {key.key_id: key.state for key in admin.call(pb.ListKeysRequest()).keys}
        assert states[old.key.key_id] == pb.KEY_STATE_EXPIRED
        assert states[new.key_id] == pb.KEY_STATE_ACTIVE


def test_an_overlap_is_a_day_if_nothing_is_said(stack: Stack) -> None:
    tenant = new_admin(stack)
    with callers(stack.admin_target, tenant.api_key) as (admin,):
        rotated = admin.call(pb.RotateKeyRequest(key_id=key_id_of(tenant.api_key)))
        left = rotated.replaced.expires_at.seconds - rotated.key.created_at.seconds
        assert left == 86_400
        assert not rotated.key.HasField("expires_at")


def test_an_end_only_ever_comes_nearer(stack: Stack) -> None:
    with callers(stack.admin_target, new_admin(stack).api_key) as (admin,):
        key_id = admin.call(pb.CreateKeyRequest(scopes=[pb.SCOPE_READ])).key.key_id
        ends = [
            admin.call(pb.ExpireKeyRequest(key_id=key_id, expires_in=seconds)).key.expires_at.seconds
            for seconds in (1000, 500, 2000)
        ]
        assert ends[1] < ends[0]
        assert ends[2] == ends[1]


def test_the_last_use_of_a_key_is_told(stack: Stack) -> None:
    tenant = new_admin(stack)
    with callers(stack.admin_target, tenant.api_key) as (admin,):
        made = admin.call(pb.CreateKeyRequest(scopes=[pb.SCOPE_READ]))

        def last_used() -> int | None:
            keys = {key.key_id: key for key in admin.call(pb.ListKeysRequest()).keys}
            key = keys[made.key.key_id]
            return key.last_used_at.seconds if key.HasField("last_used_at") else None

        assert last_used() is None
        assert works(stack.target, made.api_key)
        give_up = time.monotonic() + PATIENCE
        while (first := last_used()) is None:
            assert time.monotonic() < give_up
            time.sleep(0.01)
        with psycopg.connect(stack.database.admin_url, autocommit=True) as owner:
            use = "SELECT tenure.key_used_1(%s, %s)"
            owner.execute(use, [tenant.tenant_id, made.key.key_id])
            assert last_used() == first, "within a minute the first one counts"
            owner.execute("UPDATE tenure.api_key SET last_used_at = now() - interval '61 s'")
            owner.execute(use, [tenant.tenant_id, made.key.key_id])
        assert (last_used() or 0) >= first
