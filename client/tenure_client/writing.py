"""What the puts of a saver say about who writes: the lease that they come under, or what they build on."""

from __future__ import annotations

import os

from tenure.v1 import checkpoints_pb2 as pb

from tenure_client.calls import Call, Plan


class Writing:
    """Signs the puts of a saver and of its `with_allowlist` clones.

    Args:
        expects_parent: Whether a put is refused unless its parent is the latest checkpoint of its namespace.
            A put under a lease is not: its writer is the only one, and forks the thread on purpose.
    """

    def __init__(self, *, expects_parent: bool) -> None:
        self._expects_parent = expects_parent
        self._held: dict[str, tuple[int, int]] = {}

    def begin(self, thread_id: str, token: int) -> None:
        """Sign with a lease from here on."""
        self._held[thread_id] = token, os.getpid()

    def end(self, thread_id: str, token: int) -> None:
        """Sign with it no longer."""
        if self._held.get(thread_id) == (token, os.getpid()):
            del self._held[thread_id]

    def sign_put(self, put: pb.PutCheckpoint) -> None:
        """Say under which lease a checkpoint is put, or what must be the latest one before it."""
        token = self._token(put.ref.thread_id)
        if token is not None:
            put.lease_token = token
        elif self._expects_parent:
            put.expected_parent = put.parent_checkpoint_id

    def sign_writes(self, writes: pb.PutWrites) -> None:
        """Say under which lease pending writes are put."""
        token = self._token(writes.ref.thread_id)
        if token is not None:
            writes.lease_token = token

    def _token(self, thread_id: str) -> int | None:
        held = self._held.get(thread_id)
        # A forked child is another writer than its parent.
        return held[0] if held is not None and held[1] == os.getpid() else None


def acquire(thread_id: str, holder: str, ttl_ms: int) -> Plan[int]:
    """Ask for a lease and return its token."""
    request = pb.AcquireLeaseRequest(thread_id=thread_id, holder=holder, ttl_ms=ttl_ms)
    reply: pb.AcquireLeaseResponse = yield Call("AcquireLease", request, request.operation, mutates=True)
    return reply.lease_token


def renew(thread_id: str, token: int, ttl_ms: int) -> Plan[None]:
    """Prolong a lease."""
    request = pb.RenewLeaseRequest(thread_id=thread_id, lease_token=token, ttl_ms=ttl_ms)
    yield Call("RenewLease", request, request.operation, mutates=True)


def release(thread_id: str, token: int) -> Plan[None]:
    """End a lease."""
    request = pb.ReleaseLeaseRequest(thread_id=thread_id, lease_token=token)
    yield Call("ReleaseLease", request, request.operation, mutates=True)
