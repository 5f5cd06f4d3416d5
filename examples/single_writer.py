"""One writer at a time: two workers answer the same user at once, and no turn is lost silently.

LangGraph lets two runs go on from one checkpoint; both are stored, and the thread goes on from one of them.

Run it with `python -m examples.single_writer`.
"""

from collections.abc import Callable
from operator import add
from typing import Annotated, Any, TypedDict
from uuid import uuid4

from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from tenure_client import LeaseHeld, StaleWriter, TenureSaver


class Basket(TypedDict):
    items: Annotated[list[str], add]


def worker(saver: TenureSaver, meanwhile: Callable[[], object] = lambda: None) -> Any:
    """Return the graph of a worker; `meanwhile` happens while its node runs."""

    def confirm(basket: Basket) -> None:
        meanwhile()

    builder = StateGraph(Basket).add_node(confirm).add_edge(START, "confirm")
    return builder.compile(checkpointer=saver)


def new_thread() -> RunnableConfig:
    return {"configurable": {"thread_id": str(uuid4())}}


def main(saver: TenureSaver) -> None:
    # Without protection: while one worker runs, another one finishes a turn from the same checkpoint.
    config = new_thread()
    other = worker(saver)
    slow = worker(saver, lambda: other.invoke({"items": ["tea"]}, config))
    slow.invoke({"items": ["milk"]}, config, durability="exit")
    print("Unprotected:", other.get_state(config).values["items"], "- the tea was confirmed, and is gone")

    # single_writer=True: a run that does not go on from the latest checkpoint is refused. Run it again.
    config = new_thread()
    careful = TenureSaver(saver.connection, single_writer=True)
    other = worker(careful)
    slow = worker(careful, lambda: other.invoke({"items": ["tea"]}, config))
    try:
        slow.invoke({"items": ["milk"]}, config, durability="exit")
    except StaleWriter:
        print("Refused:    ", other.get_state(config).values["items"], "- the milk was not confirmed")
        other.invoke({"items": ["milk"]}, config)
    print("Run again:  ", other.get_state(config).values["items"])

    # A lease: nobody else writes while the block runs, wherever it is; others are refused at once, or wait.
    config = new_thread()
    thread_id = config["configurable"]["thread_id"]
    with saver.single_writer(thread_id, holder="worker 1"):
        try:
            with saver.single_writer(thread_id, holder="worker 2"):
                print("never reached")
        except LeaseHeld as held:
            print("Held by:    ", held.holder)
        worker(saver).invoke({"items": ["milk"]}, config)
    with saver.single_writer(thread_id, holder="worker 2", wait=10.0):
        worker(saver).invoke({"items": ["tea"]}, config)
    print("In turn:    ", other.get_state(config).values["items"])


if __name__ == "__main__":
    with TenureSaver() as saver:
        main(saver)
