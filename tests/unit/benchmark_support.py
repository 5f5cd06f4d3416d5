"""Results that tests make up."""

from __future__ import annotations

from benchmarks.results import Results, Sample
from benchmarks.targets import Target, targets
from benchmarks.workloads import workloads
from benchmarks.workloads.base import Measure


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
