"""Requests about items and about results of nodes that name what a tenant holds; see `tenants_support`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Protocol

from google.protobuf.message import Message
from tenure.v1 import cache_pb2
from tenure.v1 import store_pb2 as pb
from tenure.v1.common_pb2 import Blob, Slice
from tenure_server.wire.item_requests import page_token

from tests.integration.wire_support import Answer, Wire, operation, outcome_of

INDEX = pb.StoreIndex(dims=2, embedder="tests")
OTHER_INDEX = pb.StoreIndex(dims=3, embedder="intruder")


class Ids(Protocol):
    """The names of `tenants_support.Ids` that are used here."""

    @property
    def thread(self) -> str:
        """The only label of the namespace."""
        ...

    @property
    def checkpoint(self) -> str:
        """The key."""
        ...

    @property
    def run(self) -> str:
        """A word in the items, and a member of their values."""
        ...


Make = Callable[[Ids], Sequence[Message]]


def namespace(ids: Ids) -> pb.Namespace:
    """Return where the items are."""
    return pb.Namespace(labels=[ids.thread])


def batch(*ops: pb.StoreOp) -> pb.BatchRequest:
    """Return a batch of one group."""
    indexed = any(op.put.vectors or op.search.query_vector for op in ops)
    group = pb.StoreGroup(operation=operation(), ops=ops, index=INDEX if indexed else None)
    return pb.BatchRequest(groups=[group])


def in_slices(request: pb.BatchRequest) -> list[pb.BatchSlicedRequest]:
    """Return a batch in two slices."""
    return [pb.BatchSlicedRequest(slice=part) for part in _halves(request)]


def search(prefix: Sequence[str] = (), **more: object) -> pb.StoreOp:
    """Return a search."""
    members: dict[str, object] = {"namespace_prefix": pb.Namespace(labels=prefix), "limit": 1000, **more}
    return pb.StoreOp(search=pb.SearchItems(**members))  # type: ignore[arg-type]


def listing(*conditions: pb.MatchCondition, depth: int | None = None) -> pb.StoreOp:
    """Return a listing of namespaces."""
    return pb.StoreOp(list_namespaces=pb.ListNamespaces(conditions=conditions, max_depth=depth, limit=10_000))


def fill(wire: Wire, ids: Ids, canary: str) -> None:
    """Store two items, of which one waits to be embedded, and the result of a node."""
    put = _put(ids, {"told": canary, "run": ids.run}, f"{ids.run} {canary}")
    waiting = pb.StoreOp(
        put=pb.PutItem(
            namespace=namespace(ids),
            key=f"{ids.checkpoint}-waiting",
            value_json=json.dumps({"told": canary}),
            ttl_seconds=3600,
        )
    )
    for method, request in (
        ("Batch", batch(put, waiting)),
        ("Set", _set(ids, canary)),
    ):
        assert outcome_of(method, wire.call(method, request)).code == 0


def everything(wire: Wire, ids: Sequence[Ids]) -> list[Answer]:
    """Return all items of the tenant with its index, its namespaces, what waits, and its results."""
    keys = [key(one) for one in ids]
    return [
        wire.call("BatchSliced", *in_slices(batch(search()))),
        wire.call("Batch", batch(listing())),
        wire.call("ListUnembedded", pb.ListUnembeddedRequest()),
        wire.call("Get", cache_pb2.GetRequest(keys=keys)),
    ]


def key(ids: Ids) -> cache_pb2.CacheKey:
    """Return the key of a node's result."""
    return cache_pb2.CacheKey(namespace=cache_pb2.CacheNamespace(labels=[ids.thread]), key=ids.checkpoint)


def _set(ids: Ids, text: str) -> cache_pb2.SetRequest:
    value = Blob(type="msgpack", data=text.encode())
    return cache_pb2.SetRequest(
        operation=operation(), entries=[cache_pb2.CacheEntry(key=key(ids), value=value)]
    )


def _put(ids: Ids, value: object, text: str) -> pb.StoreOp:
    vector = pb.Vector(path="$", values=[1.0, 0.0])
    return pb.StoreOp(
        put=pb.PutItem(
            namespace=namespace(ids),
            key=ids.checkpoint,
            value_json=json.dumps(value),
            text=text,
            vectors=[vector],
        )
    )


def _halves(request: Message) -> list[Slice]:
    data = request.SerializeToString()
    half = len(data) // 2
    return [Slice(data=data[:half], total_bytes=len(data)), Slice(data=data[half:])]


def _vectors(ids: Ids) -> pb.PutVectorsRequest:
    item = pb.ItemVectors(
        namespace=namespace(ids),
        key=ids.checkpoint,
        updated_at_us=1,
        vectors=[pb.Vector(path="$", values=[0.0, 1.0])],
    )
    return pb.PutVectorsRequest(operation=operation(), index=INDEX, items=[item])


def _condition(kind: pb.MatchType, *path: str) -> pb.MatchCondition:
    return pb.MatchCondition(type=kind, path=path)


_READ: list[Callable[[Ids], pb.StoreOp]] = [
    lambda ids: pb.StoreOp(get=pb.GetItem(namespace=namespace(ids), key=ids.checkpoint, refresh_ttl=True)),
    lambda ids: pb.StoreOp(
        get=pb.GetItem(namespace=namespace(ids), key=f"{ids.checkpoint}-waiting", refresh_ttl=True)
    ),
    lambda ids: search([ids.thread], refresh_ttl=True),
    lambda ids: search(filter_json=json.dumps({"run": ids.run})),
    lambda ids: search(filter_json=json.dumps({"run": {"$in": [ids.run, 1]}, "none": {"$exists": False}})),
    lambda ids: search([ids.thread], mode=pb.SEARCH_MODE_SEMANTIC, query_vector=[1.0, 1.0]),
    lambda ids: search(mode=pb.SEARCH_MODE_KEYWORD, query_text=f'"{ids.run}"'),
    lambda ids: search([ids.thread], mode=pb.SEARCH_MODE_HYBRID, query_text=ids.run, query_vector=[1.0, 1.0]),
    lambda ids: listing(_condition(pb.MATCH_TYPE_PREFIX, ids.thread)),
    lambda ids: listing(_condition(pb.MATCH_TYPE_SUFFIX, ids.thread), depth=1),
]
_WRITE: list[Callable[[Ids], pb.StoreOp]] = [
    lambda ids: _put(ids, {"told": "intruder"}, "intruder"),
    lambda ids: pb.StoreOp(
        put=pb.PutItem(namespace=namespace(ids), key=f"{ids.checkpoint}-more", value_json="{}")
    ),
    lambda ids: pb.StoreOp(delete=pb.DeleteItem(namespace=namespace(ids), key=ids.checkpoint)),
]


def _whole(make: Callable[[Ids], pb.StoreOp]) -> Make:
    return lambda ids: [batch(make(ids))]


def _sliced(make: Callable[[Ids], pb.StoreOp]) -> Make:
    return lambda ids: in_slices(batch(make(ids)))


READS: dict[str, list[Make]] = {
    "Batch": [_whole(make) for make in _READ],
    "BatchSliced": [_sliced(make) for make in _READ],
    "ListUnembedded": [
        lambda ids: [pb.ListUnembeddedRequest()],
        lambda ids: [pb.ListUnembeddedRequest(page_token=page_token((ids.thread,), ""), limit=1)],
    ],
    "Get": [lambda ids: [cache_pb2.GetRequest(keys=[key(ids)])]],
}
WRITES: dict[str, list[Make]] = {
    "Batch": [_whole(make) for make in _WRITE],
    "BatchSliced": [_sliced(make) for make in _WRITE],
    "SetIndex": [lambda ids: [pb.SetIndexRequest(operation=operation(), index=OTHER_INDEX)]],
    "Set": [lambda ids: [_set(ids, "intruder")]],
    "Clear": [
        lambda ids: [
            cache_pb2.ClearRequest(
                operation=operation(), namespaces=[cache_pb2.CacheNamespace(labels=[ids.thread])]
            )
        ],
        lambda ids: [cache_pb2.ClearRequest(operation=operation(), everything=True)],
    ],
}
NEUTRAL: dict[str, list[Make]] = {
    "GetIndex": [lambda ids: [pb.GetIndexRequest()]],
    # Nobody knows when an item of somebody else was put: one that names another time changes nothing.
    "PutVectors": [lambda ids: [_vectors(ids)]],
    "PutVectorsSliced": [
        lambda ids: [pb.PutVectorsSlicedRequest(slice=part) for part in _halves(_vectors(ids))]
    ],
}
SCOPES: dict[str, tuple[str, ...]] = {
    "GetIndex": ("read",),
    "PutVectors": ("write",),
    "PutVectorsSliced": ("write",),
    "SetIndex": ("admin", "read", "write"),
}
"""What each RPC of these needs where it is not plain."""
