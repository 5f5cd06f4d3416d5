"""Large values as edits on the wire: told by what is new, checked, never beyond their thread and tenant."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import grpc
import pytest
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1.common_pb2 import Blob
from tenure_server import chunks

from tests.harness.chunked import Large, entry, raw, whole, zstd
from tests.harness.stack import Target
from tests.integration.edits_support import (
    FAILED_PRECONDITION,
    INVALID,
    MIB,
    OK,
    ONE,
    THREE,
    TWO,
    held,
    packed,
    parts,
    put,
    read,
    results,
    value,
    write,
)
from tests.integration.wire_support import Wire, operation, outcome_of, reason_of


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


def test_a_value_put_by_edits_comes_back_in_every_way(wire: Wire) -> None:
    assert write(wire, put("1", ONE.edit()), put("2", TWO.edit(ONE, "1", first=2, last=2))) == ["", ""]
    old_client, without, exact, base, other, latest = results(
        wire,
        read("2", edits=False),
        read("2"),
        read("2", [held(TWO, "2")]),
        read("2", [held(ONE, "1")]),
        read("2", [held(THREE, "9")]),
        read(),
    )
    assert value(old_client).value == Blob(type="msgpack", data=TWO.data)
    assert value(without).edit == value(other).edit == value(latest).edit == TWO.edit()
    assert value(exact).edit == TWO.edit(TWO, "2", first=5)
    assert value(base).edit == TWO.edit(ONE, "1", first=2, last=2)
    assert value(exact).version == "2"


def test_an_old_client_that_holds_something_gets_whole_values(wire: Wire) -> None:
    assert write(wire, put("1", ONE.edit())) == [""]
    (result,) = results(wire, read("1", [held(ONE, "1")], edits=False))
    assert value(result).value.data == ONE.data
    assert not value(result).HasField("edit")


def test_values_that_were_put_whole_go_whole(wire: Wire) -> None:
    small, large = Blob(type="msgpack", data=b"s"), Blob(type="msgpack", data=b"l" * 50_000)
    assert write(wire, put("1", ONE.edit(), small=small, large=large)) == [""]
    for edits in (True, False):
        (result,) = results(wire, read("1", edits=edits))
        assert (value(result, "small").value, value(result, "large").value) == (small, large)


def test_a_value_can_be_its_header_alone(wire: Wire) -> None:
    empty = Large([], header=b"h" * 64)
    assert write(wire, put("1", empty.edit()), put("2", ONE.edit(empty, "1"))) == ["", ""]
    first, second, whole_ = results(wire, read("1"), read("2", [held(empty, "1")]), read("1", edits=False))
    assert value(first).edit == empty.edit()
    assert value(second).edit == ONE.edit()
    assert value(whole_).value.data == b"h" * 64


def test_a_chunk_that_stands_often_travels_once(wire: Wire) -> None:
    often = Large(parts(1, 2, 1, 1, 2))
    assert write(wire, put("1", often.edit())) == [""]
    edits, whole_ = results(wire, read("1"), read("1", edits=False))
    assert len(value(edits).edit.chunks) == 2
    assert value(edits).edit == often.edit()
    assert value(whole_).value.data == often.data


def test_the_first_value_of_a_version_stays(wire: Wire) -> None:
    assert write(wire, put("1", ONE.edit()), put("2", THREE.edit(), version="1")) == ["", ""]
    (result,) = results(wire, read("2"))
    assert (value(result).version, value(result).edit) == ("1", ONE.edit())


def test_a_chain_of_edits_is_read_from_any_older_one(wire: Wire) -> None:
    generator = random.Random(7)
    chain = [Large(parts(*range(5)))]
    assert write(wire, put("00", chain[0].edit())) == [""]
    for number in range(1, 12):
        previous = list(chain[-1].parts)
        at = generator.randrange(len(previous))
        cut = generator.randrange(at, len(previous) + 1)
        now = Large(previous[:at] + parts(100 + number) + previous[cut:], header=b"%d" % number)
        edit = now.edit(chain[-1], f"{number - 1:02}", first=at, last=len(previous) - cut)
        assert write(wire, put(f"{number:02}", edit)) == [""]
        chain.append(now)
    for number, base in enumerate(chain):
        (result,) = results(wire, read("11", [held(base, f"{number:02}")]))
        bases = {(f"{number:02}", base.digest): base.recipe}
        assert whole(value(result).edit, bases, packed(base))[0] == chain[-1].data


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (TWO.edit(ONE, "7", first=2, last=2), "no such version"),
        (TWO.edit(THREE, "1", first=2, last=2), "another digest"),
        (TWO.edit(ONE, "1", first=3, last=1), "another recipe than the digest says"),
        (ONE.edit(ONE, "1", first=4, last=0), ""),
    ],
)
def test_a_base_that_is_not_there_fails_its_put_alone(wire: Wire, edit: pb.ValueEdit, why: str) -> None:
    assert write(wire, put("1", ONE.edit())) == [""]
    before, bad, after = put("2", None, x=Blob(type="a")), put("3", edit), put("4", None, x=Blob(type="a"))
    assert write(wire, before, bad, after) == ["", "CHUNKS_MISSING" if why else "", ""]
    (third,) = results(wire, read("3"))
    assert third.HasField("checkpoint") is not bool(why)
    if why:
        # With all its chunks it is taken.
        assert write(wire, put("3", TWO.edit())) == [""]
        assert value(results(wire, read("3"))[0]).edit == TWO.edit()


def test_more_kept_than_there_is_is_missing(wire: Wire) -> None:
    assert write(wire, put("1", ONE.edit())) == [""]
    for first, last in ((5, 0), (0, 5), (3, 2), (16_000, 300)):
        edit = TWO.edit(ONE, "1", first=2, last=2)
        edit.keep_first, edit.keep_last = first, last
        assert write(wire, put("2", edit)) == ["CHUNKS_MISSING"]


def test_the_status_of_a_missing_chunk(wire: Wire) -> None:
    request = pb.WriteRequest(mutations=[put("2", TWO.edit(ONE, "1", first=2, last=2))])
    status = outcome_of("Write", wire.call("Write", request))
    assert (status.code, reason_of(status)[0]) == (FAILED_PRECONDITION, "CHUNKS_MISSING")


def test_a_base_in_another_namespace_or_thread_is_not_there(wire: Wire) -> None:
    edit = TWO.edit(ONE, "1", first=2, last=2)
    assert write(wire, put("1", ONE.edit()), put("2", edit, ns="other"), put("2", edit, thread="u")) == [
        "",
        "CHUNKS_MISSING",
        "CHUNKS_MISSING",
    ]


def test_a_base_that_was_put_whole_is_not_one(wire: Wire) -> None:
    assert write(wire, put("1", None, c=Blob(type="msgpack", data=ONE.data))) == [""]
    assert write(wire, put("2", TWO.edit(ONE, "1", first=2, last=2))) == ["CHUNKS_MISSING"]


def bad_edits() -> dict[str, pb.ValueEdit]:
    """Return edits that state what is not so."""

    def made(*pairs: tuple[bytes, int], ids: Sequence[bytes] = ()) -> pb.ValueEdit:
        recipe = b"".join(ids) or b"".join(entry(data, length) for data, length in pairs)
        digest = chunks.recipe_digest("msgpack", b"", recipe)
        return pb.ValueEdit(type="msgpack", digest=digest, entries=recipe, chunks=[data for data, _ in pairs])

    frame = zstd(bytes(MIB))
    # Magic, then a descriptor for a size of eight bytes, the size, the blocks of a mebibyte of zeros.
    bomb = b"\1\x28\xb5\x2f\xfd\xe0" + (1 << 30).to_bytes(8, "little") + frame[frame.index(b"\0\0\x10") + 3 :]
    return {
        "the id of another chunk": made((raw(b"abc"), 3), ids=[entry(raw(b"abd"), 3)]),
        "longer than it is": made((raw(b"abc"), 4)),
        "shorter than it is": made((raw(b"abc"), 2)),
        "compressed, longer than it is": made((zstd(b"abc" * 100), 301)),
        "compressed, shorter than it is": made((zstd(b"abc" * 100), 299)),
        "a frame that states 1 GiB": made((bomb, MIB)),
        "a frame that states 1 GiB, for a small chunk": made((bomb, 10)),
        "no frame": made((b"\1abc", 3)),
        "an encoding that is unknown": made((b"\2abc", 3)),
        "nothing": made((b"", 1)),
        "a chunk that is empty": made((raw(b""), 0)),
        "a chunk above a mebibyte": made((zstd(bytes(MIB + 1)), MIB + 1)),
        "no chunks": pb.ValueEdit(type="msgpack", digest=ONE.digest, entries=ONE.recipe),
    }


@pytest.mark.parametrize("name", bad_edits())
def test_a_bad_chunk_is_refused_by_its_field_and_nothing_is_stored(wire: Wire, name: str) -> None:
    edit = bad_edits()[name]
    good = put("1", ONE.edit(), thread="good")
    answer = wire.call("Write", pb.WriteRequest(mutations=[put("1", edit, thread="bad"), good]))
    bad, fine = answer.message(pb.WriteResponse).results
    reason, metadata = reason_of(bad.status)
    assert (bad.status.code, reason, fine.status.code) == (INVALID, "INVALID_FIELD", OK)
    assert metadata["field"].startswith("mutations[0].put.new_values.edit.")
    threads = wire.call("ListThreads", pb.ListThreadsRequest()).message(pb.ListThreadsResponse).threads
    assert [thread.thread_id for thread in threads] == ["good"]


def test_what_many_small_frames_inflate_to_is_bounded(wire: Wire) -> None:
    """A request below a kilobyte must not make a server inflate for minutes."""
    zeros = Large([bytes(MIB - 1)] * 100)
    mutations = [put("1", zeros.edit(), thread=f"{number}") for number in range(3)]
    assert write(wire, *mutations) == ["", "OVERLOADED", "OVERLOADED"]
    two = put("2", Large([bytes(MIB - 1)] * 65).edit())
    two.put.new_values.add(channel="d", version="2", edit=Large([bytes(MIB - 1)] * 65).edit())
    two.put.channel_versions.add(channel="d", version="2")
    status = outcome_of("Write", wire.call("Write", pb.WriteRequest(mutations=[two])))
    assert (status.code, reason_of(status)[0]) == (INVALID, "LIMIT_EXCEEDED")


def test_nothing_of_another_tenant_is_a_base_or_comes_back(target: Target) -> None:
    ours, theirs = target.new_tenant(), target.new_tenant()
    with Wire(target.target, ours.api_key) as mine, Wire(target.target, theirs.api_key) as other:
        assert write(mine, put("1", ONE.edit())) == [""]
        # The same thread, the same version, the right digest: all that could be guessed.
        assert write(other, put("2", TWO.edit(ONE, "1", first=2, last=2))) == ["CHUNKS_MISSING"]
        assert not results(other, read("1", [held(ONE, "1")]))[0].HasField("checkpoint")
        # What they store themselves is told against what they hold, if it is theirs.
        assert write(other, put("2", TWO.edit())) == [""]
        (result,) = results(other, read("2", [held(ONE, "1")]))
        assert value(result).edit == TWO.edit()
        # Their recipe names the same chunks: each has its own.
        delete = pb.DeleteThreadRequest(operation=operation(), thread_id="t")
        assert mine.call("DeleteThread", delete).code is grpc.StatusCode.OK
        assert value(results(other, read("2", edits=False))[0]).value.data == TWO.data
        assert write(mine, put("2", TWO.edit(ONE, "1", first=2, last=2))) == ["CHUNKS_MISSING"]


def test_another_life_of_a_thread_has_no_bases(wire: Wire) -> None:
    assert write(wire, put("1", ONE.edit())) == [""]
    wire.call("DeleteThread", pb.DeleteThreadRequest(operation=operation(), thread_id="t"))
    assert write(wire, put("2", TWO.edit(ONE, "1", first=2, last=2))) == ["CHUNKS_MISSING"]
    assert write(wire, put("2", TWO.edit())) == [""]
    assert value(results(wire, read("2", [held(ONE, "1")]))[0]).edit == TWO.edit()
