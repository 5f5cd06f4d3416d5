"""TenureCache as LangGraph sees it, and its plans without a server."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from langgraph.cache.base import BaseCache, FullKey
from tenure.v1 import cache_pb2 as pb
from tenure.v1 import common_pb2
from tenure_client import (
    Connection,
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    PermissionDenied,
    ServerError,
    TenureCache,
    TenureError,
    TenureSerializer,
    Unauthenticated,
    Unavailable,
)
from tenure_client.calls import Call, Plan
from tenure_client.retry import Budget

KEYS: list[FullKey] = [(("n",), str(number)) for number in range(600)]


@pytest.fixture
def cache() -> TenureCache[Any]:
    return TenureCache("127.0.0.1:1", api_key="tn_x")


def value(number: int) -> common_pb2.Blob:
    tag, data = TenureSerializer().dumps_typed(number)
    return common_pb2.Blob(type=tag, data=data)


def hits(call: Call, *indexes: int, omitted: tuple[int, ...] = ()) -> pb.GetResponse:
    """Answer with the number that each of these keys ends in."""
    assert isinstance(call.request, pb.GetRequest)
    found = [pb.CacheHit(index=i, value=value(int(call.request.keys[i].key))) for i in indexes]
    return pb.GetResponse(hits=found, omitted=omitted)


def result(plan: Plan[Any], reply: Any) -> Any:
    """Send the last reply and return what the plan returns."""
    with pytest.raises(StopIteration) as ended:
        plan.send(reply)
    return ended.value.value


@pytest.mark.parametrize("name", ["get", "set", "clear", "aget", "aset", "aclear"])
def test_every_method_is_overridden_with_the_same_parameters(name: str) -> None:
    base, ours = getattr(BaseCache, name), getattr(TenureCache, name)
    assert ours is not base
    assert [(p.name, p.kind, p.default) for p in inspect.signature(ours).parameters.values()] == [
        (p.name, p.kind, p.default) for p in inspect.signature(base).parameters.values()
    ]


def test_the_serializer_is_ours_unless_one_is_given(cache: TenureCache[Any]) -> None:
    assert isinstance(cache.serde, TenureSerializer)
    own = TenureSerializer()
    assert TenureCache[Any]("127.0.0.1:1", api_key="tn_x", serde=own).serde is own
    with pytest.raises(InvalidRequest, match="serde="):
        TenureCache[Any]("127.0.0.1:1", api_key="tn_x", serde=own, allowed_types=[])


def test_arguments_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="timeout"):
        TenureCache[Any]("127.0.0.1:1", api_key="tn_x", timeout=0)
    connection = Connection("127.0.0.1:1", api_key="tn_x")
    with pytest.raises(InvalidRequest, match="own api_key"):
        TenureCache[Any](connection, api_key="tn_y")


def test_a_cache_shows_where_it_is_and_not_its_key(cache: TenureCache[Any]) -> None:
    assert "127.0.0.1:1" in repr(cache)
    assert "tn_x" not in repr(cache)


def test_many_keys_are_asked_for_in_several_calls(cache: TenureCache[Any]) -> None:
    plan = cache._get([*KEYS, *KEYS])
    sizes, call = [], next(plan)
    for _ in range(2):
        sizes.append(len(call.request.keys))  # type: ignore[attr-defined]
        call = plan.send(hits(call, 1))
    sizes.append(len(call.request.keys))  # type: ignore[attr-defined]
    assert sizes == [256, 256, 88]
    assert result(plan, hits(call, 0)) == {KEYS[1]: 1, KEYS[257]: 257, KEYS[512]: 512}


def test_what_the_reply_had_no_room_for_is_asked_for_again(cache: TenureCache[Any]) -> None:
    plan = cache._get(KEYS[:4])
    again = plan.send(hits(next(plan), 0, 2, omitted=(1, 3)))
    assert [key.key for key in again.request.keys] == ["1", "3"]  # type: ignore[attr-defined]
    assert result(plan, hits(again, 1)) == {KEYS[0]: 0, KEYS[2]: 2, KEYS[3]: 3}


def test_a_server_that_never_has_room_is_not_asked_for_ever(cache: TenureCache[Any]) -> None:
    plan = cache._get(KEYS[:2])
    assert result(plan, hits(next(plan), omitted=(0, 1))) == {}


@pytest.mark.parametrize("error", [Unavailable, DeadlineExceeded, Overloaded, ServerError])
def test_a_service_that_fails_is_a_miss_and_keeps_what_was_found(
    cache: TenureCache[Any], error: type[TenureError]
) -> None:
    reading = cache._get(KEYS)
    reading.send(hits(next(reading), 3))
    with pytest.raises(StopIteration) as ended:
        reading.throw(error("away"))
    assert ended.value.value == {KEYS[3]: 3}

    writing = cache._set({KEYS[0]: (1, None)})
    next(writing)
    with pytest.raises(StopIteration):
        writing.throw(error("away"))


@pytest.mark.parametrize("error", [Unauthenticated, PermissionDenied, InvalidRequest])
def test_a_mistake_of_the_caller_is_no_miss(cache: TenureCache[Any], error: type[TenureError]) -> None:
    for plan in (cache._get(KEYS), cache._set({KEYS[0]: (1, None)})):
        next(plan)
        with pytest.raises(error):
            plan.throw(error("wrong"))


@pytest.mark.parametrize(
    "stored",
    [
        common_pb2.Blob(type="msgpack", data=b"\xc1"),
        common_pb2.Blob(type="pickle", data=b"cos\nsystem\n(S'true'\ntR."),
        common_pb2.Blob(type="unknown", data=b""),
    ],
)
def test_a_value_that_cannot_be_read_is_a_miss(cache: TenureCache[Any], stored: common_pb2.Blob) -> None:
    plan = cache._get(KEYS[:2])
    next(plan)
    reply = pb.GetResponse(hits=[pb.CacheHit(index=0, value=stored), pb.CacheHit(index=1, value=value(1))])
    assert result(plan, reply) == {KEYS[1]: 1}


def test_entries_are_sent_in_requests_that_the_server_takes(cache: TenureCache[Any]) -> None:
    pairs: dict[FullKey, tuple[Any, int | None]] = dict.fromkeys(KEYS[:300], (0, 60))
    pairs |= {(("large",), str(number)): (bytes(700_000), None) for number in range(2)}
    pairs[("large",), "too"] = bytes(2_000_000), 60
    pairs[("gone",), "0"] = 0, 0
    requests: list[pb.SetRequest] = []
    plan = cache._set(pairs)
    call = next(plan, None)
    while call is not None:
        assert isinstance(call.request, pb.SetRequest)
        requests.append(call.request)
        try:
            call = plan.send(pb.SetResponse())
        except StopIteration:
            call = None
    entries = [entry for request in requests for entry in request.entries]
    assert [entry.key.key for entry in entries] == [name for _, name in pairs]
    assert all(len(request.entries) <= 256 and request.ByteSize() < 2**20 for request in requests)
    assert len(requests) == 3
    assert entries[0].ttl_seconds == 60
    assert not entries[300].HasField("ttl_seconds")
    assert [entry.HasField("value") for entry in entries[-4:]] == [True, True, False, False]


def test_a_value_that_cannot_be_written_raises(cache: TenureCache[Any]) -> None:
    with pytest.raises(TypeError):
        next(cache._set({KEYS[0]: (object(), None)}))


def test_one_attempt_is_all_there_is() -> None:
    budget = Budget(60, retries=False)
    budget.begin_attempt()
    assert budget.pause_after(Unavailable("away")) is None
    again = Budget(60)
    again.begin_attempt()
    assert again.pause_after(Unavailable("away")) is not None
