"""`tenure dev` as a real process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.harness.processes import PATIENCE
from tests.harness.server import clean_environment


@dataclass(frozen=True)
class DevReady:
    """What the ready file of `tenure dev` says."""

    target: str
    api_key: str
    tenant_id: str
    database_url: str | None
    app_database_url: str | None
    redis_url: str | None
    admin_target: str | None
    operator_key: str | None


class DevProcess:
    """A `python -m tenure_server dev` in a folder; as a context manager it is stopped at the end."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.data_dir = folder / "data"
        self.ready_file = folder / "ready.json"
        self.log = folder / "dev.log"
        self._stale = self._stamp()
        options = ["--port", "0", "--data-dir", str(self.data_dir), "--ready-file", str(self.ready_file)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tenure_server", "dev", *options, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment(),
            )

    def ready(self) -> DevReady:
        """Wait until it serves; the file of one that was killed before does not count."""
        give_up = time.monotonic() + PATIENCE
        while self._stamp() in (None, self._stale):
            running = self.process.poll() is None and time.monotonic() < give_up
            assert running, f"`tenure dev` does not serve:\n{self.output()}"
            time.sleep(0.01)
        return DevReady(**json.loads(self.ready_file.read_text()))

    def _stamp(self) -> int | None:
        try:
            return self.ready_file.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def output(self) -> str:
        """Return what it has written."""
        return self.log.read_text()

    def stop(self) -> int:
        """Ask it to end and return its exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self.process.kill()
            self.process.wait()
