"""Node results in the cache: the example prints what it prints on LangGraph's own cache."""

from __future__ import annotations

from typing import Any

from langgraph.cache.memory import InMemoryCache
from tenure_client import TenureCache

from examples import node_cache
from tests.examples.running import lines_of, run_script
from tests.harness.stack import Stack, Target


def test_a_topic_is_searched_for_once_until_the_cache_is_cleared(stack: Stack) -> None:
    with TenureCache[Any](stack.target, api_key=stack.new_tenant().api_key, timeout=10) as cache:
        printed = lines_of(node_cache.main, cache)

    assert printed == lines_of(node_cache.main, InMemoryCache())
    assert printed.count("  searching for clouds ...") == 2
    assert printed.count("  searching for cats ...") == 1


def test_another_process_finds_what_was_kept_last(memory_stack: Target) -> None:
    first, second = [run_script("node_cache", memory_stack) for _ in range(2)]

    assert first[1] == "  searching for clouds ..."
    assert second == [first[0], *first[2:]]
