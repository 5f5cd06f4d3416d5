"""What a workload sees of the run: client processes, and the meters around their phases."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import client
from benchmarks.cpu import cpu_seconds
from benchmarks.places import Failed, Place
from benchmarks.relay import CountingRelay
from benchmarks.stats import percentile
from benchmarks.systems import Endpoint, System

_SETTLE = 0.2
"""Seconds after a phase in which servers finish what they do off the request's path; it is charged too."""
_PATIENCE = 900.0
_PROCESSES = multiprocessing.get_context("forkserver")
"""Forks clients off a process that has imported LangGraph: importing it takes a second each time."""
_PROCESSES.set_forkserver_preload([client.__name__])


@dataclass(frozen=True)
class Phase:
    """What one or several clients did between two readings of the clocks.

    Attributes:
        operations: How many, over all clients.
        seconds: From the first start to the last end.
        latencies: Of each operation, in milliseconds; may be empty.
        cpu_ms: CPU time of one operation over clients and servers; None where it cannot be read.
        extra: What else the clients said; of the first one.
    """

    operations: int
    seconds: float
    latencies: Sequence[float]
    cpu_ms: float | None
    extra: dict[str, Any]

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds

    def percentile(self, percent: float, last: int | None = None) -> float:
        """Return a percentile of the latencies, of the last ones only if told so."""
        return percentile(self.latencies[-last:] if last else self.latencies, percent)


class Client:
    """A client process that is ready for its next phase."""

    def __init__(self, job: dict[str, Any], log: Path) -> None:
        self._pipe, theirs = _PROCESSES.Pipe()
        self._process = _PROCESSES.Process(target=client.main, args=(job, theirs, log))
        self._process.start()
        theirs.close()

    def go(self) -> None:
        """Start its next phase."""
        try:
            self._pipe.send("go")
        except BrokenPipeError:
            raise Failed("the client process ended") from None

    def answer(self) -> dict[str, Any]:
        """Wait for the end of its phase and return what it says.

        Raises:
            Failed: It ended or takes too long.
        """
        if not self._pipe.poll(_PATIENCE):
            raise Failed("the client process takes too long")
        try:
            said: dict[str, Any] = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            raise Failed("the client process ended") from None
        if "error" in said:
            raise Failed(said["error"])
        return said

    def close(self) -> None:
        """End it."""
        self._pipe.close()
        try:
            self._process.join(30)
        finally:
            self._process.kill()
            self._process.join()
            self._process.close()


@dataclass
class Bench:
    """One system at its place, for one workload.

    Attributes:
        system: The system.
        place: Where its data is.
        workload: The workload's name.
        quick: Whether everything is small.
        log: File for what clients write to stderr.
        endpoint: Where clients are sent.
    """

    system: System
    place: Place
    workload: str
    quick: bool
    log: Path
    endpoint: Endpoint

    @contextmanager
    def clients(self, count: int = 1, **options: Any) -> Iterator[list[Client]]:
        """Start client processes and wait until they have warmed up.

        Args:
            count: How many.
            options: For the workload's `work`; `{n}` in a text becomes the client's number.
        """
        started: list[Client] = []
        try:
            for number in range(count):
                named = {
                    name: value.replace("{n}", str(number)) if isinstance(value, str) else value
                    for name, value in options.items()
                }
                job = {
                    "system": self.system.name,
                    "workload": self.workload,
                    "quick": self.quick,
                    "endpoint": asdict(self.endpoint),
                    "options": named,
                }
                started.append(Client(job, self.log))
            for each in started:
                each.answer()
            yield started
        finally:
            for each in started:
                each.close()

    @contextmanager
    def client(self, **options: Any) -> Iterator[Client]:
        """Start one client process; see `clients`."""
        with self.clients(1, **options) as (only,):
            yield only

    def measure(self, *clients: Client) -> Phase:
        """Let clients do their next phase, all at once, and return what it took."""
        before = cpu_seconds(self.place.pids())
        for each in clients:
            each.go()
        said = [each.answer() for each in clients]
        time.sleep(_SETTLE)
        after = cpu_seconds(self.place.pids())
        operations = sum(answer["operations"] for answer in said)
        cpu_ms = None
        if before is not None and after is not None and operations:
            cpu_ms = 1000 * (after - before + sum(answer["cpu"] for answer in said)) / operations
        return Phase(
            operations=operations,
            seconds=max(answer["ended"] for answer in said) - min(answer["started"] for answer in said),
            latencies=[latency for answer in said for latency in answer["latencies"]],
            cpu_ms=cpu_ms,
            extra=said[0]["extra"],
        )

    @contextmanager
    def relayed(self) -> Iterator[tuple[Bench, CountingRelay]]:
        """Give a bench whose clients go through a relay that counts bytes."""
        with CountingRelay(self.endpoint.target) as relay:
            behind = replace(self.endpoint, target=relay.through(self.endpoint.target))
            yield replace(self, endpoint=behind), relay
