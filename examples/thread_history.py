"""The history of a two-turn chat: six snapshots, the newest first.

Run it with `python -m examples.thread_history`.
"""

from uuid import uuid4

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import StateSnapshot
from tenure_client import TenureSaver

from examples._model import model


def call_model(state: MessagesState) -> MessagesState:
    return {"messages": [model.invoke(state["messages"])]}


def texts(values: dict[str, list[BaseMessage]]) -> list[str]:
    return [message.text for message in values.get("messages", [])]


def show(snapshot: StateSnapshot) -> None:
    metadata, parent = snapshot.metadata or {}, snapshot.parent_config
    print("values       ", texts(snapshot.values))
    print("next         ", snapshot.next)
    print("config       ", snapshot.config["configurable"]["checkpoint_id"])
    print("metadata     ", {key: metadata[key] for key in ("source", "step")})
    print("parent_config", parent and parent["configurable"]["checkpoint_id"])
    print("tasks        ", [(task.name, task.id, texts(task.result or {})) for task in snapshot.tasks])
    print()


def main(saver: BaseCheckpointSaver[str]) -> list[StateSnapshot]:
    builder = StateGraph(MessagesState).add_node(call_model).add_edge(START, "call_model")
    graph = builder.compile(checkpointer=saver)
    config: RunnableConfig = {"configurable": {"thread_id": str(uuid4())}}

    graph.invoke({"messages": [HumanMessage("Hi! I'm Bob.")]}, config)
    graph.invoke({"messages": [HumanMessage("What's my name?")]}, config)

    history = list(graph.get_state_history(config))
    for snapshot in history:
        show(snapshot)
    print(len(history), "snapshots")
    return history


if __name__ == "__main__":
    with TenureSaver() as saver:
        main(saver)
