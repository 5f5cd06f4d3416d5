"""Random sequences of all storage methods have the same results on every storage."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tenure_server import errors
from tenure_server.domain import Operation, PruneStrategy

from tests.property.profiles import SLOW
from tests.storage.backends import Backend, open_backend
from tests.storage.tenant import Tenant, Write, put, put_writes

STORES = ("memory", "postgres", "cached postgres")
EXAMPLES, STEPS = (500, 50) if SLOW else (60, 40)

tenants = st.sampled_from([0, 1])
threads = st.sampled_from(["t", "u", "é:|"])
namespaces = st.sampled_from(["", "child", "child:1"])
steps = st.sampled_from(["1", "2", "3", "4", "5"])
parents = st.none() | steps
channels = st.sampled_from(["x", "y", "__pregel_tasks"])
versions = st.dictionaries(channels, st.sampled_from(["1", "2", "3"]), max_size=3)
payloads = st.none() | st.sampled_from([b"", b"s", b"larger than what is inline", b"l" * 3000])
scalars = st.sampled_from([None, True, False, 0, 1, 1.0, 2, "1", "", "run", "x" * 1500])
metadata = st.fixed_dictionaries(
    {},
    optional={
        "run_id": st.sampled_from(["run", "other run"]),
        "k": scalars | st.sampled_from([[1], [2], {}, {"a": None}]),
        "parents": st.dictionaries(st.just(""), steps) | st.just({}),
        "counters_since_delta_snapshot": st.dictionaries(channels, st.just([1, 1]), max_size=2),
    },
)
writes = st.builds(
    Write,
    channel=channels,
    data=st.sampled_from([b"", b"w", b"a write of some length"]),
    task=st.sampled_from(["a", "b"]),
    idx=st.sampled_from([-4, -1, 0, 1]),
    path=st.sampled_from(["", "~a"]),
)
puts = st.builds(
    lambda thread, ns, step, parent, held, given, meta, v: put(
        thread,
        step,
        # Parents that form a circle have no meaning: each goes back.
        parent if parent is not None and parent != step and not _ahead(step, parent) else None,
        ns=ns,
        versions=held,
        new={channel: given[channel] for channel in held if channel in given},
        metadata=meta,
        format=v,
    ),
    threads,
    namespaces,
    steps,
    parents,
    versions,
    st.dictionaries(channels, payloads, max_size=3),
    metadata,
    st.sampled_from([3, 4]),
)
mutations = puts | st.builds(
    lambda thread, ns, step, given: put_writes(thread, step, *given, ns=ns),
    threads,
    namespaces,
    steps,
    st.lists(writes, min_size=1, max_size=3),
)
operation_ids = st.none() | st.sampled_from([b"%16d" % number for number in range(3)])
targets = st.sampled_from(["t", "u", "copy"])


def _ahead(step: str, parent: str) -> bool:
    """Order ids so that a parent may be greater (a slow clock) and yet no circle can arise."""
    order = "13524"
    return order.index(parent) >= order.index(step)


class Stores:
    """The storages, opened once; each example takes new tenants."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._runner = asyncio.Runner()
        self._opened = AsyncExitStack()
        self.backends: Mapping[str, Backend] = {
            name: self.run(self._opened.enter_async_context(open_backend(name, request))) for name in STORES
        }

    def run(self, work: Awaitable[Any]) -> Any:
        """Run work on the loop of the storages."""
        return self._runner.get_loop().run_until_complete(work)

    def close(self) -> None:
        """Close them."""
        self.run(self._opened.aclose())
        self._runner.close()


class Comparison(RuleBasedStateMachine):
    """Does everything on each storage, for two tenants."""

    stores: Stores

    @initialize()
    def take_tenants(self) -> None:
        self.tenants = {
            name: [Tenant(backend.store, self.stores.run(backend.new_tenant())) for _ in range(2)]
            for name, backend in self.stores.backends.items()
        }

    def same(self, index: int, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of each storage's tenant and require equal outcomes."""
        outcomes = {}
        for name, pair in self.tenants.items():
            try:
                outcomes[name] = self.stores.run(getattr(pair[index], method)(*args, **kwargs))
            except errors.TenureError as error:
                outcomes[name] = (type(error), error.metadata)
        first = outcomes[STORES[0]]
        for name, outcome in outcomes.items():
            assert outcome == first, f"{name} differs from {STORES[0]}"
        return first

    @rule(index=tenants, batch=st.lists(mutations, min_size=1, max_size=4))
    def write(self, index: int, batch: list[Any]) -> None:
        assert self.same(index, "apply", *batch) == [None] * len(batch)

    @rule(index=tenants, thread=threads, ns=namespaces, step=parents)
    def read(self, index: int, thread: str, ns: str, step: str | None) -> None:
        self.same(index, "get", thread, step, ns)

    @rule(
        index=tenants,
        limit=st.sampled_from([1, 3, 1000]),
        query=st.fixed_dictionaries(
            {},
            optional={
                "thread_id": threads,
                "checkpoint_ns": namespaces,
                "checkpoint_id": steps,
                "before": steps,
                "filter": st.fixed_dictionaries(
                    {}, optional={"k": scalars, "run_id": scalars, "absent": scalars}
                ),
                "after": st.tuples(steps, threads, namespaces),
            },
        ),
    )
    def list(self, index: int, limit: int, query: dict[str, Any]) -> None:
        self.same(index, "listing", limit, **query)

    @rule(index=tenants, thread=threads, ns=namespaces, step=parents, wanted=st.sets(channels, min_size=1))
    def history(self, index: int, thread: str, ns: str, step: str | None, wanted: set[str]) -> None:
        found = self.same(index, "history", thread, *sorted(wanted), id=step, ns=ns)
        assert found.keys() == wanted

    @rule(
        index=tenants,
        prefix=st.sampled_from(["", "t", "é"]),
        after=st.none() | threads,
        limit=st.integers(1, 4),
    )
    def list_threads(self, index: int, prefix: str, after: str | None, limit: int) -> None:
        self.same(index, "threads", prefix, after, limit)

    @rule(index=tenants, thread=targets, by=operation_ids)
    def delete(self, index: int, thread: str, by: bytes | None) -> None:
        self.same(index, "delete", thread, by=_operation(by, "delete", thread))

    @rule(index=tenants, runs=st.sets(st.sampled_from(["run", "other run"]), min_size=1), by=operation_ids)
    def delete_for_runs(self, index: int, runs: set[str], by: bytes | None) -> None:
        self.same(index, "delete_for_runs", *sorted(runs), by=_operation(by, "runs", *sorted(runs)))

    @rule(index=tenants, source=threads, to=targets, by=operation_ids)
    def copy(self, index: int, source: str, to: str, by: bytes | None) -> None:
        self.same(index, "copy", source, to, by=_operation(by, "copy", source, to))

    @rule(
        index=tenants,
        some=st.sets(targets, min_size=1),
        strategy=st.sampled_from([PruneStrategy.KEEP_LATEST] * 3 + [PruneStrategy.DELETE_ALL]),
        by=operation_ids,
    )
    def prune(self, index: int, some: set[str], strategy: PruneStrategy, by: bytes | None) -> None:
        self.same(
            index,
            "prune",
            *sorted(some),
            strategy=strategy,
            by=_operation(by, "prune", strategy.value, *sorted(some)),
        )

    @invariant()
    def hold_the_same(self) -> None:
        for index in range(2) if hasattr(self, "tenants") else ():
            self.same(index, "stored")
            self.same(index, "threads")


def _operation(id: bytes | None, *asked: str) -> Operation:
    """Return an operation; with a given id it may be a repeat, of the same or of something else."""
    return Operation(id or os.urandom(16), time.monotonic() + 60, json.dumps(asked).encode())


@pytest.fixture
def stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    """The storages to compare."""
    opened = Stores(request)
    yield opened
    opened.close()


@pytest.mark.timeout(3600 if SLOW else 180)
def test_all_storages_behave_alike(stores: Stores) -> None:
    class Machine(Comparison):
        pass

    Machine.stores = stores
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None)
    )
