"""Chunks as rows: each once for a thread, and none that nothing names."""

from __future__ import annotations

import psycopg
import pytest

from tests.harness.databases import Database
from tests.storage.chunked import Chunked, cut, put_edits, read
from tests.storage.tenant import Tenant

pytestmark = pytest.mark.parametrize("backend", ["postgres"], indirect=True)

GROWING = [cut(b"a b c d e f g h"[: 2 * length]) for length in range(1, 9)]


class Rows:
    """Counts a tenant's rows."""

    def __init__(self, admin_url: str, tenant: Tenant) -> None:
        self._admin_url = admin_url
        self._tenant = tenant

    def by_thread(self) -> dict[str, int]:
        """Return the chunks of each thread that has some."""
        query = """
            SELECT h.thread_id, count(*)
            FROM tenure.chunk AS c JOIN tenure.thread_head AS h USING (thread_key)
            WHERE c.tenant_id = %s GROUP BY 1"""
        with psycopg.connect(self._admin_url) as admin:
            rows: list[tuple[str, int]] = admin.execute(query, [self._tenant.id]).fetchall()
        return dict(rows)


@pytest.fixture
def rows(contract_database: Database, tenant: Tenant) -> Rows:
    """The tenant's rows."""
    return Rows(contract_database.admin_url, tenant)


async def _grow(tenant: Tenant, thread: str) -> None:
    """Store a channel that grows by a chunk at each step, as versions 1 to 8."""
    for number, value in enumerate(GROWING, start=1):
        base = GROWING[number - 2] if number > 1 else None
        await tenant.write(
            put_edits(
                thread,
                str(number),
                str(number - 1) if base else None,
                edits={"a": value.edit(base, str(number - 1))},
                versions={"a": str(number)},
                metadata={"run_id": f"run {number}"},
            )
        )


async def test_what_steps_share_is_stored_once(tenant: Tenant, rows: Rows) -> None:
    await _grow(tenant, "t")
    assert rows.by_thread() == {"t": 8}


async def test_a_copy_has_its_own_rows_and_keeps_them(tenant: Tenant, rows: Rows) -> None:
    await _grow(tenant, "t")
    await tenant.copy("t", "copy")
    assert rows.by_thread() == {"t": 8, "copy": 8}
    await tenant.prune("t")
    await tenant.delete("t")
    assert rows.by_thread() == {"copy": 8}
    assert [await read(tenant, "copy", str(number)) for number in range(1, 9)] == [
        {"a": value.data} for value in GROWING
    ]


async def test_pruning_frees_exactly_what_is_named_no_more(tenant: Tenant, rows: Rows) -> None:
    await _grow(tenant, "t")
    value = Chunked([*GROWING[2].parts, b"x", b"x"])
    await tenant.write(put_edits("t", "9", edits={"a": value.edit(GROWING[7], "8")}, versions={"a": "9"}))
    assert rows.by_thread() == {"t": 9}
    await tenant.prune("t")
    assert rows.by_thread() == {"t": 4}
    assert await read(tenant, "t") == {"a": value.data}


async def test_runs_free_exactly_what_is_named_no_more(tenant: Tenant, rows: Rows) -> None:
    await _grow(tenant, "t")
    await tenant.delete_for_runs("run 7", "run 1")
    assert rows.by_thread() == {"t": 8}
    await tenant.delete_for_runs("run 8")
    assert rows.by_thread() == {"t": 6}
    await tenant.delete_for_runs(*(f"run {number}" for number in range(1, 9)))
    assert rows.by_thread() == {}


async def test_a_chunk_that_is_stored_is_never_replaced(
    tenant: Tenant, rows: Rows, contract_database: Database
) -> None:
    await _grow(tenant, "t")
    query = (
        "SELECT array_agg(ctid::text || xmin::text ORDER BY chunk_id) FROM tenure.chunk WHERE tenant_id = %s"
    )
    with psycopg.connect(contract_database.admin_url, autocommit=True) as admin:
        before = admin.execute(query, [tenant.id]).fetchone()
        await tenant.write(put_edits("t", "9", edits={"a": GROWING[7].whole()}, versions={"a": "9"}))
        assert admin.execute(query, [tenant.id]).fetchone() == before
