"""Many large values at once, up and down: all arrive, and whoever is refused is told why or comes again."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1.common_pb2 import Slice
from tenure_client import TenureSaver, Unauthenticated, connection
from tenure_client.statuses import from_rpc

from tests.harness.processes import PATIENCE
from tests.harness.stack import Stack, TenantHandle
from tests.integration.checkpoints_support import checkpoint, config_of, value_of, wait_until
from tests.integration.wire_support import Wire

MIB = 1 << 20
MANY = 20
LARGE = 3 * MIB
PER_TENANT = 4
"""Sliced transfers of a tenant that a server takes at a time."""


@pytest.fixture
def tenant(stack: Stack) -> TenantHandle:
    return stack.new_tenant()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the attempts that failed, by the error."""
    errors: Counter[str] = Counter()

    def spy(failure: grpc.RpcError) -> Any:
        error = from_rpc(failure)
        errors[type(error).__name__] += 1
        return error

    monkeypatch.setattr(connection, "from_rpc", spy)
    return errors


def incompressible(number: int, size: int = LARGE) -> bytes:
    return random.Random(number).randbytes(size)


def arguments(number: int, size: int = LARGE) -> tuple[Any, ...]:
    """Return the arguments of a put into a thread of its own."""
    made = checkpoint(1, incompressible(number, size))
    return config_of(f"t{number}"), made, {}, made["channel_versions"]


def test_twenty_threads_put_and_read_large_values_at_once(
    stack: Stack, tenant: TenantHandle, seen: Counter[str]
) -> None:
    with ThreadPoolExecutor(MANY) as threads:
        with TenureSaver(stack.target, api_key=tenant.api_key) as saver:
            list(threads.map(lambda number: saver.put(*arguments(number)), range(MANY)))
        # Another client: the first one holds the values, and would be sent nothing.
        with TenureSaver(stack.target, api_key=tenant.api_key) as reader:
            found = list(threads.map(lambda n: reader.get_tuple(config_of(f"t{n}")), range(MANY)))
    assert [value_of(item) for item in found] == [incompressible(number) for number in range(MANY)]
    assert not seen, "one client alone asks for more than its tenant may have"


async def test_twenty_tasks_put_and_read_large_values_at_once(
    stack: Stack, tenant: TenantHandle, seen: Counter[str]
) -> None:
    async with TenureSaver(stack.target, api_key=tenant.api_key) as saver:
        await asyncio.gather(*(saver.aput(*arguments(number)) for number in range(MANY)))
    async with TenureSaver(stack.target, api_key=tenant.api_key) as reader:
        found = await asyncio.gather(*(reader.aget_tuple(config_of(f"t{n}")) for n in range(MANY)))
    assert [value_of(item) for item in found] == [incompressible(number) for number in range(MANY)]
    assert not seen, "one client alone asks for more than its tenant may have"


async def test_many_clients_of_a_tenant_put_large_values_at_once(
    stack: Stack, tenant: TenantHandle, seen: Counter[str]
) -> None:
    with ExitStack() as clients:
        savers = [
            clients.enter_context(TenureSaver(stack.target, api_key=tenant.api_key)) for _ in range(MANY)
        ]
        await asyncio.gather(*(saver.aput(*arguments(n)) for n, saver in enumerate(savers)))
        found = await asyncio.gather(
            *(saver.aget_tuple(config_of(f"t{n}")) for n, saver in enumerate([*savers[1:], savers[0]]))
        )
        for saver in savers:
            await saver.aclose()
    assert [value_of(item) for item in found] == [incompressible(number) for number in range(MANY)]
    assert seen.keys() <= {"Overloaded", "Unavailable"}


@contextmanager
def occupied(stack: Stack, tenant: TenantHandle) -> Iterator[None]:
    """Hold all slots of a tenant while the block runs."""
    free = threading.Event()

    def body() -> Iterator[pb.WriteSlicedRequest]:
        yield pb.WriteSlicedRequest(slice=Slice(data=b"a", total_bytes=2))
        free.wait(PATIENCE)
        yield pb.WriteSlicedRequest(slice=Slice(data=b"b"))

    with (
        Wire(stack.target, tenant.api_key) as wire,
        ThreadPoolExecutor(PER_TENANT + 1) as threads,
    ):
        uploads = [threads.submit(wire.start("WriteSliced", body())) for _ in range(PER_TENANT + 1)]
        try:
            # Once one is refused, the others have all the slots.
            ended, _ = wait(uploads, PATIENCE, return_when=FIRST_COMPLETED)
            assert [upload.result().code for upload in ended] == [grpc.StatusCode.RESOURCE_EXHAUSTED]
            yield
        finally:
            free.set()


async def test_tasks_that_are_refused_come_again(
    stack: Stack, tenant: TenantHandle, seen: Counter[str]
) -> None:
    async with TenureSaver(stack.target, api_key=tenant.api_key) as saver:
        with occupied(stack, tenant):
            puts = [asyncio.create_task(saver.aput(*arguments(number))) for number in range(PER_TENANT)]
            await asyncio.to_thread(wait_until, lambda: seen["Overloaded"], "a put is refused")
        await asyncio.gather(*puts)
        found = [await saver.aget_tuple(config_of(f"t{number}")) for number in range(PER_TENANT)]
    assert [value_of(item) for item in found] == [incompressible(number) for number in range(PER_TENANT)]


def test_threads_that_are_refused_come_again(stack: Stack, tenant: TenantHandle, seen: Counter[str]) -> None:
    with (
        TenureSaver(stack.target, api_key=tenant.api_key) as saver,
        ThreadPoolExecutor(PER_TENANT) as threads,
    ):
        with occupied(stack, tenant):
            puts = [threads.submit(saver.put, *arguments(number)) for number in range(PER_TENANT)]
            wait_until(lambda: seen["Overloaded"], "a put is refused")
        for put in puts:
            put.result()
        found = [saver.get_tuple(config_of(f"t{number}")) for number in range(PER_TENANT)]
    assert [value_of(item) for item in found] == [incompressible(number) for number in range(PER_TENANT)]


async def test_an_upload_that_is_refused_while_it_is_sent_ends_in_the_servers_error(stack: Stack) -> None:
    """gRPC for asyncio loses the status where a message fails to be sent: asked again, it is told."""
    async with TenureSaver(stack.target, api_key="tn_unknown") as saver:
        for _ in range(MANY):
            puts = (saver.aput(*arguments(number, 2 * MIB)) for number in range(3))
            ends = await asyncio.gather(*puts, return_exceptions=True)
            assert {type(end) for end in ends} == {Unauthenticated}
