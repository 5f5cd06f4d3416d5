"""Client and server do not import each other, and follow the same rules of chunks, ids and digests."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenure.v1 import checkpoints_pb2 as pb
from tenure_client import chunks as ours
from tenure_client.values import Value, apply, tell
from tenure_server import chunks as theirs
from tenure_server.limits import Limits
from tenure_server.wire import edits

TYPES = st.sampled_from(["msgpack", "bytes", "msgpack+aes", "é"])


def told(data: bytes, base: Value | None = None, version: str = "2") -> tuple[pb.ValueEdit, Value]:
    edit = pb.ValueEdit()
    value = tell(edit, "msgpack", data, version, base)
    assert value is not None
    return edit, value


def grown(seed: int) -> tuple[bytes, bytes]:
    """Return a list and another one with another length and a change inside."""
    data = b"\xdc\x01\x00" + random.Random(seed).randbytes(30_000) + b"text " * 2000
    return data, b"\xdc\x01\x01" + data[3:9000] + b"changed" + data[9010:]


@given(st.binary(min_size=1, max_size=4000))
def test_chunks_that_the_client_packs_are_what_the_server_unpacks(raw: bytes) -> None:
    packed = ours.pack(raw)

    assert ours.chunk_id(packed) == theirs.chunk_id(packed)
    assert theirs.unpack(packed, len(raw)) == raw == ours.unpack(packed, len(raw))


@given(TYPES, st.binary(max_size=64), st.binary(max_size=10).map(lambda raw: raw * 20))
def test_digests_and_entries_are_the_same(type: str, header: bytes, recipe: bytes) -> None:
    assert ours.recipe_digest(type, header, recipe) == theirs.recipe_digest(type, header, recipe)
    assert list(ours.entries(recipe)) == list(theirs.entries(recipe))


def test_caps_of_the_client_are_within_those_of_the_server() -> None:
    assert ours.MAX_CHUNK_BYTES <= theirs.MAX_CHUNK_BYTES
    assert Limits().max_chunks >= ours.MAX_CHUNKS
    assert ours.ENTRY_BYTES == theirs.ENTRY_BYTES


@pytest.mark.parametrize("seed", range(3))
def test_the_server_takes_the_edits_of_the_client(seed: int) -> None:
    data, longer = grown(seed)
    whole, base = told(data, version="1")
    change, value = told(longer, base)

    stored = edits.edit("edit", whole, Limits())
    new = edits.edit("edit", change, Limits())
    recipe = (
        stored.entries[: new.keep_first * theirs.ENTRY_BYTES]
        + new.entries
        + stored.entries[len(stored.entries) - new.keep_last * theirs.ENTRY_BYTES :]
    )

    assert new.base is not None
    assert (new.base.version, new.base.digest) == ("1", stored.digest)
    assert recipe == value.recipe
    assert theirs.recipe_digest(new.type, new.header, recipe) == new.digest
    assert theirs.assemble(new.header, recipe, {**stored.chunks, **new.chunks}) == longer


@pytest.mark.parametrize("seed", range(3))
def test_the_client_takes_the_edits_of_the_server(seed: int) -> None:
    data, longer = grown(seed)
    whole, base = told(data, version="1")
    full, value = told(longer)
    packed = {ours.chunk_id(chunk): chunk for edit in (whole, full) for chunk in edit.chunks}

    first, last, between = theirs.difference(base.recipe, value.recipe)
    edit = pb.ValueEdit(
        type=value.type,
        header=value.data[: value.header_size],
        digest=value.digest,
        base_version="1",
        base_digest=base.digest,
        keep_first=first,
        keep_last=last,
        entries=between,
        chunks=[packed[chunk] for chunk in theirs.ids(between)],
    )

    assert first
    assert last
    assert apply(edit, "2", base) == value
