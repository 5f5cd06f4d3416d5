"""Policies for items: what has expired is out of every read at once, and then deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from psycopg import AsyncConnection
from tenure_server.items import Namespace
from tenure_server.retention import Items

from tests.harness.databases import Database
from tests.storage.item_tenant import INDEX, put, search
from tests.storage.retained import DAY, Policy, Retained, opened

USERS: Namespace = ("users",)
ANN: Namespace = ("users", "ann")
USERSX: Namespace = ("usersx",)


@pytest.fixture
async def kept(contract_database: Database) -> AsyncIterator[Retained]:
    """A new tenant with two old items and a new one in each of three namespaces."""
    async with opened(contract_database) as tenant:
        for ns in (USERS, ANN, USERSX):
            for key in ("old", "older", "new"):
                await tenant.items.write(put(f"{ns[-1]}-{key}", ns=ns))
        await tenant.age_items(2 * DAY, *(f"{ns[-1]}-old" for ns in (USERS, ANN, USERSX)))
        await tenant.age_items(3 * DAY, *(f"{ns[-1]}-older" for ns in (USERS, ANN, USERSX)))
        yield tenant


async def test_an_item_that_was_not_put_for_its_ttl_is_gone_from_every_read(kept: Retained) -> None:
    await kept.policy(Items(USERS), item_ttl=DAY)
    assert sorted(await kept.items.keys()) == [
        "ann-new",
        "users-new",
        *("usersx-new", "usersx-old", "usersx-older"),
    ]
    assert await kept.items.value("users-old", USERS) is None
    assert [item.key for item in await kept.items.found(search("users", text="old"))] == []
    await kept.policy(Items(ANN), item_ttl=1e-6)
    assert await kept.items.namespaces() == [USERS, USERSX]
    assert (await kept.rows())["item"] == 9, "they are only hidden"


async def test_vectors_and_words_of_hidden_items_find_nothing(kept: Retained) -> None:
    await kept.items.write(
        put("near", ns=USERS, vectors=[(1.0, 0.0)], text="a word"),
        put("far", ns=USERSX, vectors=[(0.0, 1.0)], text="a word"),
    )
    await kept.age_items(2 * DAY, "near")
    await kept.policy(Items(USERS), item_ttl=DAY)
    found = await kept.items.found(search(vector=(1.0, 0.0)), index=INDEX)
    assert "near" not in [item.key for item in found]
    assert "near" not in [item.key for item in await kept.items.found(search(text="word"))]


async def test_what_reads_hide_the_preview_counts_and_the_sweeper_deletes(kept: Retained) -> None:
    visible = set(await kept.items.keys())
    proposed = await kept.preview(Policy(Items(USERS), item_ttl=DAY))
    assert set(await kept.items.keys()) == visible
    await kept.policy(Items(USERS), item_ttl=DAY)
    hidden = visible - set(await kept.items.keys())
    preview = await kept.preview()
    assert (preview.items, preview.bytes) == (len(hidden), proposed.bytes)
    before = await kept.used()
    assert (await kept.sweep()).expired_items == len(hidden) == 4
    after = await kept.used()
    assert (before[0] - after[0], before[2] - after[2]) == (preview.bytes, preview.items)
    assert (await kept.preview()).items == 0


async def test_a_namespace_is_no_prefix_of_letters_and_the_longest_counts(kept: Retained) -> None:
    await kept.policy(Items(), item_ttl=2.5 * DAY)
    await kept.policy(Items(ANN), item_ttl=DAY)
    assert sorted(await kept.items.keys()) == [
        "ann-new",
        *("users-new", "users-old"),
        *("usersx-new", "usersx-old"),
    ]


async def test_a_put_over_an_expired_item_is_a_new_one(kept: Retained) -> None:
    await kept.policy(Items(USERS), item_ttl=DAY)
    await kept.items.write(put("users-old", ns=USERS))
    assert await kept.items.value("users-old", USERS) is not None
    await kept.sweep()
    assert await kept.items.value("users-old", USERS) is not None


async def test_items_that_must_stand_still_are_left_for_the_next_run(kept: Retained) -> None:
    await kept.policy(Items(USERS), item_ttl=DAY)
    async with await AsyncConnection.connect(kept.database.admin_url) as changing:
        await changing.execute("SELECT pg_advisory_xact_lock(tenure.items_lock_1(%s))", [kept.id])
        assert (await kept.sweep()).expired_items == 0
    assert (await kept.sweep()).expired_items == 4


async def test_bytes_take_what_was_put_longest_ago_first(kept: Retained) -> None:
    used, *_ = await kept.used()
    each = used // 9
    await kept.policy(Items(), max_bytes=used - 3 * each)
    left = await kept.items.keys()
    assert not [key for key in left if key.endswith("older")]
    preview = await kept.preview()
    await kept.sweep()
    assert (await kept.used())[0] == used - preview.bytes <= used - 3 * each
    await kept.items.write(put("users-newer", ns=USERS))
    await kept.sweep()
    assert (await kept.used())[0] <= used - 3 * each
    assert await kept.items.value("users-newer", USERS) is not None
