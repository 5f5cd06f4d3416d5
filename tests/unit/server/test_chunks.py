"""Chunks: what is packed comes back, nothing else does, and a difference says what is new."""

from __future__ import annotations

import contextlib
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from tenure_server import chunks

from tests.harness.chunked import Large, entry, raw, zstd

PARTS = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


@given(PARTS, st.binary(max_size=64))
def test_a_value_is_its_header_and_its_chunks(parts: list[bytes], header: bytes) -> None:
    large = Large(parts, header)
    packed = {chunks.chunk_id(one): one for one in large.packed}
    assert chunks.assemble(header, large.recipe, packed) == header + b"".join(parts)
    assert chunks.size(header, large.recipe) == len(large.data)
    assert chunks.ids(large.recipe) == list(packed)
    assert list(chunks.entries(large.recipe)) == [
        (chunks.chunk_id(one), len(part)) for one, part in zip(large.packed, parts, strict=True)
    ]


def test_ids_and_digests_are_those_of_the_protocol() -> None:
    """The expected ones were made by b2sum and sha256sum."""
    packed = raw(b"abc")
    assert packed == b"\0abc"
    assert chunks.chunk_id(packed).hex() == "c9a47b241f0d254552d1a95c814a738f"
    recipe = entry(packed, 3)
    assert chunks.recipe_digest("msgpack", b"\x93", recipe).hex() == "6a0ac8299a79e210acc74597d05e5ba7"


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\0",
        b"\0ab",
        b"\0abcd",
        b"\1",
        b"\1abc",
        b"\2abc",
        b"\1" + zstandard.ZstdCompressor(write_content_size=False).compress(b"abc"),
        b"\1" + zstandard.ZstdCompressor().compress(b"ab"),
        b"\1" + zstandard.ZstdCompressor().compress(b"abcd"),
        zstd(b"abc")[:-1],
        zstd(b"abc") + b"x",
        zstd(b"abc") + zstd(b"")[1:],
        b"\1\x50\x2a\x4d\x18\0\0\0\0" + zstd(b"abc")[1:],
    ],
    ids=range(14),
)
def test_what_is_not_three_bytes_cannot_be_unpacked_as_such(packed: bytes) -> None:
    with pytest.raises(chunks.BadChunk):
        chunks.unpack(packed, 3)


def lying_frame(size: int) -> bytes:
    """Return a packed zstd frame that states another size than it has."""
    frame = bytearray(zstandard.ZstdCompressor().compress(bytes(1 << 20)))
    header = zstandard.get_frame_parameters(bytes(frame))
    assert header.content_size == 1 << 20
    # Magic, a descriptor for a size of eight bytes in a single segment, the size; then the blocks.
    blocks = frame[zstandard.frame_header_size(bytes(frame)) :]
    return b"\1" + b"\x28\xb5\x2f\xfd" + b"\xe0" + size.to_bytes(8, "little") + bytes(blocks)


@pytest.mark.parametrize(("stated", "length"), [(1 << 30, 3), (1 << 30, 1 << 20), (1 << 62, 5), (3, 3)])
def test_a_frame_is_never_inflated_beyond_what_its_entry_says(stated: int, length: int) -> None:
    packed = lying_frame(stated)
    tracemalloc.start()
    try:
        with pytest.raises(chunks.BadChunk):
            chunks.unpack(packed, length)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=60), st.integers(1, 100))
def test_whatever_bytes_come_nothing_else_is_raised(packed: bytes, length: int) -> None:
    for one in (packed, b"\1" + packed, b"\1\x28\xb5\x2f\xfd" + packed):
        with contextlib.suppress(chunks.BadChunk):
            assert len(chunks.unpack(one, length)) == length


ENTRIES = st.lists(st.sampled_from([entry(raw(part), 1) for part in (b"a", b"b", b"c")]), max_size=12)


@given(ENTRIES, ENTRIES)
def test_a_difference_and_its_base_make_the_recipe(base: list[bytes], recipe: list[bytes]) -> None:
    first, last, between = chunks.difference(b"".join(base), b"".join(recipe))
    assert first + last <= len(base)
    assert b"".join(base[:first]) + between + b"".join(base[len(base) - last :]) == b"".join(recipe)
    # Nothing that could be kept is told again.
    limit = min(len(base), len(recipe))
    assert first == limit or base[first] != recipe[first]
    assert first + last == limit or base[-last - 1] != recipe[-last - 1]


def test_an_equal_recipe_brings_nothing() -> None:
    recipe = Large([b"a", b"bc"]).recipe
    assert chunks.difference(recipe, recipe) == (2, 0, b"")
