"""Array parameters in Postgres' binary format.

A batch goes to the database as some thirty arrays. psycopg's own list dumper looks at every element to find
its type; ours know it, which makes encoding several times cheaper (see benchmarks of the storage).
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, cast
from uuid import UUID

from psycopg import adapters, pq
from psycopg.adapt import AdaptersMap, Dumper

_BOUNDS = struct.Struct("!5i")
"""Dimensions, whether there are nulls, type of the elements, length, index of the first."""
_EMPTY = struct.Struct("!3i")
_LENGTH = struct.Struct("!i").pack
_INT = struct.Struct("!ii").pack
_BIGINT = struct.Struct("!q").pack
_NULL = _LENGTH(-1)
_SHORT_LENGTHS = [_LENGTH(length).decode() for length in range(128)]
"""As texts of ASCII, each a character for a byte."""
_SMALL_INTS = {number: _INT(4, number) for number in range(-8, 256)}
"""Most numbers count puts, threads and writes of one batch."""
_DIGEST_BYTES = 16
_INT_OID, _BIGINT_OID, _TEXT_OID, _BYTEA_OID, _UUID_OID, _REAL_OID = 23, 20, 25, 17, 2950, 700


class Array:
    """One array parameter, already encoded."""

    __slots__ = ("data",)

    data: bytes


class TextArray(Array):
    """text[]; None becomes null."""

    __slots__ = ()

    def __init__(self, items: Sequence[str | None]) -> None:
        if None in items:
            self.data = _joined(_TEXT_OID, [None if item is None else item.encode() for item in items])
        else:
            self.data = _texts(cast("Sequence[str]", items))


class ByteaArray(Array):
    """bytea[]."""

    __slots__ = ()

    def __init__(self, items: Sequence[bytes]) -> None:
        self.data = _joined(_BYTEA_OID, items)


class DigestArray(Array):
    """bytea[] of 16 bytes each."""

    __slots__ = ()

    def __init__(self, items: Sequence[bytes]) -> None:
        length = _LENGTH(_DIGEST_BYTES)
        elements = length.join([b"", *items])
        # One of another length would be read together with its neighbours.
        assert len(elements) == len(items) * (len(length) + _DIGEST_BYTES)
        self.data = _bounds(_BYTEA_OID, len(items)) + elements


class UuidArray(Array):
    """uuid[]."""

    __slots__ = ()

    def __init__(self, items: Iterable[UUID]) -> None:
        self.data = _joined(_UUID_OID, [item.bytes for item in items])


class IntArray(Array):
    """int[]; values beyond 32 bits raise OverflowError."""

    __slots__ = ()

    def __init__(self, items: Sequence[int]) -> None:
        try:
            elements = [_SMALL_INTS.get(item) or _INT(4, item) for item in items]
        except struct.error as error:
            raise OverflowError(str(error)) from None
        self.data = _bounds(_INT_OID, len(items)) + b"".join(elements)


class BigintArray(Array):
    """bigint[]; None becomes null."""

    __slots__ = ()

    def __init__(self, items: Sequence[int | None]) -> None:
        self.data = _joined(_BIGINT_OID, [None if item is None else _BIGINT(item) for item in items])


class RealArray(Array):
    """real[]; values are rounded to 32 bits, those beyond become infinite."""

    __slots__ = ()

    def __init__(self, items: Iterable[float]) -> None:
        numbers = array("f", items)
        if sys.byteorder == "little":
            numbers.byteswap()
        raw = numbers.tobytes()
        # Each number after its length: slices copy in C what a loop would pack one by one.
        data = bytearray(8 * len(numbers))
        data[3::8] = b"\x04" * len(numbers)
        for byte in range(4):
            data[4 + byte :: 8] = raw[byte::4]
        if numbers:
            self.data = _BOUNDS.pack(1, False, _REAL_OID, len(numbers), 1) + data
        else:
            self.data = _EMPTY.pack(0, 0, _REAL_OID)


def _bounds(element_oid: int, length: int, *, nulls: bool = False) -> bytes:
    return _BOUNDS.pack(1, nulls, element_oid, length, 1) if length else _EMPTY.pack(0, 0, element_oid)


def _joined(element_oid: int, items: Sequence[bytes | None]) -> bytes:
    nulls = items.count(None)
    parts = [_bounds(element_oid, len(items), nulls=nulls > 0)]
    if nulls == len(items):
        return parts[0] + _NULL * nulls
    for item in items:
        if item is None:
            parts.append(_NULL)
        else:
            parts.append(_LENGTH(len(item)))
            parts.append(item)
    return b"".join(parts)


def _texts(items: Sequence[str]) -> bytes:
    """Return an array of texts.

    Nearly all are ids, names and tags: short, and of ASCII, so that they have as many bytes as characters and
    can be encoded all at once, lengths and all. That halves the time.
    """
    try:
        elements = "".join([_SHORT_LENGTHS[len(item)] + item for item in items])
    except IndexError:
        pass
    else:
        if elements.isascii():
            return _bounds(_TEXT_OID, len(items)) + elements.encode()
    return _joined(_TEXT_OID, [item.encode() for item in items])


class _ArrayDumper(Dumper):
    format = pq.Format.BINARY

    def dump(self, obj: Any) -> bytes:
        data: bytes = obj.data
        return data


class _TextArrayDumper(_ArrayDumper):
    oid = 1009


class _ByteaArrayDumper(_ArrayDumper):
    oid = 1001


class _UuidArrayDumper(_ArrayDumper):
    oid = 2951


class _IntArrayDumper(_ArrayDumper):
    oid = 1007


class _BigintArrayDumper(_ArrayDumper):
    oid = 1016


class _RealArrayDumper(_ArrayDumper):
    oid = 1021


def adapters_map() -> AdaptersMap:
    """Return psycopg's adapters with ours added, for a connection's `context`."""
    ours = AdaptersMap(adapters)
    ours.register_dumper(TextArray, _TextArrayDumper)
    ours.register_dumper(ByteaArray, _ByteaArrayDumper)
    ours.register_dumper(DigestArray, _ByteaArrayDumper)
    ours.register_dumper(UuidArray, _UuidArrayDumper)
    ours.register_dumper(IntArray, _IntArrayDumper)
    ours.register_dumper(BigintArray, _BigintArrayDumper)
    ours.register_dumper(RealArray, _RealArrayDumper)
    return ours
