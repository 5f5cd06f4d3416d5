"""From requests about leases to domain values."""

from __future__ import annotations

from typing import Final

from tenure.v1 import checkpoints_pb2 as pb

from tenure_server import errors
from tenure_server.domain import Operation
from tenure_server.wire import fields
from tenure_server.wire.requests import Requests, lease_token

DEFAULT_TTL_MS: Final = 30_000
MIN_TTL_MS: Final = 1_000
MAX_TTL_MS: Final = 3_600_000
"""A holder that died keeps others away for so long at most."""
_MAX_HOLDER_BYTES = 128


def acquire(requests: Requests, message: pb.AcquireLeaseRequest) -> tuple[Operation, str, str, int]:
    """Return the thread, what the holder calls itself, and for how many milliseconds it wants the thread."""
    operation = requests.operation(message.operation, "operation")
    thread_id = requests.thread_id(message.thread_id, "thread_id")
    holder = fields.text("holder", message.holder, _MAX_HOLDER_BYTES, empty=True)
    if not holder.isprintable():
        raise errors.InvalidField("holder", "must not contain control characters")
    return operation, thread_id, holder, _ttl(message.ttl_ms)


def renew(requests: Requests, message: pb.RenewLeaseRequest) -> tuple[Operation, str, int, int]:
    """Return the thread, the token of the lease, and for how many milliseconds more."""
    operation = requests.operation(message.operation, "operation")
    thread_id = requests.thread_id(message.thread_id, "thread_id")
    return operation, thread_id, lease_token(message.lease_token, "lease_token"), _ttl(message.ttl_ms)


def release(requests: Requests, message: pb.ReleaseLeaseRequest) -> tuple[Operation, str, int]:
    """Return the thread and the token of the lease."""
    operation = requests.operation(message.operation, "operation")
    thread_id = requests.thread_id(message.thread_id, "thread_id")
    return operation, thread_id, lease_token(message.lease_token, "lease_token")


def _ttl(value: int) -> int:
    if value > MAX_TTL_MS:
        raise errors.LimitExceeded("ttl_ms", "milliseconds", value, MAX_TTL_MS)
    if 0 < value < MIN_TTL_MS:
        raise errors.InvalidField("ttl_ms", f"must be at least {MIN_TTL_MS:,} milliseconds")
    return value or DEFAULT_TTL_MS
