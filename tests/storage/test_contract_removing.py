"""The storage contract: delete, delete_for_runs and copy of threads, each with one effect and one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tenure_server import errors
from tenure_server.domain import Operation, PruneStrategy

from tests.storage.tenant import Stored, Tenant, Write, operation, put, put_writes


async def test_a_deleted_thread_is_gone_with_everything_in_it(tenant: Tenant) -> None:
    await tenant.write(
        put("t", "1", new={"a": b"value"}),
        put("t", "5", "1"),
        put("t", "3", "5", new={"a": b"override"}),
        put("t", "1", ns="child:1"),
        put_writes("t", "1", Write()),
        put_writes("t", "9", Write(data=b"early")),
        put("u", "1", new={"a": b"kept"}),
    )
    await tenant.delete("t")
    assert await tenant.listing() == [("u", "", "1")]
    assert await tenant.threads() == ["u"]
    assert await tenant.get("t") is None
    assert await tenant.get("t", "1") is None
    assert await tenant.get("t", "1", "child:1") is None
    assert (await tenant.one("u")).values == {"a": ("1", b"kept")}


async def test_a_thread_made_again_has_nothing_of_its_former_life(tenant: Tenant) -> None:
    await tenant.write(
        put("t", "1", new={"a": b"former"}),
        put("t", "5", "1"),
        put("t", "3", "5"),
        put_writes("t", "1", Write()),
    )
    await tenant.delete("t")
    await tenant.write(put("t", "1", versions={"b": "1"}, new={"a": b"new life"}))
    assert await tenant.one("t") == Stored(
        "t", "", "1", None, b"body of 1", "{}", {"a": ("1", b"new life")}, []
    )


async def test_deleting_an_absent_thread_is_fine(tenant: Tenant) -> None:
    await tenant.delete("absent")
    assert await tenant.threads() == []


async def test_deleting_a_thread_that_has_only_writes(tenant: Tenant) -> None:
    await tenant.write(put_writes("t", "1", Write(data=b"former")))
    await tenant.delete("t")
    await tenant.write(put("t", "1"))
    assert (await tenant.one("t")).writes == []


async def test_what_runs_made_goes_from_every_thread(tenant: Tenant) -> None:
    await tenant.write(
        put("t", "1", metadata={"run_id": "a"}, new={"x": b"value"}),
        put("t", "2", "1", metadata={"run_id": "b"}, versions={"x": "1"}),
        put("t", "3", "2", metadata={"run_id": "c"}),
        put("t", "1", ns="child:1", metadata={"run_id": "b"}),
        put("u", "1", metadata={"run_id": "a"}),
        put("v", "1", metadata={"run_id": 5}),
        put("w", "1"),
        *(put_writes("t", step, Write(data=step.encode())) for step in "123"),
    )
    await tenant.delete_for_runs("b", "a", "absent", "5")
    assert await tenant.listing() == [("t", "", "3"), ("v", "", "1"), ("w", "", "1")]
    found = await tenant.one("t")
    assert (found.parent, found.writes) == (None, [Write(data=b"3")])
    await tenant.write(put("t", "2"))
    assert (await tenant.one("t", "2")).writes == [], "writes go with their checkpoint"


async def test_parents_that_stay_are_kept_when_runs_go(tenant: Tenant) -> None:
    await tenant.write(
        put("t", "1"),
        put("t", "2", "1", metadata={"run_id": "a"}),
        put("t", "3", "1"),
        put("t", "4", "absent"),
    )
    await tenant.delete_for_runs("a")
    assert [(found.id, found.parent) for found in await tenant.stored()] == [
        ("4", "absent"),
        ("3", "1"),
        ("1", None),
    ]


async def test_the_latest_moves_back_when_its_run_goes(tenant: Tenant) -> None:
    run = {"run_id": "a"}
    await tenant.write(
        put("t", "1"), put("t", "2", "1", metadata=run), put("u", "5"), put("u", "3", "5", metadata=run)
    )
    await tenant.delete_for_runs("a")
    assert await tenant.latest("t") == "1"
    assert await tenant.latest("u") == "5"


async def test_values_that_others_hold_stay_when_runs_go(tenant: Tenant) -> None:
    await tenant.write(
        put("t", "1", metadata={"run_id": "a"}, new={"shared": b"shared value", "own": b"own value"}),
        put("t", "2", "1", versions={"shared": "1"}),
    )
    await tenant.delete_for_runs("a")
    assert (await tenant.one("t")).values == {"shared": ("1", b"shared value")}
    await tenant.write(put("t", "3", "2", new={"own": b"new value of a freed version"}))
    assert (await tenant.one("t")).values == {"own": ("1", b"new value of a freed version")}


async def test_a_run_that_a_delta_channel_needs_is_refused_and_others_are_done(tenant: Tenant) -> None:
    await tenant.write(
        put("needs", "1", metadata={"run_id": "a"}, new={"x": b"snapshot"}),
        put("needs", "2", "1", versions={"x": "2"}, metadata=_counting("x", run_id="b")),
        put("own value", "1", metadata={"run_id": "a"}, new={"x": b"snapshot"}),
        put("own value", "2", "1", versions={"x": "2"}, new={"x": b"own"}, metadata=_counting("x")),
        put("nearer", "0", metadata={"run_id": "a"}, new={"x": b"snapshot"}),
        put("nearer", "1", "0", versions={"x": "1.5"}, new={"x": b"nearer"}),
        put("nearer", "2", "1", versions={"x": "2"}, metadata=_counting("x")),
        put("goes too", "1", metadata={"run_id": "a"}),
        put("goes too", "2", "1", versions={"x": "2"}, metadata=_counting("x", run_id="a")),
        put_writes("needs", "1", Write(data=b"delta")),
    )
    before = await tenant.stored(thread_id="needs")
    by = operation()
    for _ in range(2):
        with pytest.raises(errors.DeltaChannelInUse) as caught:
            await tenant.delete_for_runs("a", by=by)
        assert caught.value.metadata == {"threads": "1"}
    assert await tenant.stored(thread_id="needs") == before
    assert await tenant.ids("own value") == ["2"]
    assert await tenant.ids("nearer") == ["2", "1"]
    assert await tenant.ids("goes too") == []
    await tenant.delete_for_runs("a", "b")
    assert await tenant.ids("needs") == []


async def test_a_delta_channel_without_a_value_needs_the_way_to_the_root(tenant: Tenant) -> None:
    await tenant.write(
        put("t", "1", metadata={"run_id": "a"}),
        put("t", "2", "1"),
        put("t", "3", "2", versions={"x": "2"}, metadata=_counting("x")),
    )
    with pytest.raises(errors.DeltaChannelInUse):
        await tenant.delete_for_runs("a")
    assert await tenant.ids("t") == ["3", "2", "1"]


async def test_a_copy_has_everything_and_a_life_of_its_own(tenant: Tenant) -> None:
    await tenant.write(
        put("t", "1", new={"a": b"value a", "empty": None}, metadata={"n": 1}),
        put("t", "5", "1", versions={"a": "1"}),
        put("t", "3", "5", versions={"a": "2"}, new={"a": b"second"}),
        put("t", "1", ns="child:1", new={"a": b"child's"}),
        put_writes("t", "3", Write(data=b"pending"), Write("__resume__", idx=-4)),
        put_writes("t", "7", Write(data=b"early")),
    )
    await tenant.copy("t", "copy")
    source, copied = await tenant.stored(thread_id="t"), await tenant.stored(thread_id="copy")
    assert [_of("t", found) for found in copied] == source
    assert await tenant.latest("copy") == "3", "the override is copied as well"
    await tenant.write(put("copy", "7", "3"))
    assert (await tenant.one("copy")).writes == [Write(data=b"early")]
    assert await tenant.latest("t") == "3"

    await tenant.delete("t")
    assert (await tenant.one("copy", "3")).values == {"a": ("2", b"second")}
    assert (await tenant.one("copy", "1", "child:1")).values == {"a": ("1", b"child's")}


async def test_a_copy_does_not_follow_its_source(tenant: Tenant) -> None:
    await tenant.write(put("t", "1", new={"a": b"value"}))
    await tenant.copy("t", "copy")
    await tenant.write(put("t", "2", "1"), put_writes("t", "1", Write()), put("t", "1", metadata={"n": 1}))
    assert await tenant.stored(thread_id="copy") == [
        Stored("copy", "", "1", None, b"body of 1", "{}", {"a": ("1", b"value")}, [])
    ]
    await tenant.delete("copy")
    assert await tenant.ids("t") == ["2", "1"]


async def test_what_cannot_be_copied(tenant: Tenant) -> None:
    await tenant.write(
        put("t", "1"), put("u", "1", body=b"untouched"), put_writes("only writes", "1", Write())
    )
    with pytest.raises(errors.ThreadNotFound):
        await tenant.copy("absent", "new")
    with pytest.raises(errors.ThreadExists):
        await tenant.copy("t", "u")
    with pytest.raises(errors.ThreadExists):
        await tenant.copy("t", "only writes")
    assert await tenant.threads() == ["only writes", "t", "u"]
    assert (await tenant.one("u")).body == b"untouched"


async def test_a_refusal_is_the_answer_of_its_operation_for_good(tenant: Tenant) -> None:
    absent, exists, needed = operation(), operation(), operation()
    await tenant.write(
        put("t", "1", metadata={"run_id": "a"}),
        put("t", "2", "1", metadata=_counting("x", run_id="b")),
        put("u", "1"),
    )
    for _ in range(2):
        with pytest.raises(errors.ThreadNotFound):
            await tenant.copy("later", "new", absent)
        with pytest.raises(errors.ThreadExists):
            await tenant.copy("t", "u", exists)
        with pytest.raises(errors.DeltaChannelInUse):
            await tenant.delete_for_runs("a", by=needed)
        await tenant.write(put("later", "1"))
        await tenant.delete_for_runs("b")
        await tenant.delete("u")
    assert await tenant.threads() == ["later", "t"]
    assert await tenant.ids("t") == ["1"]


async def test_only_one_of_concurrent_copies_makes_the_target(tenant: Tenant) -> None:
    await tenant.write(*(put(f"t{number}", "1", body=b"%d" % number) for number in range(4)))
    outcomes = await asyncio.gather(
        *(tenant.copy(f"t{number}", "target") for number in range(4)), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType"] + ["ThreadExists"] * 3
    assert (await tenant.one("target")).body == b"%d" % outcomes.index(None)


Removal = Callable[[Tenant, Operation], Awaitable[None]]
REMOVALS: dict[str, Removal] = {
    "delete_thread": lambda tenant, by: tenant.delete("t", by),
    "delete_for_runs": lambda tenant, by: tenant.delete_for_runs("run", by=by),
    "copy_thread": lambda tenant, by: tenant.copy("t", "copy", by),
    "prune_threads keep": lambda tenant, by: tenant.prune("t", by=by),
    "prune_threads delete": lambda tenant, by: tenant.prune("t", strategy=PruneStrategy.DELETE_ALL, by=by),
}
removals = pytest.mark.parametrize("removal", REMOVALS.values(), ids=REMOVALS)


@removals
async def test_an_operation_has_one_effect_however_often_it_comes(tenant: Tenant, removal: Removal) -> None:
    await _two_checkpoints(tenant)
    by = operation()
    await removal(tenant, by)
    await tenant.delete("t")
    await tenant.delete("copy")
    await _two_checkpoints(tenant)
    before = await tenant.stored()
    await removal(tenant, by)
    assert await tenant.stored() == before


@removals
async def test_concurrent_attempts_of_one_operation_all_succeed(tenant: Tenant, removal: Removal) -> None:
    await _two_checkpoints(tenant)
    by = operation()
    await asyncio.gather(*(removal(tenant, by) for _ in range(4)))


@removals
async def test_an_operation_id_that_came_with_other_content_is_refused(
    tenant: Tenant, removal: Removal
) -> None:
    by = operation()
    await tenant.delete("another", by)
    await _two_checkpoints(tenant)
    before = await tenant.stored()
    with pytest.raises(errors.OperationMismatch):
        await removal(tenant, operation(id=by.operation_id, digest=b"e" * 32))
    assert await tenant.stored() == before


@removals
async def test_operation_ids_belong_to_their_tenant(
    tenant: Tenant, stranger: Tenant, removal: Removal
) -> None:
    by = operation()
    await stranger.delete("t", operation(id=by.operation_id, digest=b"e" * 32))
    await _two_checkpoints(tenant)
    before = await tenant.stored()
    await removal(tenant, by)
    assert await tenant.stored() != before


@removals
async def test_an_operation_whose_time_is_up_is_not_started(tenant: Tenant, removal: Removal) -> None:
    await _two_checkpoints(tenant)
    before = await tenant.stored()
    by = operation(-1)
    with pytest.raises(errors.DeadlineExceeded):
        await removal(tenant, by)
    assert await tenant.stored() == before
    await removal(tenant, operation(id=by.operation_id, digest=b"e" * 32))
    assert await tenant.stored() != before, "its id was not used up"


async def _two_checkpoints(tenant: Tenant) -> None:
    await tenant.write(put("t", "1", metadata={"run_id": "run"}), put("t", "2", "1"))


def _counting(*channels: str, **more: object) -> dict[str, object]:
    """Return the metadata of a checkpoint with DeltaChannels, as LangGraph writes it."""
    return {"counters_since_delta_snapshot": {channel: [1, 1] for channel in channels}, **more}


def _of(thread: str, found: Stored) -> Stored:
    return Stored(**{**found.__dict__, "thread": thread})
