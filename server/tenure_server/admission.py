"""How much runs at once: whatever is above is refused at once with a pushback, never queued unseen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tenure_server import errors
from tenure_server.domain import TenantId


@dataclass(frozen=True, slots=True, eq=False)
class Room:
    """RPCs of one kind that may run at once, over all tenants and for one of them."""

    what: str
    in_all: int
    per_tenant: int


UNARY = Room("calls", 512, 256)
STREAMS = Room("streams", 64, 32)
SLICED = Room("sliced transfers", 8, 4)
"""A sliced transfer may hold the largest operation in memory, hence few of them."""
SESSIONS = Room("sessions", 4096, 1024)
"""An idle session costs little; its batches take slots of their own."""

_ROOMS = {
    "WriteSliced": SLICED,
    "ReadSliced": SLICED,
    "BatchSliced": SLICED,
    "PutVectorsSliced": SLICED,
    "List": STREAMS,
    "GetChannelHistory": STREAMS,
    "Session": SESSIONS,
}


class Admission:
    """Counts what runs. Streams have slots of their own, so listings never starve short calls."""

    def __init__(self) -> None:
        self._running: Counter[tuple[Room, TenantId | None]] = Counter()

    @contextmanager
    def slot(self, method: str, tenant: TenantId) -> Iterator[None]:
        """Hold a slot while an RPC runs.

        Raises:
            Overloaded: There is none; says when to come back.
        """
        name = method.rsplit("/", 1)[-1]
        room = _ROOMS.get(name, UNARY)
        everyone, own = (room, None), (room, tenant)
        if self._running[everyone] >= room.in_all or self._running[own] >= room.per_tenant:
            raise errors.Overloaded(room.what)
        self._running[everyone] += 1
        self._running[own] += 1
        try:
            yield
        finally:
            self._running[everyone] -= 1
            self._running[own] -= 1
            if not self._running[own]:
                del self._running[own]
