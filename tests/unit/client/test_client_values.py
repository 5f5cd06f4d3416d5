"""An edit and its base make the value again, and a damaged one never makes another."""

from __future__ import annotations

import dataclasses
import os
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from tenure.v1 import checkpoints_pb2 as pb
from tenure_client import chunks, cutting, values
from tenure_client.chunks import BadEdit
from tenure_client.cutting import Cutter
from tenure_client.values import Value, apply, tell

SERDE = JsonPlusSerializer()


@pytest.fixture(autouse=True, params=["pyfastcdc", "pure Python"])
def either_cutter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut with pyfastcdc, and without it."""
    if request.param == "pure Python":
        monkeypatch.setattr(cutting, "FastCDC", None)


def told(data: bytes, base: Value | None = None, version: str = "2") -> tuple[pb.ValueEdit, Value]:
    edit = pb.ValueEdit()
    value = tell(edit, "bytes", data, version, base)
    assert value is not None
    return edit, value


def listed(count: int) -> tuple[pb.ValueEdit, Value]:
    """Return a list of messages as the only content of a value."""
    tag, data = SERDE.dumps_typed([f"message {number} " * 20 for number in range(count)])
    edit = pb.ValueEdit()
    value = tell(edit, tag, data, "1", None)
    assert value is not None
    return edit, value


def random_bytes(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


pieces = st.tuples(st.integers(0, 20), st.integers(0, 6000) | st.sampled_from([0, 1, 511, 512, 513]))
contents = st.lists(pieces, max_size=6).map(
    lambda made: b"".join(random_bytes(seed, size) if seed else bytes(size) for seed, size in made)
)
changes = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 9000), st.binary(max_size=40) | contents), max_size=3
)
"""Where, how many bytes go there, and what comes instead."""


def changed(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for place, gone, new in edits:
        start = int(place * len(data))
        data = data[:start] + new + data[start + gone :]
    return data


@given(contents, changes)
def test_an_edit_and_its_base_make_the_value_again(
    data: bytes, edits: list[tuple[float, int, bytes]]
) -> None:
    _, base = told(data, version="1")
    new = changed(data, edits)

    edit, value = told(new, base)

    assert apply(edit, "2", base) == value
    assert value.data == new
    # Told bit by bit or at once, it is the same value.
    whole, alone = told(new)
    assert (value.recipe, value.digest, value.ends) == (alone.recipe, alone.digest, alone.ends)
    assert apply(whole, "2", None) == value


@given(contents, contents)
def test_any_value_can_be_told_against_any_other(data: bytes, new: bytes) -> None:
    _, base = told(data, version="1")

    edit, value = told(new, base)

    assert apply(edit, "2", base) == value
    assert value.data == new


def test_a_list_that_grows_sends_its_end_only() -> None:
    # The header of the list grows from one byte to three on the way.
    _, base = listed(15)
    for count in range(16, 60):
        tag, data = SERDE.dumps_typed([f"message {number} " * 20 for number in range(count)])
        edit = pb.ValueEdit()

        value = tell(edit, tag, data, "2", base)

        assert value is not None
        assert apply(edit, "2", base) == value
        assert edit.keep_first >= len(base.ends) - 1
        assert len(edit.header) == 1 if count < 16 else 3
        base = dataclasses.replace(value, version="1")


@pytest.mark.parametrize("place", [0, 1, 30_000, 59_999, 60_000])
@pytest.mark.parametrize("change", ["insert", "replace", "remove"])
def test_a_small_change_anywhere_sends_only_chunks_around_it(place: int, change: str) -> None:
    data = random_bytes(1, 60_000)
    _, base = told(data, version="1")
    new = data[:place] + b"" * (change == "remove") + b"!" * (change != "remove")
    new += data[place + (change != "insert") :]

    edit, value = told(new, base)

    assert apply(edit, "2", base).data == new
    assert edit.keep_first + edit.keep_last >= len(base.ends) - 4
    assert edit.keep_first + edit.keep_last + len(edit.entries) // 20 == len(value.ends)


def test_a_chunk_that_is_cut_out_sends_nothing() -> None:
    data = random_bytes(2, 60_000)
    _, base = told(data, version="1")
    start, end = base.ends[4], base.ends[5]

    edit, value = told(data[:start] + data[end:], base)

    assert not edit.chunks
    assert (edit.keep_first, edit.keep_last) == (5, len(base.ends) - 6)
    assert apply(edit, "2", base) == value


def test_the_same_value_again_sends_nothing_and_is_not_copied() -> None:
    data = random_bytes(3, 60_000)
    _, base = told(data, version="1")

    edit, value = told(data, base)
    again = apply(edit, "2", base)

    assert (len(edit.chunks), edit.keep_first, edit.keep_last) == (0, len(base.ends), 0)
    assert again == value
    assert again.data is base.data
    assert again.version == "2"


def test_a_chunk_that_repeats_travels_once() -> None:
    edit, value = told(bytes(200_000))

    assert len(value.ends) > 5
    assert len(edit.chunks) <= 2
    assert apply(edit, "2", None).data == bytes(200_000)


def test_a_value_with_too_many_chunks_is_not_told_as_an_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    _, base = told(random_bytes(4, 60_000))
    monkeypatch.setattr(chunks, "MAX_CHUNKS", len(base.ends))

    edit = pb.ValueEdit()

    assert tell(edit, "bytes", base.data + random_bytes(5, 60_000), "2", base) is None
    assert tell(edit, "bytes", base.data, "2", base) is not None


def test_chunks_of_a_base_that_was_cut_otherwise_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_bytes(6, 60_000)
    _, base = told(data, version="1")
    monkeypatch.setattr(values, "cutter_for", lambda _size: Cutter(16_384, 4096, 65_536))

    edit, value = told(data + b"end", base)

    assert edit.keep_first == len(base.ends) - 1
    assert apply(edit, "2", base) == value


@given(st.data())
def test_a_damaged_edit_never_makes_another_value(data: st.DataObject) -> None:
    old = random_bytes(7, 20_000)
    new = changed(old, [(0.5, 3000, random_bytes(8, 4000)), (1.0, 0, bytes(3000))])
    _, base = told(old, version="1")
    edit, _ = told(new, base) if data.draw(st.booleans(), "against the base") else told(new)
    name = data.draw(st.sampled_from([field.name for field in pb.ValueEdit.DESCRIPTOR.fields]))
    given_base = base if data.draw(st.booleans(), "with the base") else None
    if name == "chunks":
        place = data.draw(st.integers(0, len(edit.chunks) - 1))
        if data.draw(st.booleans(), "leave a chunk out"):
            del edit.chunks[place]
        else:
            edit.chunks[place] = damaged(edit.chunks[place], data)
    elif name in {"type", "base_version"}:
        setattr(edit, name, data.draw(st.sampled_from(["", "1", "msgpack"])))
    elif name.startswith("keep_"):
        setattr(edit, name, data.draw(st.integers(0, 30) | st.just(2**32 - 1)))
    else:
        setattr(edit, name, damaged(getattr(edit, name), data))

    try:
        value = apply(edit, "2", given_base)
    except BadEdit:
        return
    assert (value.type, value.data) == ("bytes", new)


def damaged(content: bytes, data: st.DataObject) -> bytes:
    place = data.draw(st.integers(0, len(content)))
    return (
        content[:place] + data.draw(st.binary(max_size=21)) + content[place + data.draw(st.integers(0, 21)) :]
    )


def forged(lengths: list[int], data: bytes) -> pb.ValueEdit:
    """Return an edit that is right in itself, with one chunk in place of so many."""
    packed = chunks.pack(data)
    entries = b"".join(chunks.entry(chunks.chunk_id(packed), length) for length in lengths)
    digest = chunks.recipe_digest("bytes", b"", entries)
    return pb.ValueEdit(type="bytes", digest=digest, entries=entries, chunks=[packed])


@pytest.mark.parametrize(
    "edit",
    [
        forged([0], b""),
        forged([chunks.MAX_CHUNK_BYTES + 1], bytes(chunks.MAX_CHUNK_BYTES + 1)),
        forged([10, 9], b"0123456789"),
        forged([chunks.MAX_CHUNK_BYTES] * 1025, bytes(chunks.MAX_CHUNK_BYTES)),
    ],
    ids=["empty chunk", "large chunk", "two lengths", "more than a GiB"],
)
def test_what_no_client_would_send_is_refused(edit: pb.ValueEdit) -> None:
    with pytest.raises(BadEdit):
        apply(edit, "2", None)


def test_an_edit_that_keeps_more_than_there_is_is_refused() -> None:
    _, base = told(random_bytes(11, 20_000), version="1")
    count = len(base.ends)
    whole: Any = {"type": "bytes", "digest": base.digest}
    against: Any = {"base_version": "1", "base_digest": base.digest}

    with pytest.raises(BadEdit, match="more chunks"):
        apply(pb.ValueEdit(**whole, **against, keep_first=count + 1), "2", base)
    with pytest.raises(BadEdit, match="more chunks"):
        apply(pb.ValueEdit(**whole, **against, keep_last=count + 1), "2", base)
    with pytest.raises(BadEdit, match="more chunks"):
        apply(pb.ValueEdit(**whole, keep_first=count), "2", base)


def test_an_edit_against_another_value_is_refused() -> None:
    _, base = told(random_bytes(9, 20_000), version="1")
    _, other = told(random_bytes(10, 20_000), version="1")
    edit, _ = told(base.data + b"end", base)

    for held in (None, other):
        with pytest.raises(BadEdit, match="another value"):
            apply(edit, "2", held)


def test_the_size_of_a_value_counts_what_it_keeps() -> None:
    _, value = told(os.urandom(50_000))
    kept: list[Any] = [value.data, value.recipe]

    assert sum(map(len, kept)) < value.size < 60_000
