"""Runs examples and makes what they print comparable."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.harness.stack import Target

ROOT = Path(__file__).parents[2]
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def lines_of(main: Callable[..., Any], *args: Any) -> list[str]:
    """Return the lines that an example's `main` prints, without trailing blanks."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main(*args)
    return [line.rstrip() for line in printed.getvalue().splitlines()]


def with_numbered_ids(lines: list[str]) -> list[str]:
    """Replace each UUID by the order of its first mention: which id is which stays, its value goes."""
    numbers: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return f"<id {numbers.setdefault(found[0], len(numbers))}>"

    return [_UUID.sub(number, line) for line in lines]


def run_script(module: str, target: Target, *arguments: str, **variables: str) -> list[str]:
    """Run an example as its users do, in a process of its own, and return the lines it prints.

    Args:
        module: The example.
        target: The server, and a key of it.
        arguments: Of the command line.
        variables: More of the environment.
    """
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", f"examples.{module}", *arguments],
        env={**os.environ, "TENURE_TARGET": target.target, "TENURE_API_KEY": target.api_key, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return ran.stdout.splitlines()
