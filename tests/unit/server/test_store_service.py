"""StoreService on a real gRPC server: groups fail alone, answers fit, slow ones hold up nobody."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator

import grpc
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tenure.v1 import store_pb2 as pb
from tenure_server import errors
from tenure_server.admission import SLICED
from tenure_server.limits import MIB
from tenure_server.services.sessions import _MAX_BATCHES

from tests.harness.waiting import until
from tests.unit.server.serving import TRACE, Served, Stream, read, serving
from tests.unit.server.spans import recording
from tests.unit.server.storing import (
    INDEX,
    ask,
    ask_sliced,
    batch,
    delete,
    get,
    group,
    keys,
    listing,
    put,
    reason_of,
    refusal,
    search,
    sliced,
    vector,
)

OK = 0
MOST = _MAX_BATCHES
SECRET = "SELECT value FROM item -- of another tenant"


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A server that looks at a key each time."""
    async with serving(trust=0) as opened:
        yield opened
        opened.items.searches.set()
        opened.items.writes.set()


def sized(count: int) -> dict[str, str]:
    return {"text": "x" * count}


async def test_groups_are_answered_in_their_order(served: Served) -> None:
    await ask(served, batch(put("a", "b", value={"n": 1}), put("a", key="other")))
    results = await ask(
        served,
        batch(
            group(get("a", "b"), get("a", "b", key="absent"), get("a", key="other")),
            search("a"),
            group(delete("a", "b"), put("c", value={})),
            listing(),
        ),
    )
    assert [result.status.code for result in results] == [OK] * 4
    assert not any(result.omitted for result in results)
    found, absent, other = results[0].results
    assert (tuple(found.item.namespace.labels), found.item.key) == (("a", "b"), "key")
    assert json.loads(found.item.value_json) == {"n": 1}
    assert 0 < found.item.created_at_us <= found.item.updated_at_us
    assert not found.item.HasField("score")
    assert absent.WhichOneof("kind") is None
    assert other.item.key == "other"
    assert [item.key for item in results[1].results[0].items.items] == ["key", "other"]
    assert [one.WhichOneof("kind") for one in results[2].results] == [None, None]
    assert results[3].results[0].WhichOneof("kind") == "namespaces"


async def test_an_empty_answer_is_told_apart_from_an_absent_item(served: Served) -> None:
    (result,) = await ask(served, batch(group(search("a"), listing(), get("a"))))
    assert [one.WhichOneof("kind") for one in result.results] == ["items", "namespaces", None]


async def test_a_vector_finds_what_is_near(served: Served) -> None:
    near, far = put("a", key="near", vectors=[vector(1, 0)]), put("a", key="far", vectors=[vector(-1, 0.5)])
    await ask(served, batch(group(far, near, put("a", key="none"), index=INDEX)))
    query = search("a", mode=pb.SEARCH_MODE_SEMANTIC, query_vector=[1, 0.1])
    (result,) = await ask(served, batch(group(query, index=INDEX)))
    found = result.results[0].items.items
    assert [item.key for item in found] == ["near", "far", "none"]
    assert [item.HasField("score") for item in found] == [True, True, False]


async def test_vectors_of_another_embedder_are_refused(served: Served) -> None:
    await ask(served, batch(group(put("a", vectors=[vector(1, 2)]), index=INDEX)))
    other = pb.StoreIndex(dims=2, embedder="other")
    query = search(mode=pb.SEARCH_MODE_SEMANTIC, query_vector=[1, 2])
    results = await ask(
        served,
        batch(group(put("b", vectors=[vector(1, 2)]), index=other), group(query, index=other), put("c")),
    )
    assert [result.status.code for result in results[:2]] == [
        grpc.StatusCode.FAILED_PRECONDITION.value[0]
    ] * 2
    assert [reason_of(result.status)[0] for result in results] == ["INDEX_MISMATCH", "INDEX_MISMATCH", ""]
    assert await keys(served, "b") == []


async def test_a_group_that_comes_again_does_nothing(served: Served) -> None:
    request = batch(put("a", value={"n": 1}))
    await ask(served, request)
    await ask(served, batch(delete("a")))
    (again,) = await ask(served, request)
    assert again.status.code == OK
    assert await keys(served) == []
    for changed in (put("a", value={"n": 2}), put("b", value={"n": 1}), delete("a")):
        del request.groups[0].ops[:]
        request.groups[0].ops.append(changed)
        (other,) = await ask(served, request)
        assert reason_of(other.status)[0] == "OPERATION_MISMATCH"
    assert await keys(served) == []


async def test_the_trace_and_the_time_do_not_make_another_group(served: Served) -> None:
    request = batch(put("a"))
    await ask(served, request)
    request.groups[0].operation.timeout_ms = 5000
    request.groups[0].operation.traceparent = ""
    (again,) = await ask(served, request)
    assert again.status.code == OK


# What does not fit.


async def test_what_does_not_fit_into_a_reply_is_omitted_and_comes_in_slices(served: Served) -> None:
    for key in "abcde":
        # No request may be larger than 1 MiB.
        await ask(served, batch(put("a", key=key, value=sized(900_000))))
    small, large = get("a", key="a"), search("a")
    results = await ask(served, batch(small, large, small, small))
    assert [result.omitted for result in results] == [False, True, False, False]
    assert [result.status.code for result in results] == [OK] * 4
    assert not results[1].results
    three = await ask(served, batch(*[small] * 4))
    assert [result.omitted for result in three] == [False, False, False, True]

    (whole,) = (await ask_sliced(served, batch(large))).results
    assert not whole.omitted
    assert [len(item.value_json) for item in whole.results[0].items.items] == [900_012] * 5


async def test_a_session_sends_a_large_answer_in_parts_and_omits_what_is_too_large_alone(
    served: Served,
) -> None:
    for key in "abcde":
        await ask(served, batch(put("a", key=key, value=sized(900_000))))
    stream = Stream(served)
    sent = await stream.send(batch(*[get("a", key=key) for key in "abcde"], search("a")))
    results: dict[int, pb.StoreGroupResult] = {}
    more = True
    while more:
        part = await stream.receive()
        assert part is not None
        assert part.call_id == sent
        assert part.ByteSize() <= 3 * MIB + 1024
        positions = list(part.positions) or range(len(results), len(results) + len(part.store.results))
        results.update(zip(positions, part.store.results, strict=True))
        more = part.more
    assert sorted(results) == [*range(6)]
    assert [results[at].omitted for at in range(6)] == [False] * 5 + [True]
    assert [results[at].results[0].item.key for at in range(5)] == [*"abcde"]


async def test_a_group_of_any_size_goes_in_slices(served: Served) -> None:
    ops = [put("a", key=str(n), value=sized(500_000)) for n in range(10)]
    assert await refusal(served.items_stub.Batch(batch(group(*ops[:3])), metadata=served.metadata)) == (
        "LIMIT_EXCEEDED",
        "request",
    )
    stream = Stream(served)
    assert reason_of((await stream.ask(batch(group(*ops[:3])))).status) == ("LIMIT_EXCEEDED", "request")
    (result,) = (await ask_sliced(served, batch(group(*ops)))).results
    assert (result.status.code, len(result.results)) == (OK, 10)
    (listed,) = (await ask_sliced(served, batch(search("a")))).results
    assert len(listed.results[0].items.items) == 10


@pytest.mark.parametrize(
    ("slices_", "field"),
    [
        ([pb.BatchSlicedRequest(slice={"data": b"\xff\xff", "total_bytes": 2})], "slice"),
        ([pb.BatchSlicedRequest(slice={"data": b"a", "total_bytes": 2})], "slice.total_bytes"),
        ([pb.BatchSlicedRequest(slice={"data": b"", "total_bytes": 1 << 40})], "slice.total_bytes"),
        ([pb.BatchSlicedRequest(slice={"data": bytes(257 * 1024), "total_bytes": 257 * 1024})], "slice.data"),
    ],
)
async def test_slices_that_make_no_batch_are_refused(
    served: Served, slices_: list[pb.BatchSlicedRequest], field: str
) -> None:
    call = served.items_stub.BatchSliced(iter(slices_), metadata=served.metadata)
    assert (await refusal(call))[1] == field
    assert await keys(served) == []


async def test_sliced_batches_take_the_places_of_sliced_transfers(served: Served) -> None:
    served.items.searches.clear()
    calls = [asyncio.create_task(ask_sliced(served, batch(search()))) for _ in range(SLICED.per_tenant)]
    await until(lambda: served.items.running == SLICED.per_tenant)
    call = served.items_stub.BatchSliced(iter(sliced(batch(search()))), metadata=served.metadata)
    assert (await refusal(call))[0] == "OVERLOADED"
    served.items.searches.set()
    assert len(await asyncio.gather(*calls)) == SLICED.per_tenant
    assert (await ask_sliced(served, batch(get("a")))).results[0].status.code == OK


# Side by side.


async def test_a_slow_search_holds_up_no_other_batch_of_its_session(served: Served) -> None:
    await ask(served, batch(put("a")))
    served.items.searches.clear()
    stream = Stream(served)
    slow = [await stream.send(batch(search())) for _ in range(2 * MOST)]
    # Each is told to take longer, and gives its place to others.
    for _ in slow:
        part = await stream.receive()
        assert part is not None
        assert (part.more, part.HasField("store"), len(part.store.results)) == (True, True, 0)
    quick = await stream.ask(batch(get("a"), put("b")))
    assert [result.status.code for result in quick.store.results] == [OK, OK]
    assert len((await stream.ask(read("thread"))).read.results) == 1
    assert served.items.running == len(slow)
    served.items.searches.set()
    answered = []
    for _ in slow:
        part = await stream.receive()
        assert part is not None
        assert not part.more
        assert len(part.store.results[0].results[0].items.items) >= 1
        answered.append(part.call_id)
    assert sorted(answered) == slow


async def test_a_slow_search_holds_up_no_neighbour_in_its_batch(served: Served) -> None:
    await ask(served, batch(put("a")))
    served.items.searches.clear()
    stream = Stream(served)
    await stream.send(batch(search(), get("a"), get("", key="bad"), put("b"), search()))
    told: dict[int, pb.StoreGroupResult] = {}
    while len(told) < 3:
        part = await stream.receive()
        assert part is not None
        assert part.more
        told.update(zip(part.positions, part.store.results, strict=True))
    assert sorted(told) == [1, 2, 3]
    assert [told[at].status.code for at in (1, 3)] == [OK, OK]
    assert reason_of(told[2].status) == ("INVALID_FIELD", "groups[2].ops[0].get.namespace.labels[0]")
    served.items.searches.set()
    last = await stream.receive()
    assert last is not None
    assert (list(last.positions), last.more) == ([0, 4], False)
    assert [result.status.code for result in last.store.results] == [OK, OK]


async def test_a_search_whose_time_runs_out_fails_alone(served: Served) -> None:
    served.items.searches.clear()
    hurried = group(search())
    hurried.operation.timeout_ms = 50
    results = await ask(served, batch(hurried, get("a"), put("a")))
    assert [reason_of(result.status)[0] for result in results] == ["DEADLINE_EXCEEDED", "", ""]
    await until(lambda: served.items.running == 0)


@pytest.mark.parametrize("in_a_session", [False, True])
@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (errors.Unavailable(), "UNAVAILABLE"),
        (errors.Conflict(), "CONFLICT"),
        (RuntimeError(SECRET), "INTERNAL"),
        (asyncio.CancelledError(), "UNAVAILABLE"),
    ],
)
async def test_what_storage_fails_with_is_told_to_each_group(
    served: Served, failure: BaseException, reason: str, in_a_session: bool
) -> None:
    served.items.failure = failure
    stream = Stream(served)
    for request in (batch(get("a")), batch(get("a"), search(), put("a"), put("b"))):
        if in_a_session:
            results = list((await stream.ask(request)).store.results)
        else:
            results = await ask(served, request)
        assert [reason_of(result.status)[0] for result in results] == [reason] * len(request.groups)
        assert not any("SELECT" in result.status.message for result in results)
    served.items.failure = None
    assert await keys(served) == []


async def test_a_caller_that_goes_away_takes_its_searches_along(served: Served) -> None:
    served.items.searches.clear()
    call = served.items_stub.Batch(batch(search(), search(), get("a")), metadata=served.metadata)
    await until(lambda: served.items.running == 2)
    call.cancel()
    await until(lambda: served.items.running == 0)


# Telemetry.


async def test_spans_say_how_many_groups_and_nothing_of_what_is_in_them(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter: InMemorySpanExporter = recording(monkeypatch)
    secret = os.urandom(8).hex()
    request = batch(
        put(f"label{secret}", key=f"key{secret}", value={"v": secret}), search(filter={"v": secret})
    )
    await ask(served, request)
    await Stream(served).ask(request)
    await ask(served, batch(get(f"{secret}.")))
    call = served.items_stub.BatchSliced(iter(sliced(batch(get("a")))), metadata=served.metadata)
    _ = [part async for part in call]
    spans = [span for span in exporter.get_finished_spans() if "StoreService" in span.name]
    assert [span.name.rsplit("/", 1)[-1] for span in spans] == ["Batch", "Batch", "Batch", "BatchSliced"]
    assert [dict(span.attributes or {})["tenure.operations"] for span in spans] == [2, 2, 1, 1]
    assert all(span.context is not None and f"{span.context.trace_id:032x}" == TRACE for span in spans[:3])
    assert not any(secret in span.to_json() for span in spans)
