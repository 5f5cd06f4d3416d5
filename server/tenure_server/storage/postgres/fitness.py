"""Whether a connection may serve: its role must be bound by row level security, its commits durable."""

from __future__ import annotations

from typing import Any

from psycopg import AsyncConnection

_OLDEST = {14: 19, 15: 14, 16: 10, 17: 6}
"""Older ones leak rows through row level security (CVE-2025-8713 and its like)."""

_QUERY = """
SELECT
    r.rolname,
    r.rolsuper OR r.rolbypassrls,
    EXISTS (
        SELECT
        FROM pg_catalog.pg_namespace AS n
        WHERE n.nspname = 'tenure' AND pg_catalog.pg_has_role(current_user, n.nspowner, 'MEMBER')
    ),
    current_setting('synchronous_commit') = 'off'
FROM pg_catalog.pg_roles AS r
WHERE r.rolname = current_user
"""


async def problem(connection: AsyncConnection[Any]) -> str | None:
    """Return why a connection must not serve, None if it may."""
    version = connection.info.server_version
    major, minor = divmod(version, 10_000)
    if major < min(_OLDEST) or minor < _OLDEST.get(major, 0):
        wanted = ", ".join(f"{major}.{minor}" for major, minor in _OLDEST.items())
        return f"Postgres {major}.{minor} leaks rows between tenants; use at least {wanted} or 18"
    row = await (await connection.execute(_QUERY)).fetchone()
    assert row is not None
    role, bypasses, owns, unsafe = row
    if bypasses or owns:
        return f"role {role!r} is not bound by row level security; connect as tenure_app"
    if unsafe:
        return "synchronous_commit is off: an acknowledged write could be lost"
    return None


async def advice(connection: AsyncConnection[Any]) -> str | None:
    """Return what makes a connection slow and how to change it, None if nothing is known."""
    row = await (await connection.execute("SELECT current_user, current_setting('jit', true)")).fetchone()
    assert row is not None
    role, jit = row
    if jit == "on":
        return (
            "jit is on: Postgres may take a second to compile a read of a millisecond; "
            f"run `tenure migrate`, or `ALTER ROLE {role} SET jit = off`"
        )
    return None
