"""What Tenure has to reach, as multiples of AsyncPostgresSaver or of the store named, in the same run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.results import Results
from benchmarks.stats import ratio
from benchmarks.workloads.base import Workload

_STORES = (
    ("tenure", "postgres", "AsyncPostgresStore"),
    ("tenure-sync", "postgres-sync", "PostgresStore"),
)
"""Ours, and whose it is compared with: tasks with tasks, threads with threads."""

Verdict = Literal["ok", "floor met, goal missed", "goal missed", "MISSED", "not measured"]


@dataclass(frozen=True)
class Target:
    """A target and what was measured.

    Attributes:
        label: What is measured.
        measured: The figure; None = not measured.
        floor: Beyond it the target is missed; None = there is only a goal.
        goal: What we are after.
        unit: After the figures; "x" = a multiple of the peer.
        at_least: The figure has to be at least the target, else at most.
        stretch: More than the goal.
    """

    label: str
    measured: float | None
    floor: float | None
    goal: float
    unit: str = "x"
    at_least: bool = False
    stretch: float | None = None

    @property
    def verdict(self) -> Verdict:
        """Say in a word or two whether it is reached."""
        if self.measured is None:
            return "not measured"
        if self._reaches(self.goal):
            return "ok"
        if self.floor is None:
            return "goal missed"
        return "floor met, goal missed" if self._reaches(self.floor) else "MISSED"

    def _reaches(self, bound: float) -> bool:
        assert self.measured is not None
        return self.measured >= bound if self.at_least else self.measured <= bound


def targets(results: Results, workloads: Mapping[str, Workload]) -> list[Target]:
    """Return all targets of which something may have been measured."""
    return list(_targets(results, workloads))


def _targets(results: Results, workloads: Mapping[str, Workload]) -> Iterator[Target]:
    if "chat-32" in workloads:
        yield Target(
            "32 conversations, turns/s",
            results.ratio("chat-32", "turns/s", "tenure"),
            2.5,
            4.0,
            at_least=True,
        )
        of_memory = results.ratio("chat-32", "turns/s", "tenure", to="memory")
        yield Target(
            "  of InMemorySaver's",
            of_memory and 100 * of_memory,
            None,
            55.0,
            unit="%",
            at_least=True,
        )
    if "procs-4x8" in workloads:
        yield Target(
            "4 processes x 8 conversations, turns/s",
            results.ratio("procs-4x8", "turns/s", "tenure"),
            1.8,
            2.5,
            at_least=True,
        )
        yield Target(
            "  CPU per turn over all processes",
            results.ratio("procs-4x8", "turns/s", "tenure", cpu=True),
            0.6,
            0.4,
        )
    if "chat-1" in workloads:
        for system, colour in (("tenure", "async"), ("tenure-sync", "sync")):
            measured = results.ratio("chat-1", "p50", system)
            yield Target(f"lone conversation, turn p50, {colour}", measured, 1.4, 1.0, stretch=0.7)
    if "long" in workloads and workloads["long"].judged:
        title = workloads["long"].title
        yield Target(f"{title}: stored", results.ratio("long", "stored", "tenure"), 1 / 25, 1 / 50)
        yield Target("  p50 of the last turns", results.ratio("long", "p50 tail", "tenure"), 1.0, 0.7)
    if "wire" in workloads and workloads["wire"].judged:
        early, late = (metric.name for metric in workloads["wire"].metrics)
        at_early, at_late = (results.median("wire", name, "tenure") for name in (early, late))
        yield Target(f"  wire bytes at {early}", at_early, 24.0, 12.0, unit=" KB")
        grown = ratio(at_late, at_early)
        yield Target(
            f"  wire bytes at {late}, of those at {early}", grown and 100 * grown, None, 110.0, unit="%"
        )
    if "get-1MiB" in workloads:
        measured = results.ratio("get-1MiB", "held", "tenure")
        yield Target("get of a 1 MiB state that the client holds", measured, 0.5, 0.25)
    if "soak" in workloads:
        metrics = [metric.name for metric in workloads["soak"].metrics if metric.unit == "MB"]
        first, last = (results.median("soak", name, "tenure") for name in metrics)
        grown = ratio(last, first)
        yield Target(
            f"server's {metrics[1]}, of that after part 1", grown and 100 * grown, None, 105.0, unit="%"
        )
    if "fair" in workloads:
        beside = results.median("fair", "p99 beside the flood, of that alone", "tenure")
        yield Target(
            "quiet tenant's p99 beside a flood of 20 times its share, of that alone",
            beside and 100 * beside,
            200.0,
            200.0,
            unit="%",
        )
    if "storm" in workloads:
        for state in ("cold", "hot"):
            measured = results.ratio("storm", state, "tenure")
            yield Target(f"resume storm, {state}, threads/s", measured, 2.0, 3.0, at_least=True)
    yield from _store_targets(results, workloads)


def _store_targets(results: Results, workloads: Mapping[str, Workload]) -> Iterator[Target]:
    for name in ("store-put-32", "store-get-32"):
        if name not in workloads:
            continue
        for metric in workloads[name].metrics:
            for ours, peer, label in _STORES:
                if metric.higher_is_better and peer in workloads[name].systems:
                    measured = results.ratio(name, metric.name, ours, to=peer)
                    yield Target(f"store, {metric.name}, of {label}'s", measured, 2.0, 2.0, at_least=True)
    for name in ("store-vector-10k", "store-vector-100k"):
        if name in workloads:
            measured = results.ratio(name, "p50", "tenure")
            yield Target(f"{workloads[name].title}, p50, of AsyncPostgresStore's", measured, 1.0, 1.0)
