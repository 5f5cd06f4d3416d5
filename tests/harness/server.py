"""`tenure serve` as a real process, and the servers' logs in the report of a test that fails."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from weakref import WeakSet

from tenure_server.local.supervisor import Child, tail

from tests.harness.databases import Database
from tests.harness.processes import PATIENCE

RUNNING: WeakSet[ServerProcess] = WeakSet()


class ServerProcess:
    """A `python -m tenure_server serve`.

    Attributes:
        database: What it serves from.
        log: File with what it wrote.
        listen: host:port; after the first start with the port that was taken.
        admin_target: host:port of AdminService, if TENURE_ADMIN_LISTEN was given.
    """

    def __init__(
        self,
        folder: Path,
        database: Database,
        redis_url: str | None = None,
        *,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Describe it; `start` starts it.

        Args:
            folder: For its log and ready file; several servers can share one.
            database: What it serves from.
            redis_url: Its cache.
            env: Environment variables that win over ours, such as another TENURE_DATABASE_URL.
        """
        self.database = database
        self.listen = "127.0.0.1:0"
        name = f"server-{os.urandom(4).hex()}"
        self.log = folder / f"{name}.log"
        self.admin_target: str | None = None
        self._folder = folder
        self._ready_file = folder / f"{name}.json"
        self._redis_url = redis_url
        self._env = dict(env or {})
        self._child: Child | None = None

    @property
    def target(self) -> str:
        """host:port that it serves on."""
        return self.listen

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running.pid

    def start(self) -> ServerProcess:
        """Start it and wait until it serves; again on the same port if it was started before."""
        self._ready_file.unlink(missing_ok=True)
        self._child = self._launched()
        RUNNING.add(self)
        give_up = time.monotonic() + PATIENCE
        while not self._ready_file.exists():
            ended = self._child.exit_code is not None
            if ended and not self.listen.endswith(":0") and "cannot listen on" in tail(self.log, 3):
                # While it was down, a connection from this machine may have been given its port.
                ended = False
                time.sleep(0.1)
                self._child = self._launched()
            if ended or time.monotonic() > give_up:
                self.close()
                raise AssertionError(f"the server does not serve:\n{tail(self.log, 100)}")
            time.sleep(0.01)
        ready = json.loads(self._ready_file.read_text())
        self.listen, self.admin_target = ready["target"], ready.get("admin_target")
        return self

    def _launched(self) -> Child:
        return Child.start(
            [sys.executable, "-m", "tenure_server", "serve"],
            cwd=self._folder,
            log=self.log,
            env=self._environment(),
            grace=30.0,
        )

    def terminate(self) -> None:
        """Ask it to drain, and return at once."""
        if self._running.exit_code is None:
            os.kill(self._running.pid, signal.SIGTERM)

    def wait(self) -> int:
        """Wait until it has ended and return its exit code, 128 + n if signal n ended it."""
        return self._running.wait(PATIENCE)

    def stop(self) -> int:
        """Drain it and return its exit code."""
        self.terminate()
        return self.wait()

    def kill(self) -> None:
        """Kill it."""
        self._running.kill()

    def pause(self) -> None:
        """Stop its process: connections stay open and nothing answers."""
        os.kill(self._running.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused one go on."""
        os.kill(self._running.pid, signal.SIGCONT)

    def close(self) -> None:
        """Stop it if it runs."""
        if self._child is not None:
            if self._child.exit_code is None:
                self.resume()
            self._child.stop()

    @property
    def _running(self) -> Child:
        assert self._child is not None, "not started"
        return self._child

    def _environment(self) -> dict[str, str]:
        ours = {
            "TENURE_LISTEN": self.listen,
            "TENURE_DATABASE_URL": self.database.app_url,
            "TENURE_OPS_DATABASE_URL": self.database.ops_url,
            "TENURE_ADMIN_DATABASE_URL": self.database.admin_url,
            "TENURE_READY_FILE": str(self._ready_file),
        }
        if self._redis_url is not None:
            ours["TENURE_REDIS_URL"] = self._redis_url
        return clean_environment() | ours | self._env


def clean_environment() -> dict[str, str]:
    """Return our environment without settings of Tenure, OpenTelemetry and Postgres."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("TENURE_", "OTEL_", "PG"))
    }


def logs() -> list[tuple[str, str]]:
    """Return the names and the last lines of the logs of all servers that were not forgotten."""
    return [(f"log of the server on {server.target}", tail(server.log, 60)) for server in RUNNING]
