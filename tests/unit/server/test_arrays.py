"""Array parameters say in Postgres' binary format what the lists say, whatever shortcut encodes them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenure_server.storage.postgres.arrays import BigintArray, ByteaArray, DigestArray, IntArray, TextArray

TEXT, BYTEA, INT, BIGINT = 25, 17, 23, 20

_texts = st.one_of(
    st.text(st.characters(codec="ascii"), max_size=8),
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.integers(120, 300).map(lambda length: "x" * length),
)


def _elements(data: bytes, element_oid: int) -> list[bytes | None]:
    """Return the elements of an array in binary format."""
    dimensions, nulls, oid = struct.unpack_from("!3i", data)
    assert oid == element_oid
    if not dimensions:
        assert len(data) == 12
        return []
    length, first = struct.unpack_from("!2i", data, 12)
    assert (dimensions, first) == (1, 1)
    elements: list[bytes | None] = []
    at = 20
    for _ in range(length):
        (size,) = struct.unpack_from("!i", data, at)
        at += 4
        elements.append(None if size < 0 else data[at : at + size])
        at += max(size, 0)
    assert at == len(data)
    assert bool(nulls) == (None in elements)
    return elements


@given(st.lists(_texts | st.none()) | st.lists(_texts) | st.lists(st.none()))
def test_texts(items: list[str | None]) -> None:
    expected = [None if item is None else item.encode() for item in items]
    assert _elements(TextArray(items).data, TEXT) == expected


@pytest.mark.parametrize("text", ["", "x" * 127, "x" * 128, "é", "\x7f", "\x80", "\0"])
def test_texts_at_the_ends_of_what_is_short(text: str) -> None:
    assert _elements(TextArray([text, "id"]).data, TEXT) == [text.encode(), b"id"]


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        TextArray(["\ud800"])


@given(st.lists(st.binary(max_size=300)))
def test_bytes(items: list[bytes]) -> None:
    assert _elements(ByteaArray(items).data, BYTEA) == items


@given(st.lists(st.binary(min_size=16, max_size=16)))
def test_digests(items: list[bytes]) -> None:
    assert DigestArray(items).data == ByteaArray(items).data


@pytest.mark.parametrize("items", [[b""], [b"d" * 15], [b"d" * 16, b"d" * 17]])
def test_a_digest_of_another_length_does_not_reach_its_neighbours(items: list[bytes]) -> None:
    with pytest.raises(AssertionError):
        DigestArray(items)


@given(st.lists(st.integers(-(2**31), 2**31 - 1) | st.integers(-10, 300)))
def test_integers(items: list[int]) -> None:
    assert _elements(IntArray(items).data, INT) == [struct.pack("!i", item) for item in items]


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1])
def test_an_integer_beyond_32_bits_is_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        IntArray([1, number])


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.none()))
def test_large_integers(items: list[int | None]) -> None:
    expected = [None if item is None else struct.pack("!q", item) for item in items]
    assert _elements(BigintArray(items).data, BIGINT) == expected
