"""Fixtures of the storage contract: every test runs on each storage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.harness.databases import Database, Postgres
from tests.storage import item_tenant
from tests.storage.backends import BACKENDS, Backend, open_backend
from tests.storage.tenant import Tenant


@pytest.fixture(scope="session")
def contract_database(postgres: Postgres, migrated: str) -> Iterator[Database]:
    """A database for all tests of the contract; each takes new tenants."""
    name = postgres.create_database(template=migrated)
    yield postgres.database(name)
    postgres.drop_database(name)


@pytest.fixture(params=BACKENDS)
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """A storage."""
    async with open_backend(request.param, request) as opened:
        yield opened


@pytest.fixture
async def tenant(backend: Backend) -> Tenant:
    """A new tenant of the storage."""
    return Tenant(backend.store, await backend.new_tenant())


@pytest.fixture
async def stranger(backend: Backend) -> Tenant:
    """Another new tenant of the same storage."""
    return Tenant(backend.store, await backend.new_tenant())


@pytest.fixture(params=item_tenant.STORES)
async def item_tenants(request: pytest.FixtureRequest) -> AsyncIterator[list[item_tenant.Tenant]]:
    """Two new tenants of a storage of items."""
    database = None if request.param == "memory" else request.getfixturevalue("contract_database")
    async with item_tenant.two_tenants(request.param, database) as tenants:
        yield tenants
