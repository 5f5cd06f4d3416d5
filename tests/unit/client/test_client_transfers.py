"""Few large values are moved at a time; the others wait in the client, each for its own time."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from tenure.v1 import checkpoints_pb2 as pb
from tenure_client import DeadlineExceeded, TenureSaver

from tests.harness.processes import PATIENCE
from tests.unit.client import scripted

MIB = 1 << 20
AT_ONCE = 2
MANY = 7
ROUND_TRIPS = 100
"""In which an upload that did not wait would have arrived; reads do not wait for uploads."""
READ: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
SHORT = 0.5
"""Seconds; a put gets one more for each 4 MiB."""


class Gate:
    """Answers the first uploads once it is opened; others are answered at once."""

    def __init__(self) -> None:
        self._open = False
        self._changed = threading.Condition()
        self._held = 0

    def __call__(self, _context: Any) -> pb.WriteSlicedResponse:
        with self._changed:
            self._held += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._open, PATIENCE)
        return pb.WriteSlicedResponse(results=[pb.MutationResult()])

    def wait_until_full(self) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._held == AT_ONCE, PATIENCE)

    def open(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify_all()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open()


@pytest.fixture
def server(gate: Gate) -> Iterator[scripted.Script]:
    with scripted.running() as script:
        script.answers.extend([gate] * AT_ONCE)
        yield script
        gate.open()


def uploads(server: scripted.Script) -> int:
    return [seen.method for seen in server.seen].count("WriteSliced")


def arguments(number: int, size: int) -> tuple[Any, ...]:
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"state": os.urandom(size)}
    checkpoint["channel_versions"] = {"state": "1"}
    config = {"configurable": {"thread_id": f"{number}", "checkpoint_ns": ""}}
    return config, checkpoint, {}, checkpoint["channel_versions"]


def test_two_threads_upload_at_a_time(server: scripted.Script, gate: Gate) -> None:
    with TenureSaver(server.target, api_key="tn_x") as saver, ThreadPoolExecutor(MANY) as threads:
        puts = [threads.submit(saver.put, *arguments(number, 2 * MIB)) for number in range(MANY)]
        gate.wait_until_full()
        for _ in range(ROUND_TRIPS):
            saver.get_tuple(READ)
        assert uploads(server) == AT_ONCE
        gate.open()
        for put in puts:
            put.result()
    assert uploads(server) == MANY


async def test_two_tasks_upload_at_a_time(server: scripted.Script, gate: Gate) -> None:
    async with TenureSaver(server.target, api_key="tn_x") as saver:
        puts = [asyncio.create_task(saver.aput(*arguments(number, 2 * MIB))) for number in range(MANY)]
        await asyncio.to_thread(gate.wait_until_full)
        for _ in range(ROUND_TRIPS):
            await saver.aget_tuple(READ)
        assert uploads(server) == AT_ONCE
        gate.open()
        await asyncio.gather(*puts)
    assert uploads(server) == MANY


def test_a_thread_that_waits_for_others_gives_up_in_its_own_time(server: scripted.Script, gate: Gate) -> None:
    with (
        TenureSaver(server.target, api_key="tn_x", timeout=SHORT) as saver,
        ThreadPoolExecutor(AT_ONCE) as threads,
    ):
        others = [threads.submit(saver.put, *arguments(number, 32 * MIB)) for number in range(AT_ONCE)]
        gate.wait_until_full()
        with pytest.raises(DeadlineExceeded, match="waited for other large values") as caught:
            saver.put(*arguments(9, 2 * MIB))
        assert not caught.value.maybe_applied
        gate.open()
        for other in others:
            other.result()
    assert uploads(server) == AT_ONCE


async def test_a_task_that_waits_for_others_gives_up_in_its_own_time_or_when_it_is_cancelled(
    server: scripted.Script, gate: Gate
) -> None:
    async with TenureSaver(server.target, api_key="tn_x", timeout=SHORT) as saver:
        others = [asyncio.create_task(saver.aput(*arguments(number, 32 * MIB))) for number in range(AT_ONCE)]
        await asyncio.to_thread(gate.wait_until_full)
        cancelled = asyncio.create_task(saver.aput(*arguments(8, 16 * MIB)))
        with pytest.raises(DeadlineExceeded, match="waited for other large values") as caught:
            await saver.aput(*arguments(9, 2 * MIB))
        cancelled.cancel()
        assert not caught.value.maybe_applied
        gate.open()
        await asyncio.gather(*others)
        assert cancelled.cancelled()
        assert uploads(server) == AT_ONCE
        # Neither has taken a place with it.
        await asyncio.gather(*(saver.aput(*arguments(number, 2 * MIB)) for number in range(AT_ONCE)))
