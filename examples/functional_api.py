"""The functional API: a workflow that gets what it returned last time as `previous`.

Run it with `python -m examples.functional_api`.
"""

from typing import Any
from uuid import uuid4

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.func import entrypoint, task
from tenure_client import TenureSaver

from examples._model import model


@task
def call_model(messages: list[BaseMessage]) -> BaseMessage:
    return model.invoke(messages)


def main(saver: BaseCheckpointSaver[str]) -> None:
    @entrypoint(checkpointer=saver)
    def chat(text: str, *, previous: list[BaseMessage] | None) -> list[BaseMessage]:
        messages = [*(previous or []), HumanMessage(text)]
        return [*messages, call_model(messages).result()]

    config: RunnableConfig = {"configurable": {"thread_id": str(uuid4())}}
    for text in ["Hi! I'm Bob.", "What's my name?"]:
        messages: Any = chat.invoke(text, config)
        print("You:  ", text)
        print("Agent:", messages[-1].text)
    print("Remembered:", len(messages), "messages")


if __name__ == "__main__":
    with TenureSaver() as saver:
        main(saver)
