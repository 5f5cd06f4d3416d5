"""Semantic memory: of all that is known about a user, what matters for this question, in whichever thread.

Run it with `python -m examples.semantic_memory`.
"""

from typing import Any
from uuid import uuid4

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.config import get_config
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore, IndexConfig
from tenure_client import HashingEmbeddings, TenureSaver, TenureStore

from examples._model import model

# HashingEmbeddings finds shared words and parts of words, and needs no model. For meaning put a real embedder
# in its place: "openai:text-embedding-3-small", LocalEmbeddings() of the extra `embeddings`, ...
INDEX: IndexConfig = {"dims": 384, "embed": HashingEmbeddings(), "fields": ["text"]}

FACTS = [
    {"text": "Is allergic to peanuts and cashews.", "topic": "health"},
    {"text": "Takes vitamins in the morning.", "topic": "health"},
    {"text": "Works as a nurse on the night shift.", "topic": "work"},
    {"text": "Has two cats named Mia and Leo.", "topic": "home"},
    {"text": "Hikes in the mountains on weekends.", "topic": "leisure"},
]


def call_model(state: MessagesState, runtime: Runtime[None]) -> MessagesState:
    assert runtime.store is not None
    user_id = get_config()["configurable"]["user_id"]
    question = state["messages"][-1].text
    found = runtime.store.search(("users", user_id, "facts"), query=question, limit=1)
    known = SystemMessage("You remember: " + "; ".join(item.value["text"] for item in found))
    return {"messages": [model.invoke([known, *state["messages"]])]}


def build(saver: BaseCheckpointSaver[str], store: BaseStore) -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node(call_model)
    builder.add_edge(START, "call_model")
    return builder.compile(checkpointer=saver, store=store)


def main(saver: BaseCheckpointSaver[str], store: BaseStore) -> None:
    graph = build(saver, store)
    user_id = str(uuid4())
    place = ("users", user_id, "facts")
    for number, fact in enumerate(FACTS):
        store.put(place, str(number), fact)
    # Without a vector it comes after all that have one.
    store.put(place, "secret", {"text": "Says peanuts, cats and mountains are a secret."}, index=False)

    for question in ["Which nuts am I allergic to?", "What are the cats' names?", "Where could I go hiking?"]:
        config: RunnableConfig = {"configurable": {"thread_id": str(uuid4()), "user_id": user_id}}
        state = graph.invoke({"messages": [HumanMessage(question)]}, config)
        print("You:  ", question)
        print("Agent:", state["messages"][-1].text)

    print("About health, the nearest to 'allergies' first:")
    for item in store.search(place, query="allergies", filter={"topic": "health"}):
        print(f"  {item.score:.2f} {item.value['text']}")


if __name__ == "__main__":
    with TenureSaver() as saver:
        store = TenureStore(saver.connection, index=INDEX)
        main(saver, store)
