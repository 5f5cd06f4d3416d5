"""Each of the two walls between tenants holds alone; with both down the same tests see the leak."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from tenure_server.domain import OPERATORS, Role, StoredKey, TenantId
from tenure_server.keys import ApiKey
from tenure_server.storage.postgres import migrate
from tenure_server.storage.postgres.checkpoints import PostgresCheckpoints
from tenure_server.storage.postgres.pool import Database
from tenure_server.storage.postgres.tenants import PostgresKeys

from tests.harness.databases import Database as DatabaseNames
from tests.harness.running import run
from tests.storage.chunked import read
from tests.storage.postgres.walls import PREDICATE, cut_predicates, drop_policies
from tests.storage.tenant import Tenant
from tests.storage.test_contract_isolation import CHUNKED, TOLD, USES, Use, fill

MIGRATIONS = Path(migrate.__file__).with_name("migrations")


def no_predicates(database: DatabaseNames) -> None:
    assert cut_predicates(database) == _written() > 80


def _written() -> int:
    """Count the predicates in the newest definition of every function."""
    functions: dict[str, int] = {}
    for path in sorted(MIGRATIONS.glob("*.sql")):
        _, *definitions = re.split(r"^CREATE (?:OR REPLACE )?FUNCTION ", path.read_text(), flags=re.MULTILINE)
        for definition in definitions:
            functions[definition.partition("(")[0]] = len(PREDICATE.findall(definition))
    return sum(functions.values())


def no_policies(database: DatabaseNames) -> None:
    drop_policies(database)


def neither(database: DatabaseNames) -> None:
    cut_predicates(database)
    drop_policies(database)


@pytest.fixture(params=[no_predicates, no_policies], ids=["no predicates", "no policies"])
def one_wall(request: pytest.FixtureRequest, database: DatabaseNames) -> DatabaseNames:
    take_down: Callable[[DatabaseNames], None] = request.param
    take_down(database)
    return database


@pytest.fixture
async def pair(one_wall: DatabaseNames) -> AsyncIterator[tuple[Tenant, Tenant]]:
    """Two tenants of a database with one wall."""
    async with opened(one_wall) as database:
        yield await two_tenants(one_wall, database)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_a_stranger_sees_and_changes_nothing(pair: tuple[Tenant, Tenant], use: Use) -> None:
    tenant, stranger = pair
    absent = await use(stranger)
    await stranger.delete("t")
    await fill(tenant)
    before = await tenant.stored(), await tenant.threads(), await tenant.history("t", "a")
    assert await use(stranger) == absent
    assert (await tenant.stored(), await tenant.threads(), await tenant.history("t", "a")) == before


async def test_heads_of_one_tenant_are_of_no_use_to_another(pair: tuple[Tenant, Tenant]) -> None:
    tenant, stranger = pair
    await fill(tenant)
    stolen = await tenant.head("t", "1")
    assert stolen is not None
    assert await stranger.store.bodies(stranger.id, [replace(stolen, inline=())]) == [None]
    assert await stranger.store.chunks(stranger.id, [(stolen, list(CHUNKED.chunks))]) == [None]


async def test_a_key_is_found_only_by_its_own_tenant(one_wall: DatabaseNames) -> None:
    async with opened(one_wall) as database:
        tenant, stranger = await two_tenants(one_wall, database)
        key = ApiKey.parse(await one_wall.tenants().create_key(tenant.id, frozenset()))
        assert key is not None
        keys = PostgresKeys(database)
        assert isinstance(await keys.find_key(tenant.id, key.key_id), StoredKey)
        assert await keys.find_key(stranger.id, key.key_id) is None


async def test_the_use_of_a_key_is_noted_only_by_its_own_tenant(one_wall: DatabaseNames) -> None:
    async with opened(one_wall) as database:
        tenant, stranger = await two_tenants(one_wall, database)
        key = ApiKey.parse(await one_wall.tenants().create_key(tenant.id, frozenset()))
        assert key is not None
        keys = PostgresKeys(database)
        used = "SELECT last_used_at IS NOT NULL FROM tenure.api_key WHERE key_id = %s"
        with psycopg.connect(one_wall.admin_url, autocommit=True) as admin:
            await keys.mark_used(stranger.id, key.key_id)
            assert admin.execute(used, [key.key_id]).fetchone() == (False,)
            await keys.mark_used(tenant.id, key.key_id)
            assert admin.execute(used, [key.key_id]).fetchone() == (True,)


async def test_operators_are_not_found_where_payloads_are_served(one_wall: DatabaseNames) -> None:
    key = ApiKey.parse(await one_wall.tenants().create_key(OPERATORS, Role.OPERATOR.scopes))
    assert key is not None
    async with opened(one_wall) as database:
        assert await PostgresKeys(database).find_key(OPERATORS, key.key_id) is None


def test_policies_alone_hide_operators(database: DatabaseNames) -> None:
    cut_predicates(database)
    key = run(database.tenants().create_key(OPERATORS, Role.OPERATOR.scopes))
    parsed = ApiKey.parse(key)
    assert parsed is not None
    find = "SELECT count(*) FROM tenure.find_key_3(%s, %s)"
    for url, found in ((database.app_url, 0), (database.admin_url, 1)):
        with psycopg.connect(url) as connection:
            assert connection.execute(find, [OPERATORS, parsed.key_id]).fetchone() == (found,)


async def test_with_both_walls_down_the_leak_is_seen(database: DatabaseNames) -> None:
    neither(database)
    async with opened(database) as connected:
        tenant, stranger = await two_tenants(database, connected)
        await fill(tenant)
        assert await stranger.stored() != []
        assert await read(stranger, "t", "2") == {"large": CHUNKED.data}
        assert await read(stranger, "t", "2", ns="told") == {"large": TOLD.data}
        assert await stranger.threads() != []


def test_raw_sql_without_a_condition_sees_only_the_tenant_that_is_set(database: DatabaseNames) -> None:
    with psycopg.connect(database.admin_url) as admin:
        mine, other = uuid4(), uuid4()
        for tenant in (mine, other):
            admin.execute("INSERT INTO tenure.thread_head (tenant_id, thread_id) VALUES (%s, 't')", (tenant,))
    with psycopg.connect(database.app_url) as app:
        count = "SELECT array_agg(tenant_id) FROM tenure.thread_head"
        assert app.execute(count).fetchone() == (None,)
        app.execute("SELECT set_config('app.tenant', %s, true)", (str(mine),))
        assert app.execute(count).fetchone() == ([mine],)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute("INSERT INTO tenure.thread_head (tenant_id, thread_id) VALUES (%s, 'u')", (other,))
        app.rollback()
        assert app.execute(count).fetchone() == (None,), "the setting ends with its transaction"


@asynccontextmanager
async def opened(names: DatabaseNames) -> AsyncIterator[Database]:
    """Open a database for a block."""
    database = await Database.open(names.app_url, max_size=3)
    try:
        yield database
    finally:
        await database.close()


async def two_tenants(names: DatabaseNames, database: Database) -> tuple[Tenant, Tenant]:
    store = PostgresCheckpoints(database, inline_bytes=3)
    ids: list[TenantId] = [await names.tenants().create_tenant(name) for name in ("one", "other")]
    return Tenant(store, ids[0]), Tenant(store, ids[1])
