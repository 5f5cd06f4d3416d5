"""The guide to administration: its commands run, as the roles that it names, and print what it shows."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys

from tenure_client import TenureSaver

from tests.examples.running import ROOT
from tests.harness.server import clean_environment
from tests.harness.stack import Stack
from tests.integration.checkpoints_support import put

GUIDE = ROOT / "docs" / "administration.md"
BLOCKS = re.compile(r"^```console (\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Keys, tenants' ids and ids of keys, which differ in each run, and times.
NAMED = re.compile(
    r"tn_\w+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b(?=\w*\d)(?=\w*[A-Z])[0-9A-Za-z]{12}\b"
)
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\dZ")
# Of what agents stored, which is a little more with other versions of LangGraph.
SIZE = re.compile(r"[\d.]+ (?:B|KiB|MiB)\b")


def comparable(line: str) -> str:
    """Return a line without what differs in each run."""
    return SIZE.sub("<size>", TIME.sub("<time>", line))


class Reader:
    """Follows the guide, with the ids of this run in place of those that it shows.

    Attributes:
        actual: What stands here for a text of the guide.
    """

    def __init__(self) -> None:
        self.actual: dict[str, str] = {}

    def command(self, shown: str) -> list[str]:
        """Return the command of this run."""
        return shlex.split(NAMED.sub(lambda found: self.actual[found[0]], shown))

    def compare(self, shown: str, printed: str) -> None:
        """Hold what was printed against what the guide shows, and learn new ids from it."""
        for expected, line in zip(shown.splitlines(), printed.splitlines(), strict=True):
            names = NAMED.findall(expected)
            pattern = "".join(
                r"(\S+)" if NAMED.fullmatch(part) else re.escape(part)
                for part in re.split(f"({NAMED.pattern})", comparable(expected))
            )
            # Columns are as wide as what is in them.
            pattern = re.sub(r"(\\ ){2,}", r"\\s+", pattern)
            found = re.fullmatch(pattern, comparable(line))
            assert found, f"{line!r} is not {expected!r}"
            for name, actual in zip(names, found.groups(), strict=True):
                assert self.actual.setdefault(name, actual) == actual


def converse(target: str, api_key: str) -> None:
    """Store what the guide shows the usage of."""
    with TenureSaver(target, api_key=api_key) as saver:
        for thread, steps, size in (("eu-1", 4, 256 << 10), ("eu-2", 2, 100 << 10), ("us-1", 1, 10 << 10)):
            for step in range(1, steps + 1):
                put(saver, f"checkout-{thread}", step, os.urandom(size))


def test_a_day_of_an_admin_is_as_the_guide_tells(stack: Stack) -> None:
    reader = Reader()
    keys = {"operator": stack.new_operator(), "another agent": stack.api_key}
    blocks = BLOCKS.findall(GUIDE.read_text())
    assert len(blocks) >= 9

    def run(role: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tenure_server", *arguments],
            env=clean_environment()
            | {"TENURE_ADMIN_TARGET": stack.admin_target, "TENURE_API_KEY": keys[role]},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def tenure(role: str, *arguments: str) -> str:
        ran = run(role, *arguments)
        assert (ran.returncode, ran.stderr) == (0, ""), arguments
        return ran.stdout

    for role, block in blocks:
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            shown, _, output = step.partition("\n")
            program, *arguments = reader.command(shown)
            assert program == "tenure"
            if shown == "tenure usage":
                converse(stack.target, keys["agent"])
            refused = run("another agent", *arguments)
            assert (refused.returncode, refused.stdout) == (3, ""), arguments
            printed = tenure(role, *arguments)
            reader.compare(output, printed)
            if "--role agent" in shown:
                keys["agent"] = printed.split()[1]
            if "--role admin" in shown:
                keys["admin"] = printed.split()[1]
                # Its first use is noted behind the call.
                while json.loads(tenure("admin", "whoami", "--json"))["last_used_at"] is None:
                    pass
