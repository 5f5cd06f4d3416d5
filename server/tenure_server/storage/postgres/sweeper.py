"""Frees what nobody can reach any more: one sweeper at a time, in small slices, as `tenure_ops`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID

from psycopg import AsyncConnection

from tenure_server import errors, telemetry
from tenure_server.storage.postgres import faults, items_sweeping, tenant_sweeping
from tenure_server.storage.postgres.retention_sweeping import PolicySweeping
from tenure_server.storage.postgres.usage_sweeping import UsageSweeping

_log = logging.getLogger("tenure")

_Connection = AsyncConnection[Any]

_LOCK = 0x74656E757266
SLICE = 500
"""Rows that one transaction removes at most, so that none holds locks for long."""
_SLICES = 200
"""Slices of one kind in one run: a large backlog must not keep the other kinds waiting."""
_LOCK_TIMEOUT = "200ms"

_GARBAGE: LiteralString = "SELECT tenant_id, thread_key FROM tenure.garbage ORDER BY queued_at LIMIT %s"
_FREE: Sequence[LiteralString] = (
    """
    DELETE FROM tenure.pending_write AS w
    USING (
        SELECT p.ns_hash, p.checkpoint_id, p.task_id, p.idx
        FROM tenure.pending_write AS p
        WHERE p.tenant_id = %(tenant)s AND p.thread_key = %(thread)s
        LIMIT %(limit)s
    ) AS d
    WHERE w.tenant_id = %(tenant)s AND w.thread_key = %(thread)s
        AND (w.ns_hash, w.checkpoint_id, w.task_id, w.idx) = (d.ns_hash, d.checkpoint_id, d.task_id, d.idx)
    """,
    """
    DELETE FROM tenure.channel_value AS v
    USING (
        SELECT p.ns_hash, p.channel, p.version
        FROM tenure.channel_value AS p
        WHERE p.tenant_id = %(tenant)s AND p.thread_key = %(thread)s
        LIMIT %(limit)s
    ) AS d
    WHERE v.tenant_id = %(tenant)s AND v.thread_key = %(thread)s
        AND (v.ns_hash, v.channel, v.version) = (d.ns_hash, d.channel, d.version)
    """,
    """
    DELETE FROM tenure.chunk AS c
    USING (
        SELECT p.chunk_id
        FROM tenure.chunk AS p
        WHERE p.tenant_id = %(tenant)s AND p.thread_key = %(thread)s
        LIMIT %(limit)s
    ) AS d
    WHERE c.tenant_id = %(tenant)s AND c.thread_key = %(thread)s AND c.chunk_id = d.chunk_id
    """,
    """
    DELETE FROM tenure.checkpoint AS c
    USING (
        SELECT p.checkpoint_ns, p.checkpoint_id
        FROM tenure.checkpoint AS p
        WHERE p.tenant_id = %(tenant)s AND p.thread_key = %(thread)s
        LIMIT %(limit)s
    ) AS d
    WHERE c.tenant_id = %(tenant)s AND c.thread_key = %(thread)s
        AND (c.checkpoint_ns, c.checkpoint_id) = (d.checkpoint_ns, d.checkpoint_id)
    """,
    """
    DELETE FROM tenure.head_override AS o
    USING (
        SELECT p.ns_hash
        FROM tenure.head_override AS p
        WHERE p.tenant_id = %(tenant)s AND p.thread_key = %(thread)s
        LIMIT %(limit)s
    ) AS d
    WHERE o.tenant_id = %(tenant)s AND o.thread_key = %(thread)s AND o.ns_hash = d.ns_hash
    """,
    """
    DELETE FROM tenure.retention_expired AS x
    USING (
        SELECT p.ns_hash, p.checkpoint_id
        FROM tenure.retention_expired AS p
        WHERE p.tenant_id = %(tenant)s AND p.thread_key = %(thread)s
        LIMIT %(limit)s
    ) AS d
    WHERE x.tenant_id = %(tenant)s AND x.thread_key = %(thread)s
        AND (x.ns_hash, x.checkpoint_id) = (d.ns_hash, d.checkpoint_id)
    """,
    """
    DELETE FROM tenure.retention_pin AS x
    USING (
        SELECT p.ns_hash, p.checkpoint_id
        FROM tenure.retention_pin AS p
        WHERE p.tenant_id = %(tenant)s AND p.thread_key = %(thread)s
        LIMIT %(limit)s
    ) AS d
    WHERE x.tenant_id = %(tenant)s AND x.thread_key = %(thread)s
        AND (x.ns_hash, x.checkpoint_id) = (d.ns_hash, d.checkpoint_id)
    """,
)
_FREED: LiteralString = "DELETE FROM tenure.garbage WHERE tenant_id = %(tenant)s AND thread_key = %(thread)s"

_OPERATIONS: LiteralString = """
DELETE FROM tenure.operation AS o
USING (
    SELECT p.tenant_id, p.operation_id, p.part
    FROM tenure.operation AS p
    WHERE p.created_at < now() - make_interval(secs => %s)
    ORDER BY p.created_at
    LIMIT %s
) AS d
WHERE (o.tenant_id, o.operation_id, o.part) = (d.tenant_id, d.operation_id, d.part)
"""

# In the order of the primary key: an index on age would cost every write, and only few writes are orphans.
_NEXT_WRITES: LiteralString = """
WITH slice AS MATERIALIZED (
    SELECT
        w.tenant_id, w.thread_key, w.ns_hash, w.checkpoint_id, w.task_id, w.idx,
        w.created_at < now() - make_interval(secs => %s) AS is_old
    FROM tenure.pending_write AS w
    WHERE (w.tenant_id, w.thread_key, w.ns_hash, w.checkpoint_id, w.task_id, w.idx) > (%s, %s, %s, %s, %s, %s)
    ORDER BY w.tenant_id, w.thread_key, w.ns_hash, w.checkpoint_id, w.task_id, w.idx
    LIMIT %s
)
SELECT
    s.tenant_id, s.thread_key, s.ns_hash, s.checkpoint_id, s.task_id, s.idx,
    s.is_old AND NOT EXISTS (
        SELECT
        FROM tenure.checkpoint AS c
        WHERE c.tenant_id = s.tenant_id AND c.thread_key = s.thread_key AND c.checkpoint_id = s.checkpoint_id
            AND octet_length(c.checkpoint_id) >= 0
            AND substring(sha256(convert_to(c.checkpoint_ns, 'UTF8')) FOR 16) = s.ns_hash
    )
FROM slice AS s
ORDER BY s.tenant_id, s.thread_key, s.ns_hash, s.checkpoint_id, s.task_id, s.idx
"""
_DELETE_ORPHANS: LiteralString = "SELECT tenure.drop_orphans_1(%s, %s, %s, %s, %s)"

_Position = tuple[UUID, UUID, bytes, str, str, int]
_START: _Position = (UUID(int=0), UUID(int=0), b"", "", "", -(2**31))


@dataclass
class Swept:
    """How many rows a run removed.

    Attributes:
        garbage: Rows of deleted threads.
        orphans: Pending writes whose checkpoint never came.
        operations: Records of operations that nobody repeats any more.
        items: Items whose time has run out.
        namespaces: Namespaces that hold no items any more.
        tenants: Rows of deleted tenants.
        expired_threads: Threads that expired by policy; their rows are garbage then.
        expired_checkpoints: Checkpoints that did, those of these threads included.
        expired_items: Items that did.
    """

    garbage: int = 0
    orphans: int = 0
    operations: int = 0
    items: int = 0
    namespaces: int = 0
    tenants: int = 0
    expired_threads: int = 0
    expired_checkpoints: int = 0
    expired_items: int = 0


class Sweeper:
    """Frees rows in the background; of all replicas' sweepers one works at a time."""

    def __init__(
        self,
        dsn: str,
        policies: PolicySweeping | None = None,
        *,
        retention: float = 24 * 3600.0,
        grace: float = tenant_sweeping.GRACE,
    ) -> None:
        """Take where to connect.

        Args:
            dsn: As `tenure_ops`, or as a role that may act as it.
            policies: Deletes what has expired by policy; None = nobody does here.
            retention: Seconds for which operations can be repeated and pending writes wait for their
                checkpoint.
            grace: Seconds for which the rows of a deleted tenant stay.
        """
        self._dsn = dsn
        self._policies = policies
        self._retention = retention
        self._grace = grace
        self._position = _START
        self._namespaces = items_sweeping.EmptyNamespaces()
        self._usage = UsageSweeping()

    async def run(self, stop: asyncio.Event, interval: float) -> None:
        """Sweep every `interval` seconds until `stop` is set; what fails is logged and tried again."""
        while not stop.is_set():
            try:
                await self.run_once(stop)
            except errors.TenureError as error:
                _log.warning("sweeper: %s", error)
            except Exception:
                _log.exception("sweeper: unexpected error")
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), interval)

    async def run_once(self, stop: asyncio.Event | None = None) -> Swept:
        """Sweep once and return what was removed: nothing if another sweeper is at work.

        Raises:
            Unavailable: The database is away.
        """
        swept = Swept()
        with faults.translated():
            async with await AsyncConnection.connect(
                self._dsn, autocommit=True, application_name="tenure sweeper", connect_timeout=5
            ) as connection:
                await connection.execute("SET ROLE tenure_ops")
                await connection.execute("SELECT set_config('lock_timeout', %s, false)", [_LOCK_TIMEOUT])
                cursor = await connection.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK])
                if await cursor.fetchone() == (True,):
                    stop = stop or asyncio.Event()
                    if self._policies is not None:
                        removed = await self._policies.sweep(connection, stop)
                        swept.expired_threads = removed.threads
                        swept.expired_checkpoints = removed.checkpoints
                        swept.expired_items = removed.items
                    await self._free_garbage(connection, swept, stop)
                    await self._delete_operations(connection, swept, stop)
                    await self._delete_orphans(connection, swept, stop)
                    swept.items = await items_sweeping.delete_expired(connection, SLICE, _SLICES, stop)
                    swept.namespaces = await self._namespaces.delete(connection, SLICE, _SLICES, stop)
                    await self._usage.run(connection, SLICE, _SLICES, stop)
                    swept.tenants = await tenant_sweeping.free(connection, self._grace, SLICE, _SLICES, stop)
                else:
                    # Whoever sweeps tells them.
                    telemetry.show_quotas({})
        for kind, rows in vars(swept).items():
            if rows:
                telemetry.swept.add(rows, {"kind": kind})
        return swept

    async def _free_garbage(self, connection: _Connection, swept: Swept, stop: asyncio.Event) -> None:
        cursor = await connection.execute(_GARBAGE, [_SLICES])
        slices = 0
        for tenant, thread in await cursor.fetchall():
            thread_params = {"tenant": tenant, "thread": thread, "limit": SLICE}
            for statement in _FREE:
                removed = SLICE
                while removed == SLICE:
                    if stop.is_set() or slices == _SLICES * len(_FREE):
                        return
                    slices += 1
                    removed = (await connection.execute(statement, thread_params)).rowcount
                    swept.garbage += removed
            await connection.execute(_FREED, thread_params)

    async def _delete_operations(self, connection: _Connection, swept: Swept, stop: asyncio.Event) -> None:
        for _ in range(_SLICES):
            removed = (await connection.execute(_OPERATIONS, [self._retention, SLICE])).rowcount
            swept.operations += removed
            if removed < SLICE or stop.is_set():
                return

    async def _delete_orphans(self, connection: _Connection, swept: Swept, stop: asyncio.Event) -> None:
        """Look at the next pending writes, from where the last run ended; then from the first again."""
        for _ in range(_SLICES):
            if stop.is_set():
                return
            cursor = await connection.execute(_NEXT_WRITES, [self._retention, *self._position, SLICE])
            rows = await cursor.fetchall()
            orphans = dict.fromkeys(tuple(row[:4]) for row in rows if row[6])
            for orphan in orphans:
                cursor = await connection.execute(_DELETE_ORPHANS, [*orphan, self._retention])
                (removed,) = await cursor.fetchone() or (0,)
                swept.orphans += removed
            if len(rows) < SLICE:
                self._position = _START
                return
            self._position = rows[-1][:6]
