"""A real gRPC server whose answers a test scripts, for faults that a healthy Tenure does not make."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import checkpoints_pb2_grpc, common_pb2, server_pb2, server_pb2_grpc
from tenure_client import slices

Answer = Callable[[grpc.ServicerContext], Any]


@dataclass
class Seen:
    """One RPC as the server saw it."""

    method: str
    request: Any
    metadata: dict[str, Any]

    @property
    def operation(self) -> common_pb2.Operation:
        request = self.request
        if isinstance(request, pb.WriteRequest):
            return request.mutations[0].operation
        if isinstance(request, pb.ReadRequest):
            return request.reads[0].operation
        operation: common_pb2.Operation = request.operation
        return operation


@dataclass
class Script(checkpoints_pb2_grpc.CheckpointServiceServicer, server_pb2_grpc.ServerServiceServicer):
    """Answers with `answers` one after the other, then with `default`; remembers what it saw."""

    target: str = ""
    answers: deque[Answer] = field(default_factory=deque)
    seen: list[Seen] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def _answer(self, method: str, request: Any, context: grpc.ServicerContext, default: Any) -> Any:
        self.seen.append(Seen(method, request, dict(context.invocation_metadata())))
        return self.answers.popleft()(context) if self.answers else default

    def Write(self, request: Any, context: Any) -> Any:
        return self._answer("Write", request, context, pb.WriteResponse(results=[pb.MutationResult()]))

    def WriteSliced(self, request_iterator: Any, context: Any) -> Any:
        request = slices.join(pb.WriteRequest, (part.slice for part in request_iterator))
        reply = pb.WriteSlicedResponse(results=[pb.MutationResult()])
        return self._answer("WriteSliced", request, context, reply)

    def Read(self, request: Any, context: Any) -> Any:
        return self._answer("Read", request, context, pb.ReadResponse(results=[pb.ReadResult()]))

    def DeleteThread(self, request: Any, context: Any) -> Any:
        return self._answer("DeleteThread", request, context, pb.DeleteThreadResponse())

    def List(self, request: Any, context: Any) -> Any:
        context.add_callback(self.cancelled.set)
        yield from self._answer("List", request, context, ())

    def GetServerInfo(self, request: Any, context: Any) -> Any:
        return self._answer("GetServerInfo", request, context, server_pb2.GetServerInfoResponse())


def fail(code: grpc.StatusCode, details: str = "scripted", **trailers: Any) -> Answer:
    """Answer with an error."""

    def answer(context: grpc.ServicerContext) -> Any:
        context.set_trailing_metadata(tuple((k.replace("_", "-"), v) for k, v in trailers.items()))
        context.abort(code, details)

    return answer


def reply(message: Any) -> Answer:
    """Answer with a message."""
    return lambda _context: message


@contextmanager
def running(port: int = 0) -> Iterator[Script]:
    """Run a scripted server on a free loopback port."""
    script = Script()
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    checkpoints_pb2_grpc.add_CheckpointServiceServicer_to_server(script, server)
    server_pb2_grpc.add_ServerServiceServicer_to_server(script, server)
    script.target = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    server.start()
    try:
        yield script
    finally:
        server.stop(None).wait()
