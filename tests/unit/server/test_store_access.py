"""What a key may do with items: its scopes, its tenant, its rules."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from tenure.v1 import store_pb2 as pb
from tenure_server.domain import TENANT_SCOPES, Scope
from tenure_server.rules import parse

from tests.unit.server.serving import Served, Stream, operation, serving
from tests.unit.server.storing import (
    INDEX,
    ask,
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
    sliced_vectors,
    vector,
)

OK, DENIED = 0, grpc.StatusCode.PERMISSION_DENIED.value[0]


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A server that looks at a key each time."""
    async with serving(trust=0) as opened:
        yield opened


@pytest.mark.parametrize("in_a_session", [False, True])
async def test_a_key_that_may_only_read_stores_nothing(served: Served, in_a_session: bool) -> None:
    await ask(served, batch(put("a")))
    metadata = await served.key(Scope.READ)
    request = batch(get("a"), put("b"), delete("a"), search())
    if in_a_session:
        results = list((await Stream(served, metadata).ask(request)).store.results)
    else:
        results = await ask(served, request, metadata)
    assert [result.status.code for result in results] == [OK, DENIED, DENIED, OK]
    assert [reason_of(result.status)[0] for result in results[1:3]] == ["SCOPE_MISSING"] * 2
    assert await keys(served) == ["key"]


ALL = None
"""All scopes: whoever makes vectors worthless must be able to make new ones."""
EITHER = (Scope.READ, Scope.WRITE)
"""Each group of a batch needs the one for what it does, and fails alone."""


async def test_each_call_needs_its_scope(served: Served) -> None:
    calls = {
        "GetIndex": (pb.GetIndexRequest(), Scope.READ),
        "SetIndex": (pb.SetIndexRequest(operation=operation(), index=INDEX), ALL),
        "ListUnembedded": (pb.ListUnembeddedRequest(), Scope.READ),
        "PutVectors": (
            pb.PutVectorsRequest(operation=operation(), index=INDEX, items=[pb.ItemVectors(key="k")]),
            Scope.WRITE,
        ),
        "PutVectorsSliced": (
            sliced_vectors(
                pb.PutVectorsRequest(operation=operation(), index=INDEX, items=[pb.ItemVectors(key="k")])
            ),
            Scope.WRITE,
        ),
        "Batch": (batch(get("a")), EITHER),
        "BatchSliced": (sliced(batch(get("a"))), EITHER),
    }
    for method, (request, needed) in calls.items():
        for scope in Scope:
            metadata = await served.key(scope)
            given = iter(request) if isinstance(request, list) else request
            told = await refusal(getattr(served.items_stub, method)(given, metadata=metadata))
            assert told[0] == (
                "" if scope is needed or (needed is EITHER and scope in EITHER) else "SCOPE_MISSING"
            ), (method, scope)
            if needed is ALL:
                metadata = await served.key(Scope.READ, Scope.WRITE, Scope.ADMIN)
                assert await refusal(getattr(served.items_stub, method)(given, metadata=metadata)) == ("", "")


async def test_without_a_key_nothing_is_asked(served: Served) -> None:
    for metadata in ([], [("authorization", "Bearer tn_nonsense")]):
        for call in (
            served.items_stub.Batch(batch(put("a")), metadata=metadata),
            served.items_stub.BatchSliced(iter(sliced(batch(put("a")))), metadata=metadata),
            served.items_stub.GetIndex(pb.GetIndexRequest(), metadata=metadata),
        ):
            assert (await refusal(call))[0] == "UNAUTHENTICATED"
    assert served.items.stored == 0


async def test_items_of_two_tenants_are_two_worlds(served: Served) -> None:
    stranger = await served.key(Scope.READ, Scope.WRITE, tenant=await served.tenants.create_tenant("other"))
    await ask(served, batch(put("a", value={"n": 1})))
    results = await ask(served, batch(get("a"), search(), listing()), stranger)
    assert not results[0].results[0].HasField("item")
    assert not results[1].results[0].items.items
    assert not results[2].results[0].namespaces.namespaces
    await ask(served, batch(delete("a")), stranger)
    assert await keys(served) == ["key"]


@pytest.mark.parametrize("in_a_session", [False, True])
async def test_a_limited_key_reaches_what_its_rules_say(served: Served, in_a_session: bool) -> None:
    await ask(served, batch(put("mine", "x"), put("shared"), put("secret"), put("shared-not")))
    rules = parse(["namespaces:mine:rw", "namespaces:shared:r"])
    key = await served.tenants.create_key(served.tenant, TENANT_SCOPES, rules=rules)
    metadata = [("authorization", f"Bearer {key}")]
    request = batch(
        get("mine", "x"),
        get("shared"),
        group(get("mine", "x"), get("secret")),
        put("mine", key="new"),
        put("shared", key="new"),
        group(put("mine", key="with"), delete("secret")),
        delete("shared"),
    )
    if in_a_session:
        results = list((await Stream(served, metadata).ask(request)).store.results)
    else:
        results = await ask(served, request, metadata)
    assert [reason_of(result.status) for result in results] == [
        ("", ""),
        ("", ""),
        ("OUTSIDE_RULES", "groups[2].ops[1].get.namespace"),
        ("", ""),
        ("OUTSIDE_RULES", "groups[4].ops[0].put.namespace"),
        ("OUTSIDE_RULES", "groups[5].ops[1].delete.namespace"),
        ("OUTSIDE_RULES", "groups[6].ops[0].delete.namespace"),
    ]
    assert {result.status.code for result in results} == {OK, DENIED}
    found, narrow, named = await ask(served, batch(search(), search("secret"), listing()), metadata)
    assert [item.key for item in found.results[0].items.items] == ["key", "key", "new"]
    assert not narrow.results[0].items.items
    namespaces = [tuple(one.labels) for one in named.results[0].namespaces.namespaces]
    assert namespaces == [("mine",), ("mine", "x"), ("shared",)]


async def test_a_limited_key_leaves_the_vectors_of_others_alone(served: Served) -> None:
    await ask(served, batch(put("mine"), put("secret")))
    key = await served.tenants.create_key(served.tenant, TENANT_SCOPES, rules=parse(["namespaces:mine:rw"]))
    metadata = [("authorization", f"Bearer {key}")]
    stub = served.items_stub
    page = await stub.ListUnembedded(pb.ListUnembeddedRequest(), metadata=metadata)
    assert [tuple(one.item.namespace.labels) for one in page.items] == [("mine",)]
    assert (await stub.GetIndex(pb.GetIndexRequest(), metadata=metadata)).unembedded == 0
    assert (await stub.GetIndex(pb.GetIndexRequest(), metadata=served.metadata)).unembedded == 2
    change = pb.SetIndexRequest(operation=operation(), index=INDEX)
    assert await refusal(stub.SetIndex(change, metadata=metadata)) == ("OUTSIDE_RULES", "index")
    foreign = pb.ItemVectors(namespace=pb.Namespace(labels=["secret"]), vectors=[vector(1, 2)])
    request = pb.PutVectorsRequest(operation=operation(), index=INDEX, items=[foreign])
    assert await refusal(stub.PutVectors(request, metadata=metadata)) == (
        "OUTSIDE_RULES",
        "items[0].namespace",
    )
