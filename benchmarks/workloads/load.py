"""Open-loop load: turns arrive at fixed rates whether or not those before have ended."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from benchmarks.conversations import chat_graph, config, converse, message
from benchmarks.cpu import resident_bytes
from benchmarks.places import Failed
from benchmarks.work import Work
from benchmarks.workloads.base import Measure, Metric, Phases, Workload

if TYPE_CHECKING:
    from benchmarks.bench import Bench


async def arrivals(rate: int, seconds: float, seed: str = "") -> AsyncIterator[float]:
    """Wait for each of random arrivals and yield when it was due, on the monotonic clock.

    They are the same ones for every system and round.

    Args:
        rate: How many in a second, on average.
        seconds: For how long.
        seed: Gives others.
    """
    chosen = random.Random(f"arrivals {rate}{seed}")
    end = (due := time.monotonic()) + seconds
    while (due := due + chosen.expovariate(rate)) < end:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        yield due


@dataclass(frozen=True, kw_only=True)
class OpenLoop(Workload):
    """Poisson arrivals; latency counts from when a turn should have started.

    Attributes:
        rates: Turns per second, rising; none is tried after one at which the system was saturated.
        seconds: Length of each rate.
        behind: A turn that is so many seconds late means that the system is saturated.
    """

    rates: Sequence[int]
    seconds: float
    behind: float = 3.0

    @property
    def metrics(self) -> Sequence[Metric]:
        return [
            Metric(f"p{percent} at {rate}/s", "ms", shown=percent != 95)
            for rate in self.rates
            for percent in (50, 95, 99)
        ]

    def sample(self, bench: Bench, number: int) -> list[Measure]:
        measures = []
        with bench.client(prefix=f"load-{number}") as client:
            for rate in self.rates:
                phase = bench.measure(client)
                if phase.extra["saturated"]:
                    break
                measures += [
                    Measure(f"p{percent} at {rate}/s", phase.percentile(percent), phase.cpu_ms)
                    for percent in (50, 95, 99)
                ]
        # A rate that a round did not get through must not look as good as the rounds that did.
        done = {measure.metric for measure in measures}
        return measures + [
            Measure(metric.name, math.inf) for metric in self.metrics if metric.name not in done
        ]

    async def work(self, saver: BaseCheckpointSaver[Any], /, *, blocking: bool, **options: Any) -> Phases:
        graph = chat_graph(saver)
        prefix = options["prefix"]
        await converse(graph, [f"{prefix}-warm-{number}" for number in range(8)], range(4))
        yield None
        for number, rate in enumerate(self.rates):
            yield await self._at(graph, rate, f"{prefix}-{number}")

    async def _at(self, graph: Any, rate: int, prefix: str) -> Work:
        latencies: list[float] = []
        # The conversation that has rested longest is continued; none has two turns at once.
        resting = deque((f"{prefix}-{number}", 0) for number in range(4 * rate))
        made = len(resting)
        late: list[object] = []

        async def turn(intended: float) -> None:
            nonlocal made
            if not resting:
                resting.append((f"{prefix}-{made}", 0))
                made += 1
            thread, number = resting.popleft()
            try:
                await graph.ainvoke(message(thread, number), config(thread))
            except Exception as refused:
                # A system that refuses what it cannot take is saturated as well.
                late.append(type(refused).__name__)
                return
            latencies.append(1000 * (time.monotonic() - intended))
            resting.append((thread, number + 1))
            if latencies[-1] > 1000 * self.behind:
                late.append(latencies[-1])

        running: set[asyncio.Task[None]] = set()
        started = time.monotonic()
        async for intended in arrivals(rate, self.seconds):
            if len(running) > rate * self.behind:
                late.append(len(running))
            if late:
                break
            task = asyncio.create_task(turn(intended))
            running.add(task)
            task.add_done_callback(running.discard)
        # Those under way end: cancelled ones would go on in the servers and disturb what comes next.
        await asyncio.gather(*running)
        extra = {"saturated": bool(late), "why": str(late[:1])}
        return Work(len(latencies), started, time.monotonic(), latencies, extra)


@dataclass(frozen=True, kw_only=True)
class Soak(OpenLoop):
    """The same rate minute after minute: the server's memory has to stay where it is."""

    # A shared machine stands still for seconds now and then; that says nothing about memory.
    behind: float = 15.0

    @property
    def metrics(self) -> Sequence[Metric]:
        return [Metric(f"memory after part {part}", "MB") for part in (1, len(self.rates))] + [
            Metric(f"p99 in part {part}", "ms") for part in (1, len(self.rates))
        ]

    def sample(self, bench: Bench, number: int) -> list[Measure]:
        measures = []
        with bench.client(prefix=f"soak-{number}") as client:
            for part in range(1, len(self.rates) + 1):
                phase = bench.measure(client)
                if phase.extra["saturated"]:
                    raise Failed(f"saturated in part {part}: {phase.extra['why']}")
                used = resident_bytes([bench.place.server_pid()] if bench.place.server_pid else [])
                measures.append(Measure(f"p99 in part {part}", phase.percentile(99), phase.cpu_ms))
                if used:
                    measures.append(Measure(f"memory after part {part}", used / 1e6))
        return measures
