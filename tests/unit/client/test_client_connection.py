"""The two drivers, over real gRPC; every test runs in both colours."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from langgraph.checkpoint.base import empty_checkpoint
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import common_pb2
from tenure_client import (
    Connection,
    DeadlineExceeded,
    InvalidRequest,
    OutcomeUnknown,
    TenureError,
    TenureSaver,
    Unavailable,
)

from tests.unit.client import scripted
from tests.unit.client.scripted import Script, fail, reply

KEY = "tn_tenant_id_secret"
CONFIG: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


class Blocking:
    """Calls a saver's blocking methods."""

    def __init__(self, saver: TenureSaver) -> None:
        self.saver = saver

    async def __call__(self, method: str, *args: Any) -> Any:
        return await asyncio.to_thread(getattr(self.saver, method), *args)

    async def first(self, **options: Any) -> Any:
        items = self.saver.list(None, **options)
        try:
            return await asyncio.to_thread(next, items)
        finally:
            items.close()  # type: ignore[attr-defined]

    async def list(self, **options: Any) -> list[Any]:
        return await asyncio.to_thread(lambda: list(self.saver.list(None, **options)))


class Awaiting(Blocking):
    """Calls their asynchronous twins."""

    async def __call__(self, method: str, *args: Any) -> Any:
        return await getattr(self.saver, "a" + method)(*args)

    async def first(self, **options: Any) -> Any:
        items = self.saver.alist(None, **options)
        try:
            return await anext(items)
        finally:
            await items.aclose()

    async def list(self, **options: Any) -> Any:
        return [item async for item in self.saver.alist(None, **options)]


@pytest.fixture
def server() -> Iterator[Script]:
    with scripted.running() as script:
        yield script


@pytest.fixture(params=[Blocking, Awaiting])
async def call(request: pytest.FixtureRequest, server: Script) -> Any:
    async with TenureSaver(server.target, api_key=KEY, timeout=5) as saver:
        yield request.param(saver)


def listed(*checkpoint_ids: str) -> pb.ListResponse:
    body = TenureSaver("127.0.0.1:1", api_key=KEY).serde.dumps_typed({"channel_versions": {}})
    return pb.ListResponse(
        page=pb.CheckpointPage(
            checkpoints=[
                pb.Checkpoint(
                    ref=pb.CheckpointRef(thread_id="t", checkpoint_id=checkpoint_id),
                    checkpoint=common_pb2.Blob(type=body[0], data=body[1]),
                    metadata_json="{}",
                )
                for checkpoint_id in checkpoint_ids
            ]
        )
    )


def then_fails(code: grpc.StatusCode, *parts: pb.ListResponse) -> scripted.Answer:
    def answer(context: grpc.ServicerContext) -> Any:
        yield from parts
        context.abort(code, "scripted")

    return answer


def ids(items: list[Any]) -> list[str]:
    return [item.config["configurable"]["checkpoint_id"] for item in items]


async def test_the_key_goes_with_every_call(server: Script, call: Blocking) -> None:
    await call("get_tuple", CONFIG)
    await call.list()

    assert {seen.metadata["authorization"] for seen in server.seen} == {f"Bearer {KEY}"}


async def test_an_attempt_that_met_no_server_is_repeated_as_the_same_operation(
    server: Script, call: Blocking
) -> None:
    server.answers += [fail(grpc.StatusCode.UNAVAILABLE), fail(grpc.StatusCode.ABORTED)]

    await call("delete_thread", "t")

    assert len(server.seen) == 3
    assert len({seen.operation.operation_id for seen in server.seen}) == 1


async def test_an_operation_that_failed_in_its_batch_is_repeated_too(server: Script, call: Blocking) -> None:
    failed = pb.MutationResult(status=status_pb2.Status(code=grpc.StatusCode.ABORTED.value[0]))
    server.answers.append(reply(pb.WriteResponse(results=[failed])))

    await call("put", CONFIG, empty_checkpoint(), {}, {})

    assert len(server.seen) == 2


async def test_pushback_allows_a_repeat_of_what_is_refused_otherwise(server: Script, call: Blocking) -> None:
    server.answers.append(fail(grpc.StatusCode.RESOURCE_EXHAUSTED, grpc_retry_pushback_ms="0"))

    await call("get_tuple", CONFIG)

    assert len(server.seen) == 2


async def test_a_large_put_is_repeated_as_well(server: Script, call: Blocking) -> None:
    server.answers.append(fail(grpc.StatusCode.UNAVAILABLE))
    checkpoint = empty_checkpoint()
    value = random.Random(1).randbytes(3_000_000)
    checkpoint["channel_values"] = {"a": value}

    await call("put", CONFIG, checkpoint, {}, {"a": 1})

    assert [seen.method for seen in server.seen] == ["WriteSliced"] * 2
    assert len({seen.operation.operation_id for seen in server.seen}) == 1
    assert server.seen[0].request.ByteSize() > len(value)


async def test_what_the_caller_did_wrong_is_not_repeated(server: Script, call: Blocking) -> None:
    server.answers.append(fail(grpc.StatusCode.INVALID_ARGUMENT))

    with pytest.raises(InvalidRequest):
        await call("delete_thread", "t")
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("method", "args", "error"),
    [("delete_thread", ("t",), OutcomeUnknown), ("get_tuple", (CONFIG,), DeadlineExceeded)],
)
@pytest.mark.parametrize("colour", [Blocking, Awaiting])
async def test_silence_leaves_a_change_unknown_and_a_read_undone(
    server: Script, colour: type[Blocking], method: str, args: tuple[Any, ...], error: type[TenureError]
) -> None:
    released = threading.Event()
    server.answers.append(lambda _context: released.wait())
    async with TenureSaver(server.target, api_key=KEY, timeout=0.2) as saver:
        with pytest.raises(error):
            await colour(saver)(method, *args)
    released.set()

    assert 0 < server.seen[0].operation.timeout_ms < 200


@pytest.mark.parametrize("call", [("delete_thread", "t"), ("get_tuple", CONFIG)], ids=["unary", "session"])
@pytest.mark.parametrize("colour", [Blocking, Awaiting])
async def test_where_nobody_listens_nothing_was_changed(
    colour: type[Blocking], call: tuple[str, Any]
) -> None:
    with scripted.running() as gone:
        pass
    async with TenureSaver(gone.target, api_key=KEY, timeout=0.3) as saver:
        with pytest.raises(Unavailable, match="cannot reach the server") as raised:
            await colour(saver)(*call)

    assert KEY not in str(raised.value)


async def test_a_server_that_comes_back_is_found_again(server: Script, call: Blocking) -> None:
    with scripted.running() as first:
        saver = call.saver = TenureSaver(first.target, api_key=KEY)
        await call("get_tuple", CONFIG)
    with scripted.running(int(first.target.rpartition(":")[2])) as second:
        await call("get_tuple", CONFIG)
        await saver.aclose()

    assert len(second.seen) == 1


async def test_a_listing_goes_on_where_its_stream_was_lost(server: Script, call: Blocking) -> None:
    server.answers += [
        fail(grpc.StatusCode.UNAVAILABLE),
        then_fails(grpc.StatusCode.UNAVAILABLE, listed("5", "4"), listed("3")),
        then_fails(grpc.StatusCode.DEADLINE_EXCEEDED, listed("3", "2")),
        reply([listed("2", "1")]),
    ]

    assert ids(await call.list()) == ["5", "4", "3", "2", "1"]
    assert [seen.request.before_checkpoint_id for seen in server.seen] == ["", "", "4", "3"]


async def test_a_listing_that_cannot_go_on_says_why(server: Script, call: Blocking) -> None:
    server.answers.append(then_fails(grpc.StatusCode.INVALID_ARGUMENT, listed("2")))

    with pytest.raises(InvalidRequest):
        await call.list()


async def test_leaving_an_iterator_cancels_its_stream(server: Script, call: Blocking) -> None:
    released = threading.Event()

    def answer(_context: grpc.ServicerContext) -> Any:
        yield listed("2")
        released.wait()

    server.answers.append(answer)

    await call.first()

    assert await asyncio.to_thread(server.cancelled.wait, 10)
    released.set()


async def test_a_limit_of_none_asks_nothing_of_the_server(server: Script, call: Blocking) -> None:
    assert await call.list(limit=0) == []
    assert server.seen == []


def test_setup_works_called_and_awaited(server: Script) -> None:
    with TenureSaver(server.target, api_key=KEY) as saver:
        saver.setup()

        async def awaited() -> None:
            await saver.setup()
            await saver.asetup()

        asyncio.run(awaited())

    assert [seen.method for seen in server.seen] == ["GetServerInfo"] * 3


def test_setup_tells_what_is_wrong(server: Script) -> None:
    server.answers.append(fail(grpc.StatusCode.UNAUTHENTICATED))

    with TenureSaver(server.target, api_key=KEY) as saver, pytest.raises(TenureError):
        saver.setup()


def test_a_shared_connection_is_not_closed_by_a_saver(server: Script) -> None:
    with Connection(server.target, api_key=KEY) as connection:
        with TenureSaver(connection) as saver:
            saver.get_tuple(CONFIG)
            channel = connection._channels._sync
        assert connection._channels._sync is channel

    assert connection._channels._sync is None


def test_a_closed_connection_opens_again(server: Script) -> None:
    saver = TenureSaver(server.target, api_key=KEY)
    saver.get_tuple(CONFIG)
    saver.close()
    saver.get_tuple(CONFIG)
    saver.close()

    assert len(server.seen) == 2


def test_calls_use_the_connections_in_turn(server: Script) -> None:
    with TenureSaver(server.target, api_key=KEY, connections=3) as saver:
        channels = saver.connection._channels
        stubs = {id(channels.sync().stub()) for _ in range(6)}

    assert len(stubs) == 3
