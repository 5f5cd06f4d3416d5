"""The dependency direction holds, and the checks that guard it really refuse a wrong import."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from scripts import imports

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the members, with the contracts, to break."""
    for member in imports.MEMBERS:
        shutil.copytree(member, tmp_path / member.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    folders = os.pathsep.join(str(tree / member.name) for member in imports.MEMBERS)
    return subprocess.run(
        [str(Path(sysconfig.get_path("scripts")) / "lint-imports"), "--no-logo", "--no-cache"],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": folders, "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def write(tree: Path, module: str, line: str) -> None:
    """Append a line to a module of the copied tree."""
    path = tree / f"{module}.py"
    path.write_text(f"{path.read_text()}\n{line}\n")


def test_our_modules_keep_the_direction(tree: Path) -> None:
    verdict = lint_imports(tree)
    assert verdict.returncode == 0, verdict.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("server/tenure_server/errors", "import tenure_server.domain", "layered"),
        ("server/tenure_server/limits", "import tenure_server.keys", "layered"),
        ("server/tenure_server/wire/status", "import tenure_server.services.caller", "layered"),
        ("server/tenure_server/storage/ports", "import tenure_server.storage.memory", "A cache wraps"),
        ("server/tenure_server/services/caller", "import tenure_server.storage.memory", "only through"),
        ("server/tenure_server/keys", "import tenure_client", "do not know each other"),
        ("client/tenure_client/errors", "import tenure_server.errors", "do not know each other"),
        ("server/tenure_server/wire/fields", "import pickle", "never deserialises"),
        (
            "server/tenure_server/storage/memory",
            "import langgraph",
            "never deserialises",
        ),
        ("client/tenure_client/errors", "import psycopg", "light"),
    ],
)
def test_a_wrong_direction_breaks_its_contract(tree: Path, module: str, line: str, contract: str) -> None:
    write(tree, module, line)
    verdict = lint_imports(tree)
    assert verdict.returncode != 0
    broken = [text for text in verdict.stdout.splitlines() if " BROKEN" in text]
    assert any(contract in text for text in broken), verdict.stdout


def test_a_new_module_must_be_given_its_place(tree: Path) -> None:
    (tree / "server" / "tenure_server" / "helpers.py").write_text("")
    verdict = lint_imports(tree)
    assert verdict.returncode != 0
    assert "tenure_server.helpers" in verdict.stdout


def test_packages_from_outside_are_imported_only_where_they_belong() -> None:
    assert [str(fault) for fault in imports.violations()] == []


@pytest.mark.parametrize(
    ("module", "line", "imported"),
    [
        ("server/tenure_server/services/caller", "import psycopg", "psycopg"),
        ("server/tenure_server/storage/memory", "from redis import asyncio", "redis.asyncio"),
        ("server/tenure_server/storage/memory", "import grpc.aio", "grpc.aio"),
        ("server/tenure_server/domain", "from tenure.v1 import common_pb2", "tenure.v1.common_pb2"),
        ("server/tenure_server/wire/fields", "def f():\n    import pickle", "pickle"),
        ("server/tenure_server/wire/fields", "__import__('ormsgpack')", "ormsgpack"),
        ("server/tenure_server/keys", "import importlib\nimportlib.import_module('json')", None),
        (
            "server/tenure_server/keys",
            "import importlib\nimportlib.import_module('langchain_core')",
            "langchain_core",
        ),
        (
            "client/tenure_client/errors",
            "from langgraph.graph import StateGraph",
            "langgraph.graph.StateGraph",
        ),
        ("client/tenure_client/errors", "from langgraph import graph", "langgraph.graph"),
        ("client/tenure_client/errors", "from langgraph.checkpoint.base import uuid6", None),
        ("client/tenure_client/errors", "from langgraph.store import base", None),
        ("client/tenure_client/errors", "from opentelemetry import trace", None),
        ("client/tenure_client/errors", "import opentelemetry.sdk", "opentelemetry.sdk"),
    ],
)
def test_an_import_in_the_wrong_place_is_found(
    tree: Path, module: str, line: str, imported: str | None
) -> None:
    write(tree, module, line)
    found = imports.violations((tree / "client", tree / "server"))
    assert [fault.imported for fault in found] == ([imported] if imported else [])
    assert all(str(fault.path) == f"{module}.py" for fault in found)
