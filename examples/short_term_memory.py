"""Short-term memory in a StateGraph: the same graph and the same saver, sync, async and streaming.

Run it with `python -m examples.short_term_memory`.
"""

import asyncio
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


async def acall_model(state: MessagesState) -> MessagesState:
    return {"messages": [await model.ainvoke(state["messages"])]}


def build(node: Any, saver: BaseCheckpointSaver[str]) -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("call_model", node)
    builder.add_edge(START, "call_model")
    return builder.compile(checkpointer=saver)


def chat_sync(saver: BaseCheckpointSaver[str]) -> None:
    graph = build(call_model, saver)
    config: RunnableConfig = {"configurable": {"thread_id": str(uuid4())}}
    graph.invoke({"messages": [HumanMessage("Hi! I'm Bob.")]}, config)
    state = graph.invoke({"messages": [HumanMessage("What's my name?")]}, config)
    print("sync:  ", state["messages"][-1].text)


async def chat_async(saver: BaseCheckpointSaver[str]) -> None:
    graph = build(acall_model, saver)
    config: RunnableConfig = {"configurable": {"thread_id": str(uuid4())}}
    await graph.ainvoke({"messages": [HumanMessage("Hi! I'm Alice.")]}, config)
    state = await graph.ainvoke({"messages": [HumanMessage("What's my name?")]}, config)
    print("async: ", state["messages"][-1].text)


def stream_sync(saver: BaseCheckpointSaver[str]) -> None:
    graph = build(call_model, saver)
    config: RunnableConfig = {"configurable": {"thread_id": str(uuid4())}}
    for text in ["Hi! I'm Carol.", "What's my name?"]:
        for state in graph.stream({"messages": [HumanMessage(text)]}, config, stream_mode="values"):
            print("values:", state["messages"][-1].text)


async def stream_async(saver: BaseCheckpointSaver[str]) -> None:
    graph = build(acall_model, saver)
    config: RunnableConfig = {"configurable": {"thread_id": str(uuid4())}}
    await graph.ainvoke({"messages": [HumanMessage("Hi! I'm Dave.")]}, config)
    question = {"messages": [HumanMessage("What's my name?")]}
    tokens = [token.text async for token, _ in graph.astream(question, config, stream_mode="messages")]
    print("tokens:", [token for token in tokens if token])


def main(saver: BaseCheckpointSaver[str]) -> None:
    chat_sync(saver)
    asyncio.run(chat_async(saver))
    stream_sync(saver)
    asyncio.run(stream_async(saver))


if __name__ == "__main__":
    with TenureSaver() as saver:
        main(saver)
