"""RetentionService: policies, pins and legal holds, and what has expired."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from tenure.v1 import retention_pb2 as pb
from tenure.v1 import retention_pb2_grpc

from tenure_server.limits import Limits
from tenure_server.retention import Items, Policy, Retention, Scope, Threads
from tenure_server.services.administering import recorded, tenant_of
from tenure_server.wire import retention as wire
from tenure_server.wire.admin import page_size

Context = grpc.aio.ServicerContext[Any, Any]


class RetentionService(retention_pb2_grpc.RetentionServiceServicer):
    """See retention.proto."""

    def __init__(self, store: Retention, limits: Limits) -> None:
        self._store = store
        self._requests = wire.Requests(limits)

    async def SetPolicy(self, request: pb.SetPolicyRequest, context: Context) -> pb.SetPolicyResponse:
        with recorded("SetPolicy") as change:
            change.tenant = tenant_of(request.tenant_id)
            policy = self._requests.policy(request.policy)
            change.settings = _told(policy)
            made = await self._store.set_policy(change.tenant, policy)
        return pb.SetPolicyResponse(policy=wire.policy_message(made))

    async def ListPolicies(
        self, request: pb.ListPoliciesRequest, context: Context
    ) -> pb.ListPoliciesResponse:
        policies, holds = await self._store.list_policies(tenant_of(request.tenant_id))
        return pb.ListPoliciesResponse(
            policies=[wire.policy_message(policy) for policy in policies],
            holds=[wire.hold_message(hold) for hold in holds],
        )

    async def DeletePolicy(
        self, request: pb.DeletePolicyRequest, context: Context
    ) -> pb.DeletePolicyResponse:
        with recorded("DeletePolicy") as change:
            change.tenant = tenant_of(request.tenant_id)
            scope = self._requests.scope("scope", request.scope)
            change.settings = {"of": _kind(scope)}
            await self._store.delete_policy(change.tenant, scope)
        return pb.DeletePolicyResponse()

    async def Preview(
        self, request: pb.PreviewRequest, context: Context
    ) -> AsyncIterator[pb.PreviewResponse]:
        tenant = tenant_of(request.tenant_id)
        proposed = self._requests.policy(request.policy) if request.HasField("policy") else None
        # A caller who leaves must not leave a transaction behind.
        async with aclosing(self._store.preview(tenant, proposed)) as telling:
            async for found in telling:
                yield wire.preview_message(found)

    async def Pin(self, request: pb.PinRequest, context: Context) -> pb.PinResponse:
        with recorded("Pin") as change:
            change.tenant = tenant_of(request.tenant_id)
            made = await self._store.pin(change.tenant, self._requests.pin(request.pin))
        return pb.PinResponse(pin=wire.pin_message(made))

    async def Unpin(self, request: pb.UnpinRequest, context: Context) -> pb.UnpinResponse:
        with recorded("Unpin") as change:
            change.tenant = tenant_of(request.tenant_id)
            await self._store.unpin(change.tenant, self._requests.pin(request.pin))
        return pb.UnpinResponse()

    async def ListPins(self, request: pb.ListPinsRequest, context: Context) -> pb.ListPinsResponse:
        tenant, size = tenant_of(request.tenant_id), page_size(request.page_size)
        found = await self._store.list_pins(tenant, size + 1, wire.pins_after(request.page_token))
        return pb.ListPinsResponse(
            pins=[wire.pin_message(pin) for pin in found[:size]],
            next_page_token=wire.token_after(found[size - 1]) if len(found) > size else "",
        )

    async def Hold(self, request: pb.HoldRequest, context: Context) -> pb.HoldResponse:
        with recorded("Hold") as change:
            change.tenant = tenant_of(request.tenant_id)
            hold = self._requests.hold(request.hold)
            change.settings = {"of": _kind(hold.scope)}
            made = await self._store.hold(change.tenant, hold)
        return pb.HoldResponse(hold=wire.hold_message(made))

    async def Release(self, request: pb.ReleaseRequest, context: Context) -> pb.ReleaseResponse:
        with recorded("Release") as change:
            change.tenant = tenant_of(request.tenant_id)
            scope = self._requests.hold_scope(request.scope if request.HasField("scope") else None)
            change.settings = {"of": _kind(scope)}
            await self._store.release(change.tenant, scope)
        return pb.ReleaseResponse()


def _told(policy: Policy) -> dict[str, object]:
    """Return what the trail may hold: no prefix, which may be somebody's name."""
    return {
        "of": _kind(policy.scope),
        "max_age": policy.max_age,
        "max_idle": policy.max_idle,
        "keep_last": policy.keep_last,
        "item_ttl": policy.item_ttl,
        "max_bytes": policy.max_bytes,
        "floor": policy.floor,
    }


def _kind(scope: Scope | None) -> str:
    if isinstance(scope, Threads):
        return "threads"
    return "items" if isinstance(scope, Items) else "tenant"
