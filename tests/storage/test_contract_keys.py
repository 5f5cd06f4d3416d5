"""The storage contract of tenants and API keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from tenure_server import errors
from tenure_server.domain import TENANT_SCOPES, Scope, TenantId
from tenure_server.keys import ApiKey
from tenure_server.rules import parse
from tenure_server.storage.memory import MemoryTenants
from tenure_server.storage.ports import KeyStore, TenantAdmin

READ_WRITE = frozenset({Scope.READ, Scope.WRITE})


@dataclass(frozen=True)
class Keys:
    """What serves keys and what makes them."""

    store: KeyStore
    admin: TenantAdmin


@pytest.fixture(params=["memory", "postgres"])
async def keys(request: pytest.FixtureRequest) -> AsyncIterator[Keys]:
    """Keys of a storage."""
    if request.param == "memory":
        memory = MemoryTenants()
        yield Keys(memory, memory)
        return
    from tenure_server.storage.postgres.pool import Database
    from tenure_server.storage.postgres.tenants import PostgresKeys

    shared = request.getfixturevalue("contract_database")
    database = await Database.open(shared.app_url, max_size=2, application_name="tests")
    yield Keys(PostgresKeys(database), shared.tenants())
    await database.close()


async def test_a_new_key_is_found_by_tenant_and_id(keys: Keys) -> None:
    tenant = await keys.admin.create_tenant("acme")
    text = await keys.admin.create_key(tenant, READ_WRITE)
    key = _parse(text)
    assert key.tenant == tenant
    stored = await keys.store.find_key(tenant, key.key_id)
    assert stored is not None
    assert (stored.tenant, stored.key_id, stored.scopes) == (tenant, key.key_id, READ_WRITE)
    assert (stored.expires_at, stored.revoked_at) == (None, None)
    assert key.matches(stored.digest)
    assert key.secret.encode() not in stored.digest


async def test_tenants_of_one_name_are_different_tenants(keys: Keys) -> None:
    assert await keys.admin.create_tenant("acme") != await keys.admin.create_tenant("acme")


async def test_a_key_is_not_found_under_another_tenant(keys: Keys) -> None:
    tenant, other = await keys.admin.create_tenant("acme"), await keys.admin.create_tenant("other")
    key = _parse(await keys.admin.create_key(tenant, READ_WRITE))
    assert await keys.store.find_key(other, key.key_id) is None
    assert await keys.store.find_key(TenantId(uuid4()), key.key_id) is None
    assert await keys.store.find_key(tenant, key.key_id.swapcase()) is None
    assert await keys.store.find_key(tenant, "") is None
    assert await keys.store.find_key(tenant, "\U0001f511' or true --" * 10) is None


@pytest.mark.parametrize("scopes", [[], [Scope.READ], [Scope.ADMIN], sorted(TENANT_SCOPES, key=str)])
async def test_a_key_has_the_scopes_it_was_made_with(keys: Keys, scopes: list[Scope]) -> None:
    tenant = await keys.admin.create_tenant("acme")
    key = _parse(await keys.admin.create_key(tenant, frozenset(scopes)))
    stored = await keys.store.find_key(tenant, key.key_id)
    assert stored is not None
    assert stored.scopes == frozenset(scopes)


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["threads:a-:rw"],
        ["namespaces:a%2Fb/c:r"],
        ["threads:*:r", "threads:{a,\"b'}:rw", "namespaces:*:rw"],
    ],
)
async def test_a_key_has_the_rules_it_was_made_with(keys: Keys, texts: list[str]) -> None:
    tenant = await keys.admin.create_tenant("acme")
    key = _parse(await keys.admin.create_key(tenant, READ_WRITE, rules=parse(texts)))
    stored = await keys.store.find_key(tenant, key.key_id)
    assert stored is not None
    assert stored.rules == parse(texts)


async def test_a_key_that_expires_says_when(keys: Keys) -> None:
    tenant = await keys.admin.create_tenant("acme")
    before = datetime.now(UTC)
    key = _parse(await keys.admin.create_key(tenant, READ_WRITE, expires_in=3600))
    stored = await keys.store.find_key(tenant, key.key_id)
    assert stored is not None
    assert stored.expires_at is not None
    assert abs(stored.expires_at - before - timedelta(hours=1)) < timedelta(minutes=1)


async def test_an_expired_key_is_found_too(keys: Keys) -> None:
    tenant = await keys.admin.create_tenant("acme")
    key = _parse(await keys.admin.create_key(tenant, READ_WRITE, expires_in=0.0))
    stored = await keys.store.find_key(tenant, key.key_id)
    assert stored is not None
    assert stored.expires_at is not None


async def test_a_revoked_key_is_found_with_its_revocation(keys: Keys) -> None:
    tenant, other = await keys.admin.create_tenant("acme"), await keys.admin.create_tenant("other")
    key, kept = [_parse(await keys.admin.create_key(tenant, READ_WRITE)) for _ in range(2)]
    assert await keys.admin.revoke_key(other, key.key_id) is False
    assert await keys.admin.revoke_key(tenant, "absent") is False
    assert await keys.admin.revoke_key(tenant, key.key_id) is True
    revoked = await keys.store.find_key(tenant, key.key_id)
    untouched = await keys.store.find_key(tenant, kept.key_id)
    assert revoked is not None
    assert untouched is not None
    assert revoked.revoked_at is not None
    assert untouched.revoked_at is None


async def test_an_unknown_tenant_gets_no_key(keys: Keys) -> None:
    with pytest.raises(errors.InvalidField) as caught:
        await keys.admin.create_key(TenantId(uuid4()), READ_WRITE)
    assert caught.value.field == "tenant"


def _parse(text: str) -> ApiKey:
    key = ApiKey.parse(text)
    assert key is not None
    return key
