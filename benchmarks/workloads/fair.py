"""Fairness: what a quiet tenant feels while another one floods the same server."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint

from benchmarks.conversations import AI_WORDS, config, text
from benchmarks.work import Work
from benchmarks.workloads.base import Measure, Metric, Phases, Workload
from benchmarks.workloads.load import arrivals

if TYPE_CHECKING:
    from benchmarks.bench import Bench, Phase

_LEAD = 0.7
"""Seconds that the quiet tenant waits in each phase: the flood is up by then."""
_BURNERS = 2
_LOADS = ("alone", "beside the flood", "beside CPU load")


@dataclass(kw_only=True)
class Thread:
    """A thread with checkpoints one on top of the other."""

    name: str
    parent: RunnableConfig
    operations: int = 0

    async def operate(self, saver: BaseCheckpointSaver[Any]) -> None:
        """Put a checkpoint or get the latest, in turn."""
        if self.operations % 2 == 0:
            await self.put(saver)
            return
        self.operations += 1
        found = await saver.aget_tuple(config(self.name))
        assert found is not None

    async def put(self, saver: BaseCheckpointSaver[Any]) -> None:
        """Put a checkpoint on top of the latest."""
        self.operations += 1
        made = empty_checkpoint()
        made["channel_values"] = {"answer": text(f"{self.name} {self.operations}", AI_WORDS)}
        made["channel_versions"] = {"answer": f"{self.operations:032}.0"}
        told: Any = {"source": "loop", "step": self.operations}
        self.parent = await saver.aput(self.parent, made, told, made["channel_versions"])


@dataclass(frozen=True, kw_only=True)
class Fair(Workload):
    """Lone puts and gets of a quiet tenant: alone, beside a flood, and beside other work on the same cores.

    All of it arrives open-loop. The flood comes from another process and another tenant; it has as many
    operations under way as it has threads at most, and what arrives beyond that is dropped. The control
    burns the CPU time that the flood's operations cost, at the times at which they would arrive, and sends
    nothing: what the quiet tenant suffers from that is the machine's doing, not the server's.

    Attributes:
        rate: Operations per second of the quiet tenant.
        share: Rate of the flood, in multiples of that.
        seconds: Length of each part.
        threads: Threads of the flood.
    """

    rate: int
    share: int
    seconds: float
    threads: int = 64
    operation: str = "operation"

    @property
    def metrics(self) -> Sequence[Metric]:
        return [
            *(Metric(f"p{percent} {load}", "ms") for load in _LOADS for percent in (50, 99)),
            *(
                Metric(f"p{percent} {load}, of that alone", "x")
                for load in _LOADS[1:]
                for percent in (50, 99)
            ),
            Metric("flood", "operations/s", higher_is_better=True),
        ]

    def sample(self, bench: Bench, number: int) -> list[Measure]:
        assert bench.place.another_tenant is not None
        other = replace(bench, endpoint=bench.place.another_tenant())
        with bench.client(role="quiet", prefix=f"quiet-{number}") as quiet:
            alone = bench.measure(quiet)
            with other.client(role="flood", prefix=f"flood-{number}") as flood:
                beside = bench.measure(quiet, flood)
            measures = [
                *percentiles(_LOADS[0], alone),
                *percentiles(_LOADS[1], beside, alone),
                # Latencies are the quiet tenant's only.
                Measure("flood", (beside.operations - len(beside.latencies)) / beside.seconds, beside.cpu_ms),
            ]
            if beside.cpu_ms is not None:
                cost = beside.cpu_ms / _BURNERS
                with bench.clients(_BURNERS, role="burn", prefix="{n}", cost=cost) as burners:
                    measures += percentiles(_LOADS[2], bench.measure(quiet, *burners), alone)
        return measures

    async def work(self, saver: BaseCheckpointSaver[Any], /, *, blocking: bool, **options: Any) -> Phases:
        role, prefix = options["role"], options["prefix"]
        if role == "burn":
            yield None
            yield await self._burn(options["cost"] / 1000, prefix)
            return
        resting = deque(
            Thread(name=f"{prefix}-{number}", parent=start(f"{prefix}-{number}"))
            for number in range(self.threads)
        )
        for _ in range(4):
            await asyncio.gather(*(thread.operate(saver) for thread in resting))
        yield None
        if role == "flood":
            flood = await self._operate(saver, resting, self.rate * self.share, 2 * _LEAD + self.seconds)
            yield replace(flood, latencies=())
        while role == "quiet":
            await asyncio.sleep(_LEAD)
            yield await self._operate(saver, resting, self.rate, self.seconds)

    async def _operate(
        self, saver: BaseCheckpointSaver[Any], resting: deque[Thread], rate: int, seconds: float
    ) -> Work:
        latencies: list[float] = []

        async def operate(thread: Thread, intended: float) -> None:
            await thread.operate(saver)
            latencies.append(1000 * (time.monotonic() - intended))
            resting.append(thread)

        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            async for intended in arrivals(rate, seconds):
                if resting:
                    group.create_task(operate(resting.popleft(), intended))
        return Work(len(latencies), started, time.monotonic(), latencies)

    async def _burn(self, cost: float, seed: str) -> Work:
        done = 0
        started = time.monotonic()
        async for _ in arrivals(self.rate * self.share, 2 * _LEAD + self.seconds, seed):
            enough = time.thread_time() + cost
            while time.thread_time() < enough:
                pass
            done += 1
        return Work(done, started, time.monotonic())


def start(thread: str) -> RunnableConfig:
    """Return the parent of a thread's first checkpoint."""
    return {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}


def percentiles(load: str, phase: Phase, alone: Phase | None = None) -> list[Measure]:
    """Return the percentiles of a phase, and what they are of those of another one."""
    measures = []
    for percent in (50, 99):
        value = phase.percentile(percent)
        measures.append(Measure(f"p{percent} {load}", value))
        if alone is not None:
            measures.append(Measure(f"p{percent} {load}, of that alone", value / alone.percentile(percent)))
    return measures
