"""What LangGraph's own tests ask of a store, in both colours, against a real server.

LangGraph ships no such suite as a package; these are the promises of its tests of InMemoryStore and
PostgresStore that are not about SQL. One is left out: there, `batch` may put into the reserved namespace.
"""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)
from tenure_client import TenureStore

from tests.conformance.conftest import Do


async def put_all(do: Do, namespaces: list[tuple[str, ...]]) -> None:
    for at, namespace in enumerate(namespaces):
        await do("put", namespace, f"id_{at}", {"data": f"value_{at:02}"})


async def test_put_get_update_delete(do: Do) -> None:
    namespace = ("test", "documents")
    await do("put", namespace, "doc1", {"title": "Test", "content": "Hello"})
    item = await do("get", namespace, "doc1")
    assert (item.namespace, item.key, item.value) == (
        namespace,
        "doc1",
        {"title": "Test", "content": "Hello"},
    )

    await do("put", namespace, "doc1", {"title": "Updated"})
    updated = await do("get", namespace, "doc1")
    assert updated.value == {"title": "Updated"}
    assert updated.updated_at > item.updated_at
    assert updated.created_at == item.created_at

    assert await do("get", ("test", "other"), "doc1") is None
    await do("delete", namespace, "doc1")
    assert await do("get", namespace, "doc1") is None
    await do("delete", namespace, "doc1")


async def test_a_batch_answers_in_the_order_of_its_operations(do: Do) -> None:
    await do("put", ("test", "foo"), "key1", {"data": "value1"})
    await do("put", ("test", "bar"), "key2", {"data": "value2"})

    results = await do(
        "batch",
        [
            GetOp(("test", "foo"), "key1"),
            PutOp(("test", "bar"), "key2", {"data": "new"}),
            SearchOp(("test",), {"data": "value1"}, 10, 0),
            ListNamespacesOp(None, None, 10, 0),
            GetOp(("test",), "key3"),
        ],
    )

    assert isinstance(results[0], Item)
    assert results[0].value == {"data": "value1"}
    assert results[1] is results[4] is None
    assert [item.key for item in results[2]] == ["key1"]
    assert results[3] == [("test", "bar"), ("test", "foo")]


async def test_a_batch_of_puts_deletes_what_has_no_value(do: Do) -> None:
    await do("put", ("test",), "key3", {"data": "value3"})
    puts = [PutOp(("test",), "key1", {"data": 1}), PutOp(("test",), "key3", None)]

    assert await do("batch", puts) == [None, None]

    found = await do("batch", [GetOp(("test",), key) for key in ("key1", "key3")])
    assert [item and item.value for item in found] == [{"data": 1}, None]


async def test_a_batch_of_searches(do: Do) -> None:
    for name, key, tag in (("foo", "key1", "a"), ("bar", "key2", "a"), ("baz", "key3", "b")):
        await do("put", ("test", name), key, {"tag": tag})

    found = await do(
        "batch",
        [
            SearchOp(("test",), {"tag": "a"}, 10, 0),
            SearchOp(("test",), None, 2, 0),
            SearchOp(("test", "foo"), None, 10, 0),
        ],
    )

    assert [[item.key for item in items] for items in found] == [["key1", "key2"], ["key1", "key2"], ["key1"]]


async def test_a_batch_of_listings(do: Do) -> None:
    namespaces = [
        ("test", "documents", "public"),
        ("test", "documents", "private"),
        ("test", "images", "public"),
        ("prod", "documents", "public"),
    ]
    await put_all(do, namespaces)

    found = await do(
        "batch",
        [
            ListNamespacesOp(None, None, 10, 0),
            ListNamespacesOp(None, 2, 10, 0),
            ListNamespacesOp((MatchCondition("suffix", ("public",)),), None, 10, 0),
            ListNamespacesOp([MatchCondition("suffix", "public")], None, 10, 0),  # type: ignore[arg-type]
        ],
    )

    assert found[0] == sorted(namespaces)
    assert found[1] == [("prod", "documents"), ("test", "documents"), ("test", "images")]
    assert found[2] == found[3] == sorted(one for one in namespaces if one[-1] == "public")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"prefix": ("a", "b")}, ["a b c", "a b d e", "a b d i", "a b f"]),
        ({"suffix": ("f",)}, ["a b f", "a c f", "b a f"]),
        ({"prefix": ("a",), "suffix": ("f",)}, ["a b f", "a c f"]),
        ({"prefix": ("a", "b"), "max_depth": 3}, ["a b c", "a b d", "a b f"]),
        ({"prefix": ("a", "b"), "limit": 2}, ["a b c", "a b d e"]),
        ({"prefix": ("a", "b"), "offset": 2}, ["a b d i", "a b f"]),
        ({"prefix": ("a", "*", "f")}, ["a b f", "a c f"]),
        ({"suffix": ("*", "f")}, ["a b f", "a c f", "b a f"]),
        ({"prefix": ("nonexistent",)}, []),
        ({"prefix": ["users", "123"]}, ["users 123"]),
        ({"max_depth": 1}, ["a", "admin", "b", "users"]),
        ({"prefix": ("*", "users"), "suffix": ("*", "settings")}, []),
    ],
)
async def test_namespaces_are_listed_by_patterns(do: Do, given: Any, expected: list[str]) -> None:
    texts = ["a b c", "a b d e", "a b d i", "a b f", "a c f", "b a f", "users 123", "users 456 settings"]
    await put_all(do, [tuple(text.split()) for text in [*texts, "admin users 789"]])

    assert await do("list_namespaces", **given) == [tuple(text.split()) for text in expected]


async def test_an_empty_store_lists_nothing(do: Do) -> None:
    assert await do("list_namespaces") == []


@pytest.mark.parametrize("namespace", [(), ("the", "thing.about"), ("some", "fun", ""), ("langgraph", "foo")])
async def test_items_cannot_be_put_anywhere(do: Do, namespace: Any) -> None:
    with pytest.raises(InvalidNamespaceError):
        await do("put", namespace, "foo", {})


@pytest.mark.parametrize("namespace", [("foo.bar",), ("foo", ""), (123,)])
@pytest.mark.parametrize("method", ["get", "delete", "search", "prefix", "suffix"])
async def test_bad_labels_are_refused_everywhere(do: Do, method: str, namespace: Any) -> None:
    if method in ("prefix", "suffix"):
        call = do("list_namespaces", **{method: namespace})
    elif method == "search":
        call = do("search", namespace)
    else:
        call = do(method, namespace, "key")
    with pytest.raises(InvalidNamespaceError):
        await call


async def test_the_reserved_label_may_stand_elsewhere(do: Do) -> None:
    namespace = ("foo", "langgraph", "foo")
    await do("put", namespace, "bar", {"foo": "bar"})

    assert (await do("get", namespace, "bar")).value == {"foo": "bar"}
    assert (await do("search", namespace))[0].value == {"foo": "bar"}
    await do("delete", namespace, "bar")
    assert await do("get", namespace, "bar") is None


async def test_search_by_filter_and_pages(do: Do) -> None:
    for name, key, author in (
        ("docs", "doc1", "Alice"),
        ("docs", "doc2", "Bob"),
        ("images", "img1", "Alice"),
    ):
        await do("put", ("test", name), key, {"author": author, "tags": ["draft"]})

    assert len(await do("search", ["test"])) == 3
    assert {item.namespace for item in await do("search", ["test", "docs"])} == {("test", "docs")}
    assert [item.key for item in await do("search", ("test",), filter={"author": "Alice"})] == [
        "doc1",
        "img1",
    ]
    assert len(await do("search", ("test",), limit=2)) == 2
    assert len(await do("search", ("test",), offset=2)) == 1
    assert all(item.score is None for item in await do("search", ("test",)))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"$gte": 10}, [10, 11]),
        ({"$gt": 9}, [9.5, 10, 11]),
        ({"$lt": 10}, [2, 9, 9.5]),
        ({"$lte": 9}, [2, 9]),
        ({"$eq": 9.0}, [9]),
        ({"$ne": 10}, [2, 9, 9.5, 11]),
    ],
)
async def test_numbers_compare_as_numbers(do: Do, condition: Any, expected: list[float]) -> None:
    for score in (2, 9, 9.5, 10, 11):
        await do("put", ("scores",), str(score), {"score": score})

    found = await do("search", ("scores",), filter={"score": condition})
    assert sorted(item.value["score"] for item in found) == expected


async def test_texts_compare_as_texts(do: Do) -> None:
    for name in ("apple", "banana"):
        await do("put", ("names",), name, {"name": name})

    found = await do("search", ("names",), filter={"name": {"$gt": "apple"}})
    assert [item.key for item in found] == ["banana"]


async def test_text_of_any_language(do: Do) -> None:
    texts = ["这是中文", "これは日本語です", "이건 한국어야", "Это русский", "यह रूसी है", "🦜"]
    for text in texts:
        await do("put", ("user_123", text), text, {"text": text})

    found = await do("search", ("user_123",))
    assert [(item.namespace, item.key, item.value) for item in found] == [
        (("user_123", text), text, {"text": text}) for text in texts
    ]


def test_it_is_a_store_with_a_time_to_live(store: TenureStore) -> None:
    assert isinstance(store, BaseStore)
    assert store.supports_ttl
