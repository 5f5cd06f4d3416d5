"""AdminService on its own port: who may do what, and what that does on every replica."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tenure.v1 import admin_pb2 as pb
from tenure.v1 import server_pb2, server_pb2_grpc
from tenure_client import TenureSaver
from tenure_server.domain import Role, TenantId
from tenure_server.storage.postgres.sweeper import Sweeper
from tenure_server.telemetry import tenant_hash

from tests.harness.running import run
from tests.harness.server import ServerProcess
from tests.harness.stack import Stack, TenantHandle
from tests.integration.admin_support import (
    ADMIN_ENV,
    METHODS,
    OF_A_KEY,
    OPERATOR_ONLY,
    Caller,
    callers,
    key_id_of,
    new_admin,
    request_of,
    wait_until_refused,
    works,
)
from tests.integration.checkpoints_support import config_of, put, value_of

ROLES = {
    "reader": Role.READER.scopes,
    "agent": Role.AGENT.scopes,
    "admin": Role.ADMIN.scopes,
    "no scope": frozenset(),
    "operator": Role.OPERATOR.scopes,
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("method", METHODS)
def test_each_role_may_call_what_is_meant_for_it_and_nothing_else(
    stack: Stack, method: str, role: str
) -> None:
    tenant = stack.new_tenant()
    scopes = tuple(scope.value for scope in ROLES[role])
    key = stack.new_operator() if role == "operator" else stack.new_key(tenant, scopes=scopes)
    own = "" if role == "operator" and method in {"CreateTenant", "ListTenants"} else tenant.tenant_id
    allowed = role == "operator" or (role == "admin" and method not in OPERATOR_ONLY)
    with callers(stack.admin_target, key) as (caller,):
        request = request_of(method, own, key_id_of(tenant.api_key))
        if allowed:
            caller.call(request)
        else:
            assert caller.refusal(request).reason == "SCOPE_MISSING"
    if not allowed:
        assert works(stack.target, tenant.api_key)


@pytest.mark.parametrize("method", METHODS)
def test_a_limited_admin_could_make_an_unlimited_key_and_so_may_do_nothing(stack: Stack, method: str) -> None:
    tenant = stack.new_tenant()
    key = stack.new_key(tenant, "threads:*:rw", "namespaces:*:rw", scopes=("read", "write", "admin"))
    with callers(stack.admin_target, key) as (caller,):
        refused = caller.refusal(request_of(method, "", key_id_of(tenant.api_key)))
    assert refused.reason == ("SCOPE_MISSING" if method in OPERATOR_ONLY else "OUTSIDE_RULES")


@pytest.mark.parametrize("method", sorted(set(METHODS) - OPERATOR_ONLY - {"GetPrincipal"}))
def test_another_tenant_is_to_an_admin_what_an_absent_one_is(
    stack: Stack, operator: Caller, method: str
) -> None:
    mine, other = new_admin(stack), new_admin(stack)
    target = key_id_of(other.api_key)
    with callers(stack.admin_target, mine.api_key) as (admin,):
        foreign = admin.refusal(request_of(method, other.tenant_id, target))
        absent = admin.refusal(request_of(method, str(uuid4()), target))
        nil = admin.refusal(request_of(method, str(UUID(int=0)), target))
        assert foreign.told == absent.told == nil.told
        assert foreign.reason == "TENANT_NOT_FOUND"
        truly = operator.refusal(request_of(method, str(uuid4()), target))
        assert truly.told == foreign.told
        if method in OF_A_KEY:
            foreign_key = admin.refusal(request_of(method, "", target))
            absent_key = admin.refusal(request_of(method, "", "nosuchkey000"))
            assert foreign_key.told == absent_key.told
            assert foreign_key.reason == "KEY_NOT_FOUND"
    assert works(stack.target, other.api_key)


def test_operators_do_not_exist_where_payloads_are_served(stack: Stack) -> None:
    key = stack.new_operator()
    with grpc.insecure_channel(stack.target) as channel, pytest.raises(grpc.RpcError) as caught:
        server_pb2_grpc.ServerServiceStub(channel).GetServerInfo(
            server_pb2.GetServerInfoRequest(), metadata=(("authorization", f"Bearer {key}"),)
        )
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("port", ["target", "admin_target"])
def test_each_port_serves_its_own_and_health_alone(stack: Stack, port: str) -> None:
    with grpc.insecure_channel(getattr(stack, port)) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "liveness"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        foreign = "ServerService/GetServerInfo" if port == "admin_target" else "AdminService/GetPrincipal"
        for method in (f"/tenure.v1.{foreign}", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(method)(b"", metadata=(("authorization", f"Bearer {stack.api_key}"),))
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def _revoke(operator: Caller, tenant: TenantHandle) -> None:
    operator.call(pb.RevokeKeyRequest(tenant_id=tenant.tenant_id, key_id=key_id_of(tenant.api_key)))


def _expire(operator: Caller, tenant: TenantHandle) -> None:
    operator.call(
        pb.ExpireKeyRequest(tenant_id=tenant.tenant_id, key_id=key_id_of(tenant.api_key), expires_in=0)
    )


def _suspend(operator: Caller, tenant: TenantHandle) -> None:
    operator.call(pb.SuspendTenantRequest(tenant_id=tenant.tenant_id))


def _delete(operator: Caller, tenant: TenantHandle) -> None:
    operator.call(pb.DeleteTenantRequest(tenant_id=tenant.tenant_id, name="test"))


@pytest.mark.parametrize("stop", [_revoke, _expire, _suspend, _delete])
def test_a_key_that_is_stopped_is_refused_by_every_replica_within_five_seconds(
    stack: Stack, replica: ServerProcess, operator: Caller, stop: Callable[[Caller, TenantHandle], None]
) -> None:
    tenant = stack.new_tenant(("read", "write", "admin"))
    for target in (stack.target, replica.target):
        assert works(target, tenant.api_key)
    stop(operator, tenant)
    with callers(stack.admin_target, tenant.api_key) as (admin,):
        assert admin.refusal(pb.GetPrincipalRequest()).reason == "UNAUTHENTICATED", "at once"
    for target in (stack.target, replica.target):
        assert wait_until_refused(target, tenant.api_key) <= 5.0


def test_a_resumed_tenant_has_its_keys_and_data_again(stack: Stack, operator: Caller) -> None:
    tenant = stack.new_tenant()
    with TenureSaver(stack.target, api_key=tenant.api_key) as saver:
        put(saver, "t", 1, "kept")
    suspended = operator.call(pb.SuspendTenantRequest(tenant_id=tenant.tenant_id)).tenant
    assert suspended.state == pb.TENANT_STATE_SUSPENDED
    wait_until_refused(stack.target, tenant.api_key)
    assert operator.call(pb.ResumeTenantRequest(tenant_id=tenant.tenant_id)).tenant.state == (
        pb.TENANT_STATE_ACTIVE
    )
    with TenureSaver(stack.target, api_key=tenant.api_key) as saver:
        assert value_of(saver.get_tuple(config_of("t"))) == "kept"


def test_a_tenant_is_deleted_only_by_its_name_and_never_comes_back(stack: Stack, operator: Caller) -> None:
    tenant = stack.new_tenant()
    wrong = operator.refusal(pb.DeleteTenantRequest(tenant_id=tenant.tenant_id, name="Test"))
    assert wrong.reason == "INVALID_FIELD"
    assert works(stack.target, tenant.api_key)
    for _ in range(2):
        _delete(operator, tenant)
    for method in ("SuspendTenant", "ResumeTenant", "CreateKey"):
        assert operator.refusal(request_of(method, tenant.tenant_id, "")).reason == "TENANT_NOT_FOUND"
    shown = operator.call(pb.GetTenantRequest(tenant_id=tenant.tenant_id)).tenant
    assert shown.state == pb.TENANT_STATE_DELETING

    run(Sweeper(stack.database.ops_url, grace=0).run_once())
    for method in ("GetTenant", "DeleteTenant", "ListKeys"):
        assert operator.refusal(request_of(method, tenant.tenant_id, "")).reason == "TENANT_NOT_FOUND"


def test_lists_come_in_pages_that_hold_each_entry_once(stack: Stack, operator: Caller) -> None:
    tenant = new_admin(stack)
    with callers(stack.admin_target, tenant.api_key) as (admin,):
        made = [admin.call(pb.CreateKeyRequest(scopes=[pb.SCOPE_READ])).key.key_id for _ in range(4)]
        found, token, pages = [], "", 0
        while True:
            page = admin.call(pb.ListKeysRequest(page_size=2, page_token=token))
            found += [key.key_id for key in page.keys]
            token, pages = page.next_page_token, pages + 1
            if not token:
                break
        assert (found, pages) == ([key_id_of(tenant.api_key), *made], 3)
        for bad in ("x", "bm9uc2Vuc2U=", "WzEsMl0="):
            assert admin.refusal(pb.ListKeysRequest(page_token=bad)).reason == "INVALID_FIELD"
    names = [f"page-{uuid4()}" for _ in range(3)]
    for name in names:
        operator.call(pb.CreateTenantRequest(name=name))
    seen, token = [], ""
    while True:
        page = operator.call(pb.ListTenantsRequest(page_size=2, page_token=token))
        seen += [tenant.name for tenant in page.tenants]
        token = page.next_page_token
        if not token:
            break
    assert seen == sorted(seen)
    assert [name for name in seen if name.startswith("page-")] == sorted(names)
    assert "operators" not in seen


def test_every_change_leaves_a_line_without_secrets(open_folder: Path, stack: Stack) -> None:
    server = ServerProcess(open_folder, stack.database, env={**ADMIN_ENV, "TENURE_LOG_LEVEL": "ERROR"})
    tenant, key = new_admin(stack), stack.new_operator()
    try:
        target = server.start().admin_target
        assert target is not None
        with callers(target, key, tenant.api_key) as (operator, admin):
            made = admin.call(pb.CreateKeyRequest(scopes=[pb.SCOPE_READ], name="secret name"))
            rotated = admin.call(pb.RotateKeyRequest(key_id=made.key.key_id))
            admin.refusal(pb.RevokeKeyRequest(tenant_id=stack.new_tenant().tenant_id, key_id="x"))
            operator.call(pb.SuspendTenantRequest(tenant_id=tenant.tenant_id))
    finally:
        server.close()
    log = server.log.read_text()
    lines = [json.loads(line.partition("tenure.audit: ")[2]) for line in log.splitlines() if "audit" in line]
    hashed = tenant_hash(TenantId(UUID(tenant.tenant_id)))
    own = {"by": key_id_of(tenant.api_key), "by_tenant": hashed}
    ours = {"by": key_id_of(key), "by_tenant": "operators"}
    first, second = made.key.key_id, rotated.key.key_id
    assert lines == [
        {"rpc": "CreateKey", "outcome": "OK", **own, "tenant": hashed, "key": "", "made": first},
        {"rpc": "RotateKey", "outcome": "OK", **own, "tenant": hashed, "key": first, "made": second},
        {"rpc": "RevokeKey", "outcome": "TENANT_NOT_FOUND", **own, "tenant": "", "key": "", "made": ""},
        {"rpc": "SuspendTenant", "outcome": "OK", **ours, "tenant": hashed, "key": "", "made": ""},
    ]
    for secret in (key, tenant.api_key, made.api_key, rotated.api_key):
        assert secret.rpartition("_")[2] not in log
    assert tenant.tenant_id not in log
    assert "secret name" not in log


def test_with_workers_one_of_them_administers(open_folder: Path, stack: Stack) -> None:
    server = ServerProcess(open_folder, stack.database, env={**ADMIN_ENV, "TENURE_WORKERS": "2"})
    try:
        target = server.start().admin_target
        assert target is not None
        with callers(target, stack.new_operator()) as (operator,):
            for _ in range(4):
                operator.call(pb.GetPrincipalRequest())
    finally:
        assert server.stop() == 0
