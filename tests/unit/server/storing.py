"""Requests about items, and what came of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from tenure.v1 import store_pb2 as pb
from tenure.v1.common_pb2 import Slice
from tenure_client import slices

from tests.unit.server.serving import Served, operation

INDEX = pb.StoreIndex(dims=2, embedder="test")


def put(*labels: str, key: str = "key", value: Any = None, **more: Any) -> pb.StoreOp:
    """Return what stores an item."""
    members = {"value_json": json.dumps({} if value is None else value)} | more
    return pb.StoreOp(put=pb.PutItem(namespace=pb.Namespace(labels=labels), key=key, **members))


def delete(*labels: str, key: str = "key") -> pb.StoreOp:
    return pb.StoreOp(delete=pb.DeleteItem(namespace=pb.Namespace(labels=labels), key=key))


def get(*labels: str, key: str = "key") -> pb.StoreOp:
    return pb.StoreOp(get=pb.GetItem(namespace=pb.Namespace(labels=labels), key=key))


def search(*labels: str, limit: int = 1000, filter: Any = None, **more: Any) -> pb.StoreOp:
    members = more if filter is None else {"filter_json": json.dumps(filter)} | more
    prefix = pb.Namespace(labels=labels)
    return pb.StoreOp(search=pb.SearchItems(namespace_prefix=prefix, limit=limit, **members))


def listing(*path: str, type: Any = pb.MATCH_TYPE_PREFIX, limit: int = 100, **more: Any) -> pb.StoreOp:
    conditions = [pb.MatchCondition(type=type, path=path)] if path else []
    return pb.StoreOp(list_namespaces=pb.ListNamespaces(conditions=conditions, limit=limit, **more))


def vector(*values: float, path: str = "$") -> pb.Vector:
    return pb.Vector(path=path, values=values)


def group(*ops: pb.StoreOp, index: pb.StoreIndex | None = None) -> pb.StoreGroup:
    return pb.StoreGroup(operation=operation(), ops=ops, index=index)


def batch(*groups: pb.StoreGroup | pb.StoreOp) -> pb.BatchRequest:
    """Return a batch of groups; an operation alone makes a group of its own."""
    return pb.BatchRequest(groups=[group(one) if isinstance(one, pb.StoreOp) else one for one in groups])


def sliced(request: pb.BatchRequest, size: int = 256 * 1024) -> list[pb.BatchSlicedRequest]:
    data = request.SerializeToString()
    return [
        pb.BatchSlicedRequest(slice=Slice(data=data[at : at + size], total_bytes=len(data) if at == 0 else 0))
        for at in range(0, max(len(data), 1), size)
    ]


def sliced_vectors(request: pb.PutVectorsRequest) -> list[pb.PutVectorsSlicedRequest]:
    return [pb.PutVectorsSlicedRequest(slice=part) for part in slices.split(request)]


async def ask(
    served: Served, request: pb.BatchRequest, metadata: Sequence[tuple[str, str]] | None = None
) -> list[pb.StoreGroupResult]:
    """Send a batch and return the results of its groups."""
    given = served.metadata if metadata is None else list(metadata)
    response = await served.items_stub.Batch(request, metadata=given)
    results: list[pb.StoreGroupResult] = list(response.results)
    assert len(results) == len(request.groups)
    return results


async def ask_sliced(served: Served, request: pb.BatchRequest) -> pb.BatchResponse:
    """Send a batch in slices and return the answer that comes in slices."""
    received = bytearray()
    total = 0
    async for response in served.items_stub.BatchSliced(iter(sliced(request)), metadata=served.metadata):
        total = total or response.slice.total_bytes
        received += response.slice.data
    assert len(received) == total
    return pb.BatchResponse.FromString(bytes(received))


async def keys(served: Served, *labels: str) -> list[str]:
    """Return the keys below a namespace, in the order of a search."""
    (result,) = await ask(served, batch(search(*labels)))
    assert result.status.code == 0, result.status.message
    return [item.key for item in result.results[0].items.items]


def reason_of(status: status_pb2.Status) -> tuple[str, str]:
    """Return the reason of an error and the field that it names."""
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason.removeprefix("ERROR_REASON_"), info.metadata.get("field", "")
    return "", ""


async def refusal(call: Any) -> tuple[str, str]:
    """Return why a call failed, and the field that is named."""
    try:
        if hasattr(call, "__aiter__"):
            _ = [part async for part in call]
        else:
            await call
    except grpc.aio.AioRpcError as error:
        trailers = dict(error.trailing_metadata() or ())
        details = trailers.get("grpc-status-details-bin", b"")
        assert isinstance(details, bytes)
        return reason_of(status_pb2.Status.FromString(details))
    return "", ""
