"""Samples of a run, and the figures that they come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.stats import Summary, ratio, summarise
from benchmarks.systems import BLOCKING_REFERENCE, REFERENCE, SYSTEMS
from benchmarks.workloads.base import Measure, Workload


@dataclass(frozen=True)
class Sample:
    """One round of one workload with one system.

    Attributes:
        workload / system / number: Which.
        measures: What came out; none if it failed.
        error: Why it failed.
    """

    workload: str
    system: str
    number: int
    measures: Sequence[Measure] = ()
    error: str | None = None


@dataclass(frozen=True)
class Figure:
    """What the rounds of a metric come to.

    Attributes:
        value: The metric itself.
        cpu_ms: CPU time per operation; None if it was not read.
    """

    value: Summary
    cpu_ms: Summary | None


@dataclass
class Results:
    """A run's samples.

    Attributes:
        samples: In the order in which they were taken.
        skipped: Systems that were not measured, and why.
    """

    samples: list[Sample] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def tried(self, workload: str) -> bool:
        """Say whether there is a sample of a workload, be it a failed one."""
        return any(sample.workload == workload for sample in self.samples)

    def figure(self, workload: str, metric: str, system: str) -> Figure | None:
        """Return a metric's figure, None if nothing was measured."""
        found = [
            measure
            for sample in self.samples
            if (sample.workload, sample.system) == (workload, system)
            for measure in sample.measures
            if measure.metric == metric
        ]
        value = summarise([measure.value for measure in found])
        if value is None:
            return None
        return Figure(value, summarise([measure.cpu_ms for measure in found if measure.cpu_ms is not None]))

    def median(self, workload: str, metric: str, system: str, *, cpu: bool = False) -> float | None:
        """Return a metric's median, or that of its CPU time; None if nothing was measured."""
        figure = self.figure(workload, metric, system)
        summary = figure and (figure.cpu_ms if cpu else figure.value)
        return summary.median if summary else None

    def ratio(
        self, workload: str, metric: str, system: str, *, cpu: bool = False, to: str = REFERENCE
    ) -> float | None:
        """Return a median as a multiple of another system's in the same run."""
        return ratio(
            self.median(workload, metric, system, cpu=cpu), self.median(workload, metric, to, cpu=cpu)
        )

    def errors(self, workload: str) -> dict[str, str]:
        """Return which systems failed in a workload, and why."""
        return {
            sample.system: sample.error
            for sample in self.samples
            if sample.workload == workload and sample.error is not None
        }

    def rows(self, workloads: Sequence[Workload]) -> list[dict[str, Any]]:
        """Return all figures for the JSON."""
        rows = []
        for workload in workloads:
            for metric in workload.metrics:
                for system in workload.systems:
                    figure = self.figure(workload.name, metric.name, system)
                    if figure is None:
                        continue
                    row = {
                        "workload": workload.name,
                        "metric": metric.name,
                        "unit": metric.unit,
                        "higher_is_better": metric.higher_is_better,
                        "system": system,
                        "label": workload.label(SYSTEMS[system]),
                        **asdict(figure.value),
                        "cpu_ms_per_operation": asdict(figure.cpu_ms) if figure.cpu_ms else None,
                        f"ratio_to_{REFERENCE}": self.ratio(workload.name, metric.name, system),
                    }
                    if SYSTEMS[system].blocking:
                        row[f"ratio_to_{BLOCKING_REFERENCE}"] = self.ratio(
                            workload.name, metric.name, system, to=BLOCKING_REFERENCE
                        )
                    rows.append(row)
        return rows
