"""Items through a whole server on Postgres: what is refused changes nothing, what is taken comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from hypothesis import HealthCheck, given, settings
from tenure.v1 import checkpoints_pb2, checkpoints_pb2_grpc, store_pb2_grpc
from tenure.v1 import store_pb2 as pb

from tests.harness.processes import PATIENCE
from tests.harness.stack import Stack, TenantHandle
from tests.property.profiles import SLOW
from tests.unit.server.hostile import any_json, messages_of
from tests.unit.server.storing import batch, delete, get, group, listing, put, reason_of, search, sliced
from tests.unit.server.test_store_requests import BAD_CALLS, BAD_GROUPS, LARGE, TAKEN

REFUSALS = {
    *("", "INVALID_FIELD", "LIMIT_EXCEEDED", "OPERATION_MISMATCH", "INDEX_MISMATCH", "DEADLINE_EXCEEDED"),
    *("OVERLOADED",),
}
fuzzed = settings(
    deadline=None,
    derandomize=not SLOW,
    max_examples=2_000 if SLOW else 100,
    suppress_health_check=[HealthCheck.too_slow],
)


class Store:
    """A client of the store without our client."""

    def __init__(self, target: str, tenant: TenantHandle) -> None:
        self.channel = grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", -1)])
        self.metadata = [("authorization", f"Bearer {tenant.api_key}")]
        self.stub = store_pb2_grpc.StoreServiceStub(self.channel)

    def call(self, method: str, request: Any) -> Any:
        return getattr(self.stub, method)(request, metadata=self.metadata, timeout=PATIENCE)

    def ask(self, *groups: pb.StoreGroup | pb.StoreOp) -> list[pb.StoreGroupResult]:
        """Send a batch and return the results of its groups."""
        results = list(self.call("Batch", batch(*groups)).results)
        assert len(results) == len(groups)
        return results

    def ask_sliced(self, one: pb.StoreGroup | pb.StoreOp) -> pb.StoreGroupResult:
        """Send a group in slices and return its result, which comes in slices."""
        parts = self.call("BatchSliced", iter(sliced(batch(one))))
        (result,) = pb.BatchResponse.FromString(b"".join(part.slice.data for part in parts)).results
        return result

    def refusal(self, method: str, request: Any) -> tuple[str, str]:
        """Return why a call is refused, and the field that is named."""
        try:
            self.call(method, request)
        except grpc.RpcError as error:
            caught: Any = error
            details = dict(caught.trailing_metadata()).get("grpc-status-details-bin", b"")
            return reason_of(status_pb2.Status.FromString(details))
        return "", ""

    def keys(self, *labels: str) -> list[str]:
        """Return the keys below a namespace."""
        (result,) = self.ask(search(*labels))
        assert result.status.code == 0, result.status.message
        return [item.key for item in result.results[0].items.items]


@pytest.fixture
def store(stack: Stack) -> Iterator[Store]:
    """The items of a new tenant."""
    opened = Store(stack.target, stack.new_tenant(("read", "write", "admin")))
    with opened.channel:
        yield opened


def test_a_bad_group_fails_alone_and_changes_nothing(store: Store) -> None:
    for number, (bad, reason, field) in enumerate(BAD_GROUPS):
        key = f"good {number}"
        results = store.ask(put("good", key=key), bad, get("good"))
        assert reason_of(results[1].status) == (reason, f"groups[1].{field}")
        assert [results[0].status.code, results[2].status.code] == [0, 0]
    assert store.keys() == [f"good {number}" for number in range(len(BAD_GROUPS))]
    for one, reason, field in LARGE:
        assert reason_of(store.ask_sliced(one).status) == (reason, f"groups[0].{field}")
    for method, request, reason, field in BAD_CALLS:
        assert store.refusal(method, request) == (reason, field)
    assert len(store.keys()) == len(BAD_GROUPS)
    assert not store.call("GetIndex", pb.GetIndexRequest()).HasField("index")


def test_a_session_outlives_the_groups_that_it_refuses(store: Store) -> None:
    session = checkpoints_pb2_grpc.CheckpointServiceStub(store.channel).Session
    requests = [
        checkpoints_pb2.SessionRequest(call_id=number, store=batch(bad, put("good")))
        for number, (bad, _, _) in enumerate(BAD_GROUPS, 1)
    ]
    told: dict[int, list[pb.StoreGroupResult]] = {}
    for part in session(iter(requests), metadata=store.metadata, timeout=PATIENCE):
        told.setdefault(part.call_id, [pb.StoreGroupResult(), pb.StoreGroupResult()])
        positions = list(part.positions) or range(len(part.store.results))
        for at, result in zip(positions, part.store.results, strict=True):
            told[part.call_id][at] = result
    for number, (_, reason, field) in enumerate(BAD_GROUPS, 1):
        refused, good = told[number]
        assert reason_of(refused.status) == (reason, f"groups[0].{field}")
        assert good.status.code == 0
    assert store.keys() == ["key"]


@pytest.mark.parametrize("number", range(len(TAKEN)))
def test_what_is_at_its_limit_is_taken(store: Store, number: int) -> None:
    (result,) = store.ask(TAKEN[number])
    assert result.status.code == 0, result.status.message


def test_what_was_put_comes_back(store: Store) -> None:
    value = {
        "text": "é\n\u2028 \U0001f600",
        "numbers": [1, 1.5, -0.25, 10**400, 1e300],
        "": {"a": [None, True]},
    }
    store.ask(put("a", "b", key="é", value=value), put("a", value={}))
    read, found, named = store.ask(get("a", "b", key="é"), search("a"), listing())
    assert json.loads(read.results[0].item.value_json) == value
    assert [item.key for item in found.results[0].items.items] == ["é", "key"]
    assert [tuple(one.labels) for one in named.results[0].namespaces.namespaces] == [("a",), ("a", "b")]
    store.ask(group(delete("a", "b", key="é"), delete("a")))
    assert store.keys() == []


def test_a_large_answer_comes_in_slices(store: Store) -> None:
    value = {"text": "x" * 2_000_000}
    assert store.ask_sliced(group(*[put("a", key=str(n), value=value) for n in range(3)])).status.code == 0
    one, all_of_them = store.ask(get("a", key="0"), search("a"))
    assert (one.omitted, all_of_them.omitted) == (False, True)
    whole = store.ask_sliced(search("a"))
    assert [json.loads(item.value_json) for item in whole.results[0].items.items] == [value] * 3


def test_whatever_is_asked_of_a_batch_is_served_or_refused(store: Store) -> None:
    @fuzzed
    @given(messages_of(pb.BatchRequest.DESCRIPTOR))
    def ask(request: pb.BatchRequest) -> None:
        try:
            reply = store.call("Batch", request)
        except grpc.RpcError:
            assert store.refusal("Batch", request)[0] in REFUSALS - {""}
            return
        assert {reason_of(result.status)[0] for result in reply.results} <= REFUSALS

    ask()


def test_any_filter_is_applied_or_refused(store: Store) -> None:
    values = [{}, {"a": 1}, {"a": None, "b": "x"}, {"a": [1, {"b": 2.5}], "": {}}, {"b": {"a": {"b": True}}}]
    store.ask(group(*[put("a", key=str(n), value=value) for n, value in enumerate(values)]))

    @fuzzed
    @given(any_json)
    def ask(filter: Any) -> None:
        (result,) = store.ask(search("a", filter=filter))
        assert reason_of(result.status)[0] in REFUSALS

    ask()


@pytest.mark.parametrize("method", ["GetIndex", "SetIndex", "ListUnembedded", "PutVectors"])
def test_whatever_is_asked_of_a_call_is_served_or_refused(store: Store, method: str) -> None:
    kind: Any = getattr(pb, f"{method}Request")

    @fuzzed
    @given(messages_of(kind.DESCRIPTOR))
    def ask(request: Any) -> None:
        assert store.refusal(method, request)[0] in REFUSALS

    ask()
