"""What a workload is: work for client processes, and how the run measures it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.systems import Endpoint, System, open_saver
from benchmarks.work import Work

if TYPE_CHECKING:
    from benchmarks.bench import Bench, Phase

DURABLE = ("postgres", "tenure")
ASYNC = ("memory", "postgres", "sqlite", "plainredis", "redis", "tenure", "tenure-tls")
SCALED = (*ASYNC, "tenure-w2")
ALL = ("memory", "postgres", "postgres-sync", "sqlite", "plainredis", "redis", "tenure", "tenure-sync",
       "tenure-tls", "tenure-w2")  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """A figure that a workload yields.

    Attributes:
        name: Unique within the workload.
        unit: After the figure, such as "turns/s".
        higher_is_better: Else lower is.
        shown: Whether the table shows it; the JSON always has it.
    """

    name: str
    unit: str
    higher_is_better: bool = False
    shown: bool = True


@dataclass(frozen=True)
class Measure:
    """A figure of one round.

    Attributes:
        metric: The metric's name.
        value: The figure.
        cpu_ms: CPU time of one operation over all processes, if that was read for this figure.
    """

    metric: str
    value: float
    cpu_ms: float | None = None


Phases = AsyncGenerator[Work | None, None]
"""The phases of a client: first None when it has warmed up, then what each phase did."""


@dataclass(frozen=True, kw_only=True)
class Workload(ABC):
    """A workload. `prepare` and `sample` run in the run's process, `work` in client processes.

    Attributes:
        name: As on the command line.
        part: Letter in the list of what is measured.
        title: One line about it.
        note: What a reader of its figures has to know; printed below them.
        operation: What CPU time is told per.
        systems: Names of the systems that take part, in order.
        rounds: How often it is done; 1 = once also in a run with more rounds, unless it is asked for by name.
        fresh: Whether each round has a place of its own: then what is stored can be weighed.
        judged: Whether targets look at it; they do not where it is too short for them.
        on_request: Whether it runs only if it is asked for by name.
    """

    name: str
    part: str
    title: str
    note: str = ""
    operation: str = "turn"
    systems: Sequence[str] = ASYNC
    rounds: int = 3
    fresh: bool = False
    judged: bool = True
    on_request: bool = False

    @property
    @abstractmethod
    def metrics(self) -> Sequence[Metric]:
        """What it yields, in the order of the tables."""

    def prepare(self, bench: Bench) -> None:  # noqa: B027 - most workloads need nothing
        """Fill a system's new place, unmeasured."""

    @abstractmethod
    def sample(self, bench: Bench, number: int) -> list[Measure]:
        """Do one round.

        Args:
            bench: One system at its place.
            number: Of the round; part of thread ids.
        """

    def label(self, system: System) -> str:
        """Return what tables call a system."""
        return system.label

    def open(self, system: System, endpoint: Endpoint) -> AbstractAsyncContextManager[Any]:
        """Open what `work` works with, in a client process."""
        return open_saver(system, endpoint)

    @abstractmethod
    def work(self, opened: Any, /, *, blocking: bool, **options: Any) -> Phases:
        """Do the client's part; yield None after warming up, then after each phase."""


def turn_metrics(*, lone: bool = False) -> list[Metric]:
    """Return the metrics of turns that are all alike; the first is the one that matters."""
    rate = Metric("turns/s", "turns/s", higher_is_better=True)
    latencies = [Metric("p50", "ms"), Metric("p99", "ms")]
    return [latencies[0], rate, latencies[1]] if lone else [rate, *latencies]


def turn_measures(phase: Phase) -> list[Measure]:
    """Return the measures of a phase of such turns."""
    return [
        Measure("turns/s", phase.rate, phase.cpu_ms),
        Measure("p50", phase.percentile(50), phase.cpu_ms),
        Measure("p99", phase.percentile(99)),
    ]
