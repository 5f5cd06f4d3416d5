"""OK means committed, and committed once: servers are killed, replies lost, Postgres taken away."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from tenure.v1 import checkpoints_pb2 as pb
from tenure_client import (
    DeadlineExceeded,
    OutcomeUnknown,
    TenureSaver,
    ThreadExists,
    ThreadNotFound,
    Unavailable,
)

from tests.harness.databases import Database, Postgres, PrivatePostgresFactory
from tests.harness.proxy import FaultProxy
from tests.harness.stack import Stack, TenantHandle
from tests.integration.checkpoints_support import SLOW, config_of, id_of, put, replicas, wait_until
from tests.integration.wire_support import Wire, operation
from tests.integration.writers_support import assert_nothing_lost_or_doubled, writing

KILLS = 30 if SLOW else 3
ACKNOWLEDGED = 150
"""Operations acknowledged before each fault: with fewer, a lost one might go unseen."""
PATIENT, IMPATIENT = 20.0, 0.4
"""Seconds: outlasts a restart; gives up during one."""
CUTS_OF_WRITES, CUTS_OF_REMOVALS = (2000, 100) if SLOW else (100, 12)


@contextmanager
def savers_of(target: str, tenant: TenantHandle, *timeouts: float) -> Iterator[list[TenureSaver]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(TenureSaver(target, api_key=tenant.api_key, timeout=timeout))
            for timeout in timeouts
        ]


def ids_in(saver: TenureSaver, thread_id: str) -> list[int]:
    """Return the numbers of a thread's checkpoints, newest first."""
    return [int(item.config["configurable"]["checkpoint_id"]) for item in saver.list(config_of(thread_id))]


def test_a_killed_server_loses_nothing_acknowledged(
    database: Database, redis_url: str, open_folder: Path
) -> None:
    with replicas(1, open_folder, database, redis_url) as (server,):
        tenant = Stack(server, database, redis_url).default
        with savers_of(server.target, tenant, PATIENT, IMPATIENT) as savers, writing(savers) as books:
            for _ in range(KILLS):
                books.wait_for_more(ACKNOWLEDGED)
                server.kill()
                books.wait_for_more_errors(1)
                server.start()
            books.wait_for_more(ACKNOWLEDGED)
        assert books.errors["OutcomeUnknown"] >= 1, "no kill hit a call in flight"
        with savers_of(server.target, tenant, PATIENT) as (saver,):
            assert_nothing_lost_or_doubled(saver, books)


@dataclass(frozen=True)
class Lossy:
    """A server whose way to Postgres can lose replies."""

    stack: Stack
    proxy: FaultProxy

    @contextmanager
    def losing(self, statement: str, *, every: int) -> Iterator[None]:
        """Lose the reply of each n-th call of an SQL function, after its commit."""
        self.proxy.cut_reply(f"tenure.{statement}(".encode(), every=every)
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


def test_writes_whose_reply_is_lost_have_one_effect_and_are_acknowledged(lossy: Lossy) -> None:
    tenant, before = lossy.stack.new_tenant(), lossy.proxy.cuts
    with savers_of(lossy.stack.target, tenant, PATIENT, PATIENT) as savers:
        with lossy.losing("write_batch_3", every=4), writing(savers) as books:
            wait_until(lambda: lossy.proxy.cuts - before >= CUTS_OF_WRITES, "replies are lost")
        assert not books.errors
        assert books.acknowledged > CUTS_OF_WRITES
        assert_nothing_lost_or_doubled(savers[0], books)


@dataclass(frozen=True)
class Removal:
    """A call that changes a thread of the checkpoints 1 to 3.

    Attributes:
        statement: The SQL function that does it.
        call: The call; its answer is None or the error that is expected.
        left: Checkpoints of the thread afterwards.
        copied: Checkpoints of its copy afterwards.
        answer: Error that it ends in.
        every: 2 = a repeat calls the function again; 1 = it does not come so far.
    """

    statement: str
    call: Callable[[TenureSaver, str], None]
    left: list[int]
    copied: list[int]
    answer: type[Exception] | None = None
    every: int = 2


def _prune(saver: TenureSaver, thread_id: str) -> None:
    saver.prune([thread_id])


REMOVALS = {
    "copy_thread": Removal("copy_thread_1", lambda s, t: s.copy_thread(t, t + "-copy"), [3, 2, 1], [3, 2, 1]),
    "copy_thread onto another": Removal(
        "copy_thread_1", lambda s, t: s.copy_thread(t + "-copy", t), [3, 2, 1], [], ThreadNotFound
    ),
    "copy_thread of nothing": Removal(
        "copy_thread_1", lambda s, t: s.copy_thread(t, "occupied"), [3, 2, 1], [], ThreadExists
    ),
    "delete_thread": Removal("delete_thread_1", lambda s, t: s.delete_thread(t), [], []),
    "prune": Removal("prune_thread_1", _prune, [3], []),
    "prune, begun": Removal("claim_operation_1", _prune, [3], []),
    "prune, finished": Removal("finish_operation_1", _prune, [3], [], every=1),
    "prune by deleting": Removal("delete_thread_1", lambda s, t: s.prune([t], strategy="delete"), [], []),
    "delete_for_runs": Removal(
        "delete_runs_1", lambda s, t: s.delete_for_runs([t + "-2"]), [3, 1], [], every=1
    ),
}


@pytest.mark.parametrize("removal", REMOVALS.values(), ids=REMOVALS.keys())
def test_removals_whose_reply_is_lost_have_one_effect_and_the_same_answer(
    lossy: Lossy, removal: Removal
) -> None:
    tenant = lossy.stack.new_tenant()
    threads = [f"thread-{number}" for number in range(CUTS_OF_REMOVALS + 1)]
    with savers_of(lossy.stack.target, tenant, PATIENT) as (saver,):
        put(saver, "occupied", 1, "occupied")
        for thread_id in threads:
            for number in (1, 2, 3):
                put(saver, thread_id, number, number, metadata={"run_id": f"{thread_id}-{number}"})
        before = lossy.proxy.cuts
        # Each call, but perhaps the first, loses its first reply, and its repeat succeeds.
        with lossy.losing(removal.statement, every=removal.every):
            for thread_id in threads:
                if removal.answer is None:
                    removal.call(saver, thread_id)
                else:
                    with pytest.raises(removal.answer):
                        removal.call(saver, thread_id)
        assert lossy.proxy.cuts - before >= CUTS_OF_REMOVALS
        for thread_id in threads:
            assert ids_in(saver, thread_id) == removal.left
            assert ids_in(saver, thread_id + "-copy") == removal.copied
        assert ids_in(saver, "occupied") == [1]


def test_two_hundred_replies_were_lost(lossy: Lossy) -> None:
    assert CUTS_OF_WRITES + len(REMOVALS) * CUTS_OF_REMOVALS >= 200
    assert lossy.proxy.cuts >= 200


BETWEEN: dict[str, tuple[str, Callable[[], Any], Callable[[TenureSaver], object], list[int], list[int]]] = {
    "DeleteThread": (
        "delete_thread_1",
        lambda: pb.DeleteThreadRequest(operation=operation(), thread_id="thread"),
        lambda saver: put(saver, "thread", 7, "new life"),
        [7],
        [],
    ),
    "CopyThread": (
        "copy_thread_1",
        lambda: pb.CopyThreadRequest(
            operation=operation(), source_thread_id="thread", target_thread_id="thread-copy"
        ),
        lambda saver: saver.delete_thread("thread-copy"),
        [3, 2, 1],
        [],
    ),
    "PruneThreads": (
        "prune_thread_1",
        lambda: pb.PruneThreadsRequest(
            operation=operation(), thread_ids=["thread"], strategy=pb.PRUNE_STRATEGY_KEEP_LATEST
        ),
        lambda saver: put(saver, "thread", 4, "next"),
        [4, 3],
        [],
    ),
    "DeleteForRuns": (
        "delete_runs_1",
        lambda: pb.DeleteForRunsRequest(operation=operation(), run_ids=["run"]),
        lambda saver: put(saver, "thread", 4, "next", metadata={"run_id": "run"}),
        [4],
        [],
    ),
}


@pytest.mark.parametrize("method", BETWEEN)
def test_a_late_repeat_does_not_touch_what_came_in_between(lossy: Lossy, method: str) -> None:
    tenant = lossy.stack.new_tenant()
    statement, make_request, in_between, left, copied = BETWEEN[method]
    request = make_request()
    with (
        savers_of(lossy.stack.target, tenant, PATIENT) as (saver,),
        Wire(lossy.stack.target, tenant.api_key) as wire,
    ):
        for number in (1, 2, 3):
            put(saver, "thread", number, number, metadata={"run_id": "run"})
        with lossy.losing(statement, every=1):
            assert wire.call(method, request).code is grpc.StatusCode.UNAVAILABLE
        in_between(saver)
        assert wire.call(method, request).code is grpc.StatusCode.OK
        assert ids_in(saver, "thread") == left
        assert ids_in(saver, "thread-copy") == copied


def test_postgres_that_crashes_during_writes_costs_errors_but_no_acknowledged_write(
    private_postgres: PrivatePostgresFactory, redis_url: str, open_folder: Path
) -> None:
    postgres = private_postgres()
    database = postgres.migrated_database()
    with replicas(1, open_folder, database, redis_url) as (server,):
        tenant = Stack(server, database, redis_url).default
        with savers_of(server.target, tenant, PATIENT, IMPATIENT) as savers, writing(savers) as books:
            for stop_at_once in (True, False) * (5 if SLOW else 1):
                books.wait_for_more(ACKNOWLEDGED)
                if stop_at_once:
                    # What `pg_ctl stop -m immediate` sends.
                    os.kill(postgres.pid, signal.SIGQUIT)
                else:
                    postgres.kill()
                books.wait_for_more_errors(1)
                postgres.stop()
                postgres.start()
            books.wait_for_more(ACKNOWLEDGED)
        # DeadlineExceeded: an impatient caller's time ended while it waited for a connection.
        assert books.errors.keys() <= {"OutcomeUnknown", "Unavailable", "DeadlineExceeded"}
        with savers_of(server.target, tenant, PATIENT) as (saver,):
            assert_nothing_lost_or_doubled(saver, books)


def test_a_silent_postgres_ends_calls_with_typed_errors_and_recovers(
    database: Database, redis_url: str, open_folder: Path
) -> None:
    with (
        FaultProxy(database.app_url, postgres=True) as proxy,
        replicas(1, open_folder, database, redis_url, TENURE_DATABASE_URL=proxy.url(database.app_url)) as (
            server,
        ),
    ):
        tenant = Stack(server, database, redis_url).default
        with savers_of(server.target, tenant, PATIENT, 1.0) as (patient, impatient):
            put(patient, "thread", 1, "before")
            proxy.black_hole()
            calls: list[Callable[[], object]] = [
                lambda: put(impatient, "thread", 2, "during"),
                lambda: impatient.put_writes(config_of("thread", id_of(1)), [("state", 1)], "task"),
                lambda: impatient.delete_thread("other"),
                lambda: impatient.get_tuple(config_of("thread")),
                lambda: list(impatient.list(config_of("thread"))),
            ]
            for call in calls:
                with pytest.raises((OutcomeUnknown, Unavailable, DeadlineExceeded)):
                    call()
            proxy.heal()
            put(patient, "thread", 2, "during")
            assert ids_in(patient, "thread") == [2, 1]
