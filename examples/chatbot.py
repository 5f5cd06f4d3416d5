"""A chatbot that remembers your name: the smallest agent with short-term memory.

Run it with `python -m examples.chatbot`.
"""

from typing import Any
from uuid import uuid4

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph
from tenure_client import TenureSaver

from examples._model import model


def call_model(state: MessagesState) -> MessagesState:
    return {"messages": [model.invoke(state["messages"])]}


def build(saver: BaseCheckpointSaver[str]) -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node(call_model)
    builder.add_edge(START, "call_model")
    return builder.compile(checkpointer=saver)


def main(saver: BaseCheckpointSaver[str]) -> None:
    graph = build(saver)
    config: RunnableConfig = {"configurable": {"thread_id": str(uuid4())}}
    for text in ["Hi! I'm Bob.", "What's my name?"]:
        state = graph.invoke({"messages": [HumanMessage(text)]}, config)
        print("You:  ", text)
        print("Agent:", state["messages"][-1].text)

    # Another thread is another conversation: it knows nothing of the first.
    config = {"configurable": {"thread_id": str(uuid4())}}
    state = graph.invoke({"messages": [HumanMessage("What's my name?")]}, config)
    print("In another thread:", state["messages"][-1].text)


if __name__ == "__main__":
    with TenureSaver() as saver:
        main(saver)
