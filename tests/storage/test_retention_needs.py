"""What stays because something that stays needs it: a DeltaChannel, a subgraph, sends of an old format."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.harness.databases import Database
from tests.storage.retained import DAY, Retained, opened
from tests.storage.tenant import Write, put, put_writes

DELTA = {"counters_since_delta_snapshot": {"d": [1, 1]}}


@pytest.fixture
async def kept(contract_database: Database) -> AsyncIterator[Retained]:
    """A new tenant."""
    async with opened(contract_database) as tenant:
        yield tenant


async def test_a_delta_channel_keeps_the_way_to_its_nearest_value(kept: Retained) -> None:
    await kept.agent.write(
        put("t", "1"),
        put("t", "2", "1", new={"d": b"snapshot"}, versions={"d": "2"}),
        put("t", "3", "2", metadata=DELTA),
        put("t", "4", "3", metadata=DELTA),
    )
    await kept.agent.write(*(put_writes("t", step, Write("d", step.encode())) for step in "1234"))
    before = await kept.agent.history("t", "d")
    for rules in [{"keep_last": 1}, {"max_age": DAY}]:
        await kept.age("t", 2 * DAY, "1", "2", "3")
        await kept.policy(**rules)
        assert await kept.steps("t") == ["2", "3", "4"], rules
    await kept.sweep()
    assert await kept.agent.history("t", "d") == before
    assert len(await kept.checkpoints()) == 3


async def test_what_an_idle_thread_with_a_pin_is_reduced_to_can_still_be_rebuilt(kept: Retained) -> None:
    await kept.agent.write(
        put("t", "1", new={"d": b"snapshot"}),
        put("t", "2", "1", metadata=DELTA),
        put("t", "3", "2"),
        put("t", "4", "3"),
    )
    await kept.agent.write(put_writes("t", "1", Write("d")))
    await kept.pin("t", "2")
    before = await kept.agent.history("t", "d", id="2")
    await kept.age("t", 2 * DAY)
    await kept.policy(max_idle=DAY)
    await kept.sweep()
    assert await kept.steps("t") == ["1", "2", "4"]
    assert await kept.agent.history("t", "d", id="2") == before


async def test_a_subgraph_goes_with_the_checkpoint_that_called_it_and_not_before(kept: Retained) -> None:
    await kept.agent.write(put("t", "1"), put("t", "2", "1"), put("t", "3", "2"))
    for caller in "123":
        of = {"parents": {"": caller}}
        await kept.agent.write(
            put("t", "1", ns=f"sub:{caller}", metadata=of),
            put("t", "2", "1", ns=f"sub:{caller}", metadata=of),
            put("t", "1", ns=f"sub:{caller}|deeper:1", metadata=of),
        )
    await kept.agent.write(put("t", "1", ns="sub:of another", metadata={"parents": {"": "absent"}}))
    await kept.policy(keep_last=2)
    left = {
        *(("t", "", step) for step in "23"),
        *(("t", f"sub:{caller}", step) for caller in "23" for step in "12"),
        *(("t", f"sub:{caller}|deeper:1", "1") for caller in "23"),
        ("t", "sub:of another", "1"),
    }
    assert set(await kept.agent.listing()) == left
    await kept.sweep()
    assert await kept.checkpoints() == left


async def test_a_pinned_checkpoint_of_a_subgraph_outlives_the_one_that_called_it(kept: Retained) -> None:
    of = {"parents": {"": "1"}}
    await kept.agent.write(put("t", "1"), put("t", "2", "1"))
    await kept.agent.write(*(put("t", step, ns="sub:1", metadata=of) for step in "123"))
    await kept.pin("t", "1", "sub:1")
    await kept.policy(keep_last=1)
    await kept.sweep()
    assert await kept.checkpoints() == {("t", "", "2"), ("t", "sub:1", "1"), ("t", "sub:1", "3")}


async def test_a_subgraph_at_work_keeps_the_rows_of_its_caller(kept: Retained) -> None:
    await kept.agent.write(put("t", "1"), put("t", "2", "1"))
    await kept.age("t", DAY)
    await kept.agent.write(put("t", "1", ns="sub:1", metadata={"parents": {"": "1"}}))
    await kept.policy(keep_last=1)
    await kept.sweep(settle=300)
    assert await kept.steps("t", "sub:1") == []
    assert {("t", "", "1"), ("t", "sub:1", "1")} <= await kept.checkpoints()
    await kept.age("t", DAY)
    await kept.age_policies(DAY)
    await kept.sweep(settle=300)
    assert await kept.checkpoints() == {("t", "", "2")}


async def test_the_parent_with_the_sends_of_an_old_format_stays(kept: Retained) -> None:
    await kept.agent.write(put("t", "1"), put("t", "2", "1"), put("t", "3", "2", format=3))
    await kept.agent.write(*(put_writes("t", step, Write("__pregel_tasks")) for step in "12"))
    await kept.policy(keep_last=1)
    assert await kept.steps("t") == ["2", "3"]
    await kept.sweep()
    assert await kept.checkpoints() == {("t", "", "2"), ("t", "", "3")}


async def test_values_that_what_stays_holds_stay_and_others_go(kept: Retained) -> None:
    await kept.agent.write(
        put("t", "1", new={"a": b"dropped", "kept": b"still held"}),
        put("t", "2", "1", versions={"a": "2", "kept": "1"}, new={"a": b"second"}),
    )
    await kept.policy(keep_last=1)
    await kept.sweep()
    assert (await kept.agent.one("t")).values == {"a": ("2", b"second"), "kept": ("1", b"still held")}
    assert (await kept.rows())["channel_value"] == 2
