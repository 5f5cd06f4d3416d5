"""Batches of a session for which nobody waits any more, on a real gRPC server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from tenure.v1 import checkpoints_pb2 as pb
from tenure_server.services import sessions

from tests.harness.waiting import until
from tests.unit.server.serving import Served, Stream, serving, write
from tests.unit.server.storing import batch, get, put, search

MOST = sessions._MAX_BATCHES


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as opened:
        yield opened
        opened.items.searches.set()
        opened.store.open.set()


@pytest.mark.parametrize("told", [False, True], ids=["at once", "when it has been said to take longer"])
async def test_a_batch_that_is_given_up_in_a_session_takes_its_searches_along(
    served: Served, told: bool
) -> None:
    served.items.searches.clear()
    stream = Stream(served)
    for _ in range(MOST + 1):
        sent = await stream.send(batch(search(), search()))
        await until(lambda: served.items.running == 2)
        if told:
            part = await stream.receive()
            assert part is not None
            assert part.more
        await stream.give_up(sent)

        answer = await stream.receive()
        assert answer is not None
        assert (answer.call_id, answer.status.code) == (sent, grpc.StatusCode.CANCELLED.value[0])
        assert served.items.running == 0
    assert not (await stream.ask(batch(get("a")))).HasField("status")
    stream.call.cancel()
    await until(lambda: not +served.admission._running)


async def test_giving_up_what_is_not_under_way_does_nothing(served: Served) -> None:
    stream = Stream(served)
    answered = await stream.ask(batch(put("a")))
    for call_id in (answered.call_id, 4711, 0):
        for _ in range(MOST):
            await stream.give_up(call_id)

    assert list((await stream.ask(batch(get("a")))).store.results)


@pytest.mark.parametrize("more", [True, False])
async def test_what_is_being_sent_is_not_broken_off(more: bool) -> None:
    """A write that is cancelled leaves gRPC unable to take the next one."""
    batch = sessions._Batch(1)
    sending, sent = asyncio.Event(), asyncio.Event()

    async def serve() -> None:
        with batch.sending(pb.SessionResponse(more=more)):
            sending.set()
            await sent.wait()
        await asyncio.sleep(60 if more else 0)

    batch.task = asyncio.create_task(serve())
    await sending.wait()
    for _ in range(2):
        batch.give_up()
    await asyncio.sleep(0.01)
    assert not batch.task.done()
    sent.set()
    await asyncio.wait([batch.task], timeout=30)
    assert batch.task.cancelled() is more
    assert batch.task.cancelling() == int(more)


async def test_a_write_may_be_given_up_too(served: Served) -> None:
    stream = Stream(served)
    served.store.open.clear()
    sent = await stream.send(write("a"))
    await until(lambda: served.store.running == 1)
    await stream.give_up(sent)

    answer = await stream.receive()
    assert answer is not None
    assert (answer.call_id, answer.status.code) == (sent, grpc.StatusCode.CANCELLED.value[0])
    assert served.store.running == 0


async def test_parts_that_follow_at_once_are_all_sent() -> None:
    batch, sent = sessions._Batch(1), []

    async def serve() -> None:
        for number, more in enumerate([True, True, False]):
            with batch.sending(pb.SessionResponse(more=more)):
                if number == 0:
                    batch.give_up()
                    await asyncio.sleep(0.01)
                else:
                    await asyncio.sleep(0)
                sent.append(number)

    batch.task = asyncio.create_task(serve())
    await asyncio.wait([batch.task], timeout=30)
    assert sent == [0, 1, 2]
    assert not batch.task.cancelled()


async def test_what_is_given_up_as_its_session_ends_is_not_answered() -> None:
    batch = sessions._Batch(1)
    answered = []

    async def serve() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            answered.append(batch.given_up())
            raise

    batch.task = asyncio.create_task(serve())
    await asyncio.sleep(0)
    batch.give_up()
    batch.task.cancel()
    await asyncio.wait([batch.task], timeout=30)
    assert answered == [False]
