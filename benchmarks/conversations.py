"""Conversations over a one-node chat graph, in both colours and the same for every system."""

from __future__ import annotations

import asyncio
import random
import string
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph

from benchmarks.work import Work

HUMAN_WORDS, AI_WORDS = 30, 90
_SYLLABLES = ("ba", "co", "du", "fe", "gi", "ka", "lo", "mi", "ne", "po", "ra", "si", "tu", "ve", "zo", "sta")


def _vocabulary(parts: Sequence[str], size: int, shortest: int, longest: int) -> tuple[str, ...]:
    chosen = random.Random("words")
    return tuple("".join(chosen.choices(parts, k=chosen.randint(shortest, longest))) for _ in range(size))


RANDOM_WORDS = _vocabulary(string.ascii_lowercase, 3000, 2, 9)
"""Of random letters, hard to compress: what the targets were set with."""
PROSE_WORDS = _vocabulary(_SYLLABLES, 4000, 1, 4)
"""Of syllables: they compress as English prose does."""


def text(seed: str, words: int, vocabulary: Sequence[str] = RANDOM_WORDS) -> str:
    """Return random words, always the same ones for a seed."""
    return " ".join(random.Random(seed).choices(vocabulary, k=words))


def config(thread: str) -> RunnableConfig:
    """Return the config of a thread."""
    return {"configurable": {"thread_id": thread}}


def message(thread: str, turn: int, vocabulary: Sequence[str] = RANDOM_WORDS) -> dict[str, Any]:
    """Return a turn's input."""
    return {"messages": [HumanMessage(text(f"{thread} {turn} human", HUMAN_WORDS, vocabulary))]}


def chat_graph(
    saver: BaseCheckpointSaver[Any] | None,
    *,
    blocking: bool = False,
    vocabulary: Sequence[str] = RANDOM_WORDS,
) -> Any:
    """Return the graph: one node that answers with random words."""

    def reply(state: MessagesState) -> dict[str, Any]:
        last = state["messages"][-1]
        return {"messages": [AIMessage(text(f"{last.content} ai", AI_WORDS, vocabulary))]}

    async def areply(state: MessagesState) -> dict[str, Any]:
        return reply(state)

    # An asynchronous graph would run a blocking node in a thread: a cost that no saver is to blame for.
    builder = StateGraph(MessagesState).add_node("reply", reply if blocking else areply)
    return builder.add_edge(START, "reply").compile(checkpointer=saver)


Input = Callable[[str, int], Any]


async def converse(
    graph: Any,
    threads: Sequence[str],
    turns: range,
    *,
    blocking: bool = False,
    given: Input = message,
) -> Work:
    """Have conversations at the same time, each turn after the other, and time every turn.

    Args:
        graph: A graph compiled with the saver that is measured.
        threads: The conversations.
        turns: Numbers of their turns.
        blocking: One thread of the process per conversation instead of one task.
        given: Makes a turn's input out of the thread and its number.
    """
    if blocking:
        return await asyncio.to_thread(_converse_blocking, graph, threads, turns, given)
    latencies: list[float] = []

    async def one(thread: str) -> None:
        for turn in turns:
            value = given(thread, turn)
            started = time.perf_counter()
            await graph.ainvoke(value, config(thread))
            latencies.append(1000 * (time.perf_counter() - started))

    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for thread in threads:
            group.create_task(one(thread))
    return Work(len(latencies), started, time.monotonic(), latencies)


def _converse_blocking(graph: Any, threads: Sequence[str], turns: range, given: Input) -> Work:
    latencies: list[float] = []
    failures: list[Exception] = []

    def one(thread: str) -> None:
        try:
            for turn in turns:
                value = given(thread, turn)
                started = time.perf_counter()
                graph.invoke(value, config(thread))
                latencies.append(1000 * (time.perf_counter() - started))
        except Exception as failure:
            failures.append(failure)

    workers = [threading.Thread(target=one, args=(thread,)) for thread in threads]
    started = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]
    return Work(len(latencies), started, time.monotonic(), latencies)
