"""Graphs that write to one thread, and a program that holds a thread and can be stopped and killed.

`python -m tests.integration.single_writer_support TARGET KEY THREAD TTL` enters a block, puts a checkpoint,
prints "holding", and for each line of standard input puts the next one and prints "put" or the error's name.
With "forked" in the place of TTL it forks two children in the block, one that puts and one that leaves the
block, prints what came of the first, and puts once more.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import add
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph
from tenure_client import TenureError, TenureSaver

from tests.harness.server import clean_environment
from tests.integration.checkpoints_support import put

ROOT = Path(__file__).parents[2]


class State(TypedDict):
    said: Annotated[list[str], add]


def graph_of(saver: Any, on_node: Callable[[], object] = lambda: None) -> Any:
    """Return a graph whose state is the list of all that was said in a thread, a node after each input."""

    def node(state: State) -> State:
        on_node()
        return {"said": [f"heard {state['said'][-1]}"]}

    return StateGraph(State).add_node("node", node).add_edge(START, "node").compile(checkpointer=saver)


def say(*texts: str) -> Any:
    """Return the input of a graph."""
    return {"said": list(texts)}


def said(saver: TenureSaver, thread_id: str) -> list[str]:
    """Return what the latest checkpoint of a thread holds."""
    found = saver.get_tuple({"configurable": {"thread_id": thread_id}})
    return [] if found is None else list(found.checkpoint["channel_values"].get("said", []))


class Holder:
    """A process that holds a thread."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def told(self) -> str:
        """Return the next line that it prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def put(self) -> str:
        """Let it put a checkpoint and return what came of it."""
        assert self._process.stdin is not None
        self._process.stdin.write("put\n")
        self._process.stdin.flush()
        return self.told()

    def pause(self) -> None:
        """Stop it where it is."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()


@contextmanager
def holder(target: str, api_key: str, thread_id: str, *, ttl: float | str) -> Iterator[Holder]:
    """Run a process that holds a thread."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.integration.single_writer_support"),
            *(target, api_key, thread_id, str(ttl)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(),
        cwd=ROOT,
    )
    try:
        held = Holder(process)
        assert held.told() == "holding"
        yield held
    finally:
        process.kill()
        process.communicate()


def forked(thread_id: str, saver: TenureSaver) -> None:
    """Be a program that forks while it holds a thread."""
    with saver.single_writer(thread_id) as held:
        put(saver, thread_id, 1, "parent")
        pid = os.fork()
        if pid == 0:
            try:
                put(saver, thread_id, 2, "child")
                print("put", flush=True)
            except TenureError as error:
                print(type(error).__name__, flush=True)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        pid = os.fork()
        if pid == 0:
            held.__exit__(None, None, None)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        put(saver, thread_id, 2, "parent again")
        sys.stdin.readline()


def main(target: str, key: str, thread_id: str, ttl: str) -> None:
    if ttl == "forked":
        print("holding", flush=True)
        with TenureSaver(target, api_key=key) as saver:
            forked(thread_id, saver)
        return
    with (
        TenureSaver(target, api_key=key) as saver,
        saver.single_writer(thread_id, ttl=float(ttl), holder="a process"),
    ):
        put(saver, thread_id, 1, "first")
        print("holding", flush=True)
        for number, _ in enumerate(sys.stdin, start=2):
            try:
                put(saver, thread_id, number, f"put {number} of the holder")
                print("put", flush=True)
            except TenureError as error:
                print(type(error).__name__, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
