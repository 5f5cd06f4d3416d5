"""QuotaService: what tenants may use, and what they do use."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import grpc
from tenure.v1 import quotas_pb2 as pb
from tenure.v1 import quotas_pb2_grpc

from tenure_server.limits import Limits
from tenure_server.quotas import Quotas, UsageKind, UsageParts
from tenure_server.services.administering import recorded, tenant_of
from tenure_server.wire import admin
from tenure_server.wire import quotas as wire

Context = grpc.aio.ServicerContext[Any, Any]


class QuotaService(quotas_pb2_grpc.QuotaServiceServicer):
    """See quotas.proto."""

    def __init__(self, store: Quotas, parts: UsageParts, limits: Limits) -> None:
        self._store = store
        self._parts = parts
        self._limits = limits

    async def GetQuota(self, request: pb.GetQuotaRequest, context: Context) -> pb.GetQuotaResponse:
        quota = await self._store.get_quota(tenant_of(request.tenant_id))
        return pb.GetQuotaResponse(quota=wire.quota_message(quota))

    async def SetQuota(self, request: pb.SetQuotaRequest, context: Context) -> pb.SetQuotaResponse:
        with recorded("SetQuota") as change:
            change.tenant = admin.tenant_id(request.tenant_id)
            quota, names = wire.quota(request.quota, request.update_mask.paths)
            change.settings = {name: value for name, value in asdict(quota).items() if name in names}
            found = await self._store.set_quota(change.tenant, quota, names)
        return pb.SetQuotaResponse(quota=wire.quota_message(found))

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        tenant = tenant_of(request.tenant_id)
        return pb.GetUsageResponse(
            usage=wire.usage_message(await self._store.get_usage(tenant)),
            quota=wire.quota_message(await self._store.get_quota(tenant)),
        )

    async def ListUsage(self, request: pb.ListUsageRequest, context: Context) -> pb.ListUsageResponse:
        tenant, by = tenant_of(request.tenant_id), wire.kind(request.by)
        limit = wire.rows(request.limit, by)
        prefix = wire.prefix(request.thread_prefix, self._limits)
        below = wire.namespace(request.namespace, self._limits)
        if by is UsageKind.DAY:
            days = await self._store.list_days(tenant, limit)
            return pb.ListUsageResponse(rows=[wire.row_message(day) for day in days])
        # Raises if there is no such tenant, rather than answering that it has nothing.
        await self._store.get_usage(tenant)
        if by is UsageKind.NAMESPACE:
            rows, rest = await self._parts.namespaces(tenant, below, limit)
        else:
            grouped = by is UsageKind.THREAD_PREFIX
            rows, rest = await self._parts.threads(tenant, prefix, limit, grouped=grouped)
        return pb.ListUsageResponse(rows=[wire.row_message(row) for row in rows], rest=wire.row_message(rest))
