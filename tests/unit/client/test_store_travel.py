"""How the store's operations reach a server, what travels together, and what becomes of faults."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from langgraph.store.base import GetOp, InvalidNamespaceError, ListNamespacesOp, PutOp, SearchOp
from tenure.v1 import store_pb2 as pb
from tenure_client import TenureSaver, TenureStore, errors, store_codec

from tests.harness.embedders import DIMS, embed_letters
from tests.unit.client.item_server import ItemServer, refused, running

UNAVAILABLE, DEADLINE, ABORTED = 14, 4, 10
INDEX: Any = {"dims": DIMS, "embed": embed_letters, "fields": ["text"]}


@pytest.fixture
def server() -> Iterator[ItemServer]:
    with running() as items:
        yield items


@pytest.fixture
def store(server: ItemServer) -> Iterator[TenureStore]:
    with TenureStore(server.target, api_key="tn_test") as opened:
        yield opened


def by(server: ItemServer) -> list[tuple[str, int]]:
    """Return what came: how, and how many groups at once."""
    return [(travelled.by, len(travelled.groups)) for travelled in server.seen]


def kinds(group: pb.StoreGroup) -> list[str | None]:
    return [op.WhichOneof("kind") for op in group.ops]


def test_a_batch_is_a_group_of_reads_then_one_of_writes(server: ItemServer, store: TenureStore) -> None:
    store.put(("a",), "k", {"n": 1})
    server.seen.clear()

    results = store.batch(
        [
            PutOp(("a",), "k", {"n": 2}),
            GetOp(("a",), "k"),
            PutOp(("a",), "l", {"n": 3}),
            ListNamespacesOp(),
            PutOp(("a",), "k", {"n": 4}),
        ]
    )

    assert [kinds(group) for group in server.groups] == [["get", "list_namespaces"], ["put", "put"]]
    assert results[0] is results[2] is results[4] is None
    assert results[1].value == {"n": 1}  # type: ignore[union-attr]
    assert results[3] == [("a",)]
    assert [item.value for item in store.search(())] == [{"n": 4}, {"n": 3}]


def test_an_empty_batch_sends_nothing(server: ItemServer, store: TenureStore) -> None:
    assert store.batch([]) == []
    assert server.seen == []


async def test_what_is_quick_shares_no_batch_with_a_search(server: ItemServer) -> None:
    async with TenureStore(server.target, api_key="tn_test") as store:
        await asyncio.gather(
            *(store.aget(("a",), str(at)) for at in range(3)),
            *(store.asearch(("a",)) for _ in range(3)),
            store.abatch([GetOp(("a",), "k"), SearchOp(())]),
        )

    batches = [[kinds(group) for group in travelled.groups] for travelled in server.seen]
    assert sorted(batches) == [[["get"]] * 3, [["search"]] * 3 + [["get", "search"]]]
    assert {travelled.by for travelled in server.seen} == {"Session"}


async def test_what_tasks_ask_in_one_tick_travels_together(server: ItemServer) -> None:
    async with TenureStore(server.target, api_key="tn_test") as store:
        await asyncio.gather(*(store.aput(("a",), str(at), {"at": at}) for at in range(50)))
        await asyncio.gather(*(store.aget(("a",), str(at)) for at in range(50)))

    assert by(server) == [("Session", 50), ("Session", 50)]


async def test_of_two_puts_in_one_tick_the_second_one_wins(server: ItemServer) -> None:
    async with TenureStore(server.target, api_key="tn_test", index=INDEX) as store:
        await asyncio.gather(
            store.aput(("a",), "k", {"text": "first"}),
            store.aput(("a",), "k", {"text": "second"}),
            store.aput(("a",), "gone", {"text": "third"}),
            store.adelete(("a",), "gone"),
        )
        assert [item.value for item in await store.asearch(())] == [{"text": "second"}]


def test_threads_share_batches(server: ItemServer, store: TenureStore) -> None:
    threads = [threading.Thread(target=store.put, args=(("a",), str(at), {"at": at})) for at in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(server.groups) == 40
    assert {int(item.key) for item in store.search((), limit=100)} == set(range(40))


def test_a_saver_and_a_store_share_one_connection(server: ItemServer) -> None:
    saver = TenureSaver(server.target, api_key="tn_test")
    with TenureStore(saver.connection) as store:
        store.put(("a",), "k", {})
    assert store.connection is saver.connection
    assert saver.connection._channels._sync is not None, "the store closed what is not its own"
    saver.close()


def test_a_group_above_1_mib_travels_in_slices(server: ItemServer, store: TenureStore) -> None:
    large = {"text": "x" * 3_000_000}
    store.put(("a",), "k", large)

    assert by(server) == [("BatchSliced", 1)]
    found = store.get(("a",), "k")
    assert found is not None
    assert found.value == large


def test_what_does_not_fit_into_a_reply_is_fetched_in_slices(server: ItemServer, store: TenureStore) -> None:
    store.put(("a",), "k", {"n": 1})
    server.seen.clear()
    for read in (lambda: store.get(("a",), "k"), lambda: store.search(())[0]):
        server.faults.append(lambda group: pb.StoreGroupResult(omitted=True))
        found = read()
        assert found is not None
        assert found.value == {"n": 1}

    assert by(server) == [("Session", 1), ("BatchSliced", 1)] * 2
    ids = [group.operation.operation_id for group in server.groups]
    assert len(set(ids)) == 4, "the second call has another answer than the first one"


def test_more_operations_than_a_group_holds_are_several_groups(
    server: ItemServer, store: TenureStore
) -> None:
    store.batch([PutOp(("a",), str(at), {"at": at}) for at in range(2500)])
    found = store.batch([GetOp(("a",), str(at)) for at in range(2500)])

    assert [len(group.ops) for group in server.groups] == [1000, 1000, 500] * 2
    assert [item.value["at"] for item in found] == list(range(2500))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("limit", "offset", "pages"),
    [(1000, 0, 1), (1001, 0, 2), (2300, 100, 3), (5000, 0, 3), (0, 0, 1), (5000, 2500, 1)],
)
def test_a_large_limit_is_served_in_pages(
    server: ItemServer, store: TenureStore, limit: int, offset: int, pages: int
) -> None:
    store.batch([PutOp(("a",), str(at), {"at": at}) for at in range(2500)])
    server.seen.clear()

    found = store.search((), limit=limit, offset=offset)

    assert [item.value["at"] for item in found] == list(range(2500))[offset : offset + limit]
    assert len(server.seen) == pages


def test_namespaces_are_listed_in_pages(
    server: ItemServer, store: TenureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_codec, "MAX_NAMESPACES_LIMIT", 10)
    store.batch([PutOp(("a", f"{at:02}"), "k", {}) for at in range(25)])

    assert store.list_namespaces(limit=24, offset=1) == [("a", f"{at:02}") for at in range(1, 25)]


def test_a_write_is_repeated_with_the_same_id(server: ItemServer, store: TenureStore) -> None:
    def applied_but_lost(group: pb.StoreGroup) -> pb.StoreGroupResult:
        server.do(group)
        return refused(UNAVAILABLE, "UNAVAILABLE")

    server.faults.append(applied_but_lost)
    store.put(("a",), "k", {"n": 1})

    first, second = server.groups
    assert first.operation.operation_id == second.operation.operation_id
    assert first.ops == second.ops


def test_a_write_whose_fate_is_not_known_says_so(server: ItemServer) -> None:
    server.faults.extend([lambda group: refused(UNAVAILABLE, "UNAVAILABLE")] * 100)
    with TenureStore(server.target, api_key="tn_test", timeout=0.5) as store:
        with pytest.raises(errors.OutcomeUnknown):
            store.put(("a",), "k", {})
        with pytest.raises(errors.Unavailable):
            store.get(("a",), "k")


def test_a_refused_group_fails_alone(server: ItemServer, store: TenureStore) -> None:
    server.faults.append(lambda group: refused(3, "INVALID_FIELD", field="ops[0].search.filter_json"))
    with pytest.raises(errors.InvalidRequest) as caught:
        store.search((), filter={"a": {"$unknown": 1}})
    assert caught.value.field == "ops[0].search.filter_json"
    assert store.search(()) == []


def test_reads_that_fail_keep_the_writes_from_being_sent(server: ItemServer, store: TenureStore) -> None:
    server.faults.append(lambda group: refused(7, "OUTSIDE_RULES", field="namespace"))
    with pytest.raises(errors.OutsideRules):
        store.batch([PutOp(("a",), "k", {}), GetOp(("b",), "k")])

    assert store.get(("a",), "k") is None


async def test_a_cancelled_task_leaves_its_neighbours_alone(server: ItemServer) -> None:
    async with TenureStore(server.target, api_key="tn_test") as store:
        held, go = threading.Event(), threading.Event()

        def hold(group: pb.StoreGroup) -> None:
            held.set()
            go.wait()

        server.faults.append(hold)
        tasks = [asyncio.create_task(store.aput(("a",), str(at), {})) for at in range(3)]
        await asyncio.to_thread(held.wait)
        tasks[1].cancel()
        go.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [type(None), asyncio.CancelledError, type(None)]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda store: store.put(("a", ""), "k", {}), InvalidNamespaceError),
        (lambda store: store.batch([PutOp(("langgraph",), "k", {})]), InvalidNamespaceError),
        (lambda store: store.put(("a",), "k", {"x": float("nan")}), TypeError),
        (lambda store: store.put(("a",), "k", {"text": "x"}, ttl=-1), errors.InvalidRequest),
        (lambda store: store.search((), limit=-1), errors.InvalidRequest),
        (lambda store: store.search((), query="x", mode="keyword"), errors.InvalidRequest),
        (lambda store: store.search((), query="x", mode="telepathy"), errors.InvalidRequest),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(
    server: ItemServer, call: Any, error: type[Exception]
) -> None:
    with TenureStore(server.target, api_key="tn_test", index=INDEX) as store, pytest.raises(error):
        call(store)
    assert server.seen == []


def test_vectors_of_another_length_are_not_sent(server: ItemServer) -> None:
    index: Any = {"dims": DIMS + 1, "embed": embed_letters}
    with TenureStore(server.target, api_key="tn_test", index=index) as store:
        for call in (lambda: store.put(("a",), "k", {}), lambda: store.search((), query="x")):
            with pytest.raises(errors.InvalidRequest, match=f"dims={DIMS + 1}") as caught:
                call()
            assert caught.value.field == "dims"
    assert server.seen == []


def test_vectors_say_with_what_they_were_made(server: ItemServer) -> None:
    with TenureStore(server.target, api_key="tn_test", index=INDEX) as store:
        store.put(("a",), "k", {"text": "some words"})
        store.put(("a",), "l", {"other": 1})
        store.search((), query="words")
        store.search(())

    wire = pb.StoreIndex(dims=DIMS, embedder="tests.harness.embedders.embed_letters")
    assert [group.index if group.HasField("index") else None for group in server.groups] == [
        wire,
        None,
        wire,
        None,
    ]


def test_another_embedder_is_refused_with_what_to_do(server: ItemServer) -> None:
    with TenureStore(server.target, api_key="tn_test", index=INDEX) as store:
        store.put(("a",), "k", {"text": "some words"})
    with TenureStore(server.target, api_key="tn_test", index={**INDEX, "embedder": "v2"}) as store:
        with pytest.raises(errors.IndexMismatch) as caught:
            store.put(("a",), "k", {"text": "other words"})
        assert caught.value.given == "v2"
        assert caught.value.stored == "tests.harness.embedders.embed_letters"
        assert isinstance(caught.value, errors.FailedPrecondition)


@pytest.mark.parametrize(
    ("mode", "words", "vectors"), [("keyword", True, 0), ("hybrid", True, 1), (None, False, 1)]
)
def test_words_and_vectors_travel_as_the_mode_needs_them(
    server: ItemServer, mode: Any, words: bool, vectors: int
) -> None:
    index: Any = {"fields": ["text"]} if mode == "keyword" else INDEX
    with TenureStore(server.target, api_key="tn_test", index=index, search_mode=mode) as store:
        store.put(("a",), "k", {"text": "some words", "n": 1})
        store.put(("a",), "hidden", {"text": "some words"}, index=False)

    first, hidden = (group.ops[0].put for group in server.groups)
    assert (first.text == "some words", len(first.vectors)) == (words, vectors)
    assert (hidden.unindexed, hidden.text, len(hidden.vectors)) == (True, "", 0)


async def test_the_mode_of_one_search_can_differ_in_both_colours(server: ItemServer) -> None:
    async with TenureStore(server.target, api_key="tn_test", index=INDEX, search_mode="hybrid") as store:
        store.search((), query="x")
        store.search((), query="x", mode="keyword")
        await store.asearch((), query="x", mode="semantic")

    assert [group.ops[0].search.mode for group in server.groups] == [
        pb.SEARCH_MODE_HYBRID,
        pb.SEARCH_MODE_KEYWORD,
        pb.SEARCH_MODE_SEMANTIC,
    ]


@pytest.mark.parametrize(
    "given", [{"search_mode": "semantic"}, {"search_mode": "x"}, {"index": {"fields": ["a"]}}]
)
def test_a_store_that_cannot_search_as_told_is_refused(given: Any) -> None:
    with pytest.raises(errors.InvalidRequest):
        TenureStore("127.0.0.1:1", api_key="tn_test", **given)


def test_defaults_of_the_time_to_live(server: ItemServer) -> None:
    ttl: Any = {"default_ttl": 2, "refresh_on_read": False}
    with TenureStore(server.target, api_key="tn_test", ttl=ttl) as store:
        store.put(("a",), "default", {})
        store.put(("a",), "never", {}, ttl=None)
        store.put(("a",), "own", {}, ttl=1)
        store.get(("a",), "k")
        store.search((), refresh_ttl=True)

    puts = [group.ops[0].put for group in server.groups[:3]]
    assert [put.ttl_seconds if put.HasField("ttl_seconds") else None for put in puts] == [120, None, 60]
    assert server.groups[3].ops[0].get.refresh_ttl is False
    assert server.groups[4].ops[0].search.refresh_ttl is True


async def test_setup_and_connection_strings(server: ItemServer) -> None:
    store = TenureStore.from_conn_string(f"tenure://tn_test@{server.target}")
    await store.setup()
    await store.asetup()
    assert "tn_test" not in repr(store)
    await store.aclose()
