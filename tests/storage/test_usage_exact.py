"""The counters of a tenant equal what is there, after any history of operations."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import psycopg
import pytest
from tenure_server import errors
from tenure_server.domain import Mutation, PruneStrategy, PutCheckpoint, TenantId
from tenure_server.items import Index, ItemVectors, Vector
from tenure_server.storage.postgres import pool
from tenure_server.storage.postgres.checkpoints import PostgresCheckpoints
from tenure_server.storage.postgres.items import PostgresItems
from tenure_server.storage.postgres.sweeper import Sweeper

from tests.harness.databases import Database
from tests.storage import item_tenant
from tests.storage.chunked import Chunked, cut, put_edits
from tests.storage.item_tenant import INDEX, OTHER, delete, group
from tests.storage.item_tenant import put as put_item
from tests.storage.tenant import Tenant, Write, operation, put, put_writes
from tests.storage.usage import Usage, Used, usage_of

OPERATIONS = 10_000 if os.environ.get("TENURE_TEST_SLOW", "0") not in {"", "0"} else 2_000
WORKERS = 4
"""Histories of one tenant at the same time, on the same threads and items."""
THREADS = [f"t{number}" for number in range(6)]
KEYS = [f"k{number}" for number in range(12)]
NAMESPACES = [("a",), ("a", "b"), ("c",)]
RUNS = ["r1", "r2", "r3"]
AGED = "UPDATE tenure.pending_write SET created_at = now() - interval '2 days' WHERE random() < 0.3"
EXPIRED = "UPDATE tenure.item SET expires_at = now() - interval '1 hour' WHERE random() < 0.2"


@pytest.fixture
async def connected(database: Database) -> AsyncIterator[pool.Database]:
    """Connections to a database of its own."""
    opened = await pool.Database.open(database.app_url, max_size=WORKERS)
    yield opened
    await opened.close()


@pytest.fixture
async def tenant(database: Database) -> TenantId:
    """A tenant that has stored nothing."""
    return await database.tenants().create_tenant("usage")


@pytest.fixture
def usage(database: Database, tenant: TenantId) -> Iterator[Usage]:
    """What it uses."""
    with usage_of(database, tenant) as opened:
        yield opened


class History:
    """Operations of every kind in an order that a seed decides."""

    def __init__(self, connected: pool.Database, tenant: TenantId, seed: int) -> None:
        self._random = random.Random(seed)
        self._threads = Tenant(PostgresCheckpoints(connected), tenant)
        self._items = item_tenant.Tenant(PostgresItems(connected), tenant)
        self._values: dict[str, tuple[str, Chunked]] = {}
        self._kinds: list[tuple[int, Callable[[], Awaitable[object]]]] = [
            (30, self._write),
            (20, self._write_items),
            (4, self._delete),
            (3, self._copy),
            (4, self._prune),
            (3, self._delete_for_runs),
            (3, self._embed),
            (1, self._change_index),
        ]
        self.done = 0

    async def go(self, operations: int) -> None:
        """Do so many; an operation that others made impossible counts as well."""
        weights = [weight for weight, _ in self._kinds]
        for _ in range(operations):
            ((_, kind),) = self._random.choices(self._kinds, weights)
            try:
                await kind()
            except (errors.ThreadNotFound, errors.ThreadExists, errors.DeltaChannelInUse, errors.Conflict):
                continue
            except errors.IndexMismatch:
                continue
            self.done += 1

    async def _write(self) -> None:
        pick = self._random
        batch = [pick.choice([self._put, self._put, self._pending])() for _ in range(pick.randint(1, 6))]
        for outcome in await self._threads.apply(*batch):
            assert outcome is None or isinstance(
                outcome, errors.ChunksMissing | errors.StaleWriter | errors.Conflict
            ), outcome

    def _put(self) -> Mutation:
        pick = self._random
        thread, step = pick.choice(THREADS), f"{pick.randint(1, 30):03}"
        parent = f"{pick.randint(1, 30):03}"
        channel, version = pick.choice("ab"), str(pick.randint(1, 40))
        metadata = {"run_id": pick.choice(RUNS), "note": "n" * pick.randint(0, 20)}
        made: Mutation
        if pick.random() < 0.5:
            new = {channel: pick.choice([None, os.urandom(pick.randint(0, 3000))])}
            made = put(thread, step, parent, versions={channel: version}, new=new, metadata=metadata)
        else:
            words = [b"%d" % pick.randrange(30) for _ in range(pick.randint(1, 40))]
            base_version, base = self._values.get(thread + channel, ("", None))
            value = cut(b" ".join(base.parts[:-1] if base else []) + b" " + b" ".join(words), b"head")
            told = value.edit(base, base_version) if base and pick.random() < 0.8 else value.whole()
            self._values[thread + channel] = (version, value)
            made = put_edits(
                thread, step, parent, edits={channel: told}, versions={channel: version}, metadata=metadata
            )
        assert isinstance(made, PutCheckpoint)
        return made._replace(
            body=made.body._replace(data=b"b" * pick.randint(0, 300)),
            lease_token=7 if pick.random() < 0.03 else None,
            expected_parent=parent if pick.random() < 0.05 else None,
        )

    def _pending(self) -> Mutation:
        pick = self._random
        writes = [
            Write(
                data=os.urandom(pick.randint(0, 200)),
                task=f"task{pick.randint(1, 3)}",
                idx=pick.choice([-3, -1, 0, 1, 2]),
            )
            for _ in range(pick.randint(1, 5))
        ]
        return put_writes(pick.choice(THREADS), f"{pick.randint(1, 40):03}", *writes)

    async def _write_items(self) -> None:
        pick = self._random
        groups = []
        for _ in range(pick.randint(1, 4)):
            writes: list[item_tenant.ItemWrite] = []
            for _ in range(pick.randint(1, 4)):
                key, ns = pick.choice(KEYS), pick.choice(NAMESPACES)
                if pick.random() < 0.25:
                    writes.append(delete(key, ns))
                    continue
                vectors = [[pick.random(), 1.0]] * pick.choice([0, 0, 1, 3])
                writes.append(
                    put_item(
                        key, self._value(), ns, vectors=vectors, ttl=pick.choice([None, None, 1e-6, 60.0])
                    )
                )
            groups.append(group(*writes))
        for outcome in await self._items.apply(*groups, *groups[: pick.randint(0, 1)]):
            assert outcome is None or isinstance(outcome, errors.IndexMismatch | errors.Conflict), outcome

    def _value(self) -> str:
        text = "x" * self._random.randint(0, 2000)
        return self._random.choice([f'{{"text":"{text}"}}', f'{{"number":1e5,"ü":"{text}"}}'])

    async def _delete(self) -> None:
        await self._threads.delete(self._random.choice(THREADS))

    async def _copy(self) -> None:
        source, target = self._random.sample(THREADS, 2)
        if self._random.random() < 0.5:
            await self._threads.delete(target)
        await self._threads.copy(source, target)

    async def _prune(self) -> None:
        strategy = PruneStrategy.DELETE_ALL if self._random.random() < 0.2 else PruneStrategy.KEEP_LATEST
        by = operation()
        for _ in range(self._random.randint(1, 2)):
            await self._threads.prune(*self._random.sample(THREADS, 2), strategy=strategy, by=by)

    async def _delete_for_runs(self) -> None:
        await self._threads.delete_for_runs(self._random.choice(RUNS))

    async def _embed(self) -> None:
        index, waiting = await self._items.index()
        found = await self._items.waiting(limit=5)
        if index is not None and found and waiting:
            numbers = [self._random.random() for _ in range(index.dims)]
            await self._items.put_vectors(
                *(
                    ItemVectors(f.item.namespace, f.item.key, f.item.updated_at, [Vector("p", numbers)])
                    for f in found
                ),
                index=index,
            )

    async def _change_index(self) -> None:
        current, _ = await self._items.index()
        other: Index = OTHER if current == INDEX else INDEX
        await self._items.set_index(other)
        if self._random.random() < 0.9:
            await self._items.set_index(INDEX)


async def test_counters_equal_a_recount_after_any_history(
    connected: pool.Database, tenant: TenantId, usage: Usage, database: Database
) -> None:
    sweeper = Sweeper(database.ops_url)
    rounds = 10
    histories = [History(connected, tenant, seed) for seed in range(WORKERS)]
    for _ in range(rounds):
        await asyncio.gather(*(history.go(OPERATIONS // rounds // WORKERS) for history in histories))
        used = usage.assert_exact()
        with psycopg.connect(database.admin_url, autocommit=True) as admin:
            admin.execute(AGED)
            admin.execute(EXPIRED)
        # The sweeper takes its part while the others go on.
        await asyncio.gather(sweeper.run_once(), *(history.go(5) for history in histories))
        assert min(used.stored_bytes, used.threads, used.items) > 0
        usage.assert_exact()
    assert sum(history.done for history in histories) > OPERATIONS * 0.6, "most did something"


async def test_writers_of_different_keys_of_one_item_batch_do_not_wait_crosswise(
    connected: pool.Database, tenant: TenantId, usage: Usage
) -> None:
    threads = Tenant(PostgresCheckpoints(connected), tenant)
    items = item_tenant.Tenant(PostgresItems(connected), tenant)
    for step in range(20):
        outcomes = await asyncio.gather(
            threads.apply(put("t", f"{step:03}"), put("u", f"{step:03}")),
            items.apply(group(put_item("a", {"n": step}), put_item("b", {"n": step}))),
            items.apply(group(put_item("b", {"n": step}), put_item("a", {"n": step}))),
            threads.apply(
                put_writes("u", f"{step:03}", Write(idx=-1)), put_writes("t", f"{step:03}", Write())
            ),
        )
        assert [outcome for batch in outcomes for outcome in batch if outcome is not None] == []
    usage.assert_exact()


async def test_a_wrong_counter_is_repaired_while_others_write(
    connected: pool.Database, tenant: TenantId, usage: Usage, database: Database
) -> None:
    threads = Tenant(PostgresCheckpoints(connected), tenant)
    await threads.write(put("t", "001", new={"a": b"12345"}))
    exact = usage.assert_exact()
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute("UPDATE tenure.tenant_usage SET stored_bytes = stored_bytes + 100, items = items - 2")
        writing = asyncio.create_task(threads.write(*(put(f"u{n}", "001") for n in range(50))))
        with psycopg.connect(database.ops_url, autocommit=True) as ops:
            repair = "SELECT stored_bytes, threads, items FROM tenure.repair_usage_1(%s)"
            found = await asyncio.to_thread(lambda: ops.execute(repair, [tenant]).fetchone())
        await writing
    assert found == (100, 0, -2)
    assert usage.assert_exact().threads == exact.threads + 50


async def test_what_expires_counts_until_it_is_gone(
    connected: pool.Database, tenant: TenantId, usage: Usage, database: Database
) -> None:
    items = item_tenant.Tenant(PostgresItems(connected), tenant)
    await items.write(put_item("k", {"a": 1}, ttl=1e-6), put_item("stays", {"a": 1}))
    assert await items.get("k") is None
    assert usage.assert_exact().items == 2
    await Sweeper(database.ops_url).run_once()
    assert usage.assert_exact().items == 1


async def test_deleting_a_thread_refunds_at_once_and_freeing_its_rows_counts_nothing(
    connected: pool.Database, tenant: TenantId, usage: Usage, database: Database
) -> None:
    threads = Tenant(PostgresCheckpoints(connected), tenant)
    await threads.write(put("t", "001", new={"a": b"1" * 1000}), put_writes("t", "001", Write()))
    assert usage.assert_exact().stored_bytes > 1000
    await threads.delete("t")
    assert usage.assert_exact() == Used()
    await Sweeper(database.ops_url).run_once()
    assert usage.assert_exact() == Used()
