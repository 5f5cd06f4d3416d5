"""Random sequences of saver operations give the same results from TenureSaver and from InMemorySaver.

The whole stack is there: the client in both colours, a server process, Postgres, Redis. Ids and versions are
minted as LangGraph mints them, so new ids always sort last. One difference is wanted: over several namespaces
Tenure lists by id, InMemorySaver namespace by namespace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import WRITES_IDX_MAP, Checkpoint, CheckpointTuple
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from tenure_client import TenureSaver

from tests.harness.stack import Stack
from tests.property.profiles import SLOW

EXAMPLES, STEPS = (300, 50) if SLOW else (40, 30)
DELTAS = ["log", "events"]
"""Channels whose checkpoints hold no value but, now and then, a snapshot."""

threads = st.sampled_from(["t", "u", "é:|"])
namespaces = st.sampled_from(["", "child", "child:1|grandchild:2"])
colours = st.sampled_from(["sync", "async"])
values = st.sampled_from(
    [
        *(0, None, "", "text", 2.5, b"\x00bytes", [1, {"a": [None]}], "l" * 9000, {1, 2}),
        [HumanMessage("hi", id="1"), AIMessage("ho", id="2")],
    ]
)
channel_names = st.sampled_from(["messages", "x", "y"])
scalars = st.sampled_from([None, True, 0, 1, 1.0, "loop", "input", "x" * 1500, [1], {"a": 1}])
some_metadata = st.fixed_dictionaries(
    {"source": st.sampled_from(["input", "loop", "update", "fork"])},
    optional={"step": st.integers(-1, 3), "k": scalars, "parents": st.just({"": "1"})},
)
writes = st.lists(
    st.tuples(st.sampled_from(["messages", "x", *DELTAS, *WRITES_IDX_MAP]), values), min_size=1, max_size=4
)
tasks = st.tuples(st.sampled_from(["task a", "task b"]), st.sampled_from(["", "~__pregel_pull, b", "~a"]))
which = st.integers(0, 10_000)
"""Chooses one of the checkpoints there are."""


class Comparison(RuleBasedStateMachine):
    """Does everything with both savers and compares what comes back."""

    stack: Stack
    runner: asyncio.Runner

    @initialize()
    def open_savers(self) -> None:
        self.oracle = InMemorySaver()
        self.saver = TenureSaver(self.stack.target, api_key=self.stack.new_tenant().api_key)
        self.known: list[tuple[str, str, str]] = []
        self.checkpoints: dict[tuple[str, str, str], Checkpoint] = {}

    def teardown(self) -> None:
        if hasattr(self, "saver"):
            self.runner.run(self.saver.aclose())
            self.saver.close()

    def call(self, colour: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of Tenure's saver in a colour."""
        if colour == "sync":
            result = getattr(self.saver, method)(*args, **kwargs)
            return list(result) if method == "list" else result

        async def call() -> Any:
            result = getattr(self.saver, f"a{method}")(*args, **kwargs)
            return [item async for item in result] if method == "list" else await result

        return self.runner.run(call())

    def same(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a reading method of the oracle and of Tenure in both colours; return the oracle's result."""
        expected = getattr(self.oracle, method)(*args, **kwargs)
        for colour in ("sync", "async"):
            assert self.call(colour, method, *args, **kwargs) == expected, colour
        return expected

    @rule(
        colour=colours,
        thread=threads,
        ns=namespaces,
        parent=st.none() | which,
        given=st.dictionaries(channel_names, values, max_size=3),
        dropped=st.sets(channel_names, max_size=1),
        written=st.sets(st.sampled_from(DELTAS)),
        snapshots=st.sets(st.sampled_from(DELTAS), max_size=1),
        metadata=some_metadata,
        run=st.none() | st.sampled_from(["run 1", "run 2"]),
    )
    def put(
        self,
        colour: str,
        thread: str,
        ns: str,
        parent: int | None,
        given: dict[str, Any],
        dropped: set[str],
        written: set[str],
        snapshots: set[str],
        metadata: dict[str, Any],
        run: str | None,
    ) -> None:
        """Put a child of any checkpoint of the namespace, as a step of a graph or a fork does."""
        before = self._choose(parent, thread, ns)
        checkpoint = self._child(before, given, dropped, written | snapshots, snapshots)
        config = _config(thread, ns, before["id"] if before else None)
        if run is not None:
            config["metadata"] = {"run_id": run}
        held = checkpoint["channel_versions"]
        old = before["channel_versions"] if before else {}
        new_versions = {channel: version for channel, version in held.items() if old.get(channel) != version}
        args = (config, checkpoint, metadata, new_versions)
        assert self.call(colour, "put", *args) == self.oracle.put(*args)  # type: ignore[arg-type]
        self._remember(thread, ns, checkpoint)

    @precondition(lambda self: self.known)
    @rule(colour=colours, index=which, metadata=some_metadata)
    def put_again(self, colour: str, index: int, metadata: dict[str, Any]) -> None:
        """Put an id again with other metadata and as a root, as a retried or repaired step does."""
        thread, ns, step = self.known[index % len(self.known)]
        checkpoint = self.checkpoints[thread, ns, step]
        args = (_config(thread, ns), checkpoint, metadata, checkpoint["channel_versions"])
        assert self.call(colour, "put", *args) == self.oracle.put(*args)  # type: ignore[arg-type]

    @rule(colour=colours, thread=threads, ns=namespaces, index=st.none() | which, given=writes, task=tasks)
    def put_writes(
        self,
        colour: str,
        thread: str,
        ns: str,
        index: int | None,
        given: list[tuple[str, Any]],
        task: tuple[str, str],
    ) -> None:
        """Write to any checkpoint of the namespace, or to one that is not there."""
        chosen = self._choose(index, thread, ns)
        config = _config(thread, ns, chosen["id"] if chosen else "not there")
        self.oracle.put_writes(config, given, *task)
        self.call(colour, "put_writes", config, given, *task)

    @rule(thread=threads, ns=namespaces)
    def get_latest(self, thread: str, ns: str) -> None:
        self.same("get_tuple", _config(thread, ns))

    @precondition(lambda self: self.known)
    @rule(index=which)
    def get_by_id(self, index: int) -> None:
        self.same("get_tuple", _config(*self.known[index % len(self.known)]))

    @rule(
        thread=st.none() | threads,
        ns=st.none() | namespaces,
        index=st.none() | which,
        before=st.none() | which,
        filter=st.none()
        | st.fixed_dictionaries({}, optional={"source": scalars, "k": scalars, "absent": scalars}),
        limit=st.none() | st.integers(0, 5),
    )
    def list_checkpoints(
        self,
        thread: str | None,
        ns: str | None,
        index: int | None,
        before: int | None,
        filter: dict[str, Any] | None,
        limit: int | None,
    ) -> None:
        config = None if thread is None else _config(thread, ns, self._any_id(index))
        before_id = self._any_id(before)
        query: dict[str, Any] = {
            "filter": filter,
            "before": None if before_id is None else _config("ignored", "ignored", before_id),
        }
        expected = sorted(self.oracle.list(config, **query), key=_place)
        expected.sort(key=_id, reverse=True)
        for colour in ("sync", "async"):
            assert self.call(colour, "list", config, **query, limit=limit) == expected[:limit], colour

    @rule(
        thread=threads,
        ns=namespaces,
        index=st.none() | which,
        wanted=st.lists(st.sampled_from(["messages", *DELTAS]), unique=True),
    )
    def get_delta_channel_history(self, thread: str, ns: str, index: int | None, wanted: list[str]) -> None:
        chosen = self._choose(index, thread, ns)
        config = _config(thread, ns, chosen["id"] if chosen else None)
        self.same("get_delta_channel_history", config=config, channels=wanted)

    @rule(colour=colours, thread=threads)
    def delete_thread(self, colour: str, thread: str) -> None:
        self.oracle.delete_thread(thread)
        self.call(colour, "delete_thread", thread)
        self.known = [name for name in self.known if name[0] != thread]

    @invariant()
    def hold_the_same(self) -> None:
        if hasattr(self, "oracle"):
            expected = sorted(self.oracle.list(None), key=_place)
            expected.sort(key=_id, reverse=True)
            assert self.call("sync", "list", None) == expected

    def _child(
        self,
        before: Checkpoint | None,
        given: dict[str, Any],
        dropped: set[str],
        written: set[str],
        snapshots: set[str],
    ) -> Checkpoint:
        """Return the checkpoint of the next step: new versions of what was written, the rest as before."""
        held = {
            channel: value
            for channel, value in (before["channel_values"] if before else {}).items()
            if channel not in dropped and channel not in written
        }
        versions = dict(before["channel_versions"]) if before else {}
        for channel in [*given, *sorted(dropped), *sorted(written)]:
            versions[channel] = self.saver.get_next_version(versions.get(channel), None)  # type: ignore[arg-type]
        deltas = {channel: _DeltaSnapshot([channel, len(self.known)]) for channel in sorted(snapshots)}
        return {
            "v": 4,
            "id": str(uuid6(clock_seq=len(self.known) % 8192)),
            "ts": "2026-01-01T00:00:00+00:00",
            "channel_values": {**held, **given, **deltas},
            "channel_versions": versions,
            "versions_seen": {"node": dict(versions)},
            "updated_channels": sorted([*given, *dropped, *written]),
        }

    def _remember(self, thread: str, ns: str, checkpoint: Checkpoint) -> None:
        self.known.append((thread, ns, checkpoint["id"]))
        self.checkpoints[thread, ns, checkpoint["id"]] = checkpoint

    def _choose(self, index: int | None, thread: str, ns: str) -> Checkpoint | None:
        there = [name for name in self.known if name[:2] == (thread, ns)]
        return None if index is None or not there else self.checkpoints[there[index % len(there)]]

    def _any_id(self, index: int | None) -> str | None:
        return None if index is None or not self.known else self.known[index % len(self.known)][2]


def _config(thread: str, ns: str | None = "", id: str | None = None) -> RunnableConfig:
    named = {"thread_id": thread, "checkpoint_ns": ns, "checkpoint_id": id}
    return {"configurable": {name: value for name, value in named.items() if value is not None}}


def _place(found: CheckpointTuple) -> tuple[str, str]:
    return found.config["configurable"]["thread_id"], found.config["configurable"]["checkpoint_ns"]


def _id(found: CheckpointTuple) -> str:
    return found.checkpoint["id"]


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """An event loop for the asynchronous colour."""
    with asyncio.Runner() as opened:
        yield opened


@pytest.mark.timeout(3600 if SLOW else 180)
def test_tenure_saver_behaves_like_in_memory_saver(stack: Stack, runner: asyncio.Runner) -> None:
    class Machine(Comparison):
        pass

    Machine.stack, Machine.runner = stack, runner
    run_state_machine_as_test(Machine, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS))
