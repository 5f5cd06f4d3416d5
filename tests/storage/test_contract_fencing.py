"""The storage contract of writers: who may add to a thread, on each storage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from tenure_server.domain import Mutation, PutCheckpoint, TenantId
from tenure_server.storage.memory import MemoryCheckpoints
from tenure_server.storage.memory_rows import Thread

from tests.harness.databases import Database
from tests.storage.tenant import Tenant, Write, put, put_writes

_FENCE = """
INSERT INTO tenure.thread_head (tenant_id, thread_id, lease_token, lease_until, single_writer)
VALUES (%(tenant)s, %(thread)s, %(token)s, now() + %(left)s * interval '1 second', %(single)s)
ON CONFLICT (tenant_id, thread_id) DO UPDATE SET
    lease_token = excluded.lease_token,
    lease_until = excluded.lease_until,
    single_writer = excluded.single_writer
"""


@dataclass(frozen=True)
class Fenced:
    """A tenant whose threads can be given to a writer, by what the storage keeps of it."""

    tenant: Tenant
    _fence: Callable[[str, int, float | None, bool], None]

    def fence(
        self, thread: str = "t", token: int = 0, *, left: float | None = None, single: bool = False
    ) -> None:
        """Set a thread's last token, the seconds that its lease has left, and whether it needs one."""
        self._fence(thread, token, left, single)

    async def write(self, *mutations: Mutation) -> list[str]:
        """Return the reason of each refusal, "" for what was stored."""
        return ["" if error is None else error.reason for error in await self.tenant.apply(*mutations)]


@pytest.fixture(params=["memory", "postgres"])
async def fenced(request: pytest.FixtureRequest) -> AsyncIterator[Fenced]:
    """A new tenant of a storage."""
    if request.param == "memory":
        memory, anyone = MemoryCheckpoints(), TenantId(uuid4())

        def fence(thread: str, token: int, left: float | None, single: bool) -> None:
            rows = memory.threads(anyone).setdefault(thread, Thread())
            rows.lease_token, rows.single_writer = token, single
            rows.lease_until = None if left is None else datetime.now(UTC) + timedelta(seconds=left)

        yield Fenced(Tenant(memory, anyone), fence)
        return
    from tenure_server.storage.postgres.checkpoints import PostgresCheckpoints
    from tenure_server.storage.postgres.pool import Database as Pool

    names: Database = request.getfixturevalue("contract_database")
    tenant = await names.tenants().create_tenant("fenced")
    opened = await Pool.open(names.app_url, max_size=4)
    with psycopg.connect(names.admin_url, autocommit=True) as admin:

        def fence_row(thread: str, token: int, left: float | None, single: bool) -> None:
            row = {"tenant": tenant, "thread": thread, "token": token, "left": left, "single": single}
            admin.execute(_FENCE, row)

        yield Fenced(Tenant(PostgresCheckpoints(opened), tenant), fence_row)
    await opened.close()


def by(token: int | None, mutation: Mutation) -> Mutation:
    """Return a mutation of the holder of a lease."""
    return mutation._replace(lease_token=token)


def expecting(parent: str, id: str, thread: str = "t", ns: str = "") -> Mutation:
    """Return a put on top of the checkpoint that it expects to be the latest, "" = on top of none."""
    made = put(thread, id, parent or None, ns=ns)
    assert isinstance(made, PutCheckpoint)
    return made._replace(expected_parent=parent)


STALE = "STALE_WRITER"


async def test_under_a_lease_only_its_holder_writes(fenced: Fenced) -> None:
    fenced.fence(token=5, left=60)
    assert await fenced.write(
        put("t", "001"), by(4, put("t", "002")), by(6, put("t", "003")), by(5, put("t", "004"))
    ) == [STALE, STALE, STALE, ""]
    assert await fenced.write(
        put_writes("t", "004", Write()),
        by(4, put_writes("t", "004", Write())),
        by(5, put_writes("t", "004", Write())),
    ) == [STALE, STALE, ""]
    assert await fenced.tenant.ids("t") == ["004"]
    assert len((await fenced.tenant.one("t")).writes) == 1


async def test_of_a_batch_only_the_stale_writers_mutations_are_refused(fenced: Fenced) -> None:
    fenced.fence("b", token=5, left=60)
    assert await fenced.write(
        put("a", "001"),
        by(4, put("b", "001")),
        put_writes("c", "001", Write()),
        by(4, put_writes("b", "001", Write())),
        by(5, put("b", "002")),
    ) == ["", STALE, "", STALE, ""]
    assert await fenced.tenant.ids("b") == ["002"]


async def test_a_lease_that_ran_out_writes_on_until_somebody_takes_over(fenced: Fenced) -> None:
    fenced.fence(token=5, left=-60)
    assert await fenced.write(by(5, put("t", "001")), put_writes("t", "001", Write())) == ["", ""]
    assert await fenced.write(by(5, put("t", "002"))) == [""], "pending writes take nothing over"
    fenced.fence(token=6, left=-60)
    assert await fenced.write(by(5, put("t", "003")), by(5, put_writes("t", "001", Write()))) == [
        STALE,
        STALE,
    ]


async def test_whoever_puts_once_a_lease_ran_out_takes_over(fenced: Fenced) -> None:
    fenced.fence(token=5, left=-60)
    assert await fenced.write(by(5, put("t", "001")), put("t", "002", "001")) == ["", ""]
    assert await fenced.write(by(5, put("t", "003", "001")), by(5, put_writes("t", "001", Write()))) == [
        STALE,
        STALE,
    ]
    assert await fenced.write(put("t", "004", "002")) == [""]
    assert await fenced.tenant.ids("t") == ["004", "002", "001"]


async def test_so_does_who_puts_what_it_expects_where_a_thread_has_one_writer(fenced: Fenced) -> None:
    fenced.fence(token=5, left=-60, single=True)
    assert await fenced.write(
        by(5, put("t", "001")), expecting("001", "002"), by(5, put("t", "003", "001"))
    ) == ["", "", STALE]
    assert await fenced.tenant.latest("t") == "002"


async def test_a_put_that_is_refused_takes_nothing_over(fenced: Fenced) -> None:
    fenced.fence(token=5, left=-60, single=True)
    assert await fenced.write(put("t", "001"), expecting("000", "001")) == [STALE, STALE]
    assert await fenced.write(by(5, put("t", "001"))) == [""]


async def test_a_token_is_of_no_use_where_there_was_no_lease(fenced: Fenced) -> None:
    assert await fenced.write(by(5, put("new", "001")), by(5, put_writes("other", "001", Write()))) == [
        STALE,
        STALE,
    ]
    assert await fenced.tenant.threads() == [], "what was made for nothing else is not there"


async def test_a_put_that_expects_another_checkpoint_is_refused(fenced: Fenced) -> None:
    assert await fenced.write(expecting("000", "001")) == [STALE]
    assert await fenced.tenant.threads() == []
    assert await fenced.write(expecting("", "001")) == [""]
    assert await fenced.write(expecting("", "002"), expecting("001", "003")) == [STALE, ""]
    assert await fenced.write(expecting("001", "004"), expecting("003", "004", ns="n")) == [STALE, STALE]
    assert await fenced.write(expecting("", "001", ns="n")) == [""], "each namespace has a latest of its own"
    assert await fenced.tenant.ids("t") == ["003", "001"]


async def test_of_two_that_go_on_from_one_checkpoint_the_second_is_refused(fenced: Fenced) -> None:
    await fenced.tenant.write(put("t", "001"))
    assert await fenced.write(expecting("001", "002"), expecting("001", "003"), expecting("002", "004")) == [
        "",
        STALE,
        "",
    ]
    assert await fenced.write(expecting("004", "005"), put("t", "006", "004"), expecting("005", "007")) == [
        "",
        "",
        STALE,
    ]


async def test_a_put_that_is_repeated_is_not_refused(fenced: Fenced) -> None:
    first, second = expecting("", "001"), expecting("001", "002")
    assert await fenced.write(first, second) == ["", ""]
    assert await fenced.write(second, first) == ["", ""]
    assert await fenced.tenant.latest("t") == "002"


async def test_the_latest_of_a_slow_clock_is_what_is_expected(fenced: Fenced) -> None:
    await fenced.tenant.write(put("t", "005"), put("t", "003", "005"))
    assert await fenced.tenant.latest("t") == "003"
    assert await fenced.write(expecting("005", "006")) == [STALE]
    assert await fenced.write(expecting("003", "002")) == [""]


async def test_where_a_thread_has_one_writer_a_put_needs_a_lease_or_an_expectation(fenced: Fenced) -> None:
    fenced.fence(token=5, left=-60, single=True)
    assert await fenced.write(put("t", "001")) == [STALE]
    assert await fenced.write(by(5, put("t", "001")), put_writes("t", "001", Write())) == ["", ""]
    assert await fenced.write(expecting("001", "003"), expecting("000", "004")) == ["", STALE]
    assert await fenced.tenant.ids("t") == ["003", "001"]


async def test_a_holder_may_expect_as_well(fenced: Fenced) -> None:
    fenced.fence(token=5, left=60)
    assert await fenced.write(
        by(5, expecting("", "001")), by(5, expecting("", "002")), expecting("001", "003")
    ) == ["", STALE, STALE]
