"""What LangGraph's own tests ask of a store that embeds, in both colours, against a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.store.memory import _cosine_similarity
from tenure_client import TenureStore

from tests.conformance.conftest import Do
from tests.harness.embedders import DIMS, embed_letters

embedded = pytest.mark.parametrize("index", [{"dims": DIMS, "embed": embed_letters}], ids=["embedded"])


def embedded_by(*fields: str) -> Any:
    index = {"dims": DIMS, "embed": embed_letters, "fields": list(fields)}
    return pytest.mark.parametrize("index", [index], ids=["fields"])


@embedded
async def test_an_update_changes_what_is_near(do: Do) -> None:
    await do("put", ("test",), "doc1", {"text": "zany zebra Xerxes"})
    await do("put", ("test",), "doc2", {"text": "something about dogs"})
    await do("put", ("test",), "doc3", {"text": "text about birds"})
    before = await do("search", ("test",), query="Zany Xerxes")
    assert before[0].key == "doc1"

    await do("put", ("test",), "doc1", {"text": "new text about dogs"})

    after = await do("search", ("test",), query="Zany Xerxes")
    assert next(item.score for item in after if item.key == "doc1") < before[0].score

    await do("put", ("test",), "doc4", {"text": "new text about dogs"}, index=False)
    found = await do("search", ("test",), query="new text about dogs", limit=3)
    assert "doc4" not in {item.key for item in found}


@embedded_by("text")
async def test_search_by_meaning_with_filters(do: Do) -> None:
    for key, text, color, score in (
        ("doc1", "red apple", "red", 4.5),
        ("doc2", "red car", "red", 3.0),
        ("doc3", "green apple", "green", 4.0),
        ("doc4", "blue car", "blue", 3.5),
    ):
        await do("put", ("test",), key, {"text": text, "color": color, "score": score})

    async def keys(query: str, filter: Any) -> list[str]:
        return [item.key for item in await do("search", ("test",), query=query, filter=filter)]

    assert await keys("apple", {"color": "red"}) == ["doc1", "doc2"]
    assert await keys("car", {"color": "red"}) == ["doc2", "doc1"]
    found = await keys("bbbbluuu", {"score": {"$gt": 3.2}})
    assert (found[0], len(found)) == ("doc4", 3)
    assert await keys("apple", {"score": {"$gte": 4.0}, "color": "green"}) == ["doc3"]


@embedded_by("text")
async def test_search_by_meaning_in_pages(do: Do) -> None:
    for at in range(5):
        await do("put", ("test",), f"doc{at}", {"text": "test document number " + "x" * at})

    pages = [await do("search", ("test",), query="test", limit=2, offset=at) for at in (0, 2, 4)]
    whole = await do("search", ("test",), query="test", limit=10)

    assert [item.key for page in pages for item in page] == [item.key for item in whole]
    assert len(whole) == 5


@embedded
@pytest.mark.parametrize("query", ["", None, "test " * 100, "test!@#$%^&*()"])
async def test_odd_queries(do: Do, query: str | None) -> None:
    await do("put", ("test",), "doc1", {"text": "test document"})

    (found,) = await do("search", ("test",), query=query)
    assert (found.score is None) == (not query)


@embedded_by("key0", "key1", "key3")
async def test_each_field_has_its_vector_and_the_nearest_counts(do: Do) -> None:
    await do("put", ("test",), "doc1", {"key1": "xxx", "key2": "yyy", "key3": "zzz"})
    await do("put", ("test",), "doc2", {"key0": "uuu", "key1": "vvv", "key2": "www", "key3": "xxx"})

    async def scores(query: str) -> dict[str, float]:
        found = await do("search", ("test",), query=query)
        assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)
        return {item.key: item.score for item in found}

    assert await scores("xxx") == pytest.approx({"doc1": 1, "doc2": 1})
    assert await scores("uuu") == pytest.approx({"doc1": 0, "doc2": 1})
    assert await scores("zzz") == pytest.approx({"doc1": 1, "doc2": 0})
    assert await scores("www") == pytest.approx({"doc1": 0, "doc2": 0})


@embedded_by("key17")
async def test_a_put_may_name_its_own_fields(do: Do) -> None:
    doc3 = {"key0": "aaa", "key1": "bbb", "key2": "ccc", "key3": "ddd"}
    doc4 = {"key0": "eee", "key1": "bbb", "key2": "fff", "key3": "ggg"}
    await do("put", ("test",), "doc3", doc3, index=["key0", "key1"])
    await do("put", ("test",), "doc4", doc4, index=["key1", "key3"])
    await do("put", ("test",), "doc5", {"key0": "hhh"}, index=False)

    async def found(query: str | None) -> list[tuple[str, Any]]:
        return [(item.key, item.score) for item in await do("search", ("test",), query=query)]

    assert await found("aaa") == [("doc3", pytest.approx(1)), ("doc4", pytest.approx(0)), ("doc5", None)]
    assert await found("ggg") == [("doc4", pytest.approx(1)), ("doc3", pytest.approx(0)), ("doc5", None)]
    assert [score for _, score in (await found("bbb"))[:2]] == pytest.approx([1, 1])
    assert all(score < 0.9 for _, score in (await found("ccc"))[:2])
    assert await found(None) == [("doc3", None), ("doc4", None), ("doc5", None)]


@embedded_by("key0")
@pytest.mark.parametrize("query", ["aaa", "bbb", "abcd", "poisson"])
async def test_scores_are_cosine_similarities(do: Do, query: str) -> None:
    await do("put", ("test",), "doc", {"key0": "aaab"})

    (found,) = await do("search", (), query=query)
    (wanted,) = _cosine_similarity(embed_letters([query])[0], embed_letters(["aaab"]))
    assert found.score == pytest.approx(wanted, abs=1e-6)


@embedded_by("text")
async def test_many_tasks_at_once(store: TenureStore) -> None:
    colors, things = ["red", "blue", "green"], ["apple", "car", "house"]
    docs = [
        (f"doc{at}", {"text": f"{colors[at % 3]} {things[at % 3]}", "color": colors[at % 3], "index": at})
        for at in range(50)
    ]
    await asyncio.gather(
        *(store.aput(("test",), key, {"text": "old"}) for key, _ in docs),
        *(store.adelete(("test",), key) for key, _ in docs),
        *(store.aput(("test",), key, value) for key, value in docs),
    )

    red, late = await asyncio.gather(
        store.asearch(("test",), query="apple", filter={"color": "red"}, limit=50),
        store.asearch(("test",), query="house", filter={"index": {"$gt": 25}}, limit=50),
    )
    assert {item.value["color"] for item in red} == {"red"}
    assert sorted(item.value["index"] for item in late) == list(range(26, 50))
