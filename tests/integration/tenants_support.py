"""Two tenants who use the same ids, and a request of every RPC that names what one of them holds."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from google.protobuf.message import Message
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import server_pb2, store_pb2
from tenure.v1.common_pb2 import Blob, Slice

from tests.harness.chunked import Large
from tests.harness.stack import Stack, TenantHandle
from tests.integration import tenants_items_support
from tests.integration.wire_support import Wire, operation, session_request

LARGE = 5000
"""Bytes that are above what comes with the head, so that Redis holds the value."""
GUESSED = Large([b"known to everybody " * 200, b"and to everybody else " * 200])
"""A value that both tenants store in chunks: each knows version, digest and chunks of the other's."""
GUESSED_VERSION = "3"


@dataclass(frozen=True)
class Ids:
    """Names in a tenant: a thread, a namespace, a checkpoint, a run."""

    thread: str
    ns: str
    checkpoint: str
    run: str


def new_ids(word: str) -> Ids:
    """Return names that occur nowhere else, all of the same length for words of one length."""
    return Ids(*(f"{word}-{part}-{secrets.token_hex(8)}" for part in ("thread", "space", "point", "run")))


SHARED = Ids("thread", "", "point", "run")
"""Names that both tenants use."""


@dataclass(frozen=True)
class Holder:
    """A tenant with a thread of its own and one whose names the other uses, too.

    Attributes:
        wire: Its channel.
        canary: Text that is in everything it has stored, and in the names that only it uses.
    """

    tenant: TenantHandle
    wire: Wire
    canary: str
    own: Ids = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "own", new_ids(self.canary))
        for ids in (self.own, SHARED):
            answer = self.wire.call("Write", pb.WriteRequest(mutations=contents(ids, self.canary)))
            reply = answer.message(pb.WriteResponse)
            assert [result.status.code for result in reply.results] == [0, 0, 0, 0]
            tenants_items_support.fill(self.wire, ids, self.canary)

    def everything(self) -> list[tuple[bytes, ...]]:
        """Return all that the tenant has, as the server tells it."""
        threads = self.wire.call("ListThreads", pb.ListThreadsRequest())
        checkpoints = self.wire.call("List", pb.ListRequest())
        items = tenants_items_support.everything(self.wire, [self.own, SHARED])
        for answer in (threads, checkpoints, *items):
            assert not answer.details, answer
        index = self.wire.call("GetIndex", store_pb2.GetIndexRequest())
        return [(*threads.messages, *index.messages), *(each.messages for each in (checkpoints, *items))]


@contextmanager
def two_holders(stack: Stack) -> Iterator[tuple[Holder, Holder]]:
    """Make two tenants that use the same names, and other ones."""
    first, second = (stack.new_tenant(("read", "write", "admin")) for _ in range(2))
    with Wire(stack.target, first.api_key) as one, Wire(stack.target, second.api_key) as other:
        yield (
            Holder(first, one, f"canary{secrets.token_hex(4)}"),
            Holder(second, other, f"parrot{secrets.token_hex(4)}"),
        )


def blob(text: str) -> Blob:
    """Return a payload."""
    return Blob(type="msgpack", data=text.encode())


def contents(ids: Ids, canary: str) -> list[pb.Mutation]:
    """Return the mutations that store three checkpoints and a pending write.

    The first checkpoint is in a run; the values of the last are in chunks.
    """
    ref = pb.CheckpointRef(thread_id=ids.thread, checkpoint_ns=ids.ns, checkpoint_id=ids.checkpoint)
    child = pb.CheckpointRef(
        thread_id=ids.thread, checkpoint_ns=ids.ns, checkpoint_id=f"{ids.checkpoint}-child"
    )
    large = f"{canary} " * (LARGE // len(canary))
    write = pb.PendingWrite(task_id=f"task-{canary}", channel="state", value=blob(canary))
    return [
        pb.Mutation(operation=operation(), put=put_of(ref, "1", large, {"run_id": ids.run, "told": canary})),
        pb.Mutation(operation=operation(), put_writes=pb.PutWrites(ref=ref, writes=[write])),
        pb.Mutation(operation=operation(), put=put_of(child, "2", large + "2", {"told": canary}, ref)),
        pb.Mutation(operation=operation(), put=_chunked(ids, child, canary)),
    ]


def _chunked(ids: Ids, parent: pb.CheckpointRef, canary: str) -> pb.PutCheckpoint:
    # Of even length, so that they are stored as they are, to be found.
    large = Large([f"{canary} {number} ".encode() * LARGE for number in range(2)])
    edits = {"state": large.edit(), "guessed": GUESSED.edit()}
    return _put_of_edits(_grown(ids), parent, edits, GUESSED_VERSION, {"told": canary})


def _put_of_edits(
    ref: pb.CheckpointRef,
    parent: pb.CheckpointRef,
    edits: Mapping[str, pb.ValueEdit],
    version: str,
    metadata: Mapping[str, str],
) -> pb.PutCheckpoint:
    return pb.PutCheckpoint(
        ref=ref,
        parent_checkpoint_id=parent.checkpoint_id,
        checkpoint=blob("body"),
        metadata_json=json.dumps(metadata),
        channel_versions=[pb.ChannelVersion(channel=channel, version=version) for channel in edits],
        new_values=[
            pb.ChannelValue(channel=channel, version=version, edit=edit) for channel, edit in edits.items()
        ],
        format_version=4,
    )


def put_of(
    ref: pb.CheckpointRef,
    version: str,
    value: str,
    metadata: dict[str, str],
    parent: pb.CheckpointRef | None = None,
) -> pb.PutCheckpoint:
    """Return what stores a checkpoint with one channel."""
    return pb.PutCheckpoint(
        ref=ref,
        parent_checkpoint_id=parent.checkpoint_id if parent else "",
        checkpoint=blob("body"),
        metadata_json=json.dumps(metadata),
        channel_versions=[pb.ChannelVersion(channel="state", version=version)],
        new_values=[pb.ChannelValue(channel="state", version=version, value=blob(value))],
        format_version=4,
    )


Make = Callable[[Ids], Sequence[Message]]
"""Makes the messages of one call."""


def _ref(ids: Ids) -> pb.CheckpointRef:
    return pb.CheckpointRef(thread_id=ids.thread, checkpoint_ns=ids.ns, checkpoint_id=ids.checkpoint)


def _latest(ids: Ids) -> pb.CheckpointRef:
    return pb.CheckpointRef(thread_id=ids.thread, checkpoint_ns=ids.ns)


def _grown(ids: Ids) -> pb.CheckpointRef:
    """Return the checkpoint whose values are in chunks, the latest."""
    return pb.CheckpointRef(
        thread_id=ids.thread, checkpoint_ns=ids.ns, checkpoint_id=f"{ids.checkpoint}-grown"
    )


def _told(ids: Ids) -> pb.CheckpointRead:
    """Ask for values in chunks as somebody does who has one of them."""
    held = pb.HeldValue(channel="guessed", version=GUESSED_VERSION, digest=GUESSED.digest)
    return pb.CheckpointRead(operation=operation(), ref=_grown(ids), accepts_edits=True, held=[held])


def _put_edit(ids: Ids) -> pb.WriteRequest:
    """Tell a value against one that is stored if the names are one's own."""
    large = Large([*GUESSED.parts, b"intruder" * 500])
    edit = large.edit(GUESSED, GUESSED_VERSION, first=len(GUESSED.parts))
    next_ = pb.CheckpointRef(
        thread_id=ids.thread, checkpoint_ns=ids.ns, checkpoint_id=f"{ids.checkpoint}-next"
    )
    put = _put_of_edits(next_, _grown(ids), {"guessed": edit}, "4", {"told": "intruder"})
    return pb.WriteRequest(mutations=[pb.Mutation(operation=operation(), put=put)])


def _put(ids: Ids) -> pb.WriteRequest:
    put = put_of(_ref(ids), "1", "intruder", {"told": "intruder"})
    return pb.WriteRequest(mutations=[pb.Mutation(operation=operation(), put=put)])


def _put_writes(ids: Ids) -> pb.WriteRequest:
    write = pb.PendingWrite(task_id="intruder", channel="state", value=blob("intruder"))
    writes = pb.PutWrites(ref=_ref(ids), writes=[write])
    return pb.WriteRequest(mutations=[pb.Mutation(operation=operation(), put_writes=writes)])


def _sliced(request: pb.WriteRequest) -> list[pb.WriteSlicedRequest]:
    data = request.SerializeToString()
    half = len(data) // 2
    return [
        pb.WriteSlicedRequest(slice=Slice(data=data[:half], total_bytes=len(data))),
        pb.WriteSlicedRequest(slice=Slice(data=data[half:])),
    ]


def _in_a_session(make: Make) -> Make:
    return lambda ids: [session_request(make(ids)[0])]


READS: dict[str, list[Make]] = {
    "Read": [
        lambda ids: [pb.ReadRequest(reads=[pb.CheckpointRead(operation=operation(), ref=_ref(ids))])],
        lambda ids: [pb.ReadRequest(reads=[pb.CheckpointRead(operation=operation(), ref=_latest(ids))])],
        lambda ids: [pb.ReadRequest(reads=[_told(ids)])],
    ],
    "ReadSliced": [
        lambda ids: [pb.ReadSlicedRequest(read=pb.CheckpointRead(operation=operation(), ref=_ref(ids)))],
        lambda ids: [pb.ReadSlicedRequest(read=pb.CheckpointRead(operation=operation(), ref=_latest(ids)))],
        lambda ids: [pb.ReadSlicedRequest(read=_told(ids))],
    ],
    "List": [
        lambda ids: [pb.ListRequest(operation=operation(), thread_id=ids.thread)],
        lambda ids: [pb.ListRequest(operation=operation(), thread_id=ids.thread, accepts_edits=True)],
        lambda ids: [
            pb.ListRequest(operation=operation(), thread_id=ids.thread, checkpoint_ns=ids.ns, limit=1)
        ],
        lambda ids: [pb.ListRequest(operation=operation(), checkpoint_id=ids.checkpoint)],
        lambda ids: [pb.ListRequest(operation=operation(), filter_json=json.dumps({"run_id": ids.run}))],
    ],
    "GetChannelHistory": [
        lambda ids: [
            pb.GetChannelHistoryRequest(operation=operation(), ref=_latest(ids), channels=["state", "other"])
        ],
    ],
    "ListThreads": [
        lambda ids: [pb.ListThreadsRequest(operation=operation(), prefix=ids.thread)],
    ],
}
READS["Session"] = [_in_a_session(make) for make in READS["Read"]]
"""Requests of each RPC that reads what is named."""

WRITES: dict[str, list[Make]] = {
    "Write": [lambda ids: [_put(ids)], lambda ids: [_put_writes(ids)], lambda ids: [_put_edit(ids)]],
    "WriteSliced": [
        lambda ids: _sliced(_put(ids)),
        lambda ids: _sliced(_put_writes(ids)),
        lambda ids: _sliced(_put_edit(ids)),
    ],
    "DeleteThread": [lambda ids: [pb.DeleteThreadRequest(operation=operation(), thread_id=ids.thread)]],
    "DeleteForRuns": [lambda ids: [pb.DeleteForRunsRequest(operation=operation(), run_ids=[ids.run])]],
    "CopyThread": [
        lambda ids: [
            pb.CopyThreadRequest(
                operation=operation(), source_thread_id=ids.thread, target_thread_id=f"{ids.thread}-copy"
            )
        ],
    ],
    "PruneThreads": [
        lambda ids: [
            pb.PruneThreadsRequest(
                operation=operation(), thread_ids=[ids.thread], strategy=pb.PRUNE_STRATEGY_KEEP_LATEST
            )
        ],
        lambda ids: [
            pb.PruneThreadsRequest(
                operation=operation(), thread_ids=[ids.thread], strategy=pb.PRUNE_STRATEGY_DELETE_ALL
            )
        ],
    ],
}
WRITES["Session"] = [_in_a_session(make) for make in WRITES["Write"]]
"""Requests of each RPC that changes what is named."""

NEUTRAL: dict[str, list[Make]] = {"GetServerInfo": [lambda ids: [server_pb2.GetServerInfoRequest()]]}
"""Requests of RPCs that neither show nor change what is named."""

for method, makes in tenants_items_support.READS.items():
    READS[method] = [*makes]
for method, makes in tenants_items_support.WRITES.items():
    WRITES[method] = [*makes]
for method, makes in tenants_items_support.NEUTRAL.items():
    NEUTRAL[method] = [*makes]

CASES = {
    method: [*READS.get(method, ()), *WRITES.get(method, ()), *NEUTRAL.get(method, ())]
    for method in READS | WRITES | NEUTRAL
}


def reads(method: str, make: Make) -> bool:
    """Whether a request reads what is named; a session carries both kinds."""
    return make in READS.get(method, ())


def writes(method: str, make: Make) -> bool:
    """Whether a request changes what is named."""
    return make in WRITES.get(method, ())
