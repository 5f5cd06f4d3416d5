"""Random sequences of saver operations give the same results from TenureSaver and from InMemorySaver.

Large values have a test of their own, `test_chunks_differential.py`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import WRITES_IDX_MAP

from tests.harness.stack import Stack
from tests.property.profiles import SLOW
from tests.property.saver_comparison import Comparison, colours, config_of, id_of, place_of, which

EXAMPLES, STEPS = (300, 50) if SLOW else (40, 30)
DELTAS = ["log", "events"]
"""Channels whose checkpoints hold no value but, now and then, a snapshot."""

threads = st.sampled_from(["t", "u", "é:|"])
namespaces = st.sampled_from(["", "child", "child:1|grandchild:2"])
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


class AnySequence(Comparison):
    """Every operation, over threads and namespaces with awkward names."""

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
        before = self.choose(parent, thread, ns)
        checkpoint = self.child_of(before, given, dropped, written | snapshots, snapshots)
        self.put_child(colour, thread, ns, before, checkpoint, metadata, run)

    @precondition(lambda self: self.known)
    @rule(colour=colours, index=which, metadata=some_metadata)
    def put_again(self, colour: str, index: int, metadata: dict[str, Any]) -> None:
        """Put an id again with other metadata and as a root, as a retried or repaired step does."""
        thread, ns, step = self.known[index % len(self.known)]
        checkpoint = self.checkpoints[thread, ns, step]
        args = (config_of(thread, ns), checkpoint, metadata, checkpoint["channel_versions"])
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
        chosen = self.choose(index, thread, ns)
        config = config_of(thread, ns, chosen["id"] if chosen else "not there")
        self.oracle.put_writes(config, given, *task)
        self.call(colour, "put_writes", config, given, *task)

    @rule(thread=threads, ns=namespaces)
    def get_latest(self, thread: str, ns: str) -> None:
        self.same("get_tuple", config_of(thread, ns))

    @precondition(lambda self: self.known)
    @rule(index=which)
    def get_by_id(self, index: int) -> None:
        self.same("get_tuple", config_of(*self.known[index % len(self.known)]))

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
        config = None if thread is None else config_of(thread, ns, self.any_id(index))
        before_id = self.any_id(before)
        query: dict[str, Any] = {
            "filter": filter,
            "before": None if before_id is None else config_of("ignored", "ignored", before_id),
        }
        expected = sorted(self.oracle.list(config, **query), key=place_of)
        expected.sort(key=id_of, reverse=True)
        for colour in ("sync", "async"):
            assert self.call(colour, "list", config, **query, limit=limit) == expected[:limit], colour

    @rule(
        thread=threads,
        ns=namespaces,
        index=st.none() | which,
        wanted=st.lists(st.sampled_from(["messages", *DELTAS]), unique=True),
    )
    def get_delta_channel_history(self, thread: str, ns: str, index: int | None, wanted: list[str]) -> None:
        chosen = self.choose(index, thread, ns)
        config = config_of(thread, ns, chosen["id"] if chosen else None)
        self.same("get_delta_channel_history", config=config, channels=wanted)

    @rule(colour=colours, thread=threads)
    def delete_thread(self, colour: str, thread: str) -> None:
        self.remove_thread(colour, thread)

    @rule(colour=colours, thread=threads)
    def prune(self, colour: str, thread: str) -> None:
        self.prune_thread(colour, thread)

    @rule(colour=colours, source=threads, onto=threads)
    def copy_thread(self, colour: str, source: str, onto: str) -> None:
        self.copy_over(colour, source, onto)


@pytest.mark.timeout(3600 if SLOW else 180)
def test_tenure_saver_behaves_like_in_memory_saver(stack: Stack, runner: asyncio.Runner) -> None:
    class Machine(AnySequence):
        pass

    Machine.stack, Machine.runner = stack, runner
    run_state_machine_as_test(Machine, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS))
