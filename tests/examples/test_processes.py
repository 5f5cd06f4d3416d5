"""Examples as their users run them: scripts in processes of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from tests.examples.running import ROOT, run_script
from tests.harness.stack import Stack


def test_a_run_stopped_by_an_interrupt_is_resumed_in_another_process(stack: Stack) -> None:
    assert run_script("human_in_the_loop", stack) == [
        "Stopped to ask: Send 250?",
        "Waiting at:     ('approve',)",
        "Answered:       yes",
        "Finished:       ['prepared a transfer of 250', 'sent']",
    ]


def test_the_answer_given_later_decides(stack: Stack) -> None:
    run_script("human_in_the_loop", stack, "decided-later")

    assert run_script("human_in_the_loop", stack, "decided-later", "no")[-1] == (
        "Finished:       ['prepared a transfer of 250', 'cancelled']"
    )


def test_a_script_finds_its_server_in_the_environment(stack: Stack) -> None:
    assert run_script("accumulate", stack) == ["0", "1", "3"]


def test_typed_state_needs_no_settings_in_a_script(stack: Stack) -> None:
    assert run_script("typed_state", stack) == [
        "customer  Customer Customer(name='Bob', vip=True)",
        "total     Money Money(cents=1999, currency='EUR')",
        "status    Status <Status.PAID: 'paid'>",
    ]


def test_the_demo_shows_a_memory_that_works_and_leaves_nothing(open_folder: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "examples.demo"],
        env={**os.environ, "TMPDIR": str(open_folder)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr == ""
    assert "Agent: Your name is Bob." in ran.stdout
    assert "Agent: I remember: I am allergic to peanuts" in ran.stdout
    assert "I don't know your name" in ran.stdout
    assert list(open_folder.iterdir()) == []
    assert processes_that_mention(str(open_folder)) == []


def processes_that_mention(text: str) -> list[str]:
    """Return the command lines of running processes that hold `text`."""
    if Path("/proc/self/cmdline").exists():
        lines = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                lines.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    else:
        listing = subprocess.run(["ps", "-eww", "-o", "args="], capture_output=True, text=True, check=True)
        lines = listing.stdout.splitlines()
    return [line for line in lines if text in line]
