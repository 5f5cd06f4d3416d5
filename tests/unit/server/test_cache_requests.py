"""Requests of the node cache: what they become, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tenure.v1 import cache_pb2 as pb
from tenure.v1 import common_pb2
from tenure_server import errors
from tenure_server.domain import Blob
from tenure_server.limits import Limits
from tenure_server.node_results import NodeKey, NodeResult
from tenure_server.wire.cache_requests import CacheRequests

OPERATION = common_pb2.Operation(operation_id=b"i" * 16)
REQUESTS = CacheRequests(Limits())


def key(*labels: str, key: str = "k") -> pb.CacheKey:
    return pb.CacheKey(namespace=pb.CacheNamespace(labels=labels), key=key)


def get(*keys: pb.CacheKey) -> pb.GetRequest:
    return pb.GetRequest(operation=OPERATION, keys=keys)


def entry(of: pb.CacheKey | None = None, **changes: Any) -> pb.SetRequest:
    """Return a request with one entry."""
    made = {"value": common_pb2.Blob(type="msgpack", data=b"v")} | changes
    return pb.SetRequest(operation=OPERATION, entries=[pb.CacheEntry(key=of or key("n"), **made)])


def clear(*namespaces: tuple[str, ...], **changes: Any) -> pb.ClearRequest:
    named = [pb.CacheNamespace(labels=labels) for labels in namespaces]
    return pb.ClearRequest(operation=OPERATION, namespaces=named, **changes)


def read(request: Any) -> Any:
    """Return what a request becomes, without its operation."""
    method = {pb.GetRequest: REQUESTS.get, pb.SetRequest: REQUESTS.set, pb.ClearRequest: REQUESTS.clear}
    return method[type(request)](request)[1]


def test_keys_are_taken_as_they_are() -> None:
    keys = [key(), key("", ""), key("a.b", "ä", key=""), key(*"a" * 32)]
    assert read(get(*keys)) == [
        NodeKey((), "k"),
        NodeKey(("", ""), "k"),
        NodeKey(("a.b", "ä"), ""),
        NodeKey(("a",) * 32, "k"),
    ]
    assert read(get()) == []


def test_an_entry_may_have_a_time_and_may_lack_a_value() -> None:
    node = NodeKey(("n",), "k")
    value = Blob("msgpack", b"v")
    assert read(entry()) == [NodeResult(node, value)]
    assert read(entry(ttl_seconds=0.5)) == [NodeResult(node, value, 0.5)]
    assert read(entry(value=None)) == [NodeResult(node, None)]


def test_clear_takes_namespaces_or_everything() -> None:
    assert read(clear()) == []
    assert read(clear(("a", "b"), ())) == [("a", "b"), ()]
    assert read(clear(everything=True)) is None


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (get(key("n", key="\0")), "keys[0].key"),
        (get(key("n"), key("a\0")), "keys[1].namespace.labels"),
        (get(key("n", key="ä" * 257)), "keys[0].key"),
        (get(key("n" * 2049)), "keys[0].namespace.labels"),
        (get(key("n" * 1024, "n" * 1025)), "keys[0].namespace.labels"),
        (get(key(*"n" * 33)), "keys[0].namespace.labels"),
        (get(*[key("n")] * 257), "keys"),
        (entry(key("n", key="\0")), "entries[0].key.key"),
        (entry(value=common_pb2.Blob(type="pickle")), "entries[0].value.type"),
        (entry(value=common_pb2.Blob(type="json+aes")), "entries[0].value.type"),
        (entry(value=common_pb2.Blob()), "entries[0].value.type"),
        (entry(ttl_seconds=0), "entries[0].ttl_seconds"),
        (entry(ttl_seconds=-1), "entries[0].ttl_seconds"),
        (entry(ttl_seconds=math.nan), "entries[0].ttl_seconds"),
        (entry(ttl_seconds=math.inf), "entries[0].ttl_seconds"),
        (entry(value=common_pb2.Blob(type="bytes", data=bytes(1024 * 1024))), "request"),
        (pb.SetRequest(operation=OPERATION, entries=[pb.CacheEntry(key=key())] * 257), "entries"),
        (pb.SetRequest(), "operation.operation_id"),
        (clear(("a",), everything=True), "namespaces"),
        (clear(("a",), ("\0",)), "namespaces[1].labels"),
        (clear(*[("n",)] * 257), "namespaces"),
        (pb.ClearRequest(everything=True), "operation.operation_id"),
    ],
)
def test_a_refusal_names_the_field(request_: Any, field: str) -> None:
    with pytest.raises((errors.InvalidField, errors.LimitExceeded)) as caught:
        read(request_)
    assert caught.value.metadata["field"] == field
