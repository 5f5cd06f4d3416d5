"""Lanes and sessions against a whole Tenure: operations share batches, and none suffers for another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tenure_client import DeadlineExceeded, OutcomeUnknown, PermissionDenied, TenureSaver, Unauthenticated
from tenure_server.domain import TenantId
from tenure_server.keys import ApiKey

from tests.harness.databases import Database
from tests.harness.proxy import FaultProxy
from tests.harness.running import run
from tests.harness.stack import Stack
from tests.integration.checkpoints_support import (
    SLOW,
    checkpoint,
    config_of,
    id_of,
    put,
    replicas,
    value_of,
    wait_until,
)
from tests.integration.writers_support import assert_nothing_lost_or_doubled, writing

CROWD = 64
PATIENT = 20.0
CUTS, DRAINS = (300, 20) if SLOW else (25, 3)


async def aput(saver: TenureSaver, thread_id: str, number: int, value: Any) -> Any:
    made = checkpoint(number, value)
    parent = config_of(thread_id, id_of(number - 1) if number > 1 else None)
    return await saver.aput(parent, made, {"step": number}, made["channel_versions"])


async def each_has_its_own(saver: TenureSaver, rounds: int = 5) -> None:
    """Let a crowd of conversations put and get at the same time; each gets what it put."""

    async def converse(name: str) -> None:
        for number in range(1, rounds + 1):
            await aput(saver, name, number, [name, number])
            await saver.aput_writes(config_of(name, id_of(number)), [("state", number)], "task")
            found = await saver.aget_tuple(config_of(name))
            assert value_of(found) == [name, number]
            assert found is not None
            assert found.pending_writes == [("task", "state", number)]

    await asyncio.gather(*(converse(f"task {number}") for number in range(CROWD)))


async def test_a_crowd_of_tasks_gets_each_its_own(saver: TenureSaver) -> None:
    await each_has_its_own(saver)
    await saver.aclose()


def test_a_crowd_of_threads_gets_each_its_own(saver: TenureSaver) -> None:
    def converse(name: str) -> None:
        for number in range(1, 6):
            put(saver, name, number, [name, number])
            assert value_of(saver.get_tuple(config_of(name))) == [name, number]

    with ThreadPoolExecutor(CROWD) as threads:
        list(threads.map(converse, [f"thread {number}" for number in range(CROWD)]))


async def test_batches_of_large_and_small_states_do_not_mix_up(saver: TenureSaver) -> None:
    """Answers come in parts, and what fits into none is fetched apart."""
    sizes = [10, 3000, 60_000, 300_000, 4_000_000]
    names = [f"{number}" for number in range(40)]
    values = {name: [name] * (sizes[int(name) % len(sizes)] // 10) for name in names}
    await asyncio.gather(*(aput(saver, name, 1, value) for name, value in values.items()))
    saver.connection.held.clear()
    found = await asyncio.gather(*(saver.aget_tuple(config_of(name)) for name in names))
    assert {name: value_of(one) for name, one in zip(names, found, strict=True)} == values
    await saver.aclose()


async def test_tasks_that_are_cancelled_at_any_moment_harm_nobody(saver: TenureSaver) -> None:
    stopping = asyncio.Event()

    async def restless(number: int) -> None:
        while not stopping.is_set():
            work = asyncio.create_task(aput(saver, f"restless {number}", 1, "x"))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    others = [asyncio.create_task(restless(number)) for number in range(30)]
    await each_has_its_own(saver)
    stopping.set()
    await asyncio.gather(*others)
    await saver.aclose()


@contextmanager
def locked(database: Database, tenant_id: str, *threads: str) -> Iterator[Any]:
    """Hold the locks of threads until the transaction that this yields ends."""
    with psycopg.connect(database.admin_url) as other:
        found = other.execute(
            "SELECT FROM tenure.thread_head WHERE tenant_id = %s AND thread_id = ANY (%s) FOR UPDATE",
            [tenant_id, list(threads)],
        )
        assert found.rowcount == len(threads)
        yield other


def test_a_caller_whose_time_passes_leaves_its_neighbours_alone(stack: Stack) -> None:
    tenant = stack.new_tenant()
    with (
        TenureSaver(stack.target, api_key=tenant.api_key, timeout=PATIENT) as patient,
        TenureSaver(stack.target, api_key=tenant.api_key, timeout=0.5) as hasty,
        ThreadPoolExecutor(4) as threads,
    ):
        hasty.connection._channels = patient.connection._channels
        for name in ("busy", "free"):
            put(patient, name, 1, "one")
        with locked(stack.database, tenant.tenant_id, "busy") as other:
            late: Future[Any] = threads.submit(put, hasty, "busy", 2, "late")
            for number in range(2, 12):
                put(patient, "free", number, number)
            with pytest.raises((DeadlineExceeded, OutcomeUnknown)):
                late.result()
            other.rollback()
        put(patient, "busy", 2, "two")
        assert value_of(patient.get_tuple(config_of("busy"))) in ("late", "two")
        assert len(list(patient.list(config_of("free")))) == 11


async def one_locked_thread_delays_only_itself(
    stack: Stack, start: Callable[[TenureSaver, str, int], asyncio.Future[Any]]
) -> None:
    """Put busy and free threads together; the free ones are acknowledged while the others wait."""
    tenant = stack.new_tenant()
    with TenureSaver(stack.target, api_key=tenant.api_key, timeout=PATIENT) as saver:
        names = ["busy", "busy too", "busy alone", "free", "free too"]
        await asyncio.gather(*(start(saver, name, 1) for name in names))
        with locked(stack.database, tenant.tenant_id, *names[:3]) as other:
            late = []
            for busy, free in (("busy", "free"), ("busy too", "free too")):
                late.append(start(saver, busy, 2))
                await start(saver, free, 2)
            late.append(start(saver, "busy alone", 2))
            for number in range(3, 8):
                await start(saver, "free", number)
            assert not any(work.done() for work in late)
            other.rollback()
        await asyncio.gather(*late)
        for name in names[:3]:
            assert value_of(await saver.aget_tuple(config_of(name))) == 2
        await saver.aclose()


async def test_tasks_with_a_locked_thread_delay_only_themselves(stack: Stack) -> None:
    await one_locked_thread_delays_only_itself(
        stack, lambda saver, name, number: asyncio.create_task(aput(saver, name, number, number))
    )


async def test_threads_with_a_locked_thread_delay_only_themselves(stack: Stack) -> None:
    with ThreadPoolExecutor(8) as threads:
        await one_locked_thread_delays_only_itself(
            stack,
            lambda saver, name, number: asyncio.wrap_future(threads.submit(put, saver, name, number, number)),
        )


def each_colour(saver: TenureSaver) -> list[Callable[[str, int], object]]:
    return [
        lambda name, number: put(saver, name, number, number),
        lambda name, number: asyncio.run(aput(saver, name, number, number)),
    ]


def revoke(stack: Stack, key: str) -> None:
    parsed = ApiKey.parse(key)
    assert parsed is not None
    assert run(stack.database.tenants().revoke_key(TenantId(parsed.tenant), parsed.key_id))


def refused(work: Callable[[], object]) -> bool:
    try:
        work()
    except Unauthenticated:
        return True
    return False


def test_a_key_that_is_revoked_is_refused_in_a_session_that_is_open(stack: Stack) -> None:
    key = stack.new_tenant().api_key
    with TenureSaver(stack.target, api_key=key) as saver, asyncio.Runner() as loop:
        put(saver, "thread", 1, 1)
        loop.run(aput(saver, "thread", 2, 2))
        revoke(stack, key)

        wait_until(lambda: refused(lambda: put(saver, "thread", 1, 1)), "the revocation takes effect")
        wait_until(lambda: refused(lambda: loop.run(aput(saver, "thread", 2, 2))), "in the other colour")
        with pytest.raises(Unauthenticated):
            saver.get_tuple(config_of("thread"))
        loop.run(saver.aclose())


def test_a_key_that_may_only_read_reads_in_a_session_and_writes_nothing(stack: Stack) -> None:
    key = stack.new_tenant(("read",)).api_key
    with TenureSaver(stack.target, api_key=key) as saver:
        for work in each_colour(saver):
            with pytest.raises(PermissionDenied):
                work("thread", 1)
            assert saver.get_tuple(config_of("thread")) is None


def test_batches_whose_answer_is_lost_have_one_effect_and_are_acknowledged(stack: Stack) -> None:
    tenant = stack.new_tenant()
    with (
        FaultProxy(stack.target) as proxy,
        TenureSaver(proxy.target, api_key=tenant.api_key, timeout=PATIENT) as first,
        TenureSaver(proxy.target, api_key=tenant.api_key, timeout=PATIENT) as second,
    ):
        with writing([first, second]) as books:
            books.wait_for_more(20)
            # The id of a task is in each batch with pending writes, in the clear.
            proxy.cut_reply(b"\x04task", every=7)
            wait_until(lambda: proxy.cuts >= CUTS, "answers are lost")
            proxy.heal()
            books.wait_for_more(50)
        assert not books.errors
        assert_nothing_lost_or_doubled(first, books)


def test_connections_that_are_reset_cost_no_operation(stack: Stack) -> None:
    tenant = stack.new_tenant()
    with (
        FaultProxy(stack.target) as proxy,
        TenureSaver(proxy.target, api_key=tenant.api_key, timeout=PATIENT) as saver,
    ):
        with writing([saver]) as books:
            for number in range(CUTS):
                books.wait_for_more(10)
                (proxy.reset if number % 2 else proxy.cut)()
            books.wait_for_more(10)
        assert not books.errors
        assert_nothing_lost_or_doubled(saver, books)


def test_a_server_that_drains_and_comes_back_costs_no_operation(
    database: Database, redis_url: str, open_folder: Path
) -> None:
    with replicas(1, open_folder, database, redis_url) as (server,):
        tenant = Stack(server, database, redis_url).default
        with TenureSaver(server.target, api_key=tenant.api_key, timeout=PATIENT) as saver:
            with writing([saver]) as books:
                for _ in range(DRAINS):
                    books.wait_for_more(100)
                    assert server.stop() == 0
                    server.start()
                books.wait_for_more(100)
            assert not books.errors
            assert_nothing_lost_or_doubled(saver, books)


def test_closing_while_operations_run_loses_nothing(saver: TenureSaver) -> None:
    stop = threading.Event()

    def close() -> None:
        while not stop.wait(0.01):
            saver.close()

    with writing([saver]) as books:
        closing = threading.Thread(target=close)
        closing.start()
        books.wait_for_more(300)
        stop.set()
        closing.join()
        books.wait_for_more(30)
    assert books.errors.keys() <= {"OutcomeUnknown"}
    assert_nothing_lost_or_doubled(saver, books)
