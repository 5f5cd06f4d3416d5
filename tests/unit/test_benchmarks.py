"""The benchmarks cover what they have to, and their arithmetic is right. Nothing is measured here."""

from __future__ import annotations

import asyncio
import zlib
from contextlib import aclosing
from dataclasses import replace
from operator import mul
from typing import Any

import pytest
from click.testing import CliRunner
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore

from benchmarks.__main__ import main
from benchmarks.conversations import PROSE_WORDS, config, text
from benchmarks.results import Results
from benchmarks.stores import Call, perform
from benchmarks.systems import SYSTEMS
from benchmarks.targets import targets
from benchmarks.workloads import workloads
from benchmarks.workloads.items import Gets, Puts
from benchmarks.workloads.load import arrivals
from benchmarks.workloads.long import Long
from benchmarks.workloads.sweep import Sweep
from tests.unit.benchmark_support import by_label, results

QUICK = pytest.mark.parametrize("quick", [False, True], ids=["full", "quick"])


def test_every_kind_of_work_is_measured() -> None:
    assert {workload.part for workload in workloads(quick=False).values()} == set("abcdefghijklm")


@QUICK
def test_workloads_name_systems_that_exist_and_metrics_that_differ(quick: bool) -> None:
    for workload in workloads(quick=quick).values():
        assert set(workload.systems) <= SYSTEMS.keys()
        assert "postgres" in workload.systems or len(workload.systems) == 1, "ratios need the reference"
        names = [metric.name for metric in workload.metrics]
        assert len(set(names)) == len(names) > 0


def test_quick_workloads_are_among_the_full_ones() -> None:
    assert workloads(quick=True).keys() <= workloads(quick=False).keys()


@QUICK
def test_what_targets_look_at_is_measured(quick: bool) -> None:
    """With one figure for every metric of every system no target is left without one."""
    known = workloads(quick=quick)
    full = results(
        *(
            (workload.name, system, metric.name, 1.0, 1.0)
            for workload in known.values()
            for metric in workload.metrics
            for system in workload.systems
        )
    )
    assert {goal.label: goal.verdict for goal in targets(full, known) if goal.measured is None} == {}


def test_a_long_conversation_is_weighed_with_two_texts_and_judged_with_that_of_the_targets() -> None:
    known = workloads(quick=False)
    hard, prose = known["long"], known["long-prose"]
    assert isinstance(hard, Long)
    assert isinstance(prose, Long)
    assert (hard.prose, prose.prose) == (False, True)
    assert (hard.turns, hard.tail, hard.fresh) == (prose.turns, prose.tail, prose.fresh)
    assert {"postgres", "tenure"} <= set(prose.systems)
    found = results(
        ("long-prose", "postgres", "stored", 100.0, None), ("long-prose", "tenure", "stored", 1, None)
    )
    assert {goal.verdict for goal in by_label(found).values()} == {"not measured"}


def test_prose_compresses_and_random_letters_hardly() -> None:
    hard, prose = (
        len(zlib.compress(made)) / len(made)
        for made in (text("seed", 5000).encode(), text("seed", 5000, PROSE_WORDS).encode())
    )
    assert prose < 0.8 * hard


@pytest.mark.parametrize(("beside", "verdict"), [(2.0, "ok"), (2.1, "MISSED")])
def test_a_flood_may_double_what_another_tenant_waits_and_no_more(beside: float, verdict: str) -> None:
    found = results(("fair", "tenure", "p99 beside the flood, of that alone", beside, None))
    label = "quiet tenant's p99 beside a flood of 20 times its share, of that alone"
    assert by_label(found)[label].verdict == verdict


@pytest.mark.parametrize(("work", "unit"), [("store-put-32", "puts/s"), ("store-get-32", "gets/s")])
@pytest.mark.parametrize("shape", ["8 processes x 4", "1 process x 32"])
@pytest.mark.parametrize(("rate", "verdict"), [(200.0, "ok"), (199.0, "MISSED")])
def test_stores_are_judged_in_both_shapes_each_colour_beside_its_own(
    work: str, unit: str, shape: str, rate: float, verdict: str
) -> None:
    metric = f"{shape}, {unit}"
    found = results(
        (work, "postgres", metric, 100.0, None),
        (work, "tenure", metric, rate, None),
        (work, "postgres-sync", metric, 10.0, None),
        (work, "tenure-sync", metric, rate / 10, None),
    )
    assert by_label(found)[f"store, {metric}, of AsyncPostgresStore's"].verdict == verdict
    assert by_label(found)[f"store, {metric}, of PostgresStore's"].verdict == verdict


@pytest.mark.parametrize("quick", [False, True])
def test_half_of_the_puts_are_of_new_keys_and_no_client_puts_what_another_does(quick: bool) -> None:
    puts = workloads(quick=quick)["store-put-32"]
    assert isinstance(puts, Puts)
    made = [puts.calls(f"client-{number}", 60) for number in range(2)]
    (there, measured), (_, others) = (
        [[call.arguments[:2] for call in part] for part in each] for each in made
    )
    assert len(measured) == 60
    new = [place for place in measured if place not in there]
    assert len(new) == len(set(new))
    assert abs(2 * len(new) - len(measured)) <= puts.users
    assert not set(measured) & set(others)


@pytest.mark.parametrize("blocking", [False, True], ids=["async", "sync"])
async def test_gets_find_what_was_put_in_both_colours(blocking: bool) -> None:
    gets = Gets(name="gets", part="k", title="", operations=320, everyone=3, keys=2)
    store = InMemoryStore()
    phases = gets.work(store, blocking=blocking, prefix="0", tasks=4, fill=True)
    async with aclosing(phases):
        assert await anext(phases) is None
        work = await anext(phases)
    assert work is not None
    assert work.operations == len(work.latencies) == 4 * (320 // 32)
    assert len(store.search(("users",), limit=100)) == 6


async def test_calls_of_one_client_are_answered_in_order() -> None:
    store = InMemoryStore()
    put, get = Call("put", (("a",), "k", {"n": 1})), Call("get", (("a",), "k"))
    work, (first, second) = await perform(store, [[get, put, get], [get]], blocking=False)
    assert first[0] is None
    assert first[2].value == {"n": 1}
    assert (work.operations, len(second)) == (4, 1)


def test_exact_answers_are_the_nearest_of_the_tenant_that_match() -> None:
    pytest.importorskip("numpy", reason="needs the extra `bench`")
    from benchmarks.collection import collection

    items = collection(300, 2)
    assert len(items.vectors) == 300 + 2 * 1000
    # By Python's own arithmetic, which has nothing in common with numpy's.
    vectors = [[float(number) for number in vector] for vector in items.vectors]
    for small, by in ((False, ""), (False, "kind"), (True, "part")):
        for query in items.queries(small=small, count=2, limit=10, by=by, seed=3):
            mine = [number for number in range(len(vectors)) if items.tenants[number] == query.tenant]
            if query.kind:
                mine = [number for number in mine if f"kind-{number // 10 % 10}" == query.kind]
            if query.part:
                mine = [number for number in mine if f"part-{number % 10}" == query.part]
            assert len(mine) in {30, 100, 300}
            mine.sort(key=lambda number: -sum(map(mul, vectors[number], query.vector)))
            assert query.nearest == {str(number) for number in mine[:10]}


class Slow(InMemorySaver):
    """Lets others go on before it puts, as one behind a network does."""

    async def aput(self, *arguments: Any) -> RunnableConfig:
        for _ in range(20):
            await asyncio.sleep(0)
        return await super().aput(*arguments)


async def test_every_write_beside_the_sweeper_is_done_and_in_its_threads_order() -> None:
    """Dropping one whose thread is busy would hide what the sweeper makes writers wait for."""
    known = workloads(quick=False)["sweep"]
    assert isinstance(known, Sweep)
    hurried = replace(known, rate=100_000, seconds=0.002, lead=0.0)
    expected = len([due async for due in arrivals(hurried.rate, hurried.seconds)])
    saver = Slow()
    phases = hurried.work(saver, blocking=False, role="write", prefix="w")
    async with aclosing(phases):
        assert await anext(phases) is None
        work = await anext(phases)
    assert work is not None
    assert work.operations == len(work.latencies) == expected > 100
    stored = 0
    for thread in range(known.threads):
        steps = list(saver.list(config(f"w-{thread}")))
        parents = [
            step.parent_config["configurable"]["checkpoint_id"] for step in steps if step.parent_config
        ]
        assert parents == [step.checkpoint["id"] for step in steps[1:]]
        stored += len(steps)
    assert stored == known.threads * known.keep + expected, "so that the first one has something expire"


async def test_arrivals_are_the_same_each_time() -> None:
    runs = [[due async for due in arrivals(1000, 0.05)] for _ in range(2)]
    shorter = min(map(len, runs))
    assert shorter > 10
    first, second = ([due - run[0] for due in run[:shorter]] for run in runs)
    assert first == pytest.approx(second, abs=1e-6)


def test_what_is_too_small_for_the_targets_is_not_judged_by_them() -> None:
    quick = workloads(quick=True)
    assert not any("turns" in goal.label and "stored" in goal.label for goal in targets(Results(), quick))
    judged = quick | {"long": replace(quick["long"], judged=True)}
    assert any("stored" in goal.label for goal in targets(Results(), judged))


def test_workloads_and_systems_are_chosen_by_lists_that_may_be_repeated() -> None:
    chosen = ["--list", "--only", "fair, long", "--only", "chat-1", "--systems", "tenure,postgres"]
    told = CliRunner().invoke(main, chosen)
    assert told.exit_code == 0
    lines = [line.split() for line in told.output.splitlines() if line]
    assert [line[1] for line in lines if line[0].startswith("(")] == ["chat-1", "long", "fair"]
    assert [line[0] for line in lines if not line[0].startswith("(")] == ["systems:", "postgres", "tenure"]


@pytest.mark.parametrize("option", ["--only", "--systems"])
def test_a_name_that_does_not_exist_is_refused_with_those_that_do(option: str) -> None:
    told = CliRunner().invoke(main, [option, "long,lang"])
    assert told.exit_code == 2
    known = workloads(quick=False) if option == "--only" else SYSTEMS
    assert f"there are {', '.join(known)}" in " ".join(told.output.split())
