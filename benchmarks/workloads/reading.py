"""Reads: a large state that the client holds or does not, and the state and history of a long thread."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from benchmarks.conversations import chat_graph, config, converse
from benchmarks.work import Work
from benchmarks.workloads.base import Measure, Metric, Phases, Workload
from benchmarks.workloads.turns import GRAPHS, numbered

if TYPE_CHECKING:
    from benchmarks.bench import Bench


@dataclass(frozen=True, kw_only=True)
class LargeGets(Workload):
    """Gets of a `bytes` state by a client that holds it, and by one that has never seen it.

    Attributes:
        size: Bytes of the state.
        threads: Threads that a new client reads once each.
        gets: How often a client reads what it holds.
    """

    size: int
    threads: int
    gets: int
    operation: str = "get"

    @property
    def metrics(self) -> Sequence[Metric]:
        return [Metric("held", "ms"), Metric("new client", "ms")]

    def prepare(self, bench: Bench) -> None:
        if bench.system.kind != "memory":
            with bench.client(fill=True) as client:
                bench.measure(client)

    def sample(self, bench: Bench, number: int) -> list[Measure]:
        # What is in the process' own memory cannot be new to it.
        in_process = bench.system.kind == "memory"
        with bench.client(fill=in_process) as client:
            if in_process:
                bench.measure(client)
            new, held = bench.measure(client), bench.measure(client)
        measures = [Measure("held", held.percentile(50), held.cpu_ms)]
        return measures if in_process else [*measures, Measure("new client", new.percentile(50), new.cpu_ms)]

    async def work(self, saver: BaseCheckpointSaver[Any], /, *, blocking: bool, **options: Any) -> Phases:
        graph = GRAPHS["replace"](saver, blocking, self.size)
        threads = [f"large-{number}" for number in range(self.threads)]
        await converse(chat_graph(saver), [f"warm-{random.random()}"], range(3))
        yield None
        if options["fill"]:
            for thread in threads:
                filled = await converse(graph, [thread], range(1), given=numbered)
            yield filled

        async def get(number: int) -> None:
            found = await saver.aget_tuple(config(threads[number % self.threads]))
            assert found is not None
            assert len(found.checkpoint["channel_values"]["blob"]) == self.size

        yield await _repeated(get, range(self.threads))

        async def again(number: int) -> None:
            await get(0)

        yield await _repeated(again, range(self.gets))


@dataclass(frozen=True, kw_only=True)
class Histories(Workload):
    """`aget_state` and `aget_state_history` of a long conversation.

    Attributes:
        turns: Its length.
        limit: Snapshots of the shorter history.
        states / shorts / fulls: How often each is read.
    """

    turns: int
    limit: int
    states: int
    shorts: int
    fulls: int
    operation: str = "read"

    @property
    def metrics(self) -> Sequence[Metric]:
        return [
            Metric("get_state", "ms"),
            Metric(f"history, first {self.limit}", "ms"),
            Metric("history, all", "ms"),
        ]

    def prepare(self, bench: Bench) -> None:
        if bench.system.kind != "memory":
            with bench.client(fill=True) as client:
                bench.measure(client)

    def sample(self, bench: Bench, number: int) -> list[Measure]:
        with bench.client(fill=bench.system.kind == "memory") as client:
            if bench.system.kind == "memory":
                bench.measure(client)
            phases = [bench.measure(client) for _ in self.metrics]
        return [
            Measure(metric.name, phase.percentile(50), phase.cpu_ms)
            for metric, phase in zip(self.metrics, phases, strict=True)
        ]

    async def work(self, saver: BaseCheckpointSaver[Any], /, *, blocking: bool, **options: Any) -> Phases:
        graph = chat_graph(saver)
        await converse(graph, [f"warm-{random.random()}"], range(3))
        yield None
        if options["fill"]:
            yield await converse(graph, ["history"], range(self.turns))

        async def state(_: int) -> None:
            assert len((await graph.aget_state(config("history"))).values["messages"]) == 2 * self.turns

        async def short(_: int) -> None:
            assert await _count(graph, self.limit) == self.limit

        async def full(_: int) -> None:
            assert await _count(graph, None) == 3 * self.turns

        for read, times in ((state, self.states), (short, self.shorts), (full, self.fulls)):
            yield await _repeated(read, range(times))


async def _count(graph: Any, limit: int | None) -> int:
    return len([snapshot async for snapshot in graph.aget_state_history(config("history"), limit=limit)])


async def _repeated(operation: Callable[[int], Awaitable[None]], numbers: range) -> Work:
    latencies = []
    began = time.monotonic()
    for number in numbers:
        started = time.perf_counter()
        await operation(number)
        latencies.append(1000 * (time.perf_counter() - started))
    return Work(len(latencies), began, time.monotonic(), latencies)
