"""A whole Tenure to test against, and tenants in it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID

from tenure_server.domain import OPERATORS, Role, Scope, TenantId
from tenure_server.rules import parse

from tests.harness.databases import Database
from tests.harness.running import run
from tests.harness.server import ServerProcess, clean_environment

READ_WRITE = ("read", "write")


@dataclass(frozen=True)
class TenantHandle:
    """A tenant and a key of it."""

    tenant_id: str
    api_key: str


class Target(Protocol):
    """What most tests need: where the server is, a key, and more tenants."""

    @property
    def target(self) -> str:
        """host:port."""
        ...

    @property
    def api_key(self) -> str:
        """A key of a default tenant that may read and write."""
        ...

    def new_tenant(self, scopes: tuple[str, ...] = READ_WRITE) -> TenantHandle:
        """Make a tenant and a key with these scopes."""
        ...


class Stack:
    """A server process on Postgres and Redis.

    Attributes:
        server: The process.
        database: Its database.
        redis_url: Its cache, None if it has none.
    """

    def __init__(self, server: ServerProcess, database: Database, redis_url: str | None) -> None:
        self.server = server
        self.database = database
        self.redis_url = redis_url
        self.default = self.new_tenant()

    @property
    def target(self) -> str:
        return self.server.target

    @property
    def admin_target(self) -> str:
        """host:port of AdminService."""
        assert self.server.admin_target is not None
        return self.server.admin_target

    @property
    def api_key(self) -> str:
        return self.default.api_key

    def new_operator(self) -> str:
        """Make an operator's key."""
        return run(self.database.tenants().create_key(OPERATORS, Role.OPERATOR.scopes))

    def new_tenant(self, scopes: tuple[str, ...] = READ_WRITE) -> TenantHandle:
        async def make() -> TenantHandle:
            tenants = self.database.tenants()
            tenant = await tenants.create_tenant("test")
            wanted = frozenset(Scope(name) for name in scopes)
            return TenantHandle(str(tenant), await tenants.create_key(tenant, wanted))

        return run(make())

    def new_key(self, tenant: TenantHandle, *rules: str, scopes: tuple[str, ...] = READ_WRITE) -> str:
        """Make another key of a tenant, limited by the rules if there are any."""
        wanted = frozenset(Scope(name) for name in scopes)
        identity = TenantId(UUID(tenant.tenant_id))
        return run(self.database.tenants().create_key(identity, wanted, rules=parse(rules)))


class MemoryStack:
    """A server process that keeps everything in memory (`memory_server.py`)."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "memory-server.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.harness.memory_server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=clean_environment(),
                cwd=Path(__file__).parents[2],
            )
        self.target: str = self._answer()["target"]
        self.default = self.new_tenant()

    @property
    def api_key(self) -> str:
        return self.default.api_key

    def new_tenant(self, scopes: tuple[str, ...] = READ_WRITE) -> TenantHandle:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(scopes) + "\n")
        self._process.stdin.flush()
        return TenantHandle(**self._answer())

    def close(self) -> None:
        """Stop it."""
        self._process.communicate()

    def _answer(self) -> dict[str, str]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the server ended:\n{self._log.read_text()}"
        answer: dict[str, str] = json.loads(line)
        return answer
