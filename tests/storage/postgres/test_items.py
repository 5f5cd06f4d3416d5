"""Items in Postgres: what the contract leaves to it, and what only a database can get wrong."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import AsyncConnection
from tenure_server import errors
from tenure_server.items import Item, ReadGroup, SearchItems
from tenure_server.storage.postgres.items import PostgresItems
from tenure_server.storage.postgres.items_namespaces import decoded, encoded, ranges
from tenure_server.storage.postgres.items_values import needs_verbatim
from tenure_server.storage.postgres.sweeper import Sweeper, Swept

from tests.harness.databases import Database
from tests.storage.item_tenant import INDEX, NS, OTHER, Tenant, delete, get, group, opened, put, search
from tests.storage.postgres import blocked_by
from tests.storage.tenant import operation

SLOW_FIXTURE = [HealthCheck.function_scoped_fixture]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([-0.0, 1e16, 1e5, 5e-324, 1.7976931348623157e308, 2**63, 10**400])
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
labels = st.text(
    st.characters(exclude_characters="\0.", exclude_categories=["Cs"])
    | st.sampled_from("\x01\x02\U0010ffffab"),
    min_size=1,
    max_size=3,
)
namespaces = st.lists(labels, min_size=1, max_size=4).map(tuple)


@pytest.fixture
async def tenant(database: Database) -> AsyncIterator[Tenant]:
    """A tenant in a database of its own."""
    async with opened(database) as (tenant,):
        yield tenant


@pytest.fixture
async def shared(contract_database: Database) -> AsyncIterator[Tenant]:
    """A tenant in the database that others use, too."""
    async with opened(contract_database) as (tenant,):
        yield tenant


@pytest.fixture
def admin(database: Database) -> Iterator[psycopg.Connection]:
    """A superuser's connection, each statement for itself."""
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        yield connection


async def settled(tenant: Tenant) -> None:
    """Wait until what was read is renewed."""
    assert isinstance(tenant.store, PostgresItems)
    await tenant.store.touches.settled()


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal and of the same types all the way down."""
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(same(one[key], other[key]) for key in one)
        )
    if isinstance(one, list):
        return (
            isinstance(other, list)
            and len(one) == len(other)
            and all(same(a, b) for a, b in zip(one, other, strict=True))
        )
    if isinstance(one, float):
        return isinstance(other, float) and math.copysign(1, one) == math.copysign(1, other) and one == other
    return type(one) is type(other) and bool(one == other)


@given(value=st.dictionaries(st.just("v"), json_values, min_size=1))
@settings(max_examples=200, deadline=None, suppress_health_check=SLOW_FIXTURE)
async def test_a_value_comes_back_as_the_same_python_value(shared: Tenant, value: dict[str, object]) -> None:
    await shared.write(put("k", value))
    assert same(await shared.value("k"), value)


@pytest.mark.parametrize(
    "text", ['{"v":1e5}', '{"v":[1,-0.0]}', '{"v": 1E+5}', '{"v":-0.0 }', '{"v":\t-1e-7}']
)
def test_what_jsonb_would_change_is_kept_as_text(text: str) -> None:
    assert needs_verbatim(text)


@pytest.mark.parametrize("text", ['{"v":1.5}', '{"v":-0.5}', '{"v":"1e5"}', '{"1e5":-10}', '{"v":100}'])
def test_other_values_are_stored_once(text: str) -> None:
    assert not needs_verbatim(text)


@given(one=namespaces, other=namespaces)
def test_namespaces_as_text_are_told_apart_and_sort_as_their_labels_do(
    one: tuple[str, ...], other: tuple[str, ...]
) -> None:
    texts = encoded(one).encode(), encoded(other).encode()
    assert decoded(encoded(one)) == one
    assert (one < other) == (texts[0] < texts[1])
    ((first, after),) = ranges(one, None)
    assert (first.encode() <= texts[1] < after.encode()) == (other[: len(one)] == one)


@given(
    prefix=st.lists(labels, max_size=2).map(tuple), within=st.lists(namespaces, max_size=4), one=namespaces
)
def test_each_namespace_is_in_one_range_if_it_is_below_the_prefix_and_a_limit(
    prefix: tuple[str, ...], within: list[tuple[str, ...]], one: tuple[str, ...]
) -> None:
    text = encoded(one).encode()
    hits = [1 for first, after in ranges(prefix, within) if first.encode() <= text < after.encode()]
    below = one[: len(prefix)] == prefix and any(one[: len(limit)] == limit for limit in within)
    assert len(hits) == below


async def test_a_read_renews_the_time_of_what_it_returns(tenant: Tenant, admin: psycopg.Connection) -> None:
    def left() -> dict[str, float]:
        rows = admin.execute(
            "SELECT key, extract(epoch FROM expires_at - now()) FROM tenure.item WHERE ttl_seconds > 0"
        )
        return {key: float(seconds) for key, seconds in rows.fetchall()}

    await tenant.write(*(put(key, ttl=1000.0) for key in "abcd"), put("ever"))
    admin.execute("UPDATE tenure.item SET expires_at = now() + interval '10 s' WHERE expires_at IS NOT NULL")
    await tenant.read(get("a", refresh=True), get("b"), get("ever", refresh=True))
    await settled(tenant)
    assert {key for key, seconds in left().items() if seconds > 100} == {"a"}
    await tenant.found(search(limit=2, refresh=True))
    await settled(tenant)
    assert {key for key, seconds in left().items() if seconds > 100} == {"a", "b"}
    assert await tenant.get("d") is not None
    row = admin.execute("SELECT expires_at FROM tenure.item WHERE key = 'ever'").fetchone()
    assert row == (None,)


async def test_what_has_expired_is_not_renewed(tenant: Tenant, admin: psycopg.Connection) -> None:
    await tenant.write(put("k", ttl=1000.0))
    assert isinstance(tenant.store, PostgresItems)
    admin.execute("UPDATE tenure.item SET expires_at = now()")
    tenant.store.touches.add(tenant.id, [(encoded(NS), "k")])
    await settled(tenant)
    assert await tenant.get("k") is None


async def test_a_busy_item_is_read_and_not_waited_for(tenant: Tenant, database: Database) -> None:
    await tenant.write(put("busy", ttl=1000.0), put("free", ttl=1000.0))
    async with await AsyncConnection.connect(database.admin_url) as holder:
        await holder.execute("UPDATE tenure.item SET expires_at = now() + interval '10 s'")
        await holder.commit()
        await holder.execute("SELECT FROM tenure.item WHERE key = 'busy' FOR UPDATE")
        await tenant.read(get("busy", refresh=True), get("free", refresh=True))
        await settled(tenant)
        cursor = await holder.execute(
            "SELECT key FROM tenure.item WHERE expires_at > now() + interval '100 s'"
        )
        assert await cursor.fetchall() == [("free",)]


async def test_reads_of_a_group_are_of_one_moment(tenant: Tenant) -> None:
    stop = asyncio.Event()

    async def keep_writing() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await tenant.write(put("a", {"n": number}), put("b", {"n": number}))

    await tenant.write(put("a", {"n": 0}), put("b", {"n": 0}))
    writing = asyncio.create_task(keep_writing())
    for _ in range(30):
        one, found = await tenant.read(get("a"), search())
        assert isinstance(one, Item)
        assert isinstance(found, list)
        assert {item.value for item in found} == {one.value}
    stop.set()
    await writing


async def test_a_group_whose_item_is_held_fails_alone_when_its_time_is_over(
    tenant: Tenant, database: Database
) -> None:
    await tenant.write(put("held"), put("free"))
    async with await AsyncConnection.connect(database.admin_url) as holder:
        await holder.execute("SELECT FROM tenure.item WHERE key = 'held' FOR UPDATE")
        outcomes = await tenant.apply(
            group(put("held", {"n": 1}), by=operation(0.3)), group(put("free", {"n": 1}), by=operation(30))
        )
    assert [error and error.reason for error in outcomes] == ["DEADLINE_EXCEEDED", None]
    assert (await tenant.value("held"), await tenant.value("free")) == ({}, {"n": 1})


async def test_a_group_that_postgres_refuses_fails_alone(tenant: Tenant) -> None:
    outcomes = await tenant.apply(
        group(put("a")), group(put("b"), put("bad", '{"v": "\\u0000"}')), group(put("c")), group(put("d"))
    )
    assert [error and error.reason for error in outcomes] == [None, "INVALID_FIELD", None, None]
    assert await tenant.keys() == ["a", "c", "d"]


async def test_a_change_of_the_index_waits_for_puts_under_way(tenant: Tenant, database: Database) -> None:
    await tenant.write(put("k", vectors=[[1, 0]]))
    async with await AsyncConnection.connect(database.admin_url) as holder:
        await holder.execute("SELECT FROM tenure.item WHERE key = 'k' FOR UPDATE")
        writing = asyncio.create_task(tenant.write(put("k", vectors=[[0, 1]])))
        await blocked_by(holder, database.admin_url)
        changing = asyncio.create_task(tenant.set_index(OTHER))
        await asyncio.sleep(0)
        assert not changing.done()
    await writing
    assert await changing == 1
    assert [item.score for item in await tenant.found(search(vector=[1, 0, 0]), index=OTHER)] == [None]


async def test_the_sweeper_removes_what_has_expired_and_empty_namespaces(
    tenant: Tenant, admin: psycopg.Connection, database: Database
) -> None:
    await tenant.write(
        put("old", ttl=1000.0, vectors=[[1, 0]]),
        put("old too", ns=("gone",), ttl=1000.0),
        put("young", ns=("a",), ttl=1000.0, vectors=[[1, 0]]),
        put("ever", ns=("b",)),
        put("deleted", ns=("c",)),
    )
    await tenant.write(delete("deleted", ("c",)))
    admin.execute("UPDATE tenure.item SET expires_at = now() WHERE key LIKE 'old%'")

    assert await Sweeper(database.ops_url).run_once() == Swept(items=2, namespaces=3)

    rows = admin.execute("SELECT key FROM tenure.item ORDER BY 1").fetchall()
    assert rows == [("ever",), ("young",)]
    assert admin.execute("SELECT key FROM tenure.item_vector").fetchall() == [("young",)]
    assert admin.execute("SELECT namespace FROM tenure.item_namespace ORDER BY 1").fetchall() == [
        ("a",),
        ("b",),
    ]
    assert await tenant.keys() == ["young", "ever"]


async def test_the_sweeper_leaves_a_tenant_that_is_writing_for_the_next_run(
    tenant: Tenant, admin: psycopg.Connection, database: Database
) -> None:
    await tenant.write(put("k", ttl=1000.0), put("other", ns=("other",)))
    await tenant.write(delete("k"))
    sweeper = Sweeper(database.ops_url)
    async with await AsyncConnection.connect(database.admin_url) as holder:
        await holder.execute("SELECT FROM tenure.item WHERE key = 'other' FOR UPDATE")
        writing = asyncio.create_task(tenant.write(put("k"), put("other", ns=("other",))))
        await blocked_by(holder, database.admin_url)
        assert await sweeper.run_once() == Swept()
    await writing
    assert await sweeper.run_once() == Swept()
    assert await tenant.keys(*NS) == ["k"]


async def test_the_sweeper_leaves_an_expired_item_that_is_being_put(
    tenant: Tenant, admin: psycopg.Connection, database: Database
) -> None:
    await tenant.write(put("k", ttl=1000.0))
    admin.execute("UPDATE tenure.item SET expires_at = now()")
    async with await AsyncConnection.connect(database.admin_url) as holder:
        await holder.execute("SELECT FROM tenure.item FOR UPDATE")
        assert await Sweeper(database.ops_url).run_once() == Swept()
    assert await Sweeper(database.ops_url).run_once() == Swept(items=1, namespaces=1)


async def test_the_sweeper_leaves_expired_items_while_the_index_changes(
    tenant: Tenant, admin: psycopg.Connection, database: Database
) -> None:
    """A change of the index takes vectors before items: each would wait for the other."""
    await tenant.write(put("k", ttl=1000.0, vectors=[[1, 0]]))
    admin.execute("UPDATE tenure.item SET expires_at = now()")
    async with await AsyncConnection.connect(database.admin_url) as changing:
        await changing.execute("SELECT pg_advisory_xact_lock(tenure.items_lock_1(%s))", [tenant.id])
        assert await Sweeper(database.ops_url).run_once() == Swept()
    assert await Sweeper(database.ops_url).run_once() == Swept(items=1, namespaces=1)


@pytest.mark.parametrize(
    "wanted", [search(), search(text="tea"), search(vector=[1, 0])], ids=["page", "words", "meaning"]
)
async def test_a_search_that_finds_too_much_fails_before_all_of_it_is_read(
    tenant: Tenant, wanted: SearchItems
) -> None:
    assert isinstance(tenant.store, PostgresItems)
    small = PostgresItems(tenant.store._database, max_answer_bytes=4000)
    value = {"text": "x" * 990}
    await tenant.write(*(put(f"{n}", value, text="tea", vectors=[[1, 0]]) for n in range(5)))

    (error,) = await small.read(tenant.id, [ReadGroup(operation(), [wanted], index=INDEX)])
    assert isinstance(error, errors.LimitExceeded)
    assert error.field == "ops[0].search.limit"

    fewer = dataclasses.replace(wanted, limit=3)
    (answer,) = await small.read(tenant.id, [ReadGroup(operation(), [fewer], index=INDEX)])
    assert isinstance(answer, list)
    assert len(answer[0]) == 3
    (error,) = await small.read(tenant.id, [ReadGroup(operation(), [fewer, fewer], index=INDEX)])
    assert isinstance(error, errors.LimitExceeded)
    assert error.field == "ops[1].search.limit"


async def test_gets_find_no_more_than_fits_into_memory(tenant: Tenant) -> None:
    small = PostgresItems(tenant.store._database, max_answer_bytes=2500)
    await tenant.write(*(put(f"{n}", {"text": "x" * 990}) for n in range(5)))
    many, few = ([get(f"{n}") for n in range(count)] for count in (5, 2))

    alone, (refused,) = (
        await small.read(tenant.id, [ReadGroup(operation(), few), ReadGroup(operation(), few)]),
        await small.read(tenant.id, [ReadGroup(operation(), many)]),
    )

    assert [[item is not None for item in answer] for answer in alone] == [[True, True], [True, True]]
    assert isinstance(refused, errors.LimitExceeded)


async def test_a_small_answer_does_not_wait_for_a_long_search(tenant: Tenant) -> None:
    groups = [ReadGroup(operation(), [one]) for one in (get("k"), search(), get("l"))]
    answers = await tenant.store.read(tenant.id, groups)
    assert answers == [[None], [[]], [None]]
