"""The benchmarks cover what they have to, and their arithmetic is right. Nothing is measured here."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from operator import mul

import pytest
from click.testing import CliRunner
from langgraph.store.memory import InMemoryStore

from benchmarks.__main__ import main
from benchmarks.conversations import PROSE_WORDS, text
from benchmarks.cpu import available, cpu_seconds
from benchmarks.report import multiple, number, report, table
from benchmarks.results import Results, Sample
from benchmarks.stats import percentile, ratio, summarise
from benchmarks.stores import Call, perform
from benchmarks.systems import SYSTEMS
from benchmarks.targets import Target, targets
from benchmarks.workloads import workloads
from benchmarks.workloads.base import Measure
from benchmarks.workloads.items import Gets, Puts
from benchmarks.workloads.load import arrivals
from benchmarks.workloads.long import Long

QUICK = pytest.mark.parametrize("quick", [False, True], ids=["full", "quick"])


def results(*samples: tuple[str, str, str, float, float | None]) -> Results:
    """Make results out of (workload, system, metric, value, CPU ms)."""
    return Results(
        [
            Sample(workload, system, turn, [Measure(metric, value, cpu)])
            for turn, (workload, system, metric, value, cpu) in enumerate(samples)
        ]
    )


def by_label(found: Results) -> dict[str, Target]:
    return {goal.label.strip(): goal for goal in targets(found, workloads(quick=False))}


def test_every_kind_of_work_is_measured() -> None:
    assert {workload.part for workload in workloads(quick=False).values()} == set("abcdefghijkl")


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
@pytest.mark.parametrize(("rate", "verdict"), [(200.0, "ok"), (199.0, "MISSED")])
def test_stores_are_judged_with_many_services_that_have_one_each(
    work: str, unit: str, rate: float, verdict: str
) -> None:
    spread, together = f"8 processes x 4, {unit}", f"1 process x 32, {unit}"
    found = results(
        (work, "postgres", spread, 100.0, None),
        (work, "tenure", spread, rate, None),
        (work, "postgres", together, 100.0, None),
        (work, "tenure", together, 1.0, None),
    )
    assert by_label(found)[f"store, {spread}"].verdict == verdict


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


def test_a_summary_is_the_median_and_the_extremes() -> None:
    summary = summarise([3.0, 1.0, 10.0])
    assert summary is not None
    assert (summary.median, summary.low, summary.high, summary.rounds) == (3.0, 1.0, 10.0, 3)
    assert summarise([]) is None


@pytest.mark.parametrize(("percent", "expected"), [(50, 50), (99, 99), (100, 100), (0, 1), (99.5, 100)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, expected: float) -> None:
    assert percentile([float(value) for value in range(100, 0, -1)], percent) == expected


def test_a_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_a_ratio_needs_both_sides() -> None:
    assert ratio(3.0, 2.0) == 1.5
    assert ratio(None, 2.0) is ratio(3.0, None) is ratio(3.0, 0.0) is None


def test_ratios_compare_medians_of_the_same_run() -> None:
    found = results(
        *(("chat-32", "postgres", "turns/s", value, 6.0) for value in (90.0, 100.0, 500.0)),
        *(("chat-32", "tenure", "turns/s", value, 3.0) for value in (10.0, 300.0, 310.0)),
    )
    assert found.ratio("chat-32", "turns/s", "tenure") == 3.0
    assert found.ratio("chat-32", "turns/s", "tenure", cpu=True) == 0.5
    assert found.ratio("chat-32", "turns/s", "tenure", to="memory") is None


@pytest.mark.parametrize(
    ("rate", "verdict"), [(400.0, "ok"), (399.0, "floor met, goal missed"), (249.0, "MISSED")]
)
def test_more_turns_reach_a_target(rate: float, verdict: str) -> None:
    found = results(
        ("chat-32", "postgres", "turns/s", 100.0, None), ("chat-32", "tenure", "turns/s", rate, None)
    )
    assert by_label(found)["32 conversations, turns/s"].verdict == verdict


@pytest.mark.parametrize(
    ("stored", "verdict"), [(2.0, "ok"), (2.1, "floor met, goal missed"), (4.1, "MISSED")]
)
def test_fewer_bytes_reach_a_target(stored: float, verdict: str) -> None:
    found = results(("long", "postgres", "stored", 100.0, None), ("long", "tenure", "stored", stored, None))
    assert by_label(found)["1 conversation of 400 turns: stored"].verdict == verdict


def test_what_was_not_measured_is_no_success() -> None:
    assert {goal.verdict for goal in by_label(Results()).values()} == {"not measured"}


def test_a_goal_without_a_floor_is_missed_but_not_below_the_floor() -> None:
    assert Target("x", 120.0, None, 110.0).verdict == "goal missed"


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.0199, "1/50"), (0.5, "0.50x"), (2.534, "2.53x"), (12.34, "12.3x")]
)
def test_ratios_read_as_people_say_them(value: float | None, text: str) -> None:
    assert multiple(value) == text


def test_a_round_that_was_saturated_is_not_left_out_of_the_median() -> None:
    metric = "p99 at 25/s"
    found = results(
        *(("load", "tenure", metric, value, None) for value in (20.0, math.inf)),
        ("load", "postgres", metric, 30.0, None),
    )
    assert found.ratio("load", metric, "tenure") is None
    known = [workloads(quick=False)["load"]]
    lines = [" ".join(line.split()) for line in report(found, known, [], {}, quick=False).splitlines()]
    assert "Tenure saturated 20.0 - saturated -" in lines


def test_what_is_measured_with_one_system_only_is_one_table_with_its_note() -> None:
    found = results(
        ("fair", "tenure", "p99 alone", 10.0, None),
        ("fair", "tenure", "p99 beside the flood", 15.0, None),
        ("fair", "tenure", "flood", 800.0, 1.25),
    )
    known = workloads(quick=False)
    lines = report(found, [known["fair"], known["soak"]], [], {}, quick=False).splitlines()
    words = [" ".join(line.split()) for line in lines]
    assert words[:3] == [
        f"(j) fair: {known['fair'].title}",
        "",
        "Tenure median min - max CPU ms/operation",
    ]
    assert words[4:7] == [
        "p99 alone 10.0 1 round ms",
        "p99 beside the flood 15.0 1 round ms",
        "flood 800 1 round operations/s 1.25",
    ]
    assert " ".join(words[8:]) == known["fair"].note, "and nothing of what was not tried"


def test_tables_about_long_term_memory_name_stores() -> None:
    metric = "8 processes x 4, puts/s"
    found = results(
        ("store-put-32", "postgres", metric, 100.0, None), ("store-put-32", "tenure", metric, 250.0, None)
    )
    known = workloads(quick=False)["store-put-32"]
    text = report(found, [known], [], {}, quick=False)
    assert "AsyncPostgresStore (pool 16)" in text
    assert "Saver" not in text
    assert {row["label"] for row in found.rows([known])} == {"AsyncPostgresStore (pool 16)", "Tenure"}


def test_numbers_have_about_three_digits() -> None:
    assert [number(value) for value in (0, 0.1234, 12.34, 1234.5)] == ["0", "0.12", "12.3", "1,234"]


def test_columns_line_up() -> None:
    assert table([["a", "b"], ["long", "1"], ["x", "100"]], indent=0).splitlines() == [
        "a       b",
        "---------",
        "long    1",
        "x     100",
    ]


def test_the_report_shows_figures_failures_and_what_was_left_out() -> None:
    found = results(
        ("chat-1", "postgres", "p50", 10.0, 5.0),
        ("chat-1", "tenure", "p50", 7.0, 2.5),
        ("chat-1", "tenure-sync", "p50", 8.0, None),
        ("chat-1", "postgres-sync", "p50", 16.0, None),
    )
    found.samples.append(Sample("chat-1", "sqlite", 0, error="OSError: full"))
    found.skipped["redis"] = "no modules"
    known = [workloads(quick=False)["chat-1"]]
    text = report(found, known, targets(found, {"chat-1": known[0]}), {"cores": "2"}, quick=True)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "Tenure 7.00 1 round 0.70x 2.50 0.50x" in lines
    assert "Tenure, sync 8.00 1 round 0.80x 0.50x - -" in lines
    assert "AsyncSqliteSaver failed: OSError: full" in lines
    assert "Not measured: langgraph-checkpoint-redis: no modules" in lines
    assert "lone conversation, turn p50, async 0.70x <= 1.40x <= 1.00x ok" in lines
    assert lines[0].startswith("QUICK RUN")


@pytest.fixture
def burning() -> Iterator[subprocess.Popen[str]]:
    """A process whose child burns CPU, ends, and is waited for; then it says so."""
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    code += "; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.communicate()


@pytest.mark.skipif(not available(), reason="needs /proc")
def test_cpu_of_children_that_have_ended_counts_once(burning: subprocess.Popen[str]) -> None:
    assert burning.stdout is not None
    burning.stdout.readline()
    alone = cpu_seconds([burning.pid])
    assert alone is not None
    assert alone >= 0.2
    # Naming a process beside its own ancestor must not count it again.
    both = cpu_seconds([os.getpid(), burning.pid])
    ancestor = cpu_seconds([os.getpid()])
    assert both is not None
    assert ancestor is not None
    assert both - ancestor < 0.2
