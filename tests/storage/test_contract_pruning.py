"""The storage contract: what pruning keeps, and what it gives back."""

from __future__ import annotations

from tenure_server.domain import PruneStrategy

from tests.storage.tenant import Tenant, Write, put, put_writes

TASKS = "__pregel_tasks"


async def test_pruning_keeps_the_latest_of_each_namespace(tenant: Tenant) -> None:
    for ns in ["", "child", "other"]:
        await tenant.write(
            *(put("t", step, ns=ns, new={"a": b"value"}, versions={"a": step}) for step in "123")
        )
    await tenant.write(put("untouched", "1"), put("untouched", "2", "1"))
    await tenant.prune("t", "absent")
    assert await tenant.listing() == [
        ("t", "", "3"),
        ("t", "child", "3"),
        ("t", "other", "3"),
        ("untouched", "", "2"),
        ("untouched", "", "1"),
    ]
    assert (await tenant.one("t")).values == {"a": ("3", b"value")}


async def test_what_stays_loses_a_parent_that_goes(tenant: Tenant) -> None:
    await tenant.write(put("t", "1"), put("t", "2", "1"), put("t", "1", "absent", ns="child"))
    await tenant.prune("t")
    assert (await tenant.one("t")).parent is None
    assert (await tenant.one("t", ns="child")).parent == "absent"


async def test_pending_writes_go_and_stay_with_their_checkpoint(tenant: Tenant) -> None:
    await tenant.write(put("t", "1"), put("t", "2", "1"))
    await tenant.write(*(put_writes("t", step, Write(data=step.encode())) for step in "12"))
    await tenant.prune("t")
    assert (await tenant.one("t")).writes == [Write(data=b"2")]
    await tenant.write(put("t", "1"))
    assert (await tenant.one("t", "1")).writes == []


async def test_writes_whose_checkpoint_is_yet_to_come_stay(tenant: Tenant) -> None:
    await tenant.write(put("t", "1"), put("t", "2", "1"), put_writes("t", "3", Write(data=b"early")))
    await tenant.write(put_writes("t", "1", Write(data=b"early too"), ns="child"))
    await tenant.prune("t")
    await tenant.write(put("t", "3", "2"), put("t", "1", ns="child"))
    assert (await tenant.one("t")).writes == [Write(data=b"early")]
    assert (await tenant.one("t", ns="child")).writes == [Write(data=b"early too")]


async def test_the_latest_by_a_slow_clock_is_what_stays(tenant: Tenant) -> None:
    await tenant.write(put("t", "1"), put("t", "5", "1"), put("t", "3", "5"))
    await tenant.prune("t")
    assert await tenant.ids("t") == ["3"]
    assert await tenant.latest("t") == "3"
    await tenant.write(put("t", "4", "3"))
    assert await tenant.latest("t") == "4"


async def test_values_that_nobody_holds_are_given_back(tenant: Tenant) -> None:
    await tenant.write(
        put("t", "1", new={"a": b"dropped", "kept": b"still held"}),
        put("t", "2", "1", versions={"a": "2", "kept": "1"}, new={"a": b"second"}),
    )
    await tenant.prune("t")
    assert (await tenant.one("t")).values == {"a": ("2", b"second"), "kept": ("1", b"still held")}
    await tenant.write(
        put("t", "3", "2", versions={"a": "1", "kept": "1"}, new={"a": b"a freed version is new"})
    )
    assert (await tenant.one("t")).values == {
        "a": ("1", b"a freed version is new"),
        "kept": ("1", b"still held"),
    }


async def test_pruning_again_changes_nothing(tenant: Tenant) -> None:
    await tenant.write(put("t", "1"), put("t", "2", "1", new={"a": b"value"}), put_writes("t", "2", Write()))
    await tenant.prune("t")
    before = await tenant.stored()
    await tenant.prune("t")
    assert await tenant.stored() == before


async def test_a_delta_channel_keeps_the_way_to_its_nearest_value(tenant: Tenant) -> None:
    await tenant.write(
        put("t", "1", new={"x": b"too old"}, versions={"x": "0"}),
        put("t", "2", "1", versions={"x": "1", "y": "1"}, new={"x": b"snapshot of x", "y": b"snapshot of y"}),
        put("t", "3", "2", versions={"x": "2", "y": "2"}, new={"y": b"nearer"}),
        put("t", "4", "3", versions={"x": "3", "y": "3"}, new={"x": None}),
        put("t", "4a", "3"),
        put("t", "5", "4", versions={"x": "3", "y": "3"}, metadata=_counting("x", "y", "z")),
        *(put_writes("t", step, Write("x", step.encode())) for step in ["1", "2", "3", "4", "4a", "5"]),
    )
    # z has no value anywhere: its way goes to the root.
    before = await tenant.history("t", "x", "y", "z")
    await tenant.prune("t")
    assert await tenant.ids("t") == ["5", "4", "3", "2", "1"]
    assert await tenant.history("t", "x", "y", "z") == before

    await tenant.write(put("t", "5", "4", versions={"x": "3", "y": "3"}, metadata=_counting("x", "y")))
    before = await tenant.history("t", "x", "y")
    await tenant.prune("t")
    assert await tenant.ids("t") == ["5", "4", "3", "2"]
    assert (await tenant.one("t", "2")).parent is None
    assert (await tenant.one("t", "2")).values == {
        "x": ("1", b"snapshot of x"),
        "y": ("1", b"snapshot of y"),
    }
    assert (await tenant.one("t", "3")).writes == [Write("x", b"3")]
    assert await tenant.history("t", "x", "y") == before


async def test_a_delta_channel_with_its_own_value_keeps_no_ancestors(tenant: Tenant) -> None:
    await tenant.write(
        put("t", "1", new={"x": b"old"}),
        put("t", "2", "1", versions={"x": "2"}, new={"x": b"own"}, metadata=_counting("x")),
    )
    await tenant.prune("t")
    assert await tenant.ids("t") == ["2"]


async def test_odd_counters_keep_nothing(tenant: Tenant) -> None:
    odd: list[object] = [None, [], ["x"], "x", 5, {}, True]
    for number, counters in enumerate(odd):
        thread = f"t{number}"
        await tenant.write(
            put(thread, "1"), put(thread, "2", "1", metadata={"counters_since_delta_snapshot": counters})
        )
        await tenant.prune(thread)
        assert await tenant.ids(thread) == ["2"]


async def test_a_checkpoint_before_format_4_keeps_the_parent_that_holds_its_sends(tenant: Tenant) -> None:
    sends = Write(TASKS, b"send")
    for thread, v, write, kept in [
        ("old with sends", 3, sends, ["3", "2"]),
        ("old without", 3, Write("other"), ["3"]),
        ("new with sends", 4, sends, ["3"]),
        ("oldest with sends", 1, sends, ["3", "2"]),
    ]:
        await tenant.write(put(thread, "1"), put(thread, "2", "1"), put(thread, "3", "2", format=v))
        await tenant.write(put_writes(thread, "2", write))
        await tenant.prune(thread)
        assert await tenant.ids(thread) == kept
        if len(kept) == 2:
            assert (await tenant.one(thread, "2")).writes == [sends]
            assert (await tenant.one(thread, "2")).parent is None


async def test_the_way_of_a_delta_channel_keeps_sends_of_old_checkpoints_too(tenant: Tenant) -> None:
    await tenant.write(
        put("t", "1"),
        put("t", "2", "1", new={"x": b"snapshot"}, format=3),
        put("t", "3", "2", versions={"x": "2"}, metadata=_counting("x")),
        put_writes("t", "1", Write(TASKS, b"send")),
    )
    await tenant.prune("t")
    assert await tenant.ids("t") == ["3", "2", "1"]


async def test_a_subgraph_goes_with_the_step_that_called_it(tenant: Tenant) -> None:
    await tenant.write(put("t", "1"), put("t", "2", "1"), put("t", "3", "2"))
    called: list[tuple[str, dict[str, object]]] = [
        ("called by one that goes:1", {"parents": {"": "2"}}),
        ("called by the latest:1", {"parents": {"": "3"}}),
        ("called by one that is not stored:1", {"parents": {"": "0"}}),
        ("names none:1", {}),
        ("odd:1", {"parents": "2"}),
        ("odd:2", {"parents": {"": ["2"]}}),
        ("odd:3", {"parents": {"": {"2": "2"}}}),
        ("odd:4", {"parents": {"": 2}}),
        ("without colon", {"parents": {"": "2"}}),
    ]
    for ns, parents in called:
        await tenant.write(put("t", "1", ns=ns, metadata={"parents": {"": "3"}}))
        await tenant.write(put("t", "2", "1", ns=ns, metadata=parents), put_writes("t", "2", Write(), ns=ns))
    await tenant.prune("t")
    kept = {ns for _, ns, _ in await tenant.listing() if ns}
    assert kept == {
        "called by the latest:1",
        "called by one that is not stored:1",
        "names none:1",
        "odd:1",
        "odd:2",
        "odd:3",
        "odd:4",
        "without colon",
    }


async def test_a_subgraph_called_by_a_step_that_a_delta_channel_keeps_stays(tenant: Tenant) -> None:
    await tenant.write(
        put("t", "1"),
        put("t", "2", "1", new={"x": b"snapshot"}),
        put("t", "3", "2", versions={"x": "2"}, metadata=_counting("x")),
        put("t", "1", ns="sub:2", metadata={"parents": {"": "2"}}),
        put("t", "1", ns="sub:1", metadata={"parents": {"": "1"}}),
    )
    await tenant.prune("t")
    assert await tenant.listing() == [("t", "", "3"), ("t", "", "2"), ("t", "sub:2", "1")]


async def test_a_nested_subgraph_is_judged_by_the_root_step(tenant: Tenant) -> None:
    await tenant.write(put("t", "1"), put("t", "2", "1"))
    await tenant.write(put("t", "1", ns="a:1|b:1", metadata={"parents": {"": "1", "a:1": "9"}}))
    await tenant.write(put("t", "1", ns="a:2|b:2", metadata={"parents": {"": "2", "a:2": "9"}}))
    await tenant.prune("t")
    assert await tenant.listing() == [("t", "", "2"), ("t", "a:2|b:2", "1")]


async def test_a_thread_without_a_root_checkpoint_keeps_its_subgraphs(tenant: Tenant) -> None:
    await tenant.write(put("t", "1", ns="a:1", metadata={"parents": {"": "1"}}), put("t", "2", "1", ns="a:1"))
    await tenant.prune("t")
    assert await tenant.listing() == [("t", "a:1", "2")]


async def test_pruning_with_delete_all_deletes_the_threads(tenant: Tenant) -> None:
    await tenant.write(*(put(thread, "1", new={"a": b"value"}) for thread in "tuv"))
    await tenant.write(put_writes("t", "2", Write()))
    await tenant.prune("t", "absent", "v", strategy=PruneStrategy.DELETE_ALL)
    assert await tenant.threads() == ["u"]
    await tenant.write(put("t", "2", new={"a": b"another life"}))
    found = await tenant.one("t")
    assert (found.values, found.writes) == ({"a": ("1", b"another life")}, [])


async def test_many_threads_at_once(tenant: Tenant) -> None:
    threads = [f"t{number:02}" for number in range(30)]
    for thread in threads:
        await tenant.write(put(thread, "1"), put(thread, "2", "1"))
    await tenant.prune(*threads)
    assert await tenant.listing() == [(thread, "", "2") for thread in threads]


def _counting(*channels: str) -> dict[str, object]:
    return {"counters_since_delta_snapshot": {channel: [1, 1] for channel in channels}}
