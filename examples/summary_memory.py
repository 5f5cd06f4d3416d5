"""A long chat, trimmed and summarised into the store, where later chats of the user find the summary.

Run it with `python -m examples.summary_memory`.
"""

from typing import Any, Literal
from uuid import uuid4

from langchain_core.messages import HumanMessage, RemoveMessage, SystemMessage, trim_messages
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.config import get_config
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from tenure_client import TenureSaver, TenureStore

from examples._model import model

KEPT = 4


def summaries() -> tuple[str, ...]:
    """Name the place of the user's summaries; the key of each is the thread that it is of."""
    return ("users", get_config()["configurable"]["user_id"], "summaries")


def call_model(state: MessagesState, runtime: Runtime[None]) -> MessagesState:
    assert runtime.store is not None
    known = [SystemMessage(found.value["text"]) for found in runtime.store.search(summaries())]
    # The model never sees more than the end of the chat, and what is known of the rest.
    recent = trim_messages(
        state["messages"], strategy="last", token_counter=len, max_tokens=KEPT, start_on="human"
    )
    return {"messages": [model.invoke([*known, *recent])]}


def is_long(state: MessagesState) -> Literal["summarize", "__end__"]:
    return "summarize" if len(state["messages"]) > KEPT else "__end__"


def summarize(state: MessagesState, runtime: Runtime[None]) -> dict[str, object]:
    assert runtime.store is not None
    thread_id = get_config()["configurable"]["thread_id"]
    earlier = runtime.store.get(summaries(), thread_id)
    known = [SystemMessage(earlier.value["text"])] if earlier else []
    request = HumanMessage("Create a summary of the conversation above.")
    summary = model.invoke([*known, *state["messages"], request]).text
    runtime.store.put(summaries(), thread_id, {"text": summary})
    return {"messages": [RemoveMessage(id=m.id or "") for m in state["messages"][:-2]]}


def build(saver: BaseCheckpointSaver[str], store: BaseStore) -> Any:
    builder = StateGraph(MessagesState).add_node(call_model).add_node(summarize)
    builder.add_edge(START, "call_model").add_conditional_edges("call_model", is_long)
    return builder.compile(checkpointer=saver, store=store)


def main(saver: BaseCheckpointSaver[str], store: BaseStore) -> None:
    graph = build(saver, store)
    user_id = str(uuid4())
    long_chat, another = str(uuid4()), str(uuid4())
    for thread_id, text in [
        (long_chat, "Hi! I'm Bob."),
        (long_chat, "Write a short poem about cats."),
        (long_chat, "Now do the same but for dogs."),
        (another, "What's my name?"),
    ]:
        config: RunnableConfig = {"configurable": {"thread_id": thread_id, "user_id": user_id}}
        state = graph.invoke({"messages": [HumanMessage(text)]}, config)
        print("Thread:", "the long chat" if thread_id == long_chat else "another one")
        print("You:   ", text)
        print("Agent: ", state["messages"][-1].text)
        print("Kept:  ", len(state["messages"]), "messages")

    for item in store.search(("users", user_id, "summaries")):
        print("Stored:", item.value["text"])


if __name__ == "__main__":
    with TenureSaver() as saver:
        store = TenureStore(saver.connection)
        main(saver, store)
