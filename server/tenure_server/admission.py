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

_LIMITED = Room("calls of a tenant with a limit of its own", 0, 0)
_PAUSE = 0.1
"""Seconds after which whoever was above its own limit may come back."""

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
    def slot(self, method: str, tenant: TenantId, most: int | None = None) -> Iterator[None]:
        """Hold a slot while an RPC runs.

        Args:
            method: The RPC.
            tenant: Who calls it.
            most: RPCs of any kind, but for sessions, that the tenant may run at once; None = no limit.

        Raises:
            Overloaded: There is none; says when to come back.
            RateLimited: The tenant may run no more; says when to come back.
        """
        name = method.rsplit("/", 1)[-1]
        room = _ROOMS.get(name, UNARY)
        everyone, own = (room, None), (room, tenant)
        if self._running[everyone] >= room.in_all or self._running[own] >= room.per_tenant:
            raise errors.Overloaded(room.what)
        taken = [everyone, own]
        if most is not None and room is not SESSIONS:
            limited = (_LIMITED, tenant)
            if self._running[limited] >= most:
                raise errors.RateLimited("max_concurrency", most, _PAUSE)
            taken.append(limited)
        for counter in taken:
            self._running[counter] += 1
        try:
            yield
        finally:
            for counter in taken:
                self._running[counter] -= 1
                if not self._running[counter] and counter is not everyone:
                    del self._running[counter]
