"""Legal holds: nothing of what they cover is deleted, by policy or on request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import LiteralString

import psycopg
import pytest
from tenure_server import errors
from tenure_server.domain import PruneStrategy
from tenure_server.retention import Items, Scope, Threads
from tenure_server.storage.postgres.administration import PostgresAdministration

from tests.harness.databases import Database
from tests.storage.item_tenant import NS, delete, group
from tests.storage.item_tenant import put as put_item
from tests.storage.postgres import blocked_by
from tests.storage.retained import DAY, Policy, Retained, opened
from tests.storage.tenant import put

COVERING: list[Scope | None] = [None, Threads(""), Threads("case-")]


@pytest.fixture
async def kept(contract_database: Database) -> AsyncIterator[Retained]:
    """A new tenant with an old thread of three checkpoints, and one beside it."""
    async with opened(contract_database) as tenant:
        for thread in ["case-1", "other"]:
            await tenant.agent.write(
                *(put(thread, step, new={"c": b"c"}, metadata={"run_id": "run"}) for step in "123")
            )
            await tenant.age(thread, 2 * DAY)
        yield tenant


@pytest.mark.parametrize("scope", COVERING, ids=repr)
async def test_policies_stop_under_a_hold_and_go_on_when_it_is_released(
    kept: Retained, scope: Scope | None
) -> None:
    await kept.hold(scope)
    await kept.policy("case-", max_idle=DAY, keep_last=1, max_bytes=0)
    assert await kept.steps("case-1") == ["1", "2", "3"]
    assert (await kept.preview()).threads == 0
    await kept.sweep()
    assert await kept.steps("case-1") == ["1", "2", "3"]
    await kept.retention.release(kept.id, scope)
    assert await kept.steps("case-1") == []


@pytest.mark.parametrize("scope", COVERING, ids=repr)
async def test_what_is_held_cannot_be_deleted_on_request(kept: Retained, scope: Scope | None) -> None:
    await kept.hold(scope)
    with pytest.raises(errors.LegalHold):
        await kept.agent.delete("case-1")
    with pytest.raises(errors.LegalHold):
        await kept.agent.prune("case-1")
    with pytest.raises(errors.LegalHold):
        await kept.agent.prune("case-1", strategy=PruneStrategy.DELETE_ALL)
    with pytest.raises(errors.LegalHold):
        await kept.agent.delete_for_runs("run")
    assert await kept.steps("case-1") == ["1", "2", "3"]


async def test_agents_work_on_under_a_hold(kept: Retained) -> None:
    await kept.hold(None)
    await kept.agent.write(put("case-1", "4", "3"), put("case-1", "2"), put("case-new", "1"))
    await kept.agent.copy("case-1", "case-2")
    with pytest.raises(errors.ThreadExists):
        await kept.agent.copy("case-1", "case-2")
    assert await kept.steps("case-2") == ["1", "2", "3", "4"]


async def test_what_a_hold_does_not_cover_can_be_deleted(kept: Retained) -> None:
    await kept.hold(Threads("case-"))
    await kept.hold(Items())
    await kept.agent.delete("other")
    assert await kept.agent.threads() == ["case-1"]


async def test_a_tenant_with_a_hold_cannot_be_deleted(kept: Retained) -> None:
    await kept.hold(Threads("case-"))
    with pytest.raises(errors.LegalHold):
        await _delete_tenant(kept)
    await kept.retention.release(kept.id, Threads("case-"))
    await _delete_tenant(kept)
    with pytest.raises(errors.TenantNotFound):
        await kept.hold(None)


async def test_a_deleted_tenant_leaves_no_policies_pins_or_marks(kept: Retained) -> None:
    await kept.policy("case-", max_idle=10 * DAY)
    await kept.pin("case-1")
    await _delete_tenant(kept)
    await kept.execute(
        "UPDATE tenure.tenant SET deleted_at = deleted_at - interval '1 hour' WHERE tenant_id = %s", [kept.id]
    )
    await kept.sweep()
    assert set((await kept.rows()).values()) == {0}
    assert await kept.execute("SELECT FROM tenure.retention_policy WHERE tenant_id = %s", [kept.id]) == []
    assert await kept.execute("SELECT FROM tenure.tenant WHERE tenant_id = %s", [kept.id]) == []


@pytest.mark.parametrize("scope", [None, Items(), Items(NS[:1]), Items(NS)], ids=repr)
async def test_held_items_are_not_deleted_by_policy_by_their_time_or_on_request(
    kept: Retained, scope: Scope | None
) -> None:
    await kept.items.write(put_item("a"), put_item("timed", ttl=60.0), put_item("b", ns=("elsewhere",)))
    await kept.execute(
        "UPDATE tenure.item SET expires_at = now() - interval '1 s' WHERE tenant_id = %s AND key = 'timed'",
        [kept.id],
    )
    await kept.age_items(2 * DAY, "a", "b")
    await kept.hold(scope)
    await kept.policy(Items(NS), item_ttl=DAY, max_bytes=0)
    await kept.sweep()
    assert (await kept.rows())["item"] == 3
    assert await kept.items.value("a") is not None
    with pytest.raises(errors.LegalHold):
        await kept.items.write(delete("a"))
    await kept.items.write(delete("absent"), put_item("a"))
    if scope in {Items(NS[:1]), Items(NS)}:
        await kept.items.write(delete("b", ns=("elsewhere",)))


async def test_only_the_delete_of_a_held_item_fails(kept: Retained) -> None:
    await kept.items.write(put_item("held"))
    await kept.hold(Items(NS))
    outcomes = await kept.items.apply(group(put_item("x")), group(delete("held")), group(put_item("y")))
    assert [type(outcome) for outcome in outcomes] == [type(None), errors.LegalHold, type(None)]
    assert await kept.items.value("y") is not None


async def test_a_hold_waits_for_a_delete_that_is_under_way(kept: Retained) -> None:
    async with await kept.agent_session() as deleting:
        await deleting.execute("DELETE FROM tenure.thread_head WHERE thread_id = 'case-1'")
        holding = asyncio.create_task(kept.hold(None))
        await blocked_by(deleting, kept.database.admin_url)
        assert not holding.done()
        await deleting.commit()
    await holding
    assert await kept.agent.threads() == ["other"]


@pytest.mark.parametrize("table", ["thread_head", "item"])
async def test_a_hold_covers_what_was_made_after_a_delete_began(kept: Retained, table: LiteralString) -> None:
    async with await kept.agent_session() as deleting:
        await kept.agent.write(put("late", "1"))
        await kept.items.write(put_item("late"))
        await kept.hold(None)
        with pytest.raises(psycopg.Error) as refused:
            await deleting.execute(f"DELETE FROM tenure.{table} WHERE created_at > now()")
        assert refused.value.sqlstate == "TH001"


async def test_a_preview_of_a_policy_leaves_out_what_is_held(kept: Retained) -> None:
    await kept.hold(Threads("case-"))
    assert (await kept.preview(Policy(Threads(), keep_last=1))).checkpoints == 2


async def _delete_tenant(kept: Retained) -> None:
    await PostgresAdministration(kept.retention._pool).delete_tenant(kept.id, "retention")
