"""Telling what has expired, or would have with another policy: counted by what reads ask, too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, Final, LiteralString

from psycopg import AsyncConnection

from tenure_server import errors
from tenure_server.domain import TenantId
from tenure_server.retention import Expired
from tenure_server.storage.postgres.pool import Database
from tenure_server.storage.postgres.retention_lines import draw_lines

PAGE: Final = 200
"""Threads or items that one statement looks at."""

_TOTAL: LiteralString = """
SELECT
    (SELECT count(*) FROM tenure.thread_head WHERE tenant_id = %(tenant)s)
    + (SELECT count(*) FROM tenure.item WHERE tenant_id = %(tenant)s)
"""
_THREADS: LiteralString = """
SELECT max(thread_id), count(*), count(*) FILTER (WHERE whole), coalesce(sum(checkpoints), 0)::bigint,
    coalesce(sum(bytes), 0)::bigint
FROM tenure.expired_threads_1(%s, %s, %s, true)
"""
_ITEMS: LiteralString = "SELECT namespace, key, items, bytes FROM tenure.expired_items_1(%s, %s, %s, %s)"


async def preview(
    database: Database,
    tenant: TenantId,
    settle: float,
    proposed: tuple[LiteralString, dict[str, Any]] | None,
) -> AsyncGenerator[Expired, None]:
    """Tell how far it is and what was found, again and again; the last one is of all.

    Args:
        database: Connections as `tenure_app`.
        tenant: Whose.
        settle: See `retention_sweeping.SETTLE`.
        proposed: Sets the policy that is asked about; it is taken back.
    """
    try:
        async with database.transaction(tenant) as connection:
            if proposed is not None:
                await connection.execute(*proposed)
            # As the next run of the sweeper would; all of it is taken back.
            await draw_lines(partial(_rows, connection), tenant, settle)
            async with aclosing(_expired(connection, tenant)) as telling:
                async for found in telling:
                    yield found
            raise _TakenBack
    except _TakenBack:
        return


async def apart(telling: AsyncGenerator[Expired, None], seconds: float) -> AsyncGenerator[Expired, None]:
    """Yield what is told, without keeping it waiting: who reads slowly holds no connection for it.

    Raises:
        DeadlineExceeded: The telling took more than so many seconds.
    """
    told: asyncio.Queue[Expired | None] = asyncio.Queue()

    async def listen() -> None:
        try:
            async with asyncio.timeout(seconds), aclosing(telling):
                async for found in telling:
                    told.put_nowait(found)
        except TimeoutError:
            raise errors.DeadlineExceeded from None
        finally:
            told.put_nowait(None)

    listening = asyncio.create_task(listen())
    try:
        while (found := await told.get()) is not None:
            yield found
        await listening
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def _rows(
    connection: AsyncConnection[Any], statement: LiteralString, params: list[Any]
) -> list[tuple[Any, ...]]:
    return await (await connection.execute(statement, params)).fetchall()


class _TakenBack(Exception):
    """Ends a transaction that must leave nothing."""


async def _expired(connection: AsyncConnection[Any], tenant: TenantId) -> AsyncGenerator[Expired, None]:
    row = await (await connection.execute(_TOTAL, {"tenant": tenant})).fetchone()
    assert row is not None
    found = Expired(total=row[0])
    after = ""
    while True:
        row = await (await connection.execute(_THREADS, [tenant, after, PAGE])).fetchone()
        assert row is not None
        last, seen, threads, checkpoints, size = row
        if last is None:
            break
        after = last
        found = replace(
            found,
            seen=found.seen + seen,
            threads=found.threads + threads,
            checkpoints=found.checkpoints + checkpoints,
            bytes=found.bytes + size,
        )
        yield found
    namespace, key, seen = "", "", found.seen
    while True:
        row = await (await connection.execute(_ITEMS, [tenant, namespace, key, PAGE])).fetchone()
        assert row is not None
        if row[0] is None:
            break
        namespace, key, items, size = row
        seen = min(seen + PAGE, found.total)
        found = replace(found, seen=seen, items=found.items + items, bytes=found.bytes + size)
        yield found
    yield replace(found, seen=found.total, done=True)
