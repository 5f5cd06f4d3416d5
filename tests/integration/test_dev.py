"""`tenure dev`: one command from nothing to a working Tenure, and nothing left after it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
import redis
from langgraph.checkpoint.base import empty_checkpoint
from tenure_client import TenureSaver

from tests.harness.dev import DevProcess, DevReady
from tests.harness.processes import PATIENCE, kill_all_of, needs_proc, processes_of, wait_for_none_of
from tests.harness.server import clean_environment

THREAD = {"configurable": {"thread_id": "a thread", "checkpoint_ns": ""}}


def put(ready: DevReady) -> str:
    """Store a checkpoint and return its id."""
    with TenureSaver(ready.target, api_key=ready.api_key) as saver:
        checkpoint = empty_checkpoint()
        saver.put(THREAD, checkpoint, {"source": "input", "step": -1}, {})
        return checkpoint["id"]


def get(ready: DevReady) -> str | None:
    """Return the id of the latest checkpoint."""
    with TenureSaver(ready.target, api_key=ready.api_key) as saver:
        found = saver.get_tuple(THREAD)
        return found and found.checkpoint["id"]


def test_the_first_start_makes_all_that_the_ready_file_names(open_folder: Path) -> None:
    with DevProcess(open_folder) as dev:
        ready = dev.ready()
        assert dev.ready_file.stat().st_mode & 0o777 == 0o600
        assert get(ready) is None
        put(ready)

        assert ready.database_url is not None
        with psycopg.connect(ready.database_url, autocommit=True) as owner:
            owner.execute("CREATE DATABASE beside_ours")
        assert ready.app_database_url is not None
        with psycopg.connect(ready.app_database_url) as served:
            assert served.execute("SELECT current_user").fetchone() == ("tenure_app",)
        assert ready.redis_url is not None
        with redis.Redis.from_url(ready.redis_url) as cache:
            assert cache.ping()
        assert dev.stop() == 0
    assert not dev.ready_file.exists()


def test_what_it_prints_can_be_pasted(open_folder: Path) -> None:
    with DevProcess(open_folder) as dev:
        ready = dev.ready()
        exports = dict(re.findall(r"export (\w+)=(\S+)", dev.output()))
        assert exports == {
            "TENURE_TARGET": ready.target,
            "TENURE_API_KEY": ready.api_key,
            "TENURE_ADMIN_TARGET": ready.admin_target,
        }
        snippet = "\n".join(re.findall(r"^    ((?:from|saver|graph).*)$", dev.output(), re.MULTILINE))
        setting = "from langgraph.graph import StateGraph\nbuilder = StateGraph(dict)\n"
        setting += "builder.add_node('n', lambda state: state)\nbuilder.set_entry_point('n')\n"
        use = "\ngraph.invoke({}, {'configurable': {'thread_id': 'a thread'}})"
        subprocess.run(
            [sys.executable, "-c", setting + snippet + use], env=clean_environment() | exports, check=True
        )
        assert get(ready) is not None


def test_the_next_start_has_the_same_key_and_data(open_folder: Path) -> None:
    with DevProcess(open_folder) as dev:
        first = dev.ready()
        stored = put(first)
        dev.stop()
    with DevProcess(open_folder) as dev:
        second = dev.ready()
        assert (second.tenant_id, second.api_key) == (first.tenant_id, first.api_key)
        assert get(second) == stored


def test_a_new_database_gets_a_new_key(open_folder: Path) -> None:
    with DevProcess(open_folder) as dev:
        first = dev.ready()
        assert first.database_url is not None
        with psycopg.connect(first.database_url.replace("/tenure", "/postgres"), autocommit=True) as owner:
            owner.execute("DROP DATABASE tenure WITH (FORCE)")
        dev.stop()
    with DevProcess(open_folder) as dev:
        second = dev.ready()
        assert second.api_key != first.api_key
        assert get(second) is None


def test_the_key_is_where_only_its_owner_can_read_it(open_folder: Path) -> None:
    with DevProcess(open_folder) as dev:
        key = dev.ready().api_key
        assert not any(key in arguments for arguments in processes_of(open_folder).values())
        holders = [
            path
            for path in open_folder.rglob("*")
            if path.is_file() and path != dev.log and key.encode() in path.read_bytes()
        ]
        assert {path.name for path in holders} == {"dev.json", "ready.json"}
        assert all(path.stat().st_mode & 0o077 == 0 for path in holders)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_orderly_and_leaves_no_process(open_folder: Path, number: signal.Signals) -> None:
    needs_proc()
    with DevProcess(open_folder) as dev:
        dev.ready()
        assert processes_of(dev.data_dir)
        dev.process.send_signal(number)
        assert dev.process.wait() == 0
        assert processes_of(dev.data_dir) == {}
    assert not dev.ready_file.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_ended_while_it_starts_it_leaves_no_process(open_folder: Path, number: signal.Signals) -> None:
    needs_proc()
    with DevProcess(open_folder) as dev:
        while not any("initdb" in name for name in processes_of(dev.data_dir).values()):
            assert dev.process.poll() is None, dev.output()
        dev.process.send_signal(number)
        dev.process.wait()
    wait_for_none_of(dev.data_dir)
    assert not dev.ready_file.exists()
    with DevProcess(open_folder) as dev:
        put(dev.ready())


def test_killed_it_leaves_no_process_and_loses_nothing(open_folder: Path) -> None:
    needs_proc()
    with DevProcess(open_folder) as dev:
        stored = put(dev.ready())
        dev.process.kill()
        dev.process.wait()
        wait_for_none_of(dev.data_dir)
    with DevProcess(open_folder) as dev:
        assert get(dev.ready()) == stored


def test_everything_killed_at_once_loses_nothing_acknowledged(open_folder: Path) -> None:
    needs_proc()
    with DevProcess(open_folder) as dev:
        stored = put(dev.ready())
        kill_all_of(dev.data_dir)
        dev.process.wait()
    with DevProcess(open_folder) as dev:
        assert get(dev.ready()) == stored


def test_a_second_one_on_the_same_folder_is_refused_and_harms_nothing(open_folder: Path) -> None:
    with DevProcess(open_folder) as first:
        ready = first.ready()
        with DevProcess(open_folder) as second:
            assert second.process.wait() == 1
            assert (
                f"runs on {first.data_dir} already (pid {first.process.pid}, {ready.target})"
                in second.output()
            )
        assert first.ready() == ready
        put(ready)


def test_without_postgres_it_ends_and_says_so(open_folder: Path) -> None:
    needs_proc()
    with DevProcess(open_folder) as dev:
        dev.ready()
        # A backend that has just been forked still has the postmaster's name.
        (pid_file,) = dev.data_dir.rglob("postmaster.pid")
        os.kill(int(pid_file.read_text().split()[0]), signal.SIGKILL)
        assert dev.process.wait() == 1
        assert "Postgres ended by itself" in dev.output()
    wait_for_none_of(dev.data_dir)


def test_without_valkey_it_answers_the_same(open_folder: Path) -> None:
    needs_proc()
    with DevProcess(open_folder) as dev:
        ready = dev.ready()
        stored = put(ready)
        (valkey,) = (pid for pid, name in processes_of(dev.data_dir).items() if "valkey-server 127" in name)
        os.kill(valkey, signal.SIGKILL)
        assert get(ready) == stored
        assert put(ready) != stored
        assert dev.stop() == 0


def test_in_memory_it_needs_no_database(open_folder: Path) -> None:
    with DevProcess(open_folder, "--memory") as dev:
        ready = dev.ready()
        stored = put(ready)
        assert get(ready) == stored
        assert (ready.database_url, ready.app_database_url, ready.redis_url) == (None, None, None)
        assert not dev.data_dir.exists()
        assert dev.stop() == 0
    with DevProcess(open_folder, "--memory") as dev:
        again = dev.ready()
        assert again.api_key != ready.api_key
        assert get(again) is None


def test_a_folder_that_cannot_be_used_is_named(open_folder: Path) -> None:
    (open_folder / "data").write_text("a file")
    with DevProcess(open_folder) as dev:
        assert dev.process.wait() == 1
        assert f"{open_folder}/data cannot be used" in dev.output()


@pytest.mark.parametrize("outlives", [False, True])
def test_it_ends_with_the_process_that_started_it_unless_told_otherwise(
    open_folder: Path, outlives: bool
) -> None:
    needs_proc()
    ready_file = open_folder / "ready.json"
    command = [sys.executable, "-m", "tenure_server", "dev", "--memory", "--port", "0"]
    command += ["--ready-file", str(ready_file), *(["--outlive-parent"] if outlives else [])]
    starter = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess; subprocess.run({command!r})"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=clean_environment(),
    )
    try:
        give_up = time.monotonic() + PATIENCE
        while not ready_file.exists():
            assert starter.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.01)
        ready = DevReady(**json.loads(ready_file.read_text()))
        starter.kill()
        starter.wait()
        if outlives:
            # Longer than it takes to notice, so that an end would be seen.
            for _ in range(20):
                time.sleep(0.1)
                put(ready)
        else:
            wait_for_none_of(ready_file)
            assert not ready_file.exists()
    finally:
        kill_all_of(ready_file)
