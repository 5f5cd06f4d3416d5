"""Long-term memory: many clients put and get small items, and one searches by filter."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langgraph.store.base import BaseStore, PutOp

from benchmarks.conversations import text
from benchmarks.stores import Call, open_store, perform, set_up_postgres_store
from benchmarks.systems import Endpoint, System
from benchmarks.workloads.base import Measure, Metric, Phases, Workload

if TYPE_CHECKING:
    from benchmarks.bench import Bench, Phase

STORES = ("memory", "postgres", "postgres-sync", "tenure", "tenure-sync")
_AT_ONCE = 500
"""Puts of a batch that fills a store."""
_WORDS = 32
"""Of an item: about 300 bytes of JSON together with the rest."""


@dataclass(frozen=True, kw_only=True)
class StoreWorkload(Workload):
    """A workload that opens stores rather than savers."""

    systems: Sequence[str] = STORES

    def label(self, system: System) -> str:
        return system.store_label

    def open(self, system: System, endpoint: Endpoint) -> AbstractAsyncContextManager[Any]:
        return open_store(system, endpoint)

    def prepare(self, bench: Bench) -> None:
        if bench.system.kind == "postgres":
            assert bench.place.admin_url is not None
            set_up_postgres_store(bench.place.admin_url)


@dataclass(frozen=True, kw_only=True)
class _Concurrent(StoreWorkload):
    """Operations of 32 clients: in as many tasks of one process, and spread over processes.

    Attributes:
        operations: How many in each of the two shapes.
        processes / tasks: The second shape; each process has a store object and a pool of its own.
        users: Namespaces that each client works with.
    """

    operations: int
    processes: int = 8
    tasks: int = 4
    users: int = 8
    rounds: int = 3

    @property
    def spread(self) -> str:
        """Name of the shape with processes."""
        return f"{self.processes} processes x {self.tasks}"

    @property
    def together(self) -> str:
        """Name of the shape with one process."""
        return f"1 process x {self.processes * self.tasks}"

    @property
    def metrics(self) -> Sequence[Metric]:
        return [
            metric
            for shape in (self.spread, self.together)
            for metric in (
                Metric(f"{shape}, {self.operation}s/s", f"{self.operation}s/s", higher_is_better=True),
                Metric(f"{shape}, p50", "ms"),
                Metric(f"{shape}, p99", "ms"),
            )
        ]

    def sample(self, bench: Bench, number: int) -> list[Measure]:
        in_process = bench.system.kind == "memory"
        measures = []
        everyone = self.processes * self.tasks
        with bench.client(prefix=f"{number}-all", tasks=everyone, fill=in_process) as client:
            measures += self._measures(self.together, bench.measure(client))
        # What each process has in its own memory is nothing that they share.
        if not in_process:
            with bench.clients(
                self.processes, prefix=f"{number}-{{n}}", tasks=self.tasks, fill=False
            ) as clients:
                measures += self._measures(self.spread, bench.measure(*clients))
        return measures

    def _measures(self, shape: str, phase: Phase) -> list[Measure]:
        return [
            Measure(f"{shape}, {self.operation}s/s", phase.rate, phase.cpu_ms),
            Measure(f"{shape}, p50", phase.percentile(50), phase.cpu_ms),
            Measure(f"{shape}, p99", phase.percentile(99)),
        ]

    async def work(self, store: BaseStore, /, *, blocking: bool, **options: Any) -> Phases:
        prefix, tasks = options["prefix"], options["tasks"]
        if options["fill"]:
            await fill(store, self.items(), blocking=blocking)
        each = self.operations // (self.processes * self.tasks)
        warm, measured = zip(*(self.calls(f"{prefix}-{task}", each) for task in range(tasks)), strict=True)
        await perform(store, warm, blocking=blocking)
        yield None
        work, results = await perform(store, measured, blocking=blocking)
        for result in results:
            self.check(result)
        yield work

    def items(self) -> Iterator[PutOp]:
        """Yield what has to be there."""
        yield from ()

    @abstractmethod
    def calls(self, client: str, count: int) -> tuple[list[Call], list[Call]]:
        """Return a client's calls for warming up, and those that are measured."""

    def check(self, results: Sequence[Any]) -> None:
        """Check what a client's calls returned."""


@dataclass(frozen=True, kw_only=True)
class Puts(_Concurrent):
    """Puts, half of them of new keys and half of keys that are there."""

    operation: str = "put"

    def calls(self, client: str, count: int) -> tuple[list[Call], list[Call]]:
        def put(user: int, key: str, version: int) -> Call:
            return Call("put", (_facts(f"{client}-{user}"), key, _fact(f"{client} {key}", version)))

        there = [put(user, f"fact-{key}", 0) for user in range(self.users) for key in range(2)]
        measured = []
        for number in range(count):
            user, turn = number % self.users, number // self.users
            overwrites = (user + turn) % 2 == 0
            key = f"fact-{turn // 2 % 2}" if overwrites else f"fact-{2 + number}"
            measured.append(put(user, key, 1 + number))
        return there, measured


@dataclass(frozen=True, kw_only=True)
class Gets(_Concurrent):
    """Gets of keys that are there, of any user.

    Attributes:
        keys: Items of each user.
        everyone: How many users there are.
    """

    keys: int = 20
    everyone: int = 200
    operation: str = "get"

    def prepare(self, bench: Bench) -> None:
        super().prepare(bench)
        if bench.system.kind != "memory":
            with bench.client(prefix="fill", tasks=1, fill=True):
                pass

    def items(self) -> Iterator[PutOp]:
        for user in range(self.everyone):
            for key in range(self.keys):
                yield PutOp(_facts(str(user)), f"fact-{key}", _fact(f"{user} {key}", 0))

    def calls(self, client: str, count: int) -> tuple[list[Call], list[Call]]:
        chance = random.Random(client)
        made = [
            Call(
                "get",
                (_facts(str(chance.randrange(self.everyone))), f"fact-{chance.randrange(self.keys)}"),
            )
            for _ in range(2 * self.users + count)
        ]
        return made[: 2 * self.users], made[2 * self.users :]

    def check(self, results: Sequence[Any]) -> None:
        assert all(item is not None for item in results)


@dataclass(frozen=True, kw_only=True)
class FilterSearches(StoreWorkload):
    """Searches by filter, without a query, in one large namespace.

    Attributes:
        items: How many it holds.
        searches: How many of each kind are measured.
        limit: Of each.
    """

    items: int
    searches: int
    limit: int = 10
    operation: str = "search"

    @property
    def metrics(self) -> Sequence[Metric]:
        return [Metric("p50, 10 % match", "ms"), Metric("p50, 1 % match", "ms"), Metric("p50, none", "ms")]

    def prepare(self, bench: Bench) -> None:
        super().prepare(bench)
        if bench.system.kind != "memory":
            with bench.client(fill=True):
                pass

    def sample(self, bench: Bench, number: int) -> list[Measure]:
        with bench.client(fill=bench.system.kind == "memory") as client:
            phases = [bench.measure(client) for _ in self.metrics]
        return [
            Measure(metric.name, phase.percentile(50), phase.cpu_ms)
            for metric, phase in zip(self.metrics, phases, strict=True)
        ]

    async def work(self, store: BaseStore, /, *, blocking: bool, **options: Any) -> Phases:
        if options["fill"]:
            await fill(store, self._items(), blocking=blocking)
        # Which items match depends on the search, so that no two in a row want the same.
        kinds = [
            [{"tenth": number % 10} for number in range(self.searches)],
            [{"tenth": number % 10, "hundredth": number % 100} for number in range(self.searches)],
            [{"tenth": 10 + number} for number in range(self.searches)],
        ]
        calls = [
            [
                Call("search", (("docs", "shared"),), {"filter": wanted, "limit": self.limit})
                for wanted in kind
            ]
            for kind in kinds
        ]
        await perform(store, [[kind[0] for kind in calls] * 3], blocking=blocking)
        yield None
        for kind, expected in zip(calls, (self.limit, self.limit, 0), strict=True):
            work, (results,) = await perform(store, [kind], blocking=blocking)
            assert all(len(found) == expected for found in results)
            yield work

    def _items(self) -> Iterator[PutOp]:
        for number in range(self.items):
            matched = {"tenth": number % 10, "hundredth": number % 100}
            yield PutOp(("docs", "shared"), f"doc-{number}", _fact(str(number), 0) | matched)


async def fill(store: BaseStore, items: Iterator[PutOp], *, blocking: bool) -> None:
    """Put items, many at a time."""
    waiting = list(items)
    batches = [
        Call("batch", (waiting[start : start + _AT_ONCE],)) for start in range(0, len(waiting), _AT_ONCE)
    ]
    await perform(store, [batches], blocking=blocking)


def _facts(user: str) -> tuple[str, ...]:
    return ("users", user, "facts")


def _fact(seed: str, version: int) -> dict[str, Any]:
    return {"text": text(f"{seed} {version}", _WORDS), "version": version, "source": "chat", "sure": 0.75}
