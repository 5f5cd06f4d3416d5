"""Large channel values as edits: what is new of a value against another one that both sides have."""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from tenure.v1 import checkpoints_pb2 as pb

from tenure_client import chunks
from tenure_client.chunks import ENTRY_BYTES, BadEdit
from tenure_client.cutting import cutter_for

_MAX_BYTES = 1024 * 1024 * 1024
"""Bytes of the largest value that is put together: a few entries could state far more than was sent."""
_PER_VALUE = 512
"""Bytes that a value takes beside its content, about."""


@dataclass(frozen=True, slots=True)
class Value:
    """A large value, its chunks, and the version of its channel under which the server has it.

    Attributes:
        type: The serializer's type tag.
        data: The whole serialized value.
        version: The version, as it is encoded.
        header_size: How many bytes of `data` precede the first chunk.
        ends: Where each chunk ends, counted from the end of the header.
        recipe: Entries of its chunks.
        digest: What names it, see `ValueEdit`.
    """

    type: str
    data: bytes
    version: str
    header_size: int
    ends: array[int]
    recipe: bytes
    digest: bytes

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, about."""
        return len(self.data) + len(self.recipe) + self.ends.itemsize * len(self.ends) + _PER_VALUE

    @property
    def body(self) -> memoryview:
        """The bytes of its chunks."""
        return memoryview(self.data)[self.header_size :]


def tell(edit: pb.ValueEdit, type: str, data: bytes, version: str, base: Value | None) -> Value | None:
    """Tell a value by what is new against another one of the same channel.

    Args:
        edit: Is filled with what is told.
        type: The serializer's type tag.
        data: The serialized value.
        version: Its version, as it is encoded.
        base: A value that the server has; None = tell all chunks.

    Returns:
        The value, None if it would have too many chunks.
    """
    header_size = chunks.header_size(type, data)
    keep_first, keep_last, new = _cut(data, header_size, base)
    if keep_first + len(new) + keep_last > chunks.MAX_CHUNKS:
        return None
    start = base.ends[keep_first - 1] if base is not None and keep_first else 0
    packed: dict[bytes, bytes] = {}
    entries = bytearray()
    for end in new:
        chunk = chunks.pack(data[header_size + start : header_size + end])
        name = chunks.chunk_id(chunk)
        packed[name] = chunk
        entries += chunks.entry(name, end - start)
        start = end
    recipe, ends = bytes(entries), array("Q", new)
    if base is not None and (keep_first or keep_last):
        recipe = _spliced(base.recipe, keep_first, recipe, keep_last)
        shift = len(data) - header_size - len(base.body)
        tail = base.ends[len(base.ends) - keep_last :]
        ends = base.ends[:keep_first] + ends + (array("Q", [end + shift for end in tail]) if shift else tail)
    header = data[:header_size]
    value = Value(type, data, version, header_size, ends, recipe, chunks.recipe_digest(type, header, recipe))
    edit.type, edit.header, edit.digest, edit.entries = type, header, value.digest, bytes(entries)
    edit.chunks.extend(packed.values())
    # A base of which nothing is kept would only be one more thing that can be missing.
    if base is not None and (keep_first or keep_last):
        edit.base_version, edit.base_digest = base.version, base.digest
        edit.keep_first, edit.keep_last = keep_first, keep_last
    return value


def apply(edit: pb.ValueEdit, version: str, base: Value | None) -> Value:
    """Return the value that an edit tells; every chunk, every length and the digest are checked.

    Args:
        edit: The edit.
        version: The version of the value.
        base: What the edit may be told against.

    Raises:
        BadEdit: The edit is not told against `base`, or does not make what it says.
    """
    first, last = edit.keep_first, edit.keep_last
    if not edit.base_version:
        base = None
    elif base is None or base.digest != edit.base_digest:
        raise BadEdit("an edit is told against another value")
    if first + last > (len(base.ends) if base is not None else 0):
        raise BadEdit("an edit keeps more chunks than there are")
    recipe = edit.entries if base is None else _spliced(base.recipe, first, edit.entries, last)
    if chunks.recipe_digest(edit.type, edit.header, recipe) != edit.digest:
        raise BadEdit("an edit makes another value than it says")
    if base is not None and recipe == base.recipe and edit.header == base.data[: base.header_size]:
        return Value(edit.type, base.data, version, base.header_size, base.ends, recipe, edit.digest)
    ends = _ends(recipe)
    new = list(_unpacked(edit))
    parts: list[bytes | memoryview] = [edit.header, *new]
    if base is not None:
        body = base.body
        if first:
            parts.insert(1, body[: base.ends[first - 1]])
        if last:
            whole = len(base.ends)
            parts.append(body[base.ends[whole - last - 1] if last < whole else 0 :])
    return Value(edit.type, b"".join(parts), version, len(edit.header), ends, recipe, edit.digest)


def _cut(data: bytes, header_size: int, base: Value | None) -> tuple[int, int, list[int]]:
    """Return how many chunks of the base are kept at its start and at its end, and the ends of those between.

    Only the bytes between are cut, from the last cut before the first change until a cut is one of the
    base's again, so that the cuts are those of the whole.
    """
    size = len(data) - header_size
    if base is None:
        return 0, 0, list(_ends_between(data, header_size, 0))
    ends = base.ends
    same = _common_prefix(data, header_size, base)
    first = bisect_right(ends, same)
    if first and first == len(ends) and size > same:
        first -= 1  # that chunk ended only because the base did
    start = ends[first - 1] if first else 0
    if start == size:
        return first, 0, []
    base_size = len(base.data) - base.header_size
    shift = size - base_size
    tail = base_size - _common_suffix(data, base, min(size, base_size) - start)
    new: list[int] = []
    for end in itertools.chain((start,), _ends_between(data, header_size, start)):
        if end > start:
            new.append(end)
        place = end - shift
        if tail <= place < base_size:
            index = bisect_left(ends, place)
            if ends[index] == place:
                return first, len(ends) - index - 1, new
    return first, 0, new


def _ends_between(data: bytes, header_size: int, start: int) -> Iterator[int]:
    body = memoryview(data)[header_size + start :]
    return (start + end for end in cutter_for(len(data)).ends(body))


def _common_prefix(data: bytes, header_size: int, base: Value) -> int:
    """Return how many bytes two values share after their headers."""
    theirs = base.body
    size = min(len(data) - header_size, len(theirs))
    low, high = 0, size
    probe = size
    # `startswith` compares in place and as fast as memory allows; the range halves each time.
    while low < high:
        if data.startswith(theirs[low:probe], header_size + low):
            low = probe
        else:
            high = probe - 1
        probe = (low + high + 1) // 2
    return low


def _common_suffix(data: bytes, base: Value, limit: int) -> int:
    """Return how many bytes two values share at their ends, at most `limit`."""
    theirs = base.body
    size, theirs_size = len(data), len(theirs)
    low, high = 0, limit
    probe = limit
    while low < high:
        if data.endswith(theirs[theirs_size - probe : theirs_size - low], 0, size - low):
            low = probe
        else:
            high = probe - 1
        probe = (low + high + 1) // 2
    return low


def _spliced(recipe: bytes, first: int, between: bytes, last: int) -> bytes:
    return recipe[: first * ENTRY_BYTES] + between + recipe[len(recipe) - last * ENTRY_BYTES :]


def _ends(recipe: bytes) -> array[int]:
    ends = array("Q")
    end = 0
    for _, length in chunks.entries(recipe):
        if not 0 < length <= chunks.MAX_CHUNK_BYTES:
            raise BadEdit("a chunk has no length that a chunk may have")
        end += length
        ends.append(end)
    if end > _MAX_BYTES:
        raise BadEdit("a value is larger than any that could be stored")
    return ends


def _unpacked(edit: pb.ValueEdit) -> Iterator[bytes]:
    packed = {chunks.chunk_id(chunk): chunk for chunk in edit.chunks}
    raw: dict[bytes, bytes] = {}
    for name, length in chunks.entries(edit.entries):
        if name not in raw:
            if name not in packed:
                raise BadEdit("a chunk is missing")
            raw[name] = chunks.unpack(packed[name], length)
        elif len(raw[name]) != length:
            raise BadEdit("a chunk has two lengths")
        yield raw[name]
