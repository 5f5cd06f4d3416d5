"""The contract of item storage: groups of reads and writes, on every store."""

from __future__ import annotations

import asyncio
import json

import pytest
from tenure_server import errors
from tenure_server.items import Namespace, ReadGroup

from tests.storage.item_tenant import (
    INDEX,
    NS,
    OTHER,
    Tenant,
    delete,
    get,
    group,
    listing,
    put,
    search,
)
from tests.storage.tenant import operation

ODD_LABELS = [
    "acme",
    "acme-corp",
    "acm",
    "a b",
    "'",
    '"',
    "\\",
    "é",
    "\U0001f600",
    "\x01",
    "\x02",
    "%",
    "_",
    "{}",
    "*",
]


@pytest.fixture
def tenant(item_tenants: list[Tenant]) -> Tenant:
    return item_tenants[0]


async def test_what_is_put_is_got(tenant: Tenant) -> None:
    assert await tenant.get("k") is None
    await tenant.write(put("k", {"a": [1, None, "é"]}))
    item = await tenant.get("k")
    assert item is not None
    assert (item.namespace, item.key, json.loads(item.value)) == (NS, "k", {"a": [1, None, "é"]})
    assert item.created_at == item.updated_at
    assert item.score is None
    assert await tenant.get("k", ("users",)) is None
    assert await tenant.get("", NS) is None


async def test_an_overwrite_keeps_creation_and_place(tenant: Tenant) -> None:
    await tenant.write(put("a"), put("b"))
    before = await tenant.get("a")
    await tenant.write(put("a", {"new": 1}))
    after = await tenant.get("a")
    assert before is not None
    assert after is not None
    assert after.created_at == before.created_at
    assert after.updated_at > before.updated_at
    assert await tenant.keys() == ["a", "b"]


async def test_a_deleted_item_is_gone_and_comes_back_at_the_end(tenant: Tenant) -> None:
    await tenant.write(put("a"), put("b"))
    await tenant.write(delete("a"), delete("absent"))
    assert await tenant.keys() == ["b"]
    await tenant.write(put("a"))
    assert await tenant.keys() == ["b", "a"]


async def test_of_several_writes_to_a_key_the_last_counts_in_the_place_of_the_first(tenant: Tenant) -> None:
    await tenant.write(
        put("a", {"n": 1}), put("b"), put("a", {"n": 2}), put("c"), delete("c"), delete("d"), put("d")
    )
    assert await tenant.keys() == ["a", "b", "d"]
    assert await tenant.value("a") == {"n": 2}


async def test_groups_of_one_call_are_applied_in_their_order(tenant: Tenant) -> None:
    await tenant.write(put("old"))
    outcomes = await tenant.apply(
        group(put("a", {"n": 1}), put("b")),
        group(put("a", {"n": 2})),
        group(delete("old")),
        group(put("old", {"n": 3})),
        group(put("gone")),
        group(delete("gone")),
    )
    assert outcomes == [None] * 6
    assert await tenant.keys() == ["a", "b", "old"]
    assert await tenant.value("a") == {"n": 2}


async def test_searches_go_through_namespaces_then_items_as_they_were_first_put(tenant: Tenant) -> None:
    await tenant.write(put("2", ns=("z",)), put("1", ns=("z",)), put("3", ns=("a", "b")), put("4", ns=("a",)))
    await tenant.write(put("5", ns=("z",)))
    assert await tenant.keys() == ["2", "1", "5", "3", "4"]
    assert await tenant.keys("a") == ["3", "4"]
    pages = [await tenant.keys(limit=2, offset=offset) for offset in range(7)]
    assert pages == [["2", "1"], ["1", "5"], ["5", "3"], ["3", "4"], ["4"], [], []]


async def test_a_filter_is_counted_by_pages(tenant: Tenant) -> None:
    await tenant.write(*(put(f"{n}", {"n": n % 3}, ("ns", f"{n % 2}")) for n in range(12)))
    all_of_them = await tenant.keys(filter={"n": 0})
    assert all_of_them == ["0", "6", "3", "9"]
    pages = [key for offset in range(4) for key in await tenant.keys(filter={"n": 0}, limit=1, offset=offset)]
    assert pages == all_of_them


async def test_namespaces_are_compared_label_by_label(tenant: Tenant) -> None:
    odd: list[Namespace] = [(label,) for label in ODD_LABELS]
    odd += [(label, other) for label in ODD_LABELS for other in ODD_LABELS]
    await tenant.write(*(put("k", {"ns": list(ns)}, ns) for ns in odd))
    for ns in odd:
        assert await tenant.value("k", ns) == {"ns": list(ns)}
    for label in ODD_LABELS:
        found = await tenant.found(search(label))
        assert {item.namespace for item in found} == {ns for ns in odd if ns[0] == label}
    assert await tenant.namespaces() == sorted(odd)
    assert await tenant.namespaces("*", "é") == sorted(ns for ns in odd if ns[1:] == ("é",))
    assert await tenant.namespaces(suffix=("\x01",)) == sorted(ns for ns in odd if ns[-1] == "\x01")


async def test_namespaces_are_listed_while_they_hold_items(tenant: Tenant) -> None:
    await tenant.write(put("k", ns=("a", "b", "c")), put("k", ns=("a", "b", "d")), put("k", ns=("b",)))
    assert await tenant.namespaces() == [("a", "b", "c"), ("a", "b", "d"), ("b",)]
    assert await tenant.namespaces("a", depth=2) == [("a", "b")]
    assert await tenant.namespaces(depth=1) == [("a",), ("b",)]
    assert await tenant.namespaces("a", "*", suffix=("d",)) == [("a", "b", "d")]
    assert await tenant.namespaces("a", "b", "c", "d") == []
    assert await tenant.namespaces(limit=1, offset=1) == [("a", "b", "d")]
    await tenant.write(delete("k", ("b",)))
    assert await tenant.namespaces(depth=1) == [("a",)]


async def test_a_limited_caller_finds_and_lists_what_is_within(tenant: Tenant) -> None:
    spaces: list[Namespace] = [("a",), ("a", "x"), ("ab",), ("b", "y"), ("b", "z"), ("c",)]
    await tenant.write(*(put("".join(ns), ns=ns) for ns in spaces))
    within: list[Namespace] = [("a",), ("b", "y"), ("a", "x"), ("absent",)]
    assert await tenant.keys(within=within) == ["a", "ax", "by"]
    assert await tenant.keys("b", within=within) == ["by"]
    assert await tenant.keys("c", within=within) == []
    assert await tenant.keys(within=[]) == []
    assert await tenant.namespaces(within=within) == [("a",), ("a", "x"), ("b", "y")]
    assert await tenant.namespaces("b", "*", within=within) == [("b", "y")]


async def test_several_reads_are_answered_in_their_order(tenant: Tenant) -> None:
    await tenant.write(put("k", {"n": 1}))
    one, absent, found, listed = await tenant.read(get("k"), get("absent"), search(*NS), listing())
    assert one == (await tenant.get("k"))
    assert absent is None
    assert found == [one]
    assert listed == [NS]


async def test_an_operation_has_one_effect(tenant: Tenant) -> None:
    by = operation()
    first = group(put("k", {"n": 1}), by=by)
    assert await tenant.apply(first) == [None]
    await tenant.write(put("k", {"n": 2}))
    assert await tenant.apply(first, group(put("other")), first) == [None, None, None]
    assert await tenant.value("k") == {"n": 2}
    assert await tenant.value("other") == {}


async def test_what_a_repeated_operation_writes_does_not_hide_what_others_write(tenant: Tenant) -> None:
    repeated = group(put("k", {"n": 1}, vectors=[[1, 0]]), put("other", {"n": 1}))
    await tenant.apply(repeated)
    newer = group(put("k", {"n": 2}, vectors=[[0, 1]]), put("new"))
    assert await tenant.apply(newer, repeated) == [None, None]

    assert await tenant.value("k") == {"n": 2}
    assert await tenant.keys() == ["k", "other", "new"]
    (first, *_) = await tenant.found(search(vector=[0, 1]), index=INDEX)
    assert (first.key, first.score) == ("k", pytest.approx(1))


async def test_an_operation_with_another_content_is_refused_alone(tenant: Tenant) -> None:
    by = operation()
    await tenant.apply(group(put("k"), by=by))
    changed = group(put("k", {"n": 2}), put("new"), by=by._replace(digest=b"e" * 32))
    refused, fine = await tenant.apply(changed, group(put("other")))
    assert isinstance(refused, errors.OperationMismatch)
    assert fine is None
    assert (await tenant.value("k"), await tenant.value("new"), await tenant.value("other")) == ({}, None, {})


async def test_an_operation_whose_time_has_passed_is_not_started(tenant: Tenant) -> None:
    late, fine = await tenant.apply(group(put("late"), by=operation(-1.0)), group(put("fine")))
    assert isinstance(late, errors.DeadlineExceeded)
    assert fine is None
    assert await tenant.keys() == ["fine"]
    answers = await tenant.store.read(
        tenant.id, [ReadGroup(operation(-1.0), [get("fine")]), ReadGroup(operation(), [get("fine")])]
    )
    assert isinstance(answers[0], errors.DeadlineExceeded)
    assert not isinstance(answers[1], errors.TenureError)


async def test_a_stranger_sees_and_changes_nothing(item_tenants: list[Tenant]) -> None:
    tenant, stranger = item_tenants
    await tenant.write(put("k", {"n": 1}, vectors=[[1, 0]], text="tea"))
    assert await stranger.get("k") is None
    assert await stranger.found(search()) == []
    assert await stranger.found(search(vector=[1, 0])) == []
    assert await stranger.found(search(text="tea")) == []
    assert await stranger.namespaces() == []
    assert await stranger.index() == (None, 0)
    await stranger.write(delete("k"))
    await stranger.write(put("k", {"n": 2}))
    await stranger.set_index(OTHER)
    assert await tenant.value("k") == {"n": 1}
    assert await tenant.index() == (INDEX, 0)
    assert [item.score for item in await tenant.found(search(vector=[1, 0]))] == [pytest.approx(1)]


async def test_items_expire_by_the_clock_of_the_store_and_come_back_as_new(tenant: Tenant) -> None:
    await tenant.write(
        put("short", ttl=0.05, vectors=[[1, 0]], text="tea"), put("long", ttl=3600.0), put("ever")
    )
    before = await tenant.get("short")
    assert before is None or before.key == "short"
    while await tenant.get("short") is not None:
        await asyncio.sleep(0.01)
    assert await tenant.keys() == ["long", "ever"]
    assert await tenant.keys(text="tea") == []
    assert await tenant.keys(vector=[1, 0]) == ["long", "ever"]
    assert (await tenant.index())[1] == 2
    await tenant.write(put("short"))
    after = await tenant.get("short")
    assert after is not None
    assert after.created_at == after.updated_at
    assert before is None or after.created_at > before.created_at
    assert await tenant.keys() == ["long", "ever", "short"]
    assert [item.score for item in await tenant.found(search(vector=[1, 0]))] == [None] * 3


async def test_a_namespace_whose_items_have_expired_is_not_listed(tenant: Tenant) -> None:
    await tenant.write(put("k", ns=("gone",), ttl=0.02), put("k", ns=("here",)))
    while await tenant.get("k", ("gone",)) is not None:
        await asyncio.sleep(0.01)
    assert await tenant.namespaces() == [("here",)]


async def test_a_large_value_comes_back_whole(tenant: Tenant) -> None:
    text = "".join(chr(32 + n % 90) for n in range(8 * 1024 * 1024 - 100))
    await tenant.write(put("large", {"text": text}))
    assert await tenant.value("large") == {"text": text}


async def test_the_longest_namespaces_and_keys_fit(tenant: Tenant) -> None:
    longest: Namespace = tuple(["\x01" * 32] * 32)
    key = "\x01" * 512
    await tenant.write(put(key, ns=longest, vectors=[[1, 0]]))
    assert await tenant.value(key, longest) == {}
    assert await tenant.namespaces() == [longest]
    assert [item.key for item in await tenant.found(search(vector=[1, 0]))] == [key]


async def test_many_writers_of_the_same_keys_lose_nothing_and_do_not_deadlock(tenant: Tenant) -> None:
    keys = [f"k{n}" for n in range(10)]

    async def writer(number: int) -> None:
        order = keys if number % 2 else keys[::-1]
        for turn in range(8):
            writes = [put(key, {"by": number, "turn": turn}, ("ns", key)) for key in order]
            await tenant.write(*writes, put(f"{number}-{turn}", ns=("own",)), delete(keys[turn], ("other",)))

    await asyncio.gather(*(writer(number) for number in range(8)))

    assert len(await tenant.keys("own")) == 64
    values = [json.loads(item.value) for item in await tenant.found(search("ns"))]
    assert values == [values[0]] * 10, "a group is applied as a whole"
