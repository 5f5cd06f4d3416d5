"""`entrypoint.final(value=, save=)`: return one thing, remember another. Prints 0, 1, 3.

Run it with `python -m examples.accumulate`.
"""

from uuid import uuid4

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.func import entrypoint
from tenure_client import TenureSaver


def main(saver: BaseCheckpointSaver[str]) -> None:
    @entrypoint(checkpointer=saver)
    def accumulate(n: int, *, previous: int | None) -> entrypoint.final[int, int]:
        total = (previous or 0) + n
        return entrypoint.final(value=previous or 0, save=total)

    config: RunnableConfig = {"configurable": {"thread_id": str(uuid4())}}
    print(accumulate.invoke(1, config))
    print(accumulate.invoke(2, config))
    print(accumulate.invoke(3, config))


if __name__ == "__main__":
    with TenureSaver() as saver:
        main(saver)
