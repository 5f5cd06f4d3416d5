"""Servers that never outlive us: each runs under a guard process that holds the other end of a pipe.

Whatever ends this process, SIGKILL included, closes the pipe, and the guard stops its server (`guard.py`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from tenure_server.local.account import Account
from tenure_server.local.guard import Spec

_LOG_LIMIT = 8 << 20


class Child:
    """A server that runs under a guard.

    Attributes:
        pid: The server's own process id, for tests that kill or pause it.
        log: File with what it wrote.
    """

    def __init__(self, guard: subprocess.Popen[bytes], pid: int, log: Path, grace: float) -> None:
        self._guard = guard
        self._grace = grace
        self.pid = pid
        self.log = log

    @classmethod
    def start(
        cls,
        argv: Sequence[str | Path],
        *,
        cwd: Path,
        log: Path,
        account: Account | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        grace: float = 10.0,
        keep_fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a server.

        Args:
            argv: The server and its arguments.
            cwd: Its working directory.
            log: Its output is added here.
            account: Whom it runs as, None = as we do.
            stop_signal: Signal that asks it to stop.
            grace: Seconds after which it is killed instead.
            keep_fds: File descriptors that it inherits; a lock among them is held as long as it lives.
            env: Its whole environment; None = ours without what would change a Postgres.

        Raises:
            OSError: The server cannot be run; the log says why.
        """
        spec: Spec = {
            "argv": [str(part) for part in argv],
            "uid": account.uid if account else None,
            "gid": account.gid if account else None,
            "stop_signal": stop_signal,
            "grace": grace,
            "keep_fds": list(keep_fds),
        }
        with _open_log(log) as output:
            guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py")), json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=cwd,
                env=_environment() if env is None else env,
                pass_fds=list(keep_fds),
                # Ctrl-C in a terminal reaches the whole process group; stopping the servers is our decision.
                start_new_session=True,
            )
        assert guard.stdout is not None
        with guard.stdout as line:
            pid = line.readline()
        if not pid:
            assert guard.stdin is not None
            guard.stdin.close()
            guard.wait()
            raise OSError(f"cannot run {argv[0]}:\n{tail(log)}")
        return cls(guard, int(pid), log, grace)

    @property
    def exit_code(self) -> int | None:
        """The server's exit code, 128 + n if signal n ended it; None while it runs."""
        code = self._guard.poll()
        if code is not None:
            self._close_pipe()
        return code

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the server and all its own children have gone, and return its exit code.

        Raises:
            subprocess.TimeoutExpired: It still runs after `timeout` seconds.
        """
        code = self._guard.wait(timeout)
        self._close_pipe()
        return code

    def stop(self) -> None:
        """Stop the server and wait for it; a server that is gone is fine."""
        self._close_pipe()
        try:
            self._guard.wait(2 * self._grace + 5)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()

    def kill(self) -> None:
        """Kill the server, its guard's eyes open, and wait until its own children have gone too."""
        if self.exit_code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def _close_pipe(self) -> None:
        pipe = self._guard.stdin
        assert pipe is not None
        if not pipe.closed:
            try:
                # Not only closed: a process forked from this one may hold a copy of our end.
                os.write(pipe.fileno(), b"\n")
            except BrokenPipeError:
                pass
            finally:
                pipe.close()


def tail(log: Path, lines: int = 20) -> str:
    """Return the last lines of a log, for messages."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def _open_log(log: Path) -> BinaryIO:
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.replace(log.with_name(f"{log.name}.old"))
    return open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def _environment() -> dict[str, str]:
    """Ours without PG*: PGPORT, PGDATA and their like would change what the server does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C"}
