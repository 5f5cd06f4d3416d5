"""Large messages travel in slices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenure.v1 import common_pb2
from tenure_client import slices
from tenure_client.errors import UnreadableValue


def message(size: int) -> common_pb2.Blob:
    return common_pb2.Blob(type="bytes", data=bytes(size))


@given(st.integers(0, 4 * slices.SLICE_BYTES))
def test_a_message_survives_being_cut(size: int) -> None:
    parts = list(slices.split(message(size)))

    assert slices.join(common_pb2.Blob, parts) == message(size)
    assert all(len(part.data) <= slices.SLICE_BYTES for part in parts)
    assert [part.total_bytes > 0 for part in parts] == [True] + [False] * (len(parts) - 1)


def test_an_empty_message_is_one_empty_slice() -> None:
    (part,) = slices.split(common_pb2.Blob())

    assert slices.join(common_pb2.Blob, [part]) == common_pb2.Blob()


def test_several_messages_follow_each_other() -> None:
    assembler = slices.Assembler(common_pb2.Blob)
    messages = [message(10), message(2 * slices.SLICE_BYTES), message(3)]

    found = [assembler.add(part) for one in messages for part in slices.split(one)]

    assert [one for one in found if one is not None] == messages


def test_a_lost_slice_is_noticed() -> None:
    first, _, last = slices.split(message(3 * slices.SLICE_BYTES - 100))

    with pytest.raises(UnreadableValue, match="ended"):
        slices.join(common_pb2.Blob, [first, last])


def test_a_slice_too_many_is_noticed() -> None:
    part = common_pb2.Slice(data=b"12345", total_bytes=4)

    with pytest.raises(UnreadableValue, match="5 bytes instead of 4"):
        slices.join(common_pb2.Blob, [part])


def test_slices_of_something_else_are_noticed() -> None:
    part = common_pb2.Slice(data=b"\xff\xff\xff", total_bytes=3)

    with pytest.raises(UnreadableValue, match="no Blob"):
        slices.join(common_pb2.Blob, [part])
