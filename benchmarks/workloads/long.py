"""One long conversation: how much a turn costs when much lies behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from benchmarks.conversations import PROSE_WORDS, RANDOM_WORDS, chat_graph, converse, message
from benchmarks.workloads.base import Measure, Metric, Phases, Workload

if TYPE_CHECKING:
    from benchmarks.bench import Bench


@dataclass(frozen=True, kw_only=True)
class Long(Workload):
    """A conversation that is timed and weighed.

    Attributes:
        turns: Its length.
        tail: Turns at its end that the latency is taken from.
        prose: Whether its text compresses as prose does.
    """

    turns: int
    tail: int
    prose: bool = False

    @property
    def metrics(self) -> Sequence[Metric]:
        return [
            Metric("p50 tail", "ms"),
            Metric("stored", "KB"),
            Metric("wal", "KB"),
            Metric("p50 all", "ms", shown=False),
        ]

    def sample(self, bench: Bench, number: int) -> list[Measure]:
        bench.place.tidy()
        before = bench.place.wal_bytes()
        with bench.client(thread=f"long-{number}", marks=[self.turns - self.tail, self.turns]) as client:
            start = bench.measure(client)
            tail = bench.measure(client)
        written = bench.place.wal_bytes()
        measures = [
            Measure("p50 tail", tail.percentile(50), tail.cpu_ms),
            Measure("p50 all", start.percentile(50), start.cpu_ms),
        ]
        if before is not None and written is not None:
            measures.append(Measure("wal", (written - before) / 1000))
        stored = bench.place.stored_bytes()
        if stored is not None:
            measures.append(Measure("stored", stored / 1000))
        return measures

    async def work(self, saver: BaseCheckpointSaver[Any], /, *, blocking: bool, **options: Any) -> Phases:
        vocabulary = PROSE_WORDS if self.prose else RANDOM_WORDS
        graph = chat_graph(saver, blocking=blocking, vocabulary=vocabulary)
        given = partial(message, vocabulary=vocabulary)
        # On the same thread: one that only warms up would be weighed too.
        yield None
        done = 0
        for mark in options["marks"]:
            turns = range(done, mark)
            yield await converse(graph, [options["thread"]], turns, blocking=blocking, given=given)
            done = mark


@dataclass(frozen=True, kw_only=True)
class Wire(Long):
    """Bytes on the wire of a long conversation, counted by a relay in a pass of its own.

    Attributes:
        marks: Lengths at which a turn is weighed, as the mean of the last `tail` turns.
        heavy: The last length that is tried with other savers, which would write gigabytes beyond it.
    """

    marks: Sequence[int]
    heavy: int

    @property
    def metrics(self) -> Sequence[Metric]:
        return [Metric(f"turn {mark:,}", "KB/turn") for mark in self.marks]

    def sample(self, bench: Bench, number: int) -> list[Measure]:
        marks = [mark for mark in self.marks if mark <= self.heavy or bench.system.name == "tenure"]
        stops = [stop for mark in marks for stop in (mark - self.tail, mark)]
        measures = []
        thread = f"wire-{number}"
        with bench.relayed() as (behind, relay), behind.client(thread=thread, marks=stops) as client:
            for mark in marks:
                bench.measure(client)
                before = relay.total
                bench.measure(client)
                measures.append(Measure(f"turn {mark:,}", (relay.total - before) / self.tail / 1000))
        return measures
