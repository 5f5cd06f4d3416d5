"""Forget a whole conversation: `delete_thread` removes every checkpoint and write of a thread.

Run it with `python -m examples.delete_thread`.
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
    bob, alice = str(uuid4()), str(uuid4())
    bobs: RunnableConfig = {"configurable": {"thread_id": bob}}
    alices: RunnableConfig = {"configurable": {"thread_id": alice}}
    graph.invoke({"messages": [HumanMessage("Hi! I'm Bob.")]}, bobs)
    graph.invoke({"messages": [HumanMessage("Hi! I'm Alice.")]}, alices)
    print("Before:", graph.get_state(bobs).values["messages"][-1].text)

    saver.delete_thread(bob)
    print("After: ", graph.get_state(bobs).values)
    print("Checkpoints:", len(list(saver.list(bobs))), "of Bob,", len(list(saver.list(alices))), "of Alice")

    # The thread id can be used again: it begins an empty conversation.
    for name, config in [("Bob", bobs), ("Alice", alices)]:
        state = graph.invoke({"messages": [HumanMessage("What's my name?")]}, config)
        print(f"{name}:", state["messages"][-1].text)


if __name__ == "__main__":
    with TenureSaver() as saver:
        main(saver)
