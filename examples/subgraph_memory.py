"""Subgraphs: give the checkpointer to the parent only; LangGraph hands it down.

A subgraph forgets between calls unless it is compiled with `checkpointer=True`: then it has a memory
of its own in the same thread.

Run it with `python -m examples.subgraph_memory`.
"""

from operator import add
from typing import Annotated, TypedDict, cast
from uuid import uuid4

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, StateSnapshot, interrupt
from tenure_client import TenureSaver


class State(TypedDict):
    foo: str


class Notes(TypedDict):
    foo: str
    notes: Annotated[list[str], add]


def shared_memory(saver: BaseCheckpointSaver[str]) -> None:
    """The parent's checkpointer also keeps a subgraph that stopped in the middle."""

    def ask(state: State) -> State:
        return {"foo": state["foo"] + interrupt("What shall I add?")}

    subgraph = StateGraph(State).add_node(ask).add_edge(START, "ask").compile()
    builder = StateGraph(State).add_node("child", subgraph).add_edge(START, "child")
    graph = builder.compile(checkpointer=saver)

    config: RunnableConfig = {"configurable": {"thread_id": str(uuid4())}}
    graph.invoke({"foo": "a"}, config)
    waiting = graph.get_state(config, subgraphs=True)
    child = cast(StateSnapshot, waiting.tasks[0].state)
    print("parent waits for:", waiting.next, "child waits for:", child.next, "child holds:", child.values)
    print("resumed:", graph.invoke(Command(resume="b"), config))


def own_memory(saver: BaseCheckpointSaver[str]) -> None:
    """A subgraph with `checkpointer=True` adds to what it noted in earlier turns."""

    def note(state: Notes) -> dict[str, list[str]]:
        return {"notes": [state["foo"]]}

    subgraph = StateGraph(Notes).add_node(note).add_edge(START, "note").compile(checkpointer=True)

    def child(state: State) -> State:
        notes = subgraph.invoke({"foo": state["foo"], "notes": []})["notes"]
        return {"foo": " and ".join(notes)}

    graph = StateGraph(State).add_node(child).add_edge(START, "child").compile(checkpointer=saver)
    config: RunnableConfig = {"configurable": {"thread_id": str(uuid4())}}
    print("first turn: ", graph.invoke({"foo": "tea"}, config))
    print("second turn:", graph.invoke({"foo": "cake"}, config))


def main(saver: BaseCheckpointSaver[str]) -> None:
    shared_memory(saver)
    own_memory(saver)


if __name__ == "__main__":
    with TenureSaver() as saver:
        main(saver)
