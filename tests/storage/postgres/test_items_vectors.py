"""Search by meaning finds the same with an index, without one, and without pgvector."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import LiteralString

import psycopg
import pytest
from tenure_server.items import Index, Item
from tenure_server.storage.postgres.migrate import migrate

from tests.harness.databases import Database
from tests.storage.item_tenant import Tenant, opened, put, search
from tests.storage.postgres.walls import cut_predicates, drop_policies

DIMS = 384
INDEX = Index(DIMS, "random")
MANY = 240


@pytest.fixture
async def tenant(database: Database) -> AsyncIterator[Tenant]:
    async with opened(database) as (tenant,):
        yield tenant


def _vectors(count: int, seed: int = 1) -> list[list[float]]:
    numbers = random.Random(seed)
    return [[numbers.gauss(0, 1) for _ in range(DIMS)] for _ in range(count)]


def _cosine(one: list[float], other: list[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / (math.hypot(*one) * math.hypot(*other))


def _ask_the_index(database: Database, above: int) -> None:
    """Let searches use an index from so many vectors on."""
    with psycopg.connect(database.admin_url) as admin:
        row = admin.execute("SELECT pg_get_functiondef('tenure.nearest_items_2'::regproc)").fetchone()
        assert row is not None
        few = row[0].replace("OFFSET 2000", f"OFFSET {above}")
        assert few != row[0]
        admin.execute(few)


def _uses(database: Database) -> int:
    """Return how often the index was used."""
    with psycopg.connect(database.admin_url) as admin:
        row = admin.execute(
            "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = %s", [f"item_vector_hnsw_{DIMS}"]
        ).fetchone()
    assert row is not None
    return int(row[0])


async def _fill(tenant: Tenant) -> list[list[float]]:
    vectors = _vectors(MANY)
    await tenant.write(
        *(
            put(f"{number}", {"n": number % 40}, ("ns", f"{number % 3}"), vectors=[vector])
            for number, vector in enumerate(vectors)
        ),
        put("without", ns=("ns", "0")),
        index=INDEX,
    )
    return vectors


def _told(items: list[Item]) -> list[tuple[str, float | None]]:
    return [(item.key, None if item.score is None else round(item.score, 4)) for item in items]


async def test_an_index_finds_what_a_comparison_of_all_finds(tenant: Tenant, database: Database) -> None:
    if not _has_index(database):
        pytest.skip("this Postgres has no pgvector 0.8")
    vectors = await _fill(tenant)
    query = _vectors(1, seed=2)[0]
    searches = [
        search(vector=query, limit=10),
        search(vector=query, limit=5, offset=7),
        search("ns", "1", vector=query, limit=10),
        search(vector=query, limit=10, filter={"n": 7}),
        search(vector=query, limit=1000),
    ]
    exact = [_told(await tenant.found(one, index=INDEX)) for one in searches]
    assert [len(found) for found in exact] == [10, 5, 10, 6, MANY + 1]
    nearest = sorted(range(MANY), key=lambda number: -_cosine(query, vectors[number]))
    assert [key for key, _ in exact[0]] == [f"{number}" for number in nearest[:10]]

    _ask_the_index(database, above=20)
    assert [_told(await tenant.found(one, index=INDEX)) for one in searches] == exact


async def test_the_index_is_used_where_there_are_many_vectors(tenant: Tenant, database: Database) -> None:
    if not _has_index(database):
        pytest.skip("this Postgres has no pgvector 0.8")
    await _fill(tenant)
    _ask_the_index(database, above=20)
    with psycopg.connect(database.app_url) as app:
        before = _uses(database)
        app.execute("SELECT set_config('app.tenant', %s, false)", [str(tenant.id)])
        app.execute(
            "SELECT FROM tenure.nearest_items_2(%s, '{ns}', '{nt}', NULL, NULL, NULL, %s::real[], 5)",
            [tenant.id, _vectors(1)[0]],
        )
        app.execute("SELECT pg_stat_force_next_flush()")
        app.commit()
    assert _uses(database) > before


@pytest.mark.parametrize(
    ("walls", "leaks"),
    [((cut_predicates,), False), ((drop_policies,), False), ((cut_predicates, drop_policies), True)],
    ids=["no predicates", "no policies", "neither"],
)
async def test_the_index_shows_a_stranger_nothing_while_a_wall_stands(
    database: Database, walls: Sequence[Callable[[Database], object]], leaks: bool
) -> None:
    if not _has_index(database):
        pytest.skip("this Postgres has no pgvector 0.8")
    for take_down in walls:
        take_down(database)
    async with opened(database, tenants=2) as (tenant, stranger):
        await _fill(tenant)
        with psycopg.connect(database.app_url) as app:
            app.execute("SELECT set_config('app.tenant', %s, false)", [str(stranger.id)])
            app.execute(
                "SELECT set_config('enable_sort', 'off', false),"
                " set_config('hnsw.iterative_scan', 'strict_order', false)"
            )
            row = app.execute(
                f"SELECT seen, keys FROM tenure.nearest_by_index_{DIMS}_1("
                "%s, '{ns}', '{nt}', NULL, NULL, NULL, %s::real[], 5, true)",
                [stranger.id, _vectors(1)[0]],
            ).fetchone()
    assert row is not None
    assert (row[0], len(row[1] or ())) == ((5, 5) if leaks else (0, 0))


@pytest.mark.parametrize(
    "expire",
    [
        ["UPDATE tenure.item SET expires_at = now() - interval '1 second' WHERE key = ANY (%(keys)s)"],
        [
            "UPDATE tenure.item SET updated_at = now() - interval '2 days' WHERE key = ANY (%(keys)s)",
            "INSERT INTO tenure.retention_policy (tenant_id, kind, prefix, item_ttl)"
            " VALUES (%(tenant)s, 'items', '', interval '1 day')",
        ],
    ],
    ids=["by its own time", "by policy"],
)
async def test_the_index_finds_nothing_that_has_expired(
    tenant: Tenant, database: Database, expire: list[LiteralString]
) -> None:
    if not _has_index(database):
        pytest.skip("this Postgres has no pgvector 0.8")
    vectors = await _fill(tenant)
    query = _vectors(1, seed=2)[0]
    nearest = sorted(range(MANY), key=lambda number: -_cosine(query, vectors[number]))
    expired = [f"{number}" for number in nearest[:30:2]]
    with psycopg.connect(database.admin_url) as admin:
        for statement in expire:
            admin.execute(statement, {"tenant": tenant.id, "keys": expired})
    _ask_the_index(database, above=20)

    found = await tenant.found(search(vector=query, limit=10), index=INDEX)

    assert [item.key for item in found] == [f"{number}" for number in nearest[1:20:2]]


async def test_without_pgvector_the_answers_are_the_same(tenant: Tenant, database: Database) -> None:
    await _fill(tenant)
    query = _vectors(1, seed=3)[0]
    with_it = _told(await tenant.found(search(vector=query, limit=20), index=INDEX))
    with psycopg.connect(database.admin_url) as admin:
        admin.execute("DROP EXTENSION IF EXISTS vector CASCADE")
    assert _told(await tenant.found(search(vector=query, limit=20), index=INDEX)) == with_it


async def test_a_later_migrate_makes_the_indexes(tenant: Tenant, database: Database) -> None:
    if not _has_index(database):
        pytest.skip("this Postgres has no pgvector 0.8")
    await _fill(tenant)
    with psycopg.connect(database.admin_url) as admin:
        admin.execute("DROP EXTENSION vector CASCADE")
    assert not _has_index(database)
    assert await migrate(database.admin_url) == []
    assert _has_index(database)


async def test_without_what_asks_the_index_it_is_done_without(tenant: Tenant, database: Database) -> None:
    if not _has_index(database):
        pytest.skip("this Postgres has no pgvector 0.8")
    vectors = await _fill(tenant)
    _ask_the_index(database, above=20)
    asks = "SELECT to_regproc(%s) IS NOT NULL"
    name = f"tenure.nearest_by_index_{DIMS}_1"
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute(f"DROP FUNCTION {name}")
        (nearest,) = await tenant.found(search(vector=vectors[5], limit=1), index=INDEX)
        assert nearest.key == "5"
        assert await migrate(database.admin_url) == []
        assert admin.execute(asks, [name]).fetchone() == (True,)


async def test_an_extension_in_another_schema_serves(database: Database) -> None:
    if not _has_index(database):
        pytest.skip("this Postgres has no pgvector 0.8")
    with psycopg.connect(database.admin_url) as admin:
        admin.execute('CREATE SCHEMA "Other Place"')
        admin.execute('GRANT USAGE ON SCHEMA "Other Place" TO PUBLIC')
        admin.execute('ALTER EXTENSION vector SET SCHEMA "Other Place"')
    _ask_the_index(database, above=20)
    async with opened(database) as (tenant,):
        vectors = await _fill(tenant)
        (nearest,) = await tenant.found(search(vector=vectors[5], limit=1), index=INDEX)
    assert nearest.key == "5"


async def test_an_extension_that_we_may_not_use_is_done_without(database: Database) -> None:
    if not _has_index(database):
        pytest.skip("this Postgres has no pgvector 0.8")
    with psycopg.connect(database.admin_url) as admin:
        admin.execute("CREATE SCHEMA closed")
        admin.execute("DROP EXTENSION vector CASCADE")
        admin.execute("CREATE EXTENSION vector SCHEMA closed")
    assert await migrate(database.admin_url) == []
    async with opened(database) as (tenant,):
        vectors = await _fill(tenant)
        (nearest,) = await tenant.found(search(vector=vectors[5], limit=1), index=INDEX)
    assert nearest.key == "5"


def _has_index(database: Database) -> bool:
    with psycopg.connect(database.admin_url) as admin:
        row = admin.execute(
            "SELECT to_regclass(%s) IS NOT NULL", [f"tenure.item_vector_hnsw_{DIMS}"]
        ).fetchone()
    return row == (True,)
