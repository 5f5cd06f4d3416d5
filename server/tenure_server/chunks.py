"""What a large value is made of: packed chunks, their ids, and the recipe that puts them in order.

The rules are those of `ValueEdit` in checkpoints.proto. The server never cuts a value and never decodes
one: it checks that chunks are what their ids say, keeps them, and hands them on as they came.
"""

from __future__ import annotations

import hashlib
import struct
import sys
import threading
from array import array
from collections.abc import Callable, Iterator, Mapping

import zstandard

ID_BYTES = 16
ENTRY_BYTES = 20
MAX_CHUNK_BYTES = 1024 * 1024
MAX_OVERHEAD = 64
"""Bytes that a packed chunk may have above its raw ones: more than any encoder needs."""
MAX_HEADER_BYTES = 64
DIGEST_BYTES = 16

_RAW = 0
_ZSTD = 1
_ENTRY = struct.Struct("!16sI")
_LENGTH = struct.Struct("!I").pack


class _Decompressor(threading.local):
    """One per thread: making it costs twenty times what a small chunk does."""

    def __init__(self) -> None:
        self.decompress = zstandard.ZstdDecompressor().decompress


_decompressor = _Decompressor()


class BadChunk(ValueError):
    """A packed chunk is not what its id or its entry says."""


def chunk_id(packed: bytes) -> bytes:
    """Return the id of a packed chunk."""
    return hashlib.blake2b(packed, digest_size=ID_BYTES).digest()


def recipe_digest(type: str, header: bytes, recipe: bytes) -> bytes:
    """Return the digest of a value by its recipe; SQL computes the same."""
    tag = type.encode()
    whole = b"".join((_LENGTH(len(tag)), tag, _LENGTH(len(header)), header, recipe))
    return hashlib.sha256(whole).digest()[:DIGEST_BYTES]


def entries(recipe: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield (chunk id, raw length in bytes) of a recipe, in order."""
    return _ENTRY.iter_unpack(recipe)


def ids(recipe: bytes) -> list[bytes]:
    """Return the distinct chunk ids of a recipe, in the order of their first entries."""
    return list(dict.fromkeys(chunk for chunk, _ in _ENTRY.iter_unpack(recipe)))


def size(header: bytes, recipe: bytes) -> int:
    """Return the bytes of the whole value."""
    # As 32-bit words, every fifth is a length: three times faster than one entry after the other.
    words = array("I", recipe)
    if sys.byteorder == "little":
        words.byteswap()
    return len(header) + sum(words[4::5])


def unpack(packed: bytes, length: int) -> bytes:
    """Return the raw bytes of a chunk, never more than `length`, which the caller has capped.

    Raises:
        BadChunk: The encoding is unknown, or the raw bytes have another length.
    """
    encoding = packed[0] if packed else -1
    if encoding == _RAW:
        raw = packed[1:]
    elif encoding == _ZSTD:
        body = packed[1:]
        try:
            # The library trusts the size that the frame states and would allocate it: look first.
            if zstandard.frame_content_size(body) != length:
                raise BadChunk("the frame states another size")
            raw = _decompressor.decompress(body, max_output_size=length, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise BadChunk(str(error)) from None
    else:
        raise BadChunk("the encoding is unknown")
    if len(raw) != length:
        raise BadChunk("the chunk has another length")
    return raw


def assemble(header: bytes, recipe: bytes, packed: Mapping[bytes, bytes]) -> bytes:
    """Return the whole value.

    Raises:
        BadChunk: See `unpack`.
        KeyError: A chunk is not among `packed`.
    """
    return b"".join([header, *(unpack(packed[chunk], length) for chunk, length in entries(recipe))])


def difference(base: bytes, recipe: bytes) -> tuple[int, int, bytes]:
    """Return how many entries two recipes share at their starts and at their ends, and what is between.

    Returns:
        (keep_first, keep_last, entries of `recipe` in between).
    """
    theirs, ours = len(base) // ENTRY_BYTES, len(recipe) // ENTRY_BYTES
    shorter = min(theirs, ours)
    first = _most(shorter, lambda count: base[: count * ENTRY_BYTES] == recipe[: count * ENTRY_BYTES])
    last = _most(
        shorter - first,
        lambda count: base[(theirs - count) * ENTRY_BYTES :] == recipe[(ours - count) * ENTRY_BYTES :],
    )
    return first, last, recipe[first * ENTRY_BYTES : (ours - last) * ENTRY_BYTES]


def _most(limit: int, holds: Callable[[int], bool]) -> int:
    """Return the greatest count up to `limit` that holds, where none holds above one that does not."""
    if holds(limit):
        return limit
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low
