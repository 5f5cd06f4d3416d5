"""Quotas: what grows past one is refused, alone, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from tenure_server import errors
from tenure_server.domain import PruneStrategy
from tenure_server.items import ItemVectors, Vector
from tenure_server.storage.postgres import pool
from tenure_server.storage.postgres.checkpoints import PostgresCheckpoints
from tenure_server.storage.postgres.items import PostgresItems

from tests.harness.databases import Database
from tests.storage import item_tenant
from tests.storage.chunked import cut, put_edits
from tests.storage.item_tenant import INDEX, delete, group
from tests.storage.item_tenant import put as put_item
from tests.storage.postgres import older
from tests.storage.tenant import Tenant, Write, operation, put, put_writes
from tests.storage.usage import Usage, Used, refused, usage_of


@dataclass(frozen=True)
class Limited:
    """A tenant's threads, items and usage."""

    threads: Tenant
    items: item_tenant.Tenant
    usage: Usage


@pytest.fixture(scope="module")
def shared(contract_database: Database) -> Database:
    """The database of the contract's tests; each test takes a new tenant."""
    return contract_database


@pytest.fixture
async def connected(shared: Database) -> AsyncIterator[pool.Database]:
    """Connections to it."""
    opened = await pool.Database.open(shared.app_url, max_size=4)
    yield opened
    await opened.close()


@pytest.fixture
async def limited(connected: pool.Database, shared: Database) -> AsyncIterator[Limited]:
    """A tenant that has stored nothing and has no limits yet."""
    tenant = await shared.tenants().create_tenant("limits")
    threads = Tenant(PostgresCheckpoints(connected), tenant)
    with usage_of(shared, tenant) as usage:
        yield Limited(threads, item_tenant.Tenant(PostgresItems(connected), tenant), usage)


async def test_of_a_batch_only_what_does_not_fit_is_refused(limited: Limited) -> None:
    limited.usage.limit(max_stored_bytes=2000)
    outcomes = await limited.threads.apply(
        put("a", "001", body=b"1" * 500),
        put("b", "001", body=b"1" * 5000),
        put_writes("c", "001", Write(data=b"1" * 500)),
        put("d", "001", body=b"1" * 500),
    )
    assert [refused(outcome) for outcome in outcomes] == ["", "stored_bytes", "", ""]
    assert await limited.threads.threads() == ["a", "c", "d"]
    assert limited.usage.assert_exact() == Used(1504, 3, 0)


async def test_of_groups_of_items_only_those_that_do_not_fit_are_refused(limited: Limited) -> None:
    limited.usage.limit(max_items=3)
    outcomes = await limited.items.apply(
        group(put_item("a"), put_item("b")), group(put_item("c"), put_item("d")), group(put_item("e"))
    )
    assert [refused(outcome) for outcome in outcomes] == ["", "items", ""]
    assert limited.usage.assert_exact().items == 3


async def test_the_error_says_limit_usage_and_what_was_asked_for(limited: Limited) -> None:
    limited.usage.limit(max_threads=1)
    await limited.threads.write(put("a", "001"))
    (error,) = await limited.threads.apply(put("b", "001"))
    assert isinstance(error, errors.QuotaExceeded)
    assert error.metadata == {"limit": "threads", "maximum": "1", "used": "1", "asked": "1"}
    assert "delete threads" in error.message


async def test_exactly_the_limit_fits(limited: Limited) -> None:
    await limited.threads.write(put("a", "001", body=b"1234"))
    limited.usage.limit(max_stored_bytes=limited.usage.counted().stored_bytes + 6, max_threads=2)
    (fits,) = await limited.threads.apply(put("b", "001", body=b"1234"))
    (one_more,) = await limited.threads.apply(put_writes("b", "001", Write(data=b"1")))
    assert [refused(fits), refused(one_more)] == ["", "stored_bytes"]


async def test_deleting_makes_room_at_once(limited: Limited) -> None:
    limited.usage.limit(max_threads=2, max_items=1)
    await limited.threads.write(put("a", "001"), put("b", "001"))
    await limited.items.write(put_item("a"))
    assert [refused(error) for error in await limited.threads.apply(put("c", "001"))] == ["threads"]
    assert [refused(error) for error in await limited.items.apply(group(put_item("b")))] == ["items"]
    await limited.threads.delete("a")
    await limited.items.write(delete("a"))
    await limited.threads.write(put("c", "001"))
    await limited.items.write(put_item("b"))


async def test_below_what_is_used_all_but_growth_goes_through(limited: Limited) -> None:
    big = put_item("a", {"text": "x" * 500}, vectors=[[1.0, 2.0]])
    await limited.items.write(big)
    await limited.threads.write(
        put("a", "001", body=b"1" * 100, new={"c": b"1" * 100}), put("a", "002", "001", body=b"1" * 100)
    )
    await limited.threads.write(put_writes("a", "002", Write(data=b"1" * 50, idx=-1)))
    limited.usage.limit(
        max_stored_bytes=1, max_threads=0, max_items=0, max_checkpoints_per_thread=1, max_value_bytes=1
    )
    await limited.threads.write(
        put("a", "002", "001", body=b"1" * 99),
        put("a", "001", body=b"1" * 99, new={"c": b"1" * 100}),
        put_writes("a", "002", Write(data=b"2" * 50, idx=-1)),
    )
    await limited.items.write(put_item("a", {"text": "x" * 499}, vectors=[[2.0, 3.0]]))
    await limited.threads.prune("a")
    await limited.threads.delete("a")
    await limited.items.write(delete("a"))
    assert limited.usage.assert_exact() == Used()


async def test_a_repeated_put_is_not_refused(limited: Limited) -> None:
    full = put("a", "001", body=b"1" * 100, new={"c": b"1" * 100})
    await limited.threads.write(full)
    limited.usage.limit(max_stored_bytes=0, max_threads=0, max_checkpoints_per_thread=0, max_value_bytes=0)
    await limited.threads.write(full)


async def test_checkpoints_of_a_thread(limited: Limited) -> None:
    limited.usage.limit(max_checkpoints_per_thread=2)
    outcomes = await limited.threads.apply(
        put("a", "001"), put("a", "002", ns="n"), put("a", "003"), put("b", "001"), put("b", "002")
    )
    assert [refused(outcome) for outcome in outcomes] == ["", "", "checkpoints_per_thread", "", ""]
    await limited.threads.write(put("a", "002", ns="n"))
    await limited.threads.prune("b", strategy=PruneStrategy.KEEP_LATEST)
    await limited.threads.write(put("b", "003"))
    limited.usage.limit(max_checkpoints_per_thread=1)
    with pytest.raises(errors.QuotaExceeded):
        await limited.threads.copy("a", "copy")


async def test_the_size_of_a_value_is_what_its_reader_gets(limited: Limited) -> None:
    limited.usage.limit(max_value_bytes=24)
    words = cut(b" ".join([b"1234567"] * 3))
    longer = cut(b" ".join([b"1234567"] * 3 + [b"8"]))
    assert len(words.data) == 24
    await limited.threads.write(put_edits("a", "001", edits={"c": words.whole()}))
    outcomes = await limited.threads.apply(
        put_edits("a", "002", "001", edits={"c": longer.edit(words, "1")}, versions={"c": "2"}),
        put("a", "003", new={"d": b"1" * 25}),
        put("a", "004", new={"e": b"1" * 24}, body=b"1" * 100, metadata={"not": "a value" * 10}),
        put_writes("a", "004", Write(data=b"1" * 24), Write(data=b"1" * 25, idx=1)),
        put_writes("a", "004", Write(data=b"1" * 24)),
    )
    assert [refused(outcome) for outcome in outcomes] == ["value_bytes", "value_bytes", "", "value_bytes", ""]
    items = await limited.items.apply(
        group(put_item("a", {"k": "1" * 15})), group(put_item("b", {"k": "1" * 16}))
    )
    assert [refused(outcome) for outcome in items] == ["", "value_bytes"]
    limited.usage.assert_exact()


async def test_values_that_were_stored_before_are_not_measured_again(limited: Limited) -> None:
    await limited.threads.write(
        put("a", "001", new={"c": b"1" * 100}),
        put_writes("a", "001", Write(data=b"1" * 100), Write(data=b"1", idx=-1)),
    )
    limited.usage.limit(max_value_bytes=24)
    outcomes = await limited.threads.apply(
        put("a", "002", "001", new={"c": b"1" * 100, "d": b"1" * 24}),
        put_writes("a", "001", Write(data=b"1" * 100), Write(data=b"1" * 24, idx=1)),
        put("a", "003", "002", new={"c": b"1" * 100, "e": b"1" * 25}),
    )
    assert [refused(outcome) for outcome in outcomes] == ["", "", "value_bytes"]
    (replaced,) = await limited.threads.apply(put_writes("a", "001", Write(data=b"1" * 25, idx=-1)))
    assert refused(replaced) == "value_bytes", "what replaces one is new"


@dataclass
class Calls:
    """How often the database was called since it was last asked."""

    made: list[str] = field(default_factory=list)

    def count(self) -> int:
        """Return how often, and begin anew."""
        count = len(self.made)
        self.made.clear()
        return count


@pytest.fixture
def calls(connected: pool.Database, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The calls of the tenant's connections."""
    calls = Calls()
    call = connected.call

    async def counted(*args: Any, **kwargs: Any) -> Any:
        calls.made.append(kwargs["operation"])
        return await call(*args, **kwargs)

    monkeypatch.setattr(connected, "call", counted)
    return calls


async def test_what_cannot_fit_is_refused_together_and_nothing_else(limited: Limited, calls: Calls) -> None:
    words, more = cut(b"one two"), cut(b"one two three " + b"4" * 90)
    await limited.threads.write(
        put("a", "001", body=b"1" * 100),
        put_edits("a", "002", "001", edits={"c": words.whole()}),
        put_writes("a", "002", Write(data=b"1" * 90), Write(data=b"1" * 90, idx=-1)),
    )
    limited.usage.limit(max_stored_bytes=limited.usage.counted().stored_bytes + 80)
    calls.count()
    outcomes = await limited.threads.apply(
        *(put(f"new {n}", "001", body=b"1" * 100) for n in range(64)),
        *(put_writes("a", "001", Write(task=f"{n}", data=b"1" * 100)) for n in range(64)),
        put("a", "001", body=b"1" * 99),
        put_edits("a", "002", "001", edits={"c": words.whole()}),
        put_writes("a", "002", Write(data=b"1" * 90), Write(data=b"2" * 90, idx=-1)),
        put_edits("a", "003", "002", edits={"c": more.edit(words, "1")}, versions={"c": "2"}),
        put("b", "001", body=b"1" * 10),
    )
    assert [refused(outcome) for outcome in outcomes] == ["stored_bytes"] * 128 + [
        "",
        "",
        "",
        "stored_bytes",
        "",
    ]
    assert calls.count() <= 6, "in two rounds: what an edit builds on is put before it"


async def test_of_many_that_fit_alone_as_many_are_stored_as_there_is_room_for(
    limited: Limited, calls: Calls
) -> None:
    def new(n: int, n_bytes: int = 98) -> Any:
        return put(f"{n:03}", "001", body=b"1" * n_bytes)

    limited.usage.limit(max_stored_bytes=1050)
    outcomes = await limited.threads.apply(*(new(n) for n in range(128)))
    assert [refused(outcome) for outcome in outcomes] == [""] * 10 + ["stored_bytes"] * 118
    assert calls.count() < 40, "one after the other and halves of them would be 255"
    outcomes = await limited.threads.apply(*(new(n) for n in range(128)), new(200, 47), new(201, 48))
    assert [refused(outcome) for outcome in outcomes] == [""] * 10 + ["stored_bytes"] * 118 + [
        "",
        "stored_bytes",
    ]


async def test_what_a_batch_itself_makes_room_for_is_stored(limited: Limited) -> None:
    await limited.threads.write(put("a", "001", body=b"1" * 100))
    await limited.items.write(put_item("a", {"text": "x" * 100}), put_item("b"))
    limited.usage.limit(max_stored_bytes=limited.usage.counted().stored_bytes, max_items=2)
    outcomes = await limited.threads.apply(
        put("a", "001", body=b"1" * 40), put("b", "001", body=b"1" * 500), put("c", "001", body=b"1" * 50)
    )
    assert [refused(outcome) for outcome in outcomes] == ["", "stored_bytes", ""]
    groups = await limited.items.apply(
        group(delete("a")), group(put_item("c"), put_item("d")), group(put_item("e"))
    )
    assert [refused(outcome) for outcome in groups] == ["", "items", ""]


async def test_threads_that_there_may_not_be_are_refused_together(limited: Limited, calls: Calls) -> None:
    await limited.threads.write(put("a", "001"))
    limited.usage.limit(max_threads=1)
    calls.count()
    outcomes = await limited.threads.apply(
        *(put(f"new {n}", "001") for n in range(64)),
        put_writes("new 1", "001", Write()),
        put_writes("new", "001", Write(data=b"")),
        put("a", "002", "001"),
        put_writes("a", "002", Write()),
    )
    assert [refused(outcome) for outcome in outcomes] == ["threads"] * 66 + ["", ""]
    assert calls.count() <= 3


@pytest.mark.parametrize("limit", ["items", "stored_bytes"])
async def test_items_that_cannot_fit_are_refused_together_and_nothing_else(
    limited: Limited, calls: Calls, limit: str
) -> None:
    await limited.items.write(
        put_item("a", {"text": "x" * 100}, vectors=[[1.0, 2.0]]), put_item("b", {"text": "x" * 100})
    )
    by = operation()
    again = group(put_item("c", '{"n":1e5}'), put_item("d", {"text": "x" * 100}), by=by)
    await limited.items.apply(again)
    counted = limited.usage.counted()
    if limit == "items":
        limited.usage.limit(max_items=counted.items)
    else:
        limited.usage.limit(max_stored_bytes=counted.stored_bytes)
    calls.count()
    outcomes = await limited.items.apply(
        *(group(put_item(f"new {n}", {"text": "x" * 100}, vectors=[[1.0, 2.0]])) for n in range(64)),
        group(put_item("a", {"text": "y" * 100}, vectors=[[2.0, 1.0]])),
        group(put_item("b", {"text": "y" * 99})),
        group(delete("absent")),
        again,
    )
    assert [refused(outcome) for outcome in outcomes] == [limit] * 64 + [""] * 4
    assert calls.count() <= 4
    (alone,) = await limited.items.apply(group(put_item("e"), put_item("b", {"text": "y" * 500})))
    assert refused(alone) == limit
    await limited.items.write(delete("d"), put_item("e"))


async def test_a_copy_needs_room_and_a_refused_one_leaves_nothing(limited: Limited) -> None:
    await limited.threads.write(put("a", "001", body=b"1" * 100))
    limited.usage.limit(max_stored_bytes=150)
    by = operation()
    with pytest.raises(errors.QuotaExceeded):
        await limited.threads.copy("a", "b", by)
    assert await limited.threads.threads() == ["a"]
    limited.usage.limit(max_stored_bytes=None)
    await limited.threads.copy("a", "b", by)
    assert await limited.threads.threads() == ["a", "b"]
    limited.usage.assert_exact()


async def test_vectors_need_room(limited: Limited) -> None:
    await limited.items.write(put_item("a"))
    await limited.items.set_index(INDEX)
    (waiting,) = await limited.items.waiting()
    told = ItemVectors(waiting.item.namespace, "a", waiting.item.updated_at, [Vector("p", [1.0, 2.0])])
    limited.usage.limit(max_stored_bytes=limited.usage.counted().stored_bytes + 7)
    with pytest.raises(errors.QuotaExceeded):
        await limited.items.put_vectors(told)
    limited.usage.limit(max_stored_bytes=limited.usage.counted().stored_bytes + 8)
    await limited.items.put_vectors(told)
    limited.usage.assert_exact()


async def test_a_full_tenant_does_not_keep_others_from_writing(limited: Limited, shared: Database) -> None:
    limited.usage.limit(max_threads=0)
    other = Tenant(limited.threads.store, await shared.tenants().create_tenant("other"))
    refusals, outcomes = await asyncio.gather(
        limited.threads.apply(*(put(f"{n}", "001") for n in range(32))),
        other.apply(*(put(f"{n}", "001") for n in range(32))),
    )
    assert {refused(outcome) for outcome in refusals} == {"threads"}
    assert {refused(outcome) for outcome in outcomes} == {""}


async def test_what_older_servers_write_counts_and_is_refused_to_them_alone(
    limited: Limited, shared: Database
) -> None:
    older.write(shared, limited.threads, "a", "001", "1", b"of 0.1.0")
    assert limited.usage.assert_exact().threads == 1
    limited.usage.limit(max_threads=1)
    with pytest.raises(psycopg.Error, match="threads") as caught:
        older.write(shared, limited.threads, "b", "001", "1", b"of 0.1.0")
    assert (caught.value.sqlstate or "")[:2] == "54", "they take that for a fault of the one mutation"


@pytest.mark.parametrize("statement", ["tenure.item", "tenure.pending_write"])
async def test_the_sweeper_of_an_older_server_takes_nothing_without_counting_it(
    limited: Limited, shared: Database, statement: str
) -> None:
    await limited.items.write(put_item("a"))
    await limited.threads.write(put_writes("t", "001", Write()))
    with psycopg.connect(shared.ops_url, autocommit=True) as ops:
        removed = ops.execute(
            f"DELETE FROM {statement} WHERE tenant_id = %s".encode(), [limited.threads.id]
        ).rowcount
    assert removed == 0
    limited.usage.assert_exact()


def test_agents_cannot_lift_limits(shared: Database) -> None:
    with psycopg.connect(shared.app_url) as app, pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute("UPDATE tenure.tenant_usage SET max_threads = NULL")


@pytest.fixture(autouse=True)
def _exact(limited: Limited) -> Iterator[None]:
    """After each test the counters are exact."""
    yield
    limited.usage.assert_exact()
