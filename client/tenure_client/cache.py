"""TenureCache: results of graph nodes kept by Tenure, so that a node need not run again for the same input.

Never in a graph's way: what cannot be had, or cannot be read, is a miss, and the node runs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from langgraph.cache.base import BaseCache, FullKey, Namespace, ValueT
from langgraph.checkpoint.serde.base import SerializerProtocol
from tenure.v1 import cache_pb2 as pb

from tenure_client.calls import MAX_UNARY_REQUEST, Call, Plan
from tenure_client.connected import Connected
from tenure_client.connection import Connection
from tenure_client.errors import DeadlineExceeded, InvalidRequest, Overloaded, ServerError, Unavailable
from tenure_client.retry import Budget
from tenure_client.serde import TenureSerializer, TypeName

_TIMEOUT = 10.0
"""Seconds of a connection that the cache makes."""
_MAX_BATCH = 256
_MAX_BYTES = MAX_UNARY_REQUEST - 16 * 1024
"""Bytes of entries that leave together; the rest is for the operation, its trace and the framing."""
_AWAY = (Unavailable, DeadlineExceeded, Overloaded, ServerError)

_log = logging.getLogger("tenure")


class TenureCache(Connected, BaseCache[ValueT]):
    """A LangGraph cache of node results in Tenure, shared by all processes that hold the tenant's key.

    One object serves blocking and asynchronous graphs, threads, event loops and forked workers. As a context
    manager, of either colour, it closes the connection that it made.

        cache = TenureCache(saver.connection)
        builder.add_node(search, cache_policy=CachePolicy(ttl=600))
        graph = builder.compile(checkpointer=saver, cache=cache)

    A value may be gone at any time. It is kept for its `ttl`, at most 24 hours; one above about 1 MiB is not
    kept at all. While the service is away every look-up misses, within `timeout`, and nothing is kept. A
    wrong API key, or one without the scope, raises. A key that is limited by rules shares its values only
    with keys that have the same rules.

    Args:
        target_or_connection: "host:port", "unix:/path", "tenure://KEY@host:port" or a `Connection` to share;
            None = the variable TENURE_TARGET.
        api_key: The tenant's key; None = TENURE_API_KEY.
        serde: Serializer to use as it is; None = `TenureSerializer`.
        allowed_types: See `TenureSaver`.
        timeout: Seconds that a look-up or a `set` takes at most, without retries. `clear` takes as long as
            any other operation of the connection, 10 seconds if the cache makes it.
        ca: PEM file with the certificates to trust; None = TENURE_CA, else the system's.
        insecure: Speak plaintext to an address that is not on this machine.
        connections: gRPC channels per process and event loop.

    Attributes:
        connection: The connection, to be shared with savers and stores.

    Raises:
        InvalidRequest: An argument is missing or contradicts another.
    """

    def __init__(
        self,
        target_or_connection: str | Connection | None = None,
        *,
        api_key: str | None = None,
        serde: SerializerProtocol | None = None,
        allowed_types: Iterable[type | TypeName] | None = None,
        timeout: float = 1.0,
        ca: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        connections: int = 1,
    ) -> None:
        if serde is not None and allowed_types is not None:
            raise InvalidRequest(
                "serde= is used as it is; give allowed types to it instead of allowed_types=",
                metadata={"field": "allowed_types"},
            )
        if timeout <= 0:
            raise InvalidRequest("timeout must be more than 0 seconds", metadata={"field": "timeout"})
        super().__init__(serde=serde or TenureSerializer(allowed_types=allowed_types))
        self._timeout = timeout
        self._away = False
        self._connect(
            target_or_connection,
            api_key=api_key,
            timeout=max(timeout, _TIMEOUT),
            ca=ca,
            insecure=insecure,
            connections=connections,
        )

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """Return the values that are there; a key without one is left out."""
        return self.connection.run("tenure.cache.get", self._get(keys), self._budget())

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """See `get`."""
        return await self.connection.arun("tenure.cache.get", self._get(keys), self._budget())

    def set(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """Keep values for their TTLs in seconds, None = 24 hours, or drop them.

        Raises:
            TypeError: The serializer cannot write a value.
        """
        self.connection.run("tenure.cache.set", self._set(pairs), self._budget())

    async def aset(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """See `set`."""
        await self.connection.arun("tenure.cache.set", self._set(pairs), self._budget())

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Remove the values of exactly these namespaces, or all of them.

        Unlike the others it raises if the service, or its Redis, is away: what should be gone would be served
        again once they are back.

        Raises:
            Unavailable: Nothing is known to be cleared.
        """
        self.connection.run("tenure.cache.clear", _clear(namespaces))

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """See `clear`."""
        await self.connection.arun("tenure.cache.clear", _clear(namespaces))

    def _budget(self) -> Budget:
        return Budget(self._timeout, retries=False)

    def _get(self, keys: Sequence[FullKey]) -> Plan[dict[FullKey, ValueT]]:
        found: dict[FullKey, ValueT] = {}
        asked = iter(dict.fromkeys((tuple(namespace), key) for namespace, key in keys))
        while batch := list(islice(asked, _MAX_BATCH)):
            while batch:
                request = pb.GetRequest(keys=[_key(key) for key in batch])
                reply = yield from self._ask(Call("Get", request, request.operation))
                if reply is None:
                    return found
                for hit in reply.hits:
                    self._revive(batch[hit.index], hit.value, found)
                left = [batch[index] for index in reply.omitted]
                batch = left if len(left) < len(batch) else []
        return found

    def _revive(self, key: FullKey, value: Any, found: dict[FullKey, ValueT]) -> None:
        try:
            found[key] = self.serde.loads_typed((value.type, value.data))
        except Exception as error:
            # Another version of the program may have written it, or it is not trusted: the node runs again.
            _log.debug("an entry of the node cache cannot be read: %s", error)

    def _set(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> Plan[None]:
        for entries in _batches(self._entries(pairs)):
            request = pb.SetRequest(entries=entries)
            if (yield from self._ask(Call("Set", request, request.operation))) is None:
                return

    def _entries(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> Iterator[pb.CacheEntry]:
        for key, (value, ttl) in pairs.items():
            entry = pb.CacheEntry(key=_key(key))
            if ttl is None or ttl > 0:
                entry.value.type, entry.value.data = self.serde.dumps_typed(value)
                if ttl is not None:
                    entry.ttl_seconds = ttl
            if (size := entry.ByteSize()) > _MAX_BYTES:
                _log.info("a node's result of %s bytes is too large for the node cache", f"{size:,}")
                entry.ClearField("value")
            yield entry

    def _ask(self, call: Call) -> Plan[Any]:
        """Return the reply, None if the service is away; say so once."""
        try:
            reply = yield call
        except _AWAY as error:
            if not self._away:
                self._away = True
                _log.warning("the node cache is away, nodes run until it answers again: %s", error)
            return None
        self._away = False
        return reply


def _clear(namespaces: Sequence[Namespace] | None) -> Plan[None]:
    if namespaces is None:
        request = pb.ClearRequest(everything=True)
        yield Call("Clear", request, request.operation, mutates=True)
        return
    asked = iter(namespaces)
    while batch := list(islice(asked, _MAX_BATCH)):
        request = pb.ClearRequest(namespaces=[pb.CacheNamespace(labels=labels) for labels in batch])
        yield Call("Clear", request, request.operation, mutates=True)


def _key(key: FullKey) -> pb.CacheKey:
    namespace, name = key
    return pb.CacheKey(namespace=pb.CacheNamespace(labels=namespace), key=name)


def _batches(entries: Iterable[pb.CacheEntry]) -> Iterator[list[pb.CacheEntry]]:
    """Yield entries in runs for one request each."""
    batch: list[pb.CacheEntry] = []
    room = _MAX_BYTES
    for entry in entries:
        size = entry.ByteSize() + 8
        if batch and (size > room or len(batch) == _MAX_BATCH):
            yield batch
            batch, room = [], _MAX_BYTES
        batch.append(entry)
        room -= size
    if batch:
        yield batch
