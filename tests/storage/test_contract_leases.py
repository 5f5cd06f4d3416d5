"""The storage contract of leases, on each storage."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

import pytest
from tenure_server import errors
from tenure_server.domain import Mutation, TenantId
from tenure_server.storage.memory import MemoryCheckpoints
from tenure_server.storage.memory_leases import MemoryLeases
from tenure_server.storage.ports import CheckpointStore, LeaseStore

from tests.storage.tenant import Write, operation, put, put_writes

THREAD = "t"


@dataclasses.dataclass(frozen=True)
class Leased:
    """A tenant's threads, and leases on them."""

    tenant: TenantId
    checkpoints: CheckpointStore
    leases: LeaseStore

    async def acquire(self, thread: str = THREAD, ttl_ms: int = 60_000, id: bytes | None = None) -> int:
        return await self.leases.acquire(self.tenant, operation(id=id), thread, "me", ttl_ms)

    async def write(self, *mutations: Mutation) -> list[str]:
        """Return the reason of each refusal, "" for what was stored."""
        outcomes = await self.checkpoints.write(self.tenant, mutations)
        return ["" if outcome is None else outcome.reason for outcome in outcomes]


@pytest.fixture(params=["memory", "postgres"])
async def leased(request: pytest.FixtureRequest) -> AsyncIterator[Leased]:
    if request.param == "memory":
        from uuid import uuid4

        store = MemoryCheckpoints()
        yield Leased(TenantId(uuid4()), store, MemoryLeases(store))
        return
    from tenure_server.storage.postgres.checkpoints import PostgresCheckpoints
    from tenure_server.storage.postgres.leases import PostgresLeases
    from tenure_server.storage.postgres.pool import Database

    names = request.getfixturevalue("contract_database")
    database = await Database.open(names.app_url, max_size=4, application_name="tests")
    tenant = await names.tenants().create_tenant("leases")
    yield Leased(tenant, PostgresCheckpoints(database), PostgresLeases(database))
    await database.close()


def under(token: int, mutation: Mutation) -> Mutation:
    return mutation._replace(lease_token=token)


async def test_a_lease_is_exclusive_until_it_is_released(leased: Leased) -> None:
    token = await leased.acquire()
    with pytest.raises(errors.LeaseHeld) as held:
        await leased.acquire()
    assert 0 < int(held.value.metadata["held_for_ms"]) <= 60_000
    assert held.value.metadata["holder"] == "me"
    await leased.leases.release(leased.tenant, operation(), THREAD, token + 1)
    with pytest.raises(errors.LeaseHeld):
        await leased.acquire()
    await leased.leases.release(leased.tenant, operation(), THREAD, token)
    await leased.leases.release(leased.tenant, operation(), THREAD, token)
    assert await leased.acquire() > token


async def test_the_same_operation_gets_the_same_token(leased: Leased) -> None:
    once = await leased.acquire(id=b"i" * 16)
    assert await leased.acquire(id=b"i" * 16) == once
    with pytest.raises(errors.LeaseHeld):
        await leased.acquire(id=b"j" * 16)


async def test_writes_need_the_token_while_there_is_a_lease_and_never_another(leased: Leased) -> None:
    assert await leased.write(put(THREAD, "1")) == [""]
    token = await leased.acquire()
    writes = put_writes(THREAD, "1", Write())
    assert await leased.write(put(THREAD, "2", "1"), writes) == ["STALE_WRITER"] * 2
    assert await leased.write(under(token, put(THREAD, "2", "1")), under(token, writes)) == ["", ""]
    await leased.leases.release(leased.tenant, operation(), THREAD, token)
    assert await leased.write(under(token, put(THREAD, "3", "2"))) == ["STALE_WRITER"]
    assert await leased.write(put(THREAD, "3", "2")) == [""]


async def test_only_the_latest_lease_is_renewed(leased: Leased) -> None:
    token = await leased.acquire()
    await leased.leases.renew(leased.tenant, operation(), THREAD, token, 60_000)
    for thread, wrong in ((THREAD, token + 1), ("absent", token)):
        with pytest.raises(errors.StaleWriter):
            await leased.leases.renew(leased.tenant, operation(), thread, wrong, 60_000)
    await leased.leases.release(leased.tenant, operation(), THREAD, token)
    with pytest.raises(errors.StaleWriter):
        await leased.leases.renew(leased.tenant, operation(), THREAD, token, 60_000)


async def test_a_lease_that_ran_out_is_renewed_unless_somebody_put_to_the_thread(leased: Leased) -> None:
    once = b"i" * 16
    token = await leased.acquire(ttl_ms=1, id=once)
    while await leased.write(put(THREAD, "1")) == ["STALE_WRITER"]:
        pass
    with pytest.raises(errors.StaleWriter):
        await leased.leases.renew(leased.tenant, operation(), THREAD, token, 60_000)
    assert await leased.acquire(id=once) > token, "a repeat does not find again what is over"


async def test_the_token_of_a_deleted_thread_fits_no_later_one(leased: Leased) -> None:
    token = await leased.acquire()
    await leased.checkpoints.delete_thread(leased.tenant, operation(), THREAD)
    assert await leased.write(under(token, put(THREAD, "1"))) == ["STALE_WRITER"]
    assert await leased.acquire() > token
    assert await leased.write(under(token, put(THREAD, "1"))) == ["STALE_WRITER"]


async def test_a_lease_whose_time_has_passed_is_not_given(leased: Leased) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        await leased.leases.acquire(leased.tenant, operation(-1.0), THREAD, "", 60_000)
    assert await leased.checkpoints.list_threads(leased.tenant, "", None, 10) == []


async def test_a_copy_has_no_lease(leased: Leased) -> None:
    token = await leased.acquire()
    assert await leased.write(under(token, put(THREAD, "1"))) == [""]
    await leased.checkpoints.copy_thread(leased.tenant, operation(), THREAD, "copy")
    assert await leased.write(put("copy", "2", "1")) == [""]
