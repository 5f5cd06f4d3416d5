"""Postgres decides, Redis supplies bytes: whatever is done to Redis, answers stay right and none fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import psycopg
import pytest
import tenure_server
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from tenure_client import TenureError, TenureSaver

from tests.harness.databases import Database, PrivateRedisFactory
from tests.harness.stack import Stack, TenantHandle
from tests.integration.cache_support import Cached, comparing, huge, large
from tests.integration.checkpoints_support import (
    SLOW,
    config_of,
    id_of,
    put,
    replicas,
    value_of,
    wait_until,
)

CONVERSATIONS = 50 if SLOW else 10

Make = Callable[[int], str]
MAKES = pytest.mark.parametrize("make", [large, huge])


@pytest.fixture
def cached(database: Database, private_redis: PrivateRedisFactory, open_folder: Path) -> Iterator[Cached]:
    private = private_redis()
    with replicas(2, open_folder, database, private.url) as servers:
        yield Cached(private, [server.target for server in servers], Stack(servers[0], database, private.url))


def overwrite(cached: Cached, make: Callable[[bytes], bytes]) -> int:
    """Replace every entry by what `make` makes of it, and return how many there were."""
    with cached.client() as client:
        keys = list(client.scan_iter(count=1000))
        for key in keys:
            # What the replicas count together is no string; it becomes one.
            old = client.get(key) if client.type(key) == b"string" else b"not a string"
            if isinstance(old, bytes):
                client.set(key, make(old), ex=600)
    return len(keys)


GARBAGE: dict[str, Callable[[bytes], bytes]] = {
    "random bytes": lambda old: os.urandom(len(old)),
    "nothing": lambda old: b"",
    "one bit flipped": lambda old: old[:-1] + bytes([old[-1] ^ 1]),
    "cut short": lambda old: old[: len(old) // 2],
    "header only": lambda old: old[:4],
    "another type": lambda old: b"tn1\x06pickle" + old[-100:],
    "a type that is not text": lambda old: b"tn1\x02\xff\xfe" + old[4:],
    "the other kind of entry": lambda old: (b"tn1" if old.startswith(b"tc1") else b"tc1") + old[3:],
    "an empty chunk": lambda old: old[:3] + b"\0",
}


def test_answers_stay_right_while_redis_is_killed_emptied_paused_and_filled_with_garbage(
    cached: Cached,
) -> None:
    with comparing(cached) as wait_for_more:
        wait_for_more()
        assert cached.lookups()[0] > 0, "nothing came from Redis: this proves nothing"
        for make in GARBAGE.values():
            cached.redis.flush()
            wait_for_more()
            assert overwrite(cached, make) > 0
            wait_for_more()
        cached.redis.pause()
        wait_for_more()
        cached.redis.resume()
        wait_for_more()
        cached.redis.kill()
        wait_for_more()
        cached.redis.start()
        wait_until(lambda: cached.lookups()[0] > 0, "Redis is used again")
        wait_for_more()


def forge(cached: Cached, victim: TenantHandle, other: TenantHandle) -> None:
    """Put an entry of one tenant under all keys of another, as it is: a genuine value of the wrong owner."""
    with cached.client() as client:
        theirs, *_ = cached.keys(other)
        genuine = client.get(theirs)
        assert isinstance(genuine, bytes)
        keys = cached.keys(victim)
        assert keys
        for key in keys:
            client.set(key, genuine, ex=600)


def read_after_forgery(cached: Cached, make: Make) -> Any:
    """Return what a tenant reads when Redis holds another tenant's value under its keys."""
    victim, other = cached.stack.new_tenant(), cached.stack.new_tenant()
    with cached.saver(victim) as ours, cached.saver(other) as theirs:
        put(theirs, "thread", 1, "theirs " + make(1))
        put(ours, "thread", 1, "ours " + make(2))
        wait_until(lambda: cached.keys(victim) and cached.keys(other), "both values are in Redis")
        forge(cached, victim, other)
    # One that has nothing yet, so that all bytes are asked for.
    with cached.saver(victim) as ours:
        return value_of(ours.get_tuple(config_of("thread")))


@MAKES
def test_a_genuine_value_of_another_tenant_is_not_served(cached: Cached, make: Make) -> None:
    assert read_after_forgery(cached, make) == "ours " + make(2)


@pytest.mark.parametrize(
    ("make", "check"),
    [
        (large, " and value.digest() == self.digest"),
        (huge, " and chunks.chunk_id(packed) == self.chunk"),
    ],
)
def test_that_forgery_works_on_a_server_that_does_not_check_digests(
    database: Database, private_redis: PrivateRedisFactory, open_folder: Path, make: Make, check: str
) -> None:
    """A check of the test before: it fails if the check of the digest is taken out."""
    source = Path(tenure_server.__file__).parent
    shutil.copytree(source, open_folder / "mutant" / "tenure_server")
    module = open_folder / "mutant" / "tenure_server" / "storage" / "cache_keys.py"
    text = module.read_text()
    assert text.count(check) == 1
    module.write_text(text.replace(check, ""))
    private = private_redis()
    mutant = str(open_folder / "mutant")
    with replicas(1, open_folder, database, private.url, PYTHONPATH=mutant) as (server,):
        cached = Cached(private, [server.target], Stack(server, database, private.url))
        if make is large:
            assert read_after_forgery(cached, make) == "theirs " + make(1)
        else:
            # The client checks chunks once more.
            with pytest.raises(TenureError):
                read_after_forgery(cached, make)


class ChatState(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def chat(saver: TenureSaver, make: Make) -> Any:
    """Return a graph whose answers are longer than what comes with the head."""

    def answer(state: ChatState) -> dict[str, list[AnyMessage]]:
        return {"messages": [AIMessage(make(len(state["messages"])))]}

    graph = StateGraph(ChatState).add_node("answer", answer).add_edge(START, "answer")
    return graph.compile(checkpointer=saver)


def say(graph: Any, number: int, text: str) -> list[AnyMessage]:
    found: list[AnyMessage] = graph.invoke(
        {"messages": [HumanMessage(text)]}, {"configurable": {"thread_id": f"chat-{number}"}}
    )["messages"]
    return found


def calls_of_bodies(database: Database) -> int:
    """Return how often Postgres was asked for values or chunks, as it counts itself."""
    with psycopg.connect(database.admin_url) as connection:
        row = connection.execute(
            "SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions WHERE funcname ~ '^(bodies|chunks)'"
        ).fetchone()
    assert row is not None
    return int(row[0])


@MAKES
def test_the_second_turn_of_a_chat_is_served_from_redis(
    database: Database, private_redis: PrivateRedisFactory, open_folder: Path, make: Make
) -> None:
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{database.name}" SET track_functions = "all"')
    private = private_redis()
    with replicas(2, open_folder, database, private.url) as (first, second):
        cached = Cached(private, [first.target, second.target], Stack(first, database, private.url))
        tenant = cached.stack.default
        with cached.saver(tenant, 0) as saver:
            graph = chat(saver, make)
            for number in range(CONVERSATIONS):
                say(graph, number, "hello")
        wait_until(lambda: len(cached.keys(tenant)) >= CONVERSATIONS, "the first turns are in Redis")
        hits, misses = cached.lookups()
        with cached.saver(tenant, 1) as saver:
            graph = chat(saver, make)
            for number in range(CONVERSATIONS):
                assert len(say(graph, number, "and again")) == 4
        more_hits, more_misses = (
            now - then for now, then in zip(cached.lookups(), (hits, misses), strict=True)
        )
        assert more_hits >= CONVERSATIONS
        assert more_hits / (more_hits + more_misses) >= 0.9
        # A server's connections report their counts at the latest when they end.
        first.stop()
        second.stop()
        assert calls_of_bodies(database) <= 0.1 * CONVERSATIONS


@MAKES
def test_counting_the_calls_of_bodies_sees_them(database: Database, open_folder: Path, make: Make) -> None:
    """A check of the test before: without Redis each second turn asks Postgres."""
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{database.name}" SET track_functions = "all"')
    with replicas(1, open_folder, database) as (server,):
        stack = Stack(server, database, None)
        for _ in range(2):
            # A new client, which holds nothing.
            with TenureSaver(server.target, api_key=stack.api_key) as saver:
                say(chat(saver, make), 0, "hello")
        server.stop()
        assert calls_of_bodies(database) >= 1


@pytest.mark.parametrize(
    ("destroy", "gone"),
    [
        (lambda saver: saver.delete_thread("thread"), [1, 2, 3]),
        (lambda saver: saver.prune(["thread"]), [1, 2]),
        (lambda saver: saver.prune(["thread"], strategy="delete"), [1, 2, 3]),
        (lambda saver: saver.delete_for_runs(["run-2", "run-3"]), [2, 3]),
    ],
    ids=["delete_thread", "prune", "prune by deleting", "delete_for_runs"],
)
def test_what_was_destroyed_is_gone_though_redis_still_has_it(
    cached: Cached, destroy: Callable[[TenureSaver], None], gone: list[int]
) -> None:
    tenant = cached.stack.new_tenant()
    with cached.saver(tenant, 0) as saver, cached.saver(tenant, 1) as other:
        for number in (1, 2, 3):
            put(saver, "thread", number, large(number), metadata={"run_id": f"run-{number}"})
        wait_until(lambda: len(cached.keys(tenant)) == 3, "all values are in Redis")
        for number in (1, 2, 3):
            assert value_of(other.get_tuple(config_of("thread", id_of(number)))) == large(number)
        destroy(saver)
        assert len(cached.keys(tenant)) == 3
        for number in (1, 2, 3):
            for reader in (saver, other):
                found = reader.get_tuple(config_of("thread", id_of(number)))
                if number in gone:
                    assert found is None
                else:
                    assert value_of(found) == large(number)


def test_redis_never_holds_the_only_copy(cached: Cached) -> None:
    tenant = cached.stack.new_tenant()
    with cached.saver(tenant, 0) as saver, cached.saver(tenant, 1) as other:
        for number in range(1, 21):
            put(saver, "thread", number, large(number))
        wait_until(lambda: len(cached.keys(tenant)) == 20, "all values are in Redis")
        cached.redis.flush()
        for reader in (saver, other):
            found = list(reader.list(config_of("thread")))
            assert [value_of(item) for item in found] == [large(number) for number in range(20, 0, -1)]
        cached.redis.kill()
        for number in range(1, 21):
            assert value_of(other.get_tuple(config_of("thread", id_of(number)))) == large(number)
