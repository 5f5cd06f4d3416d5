"""A Postgres of our own in a folder, with full durability, reachable on loopback with a password only."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import time
from pathlib import Path

from tenure_server.local.account import CLUSTER, private_folder, server_account, server_folder
from tenure_server.local.binaries import postgres_bin
from tenure_server.local.errors import DevError
from tenure_server.local.ports import HOST, free_port
from tenure_server.local.supervisor import Child, tail
from tenure_server.secret_file import write_secret

_START_TIMEOUT = 60.0
"""Seconds; recovery after a crash replays the log first."""
_STOP_GRACE = 15.0
_LOCK_TIMEOUT = 2 * _STOP_GRACE
_POLL = 0.01
_ATTEMPTS = 5
_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    # In the data folder rather than in /dev/shm, where a killed server leaves its segments behind.
    "dynamic_shared_memory_type": "mmap",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "logging_collector": "off",
}


class LocalPostgres:
    """A Postgres whose files are in a folder of ours. Not for use by several threads at once.

    The first start makes the cluster: UTF-8, C locale, a random password of the superuser `postgres` in a
    file that only we read. After a crash a start recovers what was committed.

    Attributes:
        data_dir: The folder.
        bin_dir: Where Postgres' programs are; set by `start`.
        port: On 127.0.0.1; another one after each start unless `start` is told to keep it.
    """

    USER = "postgres"

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.bin_dir = Path()
        self.port = 0
        self._child: Child | None = None
        self._home = self.data_dir

    @property
    def log(self) -> Path:
        """File with what the server wrote."""
        return self.data_dir / "postgres.log"

    @property
    def pid(self) -> int:
        """Process id of the running postmaster."""
        assert self._child is not None, "not running"
        return self._child.pid

    @property
    def password(self) -> str:
        """The superuser's password."""
        return (self.data_dir / "postgres.password").read_text()

    def url(self, dbname: str = "postgres", *, user: str = USER, password: str | None = None) -> str:
        """Return where a database is, by default for the superuser.

        Args:
            dbname: A database; its name needs no quoting.
            user: A role.
            password: Of that role; letters, digits, - and _ only. Default: the superuser's.
        """
        return f"postgresql://{user}:{password or self.password}@{HOST}:{self.port}/{dbname}"

    @property
    def running(self) -> bool:
        """Whether the server was started and has not ended."""
        return self._child is not None and self._child.exit_code is None

    def start(self, *, port: int | None = None) -> None:
        """Start the server and return when it answers; running already is fine.

        Args:
            port: Port to use, for one that comes back after a crash; None = any free one.

        Raises:
            DevError: It cannot be started; says why and what to do.
        """
        if self.running:
            return
        private_folder(self.data_dir)
        self._home = server_folder(self.data_dir)
        cluster = self._home / CLUSTER
        account = server_account(cluster)
        self.bin_dir = postgres_bin(account)
        lock = self._lock()
        try:
            if not cluster.exists():
                self._initialise(cluster, lock)
            _forget_dead_postmaster(cluster)
            self._run(cluster, lock, port)
        finally:
            os.close(lock)

    def stop(self) -> None:
        """Stop the server: sessions are cut, what is committed stays. Not running is fine."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def wait(self) -> None:
        """Wait until the running server ends, for whatever reason."""
        if self._child is not None:
            self._child.wait()

    def kill(self) -> None:
        """Kill the server as a crash would; the next `start` recovers."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _initialise(self, cluster: Path, lock: int) -> None:
        """Make the cluster beside its place and move it there, so that a half-made one is never used."""
        account = server_account()
        part = cluster.with_name(f"{cluster.name}.new")
        password_file = self._home / "postgres.initdb"
        if part.exists():
            shutil.rmtree(part)
        part.mkdir(mode=0o700)
        password = secrets.token_urlsafe(24)
        write_secret(self.data_dir / "postgres.password", password)
        write_secret(password_file, password)
        if account is not None:
            account.give(part)
            account.give(password_file)
        argv: list[str | Path] = [
            self.bin_dir / "initdb",
            f"--pgdata={part}",
            f"--username={self.USER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
        ]
        try:
            child = Child.start(argv, cwd=part, log=self.log, account=account, keep_fds=[lock])
            code = child.wait()
        except OSError as error:
            raise DevError(f"Postgres cannot be set up: {error}") from None
        finally:
            password_file.unlink()
        if code != 0:
            raise DevError(f"Postgres cannot be set up in {part}; {self.log} ends with:\n{tail(self.log)}")
        part.rename(cluster)
        _sync(self._home)

    def _run(self, cluster: Path, lock: int, port: int | None) -> None:
        account = server_account(cluster)
        for _ in range(_ATTEMPTS):
            self.port = port or free_port()
            argv: list[str | Path] = [self.bin_dir / "postgres", "-D", cluster, "-p", str(self.port)]
            for name, value in _SETTINGS.items():
                argv += ["-c", f"{name}={value}"]
            written = self.log.stat().st_size if self.log.exists() else 0
            try:
                child = Child.start(
                    argv,
                    cwd=self._home,
                    log=self.log,
                    account=account,
                    stop_signal=signal.SIGINT,
                    grace=_STOP_GRACE,
                    keep_fds=[lock],
                )
            except OSError as error:
                raise DevError(f"Postgres cannot be started: {error}") from None
            if _wait_until_ready(child, cluster):
                self._child = child
                return
            child.stop()
            with self.log.open(errors="replace") as log:
                log.seek(written)
                if "could not bind" not in log.read():
                    break
        raise DevError(f"Postgres does not start in {cluster}; {self.log} ends with:\n{tail(self.log)}")

    def _lock(self) -> int:
        """Take the lock that every process of a server on this cluster holds until it has gone.

        It tells a server that still stops, or that lost its supervisor, from a `postmaster.pid` left by
        one that was killed.
        """
        descriptor = os.open(self._home / "postgres.lock", os.O_RDWR | os.O_CREAT, 0o600)
        give_up = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > give_up:
                    os.close(descriptor)
                    raise DevError(f"another Postgres runs in {self._home}") from None
                time.sleep(_POLL)
            else:
                return descriptor


def _wait_until_ready(child: Child, cluster: Path) -> bool:
    """Wait until the postmaster says in its file, as `pg_ctl` reads it, that it takes connections."""
    give_up = time.monotonic() + _START_TIMEOUT
    while child.exit_code is None and time.monotonic() < give_up:
        lines = _postmaster_file(cluster)
        if len(lines) > 7 and lines[0] == str(child.pid) and lines[7].strip() == "ready":
            return True
        time.sleep(_POLL)
    return False


def _forget_dead_postmaster(cluster: Path) -> None:
    """Remove the file of a postmaster that was killed, if its pid now is a zombie or another process.

    Postgres itself believes every live pid. We hold the lock, so none of our servers runs here; a server
    that somebody else started here has the cluster as its working directory.
    """
    lines = _postmaster_file(cluster)
    if not lines or not lines[0].isdigit() or not Path("/proc/self").exists():
        return
    try:
        runs_here = os.readlink(f"/proc/{lines[0]}/cwd") == str(cluster.resolve())
    except OSError:
        runs_here = False
    if not runs_here:
        (cluster / "postmaster.pid").unlink(missing_ok=True)


def _postmaster_file(cluster: Path) -> list[str]:
    try:
        return (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
