"""Everything that must hold before a change is merged, tests apart: `python -m scripts.check [NAME...]`.

Each check is a command of its own and can be run alone. Prints one line per check as it ends, the output of
those that fail, and a summary; exits with 1 if any failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sysconfig.get_path("scripts"))
WORKERS = 2


@dataclass(frozen=True)
class Check:
    """A named command that exits with 0 if all is well."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What a check said."""

    check: Check
    passed: bool
    output: str
    seconds: float


def _tool(name: str, *arguments: str) -> tuple[str, ...]:
    return (str(BIN / name), *arguments)


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name, *arguments)


# The slowest first, so that two workers end at about the same time.
CHECKS = (
    Check("types", _module("mypy", "-p", "tenure_client", "-p", "tenure_server", "-p", "scripts")),
    Check("layers", _tool("lint-imports", "--no-logo")),
    Check("imports", _module("scripts.imports")),
    Check("generated", _module("scripts.protos", "--check")),
    Check("buf-lint", _module("scripts.buf", "lint")),
    Check("buf-breaking", _module("scripts.buf", "breaking")),
    Check("ruff", _tool("ruff", "check", ".")),
    Check("format", _tool("ruff", "format", "--check", ".")),
    Check("tree", _module("scripts.tree")),
)


def run(check: Check) -> Outcome:
    """Run one check from the root of the repository."""
    started = time.perf_counter()
    done = subprocess.run(
        check.command,
        cwd=ROOT,
        env=os.environ | {"NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Outcome(check, done.returncode == 0, done.stdout.strip(), time.perf_counter() - started)


def report(outcome: Outcome) -> None:
    """Print a check's line; below it all output if it failed, else what it had to say in one line."""
    lines = outcome.output.splitlines()
    verdict = "ok    " if outcome.passed else "FAILED"
    said = f"  {lines[-1]}" if outcome.passed and lines else ""
    print(f"{verdict} {outcome.check.name:<13}{outcome.seconds:5.1f} s{said}", flush=True)
    if not outcome.passed:
        print("\n".join(f"    {line}" for line in lines) or "    (no output)", flush=True)


def main(names: Sequence[str]) -> int:
    """Run the named checks, all by default, and return the exit status."""
    known = {check.name: check for check in CHECKS}
    if unknown := set(names) - known.keys():
        print(f"no such check: {', '.join(sorted(unknown))}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = [known[name] for name in names] or list(CHECKS)
    outcomes = []
    with ThreadPoolExecutor(WORKERS) as pool:
        for future in as_completed([pool.submit(run, check) for check in chosen]):
            outcomes.append(future.result())
            report(outcomes[-1])
    failed = [outcome.check.name for outcome in outcomes if not outcome.passed]
    if failed:
        print(f"{len(failed)} of {len(chosen)} checks failed: {', '.join(failed)}")
        return 1
    print(f"All {len(chosen)} checks passed.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
