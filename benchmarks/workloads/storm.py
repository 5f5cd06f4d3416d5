"""A resume storm: many threads are read at once, first after a restart, then again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from benchmarks.conversations import chat_graph, config, converse
from benchmarks.work import Work
from benchmarks.workloads.base import Measure, Metric, Phases, Workload

if TYPE_CHECKING:
    from benchmarks.bench import Bench

_TOGETHER = 32
_FILLERS = 2


@dataclass(frozen=True, kw_only=True)
class Storm(Workload):
    """Reads of many conversations by a new client.

    Attributes:
        threads: How many conversations.
        turns: Length of each.
    """

    threads: int
    turns: int
    operation: str = "thread"

    @property
    def metrics(self) -> Sequence[Metric]:
        return [
            Metric("cold", "threads/s", higher_is_better=True),
            Metric("hot", "threads/s", higher_is_better=True),
            Metric("cold p99", "ms", shown=False),
        ]

    def prepare(self, bench: Bench) -> None:
        if bench.system.kind != "memory":
            # SQLite takes one process at a time.
            count = 1 if bench.system.kind == "sqlite" else _FILLERS
            with bench.clients(count, fill=True, part="{n}", parts=count) as clients:
                bench.measure(*clients)
            bench.place.tidy()

    def sample(self, bench: Bench, number: int) -> list[Measure]:
        in_process = bench.system.kind == "memory"
        if bench.place.cold is not None:
            bench.place.cold()
        with bench.client(fill=in_process, part="0", parts=1) as client:
            if in_process:
                bench.measure(client)
            cold, hot = bench.measure(client), bench.measure(client)
        measures = [Measure("hot", hot.rate, hot.cpu_ms)]
        if not in_process:
            measures += [
                Measure("cold", cold.rate, cold.cpu_ms),
                Measure("cold p99", cold.percentile(99), cold.cpu_ms),
            ]
        return measures

    async def work(self, saver: BaseCheckpointSaver[Any], /, *, blocking: bool, **options: Any) -> Phases:
        graph = chat_graph(saver)
        threads = [f"storm-{number}" for number in range(self.threads)]
        # Connects and imports; the threads of the storm stay cold.
        await converse(graph, [f"warm-{random.random()}"], range(3))
        yield None
        if options["fill"]:
            done = Work(0, time.monotonic(), 0.0)
            mine = threads[int(options["part"]) :: options["parts"]]
            for start in range(0, len(mine), _TOGETHER):
                done.operations += (
                    await converse(graph, mine[start : start + _TOGETHER], range(self.turns))
                ).operations
            done.ended = time.monotonic()
            yield done
        for _ in range(2):
            latencies: list[float] = []
            started = time.monotonic()
            await asyncio.gather(*(self._resume(saver, thread, started, latencies) for thread in threads))
            yield Work(len(latencies), started, time.monotonic(), latencies)

    async def _resume(
        self, saver: BaseCheckpointSaver[Any], thread: str, started: float, latencies: list[float]
    ) -> None:
        found = await saver.aget_tuple(config(thread))
        assert found is not None
        assert len(found.checkpoint["channel_values"]["messages"]) == 2 * self.turns
        latencies.append(1000 * (time.monotonic() - started))
