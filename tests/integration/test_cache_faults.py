"""Postgres decides, Redis supplies bytes: whatever is done to Redis, answers stay right and none fails."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import psycopg
import pytest
import redis
import tenure_server
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from tenure_client import TenureSaver

from tests.harness.databases import Database, PrivateRedis, PrivateRedisFactory
from tests.harness.stack import Stack, TenantHandle
from tests.integration.checkpoints_support import (
    SLOW,
    config_of,
    id_of,
    put,
    replicas,
    value_of,
    wait_until,
)

INLINE_BYTES = 4096
"""Default of TENURE_INLINE_BYTES: larger values are looked for in Redis."""
STEPS_PER_FAULT = 400 if SLOW else 60
CONVERSATIONS = 50 if SLOW else 10


@dataclass(frozen=True)
class Cached:
    """Two replicas on one Redis that may be hurt.

    Attributes:
        redis: The Redis.
        targets: Where the replicas are.
        stack: Makes tenants.
    """

    redis: PrivateRedis
    targets: list[str]
    stack: Stack

    def client(self) -> redis.Redis:
        """Return a client of the Redis itself; a context manager."""
        return redis.Redis.from_url(self.redis.url)

    def keys(self, tenant: TenantHandle) -> list[bytes]:
        """Return the keys of a tenant."""
        with self.client() as client:
            prefix = f"tn1:{{{tenant.tenant_id.replace('-', '')}"
            return [key for key in client.scan_iter(count=1000) if key.startswith(prefix.encode())]

    def lookups(self) -> tuple[int, int]:
        """Return the hits and misses that Redis has counted since it started."""
        with self.client() as client:
            stats: Any = client.info("stats")
        return stats["keyspace_hits"], stats["keyspace_misses"]

    def saver(self, tenant: TenantHandle, replica: int = 0) -> TenureSaver:
        """Return a saver at a replica; a context manager."""
        return TenureSaver(self.targets[replica], api_key=tenant.api_key)


@pytest.fixture
def cached(database: Database, private_redis: PrivateRedisFactory, open_folder: Path) -> Iterator[Cached]:
    private = private_redis()
    with replicas(2, open_folder, database, private.url) as servers:
        yield Cached(private, [server.target for server in servers], Stack(servers[0], database, private.url))


def large(seed: int) -> str:
    """Return a text that is above the size that comes with the head."""
    return f"{seed} " + random.Random(seed).randbytes(INLINE_BYTES).hex()


class Twins:
    """Does the same to Tenure, through replicas at random, and to InMemorySaver; compares all answers."""

    def __init__(self, name: str, savers: list[TenureSaver]) -> None:
        self._savers = savers
        self._model = InMemorySaver()
        self._random = random.Random(name)
        self._name = name
        self._last = {f"{name}-{number}": 0 for number in range(3)}

    def step(self) -> None:
        thread_id = self._random.choice(list(self._last))
        last = self._last[thread_id]
        kinds: list[Callable[[str, int], None]] = [self._get, self._get, self._get_by_id, self._list]
        kinds += [self._put, self._put] if last < 12 else [self._delete]
        self._random.choice(kinds)(thread_id, last)

    def _put(self, thread_id: str, last: int) -> None:
        self._last[thread_id] = last + 1
        value = large(self._random.randrange(1 << 30)) if self._random.random() < 0.8 else "small"
        for saver in self._both():
            put(saver, thread_id, last + 1, value)
            saver.put_writes(config_of(thread_id, id_of(last + 1)), [("state", value)], "task")

    def _get(self, thread_id: str, last: int) -> None:
        found, expected = (saver.get_tuple(config_of(thread_id)) for saver in self._both())
        assert_same(found, expected)

    def _get_by_id(self, thread_id: str, last: int) -> None:
        config = config_of(thread_id, id_of(self._random.randrange(last + 2)))
        found, expected = (saver.get_tuple(config) for saver in self._both())
        assert_same(found, expected)

    def _list(self, thread_id: str, last: int) -> None:
        found, expected = (list(saver.list(config_of(thread_id))) for saver in self._both())
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)

    def _delete(self, thread_id: str, last: int) -> None:
        self._last[thread_id] = 0
        for saver in self._both():
            saver.delete_thread(thread_id)

    def _both(self) -> tuple[BaseCheckpointSaver[Any], BaseCheckpointSaver[Any]]:
        return self._random.choice(self._savers), self._model


def assert_same(found: CheckpointTuple | None, expected: CheckpointTuple | None) -> None:
    """Compare two checkpoints in all they hold."""
    if found is None or expected is None:
        assert found is expected
        return
    for name in ("config", "metadata", "parent_config", "pending_writes"):
        assert getattr(found, name) == getattr(expected, name), name
    assert found.checkpoint == expected.checkpoint


@contextmanager
def comparing(cached: Cached, workers: int = 3) -> Iterator[Callable[[], None]]:
    """Compare in the background; yields what waits for many more comparisons, or raises what went wrong."""
    tenant = cached.stack.new_tenant()
    steps, stop, failures = [0] * workers, threading.Event(), []
    with ExitStack() as stack:
        savers = [stack.enter_context(cached.saver(tenant, replica)) for replica in (0, 1)]

        def work(number: int) -> None:
            twins = Twins(f"thread-{number}", savers)
            try:
                while not stop.is_set():
                    twins.step()
                    steps[number] += 1
            except BaseException as error:
                failures.append(error)

        def wait_for_more() -> None:
            before = sum(steps)
            wait_until(lambda: failures or sum(steps) - before >= STEPS_PER_FAULT, "answers to compare")
            if failures:
                raise failures[0]

        for number in range(workers):
            thread = threading.Thread(target=work, args=(number,))
            thread.start()
            stack.callback(thread.join)
        stack.callback(stop.set)
        yield wait_for_more
        wait_for_more()


def overwrite(cached: Cached, make: Callable[[bytes], bytes]) -> int:
    """Replace every entry by what `make` makes of it, and return how many there were."""
    with cached.client() as client:
        keys = list(client.scan_iter(count=1000))
        for key in keys:
            old = client.get(key)
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
        (theirs,) = cached.keys(other)
        genuine = client.get(theirs)
        assert isinstance(genuine, bytes)
        keys = cached.keys(victim)
        assert keys
        for key in keys:
            client.set(key, genuine, ex=600)


def read_after_forgery(cached: Cached) -> Any:
    """Return what a tenant reads when Redis holds another tenant's value under its keys."""
    victim, other = cached.stack.new_tenant(), cached.stack.new_tenant()
    with cached.saver(victim) as ours, cached.saver(other) as theirs:
        put(theirs, "thread", 1, "theirs " + large(1))
        put(ours, "thread", 1, "ours " + large(2))
        wait_until(lambda: cached.keys(victim) and cached.keys(other), "both values are in Redis")
        forge(cached, victim, other)
        return value_of(ours.get_tuple(config_of("thread")))


def test_a_genuine_value_of_another_tenant_is_not_served(cached: Cached) -> None:
    assert read_after_forgery(cached) == "ours " + large(2)


def test_that_forgery_works_on_a_server_that_does_not_check_digests(
    database: Database, private_redis: PrivateRedisFactory, open_folder: Path
) -> None:
    """A check of the test before: it fails if the check of the digest is taken out."""
    source = Path(tenure_server.__file__).parent
    shutil.copytree(source, open_folder / "mutant" / "tenure_server")
    module = open_folder / "mutant" / "tenure_server" / "storage" / "redis_cache.py"
    text, check = module.read_text(), " and value.digest() == key.digest"
    assert text.count(check) == 1
    module.write_text(text.replace(check, ""))
    private = private_redis()
    mutant = str(open_folder / "mutant")
    with replicas(1, open_folder, database, private.url, PYTHONPATH=mutant) as (server,):
        cached = Cached(private, [server.target], Stack(server, database, private.url))
        assert read_after_forgery(cached) == "theirs " + large(1)


class ChatState(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def chat(saver: TenureSaver) -> Any:
    """Return a graph whose answers are longer than what comes with the head."""

    def answer(state: ChatState) -> dict[str, list[AnyMessage]]:
        return {"messages": [AIMessage(large(len(state["messages"])))]}

    graph = StateGraph(ChatState).add_node("answer", answer).add_edge(START, "answer")
    return graph.compile(checkpointer=saver)


def say(graph: Any, number: int, text: str) -> list[AnyMessage]:
    found: list[AnyMessage] = graph.invoke(
        {"messages": [HumanMessage(text)]}, {"configurable": {"thread_id": f"chat-{number}"}}
    )["messages"]
    return found


def calls_of_bodies(database: Database) -> int:
    """Return how often Postgres was asked for channel values, as it counts itself."""
    with psycopg.connect(database.admin_url) as connection:
        row = connection.execute(
            "SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions WHERE funcname LIKE 'bodies%'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_the_second_turn_of_a_chat_is_served_from_redis(
    database: Database, private_redis: PrivateRedisFactory, open_folder: Path
) -> None:
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{database.name}" SET track_functions = "all"')
    private = private_redis()
    with replicas(2, open_folder, database, private.url) as (first, second):
        cached = Cached(private, [first.target, second.target], Stack(first, database, private.url))
        tenant = cached.stack.default
        with cached.saver(tenant, 0) as saver:
            graph = chat(saver)
            for number in range(CONVERSATIONS):
                say(graph, number, "hello")
        wait_until(lambda: len(cached.keys(tenant)) >= CONVERSATIONS, "the first turns are in Redis")
        hits, misses = cached.lookups()
        with cached.saver(tenant, 1) as saver:
            graph = chat(saver)
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


def test_counting_the_calls_of_bodies_sees_them(database: Database, open_folder: Path) -> None:
    """A check of the test before: without Redis each second turn asks Postgres."""
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{database.name}" SET track_functions = "all"')
    with replicas(1, open_folder, database) as (server,):
        stack = Stack(server, database, None)
        with TenureSaver(server.target, api_key=stack.api_key) as saver:
            graph = chat(saver)
            for _ in range(2):
                say(graph, 0, "hello")
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
