"""Writers beside the sweeper: puts on threads of which it deletes at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from benchmarks.work import Work
from benchmarks.workloads.base import Measure, Metric, Phases, Workload
from benchmarks.workloads.fair import Thread, percentiles, start
from benchmarks.workloads.load import arrivals

if TYPE_CHECKING:
    from benchmarks.bench import Bench, Phase

_PREFIX = "sweep-"
_LOADS = ("alone", "beside the sweeper")


@dataclass(kw_only=True)
class _Written(Thread):
    """A thread whose writes wait for each other."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, kw_only=True)
class Sweep(Workload):
    """Puts that arrive open-loop, without a sweeper and beside one; a policy keeps a few of each thread.

    With every put one more checkpoint has expired, so that the sweeper always finds something on the threads
    that are written to. It runs in a process of its own, as another replica's would. No write is dropped: one
    whose thread is busy waits, and its latency counts from when it should have started. The server's own
    sweeper is there all the time, but looks once a minute and lets rows stay for longer than this takes.

    Parts without and with a sweeper follow each other as A B B A, so that neither has the quieter minute or
    the smaller tables, and those that are alike count as one.

    Attributes:
        rate: Writes per second over all threads.
        threads: How many are written to, in turn.
        keep: Checkpoints of each that stay.
        interval: Seconds between runs of the sweeper.
        seconds: Length of each of four parts.
        lead: Seconds that writers wait in each part: the sweeper is at work by then.
    """

    rate: int
    threads: int
    keep: int
    interval: float
    seconds: float
    lead: float = 0.5
    operation: str = "write"

    @property
    def metrics(self) -> Sequence[Metric]:
        return [
            *(Metric(f"p{percent} {load}", "ms") for load in _LOADS for percent in (50, 99)),
            *(Metric(f"p{percent} {_LOADS[1]}, of that alone", "x") for percent in (50, 99)),
            *(Metric(f"written {load}", "checkpoints", higher_is_better=True) for load in _LOADS),
            Metric("deleted by the sweeper", "checkpoints", higher_is_better=True),
            Metric("the sweeper's turns", "runs", higher_is_better=True),
        ]

    def prepare(self, bench: Bench) -> None:
        from benchmarks.sweeping import keep_last

        asyncio.run(
            keep_last(**_urls(bench), api_key=bench.endpoint.api_key, prefix=_PREFIX, count=self.keep)
        )

    def sample(self, bench: Bench, number: int) -> list[Measure]:
        phases: dict[str, list[Phase]] = {load: [] for load in _LOADS}
        first, second = _LOADS if number % 2 == 0 else _LOADS[::-1]
        with (
            bench.client(role="write", prefix=f"{_PREFIX}{number}") as writer,
            bench.client(role="sweep", **_urls(bench)) as sweeper,
        ):
            for load in (first, second, second, first):
                # What else is said beside latencies is the first one's.
                clients = [sweeper, writer] if load == _LOADS[1] else [writer]
                phases[load].append(bench.measure(*clients))
        alone, beside = wholes = [_whole(phases[load]) for load in _LOADS]
        return [
            *percentiles(_LOADS[0], alone),
            *percentiles(_LOADS[1], beside, alone),
            *(
                Measure(f"written {load}", whole.operations, whole.cpu_ms)
                for load, whole in zip(_LOADS, wholes, strict=True)
            ),
            Measure("deleted by the sweeper", beside.extra["deleted"]),
            Measure("the sweeper's turns", beside.extra["runs"]),
        ]

    async def work(self, saver: BaseCheckpointSaver[Any], /, *, blocking: bool, **options: Any) -> Phases:
        if options["role"] == "sweep":
            from benchmarks.sweeping import sweep, sweeping

            async with sweeping(options["ops_url"], options["app_url"]) as sweeper:
                yield None
                while True:
                    started = time.monotonic()
                    swept = await sweep(sweeper, self.interval, 2 * self.lead + self.seconds)
                    yield Work(0, started, time.monotonic(), extra=asdict(swept))
        names = [f"{options['prefix']}-{number}" for number in range(self.threads)]
        threads = [_Written(name=name, parent=start(name)) for name in names]
        for _ in range(self.keep):
            await asyncio.gather(*(thread.put(saver) for thread in threads))
        yield None
        while True:
            await asyncio.sleep(self.lead)
            yield await self._write(saver, threads)

    async def _write(self, saver: BaseCheckpointSaver[Any], threads: Sequence[_Written]) -> Work:
        latencies: list[float] = []

        async def write(thread: _Written, intended: float) -> None:
            async with thread.turn:
                await thread.put(saver)
            latencies.append(1000 * (time.monotonic() - intended))

        started = time.monotonic()
        following = cycle(threads)
        async with asyncio.TaskGroup() as group:
            async for intended in arrivals(self.rate, self.seconds):
                group.create_task(write(next(following), intended))
        return Work(len(latencies), started, time.monotonic(), latencies)


def _whole(parts: Sequence[Phase]) -> Phase:
    """Return phases as one."""
    operations = sum(part.operations for part in parts)
    spent = [part.cpu_ms * part.operations for part in parts if part.cpu_ms is not None]
    return replace(
        parts[0],
        operations=operations,
        seconds=sum(part.seconds for part in parts),
        latencies=[latency for part in parts for latency in part.latencies],
        cpu_ms=sum(spent) / operations if len(spent) == len(parts) else None,
        extra={name: sum(part.extra[name] for part in parts) for name in parts[0].extra},
    )


def _urls(bench: Bench) -> dict[str, str]:
    assert bench.place.ops_url is not None
    assert bench.place.app_url is not None
    return {"ops_url": bench.place.ops_url, "app_url": bench.place.app_url}
