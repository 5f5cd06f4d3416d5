"""What an operation asks of the server: `Call`, and `Plan`, the generator that yields calls.

A plan is the whole logic of an operation without any I/O: it yields calls, receives their replies and
returns the operation's value. `Connection` drives plans, blocking or not, so that each operation is
written once and both colours behave alike. A plan is tested by `send()`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from google.protobuf.message import Message
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import common_pb2, server_pb2

from tenure_client import slices
from tenure_client.errors import UnreadableValue
from tenure_client.statuses import from_status

T = TypeVar("T")
R = TypeVar("R", pb.MutationResult, pb.ReadResult)
Plan = Generator["Call", Any, T]
"""Yields calls, is sent their replies, returns the value of the operation."""

MAX_UNARY_REQUEST = 1024 * 1024
_BYTES_PER_SECOND = 4 * 1024 * 1024
"""A transfer above one unary message gets one more second for each so many bytes."""
_LARGEST_TRANSFER = 128 * 1024 * 1024
"""The size a sliced read is taken to have: the server says it only after the read has begun."""


class Shape(Enum):
    """How a call travels."""

    UNARY = "unary"
    BATCHED = "batched"
    """The request is one operation of a batch in the lane of the method; the reply is its result."""
    UPLOAD = "upload"
    """The request in slices; the reply is one message."""
    COLLECT = "collect"
    """The reply is the list of all messages of a stream."""
    EXCHANGE = "exchange"
    """The request in slices; the reply is the list of all messages of a stream."""


_random = random.Random()  # noqa: S311
"""Unique is enough for ids, and asking the system for each took as long as encoding the operation."""
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_random.seed)


def new_operation_id() -> bytes:
    """Return 16 random bytes, others than in any process that this one was forked from."""
    return _random.getrandbits(128).to_bytes(16, "big")


def transfer_seconds(size: int = _LARGEST_TRANSFER) -> float:
    """Return the time that so many bytes take on top of the caller's; by default for a reply of any size."""
    return size / _BYTES_PER_SECOND


def _as_it_is(reply: Any) -> Any:
    return reply


@dataclass(slots=True)
class Call:
    """One operation of the data plane; each attempt sends it with the same operation id.

    Attributes:
        method: The RPC's name.
        request: The request, or the message whose slices are the request.
        operation: The part of `request` that is stamped before each attempt.
        mutates: Whether it changes something, so that a lost answer is an unknown outcome.
        extra_seconds: Time on top of the caller's timeout.
        receive: Turns an OK reply into what the plan gets; raises what the reply says against the
            operation in its batch, which then counts as a failed attempt.
        size: Bytes of the request, without what each attempt stamps.
        timeout: Seconds that the attempt may take, stamped as well.
    """

    method: str
    request: Message
    operation: common_pb2.Operation
    mutates: bool = False
    shape: Shape = Shape.UNARY
    extra_seconds: float = 0
    receive: Callable[[Any], Any] = field(default=_as_it_is)
    size: int = field(init=False)
    timeout: float = field(init=False, default=0)

    def __post_init__(self) -> None:
        if not self.operation.operation_id:
            self.operation.operation_id = new_operation_id()
        # Once: counting walks through the whole message.
        self.size = self.request.ByteSize()


def write(mutation: pb.Mutation) -> Call:
    """Return the call that applies one mutation, in slices if it is large."""
    call = Call("Write", mutation, mutation.operation, mutates=True, shape=Shape.BATCHED, receive=_checked)
    if call.size <= MAX_UNARY_REQUEST:
        return call
    request = pb.WriteRequest(mutations=[mutation])
    return Call(
        "WriteSliced",
        request,
        request.mutations[0].operation,
        mutates=True,
        shape=Shape.UPLOAD,
        extra_seconds=call.size / _BYTES_PER_SECOND,
        receive=_only_result,
    )


def read(wanted: pb.CheckpointRead) -> Plan[pb.ReadResult]:
    """Read one checkpoint of any size."""
    result: pb.ReadResult = yield Call(
        "Read", wanted, wanted.operation, shape=Shape.BATCHED, receive=_checked
    )
    if not result.omitted:
        return result
    sliced = pb.ReadSlicedRequest(read=wanted)
    sliced.read.operation.Clear()
    result = yield Call(
        "ReadSliced",
        sliced,
        sliced.read.operation,
        shape=Shape.COLLECT,
        extra_seconds=_LARGEST_TRANSFER / _BYTES_PER_SECOND,
        receive=_sliced_result,
    )
    return result


def history(request: pb.GetChannelHistoryRequest) -> Plan[list[pb.ChannelHistoryPage]]:
    """Read what channels contributed along the ancestors of a checkpoint."""
    pages: list[pb.ChannelHistoryPage] = yield Call(
        "GetChannelHistory", request, request.operation, shape=Shape.COLLECT, receive=_history_pages
    )
    return pages


def mutate(
    method: str,
    request: (
        pb.DeleteThreadRequest | pb.DeleteForRunsRequest | pb.CopyThreadRequest | pb.PruneThreadsRequest
    ),
) -> Plan[None]:
    """Change threads; a repeat with the same operation id has one effect."""
    yield Call(method, request, request.operation, mutates=True)


def server_info() -> Plan[server_pb2.GetServerInfoResponse]:
    """Ask the server for its version and limits."""
    reply: server_pb2.GetServerInfoResponse = yield Call(
        "GetServerInfo", server_pb2.GetServerInfoRequest(), common_pb2.Operation()
    )
    return reply


def _only_result(reply: Any) -> Any:
    if len(reply.results) != 1:
        raise UnreadableValue(f"the server sent {len(reply.results)} results for one operation")
    return _checked(reply.results[0])


def _sliced_result(parts: list[pb.ReadSlicedResponse]) -> pb.ReadResult:
    return _checked(slices.join(pb.ReadResult, (part.slice for part in parts)))


def _checked(result: R) -> R:
    error = from_status(result.status)
    if error is not None:
        raise error
    return result


def _history_pages(parts: list[pb.GetChannelHistoryResponse]) -> list[pb.ChannelHistoryPage]:
    assembler = slices.Assembler(pb.ChannelHistoryPage)
    pages = (part.page if part.HasField("page") else assembler.add(part.slice) for part in parts)
    return [page for page in pages if page is not None]
