"""Chunks and their recipes, as `ValueEdit` in checkpoints.proto describes them."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Iterator

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from tenure_client import chunks, cutting
from tenure_client.chunks import BadEdit
from tenure_client.cutting import Cutter, cutter_for

TEXT = b"the quick brown fox jumps over the lazy dog. " * 60
MIB = 1024 * 1024


@pytest.fixture(params=["pyfastcdc", "pure Python"])
def either_cutter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Cut with pyfastcdc, and without it."""
    if request.param == "pure Python":
        monkeypatch.setattr(cutting, "FastCDC", None)
    return str(request.param)


def cut(cutter: Cutter, data: bytes) -> list[bytes]:
    ends = list(cutter.ends(memoryview(data)))
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(st.binary(min_size=1, max_size=5000))
def test_a_chunk_comes_back(raw: bytes) -> None:
    assert chunks.unpack(chunks.pack(raw), len(raw)) == raw


def test_what_compresses_well_is_compressed_and_states_its_size() -> None:
    packed = chunks.pack(TEXT)

    assert packed[0] == 1
    assert zstandard.frame_content_size(packed[1:]) == len(TEXT)
    assert len(packed) < len(TEXT) / 2


def test_what_does_not_compress_is_left_as_it_is() -> None:
    raw = os.urandom(3000)

    assert chunks.pack(raw) == b"\0" + raw


def test_saving_less_than_an_eighth_is_not_worth_it() -> None:
    raw = os.urandom(2700) + bytes(300)

    assert len(zstandard.compress(raw)) < len(raw)
    assert chunks.pack(raw) == b"\0" + raw


def test_equal_chunks_are_packed_alike_whatever_came_before_and_on_every_thread() -> None:
    packed = {chunks.pack(TEXT)}
    for other in (os.urandom(5000), b"fox" * 900, TEXT):
        packed.add(chunks.pack(TEXT))
        chunks.pack(other)
    threads = [threading.Thread(target=lambda: packed.add(chunks.pack(TEXT))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(packed) == 1


def lying_frame(stated: int) -> bytes:
    """Return a packed frame of 10 MiB that states another size."""
    frame = zstandard.ZstdCompressor().compress(bytes(10 * MIB))
    blocks = frame[zstandard.frame_header_size(frame) :]
    # Magic, a descriptor for a size of eight bytes in a single segment, the size; then the blocks.
    return b"\1\x28\xb5\x2f\xfd\xe0" + stated.to_bytes(8, "little") + blocks


@pytest.mark.parametrize(
    ("packed", "length"),
    [
        (b"", 0),
        (b"", 1),
        (b"\2abc", 3),
        (b"\0abc", 2),
        (b"\0abc", 4),
        (b"\1", 1),
        (b"\1not a frame", 5),
        (chunks.pack(TEXT), len(TEXT) - 1),
        (chunks.pack(TEXT), len(TEXT) + 1),
        (chunks.pack(TEXT)[:-3], len(TEXT)),
        (chunks.pack(TEXT) + b"x", len(TEXT)),
        (b"\1" + zstandard.ZstdCompressor(write_content_size=False).compress(TEXT), len(TEXT)),
        (lying_frame(100), 100),
        (lying_frame(1 << 40), 100),
    ],
)
def test_a_chunk_that_is_not_what_its_entry_says_is_refused(packed: bytes, length: int) -> None:
    with pytest.raises(BadEdit):
        chunks.unpack(packed, length)


def test_ids_and_digests_are_those_of_the_protocol() -> None:
    packed, recipe = chunks.pack(TEXT), b"r" * 20
    said = b"\0\0\0\7msgpack" + b"\0\0\0\1\x93" + recipe

    assert chunks.chunk_id(packed) == hashlib.blake2b(packed, digest_size=16).digest()
    assert chunks.entry(b"i" * 16, 258) == b"i" * 16 + b"\0\0\1\2"
    assert chunks.recipe_digest("msgpack", b"\x93", recipe) == hashlib.sha256(said).digest()[:16]


def test_a_recipe_that_ends_amid_an_entry_is_refused() -> None:
    with pytest.raises(BadEdit):
        list(chunks.entries(b"r" * 21))


@pytest.mark.parametrize("count", [0, 15, 16, 65_535, 65_536])
@pytest.mark.parametrize("kind", [list, dict])
def test_the_header_of_a_container_is_what_counts_its_elements(kind: type, count: int) -> None:
    tag, data = JsonPlusSerializer().dumps_typed(kind.fromkeys(range(count)) if kind is dict else [0] * count)
    _, longer = JsonPlusSerializer().dumps_typed([0] * (count + 1))

    size = chunks.header_size(tag, data)

    assert size == (1 if count < 16 else 3 if count < 65_536 else 5)
    if kind is list:
        assert longer[chunks.header_size(tag, longer) :].startswith(data[size:])


@pytest.mark.parametrize(("tag", "data"), [("msgpack", b""), ("msgpack", b"\xa5hello"), ("bytes", b"\x93")])
def test_other_values_have_no_header(tag: str, data: bytes) -> None:
    assert chunks.header_size(tag, data) == 0


@pytest.mark.parametrize("size", [9_000, 4 * MIB, 4 * MIB + 1, 64 * MIB, 64 * MIB + 1])
def test_a_whole_recipe_is_less_than_a_hundredth_of_its_value(size: int) -> None:
    cutter = cutter_for(size)

    assert chunks.ENTRY_BYTES / (cutter.average + cutter.smallest) < 0.01
    assert size / cutter.average < chunks.MAX_CHUNKS
    assert cutter.largest <= chunks.MAX_CHUNK_BYTES


@pytest.mark.usefixtures("either_cutter")
@pytest.mark.parametrize("data", [os.urandom(100_000), TEXT * 30, bytes(100_000), b"x"])
def test_all_chunks_together_are_the_value_and_none_is_too_small_or_too_large(data: bytes) -> None:
    cutter = Cutter(2048, 512, 16384)

    found = cut(cutter, data)

    assert b"".join(found) == data
    assert all(cutter.smallest <= len(chunk) <= cutter.largest for chunk in found[:-1])
    assert 0 < len(found[-1]) <= cutter.largest


@pytest.mark.usefixtures("either_cutter")
def test_the_average_is_about_what_was_asked_for() -> None:
    found = cut(Cutter(2048, 512, 16384), os.urandom(400_000))

    assert 1000 < 400_000 / len(found) < 5000


@pytest.mark.usefixtures("either_cutter")
def test_an_insertion_moves_only_the_cuts_near_it() -> None:
    data = os.urandom(200_000)
    cutter = Cutter(2048, 512, 16384)

    before, after = set(cut(cutter, data)), set(cut(cutter, data[:100_000] + b"new" + data[100_000:]))

    assert len(after - before) < 8


@pytest.fixture
def without_pyfastcdc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Import the cutter where pyfastcdc is not installed."""
    kept = sys.modules.pop("tenure_client.cutting")
    monkeypatch.setitem(sys.modules, "pyfastcdc", None)
    yield
    sys.modules["tenure_client.cutting"] = kept


@pytest.mark.usefixtures("without_pyfastcdc")
def test_without_pyfastcdc_values_are_cut_all_the_same() -> None:
    import importlib

    module = importlib.import_module("tenure_client.cutting")

    assert module.FastCDC is None
    assert b"".join(cut(module.cutter_for(9000), TEXT * 4)) == TEXT * 4
