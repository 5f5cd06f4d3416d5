"""The three roles. They belong to the whole cluster, where several databases may be migrated at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, LiteralString

from psycopg import AsyncConnection, sql
from psycopg import errors as pg

OWNER, APP, OPS = "tenure_owner", "tenure_app", "tenure_ops"
_ATTEMPTS = 20
_RACES = (pg.DuplicateObject, pg.UniqueViolation, pg.InternalError_, pg.UndefinedObject)
"""What Postgres says when two sessions change one role at once ("tuple concurrently updated")."""


async def create(
    connection: AsyncConnection[Any], *, app_password: str | None, ops_password: str | None
) -> None:
    """Make the roles that are missing, and set the passwords that are given."""
    await _settled(lambda: _create(connection))
    await _settled(lambda: _join(connection))
    await _settled(lambda: _without_jit(connection))
    for role, password in ((APP, app_password), (OPS, ops_password)):
        if password is not None:
            await _settled(lambda role=role, password=password: _allow_login(connection, role, password))  # type: ignore[misc]


async def _create(connection: AsyncConnection[Any]) -> None:
    for role in (OWNER, APP, OPS):
        cursor = await connection.execute("SELECT FROM pg_catalog.pg_roles WHERE rolname = %s", [role])
        if await cursor.fetchone() is None:
            await connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN NOINHERIT").format(sql.Identifier(role)))


_IS_MEMBER: LiteralString = "SELECT pg_catalog.pg_has_role(current_user, %s, 'MEMBER')"


async def _join(connection: AsyncConnection[Any]) -> None:
    """Let us act as the owner and as operations; a superuser may anyway."""
    for role in (OWNER, OPS):
        cursor = await connection.execute(_IS_MEMBER, [role])
        (member,) = await cursor.fetchone() or (False,)
        if not member:
            await connection.execute(sql.SQL("GRANT {} TO current_user").format(sql.Identifier(role)))


_HAS_JIT_SETTING: LiteralString = """
SELECT
FROM pg_catalog.pg_db_role_setting AS s
JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole
CROSS JOIN unnest(s.setconfig) AS c (setting)
WHERE r.rolname = %s AND c.setting LIKE 'jit=%%'
"""


async def _without_jit(connection: AsyncConnection[Any]) -> None:
    """Keep Postgres from compiling our statements, which takes a second for what runs for a millisecond.

    Its estimate of their cost, which decides that, does not know how short our arrays are. A setting that the
    role has already stays. Where another role made ours, we may not: the server then says what to do.
    """
    for role in (APP, OPS):
        cursor = await connection.execute(_HAS_JIT_SETTING, [role])
        if await cursor.fetchone() is None:
            with suppress(pg.InsufficientPrivilege):
                await connection.execute(sql.SQL("ALTER ROLE {} SET jit = off").format(sql.Identifier(role)))


async def _allow_login(connection: AsyncConnection[Any], role: str, password: str) -> None:
    # Hashed here: what the server gets, it may log.
    hashed = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    await connection.execute(
        sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(hashed))
    )


async def _settled(change: Callable[[], Awaitable[None]]) -> None:
    """Make a change again if another session made one to the same role."""
    for attempt in range(_ATTEMPTS):
        try:
            await change()
            return
        except _RACES:
            if attempt == _ATTEMPTS - 1:
                raise
            await asyncio.sleep(random.uniform(0, 0.05))  # noqa: S311 - jitter
