"""Looking at processes, to prove that none is left. Linux only."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

PATIENCE = 30.0
"""Seconds after which a wait has failed; never how long something may take."""


def needs_proc() -> None:
    """Skip a test where there is no /proc."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc")


def processes_of(folder: Path) -> dict[int, str]:
    """Return processes, with their names, that work in a folder or were told about it; no zombies."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            state = entry.joinpath("stat").read_text().rpartition(")")[2].split()[0]
            where = os.readlink(entry / "cwd")
            arguments = entry.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if state not in "ZX" and (_inside(where, folder) or str(folder) in arguments):
            found[int(entry.name)] = arguments
    return found


def wait_for_none_of(folder: Path) -> None:
    """Wait until no process has to do with a folder."""
    give_up = time.monotonic() + PATIENCE
    while left := processes_of(folder):
        assert time.monotonic() < give_up, f"still there: {left}"
        time.sleep(0.01)


def kill_all_of(folder: Path) -> None:
    """Kill, all at once, every process that has to do with a folder, as a power cut would."""
    for pid in processes_of(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for_none_of(folder)


def _inside(path: str, folder: Path) -> bool:
    return path == str(folder) or path.startswith(f"{folder}/")
