"""Random groups have the same effect on Postgres as on the reference in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tenure_server import errors
from tenure_server.domain import TenantId
from tenure_server.items import (
    DeleteItem,
    GetItem,
    Index,
    Item,
    ItemAnswer,
    ListNamespaces,
    MatchCondition,
    MatchType,
    PutItem,
    ReadGroup,
    SearchItems,
    SearchMode,
    Vector,
    WriteGroup,
)
from tenure_server.storage.memory_items import MemoryItems

from tests.harness.databases import Database
from tests.storage.item_tenant import Tenant, opened
from tests.storage.tenant import operation

labels = st.sampled_from(["a", "a\x01", "ab", "é", "*"])
# Few, so that what is written, deleted and put again is often the same.
NAMESPACES = [("a", "é", "*"), ("a\x01",), ("a",), ("a", "a\x01"), ("ab", "é"), ("*", "a"), ("a\x01", "a")]
namespaces = st.sampled_from(NAMESPACES)
prefixes = st.lists(labels, max_size=2).map(tuple)
keys = st.sampled_from(["k", "l", "", "é"])
values = st.sampled_from(['{"n": 1}', '{"n": 2.5, "m": [true]}', '{"n": null}', "{}"])
# Few directions, so that scores are told apart or equal, whatever the arithmetic.
vectors = st.sampled_from([(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (1.0, 1.0), (2.0, 2.0)])
indexes = st.sampled_from([Index(2, "one"), Index(2, "one"), Index(2, "other")])
puts = st.builds(
    PutItem,
    namespaces,
    keys,
    values,
    st.none() | st.just(3600.0),
    st.sampled_from([None, (), ("n",)]),
    st.lists(vectors, max_size=2).map(lambda some: [Vector(f"p{n}", one) for n, one in enumerate(some)]),
)
deletes = st.builds(DeleteItem, namespaces, keys)
gets = st.builds(GetItem, namespaces, keys, st.booleans())
pages: dict[str, Any] = {"limit": st.sampled_from([0, 1, 3, 100]), "offset": st.sampled_from([0, 1, 4])}
filters = st.sampled_from([{}, {"n": 1}, {"n": {"$gt": 0}}, {"m": [1]}, {"n": {"$exists": False}}])
searches = st.builds(
    SearchItems, prefixes, filters, refresh_ttl=st.booleans(), mode=st.just(SearchMode.NONE), **pages
)
by_meaning = st.builds(
    SearchItems,
    prefixes,
    filters,
    refresh_ttl=st.just(False),
    mode=st.just(SearchMode.SEMANTIC),
    query_vector=vectors,
    **pages,
)
matches = st.builds(MatchCondition, st.sampled_from(MatchType), prefixes)
listings = st.builds(ListNamespaces, st.lists(matches, max_size=2), st.none() | st.integers(1, 3), **pages)
limits = st.none() | st.lists(namespaces, max_size=2)
reads = st.tuples(st.lists(gets | searches | by_meaning | listings, min_size=1, max_size=3), limits, indexes)
writes = st.tuples(st.lists(puts | deletes, min_size=1, max_size=4), indexes)
steps = st.lists(st.lists(writes, min_size=1, max_size=4) | reads | indexes, min_size=1, max_size=12)


@pytest.fixture
async def tenant(contract_database: Database) -> AsyncIterator[Tenant]:
    async with opened(contract_database) as (tenant,):
        yield tenant


@given(steps=steps)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
async def test_both_do_the_same(contract_database: Database, tenant: Tenant, steps: list[Any]) -> None:
    memory = Tenant(MemoryItems(), TenantId(uuid4()))
    real = Tenant(tenant.store, await contract_database.tenants().create_tenant("differential"))
    # A namespace that one group makes and another one of the same call empties may or may not keep its place.
    places = [WriteGroup(operation(), [PutItem(namespace, "stays", "{}")]) for namespace in NAMESPACES]
    assert await real.apply(*places) == await memory.apply(*places)
    for step in steps:
        if isinstance(step, Index):
            by = operation()
            assert await real.set_index(step, by) == await memory.set_index(step, by)
        elif isinstance(step, tuple):
            assert await _read(real, *step) == await _read(memory, *step), step
        else:
            groups = [
                WriteGroup(operation(), some, index if _has_vectors(some) else None) for some, index in step
            ]
            assert _names(await real.apply(*groups)) == _names(await memory.apply(*groups)), groups
        everything = [SearchItems((), {}, 1000, 0, False)]
        assert await _read(real, everything, None, None) == await _read(memory, everything, None, None)
        assert await real.index() == await memory.index()
        assert [one.item.key for one in await real.waiting()] == [
            one.item.key for one in await memory.waiting()
        ]


def _has_vectors(writes: list[PutItem | DeleteItem]) -> bool:
    return any(isinstance(write, PutItem) and write.vectors for write in writes)


def _names(outcomes: Any) -> list[str | None]:
    return [error and error.reason for error in outcomes]


async def _read(tenant: Tenant, reads: list[Any], within: Any, index: Index | None) -> Any:
    asks = any(isinstance(one, SearchItems) and one.query_vector for one in reads)
    (answers,) = await tenant.store.read(
        tenant.id, [ReadGroup(operation(), reads, within, index if asks else None)]
    )
    if isinstance(answers, errors.TenureError):
        return answers.reason
    return [_plain(answer) for answer in answers]


def _plain(answer: ItemAnswer) -> Any:
    if isinstance(answer, Item):
        score = None if answer.score is None else round(answer.score, 4) + 0.0
        return answer.namespace, answer.key, json.loads(answer.value), score
    return None if answer is None else [one if isinstance(one, tuple) else _plain(one) for one in answer]
