"""Every RPC of the admin port: who may not call it is refused, and another tenant is as good as absent.

The RPCs come from the protocol: a new one without a request here makes these tests fail.
"""

from __future__ import annotations

import pkgutil
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any
from uuid import uuid4

import grpc
import psycopg
import pytest
import tenure.v1
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from psycopg import sql
from tenure.v1 import admin_pb2, quotas_pb2, retention_pb2, writers_pb2
from tenure_client import TenureSaver
from tenure_server.storage.postgres.tenant_sweeping import TABLES

from tests.harness.stack import Stack, TenantHandle
from tests.integration.admin_support import Refusal, key_id_of
from tests.integration.checkpoints_support import put
from tests.integration.wire_support import METHODS as DATA_METHODS
from tests.integration.wire_support import Wire, path_of

_DATA_SERVICES = {method.containing_service.full_name for method in DATA_METHODS.values()}
METHODS: dict[str, MethodDescriptor] = {
    method.name: method
    for module in pkgutil.iter_modules(tenure.v1.__path__)
    if module.name.endswith("_pb2")
    for service in import_module(f"tenure.v1.{module.name}").DESCRIPTOR.services_by_name.values()
    if service.full_name not in _DATA_SERVICES
    for method in service.methods
}
"""Every RPC of every service that is not known to belong to the other port, by its name."""

OPERATOR_ONLY = {"CreateTenant", "ListTenants", "SuspendTenant", "ResumeTenant", "DeleteTenant", "SetQuota"}
READS = {"GetPrincipal", "ListTenants", "GetTenant", "ListKeys", "GetQuota", "GetUsage", "ListUsage"} | {
    "ListPolicies",
    "Preview",
    "ListPins",
    "ListWriterPolicies",
}
INTRUDER = f"intruder-{secrets.token_hex(8)}"
"""Name of the tenant that CreateTenant would make."""


@dataclass(frozen=True)
class Victim:
    """A tenant that has something of everything, all of it named after its canary."""

    tenant: TenantHandle
    canary: str = field(default_factory=lambda: f"canary{secrets.token_hex(8)}")

    def requests(self, tenant_id: str, key_id: str | None = None) -> dict[str, Message]:
        """Return a request for each RPC that names what this tenant has, and `tenant_id` as whose it is."""
        of: dict[str, Any] = {"tenant_id": tenant_id}
        key = of | {"key_id": key_id_of(self.tenant.api_key) if key_id is None else key_id}
        scope = retention_pb2.RetentionScope(thread_prefix=self.canary)
        wider = retention_pb2.RetentionScope(thread_prefix=self.canary[:-1])
        pin = retention_pb2.RetentionPin(thread_id=f"{self.canary}-1", reason="again")
        pinned = retention_pb2.RetentionPin(thread_id=f"{self.canary}-1")
        policy = retention_pb2.RetentionPolicy(scope=wider, keep_last=9)
        quota = quotas_pb2.SetQuotaRequest(**of, quota=quotas_pb2.Quota(max_threads=7))
        quota.update_mask.paths.append("max_threads")
        made: list[Message] = [
            admin_pb2.GetPrincipalRequest(),
            admin_pb2.CreateTenantRequest(name=INTRUDER),
            admin_pb2.ListTenantsRequest(),
            admin_pb2.GetTenantRequest(**of),
            admin_pb2.SuspendTenantRequest(**of),
            admin_pb2.ResumeTenantRequest(**of),
            admin_pb2.DeleteTenantRequest(**of, name="test"),
            admin_pb2.CreateKeyRequest(**of, name="intruder", scopes=[admin_pb2.SCOPE_READ]),
            admin_pb2.ListKeysRequest(**of),
            admin_pb2.RotateKeyRequest(**key),
            admin_pb2.ExpireKeyRequest(**key, expires_in=3600.0),
            admin_pb2.RevokeKeyRequest(**key),
            quotas_pb2.GetQuotaRequest(**of),
            quota,
            quotas_pb2.GetUsageRequest(**of),
            quotas_pb2.ListUsageRequest(**of, by=quotas_pb2.USAGE_KIND_THREAD),
            retention_pb2.SetPolicyRequest(**of, policy=policy),
            retention_pb2.ListPoliciesRequest(**of),
            retention_pb2.DeletePolicyRequest(**of, scope=scope),
            retention_pb2.PreviewRequest(**of, policy=policy),
            retention_pb2.PinRequest(**of, pin=pin),
            retention_pb2.UnpinRequest(**of, pin=pinned),
            retention_pb2.ListPinsRequest(**of),
            retention_pb2.HoldRequest(**of, hold=retention_pb2.LegalHold(scope=wider)),
            retention_pb2.ReleaseRequest(**of, scope=scope),
            writers_pb2.CreateWriterPolicyRequest(**of, thread_prefix=self.canary[:-1]),
            writers_pb2.ListWriterPoliciesRequest(**of),
            writers_pb2.DeleteWriterPolicyRequest(**of, thread_prefix=self.canary),
        ]
        return {type(request).__name__.removesuffix("Request"): request for request in made}

    def fill(self, stack: Stack, operator: Asking) -> None:
        """Store a thread, and set all that an admin may set."""
        with TenureSaver(stack.target, api_key=self.tenant.api_key) as saver:
            put(saver, f"{self.canary}-1", 1, self.canary)
        of = {"tenant_id": self.tenant.tenant_id}
        scope = retention_pb2.RetentionScope(thread_prefix=self.canary)
        pin = retention_pb2.RetentionPin(thread_id=f"{self.canary}-1", reason=self.canary)
        for request in (
            retention_pb2.SetPolicyRequest(
                **of, policy=retention_pb2.RetentionPolicy(scope=scope, max_age=1e6)
            ),
            retention_pb2.PinRequest(**of, pin=pin),
            retention_pb2.HoldRequest(**of, hold=retention_pb2.LegalHold(scope=scope, reason=self.canary)),
            writers_pb2.CreateWriterPolicyRequest(**of, thread_prefix=self.canary),
        ):
            operator.call(request)


class Asking:
    """Somebody with a key, or with None, who may call any RPC."""

    def __init__(self, channel: grpc.Channel, api_key: str | None) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {api_key}"),) if api_key is not None else ()

    def call(self, request: Message) -> bytes:
        """Call the RPC that a request belongs to and return all its answers, serialized.

        Raises:
            Refusal: It was refused.
        """
        method = METHODS[type(request).__name__.removesuffix("Request")]
        # On the wire one answer is a stream of one.
        answers: Any = self._channel.unary_stream(path_of(method))(
            request.SerializeToString(), metadata=self._metadata, timeout=30
        )
        try:
            return b"\0".join(answers)
        except grpc.RpcError as error:
            raise Refusal(error) from None

    def refusal(self, request: Message) -> Refusal:
        """Call it and return why it was refused."""
        with pytest.raises(Refusal) as caught:
            self.call(request)
        return caught.value

    def outcome(self, request: Message) -> bytes | tuple[object, ...]:
        """Call it and return its answers, or what the refusal tells."""
        try:
            return self.call(request)
        except Refusal as refused:
            return refused.told


@contextmanager
def asking(stack: Stack, *keys: str | None) -> Iterator[list[Asking]]:
    """Give somebody for each key, all on one connection to the admin port."""
    with grpc.insecure_channel(stack.admin_target) as channel:
        yield [Asking(channel, key) for key in keys]


@pytest.fixture
def operator(stack: Stack) -> Iterator[Asking]:
    with asking(stack, stack.new_operator()) as (caller,):
        yield caller


@pytest.fixture(scope="module")
def victim(stack: Stack) -> Victim:
    """One that nothing here may change."""
    made = Victim(stack.new_tenant())
    with asking(stack, stack.new_operator()) as (operator,):
        made.fill(stack, operator)
    return made


@contextmanager
def unchanged(stack: Stack, victim: Victim) -> Iterator[None]:
    """Expect that a block leaves every row of a tenant as it is."""
    before = rows_of(stack, victim)
    yield
    assert rows_of(stack, victim) == before


def rows_of(stack: Stack, victim: Victim) -> dict[str, list[tuple[Any, ...]]]:
    """Return all that the database has of a tenant, and the tenants that nobody may make."""
    with psycopg.connect(stack.database.admin_url, autocommit=True) as connection:
        # The sweeper notes usage by day, and the gate when a key was used.
        query = (
            "SELECT to_jsonb(t) - 'last_used_at' FROM tenure.{} AS t WHERE tenant_id = %s ORDER BY t::text"
        )
        found = {
            table: connection.execute(
                sql.SQL(query).format(sql.Identifier(table)), [victim.tenant.tenant_id]
            ).fetchall()
            for table in TABLES
            if table != "usage_day"
        }
        intruders = connection.execute("SELECT tenant_id FROM tenure.tenant WHERE name = %s", [INTRUDER])
        return found | {"intruders": intruders.fetchall()}


def test_every_rpc_has_a_request_here() -> None:
    victim = Victim(TenantHandle(str(uuid4()), "tn_tenant_key_secret"))
    assert victim.requests("").keys() == METHODS.keys()
    assert METHODS.keys() >= OPERATOR_ONLY | READS


@pytest.mark.parametrize("method", METHODS)
def test_each_request_does_something_for_who_may(stack: Stack, operator: Asking, method: str) -> None:
    """Without which a refusal would prove nothing."""
    victim = Victim(stack.new_tenant())
    victim.fill(stack, operator)
    requests = victim.requests(victim.tenant.tenant_id)
    if method == "ResumeTenant":
        operator.call(requests["SuspendTenant"])
    if method == "DeleteTenant":
        operator.call(requests["Release"])
    with asking(stack, stack.new_key(victim.tenant, scopes=("admin",))) as (admin,):
        before = rows_of(stack, victim)
        (operator if method in OPERATOR_ONLY else admin).call(requests[method])
    assert (rows_of(stack, victim) == before) == (method in READS)


@pytest.mark.parametrize("method", METHODS)
def test_agents_readers_and_strangers_are_refused(stack: Stack, victim: Victim, method: str) -> None:
    tenant = victim.tenant
    lacking = [
        stack.new_key(tenant, scopes=("read", "write")),
        stack.new_key(tenant, scopes=("read",)),
        stack.new_key(tenant, "threads:*:rw", "namespaces:*:rw"),
        stack.new_key(tenant, scopes=()),
    ]
    unknown = [None, "", "nonsense", f"{tenant.api_key[:-4]}aaaa"]
    own, named = (victim.requests(tenant_id)[method] for tenant_id in ("", tenant.tenant_id))
    with asking(stack, *lacking, *unknown) as callers, unchanged(stack, victim):
        for number, caller in enumerate(callers):
            reason, code = ("SCOPE_MISSING", grpc.StatusCode.PERMISSION_DENIED)
            if number >= len(lacking):
                reason, code = ("UNAUTHENTICATED", grpc.StatusCode.UNAUTHENTICATED)
            for request in (own, named):
                refused = caller.refusal(request)
                assert (refused.reason, refused.told[0]) == (reason, code)


@pytest.mark.parametrize("method", METHODS)
def test_another_tenant_is_to_an_admin_what_an_absent_one_is(
    stack: Stack, victim: Victim, method: str
) -> None:
    """Also where the admin may read and write in its own."""
    keys = [stack.new_tenant(scopes).api_key for scopes in (("admin",), ("read", "write", "admin"))]
    foreign, absent = (victim.requests(of)[method] for of in (victim.tenant.tenant_id, str(uuid4())))
    with asking(stack, *keys) as callers, unchanged(stack, victim):
        for caller in callers:
            if method == "GetPrincipal":
                assert victim.tenant.tenant_id.encode() not in caller.call(foreign)
                continue
            refused = caller.refusal(foreign)
            assert refused.told == caller.refusal(absent).told
            if method in OPERATOR_ONLY:
                assert (refused.reason, refused.told[0]) == (
                    "SCOPE_MISSING",
                    grpc.StatusCode.PERMISSION_DENIED,
                )
            else:
                assert (refused.reason, refused.told[0]) == (
                    "TENANT_NOT_FOUND",
                    grpc.StatusCode.NOT_FOUND,
                )


@pytest.mark.parametrize("method", METHODS)
def test_what_another_tenant_has_does_not_exist_in_ones_own(
    stack: Stack, victim: Victim, method: str
) -> None:
    admin_key = stack.new_tenant(("admin",)).api_key
    theirs, nobodys = (victim.requests("", key_id)[method] for key_id in (None, "nosuchkey000"))
    with asking(stack, admin_key) as (admin,), unchanged(stack, victim):
        outcome = admin.outcome(theirs)
        if "key_id" in theirs.DESCRIPTOR.fields_by_name:
            assert outcome == admin.refusal(nobodys).told
        if method in {"Pin", "Unpin", "DeletePolicy", "Release", "DeleteWriterPolicy"}:
            assert not isinstance(outcome, bytes), "there is none in this tenant"
        if method in READS and isinstance(outcome, bytes):
            assert victim.canary.encode() not in outcome
            assert victim.tenant.tenant_id.encode() not in outcome


@pytest.mark.parametrize("method", DATA_METHODS)
def test_operators_are_nobody_where_payloads_are_served(stack: Stack, method: str) -> None:
    """Nor is what the port of payloads serves to be had on the other one."""
    key = stack.new_operator()
    with Wire(stack.target, key) as payloads, Wire(stack.admin_target, key) as administration:
        assert payloads.call(method, b"").code is grpc.StatusCode.UNAUTHENTICATED
        assert administration.call(method, b"").code is grpc.StatusCode.UNIMPLEMENTED
    with Wire(stack.target, stack.api_key) as tenants:
        assert tenants.call(method, b"").code not in {
            grpc.StatusCode.UNAUTHENTICATED,
            grpc.StatusCode.UNIMPLEMENTED,
        }
