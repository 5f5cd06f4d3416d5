"""Tenants with limits, set as an operator sets them, and calls whose success can be counted."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2
from tenure.v1 import checkpoints_pb2, checkpoints_pb2_grpc, quotas_pb2_grpc
from tenure.v1 import quotas_pb2 as pb

from tests.integration.admin_support import Caller
from tests.integration.wire_support import operation

METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["QuotaService"].methods]
OPERATOR_ONLY = {"SetQuota"}
TRUST = 5.0
"""Seconds after which every replica knows new rates."""


class QuotaCaller(Caller):
    """Somebody with a key, at QuotaService."""

    def set(self, tenant_id: str, **limits: float | None) -> pb.Quota:
        """Set limits, None = none; return all of the tenant."""
        request = pb.SetQuotaRequest(tenant_id=tenant_id)
        request.update_mask.paths.extend(limits)
        for name, value in limits.items():
            if value is not None:
                setattr(request.quota, name, value)
        quota: pb.Quota = self.call(request).quota
        return quota


@contextmanager
def quota_callers(target: str, *api_keys: str) -> Iterator[list[QuotaCaller]]:
    """Give a caller for each key, all on one connection."""
    with grpc.insecure_channel(target) as channel:
        stub = quotas_pb2_grpc.QuotaServiceStub(channel)
        yield [QuotaCaller(stub, key) for key in api_keys]


def request_of(method: str, tenant_id: str) -> Message:
    """Return a valid request about a tenant."""
    made: Message = getattr(pb, f"{method}Request")(tenant_id=tenant_id)
    if isinstance(made, pb.SetQuotaRequest):
        made.quota.max_threads = 7
        made.update_mask.paths.append("max_threads")
    if isinstance(made, pb.ListUsageRequest):
        made.by = pb.USAGE_KIND_THREAD
    return made


def reader(target: str, api_key: str) -> tuple[grpc.Channel, Callable[[int], grpc.StatusCode]]:
    """Return a connection, and what reads so many checkpoints in one call and returns its status."""
    channel = grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)])
    stub: Any = checkpoints_pb2_grpc.CheckpointServiceStub(channel)
    metadata = (("authorization", f"Bearer {api_key}"),)

    def read(operations: int = 1) -> grpc.StatusCode:
        request = checkpoints_pb2.ReadRequest(
            reads=[
                checkpoints_pb2.CheckpointRead(
                    operation=operation(), ref=checkpoints_pb2.CheckpointRef(thread_id="none")
                )
                for _ in range(operations)
            ]
        )
        try:
            stub.Read(request, metadata=metadata, timeout=30)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    return channel, read


def flood(targets: list[str], api_key: str, seconds: float, threads: int = 2) -> Counter[grpc.StatusCode]:
    """Read as fast as it goes from all servers at once; return how often which status came back."""
    outcomes: list[Counter[grpc.StatusCode]] = []
    give_up = time.monotonic() + seconds

    def run(target: str) -> None:
        counted: Counter[grpc.StatusCode] = Counter()
        channel, read = reader(target, api_key)
        with channel:
            while time.monotonic() < give_up:
                counted[read(1)] += 1
        outcomes.append(counted)

    running = [threading.Thread(target=run, args=[target]) for target in targets for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return sum(outcomes, Counter())


def status_of(error: grpc.RpcError) -> status_pb2.Status:
    """Return what a refused call tells in full."""
    trailers: dict[str, Any] = dict(error.trailing_metadata())  # type: ignore[attr-defined]
    return status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
