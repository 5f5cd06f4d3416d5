"""Results as text: a table per metric, and the targets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import fill

from benchmarks.cpu import available
from benchmarks.results import Figure, Results
from benchmarks.systems import BLOCKING_REFERENCE, SYSTEMS
from benchmarks.targets import Target
from benchmarks.workloads.base import Metric, Workload

_QUICK = "QUICK RUN: small counts, few systems, one round. For figures to quote, run it in full."


def table(rows: Sequence[Sequence[str]], *, indent: int = 2) -> str:
    """Lay out rows: the first column to the left, the others to the right; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        " " * indent + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in rows
    ]
    lines.insert(1, " " * indent + "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(line.rstrip() for line in lines)


def report(
    results: Results,
    workloads: Sequence[Workload],
    goals: Sequence[Target],
    machine: Mapping[str, str],
    *,
    quick: bool,
) -> str:
    """Return the whole report."""
    parts = [_QUICK] if quick else []
    parts.append("\n".join(f"{name + ':':<10} {value}" for name, value in machine.items()))
    parts += [_workload(results, workload) for workload in workloads if results.tried(workload.name)]
    parts.append(targets_table(goals))
    if not available():
        parts.append("CPU time per operation: n/a (needs Linux)")
    parts += [f"Not measured: {SYSTEMS[name].label}: {why}" for name, why in results.skipped.items()]
    return "\n\n".join(part for part in parts if part)


def targets_table(goals: Sequence[Target]) -> str:
    """Return the table of targets."""
    head = [
        "Targets (Tenure as a multiple of AsyncPostgresSaver, or of the store that is named)",
        "measured",
        "floor",
        "goal",
        "",
    ]
    rows = [
        [
            goal.label,
            "-" if goal.measured is None else _amount(goal.measured, goal.unit),
            "" if goal.floor is None else f"{_sign(goal)} {_amount(goal.floor, goal.unit)}",
            f"{_sign(goal)} {_amount(goal.goal, goal.unit)}",
            goal.verdict,
        ]
        for goal in goals
    ]
    return table([head, *rows], indent=0) if rows else ""


def number(value: float) -> str:
    """Return a figure with about three digits that mean something."""
    if math.isinf(value):
        return "saturated"
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def multiple(value: float | None) -> str:
    """Return a ratio; small ones as 1/n."""
    if value is None:
        return "-"
    return f"1/{1 / value:.0f}" if 0 < value < 0.095 else f"{number(value)}x"


def _workload(results: Results, workload: Workload) -> str:
    shown = [metric for metric in workload.metrics if metric.shown]
    if len(workload.systems) == 1:
        tables = [_alone(results, workload, shown)]
    else:
        tables = [block for metric in shown if (block := _metric(results, workload, metric))]
    if workload.note:
        tables.append(fill(workload.note, 110, initial_indent="  ", subsequent_indent="  "))
    failures = [
        f"  {workload.label(SYSTEMS[name])} failed: {why}"
        for name, why in results.errors(workload.name).items()
    ]
    return "\n\n".join([f"({workload.part}) {workload.name}: {workload.title}", *tables, *failures])


def _metric(results: Results, workload: Workload, metric: Metric) -> str:
    measured = [name for name in workload.systems if results.figure(workload.name, metric.name, name)]
    if not measured:
        return ""
    with_cpu = any(results.median(workload.name, metric.name, name, cpu=True) for name in measured)
    with_sync = BLOCKING_REFERENCE in measured
    name = metric.name if metric.name.endswith(metric.unit) else f"{metric.name}, {metric.unit}"
    head = [f"{name} ({'higher' if metric.higher_is_better else 'lower'} is better)", "median", "min - max"]
    head += ["x AsyncPostgres", *(["x Postgres sync"] if with_sync else [])]
    head += [f"CPU ms/{workload.operation}", "CPU x AsyncPostgres"] if with_cpu else []
    rows = [head]
    for system in measured:
        figure = results.figure(workload.name, metric.name, system)
        assert figure is not None
        row = [
            workload.label(SYSTEMS[system]),
            number(figure.value.median),
            _spread(figure),
            multiple(results.ratio(workload.name, metric.name, system)),
        ]
        if with_sync:
            to_sync = results.ratio(workload.name, metric.name, system, to=BLOCKING_REFERENCE)
            row.append(multiple(to_sync) if SYSTEMS[system].blocking else "")
        if with_cpu:
            row.append(number(figure.cpu_ms.median) if figure.cpu_ms else "-")
            row.append(multiple(results.ratio(workload.name, metric.name, system, cpu=True)))
        rows.append(row)
    return table(rows)


def _alone(results: Results, workload: Workload, metrics: Sequence[Metric]) -> str:
    """Lay out what one system yields: a row for each metric, since there is nothing to compare it with."""
    (system,) = workload.systems
    rows = [[workload.label(SYSTEMS[system]), "median", "min - max", "", f"CPU ms/{workload.operation}"]]
    for metric in metrics:
        figure = results.figure(workload.name, metric.name, system)
        if figure is not None:
            cpu = number(figure.cpu_ms.median) if figure.cpu_ms else ""
            rows.append([metric.name, number(figure.value.median), _spread(figure), metric.unit, cpu])
    return table(rows) if len(rows) > 1 else ""


def _spread(figure: Figure) -> str:
    value = figure.value
    return f"{number(value.low)} - {number(value.high)}" if value.rounds > 1 else "1 round"


def _sign(goal: Target) -> str:
    return ">=" if goal.at_least else "<="


def _amount(value: float, unit: str) -> str:
    return multiple(value) if unit == "x" else f"{number(value)}{unit}"
