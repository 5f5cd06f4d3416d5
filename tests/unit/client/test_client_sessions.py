"""Operations that share batches on sessions, over real gRPC; every test runs in both colours."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from langgraph.checkpoint.base import empty_checkpoint
from tenure.v1 import checkpoints_pb2 as pb
from tenure_client import (
    DeadlineExceeded,
    InvalidRequest,
    OutcomeUnknown,
    TenureSaver,
    Unauthenticated,
    Unavailable,
)
from tenure_client.lanes import MAX_IN_FLIGHT

from tests.harness.waiting import until
from tests.unit.client import scripted
from tests.unit.client.scripted import Answer, Script, fail, lose, reply

KEY = "tn_tenant_id_secret"
NOTHING = pb.ReadResponse(results=[pb.ReadResult()])
CROWD = 40
PATIENCE = 30.0


def config_of(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}


class Threads:
    """Runs a saver's blocking methods, each in a thread."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._pool = ThreadPoolExecutor(2 * CROWD)
        self.savers: list[TenureSaver] = []

    def saver(self, timeout: float = PATIENCE) -> TenureSaver:
        self.savers.append(TenureSaver(self._target, api_key=KEY, timeout=timeout))
        return self.savers[-1]

    def start(self, saver: TenureSaver, method: str, *args: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._pool, getattr(saver, method), *args)

    def put(self, saver: TenureSaver, thread_id: str) -> asyncio.Future[Any]:
        return self.start(saver, "put", config_of(thread_id), empty_checkpoint(), {}, {})

    async def close(self) -> None:
        for saver in self.savers:
            saver.close()
        self._pool.shutdown()


class Tasks(Threads):
    """Runs their asynchronous twins, each in a task."""

    def start(self, saver: TenureSaver, method: str, *args: Any) -> asyncio.Future[Any]:
        return asyncio.ensure_future(getattr(saver, "a" + method)(*args))

    async def close(self) -> None:
        for saver in self.savers:
            await saver.aclose()
        await super().close()


@pytest.fixture
def server() -> Iterator[Script]:
    with scripted.running() as script:
        yield script


@pytest.fixture(params=[Threads, Tasks])
async def callers(request: pytest.FixtureRequest, server: Script) -> Any:
    opened = request.param(server.target)
    yield opened
    await opened.close()


class Held:
    """Answers that wait until they are let go."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.open = threading.Event()

    def then(self, answer: Answer) -> Answer:
        def wait(context: Any) -> Any:
            self.asked.release()
            self.open.wait(PATIENCE)
            return answer(context)

        return wait

    async def wait_for(self, number: int) -> None:
        """Return once so many batches have arrived."""
        for _ in range(number):
            assert await asyncio.to_thread(self.asked.acquire, timeout=PATIENCE)


@pytest.fixture
def held() -> Iterator[Held]:
    gate = Held()
    yield gate
    gate.open.set()


def results(*codes: int) -> pb.WriteResponse:
    return pb.WriteResponse(
        results=[pb.MutationResult(status=status_pb2.Status(code=code)) for code in codes]
    )


def threads_of(batch: scripted.Seen) -> list[str]:
    return [mutation.put.ref.thread_id for mutation in batch.request.mutations]


async def hold_the_lane(
    callers: Threads, server: Script, held: Held, saver: TenureSaver, answer: Answer | None = None
) -> list[asyncio.Future[Any]]:
    """Put so much that no further batch leaves until `held` opens."""
    answers = [held.then(answer or reply(results(0))) for _ in range(MAX_IN_FLIGHT)]
    server.answers += answers
    running = []
    for number in range(MAX_IN_FLIGHT):
        running.append(callers.put(saver, f"first {number}"))
        await held.wait_for(1)
    return running


def waiting_in(saver: TenureSaver) -> Callable[[], int]:
    """Return what counts the writes that have not left."""
    channels = saver.connection._channels
    pool = channels._sync or next(iter(channels._aio.values()))
    return lambda: len(pool.writes._lane._pending)


async def crowd(callers: Threads, saver: TenureSaver, *names: str) -> list[asyncio.Future[Any]]:
    """Put all of these in this order; they wait in the lane."""
    waiting, before = [], waiting_in(saver)()
    for number, name in enumerate(names, 1):
        waiting.append(callers.put(saver, name))
        await until(lambda number=number: waiting_in(saver)() == before + number)
    return waiting


async def test_a_crowd_travels_in_few_batches_on_one_session(
    server: Script, callers: Threads, held: Held
) -> None:
    saver = callers.saver()
    first = await hold_the_lane(callers, server, held, saver)
    names = [f"thread {number}" for number in range(CROWD)]
    waiting = await crowd(callers, saver, *names)
    held.open.set()
    await asyncio.gather(*first, *waiting)

    assert len(server.seen) == MAX_IN_FLIGHT + 1
    assert threads_of(server.seen[-1]) == names
    assert len({bytes(one.operation_id) for one in server.seen[-1].operations}) == CROWD
    assert server.sessions == 1


async def test_reads_do_not_wait_for_writes(server: Script, callers: Threads, held: Held) -> None:
    saver = callers.saver()
    first = await hold_the_lane(callers, server, held, saver)

    assert await callers.start(saver, "get_tuple", config_of("t")) is None
    assert not any(one.done() for one in first)
    held.open.set()
    await asyncio.gather(*first)


async def test_one_that_fails_fails_alone(server: Script, callers: Threads, held: Held) -> None:
    saver = callers.saver()
    first = await hold_the_lane(callers, server, held, saver)
    server.answers.append(reply(results(0, grpc.StatusCode.INVALID_ARGUMENT.value[0], 0)))
    before, wrong, after = await crowd(callers, saver, "before", "wrong", "after")
    held.open.set()

    await asyncio.gather(*first, before, after)
    with pytest.raises(InvalidRequest):
        await wrong
    assert len(server.seen) == MAX_IN_FLIGHT + 1, "nothing is repeated"


async def test_one_that_is_to_be_repeated_is_repeated_alone(
    server: Script, callers: Threads, held: Held
) -> None:
    saver = callers.saver()
    first = await hold_the_lane(callers, server, held, saver)
    server.answers.append(reply(results(0, grpc.StatusCode.ABORTED.value[0], 0)))
    waiting = await crowd(callers, saver, "before", "again", "after")
    held.open.set()

    await asyncio.gather(*first, *waiting)
    assert [threads_of(seen) for seen in server.seen[-2:]] == [["before", "again", "after"], ["again"]]
    assert server.seen[-1].operations[0].operation_id == server.seen[-2].operations[1].operation_id


@pytest.mark.parametrize("sent", [True, False], ids=["under way", "waiting"])
async def test_a_caller_whose_time_passes_leaves_its_neighbours_alone(
    server: Script, callers: Threads, held: Held, sent: bool
) -> None:
    patient = callers.saver()
    hasty = callers.saver(0.3)
    hasty.connection._channels = patient.connection._channels
    first = await hold_the_lane(callers, server, held, patient)
    if sent:
        release, held = held, Held()
        server.answers.append(held.then(reply(results(0, 0, 0))))
    before, late, after = (
        *await crowd(callers, patient, "before"),
        *await crowd(callers, hasty, "late"),
        *await crowd(callers, patient, "after"),
    )
    if sent:
        release.open.set()
        await held.wait_for(1)

    with pytest.raises((OutcomeUnknown, DeadlineExceeded)) as raised:
        await late
    assert isinstance(raised.value, OutcomeUnknown if sent else DeadlineExceeded)
    assert not before.done()
    assert not after.done()
    held.open.set()
    await asyncio.gather(*first, before, after)
    assert threads_of(server.seen[-1]) == (["before", "late", "after"] if sent else ["before", "after"])


async def test_a_task_that_is_cancelled_leaves_its_neighbours_alone(server: Script, held: Held) -> None:
    callers = Tasks(server.target)
    saver = callers.saver()
    first = await hold_the_lane(callers, server, held, saver)
    before, gone, after = await crowd(callers, saver, "before", "gone", "after")
    gone.cancel()
    first[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    held.open.set()

    await asyncio.gather(*first[1:], before, after)
    assert threads_of(server.seen[-1]) == ["before", "after"]
    await callers.close()


async def test_the_server_is_told_of_reads_for_which_no_task_waits(server: Script, held: Held) -> None:
    callers = Tasks(server.target)
    saver = callers.saver()
    server.answers += [held.then(reply(results(0))), held.then(reply(NOTHING))]
    put = callers.put(saver, "t")
    get = callers.start(saver, "get_tuple", config_of("t"))
    await held.wait_for(2)
    put.cancel()
    get.cancel()

    await until(lambda: server.given_up)
    await callers.put(saver, "next")
    assert server.given_up == [2]
    await callers.close()


async def test_the_server_is_told_of_reads_that_are_late(
    server: Script, callers: Threads, held: Held
) -> None:
    server.answers.append(held.then(reply(NOTHING)))
    with pytest.raises(DeadlineExceeded):
        await callers.start(callers.saver(0.3), "get_tuple", config_of("t"))

    await until(lambda: server.given_up == [1])


def test_a_loop_that_ends_amid_operations_ends_quietly(
    server: Script, held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers += [held.then(reply(results(0))), held.then(reply(NOTHING))]

    async def leave() -> None:
        saver = TenureSaver(server.target, api_key=KEY)
        running = [
            asyncio.ensure_future(saver.aput(config_of("t"), empty_checkpoint(), {}, {})),
            asyncio.ensure_future(saver.aget_tuple(config_of("t"))),
        ]
        await held.wait_for(len(running))

    asyncio.run(leave())
    gc.collect()
    assert caplog.messages == []


async def test_when_all_callers_of_a_batch_are_cancelled_the_next_one_leaves(
    server: Script, held: Held
) -> None:
    callers = Tasks(server.target)
    saver = callers.saver()
    first = await hold_the_lane(callers, server, held, saver)
    (waiting,) = await crowd(callers, saver, "next")
    for one in first:
        one.cancel()

    await waiting
    assert not held.open.is_set()
    held.open.set()
    await callers.close()


async def test_each_operation_tells_the_server_its_own_time(
    server: Script, callers: Threads, held: Held
) -> None:
    patient = callers.saver(20)
    hasty = callers.saver(5)
    hasty.connection._channels = patient.connection._channels
    first = await hold_the_lane(callers, server, held, patient)
    waiting = await crowd(callers, patient, "patient") + await crowd(callers, hasty, "hasty")
    held.open.set()
    await asyncio.gather(*first, *waiting)

    told = [operation.timeout_ms for operation in server.seen[-1].operations]
    assert 5000 < told[0] < 20_000
    assert 0 < told[1] < 5000


ENDINGS = [
    lose(grpc.StatusCode.OK),
    lose(grpc.StatusCode.UNAVAILABLE),
    lose(grpc.StatusCode.CANCELLED),
    lose(grpc.StatusCode.INTERNAL),
    lose(grpc.StatusCode.UNKNOWN),
]
"""A server that drains, one that goes away, and what becomes of a stream that is reset."""


@pytest.mark.parametrize("ending", ENDINGS, ids=["drained", "gone", "cancelled", "reset", "removed"])
async def test_a_session_that_ended_is_replaced_and_its_operations_are_repeated(
    server: Script, callers: Threads, held: Held, ending: Answer
) -> None:
    saver = callers.saver()
    first = await hold_the_lane(callers, server, held, saver, ending)
    waiting = await crowd(callers, saver, "waiting", "too")
    held.open.set()
    await asyncio.gather(*first, *waiting)

    attempts: dict[str, set[bytes]] = {}
    for seen in server.seen:
        for thread_id, operation in zip(threads_of(seen), seen.operations, strict=True):
            attempts.setdefault(thread_id, set()).add(bytes(operation.operation_id))
    assert all(len(ids) == 1 for ids in attempts.values()), "a repeat is the same operation"
    assert sum(len(seen.operations) for seen in server.seen) > len(attempts) == 4
    assert server.sessions >= 2


async def test_a_batch_whose_session_always_ends_has_an_unknown_outcome(
    server: Script, callers: Threads
) -> None:
    server.answers += [lose()] * 1000
    saver = callers.saver(0.5)

    with pytest.raises(OutcomeUnknown):
        await callers.put(saver, "t")
    with pytest.raises(Unavailable):
        await callers.start(saver, "get_tuple", config_of("t"))


async def test_a_key_that_is_refused_in_an_open_session_is_not_tried_again(
    server: Script, callers: Threads
) -> None:
    saver = callers.saver()
    await callers.put(saver, "t")
    server.answers.append(fail(grpc.StatusCode.UNAUTHENTICATED))
    with pytest.raises(Unauthenticated):
        await callers.put(saver, "t")

    assert len(server.seen) == 2
    assert server.sessions == 1
