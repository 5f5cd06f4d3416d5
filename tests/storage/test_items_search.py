"""The contract of item storage: search by meaning, by words and by both, and the index, on every store."""

from __future__ import annotations

import pytest
from tenure_server import errors
from tenure_server.items import ItemVectors, Vector

from tests.storage.item_tenant import INDEX, NS, OTHER, Tenant, delete, group, put, search
from tests.storage.tenant import operation


@pytest.fixture
def tenant(item_tenants: list[Tenant]) -> Tenant:
    return item_tenants[0]


async def test_search_by_meaning_takes_the_nearest_vector_of_an_item_and_the_others_last(
    tenant: Tenant,
) -> None:
    await tenant.write(
        put("none"),
        put("far", {"n": 1}, vectors=[[-1, 0]]),
        put("two", {"n": 1}, vectors=[[-1, 0], [1, 1]]),
        put("same", {"n": 1}, vectors=[[2, 0]]),
        put("none too", {"n": 1}),
    )
    found = await tenant.found(search(vector=[1, 0]), index=INDEX)
    assert [item.key for item in found] == ["same", "two", "far", "none", "none too"]
    scores = [item.score for item in found]
    assert scores == [pytest.approx(1), pytest.approx(0.5**0.5), pytest.approx(-1), None, None]
    for offset in range(6):
        page = await tenant.found(search(vector=[1, 0], limit=2, offset=offset), index=INDEX)
        assert page == found[offset : offset + 2]
    assert await tenant.keys(vector=[1, 0], filter={"n": 1}, limit=2) == ["same", "two"]


async def test_what_is_equally_near_comes_in_the_order_in_which_it_was_put(tenant: Tenant) -> None:
    await tenant.write(put("far", vectors=[[0, 1]]), *(put(key, {"n": 1}, vectors=[[1, 0]]) for key in "zyx"))
    assert await tenant.keys(vector=[1, 0], limit=2) == ["z", "y"]
    assert await tenant.keys(vector=[1, 0], limit=2, offset=1) == ["y", "x"]
    assert await tenant.keys(vector=[1, 0], filter={"n": 1}, limit=2) == ["z", "y"]


@pytest.mark.parametrize("size", [1e-30, 1e30])
async def test_the_size_of_a_vector_does_not_matter(tenant: Tenant, size: float) -> None:
    await tenant.write(put("a", vectors=[[size, size]]), put("b", vectors=[[0, -size]]))
    found = await tenant.found(search(vector=[size, 0]), index=INDEX)
    assert [item.score for item in found] == [pytest.approx(0.5**0.5), pytest.approx(0, abs=1e-6)]


async def test_an_overwrite_replaces_the_vectors(tenant: Tenant) -> None:
    await tenant.write(put("k", vectors=[[1, 0], [0, 1]], text="tea"))
    await tenant.write(put("k", vectors=[[-1, 0]]))
    assert [item.score for item in await tenant.found(search(vector=[1, 0]))] == [pytest.approx(-1)]
    assert await tenant.keys(text="tea") == []
    await tenant.write(put("k"))
    assert [item.score for item in await tenant.found(search(vector=[1, 0]))] == [None]
    await tenant.write(put("k", vectors=[[1, 0]]))
    await tenant.write(delete("k"))
    await tenant.write(put("k"))
    assert [item.score for item in await tenant.found(search(vector=[1, 0]))] == [None]


async def test_of_puts_in_several_groups_the_last_ones_vectors_stay(tenant: Tenant) -> None:
    await tenant.apply(group(put("k", vectors=[[1, 0]])), group(put("k", vectors=[[-1, 0]])))
    assert [item.score for item in await tenant.found(search(vector=[1, 0]))] == [pytest.approx(-1)]
    await tenant.apply(group(put("k", vectors=[[1, 0]])), group(delete("k")))
    assert await tenant.found(search(vector=[1, 0])) == []


async def test_search_by_words(tenant: Tenant) -> None:
    await tenant.write(
        put("tea", {"n": 1}, text="tea and more tea"),
        put("both", {"n": 2}, text="coffee with tea, and much else that was said of neither of them"),
        put("no words"),
    )
    assert sorted(await tenant.keys(text="tea")) == ["both", "tea"]
    assert await tenant.keys(text="coffee tea") == ["both"]
    assert await tenant.keys(text="tea", filter={"n": 1}) == ["tea"]
    assert await tenant.keys(text="absent") == []
    assert len(await tenant.keys(text="tea", limit=1, offset=1)) == 1
    assert all(item.score for item in await tenant.found(search(text="tea")))


async def test_search_by_both_fuses_the_ranks(tenant: Tenant) -> None:
    await tenant.write(
        put("neither"),
        put("meaning", vectors=[[1, 0]]),
        put("both", vectors=[[1, 1]], text="tea"),
        put("words", text="green tea with milk and sugar"),
        put("far", vectors=[[-1, 0]]),
    )
    found = await tenant.found(search(vector=[1, 0], text="tea"), index=INDEX)
    scores = {item.key: item.score for item in found}
    assert [item.key for item in found] == ["both", "meaning", "words", "far", "neither"]
    assert scores == {
        "both": pytest.approx(1 / 62 + 1 / 61),
        "meaning": pytest.approx(1 / 61),
        "words": pytest.approx(1 / 62),
        "far": pytest.approx(1 / 63),
        "neither": None,
    }


async def test_vectors_of_another_index_are_refused_alone(tenant: Tenant) -> None:
    await tenant.write(put("k", {"n": 1}, vectors=[[1, 0]]))
    by = operation()
    other = group(put("k", {"n": 2}), put("new", vectors=[[1, 0, 0]]), index=OTHER, by=by)
    refused, same, without = await tenant.apply(
        other, group(put("same", vectors=[[0, 1]])), group(put("without"))
    )
    assert isinstance(refused, errors.IndexMismatch)
    assert refused.metadata == {
        "stored": "letters (2 dimensions)",
        "given": "words (3 dimensions)",
    }
    assert (same, without) == (None, None)
    assert await tenant.keys() == ["k", "same", "without"]
    assert await tenant.value("k") == {"n": 1}
    with pytest.raises(errors.IndexMismatch):
        await tenant.found(search(vector=[1, 0, 0]), index=OTHER)
    assert await tenant.index() == (INDEX, 1)


async def test_a_new_index_forgets_the_vectors_and_items_are_embedded_anew(tenant: Tenant) -> None:
    await tenant.write(
        put("a", {"n": 1}, vectors=[[1, 0]]),
        put("b", {"n": 2}, index_paths=("x", "y[*]"), vectors=[[1, 0]]),
        put("excluded", index_paths=()),
        put("c", ns=("zoo",)),
    )
    assert await tenant.index() == (INDEX, 1)
    assert await tenant.set_index(INDEX) == 1
    by = operation()
    assert await tenant.set_index(OTHER, by) == 3
    assert await tenant.set_index(OTHER, by) == 3
    assert [item.score for item in await tenant.found(search(vector=[1, 0, 0]), index=OTHER)] == [None] * 4
    first, second = await tenant.waiting(limit=2)
    (third,) = await tenant.waiting((second.item.namespace, second.item.key), limit=2)
    assert [(one.item.key, list(one.index_paths)) for one in (first, second, third)] == [
        ("a", []),
        ("b", ["x", "y[*]"]),
        ("c", []),
    ]
    await tenant.write(put("b", {"n": 3}))
    await tenant.put_vectors(
        *(
            ItemVectors(one.item.namespace, one.item.key, one.item.updated_at, vectors)
            for one, vectors in (
                (first, [Vector("$", [1, 0, 0])]),
                (second, [Vector("$", [1, 0, 0])]),
                (third, []),
            )
        ),
        ItemVectors(NS, "absent", first.item.updated_at, [Vector("$", [1, 0, 0])]),
        index=OTHER,
    )
    found = await tenant.found(search(vector=[1, 0, 0]), index=OTHER)
    assert [(item.key, item.score) for item in found] == [
        ("a", pytest.approx(1)),
        ("b", None),
        ("excluded", None),
        ("c", None),
    ]
    assert [one.item.key for one in await tenant.waiting()] == ["b"]
    with pytest.raises(errors.IndexMismatch):
        await tenant.put_vectors(index=INDEX)
    with pytest.raises(errors.OperationMismatch):
        await tenant.set_index(INDEX, by._replace(digest=b"e" * 32))
