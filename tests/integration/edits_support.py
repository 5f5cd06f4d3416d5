"""Writing and reading large values as edits, with raw requests."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import grpc
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1.common_pb2 import Blob, Slice
from tenure_server import chunks

from tests.harness.chunked import Large
from tests.integration.wire_support import Wire, operation, reason_of

OK = 0
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION.value[0]
INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]
MIB = 1 << 20


def parts(*seeds: int, size: int = 3000) -> list[bytes]:
    """Return raw chunks that do not compress, the same for the same seed, of odd and even sizes."""
    return [random.Random(seed).randbytes(size + seed % 2) for seed in seeds]


ONE = Large(parts(1, 2, 3, 4))
TWO = Large(parts(1, 2, 5, 3, 4), header=b"grown")
THREE = Large(parts(1, 2, 5, 6), header=b"other")


def put(
    id: str, edit: pb.ValueEdit | None, *, thread: str = "t", ns: str = "", version: str = "", **more: Blob
) -> pb.Mutation:
    """Return a put whose channel `c` has an edit in the version of the id, and others whole."""
    version = version or id
    new = [] if edit is None else [pb.ChannelValue(channel="c", version=version, edit=edit)]
    new += [pb.ChannelValue(channel=channel, version=id, value=blob) for channel, blob in more.items()]
    return pb.Mutation(
        operation=operation(),
        put=pb.PutCheckpoint(
            ref=pb.CheckpointRef(thread_id=thread, checkpoint_ns=ns, checkpoint_id=id),
            checkpoint=Blob(type="msgpack", data=b"body"),
            channel_versions=[
                pb.ChannelVersion(channel=channel, version=of)
                for channel, of in ({"c": version} | dict.fromkeys(more, id)).items()
            ],
            new_values=new,
        ),
    )


def write(wire: Wire, *mutations: pb.Mutation) -> list[str]:
    """Write a batch and return each reason, "" for what was stored."""
    answer = wire.call("Write", pb.WriteRequest(mutations=mutations))
    results = answer.message(pb.WriteResponse).results
    return ["" if result.status.code == OK else reason_of(result.status)[0] for result in results]


def held(value: Large, version: str) -> pb.HeldValue:
    return pb.HeldValue(channel="c", version=version, digest=value.digest)


def read(
    id: str = "", holds: Sequence[pb.HeldValue] = (), *, thread: str = "t", ns: str = "", edits: bool = True
) -> pb.CheckpointRead:
    ref = pb.CheckpointRef(thread_id=thread, checkpoint_ns=ns, checkpoint_id=id)
    return pb.CheckpointRead(ref=ref, accepts_edits=edits, held=holds)


def results(wire: Wire, *reads: pb.CheckpointRead) -> Sequence[pb.ReadResult]:
    answer = wire.call("Read", pb.ReadRequest(reads=reads))
    found: Sequence[pb.ReadResult] = answer.message(pb.ReadResponse).results
    return found


def value(result: pb.ReadResult, channel: str = "c") -> pb.ChannelValue:
    assert (result.status.code, result.omitted) == (OK, False)
    (found,) = [value for value in result.checkpoint.channel_values if value.channel == channel]
    return found


def joined(wire: Wire, method: str, request: Any, reply: Any) -> bytes:
    """Return what came in slices."""
    answer = wire.call(method, request)
    assert answer.code is grpc.StatusCode.OK, answer
    return b"".join(reply.FromString(message).slice.data for message in answer.messages)


def packed(*values: Large) -> dict[bytes, bytes]:
    return {chunks.chunk_id(one): one for value in values for one in value.packed}


def write_sliced(wire: Wire, *mutations: pb.Mutation) -> None:
    body = pb.WriteRequest(mutations=mutations).SerializeToString()
    slices = [
        pb.WriteSlicedRequest(slice=Slice(data=body[at : at + 262_144], total_bytes=0 if at else len(body)))
        for at in range(0, len(body), 262_144)
    ]
    answer = wire.call("WriteSliced", *slices).message(pb.WriteSlicedResponse)
    assert [result.status.code for result in answer.results] == [OK] * len(mutations)


def listed(wire: Wire, **request: Any) -> list[pb.Checkpoint]:
    """Return the checkpoints of a listing, those in slices too."""
    answer = wire.call("List", pb.ListRequest(**request))
    assert answer.code is grpc.StatusCode.OK, answer
    found: list[pb.Checkpoint] = []
    sliced = bytearray()
    total = 0
    for message in answer.messages:
        part = pb.ListResponse.FromString(message)
        if part.HasField("page"):
            found += part.page.checkpoints
            continue
        total = part.slice.total_bytes or total
        sliced += part.slice.data
        if len(sliced) == total:
            found += pb.CheckpointPage.FromString(bytes(sliced)).checkpoints
            sliced.clear()
    return found
