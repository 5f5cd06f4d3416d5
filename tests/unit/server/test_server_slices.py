"""Slices: what is cut is joined again; memory follows the bytes that came, not what was claimed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenure.v1.common_pb2 import Slice
from tenure_server import errors
from tenure_server.limits import Limits
from tenure_server.wire import slices

from tests.harness.running import run

LIMITS = Limits(slice_bytes=7, max_operation_bytes=100)


async def _stream(parts: Iterable[Slice]) -> AsyncIterator[Slice]:
    for part in parts:
        yield part


def _join(*parts: Slice, limits: Limits = LIMITS) -> bytes:
    return run(slices.join(_stream(parts), limits))


@given(st.binary(max_size=100), st.integers(1, 120))
def test_what_is_cut_is_joined_again(serialized: bytes, size: int) -> None:
    limits = Limits(slice_bytes=size, max_operation_bytes=100)
    parts = list(slices.cut(serialized, limits))
    assert all(len(part.data) <= size for part in parts)
    assert [part.total_bytes for part in parts] == [len(serialized)] + [0] * (len(parts) - 1)
    assert len(parts) == max(1, -(-len(serialized) // size))
    assert _join(*parts, limits=limits) == serialized


def test_nothing_is_one_empty_slice() -> None:
    assert list(slices.cut(b"", LIMITS)) == [Slice()]
    assert _join(Slice()) == b""
    assert _join() == b""


@pytest.mark.parametrize(
    "parts",
    [
        [Slice(data=b"abc", total_bytes=4)],
        [Slice(data=b"abc", total_bytes=2)],
        [Slice(data=b"abc")],
        [Slice(total_bytes=1)],
        [Slice(data=b"abc", total_bytes=6), Slice(data=b"def"), Slice(data=b"g")],
        [Slice(data=b"abc", total_bytes=6), Slice(data=b"de")],
    ],
)
def test_more_or_fewer_bytes_than_said_are_refused(parts: list[Slice]) -> None:
    with pytest.raises(errors.InvalidField) as caught:
        _join(*parts)
    assert caught.value.field == "slice.total_bytes"


def test_a_large_claim_is_refused_at_once() -> None:
    seen = 0

    async def stream() -> AsyncIterator[Slice]:
        nonlocal seen
        for _ in range(100):
            seen += 1
            yield Slice(data=b"a", total_bytes=101)

    with pytest.raises(errors.LimitExceeded) as caught:
        run(slices.join(stream(), LIMITS))
    assert caught.value.metadata == {
        "field": "slice.total_bytes",
        "limit": "max_operation_bytes",
        "maximum": "100",
    }
    assert seen == 1


def test_a_sender_that_does_not_stop_is_cut_off() -> None:
    seen = 0

    async def endless() -> AsyncIterator[Slice]:
        nonlocal seen
        while True:
            seen += 1
            yield Slice(data=b"1234567", total_bytes=20 if seen == 1 else 0)

    with pytest.raises(errors.InvalidField):
        run(slices.join(endless(), LIMITS))
    assert seen == 3


def test_a_slice_that_is_too_large_is_refused() -> None:
    with pytest.raises(errors.LimitExceeded) as caught:
        _join(Slice(data=b"12345678", total_bytes=8))
    assert caught.value.metadata["field"] == "slice.data"


@pytest.mark.timeout(20)
def test_empty_slices_do_not_count_for_ever() -> None:
    """A sender of empty slices gets a bounded hearing, not a slot for as long as it likes."""

    async def endless() -> AsyncIterator[Slice]:
        while True:
            yield Slice(total_bytes=5)

    with pytest.raises(errors.InvalidField) as caught:
        run(slices.join(endless(), LIMITS))
    assert caught.value.field == "slice.data"
