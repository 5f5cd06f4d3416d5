"""What runs and writers may rely on while threads expire: rows that stay, and what does not come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from psycopg import AsyncConnection
from tenure_server.storage.postgres.leases import PostgresLeases
from tenure_server.storage.postgres.retention_lines import calling, draw_lines

from tests.harness.databases import Database
from tests.storage.postgres import blocked_by
from tests.storage.retained import DAY, HOUR, Retained, opened
from tests.storage.tenant import Write, operation, put, put_writes

SETTLE = 300.0
VALUES = {"a": ("2", b"a2"), "b": ("1", b"b")}


@pytest.fixture
async def kept(contract_database: Database) -> AsyncIterator[Retained]:
    """A new tenant."""
    async with opened(contract_database) as tenant:
        yield tenant


async def first(kept: Retained) -> None:
    """Put a checkpoint with two values."""
    await kept.agent.write(put("t", "1", new={"a": b"a", "b": b"b"}))


async def goes_on(kept: Retained) -> None:
    """Put what a run puts that began at the first: one value is new, the other it only names."""
    await kept.agent.write(put("t", "2", "1", new={"a": b"a2"}, versions={"a": "2", "b": "1"}))
    assert await kept.steps("t") == ["2"]
    assert (await kept.agent.one("t")).values == VALUES


async def chain(kept: Retained, thread: str, *ids: str, ns: str = "") -> None:
    """Put checkpoints, each the parent of the next."""
    for parent, step in zip((None, *ids), ids, strict=False):
        await kept.agent.write(put(thread, step, parent, ns=ns))


async def test_rows_stay_until_a_run_from_before_has_settled(kept: Retained) -> None:
    """Two runs begin at "1"; the slower one builds on values that "2" does not hold."""
    await kept.agent.write(put("t", "1", new={"a": b"a", "b": b"b"}))
    await kept.age("t", HOUR)
    await kept.policy(keep_last=1)
    await kept.agent.write(put("t", "2", "1", new={"a": b"a2", "b": b"b2"}, versions={"a": "2", "b": "2"}))
    await kept.sweep(SETTLE)
    assert await kept.steps("t") == ["2"]
    await kept.agent.write(put("t", "3", "1", new={"a": b"a3"}, versions={"a": "3", "b": "1"}))
    assert (await kept.agent.one("t")).values == {"a": ("3", b"a3"), "b": ("1", b"b")}
    await kept.age("t", HOUR)
    await kept.age_policies(HOUR)
    await kept.sweep(SETTLE)
    assert await kept.checkpoints() == {("t", "", "3")}
    assert (await kept.agent.one("t")).values == {"a": ("3", b"a3"), "b": ("1", b"b")}


async def test_a_thread_that_had_expired_begins_anew_when_it_is_written_to(kept: Retained) -> None:
    await chain(kept, "t", "1", "2")
    await chain(kept, "t", "1", ns="child")
    await kept.age("t", 2 * DAY)
    await kept.policy(max_idle=DAY)
    await kept.agent.write(put("t", "3"))
    assert await kept.agent.listing() == [("t", "", "3")]
    assert await kept.steps("t", "child") == []
    await kept.sweep()
    assert await kept.checkpoints() == {("t", "", "3")}
    assert (await kept.rows())["retention_expired"] == 0


async def test_what_a_slow_writer_puts_after_its_thread_expired_has_all_that_it_needs(kept: Retained) -> None:
    await kept.agent.write(put("t", "1", new={"a": b"a", "b": b"b"}))
    await kept.age("t", 2 * DAY)
    await kept.policy(max_idle=DAY)
    await kept.agent.write(put("t", "2", "1", new={"a": b"a2"}, versions={"a": "2", "b": "1"}))
    for _ in range(2):
        assert await kept.steps("t") == ["2"]
        assert (await kept.agent.one("t")).values == {"a": ("2", b"a2"), "b": ("1", b"b")}
        await kept.sweep()


async def test_what_had_expired_and_is_put_again_is_there_again(kept: Retained) -> None:
    await chain(kept, "t", "1")
    await kept.age("t", 2 * DAY)
    await kept.policy(max_idle=DAY)
    await kept.agent.write(put("t", "2"))
    assert await kept.steps("t") == ["2"]
    await kept.agent.write(put("t", "1"))
    assert await kept.steps("t") == ["1", "2"]


async def test_a_pending_write_is_something_that_was_stored(kept: Retained) -> None:
    await first(kept)
    await kept.age("t", 2 * DAY)
    await kept.agent.write(put_writes("t", "1", Write("__resume__")))
    await kept.policy(max_idle=DAY)
    assert await kept.steps("t") == ["1"]
    await kept.sweep()
    await kept.agent.write(put("t", "2", "1", new={"a": b"a2"}, versions={"a": "2", "b": "1"}))
    assert await kept.steps("t") == ["1", "2"]
    assert (await kept.agent.one("t")).values == VALUES


async def test_what_another_rule_hides_comes_back_with_that_rule_once_the_thread_was_written_to(
    kept: Retained,
) -> None:
    await chain(kept, "t", "1", "2")
    await kept.age("t", 2 * DAY)
    await kept.agent.write(put_writes("t", "2", Write("__resume__")))
    await kept.policy(max_idle=DAY, keep_last=1)
    assert await kept.steps("t") == ["2"]
    await kept.agent.write(put("t", "3"))
    await kept.policy(max_idle=DAY)
    assert await kept.steps("t") == ["1", "2", "3"], "only what is over is remembered"


async def test_a_write_that_replaces_another_is_looked_at_with_what_it_replaces(kept: Retained) -> None:
    resume, other = Write("__resume__", idx=-4), Write("__interrupt__", idx=-3)
    await first(kept)
    await kept.agent.write(put_writes("t", "1", resume, other))
    await kept.age("t", 2 * DAY)
    await kept.execute(
        "UPDATE tenure.pending_write SET created_at = now() - interval '1 hour'"
        " WHERE tenant_id = %s AND idx = -4",
        [kept.id],
    )
    await kept.policy(max_idle=DAY)
    await kept.agent.write(put_writes("t", "1", resume, other))
    assert await kept.steps("t") == ["1"]
    await kept.age("t", 2 * DAY)
    assert await kept.steps("t") == []
    await kept.agent.write(put_writes("t", "1", resume))
    assert await kept.steps("t") == [], "what had expired does not come back"


@pytest.mark.parametrize("rule", ["max_age", "max_idle"])
async def test_a_thread_stays_in_the_database_for_a_while_once_it_has_expired(
    kept: Retained, rule: str
) -> None:
    await first(kept)
    await kept.age("t", DAY + 10)
    await kept.policy(**{rule: DAY})
    await kept.age_policies(HOUR)
    swept = await kept.sweep(SETTLE)
    assert (swept.expired_threads, await kept.steps("t")) == (0, [])
    await goes_on(kept)
    await kept.sweep()
    assert (await kept.agent.one("t")).values == VALUES


async def test_a_thread_that_has_settled_goes(kept: Retained) -> None:
    await first(kept)
    await kept.age("t", DAY + SETTLE + 1)
    await kept.policy(max_idle=DAY)
    assert (await kept.sweep(SETTLE)).expired_threads == 0, "the policy is new"
    await kept.age_policies(HOUR)
    assert (await kept.sweep(SETTLE)).expired_threads == 1


async def test_a_write_for_an_expired_checkpoint_keeps_its_rows_for_a_while_longer(kept: Retained) -> None:
    await first(kept)
    await kept.age("t", 2 * DAY)
    await kept.policy(max_idle=DAY)
    await kept.age_policies(HOUR)
    await kept.agent.write(put_writes("t", "1", Write()))
    assert await kept.steps("t") == []
    await kept.sweep(SETTLE)
    await goes_on(kept)
    await kept.sweep()
    assert await kept.checkpoints() == {("t", "", "2")}
    assert (await kept.agent.one("t")).values == VALUES


async def test_a_checkpoint_that_grew_too_old_stays_in_the_database_for_a_while(kept: Retained) -> None:
    await chain(kept, "t", "1", "2", "3")
    await kept.age("t", DAY - SETTLE)
    await kept.age("t", SETTLE + 10, "1", "2")
    await kept.policy(max_age=DAY)
    await kept.age_policies(HOUR)
    await kept.sweep(SETTLE)
    assert (await kept.steps("t"), len(await kept.checkpoints())) == (["3"], 3)
    await kept.age("t", SETTLE, "1", "2")
    await kept.sweep(SETTLE)
    assert await kept.checkpoints() == {("t", "", "3")}


async def test_what_lies_behind_a_line_stays_in_the_database_for_a_while(kept: Retained) -> None:
    for hours, thread in enumerate("cba", start=1):
        await kept.agent.write(put(thread, "1", new={"c": b"x" * 1000}))
        await kept.age(thread, hours * HOUR)
    used, *_ = await kept.used()
    await kept.policy(max_bytes=used - 1)
    await kept.age_policies(HOUR, lines=False)
    assert (await kept.sweep(SETTLE)).expired_threads == 0
    assert await kept.agent.threads() == ["b", "c"]
    await kept.age_policies(HOUR)
    await kept.execute("UPDATE tenure.retention_policy SET max_bytes = 1 WHERE tenant_id = %s", [kept.id])
    assert (await kept.sweep(SETTLE)).expired_threads == 1, "the line moves on, and what lay behind it is old"
    assert await kept.agent.threads() == []
    assert {thread for thread, _, _ in await kept.checkpoints()} == {"b", "c"}
    await kept.age_policies(HOUR)
    assert (await kept.sweep(SETTLE)).expired_threads == 2


async def test_bytes_take_no_thread_that_was_just_written_to(kept: Retained) -> None:
    await first(kept)
    await kept.age("t", HOUR)
    await kept.policy(max_bytes=1_000_000)
    await kept.agent.write(put_writes("t", "1", Write()))
    await kept.execute("UPDATE tenure.retention_policy SET max_bytes = 1 WHERE tenant_id = %s", [kept.id])
    await kept.sweep(SETTLE)
    assert await kept.steps("t") == ["1"]


@pytest.mark.parametrize("rules", [{"keep_last": 100}, {"max_bytes": 1_000_000}], ids=str)
async def test_a_line_is_not_drawn_for_a_policy_that_was_set_meanwhile(
    kept: Retained, rules: dict[str, Any]
) -> None:
    for thread in "abc":
        await kept.agent.write(put(thread, "1", new={"c": b"x" * 1000}))
        await kept.age(thread, HOUR)
    await kept.policy(max_bytes=1_000_000)
    await kept.execute("UPDATE tenure.retention_policy SET max_bytes = 1 WHERE tenant_id = %s", [kept.id])
    async with await AsyncConnection.connect(kept.database.admin_url) as holder:
        await holder.execute("LOCK TABLE tenure.checkpoint IN ACCESS EXCLUSIVE MODE")
        drawing = asyncio.create_task(draw_lines(calling(kept.sessions, kept.id), kept.id, 0.0))
        await blocked_by(holder, kept.database.admin_url)
        await kept.policy(**rules)
        await holder.commit()
        await drawing
    assert await kept.agent.threads() == ["a", "b", "c"]
    assert (await kept.sweep()).expired_threads == 0


async def test_a_lease_brings_nothing_back_that_had_expired(kept: Retained) -> None:
    leases = PostgresLeases(kept.sessions)
    await chain(kept, "t", "1")
    await kept.age("t", 2 * DAY)
    await kept.policy(max_idle=DAY)
    assert await kept.steps("t") == []
    token = await leases.acquire(kept.id, operation(), "t", "somebody", 60_000)
    assert await kept.steps("t") == []
    await kept.agent.write(put("t", "2")._replace(lease_token=token))
    await leases.release(kept.id, operation(), "t", token)
    assert await kept.steps("t") == ["2"]
    await kept.sweep()
    assert await kept.checkpoints() == {("t", "", "2")}


async def test_nor_does_a_lease_that_is_renewed_after_it_ran_out(kept: Retained) -> None:
    leases = PostgresLeases(kept.sessions)
    await chain(kept, "t", "1")
    token = await leases.acquire(kept.id, operation(), "t", "somebody", 60_000)
    await kept.age("t", 2 * DAY)
    await kept.policy(max_idle=DAY)
    assert await kept.steps("t") == ["1"]
    await kept.execute(
        "UPDATE tenure.thread_head SET lease_until = now() - interval '1 s' WHERE tenant_id = %s", [kept.id]
    )
    assert await kept.steps("t") == []
    await leases.renew(kept.id, operation(), "t", token, 60_000)
    assert await kept.steps("t") == []
