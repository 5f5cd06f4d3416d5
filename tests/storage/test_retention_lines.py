"""Lines of `max_bytes` are found page by page, whatever lies between a policy's threads and items."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, LiteralString

import pytest
from psycopg import AsyncConnection
from tenure_server.retention import Hold, Items
from tenure_server.storage.postgres import retention_lines

from tests.harness.databases import Database
from tests.storage.item_tenant import put as put_item
from tests.storage.postgres import blocked_by
from tests.storage.retained import HOUR, Retained, opened
from tests.storage.tenant import put

SETTLE = 300.0
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


async def test_items_with_a_policy_of_their_own_are_passed_over(kept: Retained) -> None:
    for at, (ns, key) in enumerate([(("n", "z"), "a"), (("n",), "b"), (("n", "m"), "c"), (("n", "z"), "d")]):
        await kept.items.write(put_item(key, ns=ns))
        await kept.age_items((100 - at) * HOUR, key)
    each = (await kept.used())[0] // 4
    await kept.policy(Items(("n", "m")), item_ttl=1000 * HOUR)
    await kept.policy(Items(("n",)), max_bytes=2 * each)
    assert sorted(await kept.items.keys()) == ["b", "c", "d"]


async def test_vectors_count_as_well(kept: Retained) -> None:
    for key in "ab":
        await kept.items.write(put_item(key, vectors=[(1.0, float(n)) for n in range(50)]))
    await kept.age_items(HOUR, "a")
    await kept.policy(Items(), max_bytes=(await kept.used())[0] // 2)
    assert await kept.items.keys() == ["b"]


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

    async def call(statement: LiteralString, params: list[Any]) -> Sequence[tuple[Any, ...]]:
        asked.append(statement)
        return await plain(statement, params)

    plain = retention_lines.calling(kept.sessions, kept.id)
    await kept.policy(Items(), max_bytes=2 * each)
    await retention_lines.draw_lines(call, kept.id, 0.0)
    assert asked
    assert retention_lines._ITEMS not in asked


async def test_a_line_waits_until_what_lies_behind_it_has_settled(kept: Retained) -> None:
    each = await store_threads(kept, "a", "b")
    await kept.policy(max_bytes=each)
    await kept.agent.write(put("c", "1", new=BODY))
    await kept.age("c", HOUR)
    await kept.sweep(SETTLE)
    assert await kept.agent.threads() == ["b", "c"]
    await kept.age_policies(HOUR)
    await kept.sweep(SETTLE)
    assert await kept.agent.threads() == ["c"]


async def test_a_sweeper_that_is_to_end_draws_no_line_to_its_end(kept: Retained) -> None:
    each = await store_threads(kept, *"abc")
    await kept.policy(max_bytes=3 * each)
    await kept.execute("UPDATE tenure.retention_policy SET max_bytes = 0 WHERE tenant_id = %s", [kept.id])
    stop = asyncio.Event()
    async with await AsyncConnection.connect(kept.database.admin_url) as holder:
        await holder.execute("LOCK TABLE tenure.checkpoint IN ACCESS EXCLUSIVE MODE")
        sweeping = asyncio.create_task(kept.sweeper().run_once(stop))
        await blocked_by(holder, kept.database.admin_url)
        stop.set()
        await holder.commit()
        await sweeping
    assert await kept.agent.threads() == ["a", "b", "c"]


async def test_a_line_that_somebody_else_drew_further_stays(kept: Retained) -> None:
    each = await store_threads(kept, *"abc")
    await kept.policy(max_bytes=3 * each)
    await kept.execute(
        "UPDATE tenure.retention_policy SET max_bytes = %s WHERE tenant_id = %s", [each, kept.id]
    )
    plain = retention_lines.calling(kept.sessions, kept.id)

    async def late(statement: LiteralString, params: list[Any]) -> Sequence[tuple[Any, ...]]:
        if statement is retention_lines._MOVE:
            await retention_lines.draw_lines(plain, kept.id, 0.0)
            params = [*params[:-2], *(await first_of(kept, "a"))]
        return await plain(statement, params)

    await retention_lines.draw_lines(late, kept.id, 0.0)
    assert await kept.agent.threads() == ["c"]


async def first_of(kept: Retained, thread: str) -> tuple[Any, ...]:
    """Return what a line through a thread would be."""
    (found,) = await kept.execute(
        """
        SELECT max(c.created_at), h.thread_id
        FROM tenure.thread_head AS h JOIN tenure.checkpoint AS c USING (tenant_id, thread_key)
        WHERE h.tenant_id = %s AND h.thread_id = %s
        GROUP BY h.thread_id
        """,
        [kept.id, thread],
    )
    return found
