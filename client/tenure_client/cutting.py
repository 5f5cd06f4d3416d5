"""Where a large value is cut into chunks: at places that its content decides.

A change moves only the cuts near it, so that all other chunks of the next version are those of the last
one. Nothing depends on where the cuts are but how much is sent and stored: two clients that cut differently
read each other's values.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

try:
    from pyfastcdc import FastCDC
except ImportError:  # no wheel for this platform: slower, not different for anybody
    FastCDC = None  # type: ignore[assignment,misc]

_KIB = 1024
_MIB = 1024 * _KIB


@dataclass(frozen=True, slots=True)
class Cutter:
    """Cuts bytes into chunks.

    Attributes:
        average: Bytes of a chunk on average, about, a power of two; `smallest` comes on top.
        smallest: Bytes of a chunk at least, but for the last one.
        largest: Bytes of a chunk at most.
    """

    average: int
    smallest: int
    largest: int

    def ends(self, data: memoryview) -> Iterator[int]:
        """Yield where each chunk ends; nothing is looked at beyond the end that is asked for."""
        return _gear_ends(self, data) if FastCDC is None else self._fast_ends(data)

    def _fast_ends(self, data: memoryview) -> Iterator[int]:
        # Making one costs nothing, and one must not serve two threads.
        fast = FastCDC(self.average, min_size=self.smallest, max_size=self.largest)
        return (chunk.offset + chunk.length for chunk in fast.cut_buf(data))


# A recipe has 20 bytes for each chunk and travels and is stored with each version, as far as it is new. A
# small average re-sends less around a change; these keep a whole recipe below 1 % of its value, and at about
# 64 KiB or less.
_SMALL = Cutter(2 * _KIB, 512, 16 * _KIB)
_MEDIUM = Cutter(16 * _KIB, 4 * _KIB, 256 * _KIB)
_LARGE = Cutter(64 * _KIB, 16 * _KIB, _MIB)


def cutter_for(size: int) -> Cutter:
    """Return what cuts a value of so many bytes."""
    if size <= 4 * _MIB:
        return _SMALL
    return _MEDIUM if size <= 64 * _MIB else _LARGE


_gear = random.Random(20).getrandbits  # noqa: S311
_GEAR = [_gear(32) for _ in range(256)]
"""A random number for each byte; of no secrecy, but the same in every process."""


def _gear_ends(cutter: Cutter, data: memoryview) -> Iterator[int]:
    """Cut where the top bits of a hash over the last 32 bytes are all 0."""
    bits = cutter.average.bit_length() - 1
    below = 1 << (32 - bits)
    start, size = 0, len(data)
    while start < size:
        end = min(start + cutter.largest, size)
        rolling = 0
        for place in range(min(start + cutter.smallest, end), end):
            rolling = (rolling << 1) + _GEAR[data[place]] & 0xFFFFFFFF
            if rolling < below:
                end = place + 1
                break
        yield end
        start = end
