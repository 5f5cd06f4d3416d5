"""Leases on the threads of `MemoryCheckpoints`; see `ports.LeaseStore`."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from tenure_server import errors
from tenure_server.domain import Operation, TenantId
from tenure_server.storage.memory import MemoryCheckpoints
from tenure_server.storage.memory_rows import Thread

_TICKS = 1_000_000
"""Tokens begin with the clock, so that those of a thread's next life are larger."""


class MemoryLeases:
    """See `ports.LeaseStore`."""

    def __init__(self, checkpoints: MemoryCheckpoints) -> None:
        self._checkpoints = checkpoints

    async def acquire(
        self, tenant: TenantId, operation: Operation, thread_id: str, holder: str, ttl_ms: int
    ) -> int:
        _refuse_late(operation)
        thread = self._checkpoints.threads(tenant).setdefault(thread_id, Thread())
        now = datetime.now(UTC)
        mine = thread.lease_operation == operation.operation_id
        if thread.lease_until is not None and thread.lease_until > now and not mine:
            left = thread.lease_until - now
            raise errors.LeaseHeld(max(int(left / timedelta(milliseconds=1)), 1), thread.lease_holder)
        if not mine:
            thread.lease_token = max(thread.lease_token + 1, int(now.timestamp() * _TICKS))
        thread.lease_until = now + timedelta(milliseconds=ttl_ms)
        thread.lease_holder, thread.lease_operation = holder, operation.operation_id
        return thread.lease_token

    async def renew(
        self, tenant: TenantId, operation: Operation, thread_id: str, token: int, ttl_ms: int
    ) -> None:
        _refuse_late(operation)
        thread = self._checkpoints.threads(tenant).get(thread_id)
        if thread is None or thread.lease_token != token or thread.lease_until is None:
            raise errors.StaleWriter
        thread.lease_until = datetime.now(UTC) + timedelta(milliseconds=ttl_ms)

    async def release(self, tenant: TenantId, operation: Operation, thread_id: str, token: int) -> None:
        _refuse_late(operation)
        thread = self._checkpoints.threads(tenant).get(thread_id)
        if thread is not None and thread.lease_token == token:
            thread.end_lease()


def _refuse_late(operation: Operation) -> None:
    if time.monotonic() >= operation.deadline:
        raise errors.DeadlineExceeded
