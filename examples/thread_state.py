"""Look at a thread: its latest state, and its state at a given checkpoint.

Run it with `python -m examples.thread_state`.
"""

from uuid import uuid4

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph
from tenure_client import TenureSaver

from examples._model import model


def call_model(state: MessagesState) -> MessagesState:
    return {"messages": [model.invoke(state["messages"])]}


def main(saver: BaseCheckpointSaver[str]) -> None:
    builder = StateGraph(MessagesState).add_node(call_model).add_edge(START, "call_model")
    graph = builder.compile(checkpointer=saver)
    config: RunnableConfig = {"configurable": {"thread_id": str(uuid4())}}

    graph.invoke({"messages": [HumanMessage("Hi! I'm Bob.")]}, config)
    after_first_turn = graph.get_state(config)
    graph.invoke({"messages": [HumanMessage("What's my name?")]}, config)

    latest = graph.get_state(config)
    print("Latest:", [message.text for message in latest.values["messages"]])
    print("  next", latest.next, "at step", latest.metadata and latest.metadata["step"])

    checkpoint_id = after_first_turn.config["configurable"]["checkpoint_id"]
    then = graph.get_state(
        {"configurable": {"thread_id": config["configurable"]["thread_id"], "checkpoint_id": checkpoint_id}}
    )
    print("At", checkpoint_id, [message.text for message in then.values["messages"]])
    print("  next", then.next, "at step", then.metadata and then.metadata["step"])


if __name__ == "__main__":
    with TenureSaver() as saver:
        main(saver)
