"""Brings the schema up to date: numbered SQL files, each applied once, in a transaction of its own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from typing import Any

import psycopg
from psycopg import AsyncConnection

from tenure_server import errors
from tenure_server.storage.postgres import faults, roles

_LOCK = 0x74656E757265
"""Advisory lock of migrations ("tenure" in hexadecimal); the sweeper's is the next one."""
_LOCK_TIMEOUT = "5s"
"""DDL that waits longer for a table would hold up every statement that comes after it."""
_NAME = re.compile(r"(\d{4})_\w+\.sql")


class MigrationRefused(errors.TenureError):
    """The database is in a state that migrations must not touch; says what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file.

    Attributes:
        version: Its number.
        name: Its name, such as 0001_schema.sql.
        statements: Its text.
    """

    version: int
    name: str
    statements: str

    def checksum(self) -> bytes:
        """Return what tells whether a file was changed after it had been applied."""
        return hashlib.sha256(self.statements.encode()).digest()


def migrations() -> list[Migration]:
    """Return all files in the order of their numbers."""
    found = []
    for file in resources.files(__package__).joinpath("migrations").iterdir():
        match = _NAME.fullmatch(file.name)
        if match:
            found.append(Migration(int(match[1]), file.name, file.read_text()))
    return sorted(found, key=lambda migration: migration.version)


SCHEMA_VERSION = 14
"""Number of the newest migration: what this server needs, at least."""


async def migrate(dsn: str, *, app_password: str | None = None, ops_password: str | None = None) -> list[str]:
    """Bring a database up to date; several at once take turns.

    Args:
        dsn: Connects as a superuser, or as a role that may create roles and owns the database.
        app_password: Lets `tenure_app` log in with it.
        ops_password: Lets `tenure_ops` log in with it.

    Returns:
        Names of the files that were applied.

    Raises:
        MigrationRefused: An applied file was changed, or the schema is newer than this code.
        Unavailable: The database cannot be reached, or others hold a table for too long.
    """
    with faults.translated():
        async with await AsyncConnection.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
            await connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
            await roles.create(connection, app_password=app_password, ops_password=ops_password)
            await connection.execute("CREATE SCHEMA IF NOT EXISTS tenure AUTHORIZATION tenure_owner")
            pending = _pending(await _applied(connection))
            for migration in pending:
                await _apply(connection, migration)
            await _index_vectors(connection)
            return [migration.name for migration in pending]


async def _applied(connection: AsyncConnection[Any]) -> dict[int, tuple[str, bytes]]:
    """Return name and checksum of what was applied before."""
    cursor = await connection.execute("SELECT to_regclass('tenure.schema_migration') IS NOT NULL")
    (exists,) = await cursor.fetchone() or (False,)
    if not exists:
        return {}
    cursor = await connection.execute("SELECT version, name, checksum FROM tenure.schema_migration")
    return {version: (name, bytes(checksum)) for version, name, checksum in await cursor.fetchall()}


def _pending(applied: dict[int, tuple[str, bytes]]) -> list[Migration]:
    known = {migration.version: migration for migration in migrations()}
    newer = sorted(applied.keys() - known.keys())
    if newer:
        names = ", ".join(applied[version][0] for version in newer)
        raise MigrationRefused(
            f"the schema is newer than this code, which does not know {names}; run the newer `tenure migrate`"
        )
    for version, (name, checksum) in applied.items():
        if known[version].checksum() != checksum:
            raise MigrationRefused(
                f"{name} was changed after it had been applied; restore it and put the change into a new file"
            )
    return [migration for version, migration in known.items() if version not in applied]


async def _apply(connection: AsyncConnection[Any], migration: Migration) -> None:
    async with _as_owner(connection):
        await connection.execute(migration.statements.encode())
        await connection.execute(
            "INSERT INTO tenure.schema_migration (version, name, checksum) VALUES (%s, %s, %s)",
            [migration.version, migration.name, migration.checksum()],
        )


async def _index_vectors(connection: AsyncConnection[Any]) -> None:
    """Make what pgvector 0.8 adds, also in a database that got it after our schema.

    Without it, or without the right to create it, searches compare all vectors and give the same answers.
    """
    with suppress(psycopg.Error):
        cursor = await connection.execute(
            "SELECT FROM pg_catalog.pg_available_extensions"
            " WHERE name = 'vector' AND installed_version IS NULL"
        )
        if cursor.rowcount:
            await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    cursor = await connection.execute("SELECT to_regproc('tenure.ensure_vector_indexes_1') IS NOT NULL")
    if await cursor.fetchone() == (True,):
        async with _as_owner(connection):
            await connection.execute("SELECT tenure.ensure_vector_indexes_1()")


@asynccontextmanager
async def _as_owner(connection: AsyncConnection[Any]) -> AsyncIterator[None]:
    async with connection.transaction():
        await connection.execute("SELECT set_config('lock_timeout', %s, true)", [_LOCK_TIMEOUT])
        await connection.execute("SET LOCAL ROLE tenure_owner")
        yield
