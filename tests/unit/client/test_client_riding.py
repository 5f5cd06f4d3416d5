"""How tasks wait for what they put into a lane: each for its own time, whatever its neighbours do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tenure.v1 import checkpoints_pb2 as pb
from tenure_client.calls import Call, Shape
from tenure_client.errors import DeadlineExceeded
from tenure_client.riding import TaskRides

from tests.unit.client.sending import Sent


def call(mutation: pb.Mutation, seconds: float) -> Call:
    made = Call("Write", mutation, mutation.operation, shape=Shape.BATCHED)
    made.timeout = seconds
    return made


def put(name: str, seconds: float = 60) -> Call:
    return call(pb.Mutation(put=pb.PutCheckpoint(ref=pb.CheckpointRef(thread_id=name))), seconds)


def writes(name: str) -> Call:
    return call(pb.Mutation(put_writes=pb.PutWrites(ref=pb.CheckpointRef(thread_id=name))), 60)


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
async def rides(sent: Sent) -> TaskRides:
    return TaskRides(asyncio.get_running_loop(), sent.lane)


async def start(rides: TaskRides, *given: Call) -> list[asyncio.Task[Any]]:
    """Ride with all of these and return when those that do not wait for company have left."""
    tasks = [asyncio.create_task(rides.ride(one)) for one in given]
    for _ in range(2):
        await asyncio.sleep(0)
    return tasks


async def test_what_rides_in_one_tick_travels_together(sent: Sent, rides: TaskRides) -> None:
    tasks = await start(rides, put("a"), put("b"))
    assert sent.names == [["a", "b"]]
    sent.batches[0].answer(sent.batches[0].results(1, 2))

    assert [outcome.status.code for outcome in await asyncio.gather(*tasks)] == [1, 2]


async def test_each_rider_waits_its_own_time(sent: Sent, rides: TaskRides) -> None:
    long, late, later = await start(rides, put("long"), put("late", 0.01), put("later", 0.02))

    outcomes = [await late, await later]
    assert all(isinstance(one, DeadlineExceeded) and one.maybe_applied for one in outcomes)
    assert not long.done()
    sent.batches[0].answer(sent.batches[0].results())
    assert (await long).status.code == 0


async def test_deadlines_are_kept_after_there_were_none_for_a_while(sent: Sent, rides: TaskRides) -> None:
    for name in "ab":
        (task,) = await start(rides, put(name, 0.01))
        assert isinstance(await task, DeadlineExceeded)


async def test_a_rider_that_is_cancelled_before_it_left_is_not_sent(sent: Sent, rides: TaskRides) -> None:
    for name in "ab":
        await start(rides, put(name))
    gone, neighbour = await start(rides, put("gone"), put("neighbour"))
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    sent.batches[0].answer(sent.batches[0].results())
    sent.batches[2].answer(sent.batches[2].results())

    assert sent.names[2:] == [["neighbour"]]
    assert (await neighbour).status.code == 0


async def test_pending_writes_leave_alone_if_nothing_joins_them(sent: Sent, rides: TaskRides) -> None:
    for name in "ab":
        left = asyncio.Event()
        sent.on_batch = left.set
        (task,) = await start(rides, writes(name))
        assert sent.names[-1:] != [[name]], "it waits for company"
        await left.wait()
        sent.batches[-1].answer(sent.batches[-1].results())
        assert (await task).status.code == 0

    assert sent.names == [["a"], ["b"]]
