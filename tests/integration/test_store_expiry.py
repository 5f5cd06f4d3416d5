"""Time to live is exact to a second: what has expired is nowhere, though no sweeper has removed it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langgraph.store.base import GetOp, ListNamespacesOp, PutOp, SearchOp
from tenure.v1 import store_pb2 as pb
from tenure_client import TenureStore

from tests.harness.databases import Database
from tests.harness.embedders import DIMS, embed_letters
from tests.harness.stack import Stack, TenantHandle
from tests.integration.checkpoints_support import replicas, wait_until
from tests.integration.wire_support import Wire

INDEX: Any = {"dims": DIMS, "embed": embed_letters, "fields": ["text"]}
TTL = 2.0
"""Seconds; LangGraph's are minutes."""
SOON = TTL / 60


@pytest.fixture
def unswept(database: Database, open_folder: Path) -> Iterator[Stack]:
    """A server that never removes what has expired."""
    nobody = {"TENURE_OPS_DATABASE_URL": "", "TENURE_ADMIN_DATABASE_URL": ""}
    with replicas(1, open_folder, database, **nobody) as (server,):
        yield Stack(server, database, None)


@pytest.fixture
def tenant(unswept: Stack) -> TenantHandle:
    return unswept.new_tenant(("read", "write", "admin"))


@pytest.fixture
def store(unswept: Stack, tenant: TenantHandle) -> Iterator[TenureStore]:
    with TenureStore(
        unswept.target,
        api_key=tenant.api_key,
        index=INDEX,
        search_mode="hybrid",
        ttl={"refresh_on_read": False},
    ) as opened:
        yield opened


def everywhere(store: TenureStore, namespace: str) -> dict[str, Callable[[], bool]]:
    """Return all ways to come across the item `k` of a namespace; none of them is a use."""
    place = (namespace,)

    def found(**how: Any) -> Callable[[], bool]:
        return lambda: "k" in [item.key for item in store.search(place, limit=1000, **how)]

    return {
        "get": lambda: store.get(place, "k") is not None,
        "a get in a batch": lambda: (
            store.batch([GetOp(place, "k", False), SearchOp(place, refresh_ttl=False)])[0] is not None
        ),
        "search": found(),
        "search everywhere": lambda: place in {item.namespace for item in store.search((), limit=1000)},
        "filter": found(filter={"n": 1}),
        "by meaning": found(query="cat", mode="semantic"),
        "by words": found(query="cat", mode="keyword"),
        "by both": found(query="cat", mode="hybrid"),
        "namespaces": lambda: place in store.list_namespaces(),
        "namespaces, cut": lambda: place in store.list_namespaces(prefix=place, max_depth=1),
        "a later page": lambda: (
            bool(store.search(place, offset=1)) or bool(store.search(place, query="cat", offset=1))
        ),
    }


def test_an_item_is_there_until_its_time_is_over_and_nowhere_after(
    store: TenureStore, unswept: Stack
) -> None:
    names = list(everywhere(store, ""))
    store.batch([PutOp(("stays",), key, {"text": "a cat", "n": 1}) for key in ("before", "k")])
    assert [name for name, way in everywhere(store, "stays").items() if not way()] == []
    began: dict[str, float] = {}
    ended: dict[str, float] = {}
    for name in names:
        began[name] = time.monotonic()
        ops = [PutOp((name,), key, {"text": "a cat", "n": 1}, ttl=SOON) for key in ("before", "k")]
        store.batch(ops)
        ended[name] = time.monotonic()
    ways = {name: everywhere(store, name)[name] for name in names}
    waiting = set(names)
    while waiting:
        for name in sorted(waiting):
            asked = time.monotonic()
            there = ways[name]()
            answered = time.monotonic()
            # Both clocks count real seconds; nothing is assumed about how long a call takes.
            if answered < began[name] + TTL:
                assert there, f"{name}: it went too early"
            if asked > ended[name] + TTL:
                assert not there, f"{name}: it was found after its time"
                waiting.remove(name)
    assert [name for name in names if any(way() for way in everywhere(store, name).values())] == []
    with psycopg.connect(unswept.database.admin_url) as other:
        rows = other.execute("SELECT count(*) FROM tenure.item WHERE expires_at IS NOT NULL").fetchone()
    assert rows == (2 * len(names),), "a sweeper has removed them"


def test_what_has_expired_does_not_wait_to_be_embedded(
    store: TenureStore, unswept: Stack, tenant: TenantHandle
) -> None:
    with TenureStore(unswept.target, api_key=tenant.api_key) as plain:
        plain.put(("a",), "k", {"text": "a cat"}, ttl=0)
        plain.put(("a",), "stays", {"text": "a cat"})
    with Wire(unswept.target, tenant.api_key) as wire:
        told = wire.call("GetIndex", pb.GetIndexRequest()).message(pb.GetIndexResponse)
        page = wire.call("ListUnembedded", pb.ListUnembeddedRequest()).message(pb.ListUnembeddedResponse)
    assert told.unembedded == 1
    assert [one.item.key for one in page.items] == ["stays"]
    assert store.rebuild_index() == 1


def test_put_again_after_its_time_it_is_a_new_item(store: TenureStore) -> None:
    store.put(("a",), "k", {"n": 1, "text": "cat"}, ttl=0)
    store.put(("a",), "l", {"n": 2})
    before = store.get(("a",), "l")
    store.put(("a",), "k", {"n": 3})
    item = store.get(("a",), "k")
    assert item is not None
    assert before is not None
    assert item.created_at == item.updated_at > before.created_at
    assert [found.key for found in store.search(("a",))] == ["l", "k"]
    assert store.search(("a",), query="cat", mode="keyword") == []


def test_an_offset_does_not_count_what_has_expired(store: TenureStore) -> None:
    gone = [
        PutOp(("a",), str(at), {"text": "cat"}, index=index, ttl=0) for at, index in enumerate([None, False])
    ]
    store.batch([*gone, PutOp(("b",), "k", {}), PutOp(("b",), "l", {})])
    for query in (None, "cat"):
        assert [item.key for item in store.search((), query=query, offset=1)] == ["l"]
        assert store.search((), query=query, offset=2) == []


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.get(("a",), "k", refresh_ttl=True),
        lambda store: store.search((), refresh_ttl=True),
        lambda store: store.search((), query="cat", refresh_ttl=True, mode="semantic"),
        lambda store: store.batch([GetOp(("a",), "k", True), ListNamespacesOp()]),
    ],
)
def test_a_use_renews_the_time_of_what_it_returns(store: TenureStore, unswept: Stack, use: Any) -> None:
    store.put(("a",), "k", {"text": "cat"}, ttl=60)
    store.put(("a",), "stays", {"text": "cat"})

    def expires() -> Any:
        with psycopg.connect(unswept.database.admin_url) as other:
            return other.execute("SELECT key, expires_at FROM tenure.item ORDER BY key").fetchall()

    before = expires()
    store.get(("a",), "k")
    store.search((), query="cat")
    use(store)
    wait_until(lambda: expires() != before, "the time is renewed")
    (_, later), stays = expires()
    assert later > before[0][1]
    assert stays == ("stays", None)


def test_a_read_does_not_bring_back_what_has_expired(store: TenureStore) -> None:
    store.put(("a",), "k", {}, ttl=SOON)
    assert store.get(("a",), "k") is not None
    wait_until(lambda: store.get(("a",), "k") is None, "it expires")
    assert store.get(("a",), "k", refresh_ttl=True) is None
    assert store.search(("a",), refresh_ttl=True) == []
    store.put(("b",), "l", {})
    assert store.get(("a",), "k") is None
