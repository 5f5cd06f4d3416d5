"""Summarise messages: keep a running summary and the last two messages instead of them all.

Run it with `python -m examples.summarize_messages`.
"""

from typing import Literal
from uuid import uuid4

from langchain_core.messages import HumanMessage, RemoveMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph
from tenure_client import TenureSaver

from examples._model import model


class State(MessagesState, total=False):
    summary: str


def call_model(state: State) -> State:
    known = [SystemMessage(f"Summary so far: {state['summary']}")] if "summary" in state else []
    return {"messages": [model.invoke([*known, *state["messages"]])]}


def should_summarize(state: State) -> Literal["summarize", "__end__"]:
    return "summarize" if len(state["messages"]) > 4 else "__end__"


def summarize(state: State) -> dict[str, object]:
    request = HumanMessage("Create a summary of the conversation above.")
    summary = model.invoke([*state["messages"], request]).text
    return {"summary": summary, "messages": [RemoveMessage(id=m.id or "") for m in state["messages"][:-2]]}


def main(saver: BaseCheckpointSaver[str]) -> None:
    builder = StateGraph(State).add_node(call_model).add_node(summarize)
    builder.add_edge(START, "call_model").add_conditional_edges("call_model", should_summarize)
    graph = builder.compile(checkpointer=saver)
    config: RunnableConfig = {"configurable": {"thread_id": str(uuid4())}}

    for text in [
        "Hi! I'm Bob.",
        "Write a short poem about cats.",
        "Now do the same but for dogs.",
        "What's my name?",
    ]:
        state = graph.invoke({"messages": [HumanMessage(text)]}, config)
        print("You:    ", text)
        print("Agent:  ", state["messages"][-1].text)
        print("Kept:   ", len(state["messages"]), "messages")
        print("Summary:", state.get("summary"))
        print()


if __name__ == "__main__":
    with TenureSaver() as saver:
        main(saver)
