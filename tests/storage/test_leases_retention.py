"""Writers of threads that have expired by policy and are not swept yet."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tenure_server.domain import Mutation, PutCheckpoint
from tenure_server.storage.postgres.leases import PostgresLeases

from tests.harness.databases import Database
from tests.storage.retained import DAY, Retained, opened
from tests.storage.tenant import operation, put


@pytest.fixture
async def kept(contract_database: Database) -> AsyncIterator[Retained]:
    """A new tenant whose threads live for a day."""
    async with opened(contract_database) as tenant:
        await tenant.policy(max_idle=DAY)
        yield tenant


@pytest.fixture
def leases(kept: Retained) -> PostgresLeases:
    """Leases on its threads."""
    return PostgresLeases(kept.sessions)


def expecting(parent: str, id: str) -> Mutation:
    """Return a put on top of the checkpoint that it expects to be the latest, "" = on top of none."""
    made = put("t", id, parent or None)
    assert isinstance(made, PutCheckpoint)
    return made._replace(expected_parent=parent)


async def apply(kept: Retained, *mutations: Mutation) -> list[str]:
    """Return the reason of each refusal, "" for what was stored."""
    return ["" if error is None else error.reason for error in await kept.agent.apply(*mutations)]


async def test_a_lease_brings_nothing_back(kept: Retained, leases: PostgresLeases) -> None:
    await kept.agent.write(put("t", "1"))
    await kept.age("t", 2 * DAY)
    assert await kept.steps("t") == []
    token = await leases.acquire(kept.id, operation(), "t", "me", 60_000)
    assert await kept.steps("t") == []
    assert await apply(kept, put("t", "2")._replace(lease_token=token)) == [""]
    assert await kept.steps("t") == ["2"]
    await leases.release(kept.id, operation(), "t", token)
    assert await kept.steps("t") == ["2"]


async def test_nor_does_a_lease_that_ran_out_and_is_renewed(kept: Retained, leases: PostgresLeases) -> None:
    token = await leases.acquire(kept.id, operation(), "t", "me", 60_000)
    await kept.agent.write(put("t", "1")._replace(lease_token=token))
    await kept.age("t", 2 * DAY)
    assert await kept.steps("t") == ["1"], "a lease keeps it"
    await kept.execute(
        "UPDATE tenure.thread_head SET lease_until = now() - interval '1 s' WHERE tenant_id = %s", [kept.id]
    )
    assert await kept.steps("t") == []
    await leases.renew(kept.id, operation(), "t", token, 60_000)
    assert await kept.steps("t") == []
    assert await apply(kept, put("t", "2")._replace(lease_token=token)) == [""]
    assert await kept.steps("t") == ["2"]


async def test_a_lease_of_a_living_thread_hides_nothing(kept: Retained, leases: PostgresLeases) -> None:
    await kept.agent.write(put("t", "1"))
    await leases.acquire(kept.id, operation(), "t", "me", 60_000)
    await kept.age("t", 2 * DAY)
    assert await kept.steps("t") == ["1"]


async def test_who_expects_what_a_reader_finds_may_begin_anew(kept: Retained) -> None:
    await kept.agent.write(put("t", "1"))
    assert await apply(kept, expecting("", "2")) == ["STALE_WRITER"]
    await kept.age("t", 2 * DAY)
    assert await kept.agent.get("t") is None
    assert await apply(kept, expecting("", "2"), expecting("1", "3")) == ["", "STALE_WRITER"]
    assert await kept.steps("t") == ["2"]


async def test_who_read_just_before_a_thread_expired_goes_on(kept: Retained) -> None:
    await kept.agent.write(put("t", "1"))
    await kept.age("t", 2 * DAY)
    assert await apply(kept, expecting("1", "2"), expecting("", "3")) == ["", "STALE_WRITER"]
