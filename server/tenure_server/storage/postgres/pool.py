"""`Database`: the only way to a connection.

One call is one round trip on a connection of its own: the SQL functions set the tenant themselves, for their
transaction only. A connection is never shared by calls in flight.
"""

from __future__ import annotations

import asyncio
import logging
import select
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.errors import DuplicatePreparedStatement, InvalidSqlStatementName
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from tenure_server import errors, telemetry
from tenure_server.domain import TenantId
from tenure_server.errors import ConfigError
from tenure_server.storage.postgres import faults, fitness
from tenure_server.storage.postgres.arrays import adapters_map
from tenure_server.storage.postgres.migrate import SCHEMA_VERSION

T = TypeVar("T")

_log = logging.getLogger("tenure")

_CONNECT_TIMEOUT = 5
_WAIT_TIMEOUT = 3.0
"""Longest wait for a connection; with more load than that, refusing is better."""
_CALL_TIMEOUT = 75.0
"""Bounds a call whose caller set no time, or left; above the longest time a caller may ask for."""
_GRACE = 1.0
"""A lock time-out in the database fires first and is a certain answer; ours comes after and is not."""
_IDLE_CHECK = 30.0
_MAX_WAITING = 1000
_NEVER_BY_ITSELF = 1 << 30


class _Connection(AsyncConnection[TupleRow]):
    """A pooled connection that knows when it was last used."""

    used_at = 0.0


class Database:
    """A pool of connections as `tenure_app`."""

    def __init__(self, pool: AsyncConnectionPool[_Connection]) -> None:
        self._pool = pool
        self._calls: set[asyncio.Task[Any]] = set()
        self._prepares = True

    @classmethod
    async def open(
        cls,
        dsn: str,
        *,
        max_size: int = 16,
        application_name: str = "tenure",
        max_waiting: int = _MAX_WAITING,
    ) -> Database:
        """Open the pool. An unreachable database is no error: `ready` tells when it answers.

        Args:
            dsn: Connects as `tenure_app`.
            max_size: Connections at most; one is kept open.
            application_name: What the database shows of us.
            max_waiting: Calls that may wait for a connection; further ones are refused at once.

        Raises:
            ConfigError: The role or the version of the database is not fit.
        """
        kwargs: dict[str, Any] = {
            "autocommit": True,
            # Each statement says for itself whether it is prepared; None would forbid it.
            "prepare_threshold": _NEVER_BY_ITSELF,
            "application_name": application_name,
            "connect_timeout": _CONNECT_TIMEOUT,
            "context": adapters_map(),
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        }
        try:
            async with await _Connection.connect(dsn, **kwargs) as connection:
                problem = await fitness.problem(connection)
                if problem is not None:
                    raise ConfigError([f"TENURE_DATABASE_URL: {problem}"])
                if (advice := await fitness.advice(connection)) is not None:
                    _log.warning(advice)
        except psycopg.OperationalError:
            pass
        except psycopg.ProgrammingError as error:
            raise ConfigError(
                [f"TENURE_DATABASE_URL is not a Postgres URL ({type(error).__name__})"]
            ) from None
        pool = AsyncConnectionPool(
            dsn,
            connection_class=_Connection,
            kwargs=kwargs,
            min_size=1,
            max_size=max_size,
            open=False,
            name="tenure",
            timeout=_WAIT_TIMEOUT,
            max_waiting=max_waiting,
            max_lifetime=3600.0,
            max_idle=600.0,
            configure=_configure,
            check=_check,
        )
        await pool.open(wait=False)
        return cls(pool)

    async def close(self) -> None:
        """Let calls in flight end, then close all connections."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=_GRACE)
        await self._pool.close(timeout=_GRACE)

    async def ready(self) -> None:
        """Return if calls can be served.

        Raises:
            Unavailable: They cannot; says what to do.
        """
        with faults.translated():
            rows = await self._bounded(self._execute(_VERSION, ()), None)
        version = rows[0][0]
        if version is None or version < SCHEMA_VERSION:
            raise errors.Unavailable(faults.OUTDATED)

    async def call(
        self,
        tenant: TenantId,
        statement: LiteralString,
        params: Sequence[Any],
        *,
        operation: str,
        deadline: float | None = None,
        writes: bool = False,
    ) -> list[TupleRow]:
        """Run one statement in a transaction of its own, in one round trip.

        A caller that is cancelled does not wait for the connection: it is cleaned up, or closed, behind its
        back. A statement that writes runs on to its end then.

        Args:
            tenant: For the span; the statement names it as a parameter, too.
            statement: Calls one of the SQL functions.
            params: Its parameters.
            operation: Name of the span.
            deadline: `time.monotonic()` until which the caller waits.
            writes: Whether it changes something.

        Raises:
            DeadlineExceeded: The time ran out, and the statement has not been applied.
            Unavailable: The database is away. What writes may have been applied, as after every lost reply.
            TenureError: See `faults`.
        """
        attributes = {telemetry.STATEMENT: operation, telemetry.TENANT: telemetry.tenant_hash(tenant)}
        with telemetry.span(telemetry.SQL, attributes=attributes) as span, faults.translated():
            rows = await self._bounded(self._execute(statement, params, deadline), deadline, finish=writes)
            span.set_attribute(telemetry.ROWS, len(rows))
            return rows

    @asynccontextmanager
    async def transaction(
        self, tenant: TenantId, *, deadline: float | None = None, snapshot: bool = False
    ) -> AsyncIterator[AsyncConnection[TupleRow]]:
        """Run a block in a transaction of a tenant, on a connection of its own.

        Cancelled while it commits, it waits for the outcome first.

        Args:
            tenant: The tenant.
            deadline: `time.monotonic()` until which a connection is waited for.
            snapshot: Whether it only reads, all statements the same moment.
        """
        with faults.translated():
            async with self._connection(deadline) as connection:
                await connection.execute(_BEGIN_SNAPSHOT if snapshot else "BEGIN")
                try:
                    await connection.execute("SELECT set_config('app.tenant', %s, true)", [str(tenant)])
                    yield connection
                except BaseException:
                    await connection.execute("ROLLBACK")
                    raise
                commit = asyncio.ensure_future(connection.execute("COMMIT"))
                try:
                    await asyncio.shield(commit)
                except asyncio.CancelledError:
                    await asyncio.wait({commit}, timeout=_WAIT_TIMEOUT)
                    raise

    async def _execute(
        self, statement: LiteralString, params: Sequence[Any], deadline: float | None = None
    ) -> list[TupleRow]:
        async with self._connection(deadline) as connection:
            cursor = connection.cursor(binary=True)
            try:
                await cursor.execute(statement, params, prepare=self._prepares)
            except (InvalidSqlStatementName, DuplicatePreparedStatement):
                # A pooler that does not follow prepared statements gave us another backend. Nothing was run.
                self._prepares = False
                _log.warning("a pooler between here and Postgres loses prepared statements: doing without")
                await cursor.execute(statement, params, prepare=False)
            return await cursor.fetchall()

    @asynccontextmanager
    async def _connection(self, deadline: float | None) -> AsyncIterator[_Connection]:
        left = _WAIT_TIMEOUT if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise errors.DeadlineExceeded
        try:
            connection = await self._pool.getconn(min(left, _WAIT_TIMEOUT))
        except TooManyRequests:
            raise errors.Overloaded("calls to the database") from None
        except PoolTimeout:
            if left < _WAIT_TIMEOUT:
                raise errors.DeadlineExceeded from None
            raise errors.Unavailable from None
        try:
            yield connection
        finally:
            connection.used_at = time.monotonic()
            await self._pool.putconn(connection)

    async def _bounded(
        self, work: Coroutine[Any, Any, T], deadline: float | None, *, finish: bool = False
    ) -> T:
        """Await work in a task of its own, so that nothing that hangs keeps the caller beyond its time."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        self._calls.add(task)
        # `asyncio.wait` does the same for sets of tasks, in twice the time.
        over: asyncio.Future[None] = loop.create_future()
        task.add_done_callback(partial(self._called, over))
        left = _CALL_TIMEOUT if deadline is None else deadline - time.monotonic() + _GRACE
        timer = loop.call_later(left, _end, over)
        try:
            await over
        except asyncio.CancelledError:
            if not finish:
                task.cancel()
            raise
        finally:
            timer.cancel()
        if not task.done():
            task.cancel()
            raise errors.Unavailable("the database does not answer; retry")
        return task.result()

    def _called(self, over: asyncio.Future[None], task: asyncio.Task[Any]) -> None:
        _end(over)
        self._calls.discard(task)
        if not task.cancelled():
            task.exception()


def _end(wait: asyncio.Future[None]) -> None:
    if not wait.done():
        wait.set_result(None)


_BEGIN_SNAPSHOT: LiteralString = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_VERSION: LiteralString = "SELECT max(version) FROM tenure.schema_migration"


async def _configure(connection: _Connection) -> None:
    problem = await fitness.problem(connection)
    if problem is not None:
        raise psycopg.OperationalError(problem)
    connection.used_at = time.monotonic()


async def _check(connection: _Connection) -> None:
    """Look whether an idle connection still lives, without a round trip where it was used just now.

    A server that went away has closed the socket, which then has something to read.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0) or time.monotonic() - connection.used_at > _IDLE_CHECK:
        await connection.execute("")
