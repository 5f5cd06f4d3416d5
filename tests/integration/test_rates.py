"""Rates and concurrency of tenants, over two replicas with a Redis that comes and goes.

Counts over a window that is long beside the bursts; no test says how long anything takes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from google.rpc import error_details_pb2
from tenure.v1 import checkpoints_pb2, checkpoints_pb2_grpc
from tenure_client import RateLimited, TenureSaver

from tests.harness.databases import PrivateRedis
from tests.harness.processes import PATIENCE
from tests.harness.server import ServerProcess
from tests.harness.stack import Stack, TenantHandle
from tests.integration.checkpoints_support import config_of, put, value_of
from tests.integration.quota_support import QuotaCaller, flood, quota_callers, reader, status_of
from tests.integration.wire_support import operation

WINDOW = 4.0
OK, REFUSED = grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture(scope="module")
def redis(run_folder: Path) -> Iterator[PrivateRedis]:
    """A Redis of this module, to be killed."""
    folder = run_folder / "rates"
    folder.mkdir()
    private = PrivateRedis(folder)
    yield private
    private.close()


@pytest.fixture(scope="module")
def replicas(run_folder: Path, stack: Stack, redis: PrivateRedis) -> Iterator[list[str]]:
    """Two servers that share one Redis."""
    with ExitStack() as running:
        servers = [ServerProcess(run_folder, stack.database, redis.url) for _ in range(2)]
        for server in servers:
            running.callback(server.close)
        yield [server.start().target for server in servers]


@pytest.fixture
def operator(stack: Stack) -> Iterator[QuotaCaller]:
    """An operator at QuotaService."""
    with quota_callers(stack.admin_target, stack.new_operator()) as (caller,):
        yield caller


def limited(stack: Stack, operator: QuotaCaller, **limits: float) -> TenantHandle:
    """Make a tenant with limits, which no replica has seen without them."""
    tenant = stack.new_tenant()
    operator.set(tenant.tenant_id, **limits)
    return tenant


def both_seen(redis: PrivateRedis) -> None:
    """Wait until Redis has counted both replicas, and both know."""
    import redis as client

    give_up = time.monotonic() + PATIENCE
    with client.Redis.from_url(redis.url) as connection:
        while connection.zcard("tr1:replicas") < 2:
            assert time.monotonic() < give_up
            time.sleep(0.05)
    # The first to come knows of the other with its next sign of life.
    time.sleep(6)


def test_two_replicas_together_let_the_rate_through(
    stack: Stack, operator: QuotaCaller, replicas: list[str]
) -> None:
    rate = 60.0
    tenant = limited(stack, operator, operations_per_second=rate, burst_seconds=0.5)
    started = time.monotonic()
    counted = flood(replicas, tenant.api_key, WINDOW)
    passed = time.monotonic() - started
    assert counted.keys() == {OK, REFUSED}
    # The rate for the whole time and one burst, and what each replica may owe or have left over.
    assert rate * (WINDOW + 0.5) * 0.95 - 8 <= counted[OK] <= rate * (passed + 0.5) * 1.03 + 8


def test_a_tenant_without_rates_is_not_held_to_any(
    stack: Stack, operator: QuotaCaller, replicas: list[str]
) -> None:
    tenant = stack.new_tenant()
    operator.set(tenant.tenant_id, operations_per_second=1.0)
    operator.set(tenant.tenant_id, operations_per_second=None)
    assert flood(replicas, tenant.api_key, 1.0).keys() == {OK}


def test_a_batch_costs_as_much_as_its_operations(
    stack: Stack, operator: QuotaCaller, replicas: list[str]
) -> None:
    tenant = limited(stack, operator, operations_per_second=50.0, burst_seconds=0.1)
    channel, read = reader(replicas[0], tenant.api_key)
    done = 0
    with channel:
        started = time.monotonic()
        while time.monotonic() < started + WINDOW:
            done += 25 * (read(25) is OK)
        passed = time.monotonic() - started
    assert 50 * WINDOW * 0.8 - 25 <= done <= 50 * (passed + 0.1) * 1.03 + 30


def test_bytes_are_counted(stack: Stack, operator: QuotaCaller, replicas: list[str]) -> None:
    tenant = limited(stack, operator, bytes_per_second=200_000, burst_seconds=0.1)
    size = 50_000
    with TenureSaver(replicas[0], api_key=tenant.api_key, timeout=30) as saver:
        started = time.monotonic()
        puts = 0
        while time.monotonic() < started + WINDOW:
            puts += 1
            # The client waits for its turn by itself.
            put(saver, "thread", puts, os.urandom(size))
        passed = time.monotonic() - started
    assert 4 <= puts <= 200_000 * (passed + 0.1) * 1.05 / size + 2
    channel, read = reader(replicas[0], tenant.api_key)
    with TenureSaver(replicas[0], api_key=tenant.api_key, timeout=30) as fresh, channel:
        assert len(list(fresh.list(config_of("thread")))) == puts
        # The listing was let through; what it cost is owed.
        assert read(1) is REFUSED


def test_a_refusal_says_what_is_used_up_and_when_to_come_back(
    stack: Stack, operator: QuotaCaller, replicas: list[str]
) -> None:
    tenant = limited(stack, operator, operations_per_second=0.5, burst_seconds=0.1)
    metadata = (("authorization", f"Bearer {tenant.api_key}"),)
    with grpc.insecure_channel(replicas[0]) as channel:
        stub: Any = checkpoints_pb2_grpc.CheckpointServiceStub(channel)
        request = checkpoints_pb2.ListThreadsRequest(operation=operation())
        stub.ListThreads(request, metadata=metadata)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ListThreads(request, metadata=metadata)
    error: Any = caught.value
    assert error.code() is REFUSED
    assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
    kinds = {
        type(detail): detail
        for packed in status_of(error).details
        for detail in (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.QuotaFailure(),
            error_details_pb2.RetryInfo(),
        )
        if packed.Unpack(detail)
    }
    assert kinds[error_details_pb2.ErrorInfo].reason == "ERROR_REASON_RATE_LIMITED"
    (violation,) = kinds[error_details_pb2.QuotaFailure].violations
    assert violation.subject == "operations_per_second"
    assert kinds[error_details_pb2.RetryInfo].retry_delay.ToMilliseconds() > 0


def test_the_client_waits_for_its_turn_while_there_is_time(
    stack: Stack, operator: QuotaCaller, replicas: list[str]
) -> None:
    tenant = limited(stack, operator, operations_per_second=10.0, burst_seconds=0.1)
    with TenureSaver(replicas[0], api_key=tenant.api_key, timeout=30) as saver:
        for number in range(1, 16):
            put(saver, "thread", number, number)
        assert value_of(saver.get_tuple(config_of("thread"))) == 15


def test_the_client_does_not_wait_for_a_turn_that_comes_too_late(
    stack: Stack, operator: QuotaCaller, replicas: list[str]
) -> None:
    # One operation in 10 seconds, and nothing saved up beyond it.
    tenant = limited(stack, operator, operations_per_second=0.1, burst_seconds=10.0)
    with TenureSaver(replicas[0], api_key=tenant.api_key, timeout=3) as hasty:
        assert list(hasty.list(None)) == []
        with pytest.raises(RateLimited) as caught:
            list(hasty.list(None))
    assert (caught.value.limit, caught.value.maximum) == ("operations_per_second", 0.1)


def test_sessions_and_streams_pay_as_calls_do(
    stack: Stack, operator: QuotaCaller, replicas: list[str]
) -> None:
    tenant = limited(stack, operator, operations_per_second=20.0, burst_seconds=0.1)
    done = 0
    with TenureSaver(replicas[0], api_key=tenant.api_key, timeout=30) as saver:
        started = time.monotonic()
        while time.monotonic() < started + WINDOW:
            if done % 2:
                assert list(saver.list(config_of("none"))) == []
            else:
                assert saver.get_tuple(config_of("none")) is None
            done += 1
        passed = time.monotonic() - started
    assert done <= 20 * (passed + 0.1) * 1.03 + 3


def test_new_rates_reach_a_replica_that_serves_the_tenant(
    stack: Stack, operator: QuotaCaller, replicas: list[str]
) -> None:
    tenant = stack.new_tenant()
    channel, read = reader(replicas[1], tenant.api_key)
    with channel:
        assert read(1) is OK
        operator.set(tenant.tenant_id, operations_per_second=1.0, burst_seconds=0.1)
        give_up = time.monotonic() + PATIENCE
        while read(1) is OK:
            assert time.monotonic() < give_up
        operator.set(tenant.tenant_id, operations_per_second=None)
        refusals = 1
        while refusals:
            assert time.monotonic() < give_up
            refusals = sum(read(1) is not OK for _ in range(20))


def test_so_many_calls_run_at_once(stack: Stack, operator: QuotaCaller, replicas: list[str]) -> None:
    tenant = limited(stack, operator, max_concurrency=3)
    free = stack.new_tenant()
    with (
        TenureSaver(replicas[0], api_key=tenant.api_key) as saver,
        psycopg.connect(stack.database.admin_url) as holder,
    ):
        put(saver, "held", 1, "one")
        holder.execute(
            "SELECT FROM tenure.thread_head WHERE tenant_id = %s AND thread_id = 'held' FOR UPDATE",
            [tenant.tenant_id],
        )
        channel = grpc.insecure_channel(replicas[0])
        stub: Any = checkpoints_pb2_grpc.CheckpointServiceStub(channel)
        metadata = (("authorization", f"Bearer {tenant.api_key}"),)
        outcomes: list[grpc.StatusCode] = []
        changed = threading.Condition()

        def delete() -> None:
            request = checkpoints_pb2.DeleteThreadRequest(
                operation=operation(timeout_ms=30_000), thread_id="held"
            )
            try:
                stub.DeleteThread(request, metadata=metadata, timeout=30)
                code = OK
            except grpc.RpcError as error:
                code = error.code()
            with changed:
                outcomes.append(code)
                changed.notify_all()

        waiting = [threading.Thread(target=delete) for _ in range(8)]
        for thread in waiting:
            thread.start()
        with changed:
            assert changed.wait_for(lambda: len(outcomes) == 5, PATIENCE)
            assert set(outcomes) == {REFUSED}
        _, read = reader(replicas[0], free.api_key)
        assert read(1) is OK
        holder.rollback()
        for thread in waiting:
            thread.join()
        channel.close()
    assert outcomes.count(OK) == 3


def test_while_redis_is_away_each_replica_lets_its_share_through(
    stack: Stack, operator: QuotaCaller, replicas: list[str], redis: PrivateRedis
) -> None:
    rate = 60.0
    tenant = limited(stack, operator, operations_per_second=rate, burst_seconds=0.5)
    both_seen(redis)
    redis.kill()
    try:
        started = time.monotonic()
        both = flood(replicas, tenant.api_key, WINDOW)[OK]
        passed = time.monotonic() - started
        assert rate * WINDOW * 0.9 - 10 <= both <= rate * (passed + 0.5) * 1.05 + 10
        started = time.monotonic()
        one = flood(replicas[:1], tenant.api_key, WINDOW)[OK]
        passed = time.monotonic() - started
        assert rate / 2 * WINDOW * 0.9 - 10 <= one <= rate / 2 * (passed + 0.5) * 1.05 + 10
    finally:
        redis.start()
    again = flood(replicas, tenant.api_key, WINDOW)[OK]
    assert rate * WINDOW * 0.8 <= again


def test_a_server_without_redis_lets_the_configured_share_through(
    stack: Stack, operator: QuotaCaller, run_folder: Path
) -> None:
    rate = 60.0
    tenant = limited(stack, operator, operations_per_second=rate, burst_seconds=0.5)
    server = ServerProcess(run_folder, stack.database, env={"TENURE_REPLICAS": "3"})
    try:
        started = time.monotonic()
        done = flood([server.start().target], tenant.api_key, WINDOW)[OK]
        passed = time.monotonic() - started
    finally:
        server.close()
    assert rate / 3 * WINDOW * 0.9 - 5 <= done <= rate / 3 * (passed + 0.5) * 1.05 + 5
