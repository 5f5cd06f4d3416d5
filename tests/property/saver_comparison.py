"""Two clients of one tenant and InMemorySaver, driven alike: what the differential tests of the saver share.

The whole stack is there: clients in both colours, a server process, Postgres, Redis. Ids and versions are
minted as LangGraph mints them, so new ids always sort last. One difference is wanted: over several namespaces
Tenure lists by id, InMemorySaver namespace by namespace.
"""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointTuple
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from tenure_client import TenureSaver

from tests.harness.stack import Stack

Name = tuple[str, str, str]
"""A thread, a namespace and a checkpoint."""

colours = st.sampled_from(["sync", "async"])
which = st.integers(0, 10_000)
"""Chooses one of the checkpoints there are."""


class Comparison(RuleBasedStateMachine):
    """Does everything with both savers and compares what comes back.

    Attributes:
        saver: The client in use, one of `savers`.
        known: The checkpoints that there are, in the order of their ids.
    """

    stack: Stack
    runner: asyncio.Runner

    @initialize()
    def open_savers(self) -> None:
        self.oracle = InMemorySaver()
        api_key = self.stack.new_tenant().api_key
        self.savers = [TenureSaver(self.stack.target, api_key=api_key) for _ in range(2)]
        self.saver = self.savers[0]
        self.known: list[Name] = []
        self.checkpoints: dict[Name, Checkpoint] = {}

    def teardown(self) -> None:
        for saver in self.savers if hasattr(self, "savers") else ():
            self.runner.run(saver.aclose())
            saver.close()

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

    def put_child(
        self,
        colour: str,
        thread: str,
        ns: str,
        before: Checkpoint | None,
        checkpoint: Checkpoint,
        metadata: dict[str, Any],
        run: str | None = None,
    ) -> None:
        """Put a child of a checkpoint of the namespace, or a root."""
        config = config_of(thread, ns, before["id"] if before else None)
        if run is not None:
            config["metadata"] = {"run_id": run}
        held = checkpoint["channel_versions"]
        old = before["channel_versions"] if before else {}
        new_versions = {channel: version for channel, version in held.items() if old.get(channel) != version}
        args = (config, checkpoint, metadata, new_versions)
        assert self.call(colour, "put", *args) == self.oracle.put(*args)  # type: ignore[arg-type]
        self.remember(thread, ns, checkpoint)

    def remove_thread(self, colour: str, thread: str) -> None:
        """Delete a thread."""
        self.oracle.delete_thread(thread)
        self.call(colour, "delete_thread", thread)
        self.known = [name for name in self.known if name[0] != thread]

    def prune_thread(self, colour: str, thread: str) -> None:
        """Keep the latest checkpoint of each namespace and what it needs; all that stays is what it was."""
        latest = {ns: step for found, ns, step in sorted(self.known, key=step_of) if found == thread}
        self.call(colour, "prune", [thread])
        left = {name_of(found) for found in self.call(colour, "list", config_of(thread, None))}
        assert {(thread, ns, step) for ns, step in latest.items() if ":" not in ns} <= left
        self.known = [name for name in self.known if name[0] != thread or name in left]
        for ns, stored in self.oracle.storage[thread].items() if latest else ():
            for step in [step for step in stored if (thread, ns, step) not in left]:
                del stored[step]
            for step, (body, metadata, parent) in stored.items():
                stored[step] = (body, metadata, parent if parent in stored else None)

    def copy_over(self, colour: str, source: str, onto: str) -> None:
        """Copy a thread over another one, whose values clients may still hold."""
        copied = [name for name in self.known if name[0] == source]
        if source == onto or not copied:
            return  # nothing that could be copied, or nowhere to
        self.remove_thread(colour, onto)
        self.call(colour, "copy_thread", source, onto)
        oracle = self.oracle
        for ns, stored in oracle.storage[source].items():
            oracle.storage[onto][ns] = dict(stored)
        for (thread, ns, step), written in list(oracle.writes.items()):
            if thread == source:
                oracle.writes[onto, ns, step] = dict(written)
        for (thread, ns, channel, version), blob in list(oracle.blobs.items()):
            if thread == source:
                oracle.blobs[onto, ns, channel, version] = blob
        for name in copied:
            self.remember(onto, name[1], self.checkpoints[name])

    @invariant()
    def hold_the_same(self) -> None:
        if hasattr(self, "oracle"):
            expected = sorted(self.oracle.list(None), key=place_of)
            expected.sort(key=id_of, reverse=True)
            assert self.call("sync", "list", None) == expected

    def child_of(
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

    def remember(self, thread: str, ns: str, checkpoint: Checkpoint) -> None:
        self.known.append((thread, ns, checkpoint["id"]))
        self.checkpoints[thread, ns, checkpoint["id"]] = checkpoint

    def choose(self, index: int | None, thread: str, ns: str) -> Checkpoint | None:
        there = [name for name in self.known if name[:2] == (thread, ns)]
        return None if index is None or not there else self.checkpoints[there[index % len(there)]]

    def any_id(self, index: int | None) -> str | None:
        return None if index is None or not self.known else self.known[index % len(self.known)][2]


def config_of(thread: str, ns: str | None = "", id: str | None = None) -> RunnableConfig:
    named = {"thread_id": thread, "checkpoint_ns": ns, "checkpoint_id": id}
    return {"configurable": {name: value for name, value in named.items() if value is not None}}


def place_of(found: CheckpointTuple) -> tuple[str, str]:
    return found.config["configurable"]["thread_id"], found.config["configurable"]["checkpoint_ns"]


def id_of(found: CheckpointTuple) -> str:
    return found.checkpoint["id"]


def name_of(found: CheckpointTuple) -> Name:
    return (*place_of(found), id_of(found))


def step_of(name: Name) -> str:
    return name[2]
