"""The calls of StoreService as plans: how a group travels, and how the index is looked after."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tenure.v1 import store_pb2 as pb

from tenure_client import slices
from tenure_client.calls import MAX_UNARY_REQUEST, Call, Plan, Shape, transfer_seconds
from tenure_client.errors import UnreadableValue
from tenure_client.statuses import from_status

_PAGE_OVERHEAD = 4096
"""Bytes of a request beside the vectors in it, at most."""


def tried(group: pb.StoreGroup, *, writes: bool) -> Plan[Sequence[pb.StoreResult] | None]:
    """Do a group that several callers asked for; return None if it is refused, or too large for an answer."""
    name = "WriteItems" if writes else "ReadItems"
    call = Call(name, group, group.operation, mutates=writes, shape=Shape.BATCHED, receive=_unless_transient)
    result: pb.StoreGroupResult = yield call
    if result.status.code or result.omitted:
        return None
    return _results(result, group)


def read(group: pb.StoreGroup, extra_seconds: float = 0) -> Plan[Sequence[pb.StoreResult]]:
    """Answer a group of reads, of any size.

    Searches have a lane of their own: they may take long, and what is quick must not share a batch with them.
    """
    call = Call(
        "SearchItems" if any(op.HasField("search") for op in group.ops) else "ReadItems",
        group,
        group.operation,
        shape=Shape.BATCHED,
        extra_seconds=extra_seconds,
        receive=_checked,
    )
    if call.size <= MAX_UNARY_REQUEST:
        result: pb.StoreGroupResult = yield call
        if not result.omitted:
            return _results(result, group)
    return _results((yield _sliced(group)), group)


def write(group: pb.StoreGroup) -> Plan[None]:
    """Apply a group of writes, of any size."""
    call = Call("WriteItems", group, group.operation, mutates=True, shape=Shape.BATCHED, receive=_checked)
    yield call if call.size <= MAX_UNARY_REQUEST else _sliced(group, upload_bytes=call.size)


def get_index() -> Plan[pb.GetIndexResponse]:
    """Ask with what the tenant's vectors are made."""
    request = pb.GetIndexRequest()
    reply: pb.GetIndexResponse = yield Call("GetIndex", request, request.operation)
    return reply


def set_index(index: pb.StoreIndex) -> Plan[int]:
    """Say with what vectors are made from now on; return how many items wait to be embedded."""
    request = pb.SetIndexRequest(index=index)
    reply: pb.SetIndexResponse = yield Call("SetIndex", request, request.operation, mutates=True)
    return reply.unembedded


def list_unembedded(limit: int, page_token: str) -> Plan[pb.ListUnembeddedResponse]:
    """Return a page of the items that wait to be embedded."""
    request = pb.ListUnembeddedRequest(limit=limit, page_token=page_token)
    reply: pb.ListUnembeddedResponse = yield Call("ListUnembedded", request, request.operation)
    return reply


def put_vectors(index: pb.StoreIndex, items: Iterable[pb.ItemVectors]) -> Plan[None]:
    """Store vectors of items that have not changed, in as many requests as they need."""
    request = pb.PutVectorsRequest(index=index)
    room = MAX_UNARY_REQUEST - _PAGE_OVERHEAD
    for item in items:
        size = item.ByteSize() + 8
        if request.items and size > room:
            yield _put_vectors(request)
            request = pb.PutVectorsRequest(index=index)
            room = MAX_UNARY_REQUEST - _PAGE_OVERHEAD
        request.items.append(item)
        room -= size
    if request.items:
        yield _put_vectors(request)


def _put_vectors(request: pb.PutVectorsRequest) -> Call:
    call = Call("PutVectors", request, request.operation, mutates=True)
    if call.size <= MAX_UNARY_REQUEST - _PAGE_OVERHEAD:
        return call
    return Call(
        "PutVectorsSliced",
        request,
        request.operation,
        mutates=True,
        shape=Shape.UPLOAD,
        extra_seconds=transfer_seconds(call.size),
    )


def _sliced(group: pb.StoreGroup, upload_bytes: int | None = None) -> Call:
    """Return the call that moves one group and its answer in slices; only writes say their size."""
    request = pb.BatchRequest(groups=[group])
    if upload_bytes is None:
        # Another call than the one that was answered `omitted`.
        request.groups[0].operation.Clear()
    return Call(
        "BatchSliced",
        request,
        request.groups[0].operation,
        mutates=upload_bytes is not None,
        shape=Shape.EXCHANGE,
        extra_seconds=transfer_seconds() if upload_bytes is None else transfer_seconds(upload_bytes),
        receive=_joined,
    )


def _joined(parts: Sequence[pb.BatchSlicedResponse]) -> pb.StoreGroupResult:
    return _only_result(slices.join(pb.BatchResponse, (part.slice for part in parts)))


def _only_result(reply: Any) -> pb.StoreGroupResult:
    if len(reply.results) != 1:
        raise UnreadableValue(f"the server sent {len(reply.results)} results for one group")
    return _checked(reply.results[0])


def _checked(result: pb.StoreGroupResult) -> pb.StoreGroupResult:
    error = from_status(result.status)
    if error is not None:
        raise error
    return result


def _unless_transient(result: pb.StoreGroupResult) -> pb.StoreGroupResult:
    error = from_status(result.status)
    if error is not None and error.transient:
        raise error
    return result


def _results(result: pb.StoreGroupResult, group: pb.StoreGroup) -> Sequence[pb.StoreResult]:
    if len(result.results) != len(group.ops):
        raise UnreadableValue(
            f"the server sent {len(result.results)} results for {len(group.ops)} operations"
        )
    return result.results
