"""Delete messages: `RemoveMessage` takes them out of the thread's state for good.

Run it with `python -m examples.delete_messages`.
"""

from uuid import uuid4

from langchain_core.messages import HumanMessage, RemoveMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from tenure_client import TenureSaver

from examples._model import model


def call_model(state: MessagesState) -> MessagesState:
    return {"messages": [model.invoke(state["messages"])]}


def delete_earliest(state: MessagesState) -> dict[str, list[RemoveMessage]]:
    if len(state["messages"]) <= 2:
        return {}
    return {"messages": [RemoveMessage(id=message.id or "") for message in state["messages"][:2]]}


def main(saver: BaseCheckpointSaver[str]) -> None:
    builder = StateGraph(MessagesState).add_sequence([call_model, delete_earliest])
    graph = builder.add_edge(START, "call_model").compile(checkpointer=saver)
    config: RunnableConfig = {"configurable": {"thread_id": str(uuid4())}}

    for text in ["Hi! I'm Bob.", "What's my name?", "What's my name?"]:
        state = graph.invoke({"messages": [HumanMessage(text)]}, config)
        print([message.text for message in state["messages"]])

    graph.update_state(config, {"messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES)]})
    print("After removing all:", graph.get_state(config).values["messages"])


if __name__ == "__main__":
    with TenureSaver() as saver:
        main(saver)
