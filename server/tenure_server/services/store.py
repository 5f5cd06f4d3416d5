"""StoreService: groups of operations on items, and the index of their vectors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from tenure.v1 import store_pb2 as pb
from tenure.v1 import store_pb2_grpc
from tenure.v1.common_pb2 import Slice

from tenure_server import errors
from tenure_server.domain import Operation, Scope, TenantId
from tenure_server.items import Index, ItemVectors, Namespace, Unembedded
from tenure_server.limits import Limits
from tenure_server.services.caller import charge_operations, principal, rules
from tenure_server.services.reading import remaining, within
from tenure_server.services.store_batches import StoreBatches
from tenure_server.storage.ports import ItemStore
from tenure_server.wire import items, slices
from tenure_server.wire.fields import count
from tenure_server.wire.item_requests import ItemRequests, page_token

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

M = TypeVar("M", bound=Message)

_AT_ONCE = 16
"""Items that are read at once for a page; each may be as large as a value can be."""
_OVERHEAD = 16


class StoreService(store_pb2_grpc.StoreServiceServicer):
    """See store.proto."""

    def __init__(self, store: ItemStore, batches: StoreBatches, limits: Limits) -> None:
        self._store = store
        self._batches = batches
        self._limits = limits
        self._requests = ItemRequests(limits)

    async def Batch(self, request: pb.BatchRequest, context: Context) -> pb.BatchResponse:
        return await self._batches.unary(request)

    async def BatchSliced(
        self, request_iterator: AsyncIterator[pb.BatchSlicedRequest], context: Context
    ) -> AsyncIterator[pb.BatchSlicedResponse]:
        parts = (request.slice async for request in request_iterator)
        request = await self._joined(pb.BatchRequest, parts)
        count("groups", request.groups, 1, empty=False)
        charge_operations(len(request.groups[0].ops) - 1)
        response = pb.BatchResponse(results=await self._batches.results(request))
        del request
        size, maximum = response.ByteSize(), self._limits.max_operation_bytes
        if size > maximum:
            raise errors.LimitExceeded("groups[0].results", "max_operation_bytes", size, maximum)
        for part in slices.cut(response.SerializeToString(), self._limits):
            yield pb.BatchSlicedResponse(slice=part)

    async def GetIndex(self, request: pb.GetIndexRequest, context: Context) -> pb.GetIndexResponse:
        operation = self._requests.get_index(request)
        index, waiting = await within(remaining([operation]), self._store.index(principal.get().tenant))
        sees_all = rules().readable_namespaces() is None
        return pb.GetIndexResponse(
            index=None if index is None else items.index(index), unembedded=waiting if sees_all else 0
        )

    async def SetIndex(self, request: pb.SetIndexRequest, context: Context) -> pb.SetIndexResponse:
        operation, index = self._requests.set_index(request)
        # The vectors of all items go: who takes them away must be able to make new ones.
        for scope in (Scope.READ, Scope.WRITE):
            if scope not in principal.get().scopes:
                raise errors.ScopeMissing(scope.value)
        rules().check_namespace((), write=True, field="index")
        remaining([operation])
        waiting = await self._store.set_index(principal.get().tenant, operation, index)
        return pb.SetIndexResponse(unembedded=waiting)

    async def ListUnembedded(
        self, request: pb.ListUnembeddedRequest, context: Context
    ) -> pb.ListUnembeddedResponse:
        operation, after, wanted = self._requests.unembedded(request)
        page = self._unembedded(principal.get().tenant, after, wanted)
        return await within(remaining([operation]), page)

    async def _unembedded(
        self, tenant: TenantId, after: tuple[Namespace, str] | None, wanted: int
    ) -> pb.ListUnembeddedResponse:
        """Return a page: as many as are wanted and fit, at least one unless there are no more."""
        response = pb.ListUnembeddedResponse()
        readable = rules().readable_namespaces()
        room = self._limits.max_unary_reply_bytes - self._limits.max_labels_bytes * 4
        while True:
            found = await self._store.unembedded(tenant, after, _AT_ONCE)
            for one in found:
                if _is_readable(one, readable):
                    if len(response.items) == wanted or not (size := self._add(response, one, room)):
                        # Not `after`: it may name an item that the caller must not know of.
                        last = response.items[-1].item
                        response.next_page_token = page_token(tuple(last.namespace.labels), last.key)
                        return response
                    room -= size
                after = one.item.namespace, one.item.key
            if len(found) < _AT_ONCE:
                return response

    def _add(self, response: pb.ListUnembeddedResponse, one: Unembedded, room: int) -> int:
        """Add an item to a page and return its size, 0 if there is no room for it."""
        message = pb.UnembeddedItem(index_paths=one.index_paths)
        items.fill_item(message.item, one.item)
        if not response.items and message.ByteSize() + _OVERHEAD > room:
            message.item.ClearField("value_json")
        size = message.ByteSize() + _OVERHEAD
        if size > room and response.items:
            return 0
        response.items.append(message)
        return size

    async def PutVectors(self, request: pb.PutVectorsRequest, context: Context) -> pb.PutVectorsResponse:
        size, maximum = request.ByteSize(), self._limits.max_unary_request_bytes
        if size > maximum:
            raise errors.LimitExceeded("request", "max_unary_request_bytes", size, maximum)
        await self._put_vectors(*self._requests.put_vectors(request))
        return pb.PutVectorsResponse()

    async def PutVectorsSliced(
        self, request_iterator: AsyncIterator[pb.PutVectorsSlicedRequest], context: Context
    ) -> pb.PutVectorsSlicedResponse:
        parts = (request.slice async for request in request_iterator)
        request = await self._joined(pb.PutVectorsRequest, parts)
        charge_operations(len(request.items) - 1)
        # Millions of numbers would hold up everybody else on the loop.
        wanted = await asyncio.to_thread(self._requests.put_vectors, request)
        del request
        await self._put_vectors(*wanted)
        return pb.PutVectorsSlicedResponse()

    async def _put_vectors(self, operation: Operation, index: Index, vectors: Sequence[ItemVectors]) -> None:
        for at, one in enumerate(vectors):
            rules().check_namespace(one.namespace, write=True, field=f"items[{at}].namespace")
        remaining([operation])
        await self._store.put_vectors(principal.get().tenant, operation, index, vectors)

    async def _joined(self, kind: type[M], parts: AsyncIterator[Slice]) -> M:
        """Return the request that comes in slices."""
        # A stalled sender would keep its slot, of which all tenants together have few.
        serialized = await within(self._limits.max_timeout, slices.join(parts, self._limits))
        request = kind()
        try:
            request.ParseFromString(serialized)
        except DecodeError:
            raise errors.InvalidField("slice", f"the slices are not a serialized {kind.__name__}") from None
        return request


def _is_readable(one: Unembedded, readable: Sequence[Namespace] | None) -> bool:
    namespace = one.item.namespace
    return readable is None or any(namespace[: len(prefix)] == prefix for prefix in readable)
