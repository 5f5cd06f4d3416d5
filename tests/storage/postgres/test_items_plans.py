"""Items are found by index also under row level security, which admits only leakproof conditions to one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import psycopg
import pytest
from tenure_server.domain import TenantId
from tenure_server.storage.postgres import pool
from tenure_server.storage.postgres.items import PostgresItems

from tests.harness.databases import Database
from tests.storage.item_tenant import INDEX, Tenant, delete, get, put, search

REPEATS = 12
"""From the sixth call on, a function may use a plan that does not know its arguments."""
_FILL = """
INSERT INTO tenure.item (tenant_id, namespace, key, place, value, unembedded, created_at, updated_at)
SELECT %(tenant)s, E'users\\x01\\x01u' || n %% 20, 'k' || n, n, '{"n": 1}', false, now(), now()
FROM generate_series(1, 4000) AS n
"""
_FILL_NAMESPACES = """
INSERT INTO tenure.item_namespace (tenant_id, namespace, position)
SELECT %(tenant)s, E'users\\x01\\x01u' || n, n FROM generate_series(0, 19) AS n
"""
_ROWS = """
SELECT seq_scan, seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relname = 'item'
"""

Action = Callable[[Tenant, int], Awaitable[object]]
ACTIONS: dict[str, tuple[Action, int]] = {
    "get": (lambda tenant, n: tenant.get(f"k{20 * n + 3}", ("users", "u3")), 1),
    "several gets": (
        lambda tenant, n: tenant.read(*(get(f"k{n + m}", ("users", f"u{m}")) for m in range(10))),
        10,
    ),
    "overwrite": (lambda tenant, n: tenant.write(put(f"k{20 * n + 3}", ns=("users", "u3"))), 4),
    "new": (lambda tenant, n: tenant.write(put(f"new{n}", ns=("users", "u3"))), 4),
    "delete": (lambda tenant, n: tenant.write(delete(f"k{20 * n + 3}", ("users", "u3"))), 4),
    "first page": (lambda tenant, n: tenant.found(search("users", "u3", limit=5)), 10),
    "first page of many namespaces": (lambda tenant, n: tenant.found(search("users", limit=5)), 10),
    "filtered page": (lambda tenant, n: tenant.found(search("users", limit=5, filter={"n": 1})), 10),
    "words": (lambda tenant, n: tenant.found(search("users", "u3", text="tea")), 220),
    "meaning": (lambda tenant, n: tenant.found(search("users", "u3", vector=[1, 0]), index=INDEX), 440),
    "namespaces": (lambda tenant, n: tenant.namespaces("users"), 40),
}


@pytest.fixture(params=["analysed", "not analysed"])
async def tenant(database: Database, request: pytest.FixtureRequest) -> AsyncIterator[Tenant]:
    """A big tenant beside another."""
    tenants: list[TenantId] = [await database.tenants().create_tenant(name) for name in ("big", "other")]
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        for tenant in tenants:
            admin.execute(_FILL, {"tenant": tenant})
            admin.execute(_FILL_NAMESPACES, {"tenant": tenant})
        if request.param == "analysed":
            admin.execute("ANALYZE")
    opened = await pool.Database.open(database.app_url, max_size=1)
    store = PostgresItems(opened)
    yield Tenant(store, tenants[0])
    await store.close()
    await opened.close()


@pytest.mark.parametrize(("action", "most"), ACTIONS.values(), ids=ACTIONS)
async def test_only_what_is_asked_for_is_read(
    tenant: Tenant, database: Database, action: Action, most: int
) -> None:
    before = await _rows(tenant, database)
    for number in range(REPEATS):
        await action(tenant, number)
    after = await _rows(tenant, database)
    assert after[0] == before[0], "the table was read from one end to the other"
    assert after[1] - before[1] <= most * REPEATS


async def _rows(tenant: Tenant, database: Database) -> tuple[int, int]:
    assert isinstance(tenant.store, PostgresItems)
    async with tenant.store._database.transaction(tenant.id) as connection:
        await connection.execute("SELECT pg_stat_force_next_flush()")
    with psycopg.connect(database.admin_url) as admin:
        row = admin.execute(_ROWS).fetchone()
    assert row is not None
    return row[0], row[1]
