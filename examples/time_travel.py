"""Time travel: replay a thread from an earlier checkpoint, or fork it with `update_state`.

Run it with `python -m examples.time_travel`.
"""

from typing import TypedDict
from uuid import uuid4

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from tenure_client import TenureSaver


class State(TypedDict, total=False):
    topic: str
    joke: str


def choose_topic(state: State) -> State:
    return {"topic": "socks in the dryer"}


def write_joke(state: State) -> State:
    return {"joke": f"Why do {state['topic']} never lie? They would be found out in the end."}


def main(saver: BaseCheckpointSaver[str]) -> None:
    builder = StateGraph(State).add_sequence([choose_topic, write_joke])
    graph = builder.add_edge(START, "choose_topic").compile(checkpointer=saver)
    config: RunnableConfig = {"configurable": {"thread_id": str(uuid4())}}
    print("First run:", graph.invoke({}, config))

    before_joke = next(s for s in graph.get_state_history(config) if s.next == ("write_joke",))
    print("Replayed: ", graph.invoke(None, before_joke.config))

    fork = graph.update_state(before_joke.config, {"topic": "chickens"})
    print("Forked:   ", graph.invoke(None, fork))

    # Nothing is lost: the first run is still in the thread, beside the fork.
    print("\nHistory, newest first:")
    for snapshot in graph.get_state_history(config):
        metadata = snapshot.metadata or {}
        print(f"  {metadata['source']:6} step {metadata['step']:2}", snapshot.next, snapshot.values)


if __name__ == "__main__":
    with TenureSaver() as saver:
        main(saver)
