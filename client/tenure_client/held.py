"""Large values that this process has sent or received, kept so that the next ones can be told against them.

Nothing depends on what is kept: the server compares digests, and a value that it no longer has is sent whole.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from tenure.v1 import checkpoints_pb2 as pb

from tenure_client.values import Value

MAX_BYTES = 64 * 1024 * 1024
_MAX_TOLD = 256
"""Values that one read names to the server; of more, the largest."""

Place = tuple[str, str]
"""A thread and a namespace."""

_all: weakref.WeakSet[HeldValues] = weakref.WeakSet()


class HeldValues:
    """The latest large value of each channel, of the namespaces used last; safe to use from any thread.

    Args:
        max_bytes: Bytes to keep at most; 0 = keep nothing.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._places: OrderedDict[Place, dict[str, Value]] = OrderedDict()
        self._bytes = 0

    @property
    def size(self) -> int:
        """Bytes that are kept, about."""
        return self._bytes

    def of(self, place: Place) -> Mapping[str, Value]:
        """Return the values of a namespace by channel, as they are now."""
        with self._lock:
            values = self._places.get(place)
            if values is None:
                return {}
            self._places.move_to_end(place)
            return dict(values)

    def keep(self, place: Place, values: Mapping[str, Value]) -> None:
        """Keep values of channels in place of their older ones."""
        if not values:
            return
        with self._lock:
            kept = self._places.setdefault(place, {})
            self._places.move_to_end(place)
            for channel, value in values.items():
                self._drop(kept, channel)
                if value.size <= self._max_bytes:
                    kept[channel] = value
                    self._bytes += value.size
            while self._bytes > self._max_bytes:
                self._drop_oldest()

    def forget(self, place: Place, channels: Iterable[str]) -> None:
        """Forget the values of these channels."""
        with self._lock:
            values = self._places.get(place, {})
            for channel in channels:
                self._drop(values, channel)
            if not values:
                self._places.pop(place, None)

    def forget_thread(self, thread_id: str) -> None:
        """Forget all values of a thread."""
        with self._lock:
            for place in [place for place in self._places if place[0] == thread_id]:
                self._bytes -= sum(value.size for value in self._places.pop(place).values())

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._places.clear()
            self._bytes = 0

    def after_fork_in_child(self) -> None:
        """Begin anew if another thread of the parent was amid a change; that thread is not here."""
        if self._lock.locked():
            self._reset()

    def _drop(self, values: dict[str, Value], channel: str) -> None:
        old = values.pop(channel, None)
        if old is not None:
            self._bytes -= old.size

    def _drop_oldest(self) -> None:
        """Drop a value of the namespace that was used longest ago, the one that was kept longest."""
        place, values = next(iter(self._places.items()))
        self._drop(values, next(iter(values), ""))
        if not values:
            del self._places[place]


def told(values: Mapping[str, Value]) -> list[pb.HeldValue]:
    """Return how a read names what its reader has."""
    channels = sorted(values, key=lambda channel: -values[channel].size)[:_MAX_TOLD]
    return [
        pb.HeldValue(channel=channel, version=values[channel].version, digest=values[channel].digest)
        for channel in channels
    ]


def _after_fork_in_child() -> None:
    for held in list(_all):
        held.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
