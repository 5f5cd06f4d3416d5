"""A tenant with retention, in the words that its tests use: policies, ages, what is hidden, and a sweep."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import AsyncConnection
from tenure_server.domain import TenantId
from tenure_server.retention import Expired, Hold, Items, Pin, Policy, Scope, Threads
from tenure_server.storage.postgres import pool
from tenure_server.storage.postgres.checkpoints import PostgresCheckpoints
from tenure_server.storage.postgres.items import PostgresItems
from tenure_server.storage.postgres.ops_pool import OpsPool
from tenure_server.storage.postgres.retention import PostgresRetention
from tenure_server.storage.postgres.retention_sweeping import PolicySweeping
from tenure_server.storage.postgres.sweeper import Sweeper, Swept

from tests.harness.databases import Database
from tests.storage import item_tenant
from tests.storage.tenant import Tenant

HOUR = 3600.0
DAY = 24 * HOUR
CONNECTIONS = 4

_TABLES = (
    *("thread_head", "checkpoint", "channel_value", "chunk", "pending_write", "head_override"),
    *("item", "item_vector", "retention_expired", "retention_pin", "garbage"),
)


@dataclass
class Retained:
    """A tenant whose store forgets; nothing waits to settle unless a test says so.

    Attributes:
        agent: The tenant as its agents use it.
        items: Its items.
        retention: Its policies.
        database: Where all this is.
        admin: A superuser's session.
    """

    agent: Tenant
    items: item_tenant.Tenant
    retention: PostgresRetention
    database: Database
    admin: AsyncConnection[Any]
    sessions: pool.Database

    @property
    def id(self) -> TenantId:
        """The tenant's id."""
        return self.agent.id

    async def policy(self, prefix: str | Scope = "", **rules: Any) -> Policy:
        """Set a policy for threads, or for what a scope says."""
        scope = Threads(prefix) if isinstance(prefix, str) else prefix
        return await self.retention.set_policy(self.id, Policy(scope, **rules))

    async def pin(self, thread: str, id: str = "", ns: str = "") -> None:
        """Pin a thread or a checkpoint."""
        await self.retention.pin(self.id, Pin(thread, ns, id))

    async def hold(self, scope: Scope | None) -> None:
        """Put a legal hold."""
        await self.retention.hold(self.id, Hold(scope))

    async def preview(self, proposed: Policy | None = None) -> Expired:
        """Return what the preview says in the end."""
        *_, last = [found async for found in self.retention.preview(self.id, proposed)]
        assert last.done
        return last

    async def sweep(self, settle: float = 0.0) -> Swept:
        """Let the sweeper work once."""
        return await self.sweeper(settle).run_once()

    async def agent_session(self) -> AsyncConnection[Any]:
        """Return a session as `tenure_app`, in a transaction of the tenant."""
        session = await AsyncConnection.connect(self.database.app_url)
        await session.execute("SELECT set_config('app.tenant', %s, true)", [str(self.id)])
        return session

    def sweeper(self, settle: float = 0.0) -> Sweeper:
        """Return a sweeper."""
        return Sweeper(self.database.ops_url, PolicySweeping(self.sessions, settle))

    async def age(self, thread: str, seconds: float, *ids: str) -> None:
        """Let a thread, or some of its checkpoints, be older, with what was written for them."""
        params = {"tenant": self.id, "thread": thread, "seconds": seconds, "ids": list(ids)}
        for table in ("checkpoint", "pending_write"):
            await self.execute(
                f"""
                UPDATE tenure.{table} AS c SET created_at = c.created_at - make_interval(secs => %(seconds)s)
                FROM tenure.thread_head AS h
                WHERE h.tenant_id = %(tenant)s AND h.thread_id = %(thread)s
                    AND c.tenant_id = %(tenant)s AND c.thread_key = h.thread_key
                    AND (%(ids)s::text[] = '{{}}' OR c.checkpoint_id = ANY (%(ids)s))
                """,  # type: ignore[arg-type]
                params,
            )
        if not ids:
            await self.execute(
                """
                UPDATE tenure.thread_head SET created_at = created_at - make_interval(secs => %(seconds)s)
                WHERE tenant_id = %(tenant)s AND thread_id = %(thread)s
                """,
                params,
            )

    async def age_policies(self, seconds: float, *, lines: bool = True) -> None:
        """Let policies be set longer ago, and, unless told otherwise, their lines be drawn longer ago."""
        await self.execute(
            """
            UPDATE tenure.retention_policy
            SET updated_at = updated_at - make_interval(secs => %(seconds)s),
                line_since = line_since - make_interval(secs => %(of_lines)s)
            WHERE tenant_id = %(tenant)s
            """,
            {"tenant": self.id, "seconds": seconds, "of_lines": seconds if lines else 0.0},
        )

    async def age_items(self, seconds: float, *keys: str) -> None:
        """Let items be put longer ago."""
        await self.execute(
            "UPDATE tenure.item SET updated_at = updated_at - make_interval(secs => %(seconds)s)"
            " WHERE tenant_id = %(tenant)s AND key = ANY (%(keys)s)",
            {"tenant": self.id, "seconds": seconds, "keys": list(keys)},
        )

    async def execute(self, statement: LiteralString, params: Any = None) -> list[tuple[Any, ...]]:
        """Run a statement as the superuser."""
        cursor = await self.admin.execute(statement, params)
        return await cursor.fetchall() if cursor.description else []

    async def steps(self, thread: str, ns: str = "") -> list[str]:
        """Return what a reader sees of a namespace, the oldest first, in listings and by its id."""
        listed = await self.agent.ids(thread, ns)
        for step in listed:
            assert await self.agent.get(thread, step, ns) is not None
        return listed[::-1]

    async def rows(self) -> dict[str, int]:
        """Count the tenant's rows."""
        counts = {}
        for table in _TABLES:
            ((counts[table],),) = await self.execute(
                f"SELECT count(*) FROM tenure.{table} WHERE tenant_id = %s",  # type: ignore[arg-type]
                [self.id],
            )
        return counts

    async def checkpoints(self) -> set[tuple[str, str, str]]:
        """Return the checkpoints that are stored in threads, hidden or not."""
        return set(
            await self.execute(
                """
                SELECT h.thread_id, c.checkpoint_ns, c.checkpoint_id
                FROM tenure.thread_head AS h
                JOIN tenure.checkpoint AS c USING (tenant_id, thread_key)
                WHERE h.tenant_id = %s
                """,
                [self.id],
            )
        )

    async def used(self) -> tuple[int, int, int]:
        """Return bytes, threads and items as they are counted, which a recount must find as well."""
        ((*counted,),) = await self.execute(
            "SELECT stored_bytes, threads, items FROM tenure.tenant_usage WHERE tenant_id = %s", [self.id]
        )
        ((*there,),) = await self.execute("SELECT * FROM tenure.recount_usage_1(%s)", [self.id])
        assert counted == there
        return counted[0], counted[1], counted[2]


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[Retained]:
    """Give a new tenant of a database."""
    async with AsyncExitStack() as stack:
        sessions = await pool.Database.open(database.app_url, max_size=CONNECTIONS)
        stack.push_async_callback(sessions.close)
        ops = await OpsPool.open(database.ops_url)
        stack.push_async_callback(ops.close)
        admin = await stack.enter_async_context(
            await AsyncConnection.connect(database.admin_url, autocommit=True)
        )
        items = PostgresItems(sessions)
        stack.push_async_callback(items.close)
        tenant = await database.tenants().create_tenant("retention")
        retained = Retained(
            Tenant(PostgresCheckpoints(sessions), tenant),
            item_tenant.Tenant(items, tenant),
            PostgresRetention(ops, sessions, 0.0),
            database,
            admin,
            sessions,
        )
        yield retained
        # The database is shared: the next test's sweeper must not find this one's work.
        for table in ("retention_hold", "retention_policy"):
            await retained.execute(f"DELETE FROM tenure.{table} WHERE tenant_id = %s", [tenant])  # type: ignore[arg-type]


__all__ = ["CONNECTIONS", "DAY", "HOUR", "Items", "Policy", "Retained", "Threads", "opened"]
