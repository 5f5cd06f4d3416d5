"""Postgres and Valkey for the tests: our own from the wheels, or those that the environment names."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
import redis
from psycopg import sql
from tenure_server.local.binaries import postgres_bin
from tenure_server.local.postgres import LocalPostgres
from tenure_server.local.valkey import LocalValkey
from tenure_server.storage.ports import TenantAdmin

from tests.harness.running import run

APP_PASSWORD = f"app-{secrets.token_urlsafe(12)}"
OPS_PASSWORD = f"ops-{secrets.token_urlsafe(12)}"
"""Roles belong to the whole server, so all databases of a run share their passwords."""


@dataclass(frozen=True)
class Database:
    """A database with our schema.

    Attributes:
        name: Its name.
        admin_url: As the superuser.
        app_url: As `tenure_app`, the role that serves.
        ops_url: As `tenure_ops`, the role of the sweeper and the command line.
    """

    name: str
    admin_url: str
    app_url: str
    ops_url: str

    def tenants(self) -> TenantAdmin:
        """Return what makes tenants and keys here."""
        from tenure_server.storage.postgres.tenants import PostgresTenants

        return PostgresTenants(self.ops_url)


class Postgres:
    """A Postgres server, ours or an external one."""

    def __init__(self, server: LocalPostgres | str) -> None:
        self._local = server if isinstance(server, LocalPostgres) else None
        self._external = server if isinstance(server, str) else ""

    @property
    def bin_dir(self) -> Path:
        """Folder with `pg_dump` and the like."""
        return self._local.bin_dir if self._local else postgres_bin()

    @property
    def pid(self) -> int:
        """Process id of the postmaster; only of our own."""
        return self._own.pid

    def admin_dsn(self, dbname: str = "postgres") -> str:
        """Return a database's URL for the superuser."""
        if self._local is not None:
            return self._local.url(dbname)
        return urlunsplit(urlsplit(self._external)._replace(path=f"/{dbname}"))

    def database(self, name: str) -> Database:
        """Return the URLs of a database of ours."""
        return Database(
            name,
            admin_url=self.admin_dsn(name),
            app_url=self._dsn_as(name, "tenure_app", APP_PASSWORD),
            ops_url=self._dsn_as(name, "tenure_ops", OPS_PASSWORD),
        )

    def create_database(self, template: str | None = None) -> str:
        """Make a database, as a copy of `template` if given, and return its name."""
        name = f"test_{secrets.token_hex(6)}"
        self._execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template or "template0")
            )
        )
        return name

    def migrated_database(self) -> Database:
        """Make a database with our schema, the slow way: by migrating it."""
        from tenure_server.storage.postgres.migrate import migrate

        database = self.database(self.create_database())
        run(migrate(database.admin_url, app_password=APP_PASSWORD, ops_password=OPS_PASSWORD))
        return database

    def drop_database(self, name: str) -> None:
        """Remove a database, its sessions included."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def start(self) -> None:
        """Start it again on the same port."""
        self._own.start(port=self._own.port)

    def stop(self) -> None:
        """Stop it in an orderly way."""
        self._own.stop()

    def kill(self) -> None:
        """Kill it, as a crash would."""
        self._own.kill()

    def restart(self) -> None:
        """Stop and start it; sessions are lost, the URLs stay."""
        self.stop()
        self.start()

    @property
    def _own(self) -> LocalPostgres:
        assert self._local is not None, "not our own server: use the `private_postgres` fixture"
        return self._local

    def _dsn_as(self, dbname: str, user: str, password: str) -> str:
        parts = urlsplit(self.admin_dsn(dbname))
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{user}:{quote(password)}@{host}"))

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.admin_dsn(), autocommit=True) as connection:
            connection.execute(statement)


class PrivateRedis:
    """A Valkey of one test, to be hurt."""

    def __init__(self, folder: Path) -> None:
        self._local = LocalValkey(folder)
        self._local.start()

    @property
    def url(self) -> str:
        """Where it is; the same for its whole life."""
        return self._local.url

    def kill(self) -> None:
        """Kill it."""
        self._local.kill()

    def start(self) -> None:
        """Start it again, empty, on the same port."""
        self._local.start(port=self._local.port)

    def pause(self) -> None:
        """Stop its process: connections stay open and nothing answers."""
        os.kill(self._local.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused one go on."""
        os.kill(self._local.pid, signal.SIGCONT)

    def flush(self) -> None:
        """Empty it."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def close(self) -> None:
        """Stop it."""
        if self._local.running:
            self.resume()
        self._local.stop()


PrivateRedisFactory = Callable[[], PrivateRedis]
PrivatePostgresFactory = Callable[[], Postgres]
