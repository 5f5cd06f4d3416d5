"""`tenure serve --workers N`: several processes on one port that start, drain and end as one server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import grpc
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import server_pb2
from tenure_client import TenureSaver
from tenure_server.config import Config
from tenure_server.local.ports import free_port

from tests.harness.databases import Database
from tests.harness.processes import PATIENCE, needs_proc, processes_of, wait_for_none_of
from tests.harness.server import ServerProcess, clean_environment
from tests.harness.stack import Stack
from tests.integration.checkpoints_support import id_of, put, wait_until
from tests.integration.tenants_support import put_of
from tests.integration.wire_support import Answer, Wire, operation
from tests.integration.writers_support import assert_nothing_lost_or_doubled, writing

WORKERS = 2
CONNECTIONS = 64
"""The kernel deals them out by a hash: that a worker gets none of so many does not happen."""
ACKNOWLEDGED = 100
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(autouse=True)
def proc() -> None:
    needs_proc()


@contextmanager
def workers(
    folder: Path, database: Database, redis_url: str | None = None, **env: str
) -> Iterator[ServerProcess]:
    """Run a server of two workers in a folder of its own."""
    server = ServerProcess(folder, database, redis_url, env={"TENURE_WORKERS": str(WORKERS)} | env)
    try:
        yield server.start()
    finally:
        server.close()


def pids(folder: Path) -> dict[int, int]:
    """Return the process ids of the workers that run in a folder, by their numbers."""
    found = processes_of(folder).items()
    return {int(slot[1]): pid for pid, arguments in found if (slot := re.search(r"--slot (\d+)", arguments))}


def sockets(server: ServerProcess, state: str) -> set[str]:
    """Return the sockets on the server's port in a state: 01 = connected, 0A = listening."""
    port = f":{int(server.target.rpartition(':')[2]):04X}"
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()
    ]
    return {f"socket:[{row[9]}]" for row in rows if row[1].endswith(port) and row[3] == state}


def listeners(server: ServerProcess) -> int:
    """Return how many processes listen on the server's port."""
    return len(sockets(server, "0A"))


def connections(server: ServerProcess, pid: int) -> int:
    """Return how many connections to the server a process has accepted."""
    held = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    return len(held & sockets(server, "01"))


def health_of(target: str, service: str = "") -> int:
    """Return what the health service says on a connection of its own."""
    with grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=PATIENCE, wait_for_ready=True)
        status: int = answer.status
        return status


def serve(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a server that is to refuse."""
    return subprocess.run(
        [sys.executable, "-m", "tenure_server", "serve", *arguments],
        capture_output=True,
        text=True,
        env=clean_environment() | env,
        timeout=2 * PATIENCE,
        check=False,
    )


def assert_refused(ran: subprocess.CompletedProcess[str], hint: str) -> None:
    assert ran.returncode == 1
    assert ran.stderr.count(f"Error: cannot serve:\n  {hint}") == 1, ran.stderr
    assert "Traceback" not in ran.stderr


@contextmanager
def several_savers(server: ServerProcess, api_key: str) -> Iterator[list[TenureSaver]]:
    """Open so many savers that no worker is left without one, but seldom."""
    with ExitStack() as opened:
        yield [
            opened.enter_context(TenureSaver(server.target, api_key=api_key, timeout=PATIENCE))
            for _ in range(6)
        ]


@contextmanager
def holding_a_call(server: ServerProcess, database: Database, api_key: str) -> Iterator[Future[Answer]]:
    """Have a write of a second checkpoint of the thread `held` that goes on until the block is left."""
    with ExitStack() as opened:
        saver = opened.enter_context(TenureSaver(server.target, api_key=api_key))
        put(saver, "held", 1, "one")
        wire = opened.enter_context(Wire(server.target, api_key))
        threads = opened.enter_context(ThreadPoolExecutor(1))
        other = opened.enter_context(psycopg.connect(database.admin_url))
        watching = opened.enter_context(psycopg.connect(database.admin_url, autocommit=True))
        other.execute("SELECT FROM tenure.thread_head WHERE thread_id = 'held' FOR UPDATE")
        ref = pb.CheckpointRef(thread_id="held", checkpoint_id=id_of(2))
        mutation = pb.Mutation(operation=operation(timeout_ms=60_000), put=put_of(ref, "2", "two", {}))
        running = threads.submit(wire.start("Write", [pb.WriteRequest(mutations=[mutation])]))
        waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"
        wait_until(lambda: watching.execute(waiting, [database.name]).fetchall(), "the call runs")
        yield running


@pytest.fixture(scope="module")
def folder(run_folder: Path) -> Path:
    made = run_folder / "workers"
    made.mkdir(mode=0o711)
    return made


@pytest.fixture(scope="module")
def shared(folder: Path, postgres: object, stack: Stack) -> Iterator[ServerProcess]:
    """A server for tests that leave it as it is; the run's own stack is another one, on the same database."""
    with workers(folder, stack.database, stack.redis_url, TENURE_POOL_SIZE="10") as server:
        yield server


def test_every_worker_takes_connections(shared: ServerProcess, folder: Path) -> None:
    with ExitStack() as opened:
        for _ in range(CONNECTIONS):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = opened.enter_context(grpc.insecure_channel(shared.target, options))
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert answer.status == SERVING
        shares = {number: connections(shared, pid) for number, pid in pids(folder).items()}
        assert shares.keys() == {1, 2}
        assert min(shares.values()) > 0
        assert sum(shares.values()) == CONNECTIONS
        assert connections(shared, shared.pid) == 0, "the parent accepts, too"


def test_one_server_is_one_process_unless_asked_otherwise(
    stack: Stack, open_folder: Path, database: Database
) -> None:
    server = ServerProcess(open_folder, database, env={"TENURE_WORKERS": "1"})
    try:
        server.start()
        assert [pid for pid, name in processes_of(open_folder).items() if " serve" in name] == [server.pid]
    finally:
        server.close()


def test_workers_share_the_pool_and_one_of_them_sweeps(
    shared: ServerProcess, folder: Path, stack: Stack
) -> None:
    told = {
        number: dict(
            entry.split("=", 1)
            for entry in Path(f"/proc/{pid}/environ").read_text().split("\0")
            if "=" in entry
        )
        for number, pid in pids(folder).items()
    }
    assert [told[number]["TENURE_POOL_SIZE"] for number in (1, 2)] == ["5", "5"]
    assert told[1]["TENURE_OPS_DATABASE_URL"] == stack.database.ops_url
    config = Config.from_env(told[2])
    assert config.ops_database_url is None
    assert (config.workers, config.ready_file, config.listen) == (1, None, shared.target)


@pytest.mark.parametrize("arguments", [[], ["--workers", "2"]], ids=["one process", "workers"])
def test_a_second_server_on_the_port_is_refused(
    shared: ServerProcess, stack: Stack, arguments: list[str]
) -> None:
    env = {"TENURE_DATABASE_URL": stack.database.app_url, "TENURE_LISTEN": shared.target}
    assert_refused(serve(*arguments, **env), f"TENURE_LISTEN: cannot listen on {shared.target}")
    assert health_of(shared.target) == SERVING


def test_workers_do_not_join_a_server_that_is_alone(stack: Stack) -> None:
    env = {"TENURE_DATABASE_URL": stack.database.app_url, "TENURE_LISTEN": stack.target}
    assert_refused(serve("--workers", "2", **env), f"TENURE_LISTEN: cannot listen on {stack.target}")


@pytest.mark.parametrize(
    ("role", "hint"), [("admin_url", "TENURE_DATABASE_URL"), ("app_url", "TENURE_LISTEN: cannot listen")]
)
def test_settings_that_cannot_work_are_told_once_by_the_parent(
    database: Database, role: str, hint: str
) -> None:
    listen = "127.0.0.1:0" if role == "admin_url" else "192.0.2.1:0"
    env = {"TENURE_DATABASE_URL": getattr(database, role), "TENURE_LISTEN": listen}
    assert_refused(serve("--workers", "3", TENURE_INSECURE_LISTEN="1", **env), hint)


def test_only_a_parent_starts_a_worker(database: Database) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tenure_server", "serve", "--slot", "1"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment() | {"TENURE_DATABASE_URL": database.app_url},
    ) as ran:
        assert "--workers" in ran.communicate(timeout=PATIENCE)[1]
        assert ran.returncode == 1


def test_a_killed_worker_is_replaced_while_the_others_serve(
    database: Database, redis_url: str, open_folder: Path
) -> None:
    with workers(open_folder, database, redis_url) as server:
        tenant = Stack(server, database, redis_url).default
        with several_savers(server, tenant.api_key) as savers:
            with writing(savers) as books:
                for number in (1, 2):
                    books.wait_for_more(ACKNOWLEDGED)
                    before = pids(open_folder)
                    os.kill(before[number], signal.SIGKILL)
                    books.wait_for_more(ACKNOWLEDGED)
                    wait_until(
                        lambda n=number, gone=before[number]: pids(open_folder).get(n, gone) != gone,
                        "the worker is replaced",
                    )
                    assert pids(open_folder)[3 - number] == before[3 - number]
                    wait_until(lambda: listeners(server) == WORKERS, "the new worker listens")
                books.wait_for_more(ACKNOWLEDGED)
            assert not books.errors
            assert_nothing_lost_or_doubled(savers[0], books)
        assert server.stop() == 0
    assert server.log.read_text().count("ended unexpectedly with SIGKILL") == 2


def test_a_drain_finishes_what_runs_and_savers_outlast_the_restart(
    database: Database, redis_url: str, open_folder: Path
) -> None:
    with workers(open_folder, database, redis_url) as server:
        made = Stack(server, database, redis_url)
        with several_savers(server, made.api_key) as savers:
            with writing(savers) as books:
                books.wait_for_more(ACKNOWLEDGED)
                with holding_a_call(server, database, made.new_tenant().api_key) as running:
                    server.terminate()
                    wait_until(lambda: listeners(server) == 0, "all workers drain")
                    assert not running.done()
                answer = running.result(PATIENCE).message(pb.WriteResponse)
                assert [result.status.code for result in answer.results] == [0]
                assert server.wait() == 0
                assert pids(open_folder) == {}
                server.start()
                books.wait_for_more(ACKNOWLEDGED)
            assert not books.errors, "a call failed with what savers do not repeat"
            assert_nothing_lost_or_doubled(savers[0], books)


def test_a_second_signal_kills_workers_that_still_drain(database: Database, open_folder: Path) -> None:
    with workers(open_folder, database, TENURE_DRAIN_SECONDS="600") as server:
        key = Stack(server, database, None).api_key
        with holding_a_call(server, database, key):
            server.terminate()
            wait_until(lambda: len(pids(open_folder)) == 1, "only the worker with the call is left")
            server.terminate()
            assert server.wait() == 1
            assert pids(open_folder) == {}
    assert "killed before they had drained" in server.log.read_text()


def test_a_drain_that_takes_too_long_ends(database: Database, open_folder: Path) -> None:
    with workers(open_folder, database, TENURE_DRAIN_SECONDS="0") as server:
        key = Stack(server, database, None).api_key
        with holding_a_call(server, database, key) as running:
            server.terminate()
            assert server.wait() == 0
            assert pids(open_folder) == {}
            assert running.result(PATIENCE).code is grpc.StatusCode.UNAVAILABLE


def test_a_worker_that_hangs_is_killed_when_its_drain_is_over(database: Database, open_folder: Path) -> None:
    with workers(open_folder, database, TENURE_DRAIN_SECONDS="0") as server:
        os.kill(pids(open_folder)[2], signal.SIGSTOP)
        server.terminate()
        assert server.wait() == 1
        assert pids(open_folder) == {}


def test_workers_do_not_outlive_a_killed_parent(database: Database, open_folder: Path) -> None:
    with workers(open_folder, database) as server:
        server.kill()
        wait_for_none_of(open_folder)
        server.start()
        assert health_of(server.target) == SERVING


def test_a_parent_gives_up_on_a_worker_that_dies_again_and_again(
    database: Database, open_folder: Path
) -> None:
    with workers(open_folder, database) as server:
        while server.pid in processes_of(open_folder):
            if worker := pids(open_folder).get(1):
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
            time.sleep(0.01)
        assert server.wait() == 1
        wait_for_none_of(open_folder)
    assert "worker 1 ended 5 times in a row" in server.log.read_text()
    assert "Traceback" not in server.log.read_text()


def test_the_health_port_tells_of_all_workers_and_of_the_parents_life(
    database: Database, open_folder: Path
) -> None:
    probes = f"127.0.0.1:{free_port()}"
    with (
        workers(open_folder, database, TENURE_HEALTH_LISTEN=probes) as server,
        grpc.insecure_channel(probes) as channel,
    ):
        assert health_of(probes) == SERVING
        watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        seen = (answer.status for answer in watched)
        assert next(seen) == SERVING
        os.kill(killed := pids(open_folder)[1], signal.SIGKILL)
        wait_until(lambda: pids(open_folder).get(1, killed) != killed, "the worker is replaced")
        assert health_of(probes) == SERVING, "one worker is enough to go on"
        wait_until(lambda: listeners(server) == WORKERS, "the new worker listens")
        for pid in pids(open_folder).values():
            os.kill(pid, signal.SIGKILL)
        assert next(status for status in seen if status == NOT_SERVING) == NOT_SERVING
        assert health_of(probes, "liveness") == SERVING
        assert next(status for status in seen if status == SERVING) == SERVING
        watched.cancel()
        with holding_a_call(server, database, Stack(server, database, None).api_key):
            server.terminate()
            wait_until(lambda: health_of(probes) == NOT_SERVING, "it is not ready while it drains")
            assert health_of(probes, "liveness") == SERVING
        assert server.wait() == 0


def test_a_worker_with_a_call_answers_for_itself_on_the_main_port(
    shared: ServerProcess, stack: Stack
) -> None:
    with Wire(shared.target, stack.api_key) as wire:
        assert wire.call("GetServerInfo", server_pb2.GetServerInfoRequest()).code is grpc.StatusCode.OK
    for service in ("", "liveness", "tenure.v1.CheckpointService"):
        assert health_of(shared.target, service) == SERVING
