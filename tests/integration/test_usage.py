"""Quotas and usage with whole servers: exact when they race for the last of it, and when they are killed."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from tenure_client import QuotaExceeded, TenureError, TenureSaver, TenureStore
from tenure_server.domain import TenantId

from tests.harness.databases import Database, Postgres
from tests.harness.server import ServerProcess
from tests.harness.stack import Stack, TenantHandle
from tests.integration.checkpoints_support import SLOW, checkpoint, config_of, put, replicas
from tests.integration.writers_support import writing
from tests.storage.usage import Usage, usage_of

ROUNDS = 20 if SLOW else 2
WRITERS = 64
LIMIT = 1000
KILLS = 30 if SLOW else 3
ACKNOWLEDGED = 150
BYTES = 100
"""Of each pending write that races for bytes."""


def usage_in(database: Database, tenant: TenantHandle) -> AbstractContextManager[Usage]:
    """Look at a tenant's usage."""
    return usage_of(database, TenantId(UUID(tenant.tenant_id)))


@pytest.fixture(scope="module")
def pair(
    postgres: Postgres, migrated: str, run_folder: Path, redis_url: str
) -> Iterator[tuple[Database, list[ServerProcess]]]:
    """Two servers on a database."""
    database = postgres.database(postgres.create_database(template=migrated))
    with replicas(2, run_folder, database, redis_url) as servers:
        yield database, servers
    postgres.drop_database(database.name)


Attempt = Callable[[TenureSaver, int], Awaitable[object]]


async def _new_thread(saver: TenureSaver, number: int) -> object:
    made = checkpoint(1, number)
    return await saver.aput(config_of(f"t{number}"), made, {"step": 1}, made["channel_versions"])


async def _new_item(saver: TenureSaver, number: int) -> object:
    return await TenureStore(saver.connection).aput(("race",), f"k{number}", {"number": number})


async def _more_bytes(saver: TenureSaver, number: int) -> object:
    return await saver.aput_writes(config_of(f"t{number % 7}", "1"), [("c", b"x" * BYTES)], f"task{number}")


RACES: dict[str, tuple[Attempt, dict[str, int]]] = {
    "threads": (_new_thread, {"max_threads": LIMIT}),
    "items": (_new_item, {"max_items": LIMIT}),
    "stored_bytes": (_more_bytes, {"max_stored_bytes": LIMIT * BYTES}),
}


@pytest.mark.parametrize("limit", RACES)
@pytest.mark.timeout(600)
def test_writers_that_race_for_a_limit_get_exactly_all_of_it(
    pair: tuple[Database, list[ServerProcess]], limit: str
) -> None:
    database, servers = pair
    attempt, maxima = RACES[limit]
    for _ in range(ROUNDS):
        tenant = Stack(servers[0], database, None).default
        with usage_in(database, tenant) as usage:
            usage.limit(**maxima)
            accepted, refusals = asyncio.run(_race(servers, tenant, attempt))
            assert accepted == LIMIT
            assert [error.limit for error in refusals] == [limit] * WRITERS
            assert {error.maximum for error in refusals} == set(maxima.values())
            used = usage.assert_exact()
            assert getattr(used, limit) == maxima[f"max_{limit}"]


async def _race(
    servers: list[ServerProcess], tenant: TenantHandle, attempt: Attempt
) -> tuple[int, list[QuotaExceeded]]:
    """Let all writers add until each is refused; return how often they were not, and the refusals."""
    savers = [TenureSaver(server.target, api_key=tenant.api_key, timeout=60.0) for server in servers]
    accepted = 0

    async def write(writer: int) -> QuotaExceeded:
        nonlocal accepted
        number = writer
        while True:
            try:
                await attempt(savers[writer % len(savers)], number)
            except QuotaExceeded as error:
                return error
            accepted += 1
            number += WRITERS

    try:
        refusals = await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
    finally:
        for saver in savers:
            await saver.aclose()
    return accepted, refusals


@contextmanager
def changing(saver: TenureSaver, seed: int) -> Iterator[None]:
    """Put, overwrite, delete, copy and prune threads and items while the block runs, whatever fails."""
    stop, failures = threading.Event(), list[BaseException]()
    pick, store = random.Random(seed), TenureStore(saver.connection)

    def step() -> None:
        thread, other = (f"changing{pick.randrange(6)}" for _ in range(2))
        kind = pick.randrange(8)
        if kind < 3:
            put(saver, thread, pick.randint(1, 5), "x" * pick.choice([10, 20_000]))
        elif kind == 3:
            store.put(
                ("n", thread), other, {"text": "x" * pick.randint(0, 500)}, ttl=pick.choice([None, 0.01])
            )
        elif kind == 4:
            store.delete(("n", thread), other)
        elif kind == 5:
            saver.delete_thread(thread)
        elif kind == 6:
            saver.copy_thread(thread, other)
        else:
            saver.prune([thread, other])

    def run() -> None:
        try:
            while not stop.is_set():
                try:
                    step()
                except TenureError:
                    continue
        except BaseException as error:
            failures.append(error)

    worker = threading.Thread(target=run)
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join()
    assert not failures, failures


@pytest.mark.timeout(600)
def test_counters_are_exact_after_servers_were_killed(
    database: Database, redis_url: str, open_folder: Path
) -> None:
    with replicas(2, open_folder, database, redis_url) as servers, ExitStack() as opened:
        tenant = Stack(servers[0], database, redis_url).default
        usage = opened.enter_context(usage_in(database, tenant))
        savers = [
            opened.enter_context(TenureSaver(server.target, api_key=tenant.api_key, timeout=20.0))
            for server in servers
        ]
        others = [
            opened.enter_context(TenureSaver(server.target, api_key=tenant.api_key, timeout=0.5))
            for server in servers
        ]
        with writing(savers) as books, changing(others[0], 1), changing(others[1], 2):
            for kill in range(KILLS):
                books.wait_for_more(ACKNOWLEDGED)
                servers[kill % 2].kill()
                servers[kill % 2].start()
                usage.assert_exact()
            books.wait_for_more(ACKNOWLEDGED)
        assert usage.assert_exact().threads > 10
