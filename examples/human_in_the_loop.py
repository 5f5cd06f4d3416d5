"""Stop for a human in one process, go on in another: the script runs itself twice.

Run it with `python -m examples.human_in_the_loop`.
"""

import subprocess
import sys
from typing import Any, TypedDict
from uuid import uuid4

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt
from tenure_client import TenureSaver


class Transfer(TypedDict, total=False):
    amount: int
    log: list[str]


def prepare(state: Transfer) -> Transfer:
    return {"log": [f"prepared a transfer of {state['amount']}"]}


def approve(state: Transfer) -> Transfer:
    answer = interrupt({"question": f"Send {state['amount']}?"})
    return {"log": [*state["log"], "sent" if answer == "yes" else "cancelled"]}


def build(saver: BaseCheckpointSaver[str]) -> Any:
    builder = StateGraph(Transfer).add_sequence([prepare, approve])
    return builder.add_edge(START, "prepare").compile(checkpointer=saver)


def ask(saver: BaseCheckpointSaver[str], thread_id: str) -> None:
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    state = build(saver).invoke({"amount": 250}, config)
    print("Stopped to ask:", state["__interrupt__"][0].value["question"])


def answer(saver: BaseCheckpointSaver[str], thread_id: str, decision: str) -> None:
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    graph = build(saver)
    print("Waiting at:    ", graph.get_state(config).next)
    print("Answered:      ", decision)
    print("Finished:      ", graph.invoke(Command(resume=decision), config)["log"])


def main(saver: BaseCheckpointSaver[str]) -> None:
    """Both halves in one process."""
    thread_id = str(uuid4())
    ask(saver, thread_id)
    answer(saver, thread_id, "yes")


if __name__ == "__main__":
    if not sys.argv[1:]:
        thread_id = str(uuid4())
        this_script = [sys.executable, "-m", "examples.human_in_the_loop", thread_id]
        subprocess.run(this_script, check=True)
        subprocess.run([*this_script, "yes"], check=True)
    else:
        with TenureSaver() as saver:
            if len(sys.argv) == 2:
                ask(saver, sys.argv[1])
            else:
                answer(saver, sys.argv[1], sys.argv[2])
