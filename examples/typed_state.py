"""Typed state: pydantic models, dataclasses and enums come back as what they were.

Run it with `python -m examples.typed_state`.
"""

from dataclasses import dataclass
from enum import Enum
from typing import TypedDict, cast
from uuid import uuid4

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from pydantic import BaseModel
from tenure_client import TenureSaver


class Status(Enum):
    OPEN = "open"
    PAID = "paid"


@dataclass(frozen=True)
class Money:
    cents: int
    currency: str


class Customer(BaseModel):
    name: str
    vip: bool = False


class Order(TypedDict, total=False):
    customer: Customer
    total: Money
    status: Status


def pay(state: Order) -> Order:
    assert state["status"] is Status.OPEN
    return {"status": Status.PAID, "customer": state["customer"].model_copy(update={"vip": True})}


def main(saver: BaseCheckpointSaver[str]) -> Order:
    graph = StateGraph(Order).add_node(pay).add_edge(START, "pay").compile(checkpointer=saver)
    config: RunnableConfig = {"configurable": {"thread_id": str(uuid4())}}
    order: Order = {"customer": Customer(name="Bob"), "total": Money(1999, "EUR"), "status": Status.OPEN}
    graph.invoke(order, config)

    stored = cast(Order, graph.get_state(config).values)
    for name, value in stored.items():
        print(f"{name:9}", type(value).__name__, repr(value))
    return stored


if __name__ == "__main__":
    with TenureSaver() as saver:
        main(saver)
