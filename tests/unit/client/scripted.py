"""A real gRPC server whose answers a test scripts, for faults that a healthy Tenure does not make."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import checkpoints_pb2_grpc, common_pb2, server_pb2, server_pb2_grpc
from tenure_client import slices

Answer = Callable[[grpc.ServicerContext], Any]


@dataclass
class Seen:
    """One RPC, or one batch of a session, as the server saw it."""

    method: str
    request: Any
    metadata: dict[str, Any]

    @property
    def operation(self) -> common_pb2.Operation:
        """The only one, or the first."""
        return self.operations[0]

    @property
    def operations(self) -> list[common_pb2.Operation]:
        request = self.request
        if isinstance(request, pb.WriteRequest):
            return [mutation.operation for mutation in request.mutations]
        if isinstance(request, pb.ReadRequest):
            return [read.operation for read in request.reads]
        return [request.operation]


class _Refused(Exception):
    """A batch as a whole is answered with a status."""

    def __init__(self, status: status_pb2.Status) -> None:
        self.status = status


class _Lost(Exception):
    """The session ends instead of answering."""


class _Batch:
    """What answers of a batch get as their context: its failure does not end the session."""

    def __init__(self, session: grpc.ServicerContext) -> None:
        self._session = session
        self._trailers: dict[str, str] = {}

    def invocation_metadata(self) -> Any:
        return self._session.invocation_metadata()

    def set_trailing_metadata(self, trailers: tuple[tuple[str, str], ...]) -> None:
        self._trailers = dict(trailers)

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        status = status_pb2.Status(code=code.value[0], message=details)
        if "grpc-retry-pushback-ms" in self._trailers:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromMilliseconds(int(self._trailers["grpc-retry-pushback-ms"]))
            status.details.add().Pack(retry)
        raise _Refused(status)


@dataclass
class Script(checkpoints_pb2_grpc.CheckpointServiceServicer, server_pb2_grpc.ServerServiceServicer):
    """Answers with `answers` one after the other, then with `default`; remembers what it saw.

    Attributes:
        target: host:port.
        answers: What comes next.
        seen: What was asked; a batch of a session under the name of its kind, as a call of its own.
        sessions: How many were opened.
        cancelled: Set when a listing is cancelled.
        given_up: Call ids of the batches for which nobody waits any more.
    """

    target: str = ""
    answers: deque[Answer] = field(default_factory=deque)
    seen: list[Seen] = field(default_factory=list)
    sessions: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)
    given_up: list[int] = field(default_factory=list)

    def _answer(self, method: str, request: Any, context: Any, default: Any) -> Any:
        self.seen.append(Seen(method, request, dict(context.invocation_metadata())))
        try:
            answer = self.answers.popleft()
        except IndexError:
            return default
        return answer(context)

    def Write(self, request: Any, context: Any) -> Any:
        results = [pb.MutationResult() for _ in request.mutations]
        return self._answer("Write", request, context, pb.WriteResponse(results=results))

    def Session(self, request_iterator: Any, context: Any) -> Iterator[pb.SessionResponse]:
        """Answers each batch as `Write` and `Read` would in a call of their own, side by side."""
        self.sessions += 1
        parts: queue.SimpleQueue[Any] = queue.SimpleQueue()
        context.add_callback(lambda: parts.put(None))

        def read() -> None:
            try:
                batches = []
                for request in request_iterator:
                    if request.cancel:
                        self.given_up.append(request.call_id)
                        continue
                    batches.append(threading.Thread(target=answer, args=(request,), daemon=True))
                    batches[-1].start()
                for batch in batches:
                    batch.join()
            except Exception:
                pass  # the stream is gone
            parts.put(None)

        def answer(request: pb.SessionRequest) -> None:
            batch = _Batch(context)
            try:
                if request.HasField("write"):
                    made = pb.SessionResponse(write=self.Write(request.write, batch))
                else:
                    made = pb.SessionResponse(read=self.Read(request.read, batch))
            except _Refused as refused:
                made = pb.SessionResponse(status=refused.status)
            except _Lost as lost:
                parts.put(lost)
                return
            except Exception:
                parts.put(_Lost(grpc.StatusCode.UNKNOWN))
                return
            made.call_id = request.call_id
            parts.put(made)

        threading.Thread(target=read, daemon=True).start()
        while (part := parts.get()) is not None:
            if isinstance(part, _Lost):
                code = part.args[0]
                if code is not grpc.StatusCode.OK:
                    context.abort(code, "scripted")
                return
            yield part

    def WriteSliced(self, request_iterator: Any, context: Any) -> Any:
        request = slices.join(pb.WriteRequest, (part.slice for part in request_iterator))
        reply = pb.WriteSlicedResponse(results=[pb.MutationResult()])
        return self._answer("WriteSliced", request, context, reply)

    def Read(self, request: Any, context: Any) -> Any:
        results = [pb.ReadResult() for _ in request.reads]
        return self._answer("Read", request, context, pb.ReadResponse(results=results))

    def DeleteThread(self, request: Any, context: Any) -> Any:
        return self._answer("DeleteThread", request, context, pb.DeleteThreadResponse())

    def List(self, request: Any, context: Any) -> Any:
        context.add_callback(self.cancelled.set)
        yield from self._answer("List", request, context, ())

    def GetServerInfo(self, request: Any, context: Any) -> Any:
        return self._answer("GetServerInfo", request, context, server_pb2.GetServerInfoResponse())


def fail(code: grpc.StatusCode, details: str = "scripted", **trailers: Any) -> Answer:
    """Answer with an error; a batch of a session fails, and the session goes on."""

    def answer(context: grpc.ServicerContext) -> Any:
        context.set_trailing_metadata(tuple((k.replace("_", "-"), v) for k, v in trailers.items()))
        context.abort(code, details)

    return answer


def lose(code: grpc.StatusCode = grpc.StatusCode.OK) -> Answer:
    """End the session instead of answering."""

    def answer(_context: grpc.ServicerContext) -> Any:
        raise _Lost(code)

    return answer


def reply(message: Any) -> Answer:
    """Answer with a message."""
    return lambda _context: message


@contextmanager
def running(port: int = 0) -> Iterator[Script]:
    """Run a scripted server on a free loopback port."""
    script = Script()
    server = grpc.server(futures.ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 0)])
    checkpoints_pb2_grpc.add_CheckpointServiceServicer_to_server(script, server)
    server_pb2_grpc.add_ServerServiceServicer_to_server(script, server)
    script.target = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    server.start()
    try:
        yield script
    finally:
        server.stop(None).wait()
