"""TenureCache in graphs and by itself, compared with InMemoryCache, on a real server and a real Valkey."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypedDict
from uuid import UUID

import pytest
from langgraph.cache.base import BaseCache, FullKey
from langgraph.cache.memory import InMemoryCache
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.types import CachePolicy, Send
from tenure_client import (
    Connection,
    PermissionDenied,
    TenureCache,
    TenureSaver,
    TenureSerializer,
    Unauthenticated,
    Unavailable,
)
from tenure_server.domain import Scope, TenantId
from tenure_server.rules import parse

from tests.harness.databases import Database, PrivateRedisFactory
from tests.harness.running import run
from tests.harness.server import ServerProcess
from tests.harness.stack import MemoryStack, Stack
from tests.integration.checkpoints_support import wait_until

NAMESPACE = ("writes", "node")
KEY: FullKey = (NAMESPACE, "k")


class State(TypedDict, total=False):
    number: int
    square: int


@pytest.fixture
def cache(stack: Stack) -> Iterator[TenureCache[Any]]:
    """The cache of a new tenant."""
    with TenureCache[Any](stack.target, api_key=stack.new_tenant().api_key, timeout=10) as opened:
        yield opened


@pytest.fixture(params=["tenure", "tenure in memory", "reference"])
def either(request: pytest.FixtureRequest) -> Iterator[BaseCache[Any]]:
    """A cache of Tenure, or LangGraph's own."""
    if request.param == "reference":
        yield InMemoryCache()
        return
    of: Stack | MemoryStack = request.getfixturevalue(
        "stack" if request.param == "tenure" else "memory_stack"
    )
    with TenureCache[Any](of.target, api_key=of.new_tenant().api_key, timeout=10) as opened:
        yield opened


def counting(ttl: int | None = None) -> tuple[StateGraph[State], list[int]]:
    """Return a graph with one cached node, and the inputs it was run with."""
    runs: list[int] = []

    def square(state: State) -> State:
        runs.append(state["number"])
        return {"square": state["number"] ** 2}

    builder = StateGraph(State)
    builder.add_node("square", square, cache_policy=CachePolicy(ttl=ttl))
    return builder.add_edge(START, "square"), runs


def test_a_node_runs_once_for_each_input(either: BaseCache[Any]) -> None:
    builder, runs = counting()
    graph = builder.compile(cache=either)
    assert [graph.invoke({"number": n})["square"] for n in (2, 3, 2, 3)] == [4, 9, 4, 9]
    assert runs == [2, 3]
    assert list(graph.stream({"number": 2}, stream_mode="updates")) == [
        {"square": {"square": 4}, "__metadata__": {"cached": True}}
    ]
    graph.clear_cache(["square"])
    assert graph.invoke({"number": 2})["square"] == 4
    assert runs == [2, 3, 2]


async def test_a_node_runs_once_for_each_input_in_an_asynchronous_graph(either: BaseCache[Any]) -> None:
    builder, runs = counting()
    graph = builder.compile(cache=either)
    assert [(await graph.ainvoke({"number": n}))["square"] for n in (2, 3, 2, 3)] == [4, 9, 4, 9]
    assert runs == [2, 3]
    await graph.aclear_cache()
    assert (await graph.ainvoke({"number": 2}))["square"] == 4
    assert runs == [2, 3, 2]


def test_both_colours_and_other_processes_share_results(stack: Stack) -> None:
    key = stack.new_tenant().api_key
    builder, runs = counting()
    with (
        TenureCache[Any](stack.target, api_key=key) as one,
        TenureCache[Any](stack.target, api_key=key) as two,
    ):
        builder.compile(cache=one).invoke({"number": 5})
        assert asyncio.run(builder.compile(cache=two).ainvoke({"number": 5}))["square"] == 25
    assert runs == [5]


def test_a_result_expires_with_the_ttl_of_its_policy(cache: TenureCache[Any]) -> None:
    builder, runs = counting(ttl=1)
    graph = builder.compile(cache=cache)
    graph.invoke({"number": 2})
    wait_until(lambda: graph.invoke({"number": 2}) and len(runs) == 2, "the result expired")


def test_one_connection_serves_a_saver_and_a_cache(stack: Stack) -> None:
    with Connection(stack.target, api_key=stack.new_tenant().api_key) as connection:
        saver, cache = TenureSaver(connection), TenureCache[Any](connection)
        builder, runs = counting()
        graph = builder.compile(checkpointer=saver, cache=cache)
        for thread in ("a", "b"):
            graph.invoke({"number": 7}, {"configurable": {"thread_id": thread}})
        assert runs == [7]
        cache.close()
        assert saver.get_tuple({"configurable": {"thread_id": "b"}}) is not None


def test_results_of_sends_and_tasks_are_kept(either: BaseCache[Any]) -> None:
    runs = []

    @task(cache_policy=CachePolicy())
    def double(number: int) -> int:
        runs.append(number)
        return number * 2

    @entrypoint(cache=either)
    def workflow(numbers: list[int]) -> list[int]:
        return [future.result() for future in [double(number) for number in numbers]]

    assert workflow.invoke([1, 2]) == [2, 4]
    assert workflow.invoke([2, 3]) == [4, 6]
    assert sorted(runs) == [1, 2, 3]

    builder, squared = counting()
    builder.add_conditional_edges(
        "square", lambda state: [Send("square", {"number": 11})] * (len(squared) < 2)
    )
    builder.compile(cache=either).invoke({"number": 10})
    assert sorted(squared) == [10, 11]


@dataclasses.dataclass
class Money:
    cents: int


def test_values_come_back_with_their_types(either: BaseCache[Any]) -> None:
    values = [None, 1, "text", b"bytes", [1, {"a": (2,)}], {"price": Money(5)}, {1: 2}]
    keys: list[FullKey] = [(("n", "ä.b"), str(number)) for number in range(len(values))]
    either.set({key: (value, None) for key, value in zip(keys, values, strict=True)})
    found = either.get([*keys, KEY])
    expected = InMemoryCache[Any]()
    expected.set({key: (value, 60) for key, value in zip(keys, values, strict=True)})
    assert found == expected.get(keys)
    assert found[keys[5]]["price"] == Money(5)


def test_odd_keys_are_those_of_the_reference(either: BaseCache[Any]) -> None:
    assert either.get([]) == {}
    either.set({})
    either.clear([])
    either.set({((), ""): (1, None), (("",), ""): (2, 60), (("a", ""), "k"): (3, None)})
    assert either.get([((), ""), (("",), ""), (("", ""), ""), (("a", ""), "k"), (("a",), "k")]) == {
        ((), ""): 1,
        (("",), ""): 2,
        (("a", ""), "k"): 3,
    }
    either.set({((), ""): (9, 0), (("",), ""): (9, -1)})
    assert either.get([((), ""), (("",), "")]) == {}
    either.clear([("a",)])
    assert either.get([(("a", ""), "k")]) == {(("a", ""), "k"): 3}
    either.clear()
    assert either.get([(("a", ""), "k")]) == {}


def test_many_and_large_values_travel_in_several_calls(cache: TenureCache[Any]) -> None:
    pairs: dict[FullKey, tuple[Any, int | None]] = {(NAMESPACE, str(n)): (n, None) for n in range(700)}
    pairs |= {(NAMESPACE, f"large {n}"): (bytes([n]) * 900_000, None) for n in range(8)}
    cache.set(pairs)
    assert cache.get(list(pairs)) == {key: value for key, (value, _) in pairs.items()}
    cache.clear([(str(n),) for n in range(300)] + [NAMESPACE])
    assert cache.get(list(pairs)) == {}


def test_a_value_that_is_too_large_is_not_kept_and_fails_nothing(
    cache: TenureCache[Any], caplog: pytest.LogCaptureFixture
) -> None:
    cache.set({KEY: ("small", None)})
    with caplog.at_level(logging.INFO, "tenure"):
        cache.set({KEY: (b"x" * 2_000_000, None), (NAMESPACE, "other"): (1, None)})
    assert "too large" in caplog.text
    assert cache.get([KEY, (NAMESPACE, "other")]) == {(NAMESPACE, "other"): 1}


def test_tenants_have_caches_of_their_own(stack: Stack, cache: TenureCache[Any]) -> None:
    cache.set({KEY: ("ours", None)})
    with TenureCache[Any](stack.target, api_key=stack.new_tenant().api_key) as theirs:
        assert theirs.get([KEY]) == {}
        theirs.set({KEY: ("theirs", None)})
        theirs.clear()
    assert cache.get([KEY]) == {KEY: "ours"}


def test_a_limited_key_shares_with_keys_of_the_same_rules_only(stack: Stack) -> None:
    tenant = TenantId(UUID(stack.new_tenant().tenant_id))
    tenants = stack.database.tenants()
    both = frozenset({Scope.READ, Scope.WRITE})
    rules = [
        None,
        parse(["threads:billing-:rw"]),
        parse(["threads:billing-:r"]),
        parse(["namespaces:billing:r", "threads:billing-:rw"]),
        parse(["threads:billing-:rw", "namespaces:billing:r"]),
    ]
    keys = [run(tenants.create_key(tenant, both, rules=limits)) for limits in rules]
    with ExitStack() as opened:
        caches = [opened.enter_context(TenureCache[Any](stack.target, api_key=key)) for key in keys]
        for number, one in enumerate(caches[:-1]):
            assert one.get([KEY]) == {}
            one.set({KEY: (number, None)})
        assert [one.get([KEY]) for one in caches] == [{KEY: number} for number in (0, 1, 2, 3, 3)]
        caches[4].clear()
        assert [one.get([KEY]) for one in caches] == [{KEY: 0}, {KEY: 1}, {KEY: 2}, {}, {}]


@pytest.mark.parametrize(
    ("scope", "allowed"), [("read", {"get"}), ("write", {"set", "clear"}), ("admin", set())]
)
def test_what_a_key_may_do_is_up_to_its_scopes(stack: Stack, scope: str, allowed: set[str]) -> None:
    with TenureCache[Any](stack.target, api_key=stack.new_tenant((scope,)).api_key) as cache:
        calls: dict[str, Callable[[], object]] = {
            "get": lambda: cache.get([KEY]),
            "set": lambda: cache.set({KEY: (1, None)}),
            "clear": cache.clear,
        }
        for name, call in calls.items():
            if name in allowed:
                call()
            else:
                with pytest.raises(PermissionDenied):
                    call()


def test_a_wrong_key_raises_and_is_no_miss(stack: Stack) -> None:
    revoked = stack.api_key[:-2] + ("aa" if stack.api_key[-2:] != "aa" else "bb")
    with TenureCache[Any](stack.target, api_key=revoked) as cache, pytest.raises(Unauthenticated):
        cache.get([KEY])


def test_what_the_serializer_does_not_trust_is_a_miss(stack: Stack) -> None:
    with Connection(stack.target, api_key=stack.new_tenant().api_key) as connection:
        TenureCache[Any](connection).set({KEY: (Money(1), None), (NAMESPACE, "plain"): (2, None)})
        strict = TenureCache[Any](connection, allowed_types=[])
        assert strict.get([KEY, (NAMESPACE, "plain")]) == {(NAMESPACE, "plain"): 2}
        assert TenureCache[Any](connection, allowed_types=[Money]).get([KEY]) == {KEY: Money(1)}


def test_pickles_are_refused(stack: Stack) -> None:
    class Pickles(TenureSerializer):
        def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
            return "pickle", b"..."

    with (
        TenureCache[Any](stack.target, api_key=stack.api_key, serde=Pickles()) as cache,
        pytest.raises(ValueError, match="pickle"),
    ):
        cache.set({KEY: (1, None)})


def test_while_redis_is_away_nodes_run_and_no_graph_fails(
    database: Database, private_redis: PrivateRedisFactory, open_folder: Path
) -> None:
    private = private_redis()
    server = ServerProcess(open_folder, database, private.url).start()
    try:
        stack = Stack(server, database, private.url)
        builder, runs = counting()
        with TenureCache[Any](server.target, api_key=stack.api_key) as cache:
            graph = builder.compile(cache=cache)

            def kept() -> bool:
                before = len(runs)
                return graph.invoke({"number": 2})["square"] == 4 and len(runs) == before

            wait_until(kept, "results are kept")
            before = len(runs)
            private.pause()
            graph.invoke({"number": 2})
            private.resume()
            private.kill()
            graph.invoke({"number": 2})
            assert len(runs) == before + 2
            private.start()
            wait_until(kept, "results are kept again")
    finally:
        server.close()


def test_a_server_without_redis_keeps_nothing(database: Database, open_folder: Path) -> None:
    server = ServerProcess(open_folder, database).start()
    try:
        with TenureCache[Any](server.target, api_key=Stack(server, database, None).api_key) as cache:
            cache.set({KEY: (1, None)})
            assert cache.get([KEY]) == {}
            cache.clear()
    finally:
        server.close()


async def test_while_the_server_is_away_nodes_run_and_only_clear_raises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    builder, runs = counting()
    with Connection("127.0.0.1:1", api_key="tn_x", timeout=0.2) as connection:
        cache = TenureCache[Any](connection)
        graph = builder.compile(cache=cache)
        for _ in range(2):
            assert (await graph.ainvoke({"number": 2}))["square"] == 4
            assert cache.get([KEY]) == {}
            cache.set({KEY: (1, None)})
        with pytest.raises(Unavailable):
            cache.clear()
        with pytest.raises(Unavailable):
            await cache.aclear([NAMESPACE])
    assert runs == [2, 2]
    assert caplog.text.count("the node cache is away") == 1


def test_a_server_that_hangs_costs_the_time_that_the_cache_may_take(
    database: Database, redis_url: str, open_folder: Path
) -> None:
    server = ServerProcess(open_folder, database, redis_url).start()
    try:
        key = Stack(server, database, redis_url).api_key
        with TenureCache[Any](server.target, api_key=key, timeout=0.2) as cache:

            def kept() -> bool:
                cache.set({KEY: (1, None)})
                return cache.get([KEY]) == {KEY: 1}

            wait_until(kept, "results are kept")
            server.pause()
            assert cache.get([KEY]) == {}
            server.resume()
            wait_until(kept, "the server is back")
    finally:
        server.close()
