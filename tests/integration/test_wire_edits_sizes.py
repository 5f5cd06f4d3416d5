"""Large values as edits: what fits a reply, what comes in slices, and listings that bring what is new."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1.common_pb2 import Blob

from tests.harness.chunked import Large, whole
from tests.harness.stack import Target
from tests.integration.edits_support import (
    MIB,
    ONE,
    THREE,
    TWO,
    held,
    joined,
    listed,
    parts,
    put,
    read,
    results,
    value,
    write,
    write_sliced,
)
from tests.integration.wire_support import Wire, operation


@pytest.fixture(scope="module", params=["memory_stack", "stack"])
def target(request: pytest.FixtureRequest) -> Target:
    """A server in memory, and one on Postgres and Redis."""
    found: Target = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def wire(target: Target) -> Iterator[Wire]:
    """A new tenant's channel."""
    with Wire(target.target, target.new_tenant().api_key) as opened:
        yield opened


HUGE = Large(parts(*range(6), size=MIB - 1))


def test_a_huge_value_that_is_held_is_not_omitted(wire: Wire) -> None:
    write_sliced(wire, put("1", HUGE.edit()))
    for request in (read("1"), read("1", edits=False), read("1", [held(ONE, "1")])):
        assert [result.omitted for result in results(wire, request)] == [True]
    (result,) = results(wire, read("1", [held(HUGE, "1")]))
    assert value(result).edit == HUGE.edit(HUGE, "1", first=6)
    # One more chunk: only that travels, in both directions.
    grown = Large([*HUGE.parts, b"more"])
    assert write(wire, put("2", grown.edit(HUGE, "1", first=6))) == [""]
    (result,) = results(wire, read("2", [held(HUGE, "1")]))
    assert value(result).edit == grown.edit(HUGE, "1", first=6)


def test_a_huge_value_comes_in_slices(wire: Wire) -> None:
    write_sliced(wire, put("1", HUGE.edit()))

    def sliced(request: pb.CheckpointRead) -> pb.ChannelValue:
        raw_ = joined(wire, "ReadSliced", pb.ReadSlicedRequest(read=request), pb.ReadSlicedResponse)
        return value(pb.ReadResult.FromString(raw_))

    assert sliced(read("1")).edit == HUGE.edit()
    assert sliced(read("1", edits=False)).value.data == HUGE.data
    assert sliced(read("1", [held(HUGE, "1")])).edit == HUGE.edit(HUGE, "1", first=6)


def test_a_listing_tells_each_value_against_the_one_before(wire: Wire) -> None:
    assert (
        write(
            wire,
            put("1", ONE.edit()),
            put("2", TWO.edit(ONE, "1", first=2, last=2)),
            put("3", None, version="2", x=Blob(type="msgpack", data=b"x")),
            put("4", THREE.edit()),
            put("5", None, c=Blob(type="msgpack", data=b"small")),
        )
        == [""] * 5
    )
    values = [
        next(value for value in found.channel_values if value.channel == "c")
        for found in listed(wire, thread_id="t", accepts_edits=True)
    ]
    assert [value.version for value in values] == ["5", "4", "2", "2", "1"]
    assert values[0].value.data == b"small"
    assert values[1].edit == THREE.edit()
    assert values[2].edit == TWO.edit(THREE, "4", first=3)
    assert not values[3].HasField("edit")
    assert not values[3].HasField("value")
    assert values[4].edit == ONE.edit(TWO, "2", first=2, last=2)


def test_a_listing_for_an_old_client_has_whole_values(wire: Wire) -> None:
    assert write(wire, put("1", ONE.edit()), put("2", TWO.edit()), put("3", None, version="2")) == [""] * 3
    values = [found.channel_values[0] for found in listed(wire, thread_id="t")]
    assert [value.value.data for value in values] == [TWO.data, b"", ONE.data]
    assert not values[1].HasField("value")


def test_a_listing_of_many_threads_never_tells_one_against_another(wire: Wire) -> None:
    for thread in "tuv":
        assert write(wire, put("1", ONE.edit(), thread=thread)) == [""]
        assert write(wire, put("1", ONE.edit(), thread=thread, ns="n")) == [""]
    found = listed(wire, accepts_edits=True)
    assert [checkpoint.channel_values[0].edit for checkpoint in found] == [ONE.edit()] * 6


@pytest.mark.parametrize("edits", [True, False])
def test_a_long_listing_of_large_values_adds_up(wire: Wire, edits: bool) -> None:
    """Pages and slices, with values on both sides of what a page holds."""
    steps = [Large(parts(0, number, size=700_000)) for number in range(1, 7)]
    steps += [Large(parts(*range(number), size=300_000)) for number in range(1, 16)]
    for number, step in enumerate(steps):
        write_sliced(wire, put(f"{number:02}", step.edit()))
    found = listed(wire, thread_id="t", accepts_edits=edits)
    assert [checkpoint.ref.checkpoint_id for checkpoint in found] == [
        f"{number:02}" for number in reversed(range(len(steps)))
    ]
    bases: dict[tuple[str, bytes], bytes] = {}
    known: dict[bytes, bytes] = {}
    for checkpoint, step in zip(found, reversed(steps), strict=True):
        (only,) = checkpoint.channel_values
        if edits:
            data, recipe, known = whole(only.edit, bases, known)
            bases = {(only.version, only.edit.digest): recipe}
        else:
            data = only.value.data
        assert data == step.data
    if edits:
        brought = sum(len(one) for c in found for one in c.channel_values[0].edit.chunks)
        assert brought < 1.2 * (15 * 300_000 + 7 * 700_000)


def test_a_history_has_whole_values(wire: Wire) -> None:
    second = put("2", None, version="none")
    second.put.parent_checkpoint_id = "1"
    assert write(wire, put("1", ONE.edit()), second) == ["", ""]
    ref = pb.CheckpointRef(thread_id="t", checkpoint_id="2")
    answer = wire.call("GetChannelHistory", pb.GetChannelHistoryRequest(ref=ref, channels=["c"]))
    (message,) = answer.messages
    (seed,) = pb.GetChannelHistoryResponse.FromString(message).page.seeds
    assert seed.value == Blob(type="msgpack", data=ONE.data)


def test_a_copy_has_its_own_chunks(wire: Wire) -> None:
    assert write(wire, put("1", ONE.edit()), put("2", TWO.edit(ONE, "1", first=2, last=2))) == ["", ""]
    copy = pb.CopyThreadRequest(operation=operation(), source_thread_id="t", target_thread_id="copy")
    assert wire.call("CopyThread", copy).code is grpc.StatusCode.OK
    wire.call("DeleteThread", pb.DeleteThreadRequest(operation=operation(), thread_id="t"))
    plain, edit = results(
        wire, read("2", edits=False, thread="copy"), read("2", [held(ONE, "1")], thread="copy")
    )
    assert value(plain).value.data == TWO.data
    assert value(edit).edit == TWO.edit(ONE, "1", first=2, last=2)
    assert write(wire, put("3", THREE.edit(TWO, "2", first=3), thread="copy")) == [""]
