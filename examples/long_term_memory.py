"""Long-term memory: a tool keeps what a user says, a node brings it into every later conversation.

Run it with `python -m examples.long_term_memory`.
"""

from dataclasses import dataclass
from typing import Annotated, Any
from uuid import uuid4

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedStore, ToolNode, tools_condition
from langgraph.runtime import Runtime, get_runtime
from langgraph.store.base import BaseStore
from tenure_client import TenureSaver, TenureStore

from examples._model import model


@dataclass
class Context:
    user_id: str


@tool
def remember(fact: str, store: Annotated[BaseStore, InjectedStore()]) -> str:
    """Remember a fact about the user. The model sees no `store`: LangGraph puts it in."""
    user_id = get_runtime(Context).context.user_id
    # The fact is its own key, so that the same fact told twice is kept once.
    store.put(("users", user_id, "facts"), fact, {"text": fact})
    return "remembered"


def call_model(state: MessagesState, runtime: Runtime[Context]) -> MessagesState:
    assert runtime.store is not None
    facts = runtime.store.search(("users", runtime.context.user_id, "facts"))
    known = [SystemMessage("You remember: " + "; ".join(fact.value["text"] for fact in facts))]
    return {"messages": [model.bind_tools([remember]).invoke([*known, *state["messages"]])]}


def build(saver: BaseCheckpointSaver[str], store: BaseStore) -> Any:
    builder = StateGraph(MessagesState, context_schema=Context)
    builder.add_node(call_model).add_node("tools", ToolNode([remember]))
    builder.add_edge(START, "call_model").add_edge("tools", "call_model")
    builder.add_conditional_edges("call_model", tools_condition)
    return builder.compile(checkpointer=saver, store=store)


def main(saver: BaseCheckpointSaver[str], store: BaseStore) -> None:
    graph = build(saver, store)
    bob, alice = f"bob-{uuid4()}", f"alice-{uuid4()}"
    for user_id, text in [
        (bob, "Remember that I am allergic to peanuts."),
        (bob, "Remember that I like short answers."),
        (bob, "What do you remember?"),
        (alice, "What do you remember?"),
    ]:
        # Each turn is a thread of its own: what it knows of earlier ones came through the store.
        config: RunnableConfig = {"configurable": {"thread_id": str(uuid4())}}
        state = graph.invoke({"messages": [HumanMessage(text)]}, config, context=Context(user_id))
        print(f"{user_id.partition('-')[0]}: {text}")
        print(f"Agent: {state['messages'][-1].text}")


if __name__ == "__main__":
    with TenureSaver() as saver:
        store = TenureStore(saver.connection)
        main(saver, store)
