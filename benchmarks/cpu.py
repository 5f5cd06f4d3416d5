"""CPU time of whole process trees, read from /proc: the steadiest figure on a noisy machine. Linux only."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

_PROC = Path("/proc")
_TICK = 1.0 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01
_PPID, _UTIME, _STIME, _CUTIME, _CSTIME = 1, 11, 12, 13, 14
"""Places in /proc/<pid>/stat, counted from the field after the process' name."""


def available() -> bool:
    """Say whether the system tells CPU times."""
    return (_PROC / "self" / "stat").exists()


def cpu_seconds(roots: Iterable[int]) -> float | None:
    """Return what processes and all their descendants have used, those that ended included.

    A descendant counts once: while it lives as itself, afterwards in the total of the parent that waited
    for it. The resolution is one tick, usually 10 ms.

    Args:
        roots: Process ids; one that is gone counts as nothing.

    Returns:
        Seconds of user and system time, None where there is no /proc.
    """
    if not available():
        return None
    ticks = sum(values[place] for _, values in _trees(roots) for place in (_UTIME, _STIME, _CUTIME, _CSTIME))
    return ticks * _TICK


def resident_bytes(roots: Iterable[int]) -> int | None:
    """Return the resident memory of processes and their descendants; None where there is no /proc."""
    if not available():
        return None
    total = 0
    for pid, _ in _trees(roots):
        try:
            total += int((_PROC / str(pid) / "statm").read_text().split()[1])
        except OSError:
            continue
    return total * os.sysconf("SC_PAGE_SIZE")


def _trees(roots: Iterable[int]) -> Iterator[tuple[int, list[int]]]:
    fields = _all_processes()
    children: dict[int, list[int]] = {}
    for pid, values in fields.items():
        children.setdefault(values[_PPID], []).append(pid)
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid in fields and pid not in seen:
            seen.add(pid)
            yield pid, fields[pid]
            waiting += children.get(pid, [])


def _all_processes() -> dict[int, list[int]]:
    found = {}
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue
        # The name is in brackets and may hold anything, brackets included. The state is a letter.
        values = stat.rpartition(")")[2].split()
        found[int(entry.name)] = [0, *(int(value) for value in values[1:15])]
    return found
