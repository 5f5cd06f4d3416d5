"""Keys of one tenant that are limited to some namespaces: neither reads, changes or learns of other items."""

from __future__ import annotations

import base64
import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import grpc
import pytest
from google.rpc import status_pb2
from tenure.v1 import checkpoints_pb2 as cp
from tenure.v1 import checkpoints_pb2_grpc, store_pb2_grpc
from tenure.v1 import store_pb2 as pb
from tenure.v1.common_pb2 import Slice

from tests.harness.processes import PATIENCE
from tests.harness.stack import Stack
from tests.integration.key_rules_support import ITEMS, REFUSED, How
from tests.integration.wire_support import operation, reason_of

Labels = tuple[str, ...]

PLACES: list[Labels] = [
    *(("a",), ("a", "x"), ("a", "x", "y"), ("ab",), ("a-b", "x"), ("b",), ("b", "a")),
    *(("shared",), ("shared", "a"), ("c", "a"), ("A",)),
]
"""Namespaces that hold items."""
WRITABLE, READABLE = ("a",), ("shared",)
RULES = ["namespaces:a:rw", "namespaces:shared:r"]
INDEX = pb.StoreIndex(dims=2, embedder="tests")


class Items:
    """Calls the store with a key; a context manager."""

    def __init__(self, target: str, key: str) -> None:
        self._channel = grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)])
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._stub: Any = store_pb2_grpc.StoreServiceStub(self._channel)
        self._session: Any = checkpoints_pb2_grpc.CheckpointServiceStub(self._channel)

    def call(self, method: str, request: Any) -> Any:
        """Call an RPC and return its reply, or the reason of its refusal."""
        rpc = getattr(self._stub, method)
        try:
            return rpc(request, metadata=self._metadata, timeout=PATIENCE)
        except grpc.RpcError as error:
            return _reason(error)

    def groups(self, *groups: pb.StoreGroup) -> list[pb.StoreGroupResult]:
        """Send a batch."""
        return list(self.call("Batch", pb.BatchRequest(groups=groups)).results)

    def group_in_slices(self, group: pb.StoreGroup) -> pb.StoreGroupResult:
        """Send a batch of one group in slices."""
        data = pb.BatchRequest(groups=[group]).SerializeToString()
        parts = iter([pb.BatchSlicedRequest(slice=Slice(data=data, total_bytes=len(data)))])
        replies = self._stub.BatchSliced(parts, metadata=self._metadata, timeout=PATIENCE)
        answer = b"".join(reply.slice.data for reply in replies)
        return pb.BatchResponse.FromString(answer).results[0]

    def group_in_a_session(self, group: pb.StoreGroup) -> pb.StoreGroupResult:
        """Send a batch of one group over a session."""
        request = cp.SessionRequest(call_id=1, store=pb.BatchRequest(groups=[group]))
        replies = self._session.Session(iter([request]), metadata=self._metadata, timeout=PATIENCE)
        result: pb.StoreGroupResult
        (result,) = [result for reply in replies for result in reply.store.results]
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._channel.close()


SENDERS: dict[str, Callable[[Items, pb.StoreGroup], pb.StoreGroupResult]] = {
    "in a batch": lambda items, group: items.groups(group)[0],
    "in slices": Items.group_in_slices,
    "in a session": Items.group_in_a_session,
}


@dataclass(frozen=True)
class Shared:
    """A tenant with items in `PLACES`, and keys of it: one without rules, and one with `RULES`."""

    everywhere: Items
    limited: Items

    def stored(self) -> list[bytes]:
        """Return all items of the tenant."""
        (result,) = self.everywhere.groups(group(search()))
        assert result.status.code == 0
        return [item.SerializeToString() for item in result.results[0].items.items]


@pytest.fixture
def shared(stack: Stack) -> Iterator[Shared]:
    tenant = stack.new_tenant(("read", "write", "admin"))
    limited = stack.new_key(tenant, *RULES, scopes=("read", "write", "admin"))
    with Items(stack.target, tenant.api_key) as everywhere, Items(stack.target, limited) as one:
        (result,) = everywhere.groups(group(*(put(place) for place in PLACES)))
        assert result.status.code == 0
        yield Shared(everywhere, one)


def group(*ops: pb.StoreOp) -> pb.StoreGroup:
    return pb.StoreGroup(operation=operation(), ops=ops)


def get(place: Labels) -> pb.StoreOp:
    return pb.StoreOp(get=pb.GetItem(namespace=pb.Namespace(labels=place), key="key"))


def put(place: Labels, value: str = "stored") -> pb.StoreOp:
    value_json = json.dumps({"value": value, "canary": canary(place)})
    return pb.StoreOp(put=pb.PutItem(namespace=pb.Namespace(labels=place), key="key", value_json=value_json))


def delete(place: Labels) -> pb.StoreOp:
    return pb.StoreOp(delete=pb.DeleteItem(namespace=pb.Namespace(labels=place), key="key"))


def search(place: Labels = (), limit: int = 1000, offset: int = 0) -> pb.StoreOp:
    prefix = pb.Namespace(labels=place)
    return pb.StoreOp(search=pb.SearchItems(namespace_prefix=prefix, limit=limit, offset=offset))


def listing(depth: int | None = None, ends: Sequence[str] = ()) -> pb.StoreOp:
    conditions = [pb.MatchCondition(type=pb.MATCH_TYPE_SUFFIX, path=ends)] if ends else []
    return pb.StoreOp(list_namespaces=pb.ListNamespaces(conditions=conditions, max_depth=depth, limit=1000))


def canary(place: Labels) -> str:
    """Return text that is in the item of a namespace alone."""
    return "canary:" + "|".join(place) + ":"


def may_write(place: Labels) -> bool:
    return place[:1] == WRITABLE


def may_read(place: Labels) -> bool:
    return may_write(place) or place[:1] == READABLE


@pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)
@pytest.mark.parametrize("make", [get, put, delete])
def test_what_a_group_names_must_be_allowed(
    shared: Shared,
    make: Callable[[Labels], pb.StoreOp],
    send: Callable[[Items, pb.StoreGroup], pb.StoreGroupResult],
) -> None:
    allowed = may_read if make is get else may_write
    for place in [*PLACES, ("absent",), ("a", "absent"), ("b", "absent")]:
        before = shared.stored()
        result = send(shared.limited, group(make(place)))
        assert (reason_of(result.status)[0] == REFUSED) is not allowed(place), place
        if not allowed(place):
            assert not result.results
            assert shared.stored() == before
        elif make is get and place in PLACES:
            assert canary(place) in str(result)


def test_a_group_of_which_one_operation_is_outside_the_rules_does_nothing(shared: Shared) -> None:
    before = shared.stored()
    for foreign in (put(("b",), "new"), delete(("b",)), put(READABLE, "new"), put(("ab",), "new")):
        for ops in itertools.permutations([put(("a",), "new"), foreign]):
            (result,) = shared.limited.groups(group(*ops))
            at = ops.index(foreign)
            reason, metadata = reason_of(result.status)
            assert reason == REFUSED
            assert metadata["field"].startswith(f"groups[0].ops[{at}].")
    reads, refused, writes = shared.limited.groups(
        group(get(("a",))), group(get(("b",)), get(("a",))), group(put(("a", "x")))
    )
    assert [reason_of(result.status)[0] for result in (reads, refused, writes)] == ["", REFUSED, ""]
    assert not refused.results
    assert shared.stored() != before


@pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)
def test_searches_and_listings_are_those_of_all_items_without_the_others(
    shared: Shared, send: Callable[[Items, pb.StoreGroup], pb.StoreGroupResult]
) -> None:
    for place in [(), *PLACES, ("absent",)]:
        full = _found(send(shared.everywhere, group(search(place))))
        expected = [item for item in full if may_read(item)]
        assert _found(send(shared.limited, group(search(place)))) == expected
        for limit, offset in itertools.product((1, 2, 100), range(4)):
            page = _found(send(shared.limited, group(search(place, limit, offset))))
            assert page == expected[offset : offset + limit]
    for depth, ends in itertools.product((None, 1, 2), ((), ("a",), ("*", "x"))):
        full = _listed(send(shared.everywhere, group(listing(None, ends))))
        expected = sorted({place[:depth] for place in full if may_read(place)})
        assert _listed(send(shared.limited, group(listing(depth, ends)))) == expected


def test_the_index_and_what_waits_for_it(shared: Shared) -> None:
    before = shared.stored()
    request = pb.SetIndexRequest(operation=operation(), index=INDEX)
    assert shared.limited.call("SetIndex", request) == REFUSED
    assert shared.everywhere.call("SetIndex", request).unembedded == len(PLACES)
    assert shared.limited.call("GetIndex", pb.GetIndexRequest(operation=operation())).unembedded == 0

    waiting, tokens = _waiting(shared.limited)
    assert sorted(waiting) == sorted(place for place in PLACES if may_read(place))
    hidden = [list(place) for place in PLACES if not may_read(place)]
    assert [token for token in tokens if token[:-1] in hidden] == [], "a token tells of an item"

    for place in PLACES:
        vectors = pb.ItemVectors(
            namespace=pb.Namespace(labels=place),
            key="key",
            updated_at_us=waiting.get(place, 1),
            vectors=[pb.Vector(path="$", values=[1.0, 0.0])],
        )
        told = pb.PutVectorsRequest(operation=operation(), index=INDEX, items=[vectors])
        assert (shared.limited.call("PutVectors", told) == REFUSED) is not may_write(place)
    assert sorted(_waiting(shared.everywhere)[0]) == sorted(p for p in PLACES if not may_write(p))
    assert shared.stored() == before


@pytest.mark.parametrize("method", [method for method, how in ITEMS.items() if how is not How.SHOWN])
def test_a_key_with_rules_for_threads_alone_reaches_no_item(stack: Stack, method: str) -> None:
    tenant = stack.new_tenant(("read", "write", "admin"))
    key = stack.new_key(tenant, "threads:*:rw", scopes=("read", "write", "admin"))
    with Items(stack.target, key) as items:
        if method == "SetIndex":
            request: Any = pb.SetIndexRequest(operation=operation(), index=INDEX)
            assert items.call(method, request) == REFUSED
        elif method == "PutVectors":
            vectors = pb.ItemVectors(namespace=pb.Namespace(labels=["a"]), key="key", updated_at_us=1)
            request = pb.PutVectorsRequest(operation=operation(), index=INDEX, items=[vectors])
            assert items.call(method, request) == REFUSED
        else:
            send = SENDERS["in slices" if method == "BatchSliced" else "in a batch"]
            for op in (get(("a",)), put(("a",)), delete(("a",))):
                assert reason_of(send(items, group(op)).status)[0] == REFUSED
            with Items(stack.target, tenant.api_key) as everywhere:
                everywhere.groups(group(put(("a",))))
                assert _found(send(items, group(search()))) == []
                assert _listed(send(items, group(listing()))) == []


@pytest.mark.parametrize("seed", range(4))
def test_whatever_one_asks_other_items_are_out_of_reach(shared: Shared, seed: int) -> None:
    dice = random.Random(seed)
    hidden = [place for place in PLACES if not may_read(place)]
    kept = [place for place in PLACES if not may_write(place)]

    def of_others() -> list[pb.StoreResult]:
        (result,) = shared.everywhere.groups(group(*(get(place) for place in kept)))
        return list(result.results)

    def place() -> Labels:
        return (
            dice.choice(PLACES) if dice.random() < 0.7 else tuple(dice.sample(["a", "b", "ab", "shared"], 2))
        )

    before = of_others()
    for _ in range(40):
        if dice.random() < 0.5:
            ops = [dice.choice([put, delete])(place()) for _ in range(dice.randrange(1, 4))]
        else:
            makes: list[Callable[[], pb.StoreOp]] = [
                lambda: get(place()),
                lambda: search(place()[: dice.randrange(3)]),
                lambda: listing(dice.choice([None, 1, 2]), dice.choice([(), ("*",), ("a",)])),
            ]
            ops = [dice.choice(makes)() for _ in range(dice.randrange(1, 4))]
        result = dice.choice(list(SENDERS.values()))(shared.limited, group(*ops))
        assert reason_of(result.status)[0] in {"", REFUSED}
        for canary_of in map(canary, hidden):
            assert canary_of not in str(result), ops
        listed = [labels for answer in result.results for labels in _labels(answer.namespaces.namespaces)]
        assert all(may_read(labels) for labels in listed), ops
        assert of_others() == before, ops


def _found(result: pb.StoreGroupResult) -> list[Labels]:
    assert result.status.code == 0, result
    return [tuple(item.namespace.labels) for item in result.results[0].items.items]


def _listed(result: pb.StoreGroupResult) -> list[Labels]:
    assert result.status.code == 0, result
    return _labels(result.results[0].namespaces.namespaces)


def _labels(namespaces: Sequence[pb.Namespace]) -> list[Labels]:
    return [tuple(namespace.labels) for namespace in namespaces]


def _waiting(items: Items) -> tuple[dict[Labels, int], list[list[str]]]:
    """Return when each item that waits to be embedded was put, and what the tokens of its pages say."""
    found: dict[Labels, int] = {}
    tokens: list[list[str]] = []
    token = ""
    while True:
        request = pb.ListUnembeddedRequest(operation=operation(), limit=1, page_token=token)
        page = items.call("ListUnembedded", request)
        found |= {tuple(one.item.namespace.labels): one.item.updated_at_us for one in page.items}
        token = page.next_page_token
        if not token:
            return found, tokens
        tokens.append(json.loads(base64.urlsafe_b64decode(token)[1:]))


def _reason(error: Any) -> str:
    trailers = dict(error.trailing_metadata() or ())
    return reason_of(status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b"")))[0]
