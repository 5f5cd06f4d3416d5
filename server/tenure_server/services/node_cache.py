"""CacheService: results of graph nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from tenure.v1 import cache_pb2 as pb
from tenure.v1 import cache_pb2_grpc
from tenure.v1.common_pb2 import Blob

from tenure_server.limits import KIB, Limits
from tenure_server.node_results import CacheShare
from tenure_server.services.caller import principal
from tenure_server.services.reading import remaining, within
from tenure_server.storage.ports import NodeCache
from tenure_server.wire.cache_requests import CacheRequests

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

_REPLY_OVERHEAD = 64 * KIB
"""What indexes and type tags of a whole batch take in a reply."""


class CacheService(cache_pb2_grpc.CacheServiceServicer):
    """See cache.proto.

    Args:
        cache: Where results are; None = nowhere, so that nothing is found.
        limits: Hard caps.
    """

    def __init__(self, cache: NodeCache | None, limits: Limits) -> None:
        self._cache = cache
        self._requests = CacheRequests(limits)
        self._room = limits.max_unary_reply_bytes - _REPLY_OVERHEAD

    async def Get(self, request: pb.GetRequest, context: Context) -> pb.GetResponse:
        operation, keys = self._requests.get(request)
        if self._cache is None or not keys:
            return pb.GetResponse()
        found = await within(remaining([operation]), self._cache.get(_share(), keys, self._room))
        return pb.GetResponse(
            hits=[
                pb.CacheHit(index=index, value=Blob(type=value.type, data=value.data))
                for index, value in enumerate(map(found.values.get, keys))
                if value is not None
            ],
            omitted=[index for index, key in enumerate(keys) if key in found.omitted],
        )

    async def Set(self, request: pb.SetRequest, context: Context) -> pb.SetResponse:
        operation, results = self._requests.set(request)
        remaining([operation])
        if self._cache is not None and results:
            await self._cache.set(_share(), results)
        return pb.SetResponse()

    async def Clear(self, request: pb.ClearRequest, context: Context) -> pb.ClearResponse:
        operation, namespaces = self._requests.clear(request)
        remaining([operation])
        if self._cache is not None:
            await self._cache.clear(_share(), namespaces)
        return pb.ClearResponse()


def _share() -> CacheShare:
    """Return the caller's part of the cache."""
    caller = principal.get()
    rules = () if caller.rules is None else tuple(sorted(caller.rules.format()))
    return CacheShare(caller.tenant, rules)
