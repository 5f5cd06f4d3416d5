"""Lines of `max_bytes` are found page by page, whatever lies between a policy's threads and items."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tenure_server.retention import Hold, Items
from tenure_server.storage.postgres import retention_lines

from tests.harness.databases import Database
from tests.storage.item_tenant import put as put_item
from tests.storage.retained import HOUR, Retained, opened
from tests.storage.tenant import put

BODY = {"c": b"x" * 1000}


@pytest.fixture(params=[1, 2, 3, 200], ids="pages of {}".format)
async def kept(
    contract_database: Database, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Retained]:
    """A new tenant, looked at in pages of some size."""
    monkeypatch.setattr(retention_lines, "PAGE", request.param)
    monkeypatch.setattr(retention_lines, "_SUMMED", request.param)
    async with opened(contract_database) as tenant:
        yield tenant


async def store_threads(kept: Retained, *threads: str) -> int:
    """Put threads of equal size, the first the oldest, and return the size."""
    for at, thread in enumerate(threads):
        await kept.agent.write(put(thread, "1", new=BODY))
        await kept.age(thread, (100 - at) * HOUR)
    return (await kept.used())[0] // len(threads)


async def store_items(kept: Retained, *names: tuple[str, str]) -> int:
    """Put items of equal size (namespace, key), the first the oldest, and return the size."""
    for at, (namespace, key) in enumerate(names):
        await kept.items.write(put_item(key, ns=(namespace,)))
        await kept.age_items((100 - at) * HOUR, key)
    return (await kept.used())[0] // len(names)


async def test_of_threads_the_oldest_go_wherever_their_page_is(kept: Retained) -> None:
    each = await store_threads(kept, "e", "a", "g", "c", "b", "f", "d")
    await kept.policy(max_bytes=4 * each)
    assert await kept.agent.threads() == ["b", "c", "d", "f"]


async def test_a_policy_of_a_prefix_looks_at_its_threads_only(kept: Retained) -> None:
    each = await store_threads(kept, "a", "bot", "x", "bot-2", "bou", "bot-1", "bo", "bot-3", "z")
    await kept.policy("bot", max_bytes=2 * each)
    assert await kept.agent.threads() == ["a", "bo", "bot-1", "bot-3", "bou", "x", "z"]
    await kept.policy("bot-1", keep_last=1)
    await kept.policy("bot", max_bytes=each)
    assert await kept.agent.threads() == ["a", "bo", "bot-1", "bot-3", "bou", "x", "z"], "bot-1 has its own"


async def test_of_items_the_oldest_go_wherever_their_page_is(kept: Retained) -> None:
    each = await store_items(kept, *(("n", key) for key in "eagcbfd"))
    await kept.policy(Items(("n",)), max_bytes=4 * each)
    assert sorted(await kept.items.keys()) == ["b", "c", "d", "f"]


async def test_a_policy_of_a_namespace_looks_at_its_items_only(kept: Retained) -> None:
    names = [("m", "a"), ("n", "b"), ("n-1", "c"), ("n", "d"), ("o", "e"), ("n", "f")]
    each = await store_items(kept, *names)
    await kept.policy(Items(("n",)), max_bytes=each)
    assert sorted(await kept.items.keys()) == ["a", "c", "e", "f"]


async def test_items_under_a_hold_count_and_others_go_in_their_stead(kept: Retained) -> None:
    each = await store_items(kept, ("held", "a"), ("held", "b"), ("n", "c"), ("n", "d"))
    await kept.retention.hold(kept.id, Hold(Items(("held",))))
    await kept.policy(Items(), max_bytes=3 * each)
    assert sorted(await kept.items.keys()) == ["a", "b", "d"]
    await kept.policy(Items(), max_bytes=0)
    assert sorted(await kept.items.keys()) == ["a", "b"]


@pytest.mark.parametrize("candidates", [1, 3])
async def test_what_one_run_cannot_hold_in_mind_is_left_for_the_next(
    kept: Retained, monkeypatch: pytest.MonkeyPatch, candidates: int
) -> None:
    monkeypatch.setattr(retention_lines, "CANDIDATES", candidates)
    await store_threads(kept, *"ecadb")
    await kept.policy(max_bytes=0)
    left = sorted("ecadb"[candidates:])
    assert await kept.agent.threads() == left
    for _ in left:
        await kept.sweep()
    assert await kept.agent.threads() == []
    assert await kept.used() == (0, 0, 0)


async def test_what_is_within_the_limit_is_not_looked_at_further(
    kept: Retained, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store_threads(kept, "a", "b")
    each = await store_items(kept, ("n", "a"), ("n", "b"))
    asked = []

    async def call(statement: str, params: list[object]) -> list[tuple[object, ...]]:
        asked.append(statement)
        return await plain(statement, params)

    plain = retention_lines.calling(kept.sessions, kept.id)
    await kept.policy(Items(), max_bytes=2 * each)
    await retention_lines.draw_lines(call, kept.id, 0.0)
    assert asked
    assert retention_lines._ITEMS not in asked
