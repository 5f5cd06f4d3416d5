"""OK for a write of the store means committed, once: servers are killed and drained, replies are lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from langgraph.store.base import GetOp, PutOp
from tenure.v1 import store_pb2 as pb
from tenure_client import OutcomeUnknown, TenureError, TenureStore, Unavailable

from tests.harness.databases import Database, Postgres
from tests.harness.processes import PATIENCE
from tests.harness.proxy import FaultProxy
from tests.harness.stack import Stack
from tests.integration.checkpoints_support import SLOW, replicas, wait_until
from tests.integration.tenants_items_support import INDEX, batch
from tests.integration.wire_support import Wire, operation, outcome_of

KILLS = 20 if SLOW else 2
CUTS = 1000 if SLOW else 60
ACKNOWLEDGED = 100
PATIENT, IMPATIENT = 20.0, 0.4
"""Seconds: outlasts a restart; gives up during one."""
KEYS = 5


@dataclass
class Books:
    """What writers know.

    Attributes:
        possible: By namespace, the numbers that its items may have: the last one that was acknowledged, and
            those of later writes of which nobody knows. None = there is none.
        acknowledged: Writes that were.
        errors: Names of the errors that were seen.
    """

    possible: dict[str, list[int | None]] = field(default_factory=dict)
    acknowledged: int = 0
    errors: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, holds: Callable[[], bool]) -> None:
        """Wait until the books say something."""
        with self.changed:
            assert self.changed.wait_for(holds, PATIENCE), (self.acknowledged, self.errors)

    def wait_for_more(self, number: int) -> None:
        """Wait until so many writes more were acknowledged."""
        wanted = self.acknowledged + number
        self.wait_for(lambda: self.acknowledged >= wanted)

    def wait_for_an_error(self) -> None:
        """Wait until one more error was seen."""
        wanted = len(self.errors) + 1
        self.wait_for(lambda: len(self.errors) >= wanted)


class Writer:
    """Writes all items of a namespace together, again and again, until it is stopped; nobody else does."""

    def __init__(self, name: str, store: TenureStore, books: Books, *, blocking: bool) -> None:
        self.stop = threading.Event()
        self._name, self._store, self._books, self._blocking = name, store, books, blocking

    def run(self) -> None:
        """Write."""
        with asyncio.Runner() as runner:
            possible = self._books.possible[self._name] = [None]
            number = 0
            while not self.stop.is_set():
                number += 1
                told = None if number % 7 == 0 else number
                possible.append(told)
                ops = [PutOp((self._name,), str(key), told and {"n": told}) for key in range(KEYS)]
                try:
                    if self._blocking:
                        self._store.batch(ops)
                    else:
                        runner.run(self._store.abatch(ops))
                except TenureError as error:
                    with self._books.changed:
                        self._books.errors.append(type(error).__name__)
                        self._books.changed.notify_all()
                    if not isinstance(error, OutcomeUnknown):
                        # It is known that nothing was done.
                        possible.pop()
                    continue
                with self._books.changed:
                    possible[:] = [told]
                    self._books.acknowledged += 1
                    self._books.changed.notify_all()
            runner.run(self._store.connection.aclose())


@contextmanager
def writing(*stores: TenureStore) -> Iterator[Books]:
    """Let four writers of both colours write through each store while the block runs."""
    books = Books()
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(4 * len(stores)))
        writers = [
            Writer(f"w{at}{number}", store, books, blocking=number % 2 == 0)
            for at, store in enumerate(stores)
            for number in range(4)
        ]
        running = [threads.submit(writer.run) for writer in writers]
        try:
            yield books
        finally:
            for writer in writers:
                writer.stop.set()
        for one in running:
            one.result(PATIENCE)


def assert_nothing_lost(store: TenureStore, books: Books) -> None:
    """Compare all that is stored with the books: each batch is there whole or not at all."""
    for name, possible in books.possible.items():
        items = store.batch([GetOp((name,), str(key)) for key in range(KEYS)])
        numbers = {item.value["n"] if item is not None else None for item in items}  # type: ignore[union-attr]
        assert len(numbers) == 1, (name, numbers)
        assert numbers <= set(possible), name


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_killed_server_loses_nothing_acknowledged(
    database: Database, redis_url: str, open_folder: Path, workers: str
) -> None:
    with replicas(1, open_folder, database, redis_url, TENURE_WORKERS=workers) as (server,):
        key = Stack(server, database, redis_url).api_key
        with (
            TenureStore(server.target, api_key=key, timeout=PATIENT) as patient,
            TenureStore(server.target, api_key=key, timeout=IMPATIENT) as impatient,
        ):
            with writing(patient, impatient) as books:
                for _ in range(KILLS):
                    books.wait_for_more(ACKNOWLEDGED)
                    server.kill()
                    books.wait_for_an_error()
                    server.start()
                books.wait_for_more(ACKNOWLEDGED)
            assert_nothing_lost(patient, books)


@dataclass(frozen=True)
class Lossy:
    """A server whose way to Postgres can lose replies."""

    stack: Stack
    proxy: FaultProxy

    @contextmanager
    def losing(self, statement: str, *, every: int) -> Iterator[None]:
        """Lose the reply of each n-th call of an SQL function, after its commit."""
        self.proxy.cut_reply(f"tenure.{statement}".encode(), every=every)
        yield
        self.proxy.heal()


@pytest.fixture(scope="module")
def lossy(postgres: Postgres, migrated: str, run_folder: Path) -> Iterator[Lossy]:
    database = postgres.database(postgres.create_database(template=migrated))
    with (
        FaultProxy(database.app_url, postgres=True) as proxy,
        replicas(1, run_folder, database, TENURE_DATABASE_URL=proxy.url(database.app_url)) as (server,),
    ):
        yield Lossy(Stack(server, database, None), proxy)
    postgres.drop_database(database.name)


def test_writes_whose_reply_is_lost_are_acknowledged_all_the_same(lossy: Lossy) -> None:
    before = lossy.proxy.cuts
    key = lossy.stack.new_tenant().api_key
    with TenureStore(lossy.stack.target, api_key=key, timeout=PATIENT) as store:
        with lossy.losing("write_items_", every=4), writing(store) as books:
            wait_until(lambda: lossy.proxy.cuts - before >= CUTS, "replies are lost")
        assert books.errors == []
        assert_nothing_lost(store, books)


PLACE = pb.Namespace(labels=["a"])


def _op(**kind: Any) -> pb.StoreOp:
    return pb.StoreOp(**kind)


BETWEEN: dict[str, tuple[pb.StoreOp, Callable[[TenureStore], object], Any]] = {
    "a put, then a delete": (
        _op(put=pb.PutItem(namespace=PLACE, key="k", value_json='{"n": 1}')),
        lambda store: store.delete(("a",), "k"),
        None,
    ),
    "a put, then another": (
        _op(put=pb.PutItem(namespace=PLACE, key="k", value_json='{"n": 1}')),
        lambda store: store.put(("a",), "k", {"n": 2}),
        {"n": 2},
    ),
    "a delete, then a put": (
        _op(delete=pb.DeleteItem(namespace=PLACE, key="k")),
        lambda store: store.put(("a",), "k", {"n": 2}),
        {"n": 2},
    ),
}


@pytest.mark.parametrize("case", BETWEEN.values(), ids=BETWEEN)
def test_a_late_repeat_does_not_touch_what_came_in_between(lossy: Lossy, case: Any) -> None:
    op, in_between, left = case
    tenant = lossy.stack.new_tenant()
    request = batch(op)
    with (
        TenureStore(lossy.stack.target, api_key=tenant.api_key) as store,
        Wire(lossy.stack.target, tenant.api_key) as wire,
    ):
        store.put(("a",), "k", {"n": 0})
        with lossy.losing("write_items_", every=1):
            lost = outcome_of("Batch", wire.call("Batch", request))
            assert lost.code == grpc.StatusCode.UNAVAILABLE.value[0]
        in_between(store)
        assert outcome_of("Batch", wire.call("Batch", request)).code == 0
        found = store.get(("a",), "k")
        assert (found and found.value) == left


def test_an_index_that_was_changed_again_is_not_changed_by_a_late_repeat(lossy: Lossy) -> None:
    tenant = lossy.stack.new_tenant(("read", "write", "admin"))
    first = pb.SetIndexRequest(operation=operation(), index=INDEX)
    then = pb.SetIndexRequest(operation=operation(), index=pb.StoreIndex(dims=7, embedder="later"))
    with Wire(lossy.stack.target, tenant.api_key) as wire:
        with lossy.losing("set_item_index_", every=1):
            assert wire.call("SetIndex", first).code is grpc.StatusCode.UNAVAILABLE
        for request in (then, first):
            assert wire.call("SetIndex", request).code is grpc.StatusCode.OK
        told = wire.call("GetIndex", pb.GetIndexRequest()).message(pb.GetIndexResponse)
        assert told.index == then.index


def test_vectors_that_were_replaced_are_not_brought_back_by_a_late_repeat(lossy: Lossy) -> None:
    tenant = lossy.stack.new_tenant()
    with (
        TenureStore(lossy.stack.target, api_key=tenant.api_key) as store,
        Wire(lossy.stack.target, tenant.api_key) as wire,
    ):
        store.put(("a",), "k", {})
        page = wire.call("ListUnembedded", pb.ListUnembeddedRequest()).message(pb.ListUnembeddedResponse)

        def vectors(*values: float) -> pb.PutVectorsRequest:
            one = pb.ItemVectors(namespace=PLACE, key="k", updated_at_us=page.items[0].item.updated_at_us)
            one.vectors.add(path="$", values=values)
            return pb.PutVectorsRequest(operation=operation(), index=INDEX, items=[one])

        first, then = vectors(0.0, 1.0), vectors(1.0, 0.0)
        with lossy.losing("put_vectors_", every=1):
            assert wire.call("PutVectors", first).code is grpc.StatusCode.UNAVAILABLE
        for request in (then, first):
            assert wire.call("PutVectors", request).code is grpc.StatusCode.OK
        search = pb.SearchItems(mode=pb.SEARCH_MODE_SEMANTIC, query_vector=[1.0, 0.0], limit=1)
        answer = wire.call("Batch", batch(pb.StoreOp(search=search))).message(pb.BatchResponse)
        assert answer.results[0].results[0].items.items[0].score == pytest.approx(1.0)


def test_a_draining_server_finishes_what_runs_and_a_store_outlasts_its_restart(
    database: Database, redis_url: str, open_folder: Path
) -> None:
    with replicas(1, open_folder, database, redis_url) as (server,):
        key = Stack(server, database, redis_url).api_key
        with (
            TenureStore(server.target, api_key=key, timeout=PATIENCE) as store,
            TenureStore(server.target, api_key=key, timeout=0.5) as impatient,
            psycopg.connect(database.admin_url) as other,
            psycopg.connect(database.admin_url, autocommit=True) as watching,
            ThreadPoolExecutor(2) as threads,
        ):
            store.put(("a",), "held", {"n": 1})
            assert impatient.get(("a",), "held") is not None
            other.execute("SELECT FROM tenure.item FOR UPDATE")
            running = threads.submit(store.put, ("a",), "held", {"n": 2})
            waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"
            wait_until(lambda: watching.execute(waiting, [database.name]).fetchall(), "the call runs")
            server.terminate()

            def drains() -> bool:
                try:
                    impatient.get(("a",), "held")
                except Unavailable:
                    return True
                return False

            wait_until(drains, "it drains")
            later = threads.submit(store.put, ("a",), "free", {"n": 3})
            assert not running.done()
            other.rollback()
            assert running.result(PATIENCE) is None
            assert server.wait() == 0
            server.start()
            assert later.result(PATIENCE) is None
            assert [item.value for item in store.search(("a",))] == [{"n": 2}, {"n": 3}]
