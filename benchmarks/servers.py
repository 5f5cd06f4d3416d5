"""The servers of a run: one Postgres and one Valkey with their defaults, and a Tenure server per place."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis
from psycopg import sql
from tenure_server.local.postgres import LocalPostgres
from tenure_server.local.supervisor import Child, tail
from tenure_server.local.valkey import LocalValkey

from benchmarks.certificates import self_signed
from benchmarks.places import Failed, Place
from benchmarks.systems import Endpoint, System

_APP_PASSWORD = f"app-{secrets.token_urlsafe(12)}"
_OPS_PASSWORD = f"ops-{secrets.token_urlsafe(12)}"
_READY_TIMEOUT = 30.0
_OURS = ("TENURE_", "OTEL_", "PG")
_REDIS_DATABASES = {"redis": 0, "plainredis": 1, "tenure": 2}
"""The search module indexes number 0 only."""
_VALKEY_SHARE = 4
"""Valkey gets a quarter of the memory: the savers that keep checkpoints in it must not see them evicted."""


class Servers:
    """Postgres and Valkey, and the places made on them. A context manager: nothing outlives it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self.postgres = LocalPostgres(folder / "postgres")
        self.valkey = LocalValkey(folder / "valkey", max_memory=f"{memory // _VALKEY_SHARE >> 20}mb")
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for server in (self.postgres, self.valkey):
            self._stack.callback(server.stop)
            server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def missing(self, system: System) -> str | None:
        """Say why a system cannot be measured here, None if it can."""
        if system.kind == "redis":
            with redis.Redis.from_url(self.valkey.url, decode_responses=True) as client:
                loaded = str(client.module_list()).lower()
            if "json" not in loaded or "search" not in loaded:
                return "needs a Redis with the JSON and search modules; name one with TENURE_VALKEY_SERVER"
        if system.workers > 1 and "--workers" not in _command({}, "serve", "--help"):
            return "this version serves with one process"
        return None

    def place(self, system: System) -> Place:
        """Make an empty place for a system: a new database, a new file or an emptied Valkey."""
        if system.kind == "memory":
            return Place(Endpoint())
        if system.kind == "sqlite":
            file = self._folder / f"{secrets.token_hex(4)}.sqlite"
            return Place(Endpoint(str(file)), file=file)
        if system.kind in {"plainredis", "redis"}:
            number = _REDIS_DATABASES[system.kind]
            return Place(
                Endpoint(self._redis_url(number)),
                pids=lambda: [self.valkey.pid],
                on_close=lambda: self._flush(number),
            )
        name = f"bench_{secrets.token_hex(4)}"
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        admin_url = self.postgres.url(name)
        if system.kind == "tenure":
            return self._tenure(system, name, admin_url)
        _set_up_postgres_saver(admin_url)
        return Place(
            Endpoint(admin_url),
            pids=lambda: [self.postgres.pid],
            admin_url=admin_url,
            on_close=lambda: self._drop(name),
        )

    def _redis_url(self, number: int) -> str:
        return urlunsplit(urlsplit(self.valkey.url)._replace(path=f"/{number}"))

    def _flush(self, number: int) -> None:
        with redis.Redis.from_url(self._redis_url(number)) as client:
            client.flushdb()

    def _tenure(self, system: System, name: str, admin_url: str) -> Place:
        admin = {
            "TENURE_ADMIN_DATABASE_URL": admin_url,
            "TENURE_APP_PASSWORD": _APP_PASSWORD,
            "TENURE_OPS_PASSWORD": _OPS_PASSWORD,
        }
        _command(admin, "migrate")
        env = {
            "TENURE_DATABASE_URL": self.postgres.url(name, user="tenure_app", password=_APP_PASSWORD),
            "TENURE_OPS_DATABASE_URL": self.postgres.url(name, user="tenure_ops", password=_OPS_PASSWORD),
            "TENURE_REDIS_URL": self._redis_url(_REDIS_DATABASES["tenure"]),
            "TENURE_LOG_LEVEL": "WARNING",
        }
        ca = None
        if system.tls:
            certificate, key = self_signed(self._folder)
            env |= {"TENURE_TLS_CERT": str(certificate), "TENURE_TLS_KEY": str(key)}
            ca = str(certificate)
        server = TenureServer(self._folder, env, system.workers)
        server.start()

        def new_tenant() -> Endpoint:
            made = json.loads(_command(admin, "tenant", "create", "bench", "--key", "read,write", "--json"))
            return Endpoint(server.target, made["api_key"], ca)

        def close() -> None:
            server.stop()
            self._flush(_REDIS_DATABASES["tenure"])
            self._drop(name)

        def cold() -> None:
            server.stop()
            self._flush(_REDIS_DATABASES["tenure"])
            server.start()

        return Place(
            new_tenant(),
            pids=lambda: [self.postgres.pid, self.valkey.pid, server.pid],
            server_pid=lambda: server.pid,
            admin_url=admin_url,
            app_url=env["TENURE_DATABASE_URL"],
            ops_url=env["TENURE_OPS_DATABASE_URL"],
            another_tenant=new_tenant,
            cold=cold,
            on_close=close,
        )

    def _drop(self, name: str) -> None:
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.postgres.url(), autocommit=True) as connection:
            connection.execute(statement)


class TenureServer:
    """A `tenure serve` process, which keeps its port over restarts."""

    def __init__(self, folder: Path, env: dict[str, str], workers: int) -> None:
        name = f"tenure-{secrets.token_hex(4)}"
        self.target = "127.0.0.1:0"
        self._folder = folder
        self._log = folder / f"{name}.log"
        self._ready_file = folder / f"{name}.json"
        self._env = env | {"TENURE_READY_FILE": str(self._ready_file)}
        self._options = ["--workers", str(workers)] if workers > 1 else []
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._child is not None, "not running"
        return self._child.pid

    def start(self) -> None:
        """Start it and wait until it serves.

        Raises:
            Failed: It does not serve.
        """
        self._ready_file.unlink(missing_ok=True)
        self._child = Child.start(
            [sys.executable, "-m", "tenure_server", "serve", *self._options],
            cwd=self._folder,
            log=self._log,
            env=_environment(self._env | {"TENURE_LISTEN": self.target}),
        )
        give_up = time.monotonic() + _READY_TIMEOUT
        while not self._ready_file.exists():
            if self._child.exit_code is not None or time.monotonic() > give_up:
                self._child.stop()
                raise Failed(f"the Tenure server does not serve: {tail(self._log, 1)}")
            time.sleep(0.01)
        self.target = json.loads(self._ready_file.read_text())["target"]

    def stop(self) -> None:
        """Stop it; not running is fine."""
        if self._child is not None:
            self._child.stop()
            self._child = None


def _set_up_postgres_saver(url: str) -> None:
    from langgraph.checkpoint.postgres import PostgresSaver

    with PostgresSaver.from_conn_string(url) as saver:
        saver.setup()


def _environment(extra: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)} | extra


def _command(extra: dict[str, str], *arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "tenure_server", *arguments],
        env=_environment(extra),
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        raise Failed(f"tenure {arguments[0]}: {ran.stderr.strip().rpartition(chr(10))[2]}")
    return ran.stdout
