"""What each rule of retention lets expire, alone and with others: hidden at once, and then deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing

import pytest
from tenure_server import errors
from tenure_server.storage.postgres import retention

from tests.harness.databases import Database
from tests.storage.retained import CONNECTIONS, DAY, HOUR, Policy, Retained, Threads, opened
from tests.storage.tenant import Write, put, put_writes


@pytest.fixture
async def kept(contract_database: Database) -> AsyncIterator[Retained]:
    """A new tenant."""
    async with opened(contract_database) as tenant:
        yield tenant


async def chain(kept: Retained, thread: str, *ids: str, ns: str = "") -> None:
    """Put checkpoints, each the parent of the next."""
    for parent, step in zip((None, *ids), ids, strict=False):
        await kept.agent.write(
            put(thread, step, parent, ns=ns, new={"c": step.encode()}, versions={"c": step})
        )


async def test_without_a_policy_nothing_expires(kept: Retained) -> None:
    await chain(kept, "t", "1", "2", "3")
    await kept.age("t", 10_000 * DAY)
    assert await kept.steps("t") == ["1", "2", "3"]
    assert (await kept.preview()).checkpoints == 0


async def test_a_policy_reaches_what_is_there_at_once_and_what_it_hides_is_what_goes(kept: Retained) -> None:
    await chain(kept, "t", "1", "2", "3", "4", "5")
    await kept.policy(keep_last=2)
    assert await kept.steps("t") == ["4", "5"]
    assert await kept.agent.get("t", "3") is None
    assert len(await kept.checkpoints()) == 5, "they are only hidden"
    swept = await kept.sweep()
    assert (swept.expired_threads, swept.expired_checkpoints) == (0, 3)
    assert await kept.steps("t") == ["4", "5"]
    assert len(await kept.checkpoints()) == 2


async def test_a_hidden_parent_is_not_told(kept: Retained) -> None:
    await chain(kept, "t", "1", "2", "3")
    await kept.policy(keep_last=2)
    await kept.agent.write(*(put_writes("t", step, Write(data=step.encode())) for step in "12"))
    before = await kept.agent.stored(thread_id="t")
    assert [found.parent for found in before] == ["2", None]
    for _ in range(2):
        assert await kept.agent.stored(thread_id="t") == before
        history = (await kept.agent.history("t", "messages"))["messages"]
        assert [blob.data for _, blob in history.writes] == [b"2"], "nor is what it wrote"
        await kept.sweep()


async def test_keeping_the_latest_only_keeps_that_of_each_namespace(kept: Retained) -> None:
    await chain(kept, "t", "1", "2")
    await chain(kept, "t", "1", "2", "3", ns="child")
    await kept.policy(keep_last=1)
    assert await kept.agent.listing() == [("t", "child", "3"), ("t", "", "2")]


async def test_the_latest_by_a_slow_clock_counts_as_the_newest(kept: Retained) -> None:
    await kept.agent.write(put("t", "1"), put("t", "5", "1"), put("t", "3", "5"))
    await kept.policy(keep_last=1)
    assert await kept.steps("t") == ["3"]
    await kept.sweep()
    assert await kept.agent.latest("t") == "3"


async def test_checkpoints_older_than_max_age_go_but_not_the_head_of_a_thread_that_is_used(
    kept: Retained,
) -> None:
    await chain(kept, "t", "1", "2", "3")
    await chain(kept, "t", "1", "2", ns="child")
    await kept.age("t", 2 * DAY, "1", "2")
    await kept.policy(max_age=DAY)
    assert await kept.steps("t") == ["3"]
    assert await kept.steps("t", "child") == ["2"], "the head of a namespace stays as long as its thread"
    await kept.sweep()
    assert await kept.checkpoints() == {("t", "", "3"), ("t", "child", "2")}


@pytest.mark.parametrize("rule", ["max_age", "max_idle"])
async def test_a_thread_that_nobody_writes_to_goes_as_a_whole(kept: Retained, rule: str) -> None:
    await chain(kept, "old", "1", "2")
    await kept.agent.write(put_writes("old", "1", Write()))
    assert (await kept.agent.history("old", "messages"))["messages"].writes
    await chain(kept, "new", "1")
    await kept.age("old", 2 * DAY)
    await kept.policy(**{rule: DAY})
    assert await kept.agent.head("old") is None
    assert await kept.agent.head("old", "2") is None
    assert await kept.agent.listing(thread_id="old") == []
    assert await kept.agent.listing() == [("new", "", "1")]
    assert await kept.agent.threads() == ["new"]
    for step in (None, "2"):
        assert (await kept.agent.history("old", "messages", id=step))["messages"].writes == []
    bytes_before, *_ = await kept.used()
    preview = await kept.preview()
    assert (preview.threads, preview.checkpoints) == (1, 2)
    swept = await kept.sweep()
    assert (swept.expired_threads, swept.expired_checkpoints) == (1, 2)
    bytes_after, threads, _ = await kept.used()
    assert (bytes_before - bytes_after, threads) == (preview.bytes, 1)
    assert (await kept.rows())["checkpoint"] == 1, "its rows are freed in the same run"


async def test_a_thread_in_use_is_not_idle_whatever_is_old_in_it(kept: Retained) -> None:
    await chain(kept, "t", "1", "2")
    await kept.age("t", 2 * DAY)
    await kept.agent.write(put("t", "3", "2"))
    await kept.policy(max_idle=DAY)
    assert await kept.steps("t") == ["1", "2", "3"]


async def test_the_longest_prefix_counts_and_it_alone(kept: Retained) -> None:
    for thread in ["a", "ab", "abc", "x"]:
        await chain(kept, thread, "1", "2", "3", "4")
        await kept.age(thread, 2 * DAY, "1")
    await kept.policy("a", keep_last=3)
    await kept.policy("ab", keep_last=1)
    await kept.policy("abc", max_age=DAY)
    assert [await kept.steps(thread) for thread in ["a", "ab", "abc", "x"]] == [
        ["2", "3", "4"],
        ["4"],
        ["2", "3", "4"],
        ["1", "2", "3", "4"],
    ]
    await kept.policy("", keep_last=2)
    assert await kept.steps("x") == ["3", "4"]
    assert await kept.steps("a") == ["2", "3", "4"]
    await kept.retention.delete_policy(kept.id, Threads("abc"))
    assert await kept.steps("abc") == ["4"]


async def test_both_rules_of_one_policy_hold(kept: Retained) -> None:
    await chain(kept, "t", "1", "2", "3", "4")
    await kept.age("t", 2 * DAY, "1", "2", "3")
    await kept.policy(keep_last=3, max_age=3 * DAY)
    assert await kept.steps("t") == ["2", "3", "4"]
    await kept.policy(keep_last=3, max_age=DAY)
    assert await kept.steps("t") == ["4"]


async def test_the_floor_stays_whatever_the_other_rules_say(kept: Retained) -> None:
    await chain(kept, "t", "1", "2", "3", "4")
    await kept.policy(keep_last=1, floor=3)
    assert await kept.steps("t") == ["2", "3", "4"]
    await kept.age("t", 2 * DAY)
    for rules in [{"max_age": DAY}, {"max_idle": DAY}, {"max_bytes": 0}]:
        await kept.policy(**rules, floor=2)
        assert await kept.steps("t") == ["3", "4"], rules
    await kept.sweep()
    assert await kept.checkpoints() == {("t", "", "3"), ("t", "", "4")}
    assert (await kept.preview()).bytes == 0


async def test_a_pinned_thread_is_left_alone(kept: Retained) -> None:
    await chain(kept, "t", "1", "2")
    await kept.age("t", 2 * DAY)
    await kept.pin("t")
    await kept.policy(max_age=DAY, keep_last=1, max_bytes=0)
    assert await kept.steps("t") == ["1", "2"]
    await kept.sweep()
    assert await kept.steps("t") == ["1", "2"]
    pins = await kept.retention.list_pins(kept.id, 10, None)
    await kept.retention.unpin(kept.id, pins[0])
    assert await kept.agent.threads() == []


async def test_a_pinned_checkpoint_stays_with_its_thread_and_the_head(kept: Retained) -> None:
    await chain(kept, "t", "1", "2", "3")
    await kept.pin("t", "1")
    await kept.policy(keep_last=1)
    assert await kept.steps("t") == ["1", "3"]
    await kept.age("t", 2 * DAY)
    await kept.policy(max_idle=DAY)
    assert await kept.steps("t") == ["1", "3"]
    await kept.sweep()
    assert await kept.checkpoints() == {("t", "", "1"), ("t", "", "3")}


async def test_a_listing_is_as_long_as_was_asked_for_whatever_is_hidden_between(kept: Retained) -> None:
    await chain(kept, "t", "1", "2", "3", "4")
    await kept.pin("t", "1")
    await kept.policy(keep_last=1)
    seen = [("t", "", "4"), ("t", "", "1")]
    for query in [{"thread_id": "t", "checkpoint_ns": ""}, {"thread_id": "t"}, {}]:
        assert await kept.agent.listing(2, **query) == seen
        assert await kept.agent.listing(1, before="4", **query) == seen[1:]
    for thread in ["s", "u", "v"]:
        await chain(kept, thread, "1")
        await kept.age(thread, 2 * DAY)
    await kept.policy("s", max_idle=DAY)
    await kept.policy("u", max_idle=DAY)
    assert await kept.agent.threads(limit=2) == ["t", "v"]


async def test_what_has_expired_or_is_not_there_cannot_be_pinned(kept: Retained) -> None:
    await chain(kept, "t", "1", "2")
    await kept.policy(keep_last=1)
    for step in ["1", "absent"]:
        with pytest.raises(errors.InvalidField):
            await kept.pin("t", step)
    with pytest.raises(errors.ThreadNotFound):
        await kept.pin("absent")
    await kept.age("t", 2 * DAY)
    await kept.policy(max_idle=DAY)
    with pytest.raises(errors.ThreadNotFound):
        await kept.pin("t")


async def test_a_lease_keeps_a_thread_and_all_that_is_in_it(kept: Retained) -> None:
    await chain(kept, "t", "1", "2")
    await kept.age("t", 2 * DAY)
    lease = (
        "UPDATE tenure.thread_head SET lease_until = now() + make_interval(secs => %s) WHERE tenant_id = %s"
    )
    await kept.execute(lease, [HOUR, kept.id])
    await kept.policy(max_idle=DAY)
    assert await kept.steps("t") == ["1", "2"]
    await kept.policy(keep_last=1)
    assert await kept.steps("t") == ["2"], "what expires in it is hidden"
    await kept.sweep()
    assert len(await kept.checkpoints()) == 2, "but nothing is deleted under its writer"
    await kept.execute(lease, [-1, kept.id])
    await kept.sweep()
    assert await kept.checkpoints() == {("t", "", "2")}


async def test_what_has_expired_is_not_copied(kept: Retained) -> None:
    await chain(kept, "old", "1")
    await chain(kept, "part", "1", "2", "3")
    await kept.age("old", 2 * DAY)
    await kept.policy(max_idle=DAY, keep_last=2)
    with pytest.raises(errors.ThreadNotFound):
        await kept.agent.copy("old", "copy")
    await kept.policy("copy", keep_last=10)
    await kept.agent.copy("part", "copy")
    assert await kept.steps("copy") == ["2", "3"]
    await kept.sweep()
    assert {step for thread, _, step in await kept.checkpoints() if thread == "copy"} == {"2", "3"}


async def test_a_thread_that_somebody_holds_is_left_for_the_next_run(kept: Retained) -> None:
    await chain(kept, "t", "1", "2")
    await kept.policy(keep_last=1)
    async with kept.admin.transaction():
        await kept.execute(
            "SELECT FROM tenure.thread_head WHERE tenant_id = %s AND thread_id = 't' FOR KEY SHARE", [kept.id]
        )
        assert (await kept.sweep()).expired_checkpoints == 0
    assert (await kept.sweep()).expired_checkpoints == 1


async def test_bytes_take_whole_threads_those_written_to_longest_ago_first(kept: Retained) -> None:
    for n, thread in enumerate(["c", "a", "b", "other"]):
        await kept.agent.write(put(thread, "1", new={"c": b"x" * 1000}))
        await kept.age(thread, (10 - n) * HOUR)
    used, *_ = await kept.used()
    each = used // 4
    await kept.policy("other", keep_last=1)
    await kept.policy("", max_bytes=2 * each)
    assert await kept.agent.threads() == ["a", "b", "other"]
    preview = await kept.preview()
    assert (preview.threads, preview.bytes) == (1, each)
    await kept.sweep()
    assert (await kept.used())[0] == used - each
    await kept.policy("", max_bytes=2 * each - 1)
    assert await kept.agent.threads() == ["b", "other"]


async def test_the_line_of_bytes_moves_on_with_each_run_and_never_back(kept: Retained) -> None:
    for n, thread in enumerate("abc"):
        await kept.agent.write(put(thread, "1", new={"c": b"x" * 1000}))
        await kept.age(thread, (10 - n) * HOUR)
    used, *_ = await kept.used()
    await kept.policy(max_bytes=used)
    assert await kept.agent.threads() == ["a", "b", "c"]
    await kept.agent.write(put("d", "1", new={"c": b"x" * 1000}))
    assert await kept.agent.threads() == ["a", "b", "c", "d"]
    assert (await kept.preview()).threads == 1, "which tells what the next run does"
    assert await kept.agent.threads() == ["a", "b", "c", "d"], "and does not do it"
    await kept.sweep()
    assert await kept.agent.threads() == ["b", "c", "d"]
    assert (await kept.used())[0] <= used


async def test_bytes_pass_over_what_is_kept_anyway(kept: Retained) -> None:
    for n, thread in enumerate("abc"):
        await kept.agent.write(put(thread, "1", new={"c": b"x" * 1000}))
        await kept.age(thread, (10 - n) * HOUR)
    await kept.pin("a")
    used, *_ = await kept.used()
    await kept.policy(max_bytes=used - 1)
    assert await kept.agent.threads() == ["a", "c"]
    await kept.policy(max_bytes=0)
    assert await kept.agent.threads() == ["a"]


async def test_a_proposed_policy_is_counted_and_leaves_no_trace(kept: Retained) -> None:
    await chain(kept, "t", "1", "2", "3")
    await kept.policy(keep_last=2)
    before = await kept.retention.list_policies(kept.id)
    used, *_ = await kept.used()
    proposed = await kept.preview(Policy(Threads(), keep_last=1))
    assert proposed.checkpoints == 2
    assert (await kept.preview(Policy(Threads("t"), max_bytes=0))).threads == 1
    assert await kept.retention.list_policies(kept.id) == before
    assert await kept.steps("t") == ["2", "3"]
    await kept.policy(keep_last=1)
    await kept.sweep()
    assert used - (await kept.used())[0] == proposed.bytes


async def test_a_tenant_has_one_preview_at_a_time_and_it_ends(
    kept: Retained, monkeypatch: pytest.MonkeyPatch
) -> None:
    await chain(kept, "t", "1")
    previewing = kept.retention.preview(kept.id, None)
    await anext(previewing)
    with pytest.raises(errors.Overloaded):
        await kept.preview()
    await previewing.aclose()
    assert (await kept.preview()).seen == 1
    monkeypatch.setattr(retention, "PREVIEW_SECONDS", 0.0)
    with pytest.raises(errors.DeadlineExceeded):
        await kept.preview()


async def test_who_reads_a_preview_slowly_keeps_no_connection(kept: Retained) -> None:
    await chain(kept, "t", "1")
    async with aclosing(kept.retention.preview(kept.id, None)) as previewing:
        await anext(previewing)
        async with AsyncExitStack() as stack:
            for _ in range(CONNECTIONS):
                await stack.enter_async_context(kept.sessions.transaction(kept.id))


async def test_a_large_backlog_goes_in_bounded_transactions(kept: Retained) -> None:
    ids = [f"{n:04}" for n in range(250)]
    for first in range(0, 250, 50):
        await kept.agent.write(*(put("t", step) for step in ids[first : first + 50]))
    for step in ids[:240:40]:
        await kept.agent.write(
            put("t", "1", ns=f"sub:{step}", metadata={"parents": {"": step}}),
            put("t", "2", "1", ns=f"sub:{step}", metadata={"parents": {"": step}}),
        )
    await kept.policy(keep_last=3)
    ((key,),) = await kept.execute(
        "SELECT thread_key FROM tenure.thread_head WHERE tenant_id = %s", [kept.id]
    )
    removed = []
    while not removed or removed[-1]:
        rows = await kept.sessions.call(
            kept.id,
            "SELECT checkpoints FROM tenure.sweep_thread_1(%s, %s, 0, 100)",
            [kept.id, key],
            operation="sweep_thread",
            writes=True,
        )
        removed.append(rows[0][0])
        assert await kept.steps("t") == ids[-3:]
    assert removed == [100, 100, 59, 0]
    assert await kept.checkpoints() == {("t", "", step) for step in ids[-3:]}
