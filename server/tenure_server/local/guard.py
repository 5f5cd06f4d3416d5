"""Run one server as a child and stop it when our parent goes away: `python guard.py SPEC`.

A script of its own, with the standard library only, so that it starts in a few milliseconds and imports
nothing that could start threads. SPEC is a `Spec` as JSON. Standard input is a pipe whose other end the
supervisor holds: a byte on it, or its end, means stop; the kernel closes it however the supervisor dies.
Standard output gets the child's pid. The exit code is the child's, 128 + n if signal n ended it.

The supervisor cannot rely on PR_SET_PDEATHSIG itself: the signal comes when the *thread* that forked ends,
and a supervisor starts its servers from worker threads. The guard has one thread, so for its own child the
signal is exact, and covers the death of the guard.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import TypedDict

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


class Spec(TypedDict):
    """What to run.

    Attributes:
        argv: The server and its arguments.
        uid / gid: Whom it runs as; None = as we do.
        stop_signal: Signal that asks it to stop.
        grace: Seconds after which it is killed.
        keep_fds: File descriptors that it inherits.
    """

    argv: list[str]
    uid: int | None
    gid: int | None
    stop_signal: int
    grace: float
    keep_fds: list[int]


def main() -> int:
    spec: Spec = json.loads(sys.argv[1])
    libc = ctypes.CDLL(None)
    on_linux = sys.platform == "linux"
    if on_linux:
        # The server's own orphans become ours, so that we see the last of them go and leave no zombie
        # where process 1 reaps none, as in many containers.
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake = _wake_on(signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    guard = os.getpid()

    def die_with_guard() -> None:
        if on_linux:
            libc.prctl(PR_SET_PDEATHSIG, spec["stop_signal"], 0, 0, 0)
            if os.getppid() != guard:
                os._exit(1)

    as_other: dict[str, object] = {}
    if spec["uid"] is not None:
        as_other = {"user": spec["uid"], "group": spec["gid"], "extra_groups": []}
    child = subprocess.Popen(
        spec["argv"],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        preexec_fn=die_with_guard,
        pass_fds=spec["keep_fds"],
        umask=0o077,
        **as_other,  # type: ignore[call-overload]
    )
    for descriptor in spec["keep_fds"]:
        os.close(descriptor)
    print(child.pid, flush=True)  # noqa: T201
    _wait(child, wake, spec)
    _reap_orphans(wake, spec["grace"])
    code: int = child.returncode
    return code if code >= 0 else 128 - code


def _wake_on(*signals: signal.Signals) -> int:
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    for number in signals:
        signal.signal(number, lambda *_: None)
    return readable


def _wait(child: subprocess.Popen[bytes], wake: int, spec: Spec) -> None:
    stop_by: float | None = None
    while child.poll() is None:
        timeout = None if stop_by is None else max(0.0, stop_by - time.monotonic())
        sources = [wake] if stop_by is not None else [wake, sys.stdin.fileno()]
        ready, _, _ = select.select(sources, [], [], timeout)
        signals = _drain(wake)
        if stop_by is None:
            if sys.stdin.fileno() in ready or signals - {signal.SIGCHLD}:
                stop_by = time.monotonic() + spec["grace"]
                child.send_signal(spec["stop_signal"])
        elif time.monotonic() >= stop_by:
            child.kill()


def _drain(wake: int) -> set[int]:
    try:
        return set(os.read(wake, 4096))
    except BlockingIOError:
        return set()


def _reap_orphans(wake: int, grace: float) -> None:
    give_up = time.monotonic() + grace
    while time.monotonic() < give_up:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            select.select([wake], [], [], give_up - time.monotonic())
            _drain(wake)


if __name__ == "__main__":
    sys.exit(main())
