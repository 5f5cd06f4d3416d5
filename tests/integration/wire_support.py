"""Calls without our client: raw requests, whole answers, no retries."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from tenure.v1 import cache_pb2, checkpoints_pb2, common_pb2, server_pb2, store_pb2

from tests.harness.processes import PATIENCE

METHODS: dict[str, MethodDescriptor] = {
    method.name: method
    for file in (checkpoints_pb2, store_pb2, cache_pb2, server_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
"""Every RPC of the protocol; no two services have one of the same name."""
LEASES = ("AcquireLease", "RenewLease", "ReleaseLease")
"""Those whose answers name what only one caller has: they have tests of their own, in test_leases."""


def path_of(method: MethodDescriptor) -> str:
    """Return the path of an RPC in HTTP/2."""
    return f"/{method.containing_service.full_name}/{method.name}"


def operation(operation_id: bytes | None = None, *, timeout_ms: int = 0) -> common_pb2.Operation:
    """Return an operation, with a new id unless one is given."""
    identity = os.urandom(16) if operation_id is None else operation_id
    return common_pb2.Operation(operation_id=identity, timeout_ms=timeout_ms)


@dataclass(frozen=True)
class Answer:
    """Everything that came back on one call.

    Attributes:
        code: The call's status.
        text: Its message.
        details: Its google.rpc.Status, serialized.
        messages: The replies, serialized.
    """

    code: grpc.StatusCode
    text: str
    details: bytes
    messages: tuple[bytes, ...]

    @property
    def everything(self) -> bytes:
        """All bytes of it, to be searched."""
        return b"\0".join([self.text.encode(), self.details, *self.messages])

    @property
    def status(self) -> status_pb2.Status:
        """Its details."""
        return status_pb2.Status.FromString(self.details)

    def message(self, kind: Any) -> Any:
        """Return the only reply."""
        assert self.code is grpc.StatusCode.OK, (self.code, self.text)
        (only,) = self.messages
        return kind.FromString(only)


Ask = Callable[[Message], checkpoints_pb2.SessionResponse]


def session_request(batch: Message, call_id: int = 1) -> checkpoints_pb2.SessionRequest:
    """Return a batch, the request of a Write, a Read or a Batch, as a session carries it."""
    request = checkpoints_pb2.SessionRequest(call_id=call_id)
    if isinstance(batch, checkpoints_pb2.WriteRequest):
        request.write.CopyFrom(batch)
    elif isinstance(batch, store_pb2.BatchRequest):
        request.store.CopyFrom(batch)
    else:
        assert isinstance(batch, checkpoints_pb2.ReadRequest)
        request.read.CopyFrom(batch)
    return request


def joined(parts: Sequence[checkpoints_pb2.SessionResponse]) -> checkpoints_pb2.SessionResponse:
    """Return the answer to one batch, whose parts depend on how long its operations took."""
    last = parts[-1]
    kind = last.WhichOneof("outcome")
    if kind == "status":
        return last
    results = [result for part in parts for result in getattr(part, str(kind)).results]
    positions = [position for part in parts for position in part.positions] or range(len(results))
    answer = checkpoints_pb2.SessionResponse(call_id=last.call_id)
    in_order = [
        result for _, result in sorted(zip(positions, results, strict=True), key=lambda pair: pair[0])
    ]
    getattr(answer, str(kind)).results.extend(in_order)
    return answer


def _joined_by_call(messages: Iterable[bytes]) -> list[bytes]:
    parts: dict[int, list[checkpoints_pb2.SessionResponse]] = {}
    for message in messages:
        part = checkpoints_pb2.SessionResponse.FromString(message)
        parts.setdefault(part.call_id, []).append(part)
    return [joined(of_call).SerializeToString() for of_call in parts.values()]


class Wire:
    """A channel that sends whatever it is told to; a context manager."""

    def __init__(self, target: str, api_key: str | None) -> None:
        self.metadata: Sequence[tuple[str, str]] = [("authorization", f"Bearer {api_key}")] if api_key else []
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
        ]
        self._channel = grpc.insecure_channel(target, options=options)

    def call(self, method: str, *requests: Message | bytes, timeout: float = PATIENCE) -> Answer:
        """Call an RPC by its name and return what comes, errors too."""
        return self.start(method, iter(requests), timeout=timeout)()

    def start(
        self, method: str, requests: Iterable[Message | bytes], *, timeout: float = PATIENCE
    ) -> _Pending:
        """Begin a call; calling what is returned waits for its answer.

        Every RPC is called as a stream of requests: on the wire there is no difference.
        """
        return _Pending(self._open(method, iter(requests), timeout), in_parts=method == "Session")

    @contextlib.contextmanager
    def session(self) -> Iterator[Ask]:
        """Open a session and yield a function that sends a batch and returns the whole answer to it."""
        requests: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        rpc = self._open("Session", iter(requests.get, None), PATIENCE)
        ids = itertools.count(1)

        def ask(batch: Message) -> checkpoints_pb2.SessionResponse:
            request = session_request(batch, next(ids))
            requests.put(request)
            parts = [checkpoints_pb2.SessionResponse.FromString(next(rpc))]
            while parts[-1].more:
                parts.append(checkpoints_pb2.SessionResponse.FromString(next(rpc)))
            assert {part.call_id for part in parts} == {request.call_id}
            return joined(parts)

        try:
            yield ask
        except BaseException:
            rpc.cancel()
            raise
        finally:
            requests.put(None)
        assert not list(rpc), "more answers than batches"

    def _open(self, method: str, requests: Iterator[Any], timeout: float) -> Any:
        rpc = self._channel.stream_stream(
            path_of(METHODS[method]),
            request_serializer=lambda request: (
                request if isinstance(request, bytes) else request.SerializeToString()
            ),
            response_deserializer=lambda reply: reply,
        )
        return rpc(requests, timeout=timeout, metadata=self.metadata)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()


class _Pending:
    def __init__(self, rpc: Any, *, in_parts: bool) -> None:
        self._rpc = rpc
        self._in_parts = in_parts

    def __call__(self) -> Answer:
        messages: list[bytes] = []
        with contextlib.suppress(grpc.RpcError):
            messages.extend(self._rpc)
        if self._in_parts:
            messages = _joined_by_call(messages)
        trailers = dict(self._rpc.trailing_metadata() or ())
        return Answer(
            self._rpc.code(),
            self._rpc.details() or "",
            trailers.get("grpc-status-details-bin", b""),
            tuple(messages),
        )


def reason_of(status: status_pb2.Status) -> tuple[str, dict[str, str]]:
    """Return the reason of an error and its metadata."""
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason.removeprefix("ERROR_REASON_"), dict(info.metadata)
    return "", {}


def outcome_of(method: str, answer: Answer) -> status_pb2.Status:
    """Return how an RPC of one operation ended: its own status, or that of its only result."""
    if answer.code is not grpc.StatusCode.OK:
        return answer.status
    for raw in answer.messages:
        reply: Any = GetMessageClass(METHODS[method].output_type).FromString(raw)
        if isinstance(reply, store_pb2.BatchSlicedResponse):
            parts = map(store_pb2.BatchSlicedResponse.FromString, answer.messages)
            reply = store_pb2.BatchResponse.FromString(b"".join(part.slice.data for part in parts))
        if isinstance(reply, checkpoints_pb2.SessionResponse):
            return outcome_of_batch(reply)
        for result in getattr(reply, "results", ()):
            found: status_pb2.Status = result.status
            return found
    return status_pb2.Status()


def outcome_of_batch(answer: checkpoints_pb2.SessionResponse) -> status_pb2.Status:
    """Return how a batch of one operation ended: its own status, or that of its only result."""
    if answer.HasField("status"):
        return answer.status
    (result,) = getattr(answer, str(answer.WhichOneof("outcome"))).results
    found: status_pb2.Status = result.status
    return found
