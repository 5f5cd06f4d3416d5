"""Housekeeping: copy a thread, take back what a run did, prune old checkpoints.

InMemorySaver has none of the three and PostgresSaver only `prune`.

Run it with `python -m examples.housekeeping`.
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
    thread_id, copy_id, mistake = str(uuid4()), str(uuid4()), str(uuid4())
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    copied: RunnableConfig = {"configurable": {"thread_id": copy_id}}

    def show(what: str, config: RunnableConfig) -> None:
        texts = [message.text for message in graph.get_state(config).values["messages"]]
        print(f"{what:10}", len(list(saver.list(config))), "checkpoints,", texts)

    graph.invoke({"messages": [HumanMessage("Hi! I'm Bob.")]}, config)
    show("original", config)

    # copy_thread: try something on a copy and leave the original as it is.
    saver.copy_thread(thread_id, copy_id)
    graph.invoke(
        {"messages": [HumanMessage("I am Robert now.")]}, {**copied, "metadata": {"run_id": mistake}}
    )
    show("copy", copied)

    # delete_for_runs: take back what one run added, wherever it added it.
    saver.delete_for_runs([mistake])
    show("taken back", copied)

    # prune: keep only the latest checkpoint of a thread; the conversation goes on from it.
    saver.prune([thread_id])
    show("pruned", config)
    state = graph.invoke({"messages": [HumanMessage("What's my name?")]}, config)
    print("Agent:", state["messages"][-1].text)

    saver.prune([thread_id, copy_id], strategy="delete")
    print("deleted:  ", len(list(saver.list(config))) + len(list(saver.list(copied))), "checkpoints left")


if __name__ == "__main__":
    with TenureSaver() as saver:
        main(saver)
