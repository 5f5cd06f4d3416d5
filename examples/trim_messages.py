"""Trim messages: the thread keeps the whole conversation, the model sees the end of it.

Run it with `python -m examples.trim_messages`.
"""

from uuid import uuid4

from langchain_core.messages import HumanMessage, trim_messages
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph
from tenure_client import TenureSaver

from examples._model import model


def call_model(state: MessagesState) -> MessagesState:
    recent = trim_messages(
        state["messages"],
        strategy="last",
        token_counter=count_tokens_approximately,
        max_tokens=60,
        start_on="human",
        end_on=("human", "tool"),
    )
    print(f"  the model sees {len(recent)} of {len(state['messages'])} messages")
    return {"messages": [model.invoke(recent)]}


def main(saver: BaseCheckpointSaver[str]) -> None:
    builder = StateGraph(MessagesState).add_node(call_model).add_edge(START, "call_model")
    graph = builder.compile(checkpointer=saver)
    config: RunnableConfig = {"configurable": {"thread_id": str(uuid4())}}
    for text in [
        "Hi! I'm Bob.",
        "What's my name?",
        "Write a short poem about cats.",
        "Now do the same but for dogs.",
        "What's my name?",
    ]:
        print("You:  ", text)
        state = graph.invoke({"messages": [HumanMessage(text)]}, config)
        print("Agent:", state["messages"][-1].text)
    print("Kept in the thread:", len(graph.get_state(config).values["messages"]), "messages")


if __name__ == "__main__":
    with TenureSaver() as saver:
        main(saver)
