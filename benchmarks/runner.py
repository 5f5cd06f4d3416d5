"""Runs workloads with all systems in turn, in rounds, and says what it does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from benchmarks.bench import Bench
from benchmarks.places import Failed, Place
from benchmarks.report import number as figure
from benchmarks.results import Results, Sample
from benchmarks.servers import Servers
from benchmarks.systems import SYSTEMS
from benchmarks.workloads.base import Workload

_LOG_TAIL = 40


class Runner:
    """One run.

    Attributes:
        results: Samples so far.
    """

    def __init__(
        self,
        servers: Servers,
        workloads: Sequence[Workload],
        systems: Sequence[str],
        *,
        quick: bool,
        folder: Path,
    ) -> None:
        """Describe it.

        Args:
            servers: Postgres and Valkey, running.
            workloads: What to run.
            systems: With which systems, as far as a workload takes them.
            quick: Whether workloads share their places: less set-up, larger databases.
            folder: For the clients' log.
        """
        self.results = Results()
        self._servers = servers
        self._workloads = workloads
        self._quick = quick
        self._log = folder / "clients.log"
        self._shared: dict[str, Place] = {}
        for name in systems:
            reason = servers.missing(SYSTEMS[name])
            if reason is not None:
                self.results.skipped[name] = reason
        self._systems = [name for name in systems if name not in self.results.skipped]
        self._done = 0
        self._total = sum(each.rounds * len(self._systems_of(each)) for each in workloads)
        self._started = time.monotonic()

    def run(self) -> None:
        """Run everything; a system that fails is left out of its workload."""
        for name, reason in self.results.skipped.items():
            click.echo(f"without {SYSTEMS[name].label}: {reason}")
        with ExitStack() as places:
            for workload in self._workloads:
                if self._quick:
                    self._run(workload, places, self._shared)
                else:
                    with ExitStack() as own:
                        self._run(workload, own, {})

    def log_tail(self) -> str:
        """Return what failed clients wrote last; "" if none failed."""
        if not any(sample.error for sample in self.results.samples) or not self._log.exists():
            return ""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-_LOG_TAIL:])

    def _run(self, workload: Workload, closing: ExitStack, places: dict[str, Place]) -> None:
        failed: set[str] = set()
        prepared: set[str] = set()
        systems = self._systems_of(workload)
        for number in range(workload.rounds):
            # Each round begins with another system, so that none always has the same one before it.
            start = number % len(systems) if systems else 0
            for name in [*systems[start:], *systems[:start]]:
                self._done += 1
                if name in failed:
                    continue
                self._say(workload, name, number)
                try:
                    if workload.fresh:
                        place = self._servers.place(SYSTEMS[name])
                        with ExitStack() as own:
                            own.callback(place.close)
                            sample = self._sample(workload, name, number, place, prepare=True)
                    else:
                        if name not in places:
                            places[name] = self._servers.place(SYSTEMS[name])
                            closing.callback(places[name].close)
                        new = name not in prepared
                        prepared.add(name)
                        sample = self._sample(workload, name, number, places[name], prepare=new)
                except Failed as error:
                    failed.add(name)
                    sample = Sample(workload.name, name, number, error=str(error))
                self.results.samples.append(sample)
                click.echo(self._in_short(workload, sample))

    def _sample(self, workload: Workload, name: str, number: int, place: Place, *, prepare: bool) -> Sample:
        bench = Bench(SYSTEMS[name], place, workload.name, self._quick, self._log, place.endpoint)
        if prepare:
            workload.prepare(bench)
        place.tidy()
        return Sample(workload.name, name, number, workload.sample(bench, number))

    def _systems_of(self, workload: Workload) -> list[str]:
        return [name for name in workload.systems if name in self._systems]

    def _say(self, workload: Workload, system: str, number: int) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        width = len(str(self._total))
        click.echo(
            f"[{self._done:>{width}}/{self._total} {minutes:>3}:{seconds:02}] {workload.name:<15} "
            f"{workload.label(SYSTEMS[system]):<30} round {number + 1}/{workload.rounds}  ",
            nl=False,
        )

    @staticmethod
    def _in_short(workload: Workload, sample: Sample) -> str:
        if sample.error is not None:
            return f"failed: {sample.error}"
        values = {measure.metric: measure.value for measure in sample.measures}
        shown = [metric for metric in workload.metrics if metric.name in values]
        return ", ".join(f"{metric.name} {figure(values[metric.name])}" for metric in shown[:3])
