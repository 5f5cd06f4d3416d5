"""TenureStore against a whole Tenure: in graphs and tools, by meaning and by words, and what it refuses."""

from __future__ import annotations

import asyncio
import operator
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import psycopg
import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import InjectedStore, ToolNode
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore, PutOp
from tenure_client import TenureSaver, TenureStore, errors
from tenure_client.__main__ import main

from tests.harness.embedders import DIMS, embed_letters
from tests.harness.stack import Stack, TenantHandle

INDEX: Any = {"dims": DIMS, "embed": embed_letters, "fields": ["text"]}


@pytest.fixture
def tenant(stack: Stack) -> TenantHandle:
    return stack.new_tenant()


@pytest.fixture
def store(stack: Stack, tenant: TenantHandle) -> Iterator[TenureStore]:
    with TenureStore(stack.target, api_key=tenant.api_key, index=INDEX, search_mode="hybrid") as opened:
        yield opened


class Chat(TypedDict):
    said: Annotated[list[str], operator.add]


@dataclass
class User:
    name: str


def remembering(store: BaseStore, saver: TenureSaver) -> Any:
    """Return a graph that remembers what users say, across threads."""

    async def remember(state: Chat, runtime: Runtime[User]) -> Chat:
        assert runtime.store is not None
        namespace = ("memories", runtime.context.name)
        known = await runtime.store.asearch(namespace, query=state["said"][-1], limit=1)
        await runtime.store.aput(namespace, str(len(state["said"])), {"text": state["said"][-1]})
        return {"said": [f"I know: {item.value['text']}" for item in known] or ["I know nothing"]}

    builder = StateGraph(Chat, context_schema=User)
    builder.add_node(remember)
    builder.add_edge(START, "remember")
    builder.add_edge("remember", END)
    return builder.compile(checkpointer=saver, store=store)


async def test_a_graph_remembers_across_threads(stack: Stack, tenant: TenantHandle) -> None:
    async with TenureSaver(stack.target, api_key=tenant.api_key) as saver:
        graph = remembering(TenureStore(saver.connection, index=INDEX), saver)

        async def say(thread: str, user: str, text: str) -> str:
            config = {"configurable": {"thread_id": thread}}
            out = await graph.ainvoke({"said": [text]}, config, context=User(user))
            said: str = out["said"][-1]
            return said

        assert await say("t1", "ada", "I like tea") == "I know nothing"
        assert await say("t2", "ada", "do I like tea") == "I know: I like tea"
        assert await say("t3", "bob", "I like tea") == "I know nothing"


@tool
def keep(text: str, store: Annotated[BaseStore, InjectedStore()]) -> str:
    """Keep a note."""
    store.put(("notes",), text, {"text": text})
    return "kept"


@tool
async def recall(text: str, store: Annotated[BaseStore, InjectedStore()]) -> str:
    """Find a note."""
    found = await store.asearch(("notes",), query=text, limit=1)
    return str(found[0].value["text"])


async def test_tools_get_the_store(store: TenureStore) -> None:
    builder = StateGraph(dict)
    builder.add_node("tools", ToolNode([keep, recall]))
    builder.add_edge(START, "tools")
    graph = builder.compile(store=store)

    async def call(name: str, text: str) -> str:
        message = AIMessage("", tool_calls=[{"name": name, "args": {"text": text}, "id": "1"}])
        out = await graph.ainvoke({"messages": [message]})
        content: str = out["messages"][-1].content
        return content

    assert await call("keep", "tea with milk") == "kept"
    assert await call("recall", "milk tea") == "tea with milk"


def test_a_blocking_graph_gets_it_too(stack: Stack, store: TenureStore) -> None:
    def node(state: Chat, *, store: BaseStore) -> Chat:
        store.put(("a",), "k", {"n": len(state["said"])})
        item = store.get(("a",), "k")
        assert item is not None
        return {"said": [str(item.value["n"])]}

    builder = StateGraph(Chat)
    builder.add_node(node)
    builder.add_edge(START, "node")
    assert builder.compile(store=store).invoke({"said": ["x"]}) == {"said": ["x", "1"]}


def test_by_meaning_by_words_and_by_both(store: TenureStore) -> None:
    store.batch(
        [
            PutOp(("d",), "words", {"text": "the cat sat on the mat"}),
            PutOp(("d",), "letters", {"text": "tac tac tac"}),
            PutOp(("d",), "neither", {"text": "zzz"}),
        ]
    )

    assert store.search(("d",), query="cat", mode="semantic")[0].key == "letters"
    assert [item.key for item in store.search(("d",), query="cats", mode="keyword")][:1] == ["words"]
    both = store.search(("d",), query="cat")
    assert {item.key for item in both[:2]} == {"words", "letters"}
    assert all(item.score is not None for item in both[:2])


def test_an_index_can_be_rebuilt_for_another_embedder(
    stack: Stack, tenant: TenantHandle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old: Any = {
        "dims": 1,
        "embed": lambda texts: [[1.0] for _ in texts],
        "embedder": "old",
        "fields": ["text"],
    }
    with TenureStore(stack.target, api_key=tenant.api_key, index=old) as store:
        store.batch([PutOp(("a", str(at % 3)), str(at), {"text": f"text {'x' * at}"}) for at in range(250)])
    with TenureStore(stack.target, api_key=tenant.api_key, index=INDEX) as store:
        with pytest.raises(errors.IndexMismatch) as caught:
            store.put(("a",), "k", {"text": "new"})
        assert "rebuild" in str(caught.value)
        assert store.get(("a",), "k") is None

        monkeypatch.setenv("TENURE_API_KEY", stack.new_key(tenant, scopes=("read", "write", "admin")))
        command = ["rebuild-index", "--embed", "tests.harness.embedders.embed_letters", "--dims", str(DIMS)]
        assert main([*command, "--fields", "text", "--target", stack.target]) == 0
        assert capsys.readouterr().out == "embedded 250 items\n"

        store.put(("a",), "k", {"text": "new"})
        found = store.search(("a",), query="text", limit=300)
    assert len(found) == 251
    assert all(item.score is not None for item in found)
    assert found[0].value == {"text": "text "}


async def test_what_fits_into_no_message_is_rebuilt_too(stack: Stack, tenant: TenantHandle) -> None:
    fields = [f"f{at}" for at in range(1000)]
    admin = stack.new_key(tenant, scopes=("read", "write", "admin"))

    def index(dims: int) -> Any:
        return {
            "dims": dims,
            "embed": lambda texts: [[float(len(text)), *([1.0] * (dims - 1))] for text in texts],
            "embedder": f"{dims} numbers",
            "fields": ["text"],
        }

    with TenureStore(stack.target, api_key=admin, index=index(500)) as store:
        store.put(("a",), "large", {"text": "here", "rest": "é" * 3_000_000})
        store.put(("a",), "many parts", {name: name * 2 for name in fields}, index=fields)
        store.put(("a",), "small", {"text": "here, too"})
    async with TenureStore(stack.target, api_key=admin, index=index(1000)) as store:
        assert await store.arebuild_index() == 3
        found = await store.asearch(("a",), query="here")
        assert {item.key for item in found} == {"large", "many parts", "small"}
        assert all(item.score is not None for item in found)
    with TenureStore(stack.target, api_key=admin, index=index(500)) as store:
        assert store.rebuild_index() == 3


def test_an_index_is_not_changed_without_the_scope(stack: Stack, store: TenureStore) -> None:
    with pytest.raises(errors.PermissionDenied):
        store.rebuild_index()


def test_a_key_that_may_only_write_puts_and_finds_nothing(
    stack: Stack, tenant: TenantHandle, store: TenureStore
) -> None:
    writer = stack.new_key(tenant, scopes=("write",))
    with TenureStore(stack.target, api_key=writer, index=INDEX) as blind:
        blind.put(("a",), "short", {"text": "put"})
        blind.put(("a",), "long", {"text": "put", "rest": "x" * 3_000_000})
        blind.delete(("a",), "nothing")
        for read in (
            lambda: blind.get(("a",), "short"),
            lambda: blind.search(("a",)),
            lambda: blind.search(("a",), query="put"),
            blind.list_namespaces,
        ):
            with pytest.raises(errors.PermissionDenied):
                read()
    assert {item.key for item in store.search(("a",))} == {"short", "long"}


def test_a_key_that_may_only_read_finds_and_puts_nothing(
    stack: Stack, tenant: TenantHandle, store: TenureStore
) -> None:
    store.put(("a",), "k", {"text": "put"})
    reader = stack.new_key(tenant, scopes=("read",))
    with TenureStore(stack.target, api_key=reader, index=INDEX) as reading:
        assert reading.get(("a",), "k") is not None
        for write in (
            lambda: reading.put(("a",), "k", {}),
            lambda: reading.put(("a",), "k", {"rest": "x" * 3_000_000}),
            lambda: reading.delete(("a",), "k"),
        ):
            with pytest.raises(errors.PermissionDenied):
                write()
    assert [item.value for item in store.search(("a",))] == [{"text": "put"}]


def test_items_live_as_long_as_they_are_used(stack: Stack, tenant: TenantHandle) -> None:
    with TenureStore(stack.target, api_key=tenant.api_key, ttl={"default_ttl": 60}) as store:
        store.put(("a",), "gone at once", {}, ttl=0)
        store.put(("a",), "stays", {})

        assert store.get(("a",), "gone at once") is None
        assert [item.key for item in store.search(("a",))] == ["stays"]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda store: store.put(("a",) * 33, "k", {}), errors.InvalidRequest),
        (lambda store: store.put(("a" * 1025,), "k", {}), errors.LimitExceeded),
        (lambda store: store.put(("a",), "k" * 513, {}), errors.InvalidRequest),
        (lambda store: store.put(("a",), "k" * 3_000_000, {}), errors.InvalidRequest),
        (lambda store: store.put(("a",), "k\0", {}), errors.InvalidRequest),
        (lambda store: store.put(("a",), "k", {"text": "x" * 9_000_000}, index=False), errors.LimitExceeded),
        (lambda store: store.put(("a",), "k", {"a": nested(70)}, index=False), errors.LimitExceeded),
        (lambda store: store.put(("a",), "k", {"a": nested(5000)}, index=False), errors.LimitExceeded),
        (lambda store: store.put(("a",), "k", {"a": float("nan")}), TypeError),
        (lambda store: store.search((), filter={"a": {"$like": 1}}), errors.InvalidRequest),
        (lambda store: store.search((), filter={"a": nested(40)}), errors.InvalidRequest),
        (lambda store: store.search((), filter={str(at): at for at in range(50)}), errors.InvalidRequest),
        (lambda store: store.search((), query="x" * 10_000), errors.InvalidRequest),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(
    store: TenureStore, call: Any, error: type[Exception]
) -> None:
    store.put(("a",), "before", {"text": "here"})
    with pytest.raises(error):
        call(store)
    assert [item.key for item in store.search(())] == ["before"]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_a_large_value_comes_back(store: TenureStore) -> None:
    value = {"parts": ["é" * 1000 for _ in range(2500)]}
    store.put(("a",), "k", value, index=False)

    found = store.get(("a",), "k")
    assert found is not None
    assert found.value == value
    assert store.search(("a",))[0].value == value


async def test_loops_and_threads_share_one_store(store: TenureStore) -> None:
    def in_a_thread(at: int) -> None:
        store.put(("a",), f"thread {at}", {"at": at}, index=False)
        asyncio.run(in_a_loop(at))

    async def in_a_loop(at: int) -> None:
        await store.aput(("a",), f"loop {at}", {"at": at}, index=False)

    await asyncio.gather(*(asyncio.to_thread(in_a_thread, at) for at in range(4)))
    await store.aput(("a",), "own", {}, index=False)

    assert len(await store.asearch(("a",))) == 9
    await store.connection.aclose()


async def test_a_search_that_is_cancelled_ends_in_the_database(stack: Stack, tenant: TenantHandle) -> None:
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"
    async with (
        TenureStore(stack.target, api_key=tenant.api_key, index=INDEX) as store,
        await psycopg.AsyncConnection.connect(stack.database.admin_url) as holder,
        await psycopg.AsyncConnection.connect(stack.database.admin_url, autocommit=True) as watcher,
    ):

        async def waits() -> bool:
            return bool((await watcher.execute(waiting, [stack.database.name])).rowcount)

        await store.aput(("a",), "k", {"n": 1})
        await holder.execute("LOCK TABLE tenure.item IN ACCESS EXCLUSIVE MODE")
        search = asyncio.ensure_future(store.asearch((), filter={"n": 1}))
        async with asyncio.timeout(5):
            while not await waits():
                await asyncio.sleep(0.01)
            search.cancel()
            while await waits():
                await asyncio.sleep(0.01)
        await holder.rollback()
        assert [item.key for item in await store.asearch((), filter={"n": 1})] == ["k"]


async def test_crowds_leave_what_one_after_the_other_would_have_left(
    stack: Stack, tenant: TenantHandle
) -> None:
    chance = random.Random(11)
    expected: dict[str, Any] = {}
    async with TenureStore(stack.target, api_key=tenant.api_key) as store:
        for tick in range(60):
            crowd = []
            for at in range(chance.choice([1, 2, 7, 40])):
                key = f"k{chance.randrange(12)}"
                if chance.random() < 0.3:
                    expected.pop(key, None)
                    crowd.append(store.adelete(("crowd",), key))
                else:
                    expected[key] = {"tick": tick, "at": at}
                    crowd.append(store.aput(("crowd",), key, expected[key]))
            await asyncio.gather(*crowd)
            found = await asyncio.gather(*(store.aget(("crowd",), f"k{at}") for at in range(12)))
            assert {item.key: item.value for item in found if item} == expected


async def test_in_a_crowd_only_what_a_key_may_not_write_is_refused(
    stack: Stack, tenant: TenantHandle
) -> None:
    limited = stack.new_key(tenant, "namespaces:mine:rw")
    async with TenureStore(stack.target, api_key=limited) as store:
        for _ in range(2):
            outcomes = await asyncio.gather(
                *(store.aput((owner,), f"{at}", {}) for at in range(3) for owner in ("mine", "yours")),
                return_exceptions=True,
            )
            assert [type(outcome) for outcome in outcomes] == [type(None), errors.OutsideRules] * 3
        assert len(await store.asearch(("mine",))) == 3
