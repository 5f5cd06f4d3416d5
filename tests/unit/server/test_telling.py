"""How a checkpoint is told: what its reader has is kept, and what goes is known in size and adds up."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenure.v1 import checkpoints_pb2 as pb
from tenure_server import chunks
from tenure_server.domain import Base, Blob, Checkpoint, Head, HeldValue, Recipe, ValueEdit, ValueRef
from tenure_server.wire import replies
from tenure_server.wire.telling import WHOLE, Reader, Telling

from tests.harness.chunked import Large, whole

KEY = uuid4()
OLD = Large([b"one", b"three", b"seventh"])
NEW = Large([b"one", b"four", b"fifth", b"four", b"seventh"])
SMALL = Blob("msgpack", b"small")


def ref(value: Large | Blob, channel: str = "c", version: str = "2") -> ValueRef:
    if isinstance(value, Blob):
        return ValueRef(channel, version, value.digest(), len(value.data))
    recipe = Recipe(value.type, value.header, value.recipe)
    return ValueRef(channel, version, value.digest, len(value.data), recipe)


def head(
    *values: ValueRef, bases: Mapping[str, bytes] | None = None, key: UUID = KEY, ns: str = "ns"
) -> Head:
    return Head("t", key, 1, ns, "2", None, Blob("msgpack", b"body"), "{}", values, [], bases=bases or {})


def held(value: Large, version: str = "1") -> Reader:
    return Reader(accepts_edits=True, held={"c": HeldValue("c", version, value.digest)})


def packed(*values: Large) -> dict[bytes, bytes]:
    return {chunks.chunk_id(one): one for value in values for one in value.packed}


def told(telling: Telling, bodies: Mapping[int, Blob] | None = None) -> list[Blob | ValueEdit | None]:
    """Fetch what a telling asks for, and nothing else."""
    have = packed(OLD, NEW)
    return telling.values(bodies or {}, {chunk: have[chunk] for chunk in telling.chunks()})


def test_who_takes_no_edits_gets_every_value_whole() -> None:
    telling = WHOLE.tell(head(ref(NEW), ref(SMALL, "small")))
    assert telling.bodies() == [1]
    assert telling.chunks() == chunks.ids(NEW.recipe)
    assert told(telling, {1: SMALL}) == [Blob("msgpack", NEW.data), SMALL]


def test_what_the_reader_holds_brings_nothing() -> None:
    telling = held(NEW, "7").tell(head(ref(NEW)))
    assert telling.chunks() == []
    assert told(telling) == [
        ValueEdit("msgpack", b"header", NEW.digest, Base("7", NEW.digest), 5, 0, b"", {})
    ]


def test_what_the_reader_holds_in_another_version_is_a_base() -> None:
    telling = held(OLD).tell(head(ref(NEW), bases={"c": OLD.recipe}))
    between = b"".join(NEW.entries[1:4])
    assert telling.chunks() == chunks.ids(between)
    assert told(telling) == [
        ValueEdit(
            "msgpack",
            b"header",
            NEW.digest,
            Base("1", OLD.digest),
            1,
            1,
            between,
            packed(Large([b"four", b"fifth"])),
        )
    ]


WHOLE_EDIT = ValueEdit("msgpack", b"header", NEW.digest, None, 0, 0, NEW.recipe, packed(NEW))


@pytest.mark.parametrize(
    ("reader", "bases"),
    [
        (Reader(accepts_edits=True), {}),
        (held(OLD), {}),
        (held(Large([b"other"])), {"c": Large([b"other"]).recipe}),
        (Reader(accepts_edits=True, held={"d": HeldValue("d", "1", NEW.digest)}), {"d": NEW.recipe}),
    ],
    ids=["holds nothing", "its value is gone", "nothing in common", "another channel"],
)
def test_without_a_base_all_chunks_go(reader: Reader, bases: Mapping[str, bytes]) -> None:
    assert told(reader.tell(head(ref(NEW), bases=bases))) == [WHOLE_EDIT]


def test_a_base_is_nothing_to_a_value_that_is_stored_whole() -> None:
    telling = held(OLD).tell(head(ref(SMALL), bases={"c": OLD.recipe}))
    assert told(telling, {0: SMALL}) == [SMALL]


def test_in_a_stream_the_checkpoint_before_is_the_base() -> None:
    before = head(ref(OLD, version="1"), ref(SMALL, "small"), ref(NEW, "same", "5"))
    now = head(ref(NEW), ref(SMALL, "small"), ref(NEW, "same", "5"), ref(NEW, "new"))
    telling = Reader(accepts_edits=True, before=before).tell(now)
    assert telling.bodies() == []
    edit, small, same, new = told(telling)
    assert isinstance(edit, ValueEdit)
    assert (edit.base, edit.keep_first, edit.keep_last) == (Base("1", OLD.digest), 1, 1)
    assert (small, same, new) == (None, None, WHOLE_EDIT)


def test_in_a_stream_a_version_with_other_bytes_is_told() -> None:
    before = head(ref(OLD), ref(SMALL, "small"))
    other = Blob("msgpack", b"other")
    telling = Reader(before=before).tell(head(ref(NEW), ref(other, "small")))
    assert told(telling, {1: other}) == [Blob("msgpack", NEW.data), other]


@pytest.mark.parametrize("before", [head(ref(NEW), key=uuid4()), head(ref(NEW), ns="other")])
def test_in_a_stream_another_thread_or_namespace_is_no_base(before: Head) -> None:
    assert told(Reader(accepts_edits=True, before=before).tell(head(ref(NEW)))) == [WHOLE_EDIT]


def test_values_at_hand_are_not_fetched() -> None:
    at_hand = Head("t", KEY, 1, "", "2", None, SMALL, "{}", [ref(SMALL), ref(NEW, "d")], [], [SMALL, None])
    telling = Reader(accepts_edits=True).tell(at_hand)
    assert telling.bodies() == []
    assert told(telling) == [SMALL, WHOLE_EDIT]


PARTS = st.lists(st.sampled_from([b"a", b"bb", b"ccc", b"d" * 300, b"e" * 999]), max_size=8)


@given(PARTS, PARTS, st.booleans(), st.sampled_from(["read", "list", "whole"]))
def test_a_reader_gets_the_value_in_no_more_bytes_than_said(
    old_parts: list[bytes], new_parts: list[bytes], stored: bool, kind: str
) -> None:
    old, new = Large(old_parts), Large(new_parts, header=b"new")
    now = head(ref(new), bases={"c": old.recipe} if stored else {})
    before = head(ref(old, version="1")) if stored else None
    reader = {
        "read": held(old),
        "list": Reader(accepts_edits=True, before=before),
        "whole": WHOLE,
    }[kind]
    telling = reader.tell(now)
    have = packed(old, new)
    values = telling.values({}, {chunk: have[chunk] for chunk in telling.chunks()})
    message = pb.Checkpoint()
    replies.fill_checkpoint(message, Checkpoint(now, values))
    assert message.ByteSize() <= telling.size()
    (only,) = message.channel_values
    if kind == "whole":
        assert (only.HasField("edit"), only.value.data) == (False, new.data)
    else:
        assert not only.HasField("value")
        data, recipe, _ = whole(only.edit, {("1", old.digest): old.recipe}, packed(old))
        assert (data, recipe) == (new.data, new.recipe)


def test_a_held_value_has_almost_no_size() -> None:
    large = Large([bytes([n]) * (1 << 20) for n in range(16)])
    telling = held(large).tell(head(ref(large)))
    assert telling.size() < 1000
    assert WHOLE.tell(head(ref(large))).size() > 16 << 20


def test_a_damaged_chunk_is_noticed() -> None:
    telling = WHOLE.tell(head(ref(NEW)))
    with pytest.raises(chunks.BadChunk):
        telling.values({}, dict.fromkeys(telling.chunks(), b"\x00damaged"))


def test_an_edit_goes_out_as_it_came_in() -> None:
    edit = NEW.edit(OLD, "1", first=1, last=1)
    (value,) = told(held(OLD).tell(head(ref(NEW), bases={"c": OLD.recipe})))
    assert isinstance(value, ValueEdit)
    for sent, expected in ((value, edit), (WHOLE_EDIT, NEW.edit())):
        message = pb.ValueEdit()
        replies.fill_edit(message, sent)
        assert message == expected
    assert pb.ValueEdit.FromString(edit.SerializeToString()) == edit
