"""Turns of small graphs: chats, fan-out, a DeltaChannel, large states, several client processes."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.types import Send

from benchmarks.conversations import chat_graph, converse, message, text
from benchmarks.workloads.base import Measure, Metric, Phases, Workload, turn_measures, turn_metrics

if TYPE_CHECKING:
    from benchmarks.bench import Bench

GraphName = Literal["chat", "fanout", "delta", "edit", "replace"]
FAN = 16


@dataclass(frozen=True, kw_only=True)
class Turns(Workload):
    """Conversations that go on at the same time, each from its beginning.

    Attributes:
        graph: What runs.
        turns: Of each conversation.
        conversations: Of each client process.
        processes: Client processes.
        warm_up: Turns of as many other conversations before.
        size: Bytes of the state, for graphs with a large one.
    """

    graph: GraphName = "chat"
    turns: int
    conversations: int = 1
    processes: int = 1
    warm_up: int = 3
    size: int = 0

    @property
    def metrics(self) -> Sequence[Metric]:
        return turn_metrics(lone=self.conversations * self.processes == 1)

    def sample(self, bench: Bench, number: int) -> list[Measure]:
        with bench.clients(self.processes, prefix=f"{number}-{{n}}") as clients:
            return turn_measures(bench.measure(*clients))

    async def work(self, saver: BaseCheckpointSaver[Any], /, *, blocking: bool, **options: Any) -> Phases:
        graph = GRAPHS[self.graph](saver, blocking, self.size)
        given = message if self.graph in {"chat", "delta"} else numbered
        prefix = options["prefix"]
        for name, turns in (("warm", self.warm_up), ("run", self.turns)):
            threads = [f"{prefix}-{name}-{number}" for number in range(self.conversations)]
            self._make_bytes(threads)
            if name == "run":
                yield None
            work = await converse(graph, threads, range(turns), blocking=blocking, given=given)
        yield work

    def _make_bytes(self, threads: Sequence[str]) -> None:
        turns = {"replace": self.turns, "edit": 1}.get(self.graph, 0)
        for thread in threads:
            for turn in range(turns):
                new_bytes(thread, turn, self.size)


def numbered(thread: str, turn: int) -> dict[str, Any]:
    """Return a turn's input for graphs without messages."""
    return {"thread": thread, "turn": turn}


class _FanState(TypedDict):
    thread: str
    turn: int
    answers: Annotated[dict[str, str], operator.or_]


def _fan_out(saver: BaseCheckpointSaver[Any], blocking: bool, size: int) -> Any:
    """16 tasks side by side, each with its own answer, which replaces that of the turn before."""

    def spread(state: _FanState) -> list[Send]:
        given = numbered(state["thread"], state["turn"])
        return [Send("task", {**given, "part": part}) for part in range(FAN)]

    async def task(given: dict[str, Any]) -> dict[str, Any]:
        seed = f"{given['thread']} {given['turn']} {given['part']}"
        return {"answers": {str(given["part"]): text(seed, 20)}}

    # A task's input is what Send gives it, not the graph's state.
    builder: Any = StateGraph(_FanState)
    builder.add_node("task", task)
    return builder.add_conditional_edges(START, spread, ["task"]).compile(checkpointer=saver)


def _extend(state: list[Any], writes: Sequence[list[Any]]) -> list[Any]:
    return [*state, *(item for write in writes for item in write)]


class _DeltaState(TypedDict):
    messages: Annotated[list[Any], DeltaChannel(_extend)]


def _delta(saver: BaseCheckpointSaver[Any], blocking: bool, size: int) -> Any:
    """The chat graph with its messages in a DeltaChannel."""

    async def reply(state: _DeltaState) -> dict[str, Any]:
        return message(state["messages"][-1].content, 0)

    builder = StateGraph(_DeltaState).add_node("reply", reply)
    return builder.add_edge(START, "reply").compile(checkpointer=saver)


class _BlobState(TypedDict):
    thread: str
    turn: int
    blob: bytes


def _large(saver: BaseCheckpointSaver[Any], size: int, *, replace: bool) -> Any:
    async def change(state: _BlobState) -> dict[str, Any]:
        blob = state.get("blob")
        if replace or not blob:
            return {"blob": new_bytes(state["thread"], state["turn"], size)}
        return {"blob": edited(blob, random.Random(f"{state['thread']} {state['turn']}"))}

    builder = StateGraph(_BlobState).add_node("change", change)
    return builder.add_edge(START, "change").compile(checkpointer=saver)


@cache
def new_bytes(thread: str, turn: int, size: int) -> bytes:
    """Return random bytes of a turn; asked for before, they cost no time when the turn runs."""
    return random.Random(f"{thread} {turn}").randbytes(size)


def edited(blob: bytes, random_: random.Random) -> bytes:
    """Return bytes with 64 of them gone at one place and 64 new at another: what is between them moves."""
    cut, paste = random_.randrange(len(blob) - 64), random_.randrange(len(blob) - 64)
    rest = blob[:cut] + blob[cut + 64 :]
    return rest[:paste] + random_.randbytes(64) + rest[paste:]


GRAPHS: dict[GraphName, Callable[[BaseCheckpointSaver[Any], bool, int], Any]] = {
    "chat": lambda saver, blocking, size: chat_graph(saver, blocking=blocking),
    "fanout": _fan_out,
    "delta": _delta,
    "edit": lambda saver, blocking, size: _large(saver, size, replace=False),
    "replace": lambda saver, blocking, size: _large(saver, size, replace=True),
}
