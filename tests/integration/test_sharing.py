"""One saver for all threads, event loops and forked workers of a program, and for a server that restarts."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

import grpc
import psycopg
import pytest
from langgraph.graph import START, StateGraph
from langgraph.store.base import PutOp
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import server_pb2
from tenure_client import TenureSaver, TenureStore, Unavailable

from tests.harness.databases import Database
from tests.harness.processes import PATIENCE
from tests.harness.server import clean_environment
from tests.harness.stack import Stack
from tests.integration import fork_support
from tests.integration.checkpoints_support import (
    SLOW,
    checkpoint,
    config_of,
    id_of,
    put,
    replicas,
    value_of,
    wait_until,
)
from tests.integration.tenants_support import put_of
from tests.integration.wire_support import Wire, operation

ROUNDS = 200 if SLOW else 20
LARGE = 64 << 20
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Collect what a test left, so that a warning about it is an error of that test."""
    yield
    gc.collect()


def use(saver: TenureSaver, name: str) -> None:
    """Put, get and list, and check what comes back."""
    for number in range(1, ROUNDS + 1):
        put(saver, name, number, [name, number])
        saver.put_writes(config_of(name, id_of(number)), [("state", number)], "task")
        found = saver.get_tuple(config_of(name))
        assert found is not None
        assert value_of(found) == [name, number]
        assert found.pending_writes == [("task", "state", number)]
    values = [value_of(item) for item in saver.list(config_of(name))]
    assert values == [[name, number] for number in range(ROUNDS, 0, -1)]


async def ause(saver: TenureSaver, name: str) -> None:
    """Do as `use` does, in the other colour."""
    for number in range(1, ROUNDS + 1):
        made = checkpoint(number, [name, number])
        parent = config_of(name, id_of(number - 1) if number > 1 else None)
        await saver.aput(parent, made, {"step": number}, made["channel_versions"])
        await saver.aput_writes(config_of(name, id_of(number)), [("state", number)], "task")
        found = await saver.aget_tuple(config_of(name))
        assert found is not None
        assert value_of(found) == [name, number]
        assert found.pending_writes == [("task", "state", number)]
    values = [value_of(item) async for item in saver.alist(config_of(name))]
    assert values == [[name, number] for number in range(ROUNDS, 0, -1)]


async def ause_many(saver: TenureSaver, name: str) -> None:
    """Use it from several tasks of one loop."""
    await asyncio.gather(*(ause(saver, f"{name}-{number}") for number in range(4)))


def in_threads(*jobs: Callable[[], object]) -> None:
    """Run jobs at the same time, each in a thread; raise what one of them raised."""
    with ThreadPoolExecutor(len(jobs)) as threads:
        barrier = threading.Barrier(len(jobs))

        def run(job: Callable[[], object]) -> None:
            barrier.wait(PATIENCE)
            job()

        for done in [threads.submit(run, job) for job in jobs]:
            done.result()


def test_eight_threads_share_a_saver(saver: TenureSaver) -> None:
    in_threads(*(lambda n=n: use(saver, f"thread-{n}") for n in range(8)))


def test_event_loops_one_after_the_other_share_a_saver(saver: TenureSaver) -> None:
    for number in range(4):
        asyncio.run(ause_many(saver, f"loop-{number}"))


def test_event_loops_at_the_same_time_and_threads_share_a_saver(saver: TenureSaver) -> None:
    loops = [lambda n=n: asyncio.run(ause_many(saver, f"loop-{n}")) for n in range(3)]
    threads = [lambda n=n: use(saver, f"thread-{n}") for n in range(3)]
    in_threads(*loops, *threads)


def use_store(store: TenureStore, name: str) -> None:
    """Put, get, search and delete, and check what comes back."""
    for number in range(ROUNDS):
        store.batch([PutOp((name,), key, {"n": number}) for key in ("a", "b")])
        item = store.get((name,), "a")
        assert item is not None
        assert item.value == {"n": number}
        assert [found.value for found in store.search((name,))] == [{"n": number}] * 2
        store.delete((name,), "b")
        assert store.get((name,), "b") is None


async def ause_store(store: TenureStore, name: str) -> None:
    """Do as `use_store` does, in the other colour, in several tasks of one loop."""

    async def in_a_task(name: str) -> None:
        for number in range(ROUNDS):
            await store.abatch([PutOp((name,), key, {"n": number}) for key in ("a", "b")])
            item = await store.aget((name,), "a")
            assert item is not None
            assert item.value == {"n": number}
            assert [found.value for found in await store.asearch((name,))] == [{"n": number}] * 2
            await store.adelete((name,), "b")
            assert await store.aget((name,), "b") is None

    await asyncio.gather(*(in_a_task(f"{name}-{number}") for number in range(4)))
    await store.connection.aclose()


def test_a_store_is_shared_with_a_saver_by_loops_and_threads(saver: TenureSaver) -> None:
    store = TenureStore(saver.connection)
    in_threads(
        *(lambda n=n: use_store(store, f"thread-{n}") for n in range(3)),
        *(lambda n=n: asyncio.run(ause_store(store, f"loop-{n}")) for n in range(2)),
        lambda: use(saver, "thread"),
        lambda: asyncio.run(ause(saver, "loop")),
    )
    for number in range(2):
        asyncio.run(ause_store(store, f"later loop-{number}"))


async def test_a_cancelled_write_does_not_take_its_neighbours_along(saver: TenureSaver) -> None:
    store = TenureStore(saver.connection)
    for at in range(ROUNDS):
        puts = [asyncio.create_task(store.aput((str(at),), str(n), {"n": n})) for n in range(8)]
        gets = [asyncio.create_task(store.aget((str(at - 1),), str(n))) for n in range(8)]
        for _ in range(at % 5):
            await asyncio.sleep(0)
        puts[3].cancel()
        gets[3].cancel()
        await asyncio.gather(*puts, *gets, return_exceptions=True)
        assert [task.cancelled() for task in puts + gets] == ([*[False] * 3, True, *[False] * 4] * 2)
        keys = {item.key for item in await store.asearch((str(at),))}
        assert keys >= set("0124567")
        assert all(task.result() is not None for n, task in enumerate(gets) if at > 0 and n != 3)
    await saver.aclose()


def test_clones_with_an_allowlist_share_its_connection(saver: TenureSaver) -> None:
    clones = [saver.with_allowlist([("tests", f"Type{number}")]) for number in range(3)]
    assert all(clone.connection is saver.connection for clone in clones)
    in_threads(
        *(lambda n=n, clone=clone: use(clone, f"clone-{n}") for n, clone in enumerate(clones)),
        *(lambda n=n, clone=clone: asyncio.run(ause(clone, f"async-{n}")) for n, clone in enumerate(clones)),
        lambda: use(saver, "original"),
    )


async def test_a_blocking_call_on_a_running_loop_does_not_deadlock(saver: TenureSaver) -> None:
    running = asyncio.create_task(ause_many(saver, "tasks"))
    for number in range(4):
        await saver.aget_tuple(config_of("none"))
        use(saver, f"blocking-{number}")
    await running
    await saver.aclose()


async def test_a_blocking_graph_on_a_running_loop_does_not_deadlock(saver: TenureSaver) -> None:
    graph = keeper(saver)
    config = config_of("thread")
    assert graph.invoke({"kept": b"one"}, config)["kept"] == b"one"
    assert (await graph.ainvoke({"kept": b"two"}, config))["kept"] == b"two"
    assert graph.get_state(config).values["kept"] == b"two"
    await saver.aclose()


def test_a_saver_works_again_after_it_was_closed(saver: TenureSaver) -> None:
    for number in range(3):
        put(saver, "thread", number + 1, number)
        saver.close()
    in_threads(*(lambda n=n: use(saver, f"thread-{n}") for n in range(2)))
    assert len(list(saver.list(config_of("thread")))) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_workers_use_the_saver_of_their_parent(stack: Stack) -> None:
    ran = subprocess.run(
        # Python 3.12 warns of every fork of a process with threads.
        [
            *(sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning"),
            *("-m", fork_support.__name__, stack.target, stack.new_tenant().api_key),
        ],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    report = json.loads(ran.stdout)
    names = [f"{kind}-{n}" for kind in ("process", "fork") for n in range(fork_support.WORKERS)]
    assert report == {
        name: [[f"{name} sync", f"{name} async", "parent async", "parent sync"], 0]
        for name in [*names, "parent again"]
    }


class Kept(TypedDict):
    kept: bytes


def keeper(saver: TenureSaver) -> Any:
    """Return a graph that keeps what it is given."""
    graph = StateGraph(Kept).add_node("look", lambda state: None).add_edge(START, "look")
    return graph.compile(checkpointer=saver)


def digest(data: bytes) -> bytes:
    return hashlib.blake2b(data).digest()


@pytest.fixture(scope="module")
def large() -> bytes:
    """A state that no compression makes smaller."""
    return os.urandom(LARGE)


def test_a_large_value_round_trips(saver: TenureSaver, large: bytes) -> None:
    put(saver, "thread", 1, large)
    put(saver, "thread", 2, "small")
    assert digest(value_of(saver.get_tuple(config_of("thread", id_of(1))))) == digest(large)
    newest, oldest = saver.list(config_of("thread"))
    assert value_of(newest) == "small"
    assert digest(value_of(oldest)) == digest(large)


async def test_a_large_value_round_trips_without_blocking(saver: TenureSaver, large: bytes) -> None:
    made = checkpoint(1, large)
    await saver.aput(config_of("thread"), made, {"step": 1}, made["channel_versions"])
    await saver.aput_writes(config_of("thread", id_of(1)), [("state", large)], "task")
    found = await saver.aget_tuple(config_of("thread"))
    assert digest(value_of(found)) == digest(large)
    assert found is not None
    assert found.pending_writes is not None
    assert [digest(write[2]) for write in found.pending_writes] == [digest(large)]
    listed = [digest(value_of(item)) async for item in saver.alist(config_of("thread"))]
    assert listed == [digest(large)]
    await saver.aclose()


def test_the_history_of_a_graph_with_a_large_state(saver: TenureSaver, large: bytes) -> None:
    graph = keeper(saver)
    assert digest(graph.invoke({"kept": large}, config_of("thread"))["kept"]) == digest(large)
    assert digest(graph.get_state(config_of("thread")).values["kept"]) == digest(large)
    history = [state.values for state in graph.get_state_history(config_of("thread"))]
    assert [digest(values["kept"]) if values else None for values in history] == [
        digest(large),
        digest(large),
        None,
    ]


async def test_the_history_of_a_graph_with_a_large_state_without_blocking(
    saver: TenureSaver, large: bytes
) -> None:
    graph = keeper(saver)
    assert digest((await graph.ainvoke({"kept": large}, config_of("thread")))["kept"]) == digest(large)
    history = [state.values async for state in graph.aget_state_history(config_of("thread"))]
    assert [digest(values["kept"]) if values else None for values in history] == [
        digest(large),
        digest(large),
        None,
    ]
    await saver.aclose()


def test_a_draining_server_finishes_what_runs_and_a_saver_outlasts_its_restart(
    database: Database, redis_url: str, open_folder: Path
) -> None:
    with replicas(1, open_folder, database, redis_url) as (server,):
        key, info = Stack(server, database, redis_url).api_key, server_pb2.GetServerInfoRequest()
        ref = pb.CheckpointRef(thread_id="held", checkpoint_id=id_of(2))
        request = pb.WriteRequest(
            mutations=[pb.Mutation(operation=operation(timeout_ms=60_000), put=put_of(ref, "2", "two", {}))]
        )
        with (
            TenureSaver(server.target, api_key=key, timeout=PATIENCE) as patient,
            TenureSaver(server.target, api_key=key, timeout=0.5) as impatient,
            Wire(server.target, key) as wire,
            psycopg.connect(database.admin_url) as other,
            psycopg.connect(database.admin_url, autocommit=True) as watching,
            ThreadPoolExecutor(2) as threads,
        ):
            for thread_id in ("held", "free"):
                put(patient, thread_id, 1, "one")
            assert value_of(impatient.get_tuple(config_of("free"))) == "one"
            other.execute("SELECT FROM tenure.thread_head WHERE thread_id = 'held' FOR UPDATE")
            running = threads.submit(wire.start("Write", [request]))
            waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"
            wait_until(lambda: watching.execute(waiting, [database.name]).fetchall(), "the call runs")
            server.terminate()
            wait_until(
                lambda: wire.call("GetServerInfo", info).code is grpc.StatusCode.UNAVAILABLE, "it drains"
            )
            with pytest.raises(Unavailable):
                impatient.get_tuple(config_of("free"))
            later = threads.submit(put, patient, "free", 2, "two")
            assert not running.done()
            other.rollback()
            answer = running.result(PATIENCE).message(pb.WriteResponse)
            assert [result.status.code for result in answer.results] == [0]
            assert server.wait() == 0
            assert not later.done()
            server.start()
            later.result(PATIENCE)
            assert value_of(patient.get_tuple(config_of("free"))) == "two"
        with Wire(server.target, key) as wire:
            listed = wire.call("List", pb.ListRequest(thread_id="held")).message(pb.ListResponse)
            assert [c.ref.checkpoint_id for c in listed.page.checkpoints] == [id_of(2), id_of(1)]
