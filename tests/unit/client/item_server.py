"""A real gRPC server that keeps items as InMemoryStore does and says what travelled how.

What a healthy Tenure does not do, a test can make it do: fail, answer `omitted`, lose an answer.
"""

from __future__ import annotations

import json
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from langgraph.store.base import GetOp, ListNamespacesOp, MatchCondition, PutOp, SearchOp
from langgraph.store.memory import _cosine_similarity
from tenure.v1 import checkpoints_pb2, checkpoints_pb2_grpc, server_pb2, server_pb2_grpc, store_pb2_grpc
from tenure.v1 import store_pb2 as pb
from tenure_client import slices

from tests.harness.item_oracle import ItemOracle

Fault = Callable[[pb.StoreGroup], pb.StoreGroupResult | None]
"""Answers a group instead of the store, or lets it be with None."""
LARGE = 3_000_000
"""Bytes of a value that does not fit into a page of those that wait to be embedded."""
_MATCH = {pb.MATCH_TYPE_PREFIX: "prefix", pb.MATCH_TYPE_SUFFIX: "suffix"}


@dataclass
class Travelled:
    """What came in one batch.

    Attributes:
        by: "Session" or "BatchSliced".
        groups: Its groups.
    """

    by: str
    groups: list[pb.StoreGroup]


@dataclass
class ItemServer(
    store_pb2_grpc.StoreServiceServicer,
    checkpoints_pb2_grpc.CheckpointServiceServicer,
    server_pb2_grpc.ServerServiceServicer,
):
    """Items of one tenant.

    Attributes:
        target: host:port.
        seen: What came.
        faults: For the next groups, one each.
        oracle: Keeps the items.
        index: With what vectors are made.
        puts: What each item was last put with.
        applied: Ids of the groups that were done.
    """

    target: str = ""
    seen: list[Travelled] = field(default_factory=list)
    faults: deque[Fault] = field(default_factory=deque)
    oracle: ItemOracle = field(default_factory=ItemOracle)
    index: pb.StoreIndex | None = None
    puts: dict[tuple[tuple[str, ...], str], pb.PutItem] = field(default_factory=dict)
    applied: dict[bytes, None] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def groups(self) -> list[pb.StoreGroup]:
        """All groups that came, in their order."""
        return [group for travelled in self.seen for group in travelled.groups]

    def Session(self, request_iterator: Any, context: Any) -> Iterator[checkpoints_pb2.SessionResponse]:
        parts: queue.SimpleQueue[Any] = queue.SimpleQueue()
        context.add_callback(lambda: parts.put(None))

        def read() -> None:
            try:
                for request in request_iterator:
                    parts.put(request)
            except Exception:
                pass  # the stream is gone
            parts.put(None)

        threading.Thread(target=read, daemon=True).start()
        while (request := parts.get()) is not None:
            yield checkpoints_pb2.SessionResponse(
                call_id=request.call_id, store=self._answer("Session", request.store)
            )

    def BatchSliced(self, request_iterator: Any, context: Any) -> Iterator[pb.BatchSlicedResponse]:
        request = slices.join(pb.BatchRequest, (part.slice for part in request_iterator))
        for part in slices.split(self._answer("BatchSliced", request)):
            yield pb.BatchSlicedResponse(slice=part)

    def GetServerInfo(self, request: Any, context: Any) -> server_pb2.GetServerInfoResponse:
        return server_pb2.GetServerInfoResponse()

    def SetIndex(self, request: pb.SetIndexRequest, context: Any) -> pb.SetIndexResponse:
        with self.lock:
            if self.index != request.index:
                for put in self.puts.values():
                    del put.vectors[:]
            self.index = request.index
            return pb.SetIndexResponse(unembedded=len(self._waiting()))

    def ListUnembedded(self, request: pb.ListUnembeddedRequest, context: Any) -> pb.ListUnembeddedResponse:
        with self.lock:
            waiting = [place for place in self._waiting() if repr(place) > request.page_token]
            reply = pb.ListUnembeddedResponse()
            for namespace, key in waiting[: request.limit]:
                found = self.oracle.get(namespace, key)
                assert found is not None
                item = _item(found)
                if len(item.value_json) > LARGE:
                    item.value_json = ""
                reply.items.add(item=item, index_paths=self.puts[namespace, key].index_paths)
            if len(waiting) > request.limit:
                reply.next_page_token = repr(waiting[request.limit - 1])
            return reply

    def PutVectors(self, request: pb.PutVectorsRequest, context: Any) -> pb.PutVectorsResponse:
        with self.lock:
            for item in request.items:
                place = tuple(item.namespace.labels), item.key
                found = self.oracle.get(*place)
                if found is not None and _us(found.updated_at) == item.updated_at_us:
                    del self.puts[place].vectors[:]
                    self.puts[place].vectors.extend(item.vectors)
            return pb.PutVectorsResponse()

    def PutVectorsSliced(self, request_iterator: Any, context: Any) -> pb.PutVectorsSlicedResponse:
        self.PutVectors(slices.join(pb.PutVectorsRequest, (part.slice for part in request_iterator)), context)
        return pb.PutVectorsSlicedResponse()

    def _waiting(self) -> list[tuple[tuple[str, ...], str]]:
        return sorted(
            (place for place, put in self.puts.items() if not put.vectors and not put.unindexed), key=repr
        )

    def _answer(self, by: str, request: pb.BatchRequest) -> pb.BatchResponse:
        with self.lock:
            self.seen.append(Travelled(by, list(request.groups)))
            return pb.BatchResponse(results=[self._group(group) for group in request.groups])

    def _group(self, group: pb.StoreGroup) -> pb.StoreGroupResult:
        fault = self.faults.popleft() if self.faults else None
        answer = fault(group) if fault else None
        if answer is not None:
            return answer
        return self.do(group)

    def do(self, group: pb.StoreGroup) -> pb.StoreGroupResult:
        """Do what a group asks, once."""
        if group.HasField("index"):
            if self.index is not None and self.index != group.index:
                return refused(9, "INDEX_MISMATCH", stored=self.index.embedder, given=group.index.embedder)
            self.index = group.index
        result = pb.StoreGroupResult()
        for op in group.ops:
            done = result.results.add()
            kind = op.WhichOneof("kind")
            if kind == "get":
                found = self.oracle.batch([GetOp(tuple(op.get.namespace.labels), op.get.key)])[0]
                if found is not None:
                    done.item.CopyFrom(_item(found))
            elif kind == "search":
                done.items.items.extend(self._search(op.search))
            elif kind == "list_namespaces":
                done.namespaces.namespaces.extend(self._namespaces(op.list_namespaces))
            elif group.operation.operation_id not in self.applied:
                self._write(op)
        self.applied[group.operation.operation_id] = None
        return result

    def _write(self, op: pb.StoreOp) -> None:
        if op.HasField("delete"):
            place = tuple(op.delete.namespace.labels), op.delete.key
            self.oracle.batch([PutOp(*place, None)])
            self.puts.pop(place, None)
        else:
            place = tuple(op.put.namespace.labels), op.put.key
            self.oracle.batch([PutOp(*place, json.loads(op.put.value_json))])
            self.puts[place] = op.put

    def _search(self, search: pb.SearchItems) -> list[pb.Item]:
        op = SearchOp(
            tuple(search.namespace_prefix.labels),
            json.loads(search.filter_json) if search.filter_json else None,
            10**9,
        )
        found = [_item(item) for item in self.oracle.batch([op])[0]]  # type: ignore[arg-type, union-attr]
        if search.query_vector:
            for item in found:
                vectors = self.puts[tuple(item.namespace.labels), item.key].vectors
                if vectors:
                    near = _cosine_similarity(list(search.query_vector), [list(v.values) for v in vectors])
                    item.score = max(near)
            found.sort(key=lambda item: -item.score if item.HasField("score") else 2)
        return found[search.offset : search.offset + search.limit]

    def _namespaces(self, listing: pb.ListNamespaces) -> list[pb.Namespace]:
        conditions: Any = tuple(
            MatchCondition(_MATCH[condition.type], tuple(condition.path)) for condition in listing.conditions
        )
        depth = listing.max_depth if listing.HasField("max_depth") else None
        op = ListNamespacesOp(conditions, depth, listing.limit, listing.offset)
        found: Any = self.oracle.batch([op])[0]
        return [pb.Namespace(labels=labels) for labels in found]


def refused(code: int, reason: str, **metadata: str) -> pb.StoreGroupResult:
    """Return the result of a group that fails."""
    status = status_pb2.Status(code=code, message=reason)
    info = error_details_pb2.ErrorInfo(
        reason=f"ERROR_REASON_{reason}", domain="tenure.dev", metadata=metadata
    )
    status.details.add().Pack(info)
    return pb.StoreGroupResult(status=status)


def _item(found: Any) -> pb.Item:
    return pb.Item(
        namespace=pb.Namespace(labels=found.namespace),
        key=found.key,
        value_json=json.dumps(found.value),
        created_at_us=_us(found.created_at),
        updated_at_us=_us(found.updated_at),
    )


def _us(time: datetime) -> int:
    return round(time.timestamp() * 1_000_000)


@contextmanager
def running() -> Iterator[ItemServer]:
    """Run a server on a free loopback port."""
    items = ItemServer()
    server = grpc.server(futures.ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 0)])
    checkpoints_pb2_grpc.add_CheckpointServiceServicer_to_server(items, server)
    server_pb2_grpc.add_ServerServiceServicer_to_server(items, server)
    store_pb2_grpc.add_StoreServiceServicer_to_server(items, server)
    items.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield items
    finally:
        server.stop(None).wait()
