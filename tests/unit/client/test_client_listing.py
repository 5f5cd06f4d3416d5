"""A listing goes on after its stream was lost, without repeating or skipping a checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import common_pb2
from tenure_client import slices
from tenure_client.errors import DeadlineExceeded, InvalidRequest, Unavailable, UnreadableValue
from tenure_client.listing import Listing
from tenure_client.retry import Budget
from tenure_client.tracing import Operation
from tenure_client.values import Value, tell

Name = tuple[str, str, str]
NAMES = st.lists(
    st.tuples(st.sampled_from("12345"), st.sampled_from(["t", "u", "v"]), st.sampled_from(["", "ns"])),
    unique=True,
    max_size=12,
)


def in_order(names: list[Name]) -> list[Name]:
    return sorted(sorted(names, key=lambda name: name[1:]), key=lambda name: name[0], reverse=True)


def checkpoint(name: Name, *values: pb.ChannelValue) -> pb.Checkpoint:
    checkpoint_id, thread_id, namespace = name
    ref = pb.CheckpointRef(thread_id=thread_id, checkpoint_ns=namespace, checkpoint_id=checkpoint_id)
    return pb.Checkpoint(ref=ref, channel_values=values)


def page(*checkpoints: pb.Checkpoint) -> pb.ListResponse:
    return pb.ListResponse(page=pb.CheckpointPage(checkpoints=checkpoints))


def name_of(checkpoint: pb.Checkpoint, _values: Any) -> Name:
    return checkpoint.ref.checkpoint_id, checkpoint.ref.thread_id, checkpoint.ref.checkpoint_ns


def value(version: str, data: bytes | None) -> pb.ChannelValue:
    blob = None if data is None else common_pb2.Blob(type="bytes", data=data)
    return pb.ChannelValue(channel="c", version=version, value=blob)


def begin(listing: Listing[Any]) -> pb.ListRequest:
    return listing.begin(Budget(10), Operation())[1]


def answer(stored: list[Name], request: pb.ListRequest) -> list[Name]:
    """Return what a server answers."""
    names = [
        name
        for name in in_order(stored)
        if not request.before_checkpoint_id or name[0] < request.before_checkpoint_id
    ]
    return names[: request.limit] if request.HasField("limit") else names


@given(NAMES, st.lists(st.integers(0, 4)), st.none() | st.integers(0, 8), st.sampled_from(["", "3", "5"]))
def test_lost_streams_change_nothing(
    stored: list[Name], lost_after: list[int], limit: int | None, before: str
) -> None:
    request = pb.ListRequest(before_checkpoint_id=before, limit=limit)
    listing = Listing(request, name_of)
    found: list[Name] = []
    budget = Budget(10)

    while not listing.done:
        names = answer(stored, begin(listing))
        lost = lost_after.pop(0) if lost_after else None
        for name in names[:lost]:
            found += listing.items(page(checkpoint(name)))
        if lost is None:
            listing.finish()
        else:
            listing.failed(Unavailable("lost"))
        if listing.failure is not None:
            budget, _ = listing.recover(budget, 10)

    assert found == answer(stored, request)


def test_what_is_stored_meanwhile_does_not_count_against_the_limit() -> None:
    stored = [("5", "t", ""), ("4", "t", "")]
    listing = Listing(pb.ListRequest(limit=2), name_of)
    begin(listing)
    found = list(listing.items(page(checkpoint(("5", "t", "")))))
    listing.failed(Unavailable("lost"))

    again = answer([("7", "t", ""), ("6", "t", ""), *stored], begin(listing))
    found += listing.items(page(*map(checkpoint, again)))

    assert found == stored


def test_a_limit_of_none_asks_nothing_of_the_server() -> None:
    assert Listing(pb.ListRequest(limit=0), name_of).done


def test_nothing_is_handed_out_beyond_the_limit() -> None:
    listing = Listing(pb.ListRequest(limit=1), name_of)
    begin(listing)

    found = list(listing.items(page(checkpoint(("2", "t", "")), checkpoint(("1", "t", "")))))

    assert found == [("2", "t", "")]
    assert listing.done


def test_an_omitted_value_is_that_of_the_checkpoint_just_before() -> None:
    listing = Listing(pb.ListRequest(), lambda _, values: values["c"].data)
    begin(listing)

    found = list(
        listing.items(
            page(
                checkpoint(("3", "t", ""), value("v1", b"one")),
                checkpoint(("2", "t", ""), value("v1", None)),
                checkpoint(("1", "t", ""), value("v2", b"two")),
            )
        )
    )

    assert found == [b"one", b"one", b"two"]


def test_a_value_that_was_never_sent_is_noticed() -> None:
    listing = Listing(pb.ListRequest(), name_of)
    begin(listing)
    first = checkpoint(("2", "t", ""), value("v1", b"one"))
    elsewhere = checkpoint(("1", "u", ""), value("v1", None))

    with pytest.raises(UnreadableValue):
        list(listing.items(page(first, elsewhere)))


def edited(version: str, data: bytes, base: Value | None) -> tuple[pb.ChannelValue, Value]:
    message = pb.ChannelValue(channel="c", version=version)
    made = tell(message.edit, "bytes", data, version, base)
    assert made is not None
    return message, made


LARGE = bytes(range(256)) * 100


def test_a_listing_takes_edits_against_the_checkpoint_just_before() -> None:
    listing = Listing(pb.ListRequest(), lambda _, values: values["c"].data)
    first, base = edited("v3", LARGE + b"end", None)
    second, _ = edited("v2", LARGE, base)

    assert begin(listing).accepts_edits
    found = list(
        listing.items(
            page(
                checkpoint(("3", "t", ""), first),
                checkpoint(("2", "t", ""), second),
                checkpoint(("1", "t", ""), value("v2", None)),
            )
        )
    )

    assert second.edit.base_version == "v3"
    assert found == [LARGE + b"end", LARGE, LARGE]


@pytest.mark.parametrize("between", [[], [("2", "u", "")], [("2", "t", "ns")]])
def test_a_value_told_against_any_other_checkpoint_is_noticed(between: list[Name]) -> None:
    listing = Listing(pb.ListRequest(), name_of)
    begin(listing)
    first, base = edited("v3", LARGE + b"end", None)
    second, _ = edited("v2", LARGE, base)
    before = [checkpoint(("3", "t", ""), first)] if between else []

    with pytest.raises(UnreadableValue):
        list(listing.items(page(*before, *map(checkpoint, between), checkpoint(("1", "t", ""), second))))


def test_a_new_stream_has_no_checkpoint_before() -> None:
    listing = Listing(pb.ListRequest(), name_of)
    begin(listing)
    first, base = edited("v3", LARGE + b"end", None)
    list(listing.items(page(checkpoint(("3", "t", ""), first))))
    listing.failed(Unavailable("lost"))
    begin(listing)

    with pytest.raises(UnreadableValue):
        list(listing.items(page(checkpoint(("2", "t", ""), edited("v2", LARGE, base)[0]))))


def test_a_large_page_comes_in_slices() -> None:
    listing = Listing(pb.ListRequest(), name_of)
    begin(listing)
    large = pb.CheckpointPage(checkpoints=[checkpoint(("1", "t", ""), value("v", bytes(600_000)))])

    found = [list(listing.items(pb.ListResponse(slice=part))) for part in slices.split(large)]

    assert found == [[], [], [("1", "t", "")]]


def test_a_slow_reader_gets_new_time_with_each_stream() -> None:
    listing = Listing(pb.ListRequest(), name_of)
    begin(listing)
    list(listing.items(page(checkpoint(("2", "t", "")))))
    listing.failed(DeadlineExceeded("the reader was slow"))

    _, pause = listing.recover(Budget(0), 10)

    assert pause == 0
    assert begin(listing).before_checkpoint_id == ""


def test_time_without_any_checkpoint_runs_out() -> None:
    listing = Listing(pb.ListRequest(), name_of)
    begin(listing)
    listing.failed(DeadlineExceeded("nothing came"))

    with pytest.raises(DeadlineExceeded, match="nothing came"):
        listing.recover(Budget(10), 10)


def test_what_a_repeat_cannot_mend_ends_the_listing() -> None:
    listing = Listing(pb.ListRequest(), name_of)
    begin(listing)
    list(listing.items(page(checkpoint(("2", "t", "")))))
    listing.failed(InvalidRequest("no"))

    with pytest.raises(InvalidRequest):
        listing.recover(Budget(10), 10)


def test_streams_of_one_listing_share_the_operation() -> None:
    listing = Listing(pb.ListRequest(), name_of)
    first = begin(listing)
    listing.failed(Unavailable("lost"))

    assert len(first.operation.operation_id) == 16
    assert begin(listing).operation.operation_id == first.operation.operation_id
