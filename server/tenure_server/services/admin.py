"""AdminService: tenants and keys, within what the caller may reach, with a trail of every change."""

from __future__ import annotations

from typing import Any

import grpc
from tenure.v1 import admin_pb2 as pb
from tenure.v1 import admin_pb2_grpc

from tenure_server.administration import Administration
from tenure_server.domain import OPERATORS
from tenure_server.services.administering import reachable, recorded, tenant_of
from tenure_server.services.caller import principal
from tenure_server.wire import admin as wire

Context = grpc.aio.ServicerContext[Any, Any]


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
        with recorded("CreateTenant") as change:
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
        tenant = await self._store.get_tenant(tenant_of(request.tenant_id))
        return pb.GetTenantResponse(tenant=wire.tenant_message(tenant))

    async def SuspendTenant(
        self, request: pb.SuspendTenantRequest, context: Context
    ) -> pb.SuspendTenantResponse:
        with recorded("SuspendTenant") as change:
            change.tenant = wire.tenant_id(request.tenant_id)
            tenant = await self._store.suspend_tenant(change.tenant)
        return pb.SuspendTenantResponse(tenant=wire.tenant_message(tenant))

    async def ResumeTenant(
        self, request: pb.ResumeTenantRequest, context: Context
    ) -> pb.ResumeTenantResponse:
        with recorded("ResumeTenant") as change:
            change.tenant = wire.tenant_id(request.tenant_id)
            tenant = await self._store.resume_tenant(change.tenant)
        return pb.ResumeTenantResponse(tenant=wire.tenant_message(tenant))

    async def DeleteTenant(
        self, request: pb.DeleteTenantRequest, context: Context
    ) -> pb.DeleteTenantResponse:
        with recorded("DeleteTenant") as change:
            change.tenant = wire.tenant_id(request.tenant_id)
            # Names made through the database may hold what new ones may not.
            tenant = await self._store.delete_tenant(change.tenant, request.name)
        return pb.DeleteTenantResponse(tenant=wire.tenant_message(tenant))

    async def CreateKey(self, request: pb.CreateKeyRequest, context: Context) -> pb.CreateKeyResponse:
        with recorded("CreateKey") as change:
            change.tenant = tenant = reachable(request.tenant_id)
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
        tenant, size = reachable(request.tenant_id), wire.page_size(request.page_size)
        found = await self._store.list_keys(tenant, size + 1, wire.keys_after(request.page_token))
        return pb.ListKeysResponse(
            keys=[wire.key_message(key) for key in found[:size]],
            next_page_token=wire.token_after_key(found[size - 1]) if len(found) > size else "",
        )

    async def RotateKey(self, request: pb.RotateKeyRequest, context: Context) -> pb.RotateKeyResponse:
        with recorded("RotateKey") as change:
            change.tenant, change.key_id = reachable(request.tenant_id), wire.key_id(request.key_id)
            overlap = wire.DEFAULT_OVERLAP
            if request.HasField("overlap"):
                overlap = wire.seconds("overlap", request.overlap, wire.MAX_OVERLAP)
            made, replaced = await self._store.rotate_key(change.tenant, change.key_id, overlap)
            change.made = made.key.key_id
        return pb.RotateKeyResponse(
            key=wire.key_message(made.key), api_key=made.text, replaced=wire.key_message(replaced)
        )

    async def ExpireKey(self, request: pb.ExpireKeyRequest, context: Context) -> pb.ExpireKeyResponse:
        with recorded("ExpireKey") as change:
            change.tenant, change.key_id = reachable(request.tenant_id), wire.key_id(request.key_id)
            lifetime = wire.seconds("expires_in", request.expires_in, wire.MAX_LIFETIME)
            key = await self._store.expire_key(change.tenant, change.key_id, lifetime)
        return pb.ExpireKeyResponse(key=wire.key_message(key))

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Context) -> pb.RevokeKeyResponse:
        with recorded("RevokeKey") as change:
            change.tenant, change.key_id = reachable(request.tenant_id), wire.key_id(request.key_id)
            key = await self._store.revoke_key(change.tenant, change.key_id)
        return pb.RevokeKeyResponse(key=wire.key_message(key))
