"""Move an existing graph to Tenure: the line that makes the saver is the only one that changes.

Run it with `python -m examples.switch_saver`, or name where to keep the thread instead: `memory`, or the
URL of a database, such as `postgresql://user:password@localhost/app`.
"""

import sys
from uuid import uuid4

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from tenure_client import TenureSaver

from examples._model import model


def call_model(state: MessagesState) -> MessagesState:
    return {"messages": [model.invoke(state["messages"])]}


def main(saver: BaseCheckpointSaver[str], thread_id: str | None = None) -> None:
    builder = StateGraph(MessagesState).add_node(call_model).add_edge(START, "call_model")
    graph = builder.compile(checkpointer=saver)
    config: RunnableConfig = {"configurable": {"thread_id": thread_id or str(uuid4())}}
    graph.invoke({"messages": [HumanMessage("Hi! I'm Bob.")]}, config)
    state = graph.invoke({"messages": [HumanMessage("What's my name?")]}, config)
    print("Agent:", state["messages"][-1].text)


def with_memory() -> None:
    saver = InMemorySaver()
    main(saver)


def with_postgres(database_url: str) -> None:
    from langgraph.checkpoint.postgres import PostgresSaver

    with PostgresSaver.from_conn_string(database_url) as saver:
        saver.setup()
        main(saver)


def with_tenure() -> None:
    with TenureSaver() as saver:
        main(saver)


def bring_thread(thread_id: str, old: BaseCheckpointSaver[str], new: BaseCheckpointSaver[str]) -> int:
    """Carry a finished conversation over from another saver; return the number of its checkpoints."""
    found = sorted(old.list({"configurable": {"thread_id": thread_id}}), key=lambda one: one.checkpoint["id"])
    for one in found:
        namespace = one.config["configurable"]["checkpoint_ns"]
        parent = one.parent_config["configurable"]["checkpoint_id"] if one.parent_config else None
        place = {"thread_id": thread_id, "checkpoint_ns": namespace, "checkpoint_id": parent}
        versions = one.checkpoint["channel_versions"]
        stored = new.put({"configurable": place}, one.checkpoint, one.metadata, versions)
        for task_id in dict.fromkeys(write[0] for write in one.pending_writes or ()):
            writes = [write[1:] for write in one.pending_writes or () if write[0] == task_id]
            new.put_writes(stored, writes, task_id)
    return len(found)


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            with_tenure()
        case ["memory"]:
            with_memory()
        case [database_url]:
            with_postgres(database_url)
