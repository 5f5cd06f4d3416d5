"""Bad requests about items: a typed error that names the field, nothing stored, and the next call works."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tenure.v1 import store_pb2 as pb
from tenure_server.domain import Scope

from tests.unit.server.serving import Served, Stream, operation, serving
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

MIB = 1 << 20
INVALID, LIMIT = "INVALID_FIELD", "LIMIT_EXCEEDED"


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A server."""
    async with serving() as opened:
        yield opened


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


def with_id(operation_id: bytes, *ops: pb.StoreOp) -> pb.StoreGroup:
    made = group(*ops)
    made.operation.operation_id = operation_id
    return made


def value(text: str) -> pb.StoreOp:
    return put("a", value_json=text)


def filtered(filter: Any) -> pb.StoreOp:
    return search(filter_json=filter if isinstance(filter, str) else json.dumps(filter))


def indexed(*ops: pb.StoreOp, dims: int = 2, embedder: str = "test") -> pb.StoreGroup:
    return group(*ops, index=pb.StoreIndex(dims=dims, embedder=embedder))


PUT, SEARCH, LIST = "ops[0].put", "ops[0].search", "ops[0].list_namespaces"
BAD_LABELS = ["", "a.b", ".", "a\0"]
BAD_GROUPS: list[tuple[pb.StoreGroup | pb.StoreOp, str, str]] = [
    (group(), INVALID, "ops"),
    (pb.StoreGroup(operation=operation(), ops=[get("a")] * 1001), LIMIT, "ops"),
    (pb.StoreOp(), INVALID, "ops[0].kind"),
    (group(get("a"), pb.StoreOp()), INVALID, "ops[1].kind"),
    (group(get("a"), put("a")), INVALID, "ops"),
    (group(delete("a"), search()), INVALID, "ops"),
    *((with_id(b"x" * size, put("a")), INVALID, "operation.operation_id") for size in (0, 15, 17)),
    (with_id(b"x", get("a")), INVALID, "operation.operation_id"),
    # Namespaces.
    *((put("a", label), INVALID, f"{PUT}.namespace.labels[1]") for label in BAD_LABELS),
    *((get(label), INVALID, "ops[0].get.namespace.labels[0]") for label in BAD_LABELS),
    *((delete("a", label), INVALID, "ops[0].delete.namespace.labels[1]") for label in BAD_LABELS),
    *((search(label), INVALID, f"{SEARCH}.namespace_prefix.labels[0]") for label in BAD_LABELS),
    *((listing("*", label), INVALID, f"{LIST}.conditions[0].path[1]") for label in BAD_LABELS),
    (put(), INVALID, f"{PUT}.namespace.labels"),
    (put("langgraph", "x"), INVALID, f"{PUT}.namespace.labels[0]"),
    (put(*["a"] * 33), LIMIT, f"{PUT}.namespace.labels"),
    (put("a" * 1025), LIMIT, f"{PUT}.namespace.labels"),
    (put("é" * 512, "e"), LIMIT, f"{PUT}.namespace.labels"),
    (listing(*["*"] * 33), LIMIT, f"{LIST}.conditions[0].path"),
    (group(put("a"), put("a", ""), put("b")), INVALID, "ops[1].put.namespace.labels[1]"),
    # Keys.
    (put("a", key="k" * 513), LIMIT, f"{PUT}.key"),
    (put("a", key="é" * 257), LIMIT, f"{PUT}.key"),
    (put("a", key="k\0"), INVALID, f"{PUT}.key"),
    (get("a", key="k" * 513), LIMIT, "ops[0].get.key"),
    (delete("a", key="\0"), INVALID, "ops[0].delete.key"),
    # Values.
    *(
        (value(text), INVALID, f"{PUT}.value_json")
        for text in (
            *("", "[]", "1", "null", '"text"', "{", '{"a": 1} x', "{'a': 1}", '{"a": 1,}', '{"a": 01}'),
            *('{"a": NaN}', '{"a": Infinity}', '{"a": -Infinity}', '{"a": 1e999}', '{"a": 1e-99999}'),
            *('{"a": 0e-99999}', '{"a": ' + "1" * 1001 + "}", '{"a": ' + "9" * 5000 + "}"),
            *('{"a": 0.' + "1" * 1000 + "}", '{"a": ' + "1" * 300 + "e300}"),
            *(r'{"a": "\u0000"}', r'{"\u0000": 1}', r'{"a": ["\ud800"]}', r'{"\udfff": 1}', '{"a": "\0"}'),
        )
    ),
    (value(nested(65)), LIMIT, f"{PUT}.value_json"),
    (value('{"a":' + "[" * 100_000), LIMIT, f"{PUT}.value_json"),
    (value('{"a":' + "[" * 64 + "]" * 64 + "}"), LIMIT, f"{PUT}.value_json"),
    *(
        (put("a", ttl_seconds=ttl), INVALID, f"{PUT}.ttl_seconds")
        for ttl in (-1.0, math.nan, math.inf, -math.inf, 1e300)
    ),
    (put("a", text="a\0"), INVALID, f"{PUT}.text"),
    (put("a", index_paths=["p"] * 1025), LIMIT, f"{PUT}.index_paths"),
    (put("a", index_paths=["p", "p" * 513]), LIMIT, f"{PUT}.index_paths[1]"),
    (put("a", unindexed=True, index_paths=["p"]), INVALID, f"{PUT}.index_paths"),
    (put("a", unindexed=True, text="words"), INVALID, f"{PUT}.text"),
    (indexed(put("a", unindexed=True, vectors=[vector(1, 2)])), INVALID, f"{PUT}.vectors"),
    # Vectors.
    (put("a", vectors=[vector(1, 2)]), INVALID, "index"),
    (search(mode=pb.SEARCH_MODE_SEMANTIC, query_vector=[1, 2]), INVALID, "index"),
    (indexed(get("a"), dims=0), INVALID, "index.dims"),
    (indexed(get("a"), dims=16_001), INVALID, "index.dims"),
    (indexed(get("a"), embedder="e" * 513), LIMIT, "index.embedder"),
    (indexed(get("a"), embedder="\0"), INVALID, "index.embedder"),
    *(
        (
            indexed(put("a", vectors=[vector(1, 2), vector(*values, path="b")])),
            INVALID,
            f"{PUT}.vectors[1].values",
        )
        for values in (
            *((), (1,), (1, 2, 3), (0, 0), (-0.0, 0.0)),
            *((math.nan, 1), (math.inf, 1), (-math.inf, math.inf), (1, 1e39)),
        )
    ),
    (indexed(put("a", vectors=[vector(1, 2), vector(3, 4)])), INVALID, f"{PUT}.vectors[1].path"),
    (indexed(put("a", vectors=[vector(1, 2, path="\0")])), INVALID, f"{PUT}.vectors[0].path"),
    *(
        (
            indexed(search(mode=pb.SEARCH_MODE_HYBRID, query_text="x", query_vector=values)),
            INVALID,
            f"{SEARCH}.query_vector",
        )
        for values in ([], [1], [1, 2, 3], [0, 0], [math.nan, 1])
    ),
    # Searches.
    (search(mode=9), INVALID, f"{SEARCH}.mode"),
    (indexed(search(query_vector=[1, 2])), INVALID, f"{SEARCH}.query_vector"),
    (indexed(search(mode=pb.SEARCH_MODE_SEMANTIC)), INVALID, f"{SEARCH}.query_vector"),
    (indexed(search(mode=pb.SEARCH_MODE_HYBRID, query_vector=[1, 2])), INVALID, f"{SEARCH}.query_text"),
    (search(mode=pb.SEARCH_MODE_KEYWORD), INVALID, f"{SEARCH}.query_text"),
    (search(query_text="words"), INVALID, f"{SEARCH}.query_text"),
    (search(mode=pb.SEARCH_MODE_KEYWORD, query_text="\0"), INVALID, f"{SEARCH}.query_text"),
    (search(mode=pb.SEARCH_MODE_KEYWORD, query_text="w" * 8193), LIMIT, f"{SEARCH}.query_text"),
    (search(limit=1001), LIMIT, f"{SEARCH}.limit"),
    (search(limit=2**32 - 1), LIMIT, f"{SEARCH}.limit"),
    (search(offset=2**31), LIMIT, f"{SEARCH}.offset"),
    # Filters.
    *(
        (filtered(shape), INVALID, f"{SEARCH}.filter_json")
        for shape in (
            *("[]", "1", "{", '{"a": NaN}', r'{"a": "\u0000"}', '{"a": 1e999}'),
            *({"a": {"$regex": "x"}}, {"a": {"$": 1}}, {"a": {"$EQ": 1}}, {"a": {"b": {"$like": "x"}}}),
            *({"$or": [{"a": 1}]}, {"$gt": 1}, {"a": [{"$near": 1}]}),
            *({"a": {"$gt": 1, "b": 2}}, {"a": {"b": 2, "$gt": 1}}),
            *({"a": {"$in": 1}}, {"a": {"$nin": {}}}, {"a": {"$in": "text"}}),
            *({"a": {"$exists": 1}}, {"a": {"$exists": None}}),
        )
    ),
    (filtered(nested(17)), LIMIT, f"{SEARCH}.filter_json"),
    (filtered({str(n): n for n in range(33)}), LIMIT, f"{SEARCH}.filter_json"),
    (filtered({str(n): {"a": {"b": n}} for n in range(11)}), LIMIT, f"{SEARCH}.filter_json"),
    (filtered({"a": {"$in": list(range(1001))}}), LIMIT, f"{SEARCH}.filter_json"),
    (filtered({"a": [[1] * 600, [2] * 600]}), LIMIT, f"{SEARCH}.filter_json"),
    (filtered({"a": {"$eq": {"b": [[1] * 600, {"c": [2] * 600}]}}}), LIMIT, f"{SEARCH}.filter_json"),
    (filtered({"a": "x" * (256 * 1024)}), LIMIT, f"{SEARCH}.filter_json"),
    # Listings.
    (listing("a", type=pb.MATCH_TYPE_UNSPECIFIED), INVALID, f"{LIST}.conditions[0].type"),
    (listing("a", type=7), INVALID, f"{LIST}.conditions[0].type"),
    (listing(limit=10_001), LIMIT, f"{LIST}.limit"),
    (listing(offset=2**31), LIMIT, f"{LIST}.offset"),
    (
        pb.StoreOp(list_namespaces=pb.ListNamespaces(conditions=[pb.MatchCondition()] * 9)),
        LIMIT,
        f"{LIST}.conditions",
    ),
]
LARGE: list[tuple[pb.StoreOp, str, str]] = [
    (put("a", key="k" * 3 * MIB), LIMIT, f"{PUT}.key"),
    (value(json.dumps({"a": "x" * 8 * MIB})), LIMIT, f"{PUT}.value_json"),
    (value('{"a":"' + '\\"' * 2 * MIB), INVALID, f"{PUT}.value_json"),
    (value('{"a":' + "[" * 7 * MIB), LIMIT, f"{PUT}.value_json"),
    (put("a", text="t" * (MIB + 1)), LIMIT, f"{PUT}.text"),
    (put("a" * 3 * MIB), LIMIT, f"{PUT}.namespace.labels"),
]
TAKEN: list[pb.StoreGroup | pb.StoreOp] = [
    put("é" * 512, key="é" * 256),
    put(*["a"] * 32, key=""),
    value(nested(64)),
    value('{"a": ' + "1" * 1000 + ', "b": 1e300, "c": 1e-300, "d": "\\ud83d\\ude00 [[[["}'),
    value('{"a": "' + '[{\\"' * 1000 + '"}'),
    put("a", ttl_seconds=0.0),
    put("a", "*", "langgraph", index_paths=["p"] * 1024),
    group(*[put("many", key=str(n)) for n in range(1000)]),
    indexed(put("a", key="v", vectors=[vector(1e-38, 3e38), vector(-1, 0, path="")])),
    search(limit=1000, offset=2**31 - 1),
    filtered({str(n): n for n in range(32)}),
    filtered({"a": {"$in": list(range(1000))}}),
    filtered({"a": {"$eq": {"$any": {"thing": [1] * 900}}, "$ne": None, "$gt": None, "$lt": []}}),
    filtered({"a": [{"b": {"$gte": 1, "$lte": "x"}}, {"$exists": True}], "": {}}),
    filtered(nested(16)),
    listing(*["*"] * 32, limit=10_000, offset=2**31 - 1, max_depth=2**32 - 1),
    pb.StoreOp(list_namespaces=pb.ListNamespaces()),
    get(),
    get("langgraph"),
    delete(),
]


@pytest.mark.parametrize("in_a_session", [False, True])
async def test_a_bad_group_fails_alone_and_names_its_field(served: Served, in_a_session: bool) -> None:
    stream = Stream(served)
    for number, (bad, reason, field) in enumerate(BAD_GROUPS):
        key = f"good {number}"
        request = batch(put("good", key=key), bad, get("good"))
        if in_a_session:
            request.groups.add().CopyFrom(group(put("good", key=key)))
            results = list((await stream.ask(request)).store.results)
        else:
            results = await ask(served, request)
        told = reason_of(results[1].status)
        assert told == (reason, f"groups[1].{field}"), results[1].status.message
        assert [result.status.code for result in results if result is not results[1]] == [0] * (
            len(results) - 1
        )
        assert not results[1].results
    assert await keys(served) == [f"good {number}" for number in range(len(BAD_GROUPS))]


@pytest.mark.parametrize(("bad", "reason", "field"), LARGE, ids=lambda case: str(case)[:20])
async def test_a_large_bad_group_is_refused_in_slices(
    served: Served, bad: pb.StoreOp, reason: str, field: str
) -> None:
    (result,) = (await ask_sliced(served, batch(bad))).results
    assert reason_of(result.status) == (reason, f"groups[0].{field}")
    assert await refusal(
        served.items_stub.Batch(batch(put("a", text="t" * MIB)), metadata=served.metadata)
    ) == (
        LIMIT,
        "request",
    )
    assert await keys(served) == []


async def test_a_batch_has_one_group_and_at_most_256(served: Served) -> None:
    stream = Stream(served)
    for request, reason in (
        (pb.BatchRequest(), INVALID),
        (batch(*[get("a")] * 257), LIMIT),
    ):
        assert await refusal(served.items_stub.Batch(request, metadata=served.metadata)) == (reason, "groups")
        assert reason_of((await stream.ask(request)).status) == (reason, "groups")
    assert await refusal(served.items_stub.BatchSliced(iter([]), metadata=served.metadata)) == (
        INVALID,
        "groups",
    )
    two = iter(sliced(batch(put("a"), put("a"))))
    assert await refusal(served.items_stub.BatchSliced(two, metadata=served.metadata)) == (LIMIT, "groups")
    assert served.items.stored == 0
    assert len(await ask(served, batch(*[get("a")] * 256))) == 256


async def test_what_is_at_its_limit_is_taken(served: Served) -> None:
    for one in TAKEN:
        (result,) = await ask(served, batch(one))
        assert result.status.code == 0, (str(one)[:100], result.status.message)
    (result,) = (await ask_sliced(served, batch(value(json.dumps({"a": "x" * (8 * MIB - 9)}))))).results
    assert result.status.code == 0


async def test_a_value_is_kept_as_the_text_it_was(served: Served) -> None:
    text = ' { "b" : 1.0 , "a":1E2, "text":"\\u00e9é\\n", "big": 123456789012345678901234567890 }\n'
    await ask(served, batch(value(text)))
    (result,) = await ask(served, batch(get("a")))
    assert result.results[0].item.value_json == text


BAD_CALLS: list[tuple[str, Any, str, str]] = [
    ("GetIndex", pb.GetIndexRequest(operation={"operation_id": b"x"}), INVALID, "operation.operation_id"),
    ("SetIndex", pb.SetIndexRequest(index=INDEX), INVALID, "operation.operation_id"),
    ("SetIndex", pb.SetIndexRequest(operation=operation()), INVALID, "index.dims"),
    (
        "SetIndex",
        pb.SetIndexRequest(operation=operation(), index=pb.StoreIndex(dims=1, embedder="e" * 513)),
        LIMIT,
        "index.embedder",
    ),
    *(
        ("ListUnembedded", pb.ListUnembeddedRequest(page_token=token), INVALID, "page_token")
        for token in (
            "x",
            "AQ==",
            "é",
            "\0",
            "AVtd",
            "AVsxXQ==",
            "AVsiXHUwMDAwIl0=",
            "AVsiXHVkODAwIl0=",
            "AltbXQ==",
        )
    ),
    ("PutVectors", pb.PutVectorsRequest(index=INDEX), INVALID, "operation.operation_id"),
    ("PutVectors", pb.PutVectorsRequest(operation=operation(), index=INDEX), INVALID, "items"),
    (
        "PutVectors",
        pb.PutVectorsRequest(operation=operation(), index=INDEX, items=[pb.ItemVectors()] * 1001),
        LIMIT,
        "items",
    ),
    *(
        (
            "PutVectors",
            pb.PutVectorsRequest(operation=operation(), index=INDEX, items=[pb.ItemVectors(), item]),
            INVALID,
            f"items[1].{field}",
        )
        for item, field in (
            (pb.ItemVectors(updated_at_us=-1), "updated_at_us"),
            (pb.ItemVectors(updated_at_us=2**63 - 1), "updated_at_us"),
            (pb.ItemVectors(namespace=pb.Namespace(labels=["a", ""])), "namespace.labels[1]"),
            (pb.ItemVectors(key="\0"), "key"),
            (pb.ItemVectors(vectors=[vector(1)]), "vectors[0].values"),
        )
    ),
    (
        "PutVectors",
        pb.PutVectorsRequest(
            operation=operation(),
            index=pb.StoreIndex(dims=16_000),
            items=[pb.ItemVectors(vectors=[pb.Vector(values=[1.0] * 16_000)])] * 17,
        ),
        LIMIT,
        "request",
    ),
]


@pytest.mark.parametrize(("method", "request_", "reason", "field"), BAD_CALLS)
async def test_a_bad_call_is_refused_by_the_name_of_its_field(
    served: Served, method: str, request_: Any, reason: str, field: str
) -> None:
    metadata = await served.key(*Scope)
    call = getattr(served.items_stub, method)
    assert await refusal(call(request_, metadata=metadata)) == (reason, field)
    answer = await served.items_stub.GetIndex(pb.GetIndexRequest(), metadata=metadata)
    assert not answer.HasField("index")
