"""What is made of samples: summaries, ratios, targets, tables; and how CPU time is counted."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks.cpu import available, cpu_seconds
from benchmarks.report import multiple, number, report, table
from benchmarks.results import Results, Sample
from benchmarks.stats import percentile, ratio, summarise
from benchmarks.targets import Target, targets
from benchmarks.workloads import workloads
from tests.unit.benchmark_support import by_label, results


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
