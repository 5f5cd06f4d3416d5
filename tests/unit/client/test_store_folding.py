"""Tasks that get or write items together share a group; what they are told is as if each had come alone."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langgraph.store.base import GetOp, Item, PutOp
from tenure.v1 import store_pb2 as pb
from tenure_client import TenureStore, errors, folding

from tests.harness.embedders import DIMS, embed_letters
from tests.unit.client.item_server import ItemServer, refused, running

UNAVAILABLE, INVALID_ARGUMENT = 14, 3
NS = ("a",)


@pytest.fixture
def server() -> Iterator[ItemServer]:
    with running() as items:
        yield items


@pytest.fixture
async def store(server: ItemServer) -> AsyncIterator[TenureStore]:
    """A store whose tasks have come together before."""
    async with TenureStore(server.target, api_key="tn_test") as opened:
        await asyncio.gather(*(opened.aput(NS, "warm", {}) for _ in range(2)))
        await asyncio.gather(*(opened.aget(NS, "warm") for _ in range(2)))
        await opened.adelete(NS, "warm")
        await meet(opened)
        server.seen.clear()
        yield opened


async def meet(store: TenureStore) -> None:
    """Let gets and writes come together once."""
    await asyncio.gather(
        *(store.adelete(NS, "warm") for _ in range(2)), *(store.aget(NS, "warm") for _ in range(2))
    )


def sizes(server: ItemServer) -> list[int]:
    """Return how many operations each group had."""
    return [len(group.ops) for group in server.groups]


async def put(store: TenureStore, *numbers: int) -> list[Any]:
    return await asyncio.gather(
        *(store.aput(NS, str(number), {"n": number}) for number in numbers), return_exceptions=True
    )


async def test_a_crowd_that_comes_again_is_one_group(server: ItemServer) -> None:
    async with TenureStore(server.target, api_key="tn_test") as store:
        for _ in range(3):
            await put(store, *range(20))
        found = [await asyncio.gather(*(store.aget(NS, str(at)) for at in range(20))) for _ in range(2)]

    assert sizes(server) == [1] * 20 + [20, 20] + [1] * 20 + [20]
    assert [item and item.value for item in found[1]] == [{"n": at} for at in range(20)]
    ids = [group.operation.operation_id for group in server.groups]
    assert len(set(ids)) == len(ids)


async def test_a_task_that_comes_alone_is_not_held_up(server: ItemServer, store: TenureStore) -> None:
    await put(store, 1)
    assert not store._folding._places[folding.Kind.WRITES][asyncio.get_running_loop()].gathers()
    await put(store, 2, 3)

    assert sizes(server) == [1, 1, 1], "the second time nobody knew that another one comes"


async def test_the_last_write_of_a_tick_wins_and_deletes_keep_their_turn(
    server: ItemServer, store: TenureStore
) -> None:
    await asyncio.gather(
        store.aput(NS, "k", {"n": 1}),
        store.aput(NS, "gone", {"n": 1}),
        store.aput(NS, "k", {"n": 2}),
        store.adelete(NS, "gone"),
        store.adelete(NS, "back"),
        store.aput(NS, "back", {"n": 3}),
    )
    assert sizes(server) == [6]
    assert {item.key: item.value for item in await store.asearch(NS)} == {"k": {"n": 2}, "back": {"n": 3}}


@pytest.mark.parametrize("ticks", range(6))
async def test_a_write_of_a_later_tick_does_not_overtake(
    server: ItemServer, store: TenureStore, ticks: int
) -> None:
    first = asyncio.ensure_future(store.aput(NS, "k", {"n": 1}))
    for _ in range(ticks):
        await asyncio.sleep(0)
    await asyncio.gather(first, store.aput(NS, "k", {"n": 2}))

    found = await store.aget(NS, "k")
    assert found is not None
    assert found.value == {"n": 2}


async def test_too_much_for_one_group_is_several_that_keep_their_order(
    server: ItemServer, store: TenureStore
) -> None:
    large = "x" * (folding.MAX_BYTES - 2000)
    await asyncio.gather(
        *(store.aput(NS, str(at), {"n": at}) for at in range(folding.MAX_OPS + 3)),
        store.aput(NS, "k", {"n": 1}),
        store.aput(NS, "k", {"text": large}),
        store.aput(NS, "l", {"text": large}),
        store.aput(NS, "k", {"n": 2}),
        store.aput(NS, "huge", {"text": 20 * large}),
        store.aput(NS, "l", {"n": 4}),
    )
    sent = {group.ops[0].put.key: len(group.ops) for group in server.groups[:3]}
    assert sent == {"0": folding.MAX_OPS, f"{folding.MAX_OPS}": 5, "l": 2}
    found = [await store.aget(NS, key) for key in ("k", "l")]
    assert [item and item.value for item in found] == [{"n": 2}, {"n": 4}]


async def test_the_fault_of_one_is_not_the_others(server: ItemServer, store: TenureStore) -> None:
    def guard(group: pb.StoreGroup) -> pb.StoreGroupResult | None:
        bad = any(op.put.key == "2" for op in group.ops)
        return refused(INVALID_ARGUMENT, "INVALID_FIELD", field="ops[2].put.key") if bad else None

    server.faults.extend([guard] * 100)
    outcomes = await put(store, *range(4))
    assert [type(outcome) for outcome in outcomes] == [type(None)] * 2 + [errors.InvalidRequest, type(None)]
    assert sizes(server) == [4, 1, 1, 1, 1]
    assert len({group.operation.operation_id for group in server.groups}) == 5
    assert sorted(item.key for item in await store.asearch(NS)) == ["0", "1", "3"]


async def test_what_does_not_fit_into_one_answer_is_asked_for_alone(
    server: ItemServer, store: TenureStore
) -> None:
    await put(store, *range(3))
    server.seen.clear()
    server.faults.append(lambda group: pb.StoreGroupResult(omitted=True))
    found = await asyncio.gather(*(store.aget(NS, str(at)) for at in range(3)))

    assert [item and item.value["n"] for item in found] == [0, 1, 2]
    assert sizes(server) == [3, 1, 1, 1]


async def test_what_one_cannot_read_is_not_the_others_fault(server: ItemServer, store: TenureStore) -> None:
    await put(store, *range(3))

    def spoil(group: pb.StoreGroup) -> pb.StoreGroupResult:
        result = server.do(group)
        for op, found in zip(group.ops, result.results, strict=True):
            if op.get.key == "1":
                found.item.value_json = "{"
        return result

    server.faults.extend([spoil] * 100)
    found = await asyncio.gather(*(store.aget(NS, str(at)) for at in range(3)), return_exceptions=True)

    assert [type(one) for one in found] == [Item, json.JSONDecodeError, Item]


async def test_a_group_is_repeated_as_it_was(server: ItemServer, store: TenureStore) -> None:
    def applied_but_lost(group: pb.StoreGroup) -> pb.StoreGroupResult:
        server.do(group)
        return refused(UNAVAILABLE, "UNAVAILABLE")

    server.faults.append(applied_but_lost)
    assert await put(store, *range(3)) == [None] * 3
    first, second = server.groups
    assert first.operation.operation_id == second.operation.operation_id
    assert first.ops == second.ops


async def test_each_is_told_of_a_fate_that_nobody_knows(server: ItemServer) -> None:
    async with TenureStore(server.target, api_key="tn_test", timeout=0.5) as store:
        await meet(store)
        server.faults.extend([lambda group: refused(UNAVAILABLE, "UNAVAILABLE")] * 100)
        written, got = await asyncio.gather(
            put(store, 1, 2),
            asyncio.gather(*(store.aget(NS, "k") for _ in range(2)), return_exceptions=True),
        )
    assert [type(outcome) for outcome in written] == [errors.OutcomeUnknown] * 2
    assert [type(outcome) for outcome in got] == [errors.Unavailable] * 2
    assert written[0] is not written[1]


async def test_who_is_cancelled_leaves_the_others_alone(server: ItemServer, store: TenureStore) -> None:
    held, go = threading.Event(), threading.Event()

    def hold(group: pb.StoreGroup) -> None:
        held.set()
        go.wait(30)

    server.faults.append(hold)
    tasks = [asyncio.create_task(store.aput(NS, str(at), {})) for at in range(3)]
    await asyncio.to_thread(held.wait, 30)
    tasks[0].cancel()
    go.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError, type(None), type(None)]
    assert sizes(server) == [3]


async def test_what_is_cancelled_in_the_same_tick_is_not_sent(server: ItemServer, store: TenureStore) -> None:
    tasks = [asyncio.create_task(store.aput(NS, str(at), {})) for at in range(3)]
    asyncio.get_running_loop().call_soon(tasks[1].cancel)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [type(None), asyncio.CancelledError, type(None)]
    assert [op.put.key for group in server.groups for op in group.ops] == ["0", "2"]


async def test_when_all_are_cancelled_nothing_goes_on(server: ItemServer, store: TenureStore) -> None:
    server.faults.extend([lambda group: refused(UNAVAILABLE, "UNAVAILABLE")] * 100)
    tasks = [asyncio.create_task(store.aput(NS, str(at), {})) for at in range(3)]
    while not server.groups:
        await asyncio.sleep(0.001)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0.05)
    repeated = len(server.groups)
    await asyncio.sleep(0.3)

    assert len(server.groups) == repeated


async def test_more_than_one_kind_goes_by_itself(server: ItemServer, store: TenureStore) -> None:
    await asyncio.gather(
        store.abatch([GetOp(NS, "k"), PutOp(NS, "k", {"n": 1})]),
        store.aget(NS, "k"),
        store.aget(NS, "l"),
        store.abatch([PutOp(NS, "l", {"n": 1}), PutOp(NS, "m", {"n": 1})]),
        store.aput(NS, "n", {}),
        store.asearch(NS),
        store.alist_namespaces(),
    )
    kinds = sorted([op.WhichOneof("kind") for op in group.ops] for group in server.groups)
    assert kinds == [["get"], ["get", "get"], ["list_namespaces"], ["put"], ["put"] * 3, ["search"]]


async def test_an_application_that_traces_sends_each_by_itself(
    server: ItemServer, store: TenureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding.tracing, "active", lambda: True)
    await put(store, *range(3))
    assert sizes(server) == [1, 1, 1]


def test_loops_of_several_threads_do_not_meet(server: ItemServer) -> None:
    store = TenureStore(server.target, api_key="tn_test")
    outcomes: list[Any] = []

    async def work(start: int) -> None:
        for at in range(10):
            numbers = range(start + 10 * at, start + 10 * at + 5)
            outcomes.extend(await put(store, *numbers))
            found = await asyncio.gather(*(store.aget(NS, str(number)) for number in numbers))
            outcomes.extend(
                None if item and item.value["n"] == at_ else item
                for at_, item in zip(numbers, found, strict=True)
            )
        await store.aclose()

    threads = [threading.Thread(target=asyncio.run, args=(work(1000 * at),)) for at in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.connection.close()
    assert outcomes == [None] * 300


@pytest.mark.parametrize("ticks", [1, 2, 3])
async def test_after_all_tasks_were_cancelled_others_embed_and_write(server: ItemServer, ticks: int) -> None:
    index: Any = {"dims": DIMS, "embed": embed_letters, "fields": ["text"]}
    async with TenureStore(server.target, api_key="tn_test", index=index) as store:
        for _ in range(2):
            await asyncio.gather(*(store.aput(NS, str(at), {"text": "warm"}) for at in range(2)))
        before = asyncio.all_tasks()
        tasks = [asyncio.ensure_future(store.aput(NS, str(at), {"text": "gone"})) for at in range(3)]
        for _ in range(ticks):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - before:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(10):
            await asyncio.gather(*(store.aput(NS, "k", {"text": f"{at}"}) for at in range(3)))

        found = await store.aget(NS, "k")
        assert found is not None
        assert found.value == {"text": "2"}


@pytest.mark.skipif(
    not hasattr(asyncio, "eager_task_factory"), reason="Python 3.12 has tasks that begin at once"
)
async def test_tasks_that_begin_at_once_meet_as_well(server: ItemServer) -> None:
    factory: Any = getattr(asyncio, "eager_task_factory", None)
    asyncio.get_running_loop().set_task_factory(factory)
    index: Any = {"dims": DIMS, "embed": embed_letters, "fields": ["text"]}
    async with TenureStore(server.target, api_key="tn_test", index=index) as store:
        for _ in range(2):
            await asyncio.gather(*(store.aput(NS, str(at), {"text": f"word {at}"}) for at in range(3)))

    assert sizes(server) == [1, 1, 1, 3]
    assert {len(op.put.vectors) for group in server.groups for op in group.ops} == {1}
