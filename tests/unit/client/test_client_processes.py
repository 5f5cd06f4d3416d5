"""One saver in a process: its loops, threads, forks, interruptions and end."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from tenure_client import TenureSaver
from tenure_client.lanes import MAX_IN_FLIGHT

from tests.harness.processes import PATIENCE, needs_proc
from tests.unit.client import scripted
from tests.unit.client.scripted import Script

KEY = "tn_tenant_id_secret"
CONFIG: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


@pytest.fixture
def server() -> Iterator[Script]:
    with scripted.running() as script:
        yield script


def program(source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own: its end is what is looked at, or the server's threads are in the way."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", source, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_one_saver_serves_loops_one_after_the_other(server: Script) -> None:
    saver = TenureSaver(server.target, api_key=KEY)

    async def both() -> None:
        await saver.aget_tuple(CONFIG)
        saver.get_tuple(CONFIG)

    for _ in range(3):
        asyncio.run(both())
        gc.collect()

    assert len(server.seen) == 6
    assert len(saver.connection._channels._aio) == 1
    saver.close()


def test_one_saver_serves_threads_with_their_own_loops(server: Script) -> None:
    failures = []
    with TenureSaver(server.target, api_key=KEY) as saver:

        async def several() -> None:
            await asyncio.gather(*(saver.aget_tuple(CONFIG) for _ in range(20)))
            saver.get_tuple(CONFIG)

        def work() -> None:
            try:
                asyncio.run(several())
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert failures == []
    assert sum(len(seen.operations) for seen in server.seen) == 4 * 21


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("used", [["sync"], ["sync", "loop"]], ids="+".join)
def test_forked_workers_make_their_own_connections(server: Script, used: list[str]) -> None:
    forking = """
import asyncio, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from tenure_client import TenureSaver
saver = TenureSaver(sys.argv[1], api_key="tn_x")
config = {"configurable": {"thread_id": "t"}}
saver.get_tuple(config)
if "loop" in sys.argv:
    asyncio.run(saver.aget_tuple(config))
children = []
for _ in range(4):
    child = os.fork()
    if not child:
        for _ in range(5):
            saver.get_tuple(config)
        asyncio.run(saver.aget_tuple(config))
        os._exit(0)
    children.append(child)
saver.get_tuple(config)
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children))
"""
    done = program(forking, server.target, *used)

    assert (done.returncode, done.stderr) == (0, "")
    assert len(server.seen) == 2 + 4 * 6 + ("loop" in used)


ENDS = {
    "threads": "saver.get_tuple(config); saver.put(config, empty_checkpoint(), {}, {})",
    "loop": "asyncio.run(both())",
    "loop of its own": "loop = asyncio.new_event_loop(); loop.run_until_complete(both()); loop.close()",
    "both": "asyncio.run(both()); saver.get_tuple(config)",
    "blocking on a loop": "asyncio.run(mixed())",
}
CLOSING = {
    "threads": "saver.close()",
    "loop": "asyncio.run(saver.aclose())",
    "loop of its own": "saver.close()",
    "both": "saver.close()",
    "blocking on a loop": "asyncio.run(saver.aclose())",
}


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "left open"])
@pytest.mark.parametrize("used", ENDS)
def test_a_process_with_an_open_session_ends_at_once_and_says_nothing(
    server: Script, used: str, closed: bool
) -> None:
    done = program(
        f"""
import asyncio, sys
from langgraph.checkpoint.base import empty_checkpoint
from tenure_client import TenureSaver
saver = TenureSaver(sys.argv[1], api_key="tn_x")
config = {{"configurable": {{"thread_id": "t", "checkpoint_ns": ""}}}}
async def both():
    await asyncio.gather(
        saver.aget_tuple(config), saver.aput(config, empty_checkpoint(), {{}}, {{}}), saver.aget_tuple(config)
    )
async def mixed():
    await both()
    saver.get_tuple(config)
{ENDS[used]}
{CLOSING[used] if closed else ""}
""",
        server.target,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert server.seen


UNDER_WAY = {
    "thread": """
threading.Thread(target=read, daemon=True).start()
while not saver.connection._channels.sync().reads._lane._in_flight:
    pass
""",
    "task": """
async def give_up():
    reading = asyncio.create_task(saver.aget_tuple(config))
    while not saver.connection._channels.aio().reads._lane._in_flight:
        await asyncio.sleep(0)
asyncio.run(give_up())
""",
}


@pytest.mark.parametrize("ending", ["", "saver.close()"], ids=["left open", "closed"])
@pytest.mark.parametrize("used", UNDER_WAY)
def test_a_process_ends_though_an_operation_is_under_way(server: Script, used: str, ending: str) -> None:
    released = threading.Event()
    server.answers.append(lambda _context: released.wait(2 * PATIENCE))
    done = program(
        f"""
import asyncio, sys, threading
from tenure_client import TenureSaver
saver = TenureSaver(sys.argv[1], api_key="tn_x", timeout=600)
config = {{"configurable": {{"thread_id": "t"}}}}
def read():
    try:
        saver.get_tuple(config)
    except Exception:
        pass
{UNDER_WAY[used]}
{ending}
""",
        server.target,
    )
    released.set()

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_interrupted_caller_leaves_its_neighbours_alone(server: Script) -> None:
    asked, opened = threading.Semaphore(0), threading.Event()

    def held(_context: Any) -> Any:
        asked.release()
        opened.wait(PATIENCE)
        return scripted.pb.WriteResponse(results=[scripted.pb.MutationResult()])

    server.answers += [held] * MAX_IN_FLIGHT
    done: list[str] = []

    with TenureSaver(server.target, api_key=KEY, timeout=PATIENCE) as saver:

        def put(name: str) -> None:
            config: Any = {"configurable": {"thread_id": name, "checkpoint_ns": ""}}
            saver.put(config, empty_checkpoint(), {}, {})
            done.append(name)

        def interrupt() -> None:
            for _ in range(MAX_IN_FLIGHT):
                asked.acquire(timeout=PATIENCE)
            neighbour.start()
            pool = saver.connection._channels.sync()
            while len(pool.writes._lane._pending) < 2 and not opened.wait(0.001):
                pass
            os.kill(os.getpid(), signal.SIGINT)

        first = [threading.Thread(target=put, args=(f"first {n}",)) for n in range(MAX_IN_FLIGHT)]
        neighbour = threading.Thread(target=put, args=("neighbour",))
        for thread in first:
            thread.start()
            while not asked.acquire(timeout=PATIENCE):
                pass
        asked.release(MAX_IN_FLIGHT)
        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            put("interrupted")
        opened.set()
        for thread in (interrupting, *first, neighbour):
            thread.join(PATIENCE)

    assert sorted(done) == ["first 0", "first 1", "neighbour"]
    names = [one.put.ref.thread_id for seen in server.seen for one in seen.request.mutations]
    assert "interrupted" not in names


def test_loops_in_turn_leave_neither_channels_nor_threads(server: Script) -> None:
    needs_proc()
    done = program(
        """
import asyncio, gc, os, sys
from tenure_client import TenureSaver
saver = TenureSaver(sys.argv[1], api_key="tn_x")
config = {"configurable": {"thread_id": "t"}}
async def several():
    await asyncio.gather(*(saver.aget_tuple(config) for _ in range(3)))
def left():
    gc.collect()
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
def run(loops):
    for _ in range(loops):
        asyncio.run(several())
        gc.collect()
run(5)
before = left()
run(30)
assert len(saver.connection._channels._aio) == 1
# gRPC keeps a few of its own, more or fewer.
assert all(after - then < 15 for then, after in zip(before, left())), (before, left())
""",
        server.target,
    )

    # gRPC itself may write of events that come after a loop was closed.
    assert done.returncode == 0, done.stderr
    assert server.sessions == 35


def test_closing_again_and_again_leaves_no_thread(server: Script) -> None:
    saver = TenureSaver(server.target, api_key=KEY)
    for _ in range(10):
        saver.get_tuple(CONFIG)
        saver.close()

    for thread in threading.enumerate():
        if thread.name == "tenure-session":
            thread.join(PATIENCE)
            assert not thread.is_alive()
