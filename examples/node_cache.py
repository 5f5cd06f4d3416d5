"""Results of nodes kept for other runs, threads and processes: a node runs once for each input.

Run it with `python -m examples.node_cache`, and again within ten minutes: the clouds are still known.
"""

from typing import Any, TypedDict

from langgraph.cache.base import BaseCache
from langgraph.graph import START, StateGraph
from langgraph.types import CachePolicy
from tenure_client import TenureCache


class Question(TypedDict, total=False):
    topic: str
    facts: list[str]
    answer: str


def search(state: Question) -> Question:
    """Stand for a slow and costly search."""
    print(f"  searching for {state['topic']} ...")
    return {"facts": [f"{state['topic']} are soft", f"{state['topic']} drift"]}


def write(state: Question) -> Question:
    return {"answer": " and ".join(state["facts"])}


def main(cache: BaseCache[Any]) -> None:
    builder = StateGraph(Question)
    # Not kept for good: the world changes. The key is a hash of the node's input; `key_func` makes another.
    builder.add_node(search, cache_policy=CachePolicy(ttl=600))
    builder.add_node(write)
    builder.add_edge(START, "search").add_edge("search", "write")
    graph = builder.compile(cache=cache)

    for topic in ("clouds", "cats", "clouds"):
        print(f"What about {topic}?")
        print(f"  {graph.invoke({'topic': topic})['answer']}")

    print("The index of the search was rebuilt.")
    graph.clear_cache(["search"])
    print(f"  {graph.invoke({'topic': 'clouds'})['answer']}")


if __name__ == "__main__":
    with TenureCache[Any]() as cache:
        main(cache)
