"""The RPCs of CheckpointService about leases, and the account of writers that were refused."""

from __future__ import annotations

from typing import Any

import grpc
from opentelemetry.trace import get_current_span
from tenure.v1 import checkpoints_pb2 as pb

from tenure_server import errors, telemetry
from tenure_server.domain import TenantId
from tenure_server.limits import Limits
from tenure_server.services.caller import principal, rules
from tenure_server.services.reading import remaining
from tenure_server.storage.ports import LeaseStore
from tenure_server.wire import leases as wire
from tenure_server.wire.requests import Requests

Context = grpc.aio.ServicerContext[Any, Any]


class LeaseCalls:
    """See checkpoints.proto; a part of CheckpointService."""

    def __init__(self, leases: LeaseStore, limits: Limits) -> None:
        self._leases = leases
        self._lease_requests = Requests(limits)

    async def AcquireLease(
        self, request: pb.AcquireLeaseRequest, context: Context
    ) -> pb.AcquireLeaseResponse:
        operation, thread_id, holder, ttl_ms = wire.acquire(self._lease_requests, request)
        rules().check_thread(thread_id, write=True, field="thread_id")
        remaining([operation])
        tenant = principal.get().tenant
        try:
            token = await self._leases.acquire(tenant, operation, thread_id, holder, ttl_ms)
        except errors.LeaseHeld as error:
            count_refusal(tenant, error)
            raise
        return pb.AcquireLeaseResponse(lease_token=token, ttl_ms=ttl_ms)

    async def RenewLease(self, request: pb.RenewLeaseRequest, context: Context) -> pb.RenewLeaseResponse:
        operation, thread_id, token, ttl_ms = wire.renew(self._lease_requests, request)
        rules().check_thread(thread_id, write=True, field="thread_id")
        remaining([operation])
        tenant = principal.get().tenant
        try:
            await self._leases.renew(tenant, operation, thread_id, token, ttl_ms)
        except errors.StaleWriter as error:
            count_refusal(tenant, error)
            raise
        return pb.RenewLeaseResponse(ttl_ms=ttl_ms)

    async def ReleaseLease(
        self, request: pb.ReleaseLeaseRequest, context: Context
    ) -> pb.ReleaseLeaseResponse:
        operation, thread_id, token = wire.release(self._lease_requests, request)
        rules().check_thread(thread_id, write=True, field="thread_id")
        remaining([operation])
        await self._leases.release(principal.get().tenant, operation, thread_id, token)
        return pb.ReleaseLeaseResponse()


def count_refusal(tenant: TenantId, error: errors.TenureError | None) -> None:
    """Count a writer that is refused because the thread has another one; do nothing for other outcomes."""
    if isinstance(error, (errors.StaleWriter, errors.LeaseHeld)):
        telemetry.writers_refused.add(
            1, {"reason": error.reason, telemetry.TENANT: telemetry.tenant_labels.of(tenant)}
        )
        get_current_span().add_event(telemetry.WRITER_REFUSED, {"reason": error.reason})
