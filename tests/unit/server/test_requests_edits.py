"""Large values come in as edits: what they state is checked chunk by chunk, and refused by name."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import common_pb2
from tenure_server import errors
from tenure_server.chunks import chunk_id
from tenure_server.domain import Base, HeldValue, PutCheckpoint, ValueEdit
from tenure_server.limits import Limits
from tenure_server.wire.edits import weight
from tenure_server.wire.requests import Requests
from tenure_server.wire.telling import Reader

from tests.harness.chunked import Large, entry, raw, zstd
from tests.unit.server.test_chunks import lying_frame
from tests.unit.server.test_requests import BLOB, LONG, NUL, OPERATION, REF, Parse, refused

LIMITS = Limits(max_chunks=6, max_operation_bytes=3 << 20)
REQUESTS = Requests(LIMITS)
BASE = Large([b"one", b"three", b"seventh"])
VALUE = Large([b"one", b"four", b"fifth", b"four", b"seventh"])


def _put(edit: pb.ValueEdit | None = None) -> pb.Mutation:
    edit = edit or VALUE.edit(BASE, "i:1", first=1, last=1)
    return pb.Mutation(
        operation=OPERATION,
        put=pb.PutCheckpoint(
            ref=REF,
            checkpoint=BLOB,
            channel_versions=[pb.ChannelVersion(channel="a", version="i:2")],
            new_values=[pb.ChannelValue(channel="a", version="i:2", edit=edit)],
        ),
    )


def _whole() -> pb.Mutation:
    return _put(VALUE.edit())


def _read() -> pb.CheckpointRead:
    held = pb.HeldValue(channel="a", version="i:1", digest=BASE.digest)
    return pb.CheckpointRead(operation=OPERATION, ref=REF, accepts_edits=True, held=[held])


PARSERS: dict[str, tuple[Callable[[], Message], Parse]] = {
    "put by edit": (_put, lambda message: REQUESTS.mutation(message, "m")),
    "put of all chunks": (_whole, lambda message: REQUESTS.mutation(message, "m")),
    "read with what is held": (_read, lambda message: REQUESTS.read(message, "r")),
}


def _edit(message: pb.Mutation) -> ValueEdit:
    put = REQUESTS.mutation(message, "m")
    assert isinstance(put, PutCheckpoint)
    (new,) = put.new_values
    assert isinstance(new.value, ValueEdit)
    return new.value


def test_an_edit() -> None:
    four, fifth = VALUE.packed[1:3]
    assert _edit(_put()) == ValueEdit(
        type="msgpack",
        header=b"header",
        digest=VALUE.digest,
        base=Base("i:1", BASE.digest),
        keep_first=1,
        keep_last=1,
        entries=b"".join(VALUE.entries[1:4]),
        chunks={chunk_id(four): four, chunk_id(fifth): fifth},
    )


def test_a_value_told_against_nothing() -> None:
    edit = _edit(_whole())
    assert (edit.base, edit.keep_first, edit.keep_last, edit.entries) == (None, 0, 0, VALUE.recipe)
    assert list(edit.chunks.values()) == list(dict.fromkeys(VALUE.packed))


def test_a_value_without_chunks() -> None:
    edit = _edit(_put(Large([], header=b"h" * 64).edit()))
    assert (edit.header, edit.entries, edit.chunks) == (b"h" * 64, b"", {})


def test_what_a_reader_holds() -> None:
    held = {"a": HeldValue("a", "i:1", BASE.digest)}
    assert REQUESTS.read(_read(), "r")[2] == Reader(accepts_edits=True, held=held)


def test_what_is_held_means_nothing_to_a_reader_that_takes_no_edits() -> None:
    message = _read()
    message.accepts_edits = False
    assert REQUESTS.read(message, "r")[2] == Reader()


def test_a_listing_that_takes_edits() -> None:
    assert REQUESTS.list(pb.ListRequest(accepts_edits=True))[3] == Reader(accepts_edits=True)


Change = Callable[[Any], None]


def _set(**changes: Any) -> Change:
    """Change fields of the edit."""

    def change(message: pb.Mutation) -> None:
        edit = message.put.new_values[0].edit
        for name, value in changes.items():
            edit.ClearField(name)
            if isinstance(value, list):
                getattr(edit, name).extend(value)
            else:
                setattr(edit, name, value)

    return change


def _chunks(*packed: tuple[bytes, int]) -> Change:
    """Replace entries and chunks."""
    return _set(
        entries=b"".join(entry(data, length) for data, length in packed), chunks=[data for data, _ in packed]
    )


def _beside(message: pb.Mutation) -> None:
    message.put.new_values[0].value.CopyFrom(common_pb2.Blob(type="msgpack"))


def _held(count: int = 1, **changes: Any) -> Change:
    def change(message: pb.CheckpointRead) -> None:
        for number in range(count):
            default = {"channel": f"b{number}", "version": "1", "digest": bytes(16)}
            message.held.add(**default | changes)

    return change


EDIT = "m.put.new_values.edit"
MIB = 1 << 20
REFUSALS: list[tuple[str, Change, str]] = [
    ("put by edit", _beside, EDIT),
    *(
        ("put by edit", _set(**{name: value}), f"{EDIT}.{name}")
        for name, values in {
            "type": ["", "pickle", "json", "pickle+aes", "x" * 65, NUL, "empty"],
            "header": [b"h" * 65],
            "digest": [b"", b"d" * 15, b"d" * 17],
            "base_version": [LONG, NUL],
            "base_digest": [b"", b"d" * 15],
            "entries": [b"e" * 19, b"e" * 61],
            "chunks": [[], VALUE.packed[1:2], [*VALUE.packed[1:3], raw(b"more")]],
        }.items()
        for value in values
    ),
    ("put by edit", _set(keep_first=3), f"{EDIT}.entries"),
    ("put by edit", _set(keep_last=2**32 - 1), f"{EDIT}.entries"),
    ("put of all chunks", _set(entries=VALUE.recipe + VALUE.entries[1] * 2), f"{EDIT}.entries"),
    ("put of all chunks", _set(base_digest=BASE.digest), f"{EDIT}.base_digest"),
    ("put of all chunks", _set(keep_first=1), f"{EDIT}.keep_first"),
    ("put of all chunks", _set(keep_last=1), f"{EDIT}.keep_last"),
    ("put of all chunks", _set(digest=bytes(16)), f"{EDIT}.digest"),
    ("put of all chunks", _set(header=b"another"), f"{EDIT}.digest"),
    ("put by edit", _set(chunks=VALUE.packed[2:0:-1]), f"{EDIT}.chunks"),
    ("put by edit", _set(chunks=[raw(b"some"), VALUE.packed[2]]), f"{EDIT}.chunks"),
    ("put by edit", _chunks((raw(b""), 0)), f"{EDIT}.entries"),
    ("put by edit", _chunks((raw(bytes(MIB + 1)), MIB + 1)), f"{EDIT}.entries"),
    ("put by edit", _chunks((zstd(b"a"), 1), (zstd(b"a"), 2)), f"{EDIT}.entries"),
    ("put by edit", _chunks((zstd(b"a" * 100), 100), (zstd(b"a" * 100), 100)), f"{EDIT}.chunks"),
    ("put by edit", _chunks(*((zstd(b"%d" % n * MIB), MIB) for n in range(4))), f"{EDIT}.entries"),
    ("put by edit", _chunks((raw(b"abc"), 4)), f"{EDIT}.chunks"),
    ("put by edit", _chunks((raw(b"abc"), 2)), f"{EDIT}.chunks"),
    ("put by edit", _chunks((zstd(b"abc"), 4)), f"{EDIT}.chunks"),
    ("put by edit", _chunks((b"", 1)), f"{EDIT}.chunks"),
    ("put by edit", _chunks((b"\2a", 1)), f"{EDIT}.chunks"),
    ("put by edit", _chunks((b"\1abcd", 1)), f"{EDIT}.chunks"),
    ("put by edit", _chunks((lying_frame(1 << 30), MIB)), f"{EDIT}.chunks"),
    ("put by edit", _chunks((lying_frame(5), 5)), f"{EDIT}.chunks"),
    # A frame of empty blocks: large packed, nothing raw.
    ("put by edit", _chunks((zstd(b"a") + bytes(300), 1)), f"{EDIT}.chunks"),
    ("read with what is held", _held(channel=""), "r.held.channel"),
    ("read with what is held", _held(channel=LONG), "r.held.channel"),
    ("read with what is held", _held(version=NUL), "r.held.version"),
    ("read with what is held", _held(version=""), "r.held.version"),
    ("read with what is held", _held(digest=b"d" * 15), "r.held.digest"),
    ("read with what is held", _held(channel="a"), "r.held"),
    ("read with what is held", _held(1024), "r.held"),
]


@pytest.mark.parametrize(("kind", "change", "field"), REFUSALS, ids=range(len(REFUSALS)))
def test_a_refusal_names_its_field(kind: str, change: Change, field: str) -> None:
    make, parse = PARSERS[kind]
    message = make()
    parse(message)
    change(message)
    assert refused(parse, message) == field


def test_one_chunk_at_a_time_is_inflated() -> None:
    message = _whole()
    _chunks(*((zstd(bytes([number]) * MIB), MIB) for number in range(3)))(message)
    tracemalloc.start()
    try:
        assert refused(lambda m: REQUESTS.mutation(m, "m"), message) == f"{EDIT}.digest"
        message.put.new_values[0].edit.base_version = "1"
        message.put.new_values[0].edit.base_digest = bytes(16)
        REQUESTS.mutation(message, "m")
        assert tracemalloc.get_traced_memory()[1] < 1.5 * MIB
    finally:
        tracemalloc.stop()


def test_the_weight_of_a_put_is_what_its_new_chunks_have_raw() -> None:
    assert weight(_put().put) == len(b"fourfifthfour")
    assert weight(_whole().put) == len(VALUE.data) - len(VALUE.header)
    assert weight(_put(pb.ValueEdit(entries=b"cut short")).put) == 0
    assert weight(pb.PutCheckpoint(new_values=[pb.ChannelValue(value=BLOB)])) == 0


def test_a_refusal_of_too_much_names_the_limit() -> None:
    message = _put()
    _set(keep_first=100)(message)
    with pytest.raises(errors.LimitExceeded) as caught:
        REQUESTS.mutation(message, "m")
    assert (caught.value.metadata["limit"], caught.value.metadata["maximum"]) == ("max_chunks", "6")
