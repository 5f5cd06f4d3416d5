"""WriterService: which threads have one writer at a time."""

from __future__ import annotations

from typing import Any

import grpc
from tenure.v1 import writers_pb2 as pb
from tenure.v1 import writers_pb2_grpc

from tenure_server.services.administering import recorded, tenant_of
from tenure_server.wire import writers as wire
from tenure_server.writer_policies import WriterPolicies

Context = grpc.aio.ServicerContext[Any, Any]


class WriterService(writers_pb2_grpc.WriterServiceServicer):
    """See writers.proto."""

    def __init__(self, policies: WriterPolicies) -> None:
        self._policies = policies

    async def CreateWriterPolicy(
        self, request: pb.CreateWriterPolicyRequest, context: Context
    ) -> pb.CreateWriterPolicyResponse:
        with recorded("CreateWriterPolicy") as change:
            change.tenant = tenant_of(request.tenant_id)
            prefix = wire.thread_prefix(request.thread_prefix)
            policy, threads = await self._policies.create(change.tenant, prefix)
        return pb.CreateWriterPolicyResponse(policy=wire.policy_message(policy), threads=threads)

    async def ListWriterPolicies(
        self, request: pb.ListWriterPoliciesRequest, context: Context
    ) -> pb.ListWriterPoliciesResponse:
        found = await self._policies.list_policies(tenant_of(request.tenant_id))
        return pb.ListWriterPoliciesResponse(policies=[wire.policy_message(policy) for policy in found])

    async def DeleteWriterPolicy(
        self, request: pb.DeleteWriterPolicyRequest, context: Context
    ) -> pb.DeleteWriterPolicyResponse:
        with recorded("DeleteWriterPolicy") as change:
            change.tenant = tenant_of(request.tenant_id)
            prefix = wire.thread_prefix(request.thread_prefix)
            threads = await self._policies.delete(change.tenant, prefix)
        return pb.DeleteWriterPolicyResponse(threads=threads)
