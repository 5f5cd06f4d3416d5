"""AdminService: tenants and keys, within what the caller may reach, with a trail of every change."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from tenure.v1 import admin_pb2 as pb
from tenure.v1 import admin_pb2_grpc

from tenure_server import errors, telemetry
from tenure_server.administration import Administration
from tenure_server.domain import OPERATORS, Scope, TenantId
from tenure_server.services.caller import principal
from tenure_server.wire import admin as wire

Context = grpc.aio.ServicerContext[Any, Any]

_trail = logging.getLogger("tenure.audit")
# Whatever the level of other lines: a trail with gaps proves nothing.
_trail.setLevel(logging.INFO)


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """See admin.proto."""

    def __init__(self, store: Administration) -> None:
        self._store = store

    async def GetPrincipal(
        self, request: pb.GetPrincipalRequest, context: Context
    ) -> pb.GetPrincipalResponse:
        caller = principal.get()
        key = await self._store.get_key(caller.tenant, caller.key_id)
        response = pb.GetPrincipalResponse(key=wire.key_message(key))
        if caller.tenant != OPERATORS:
            response.tenant.CopyFrom(wire.tenant_message(await self._store.get_tenant(caller.tenant)))
        return response

    async def CreateTenant(
        self, request: pb.CreateTenantRequest, context: Context
    ) -> pb.CreateTenantResponse:
        with _change("CreateTenant") as change:
            tenant = await self._store.create_tenant(wire.name(request.name))
            change.tenant = tenant.tenant_id
        return pb.CreateTenantResponse(tenant=wire.tenant_message(tenant))

    async def ListTenants(self, request: pb.ListTenantsRequest, context: Context) -> pb.ListTenantsResponse:
        size = wire.page_size(request.page_size)
        # One more tells whether there is a next page.
        found = await self._store.list_tenants(size + 1, wire.tenants_after(request.page_token))
        return pb.ListTenantsResponse(
            tenants=[wire.tenant_message(tenant) for tenant in found[:size]],
            next_page_token=wire.token_after_tenant(found[size - 1]) if len(found) > size else "",
        )

    async def GetTenant(self, request: pb.GetTenantRequest, context: Context) -> pb.GetTenantResponse:
        tenant = await self._store.get_tenant(_tenant_of(request.tenant_id))
        return pb.GetTenantResponse(tenant=wire.tenant_message(tenant))

    async def SuspendTenant(
        self, request: pb.SuspendTenantRequest, context: Context
    ) -> pb.SuspendTenantResponse:
        with _change("SuspendTenant") as change:
            change.tenant = wire.tenant_id(request.tenant_id)
            tenant = await self._store.suspend_tenant(change.tenant)
        return pb.SuspendTenantResponse(tenant=wire.tenant_message(tenant))

    async def ResumeTenant(
        self, request: pb.ResumeTenantRequest, context: Context
    ) -> pb.ResumeTenantResponse:
        with _change("ResumeTenant") as change:
            change.tenant = wire.tenant_id(request.tenant_id)
            tenant = await self._store.resume_tenant(change.tenant)
        return pb.ResumeTenantResponse(tenant=wire.tenant_message(tenant))

    async def DeleteTenant(
        self, request: pb.DeleteTenantRequest, context: Context
    ) -> pb.DeleteTenantResponse:
        with _change("DeleteTenant") as change:
            change.tenant = wire.tenant_id(request.tenant_id)
            # Names made through the database may hold what new ones may not.
            tenant = await self._store.delete_tenant(change.tenant, request.name)
        return pb.DeleteTenantResponse(tenant=wire.tenant_message(tenant))

    async def CreateKey(self, request: pb.CreateKeyRequest, context: Context) -> pb.CreateKeyResponse:
        with _change("CreateKey") as change:
            change.tenant = tenant = _owner_of_keys(request.tenant_id)
            lifetime = None
            if request.HasField("expires_in"):
                lifetime = wire.seconds("expires_in", request.expires_in, wire.MAX_LIFETIME, zero=False)
            made = await self._store.create_key(
                tenant,
                wire.scopes(tenant, request.scopes),
                name=wire.name(request.name, empty=True),
                rules=wire.rules(tenant, request.rules),
                expires_in=lifetime,
            )
            change.made = made.key.key_id
        return pb.CreateKeyResponse(key=wire.key_message(made.key), api_key=made.text)

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:
        tenant, size = _owner_of_keys(request.tenant_id), wire.page_size(request.page_size)
        found = await self._store.list_keys(tenant, size + 1, wire.keys_after(request.page_token))
        return pb.ListKeysResponse(
            keys=[wire.key_message(key) for key in found[:size]],
            next_page_token=wire.token_after_key(found[size - 1]) if len(found) > size else "",
        )

    async def RotateKey(self, request: pb.RotateKeyRequest, context: Context) -> pb.RotateKeyResponse:
        with _change("RotateKey") as change:
            change.tenant, change.key_id = _owner_of_keys(request.tenant_id), wire.key_id(request.key_id)
            overlap = wire.DEFAULT_OVERLAP
            if request.HasField("overlap"):
                overlap = wire.seconds("overlap", request.overlap, wire.MAX_OVERLAP)
            made, replaced = await self._store.rotate_key(change.tenant, change.key_id, overlap)
            change.made = made.key.key_id
        return pb.RotateKeyResponse(
            key=wire.key_message(made.key), api_key=made.text, replaced=wire.key_message(replaced)
        )

    async def ExpireKey(self, request: pb.ExpireKeyRequest, context: Context) -> pb.ExpireKeyResponse:
        with _change("ExpireKey") as change:
            change.tenant, change.key_id = _owner_of_keys(request.tenant_id), wire.key_id(request.key_id)
            lifetime = wire.seconds("expires_in", request.expires_in, wire.MAX_LIFETIME)
            key = await self._store.expire_key(change.tenant, change.key_id, lifetime)
        return pb.ExpireKeyResponse(key=wire.key_message(key))

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Context) -> pb.RevokeKeyResponse:
        with _change("RevokeKey") as change:
            change.tenant, change.key_id = _owner_of_keys(request.tenant_id), wire.key_id(request.key_id)
            key = await self._store.revoke_key(change.tenant, change.key_id)
        return pb.RevokeKeyResponse(key=wire.key_message(key))


def _owner_of_keys(tenant_id: str) -> TenantId:
    """Return whose keys a request is about: the caller's, or those of a tenant that the caller may name.

    Raises:
        TenantNotFound: An admin names another tenant; whether there is one is not looked at.
    """
    caller = principal.get()
    if not tenant_id:
        return caller.tenant
    tenant = wire.tenant_id(tenant_id)
    if tenant != caller.tenant and Scope.OPERATOR not in caller.scopes:
        raise errors.TenantNotFound
    return tenant


def _tenant_of(tenant_id: str) -> TenantId:
    """Return which tenant a request is about; an operator has none of its own."""
    tenant = _owner_of_keys(tenant_id)
    if tenant == OPERATORS:
        raise errors.InvalidField("tenant_id", "must not be empty, since an operator belongs to no tenant")
    return tenant


@dataclass
class _Change:
    """What the trail tells of a change.

    Attributes:
        tenant: Whom it is about, None as long as that is not known.
        key_id: The key that it is about.
        made: The key that it made.
    """

    tenant: TenantId | None = None
    key_id: str = ""
    made: str = ""


@contextmanager
def _change(rpc: str) -> Iterator[_Change]:
    """Log and count a change that a block makes, or fails to make."""
    change, outcome = _Change(), "INTERNAL"
    try:
        yield change
        outcome = "OK"
    except errors.TenureError as error:
        outcome = error.reason
        raise
    finally:
        caller = principal.get()
        telemetry.admin_changes.add(1, {"rpc": rpc, "outcome": outcome})
        _trail.info(
            "%s",
            json.dumps(
                {
                    "rpc": rpc,
                    "outcome": outcome,
                    "by": caller.key_id,
                    "by_tenant": _shown(caller.tenant),
                    "tenant": _shown(change.tenant),
                    "key": change.key_id,
                    "made": change.made,
                }
            ),
        )


def _shown(tenant: TenantId | None) -> str:
    if tenant is None:
        return ""
    return "operators" if tenant == OPERATORS else telemetry.tenant_hash(tenant)
