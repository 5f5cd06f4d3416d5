"""The index of a tenant's items: embedding them anew, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tenure.v1 import store_pb2 as pb
from tenure_server.domain import Scope
from tenure_server.limits import MIB

from tests.unit.server.serving import Served, operation, serving
from tests.unit.server.storing import (
    INDEX,
    ask,
    ask_sliced,
    batch,
    group,
    put,
    refusal,
    vector,
)

OK = 0


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A server that looks at a key each time."""
    async with serving(trust=0) as opened:
        yield opened


async def test_items_are_embedded_anew_page_by_page(served: Served) -> None:
    admin = await served.key(*Scope)
    stub = served.items_stub
    await ask(
        served,
        batch(
            group(*[put("a", key=f"{n:02}", vectors=[vector(1, 2)]) for n in range(40)], index=INDEX),
            put("b", key="out", unindexed=True),
            put("b", key="paths", index_paths=["x", "y[*]"]),
        ),
    )
    new = pb.StoreIndex(dims=3, embedder="new")
    changed = await stub.SetIndex(pb.SetIndexRequest(operation=operation(), index=new), metadata=admin)
    assert changed.unembedded == 41
    seen: list[str] = []
    token = ""
    pages = 0
    while token or not pages:
        pages += 1
        page = await stub.ListUnembedded(pb.ListUnembeddedRequest(limit=7, page_token=token), metadata=admin)
        assert 1 <= len(page.items) <= 7
        seen += [one.item.key for one in page.items]
        vectors = [
            pb.ItemVectors(
                namespace=one.item.namespace,
                key=one.item.key,
                updated_at_us=one.item.updated_at_us,
                vectors=[vector(1, 2, 3)] if one.item.key != "05" else [],
            )
            for one in page.items
        ]
        await stub.PutVectors(
            pb.PutVectorsRequest(operation=operation(), index=new, items=vectors), metadata=admin
        )
        token = page.next_page_token
    assert list(page.items[-1].index_paths) == ["x", "y[*]"]
    assert pages == 6
    assert seen == [*(f"{n:02}" for n in range(40)), "paths"]
    told = await stub.GetIndex(pb.GetIndexRequest(), metadata=admin)
    assert (told.index, told.unembedded) == (new, 0)
    request = pb.PutVectorsRequest(
        operation=operation(), index=INDEX, items=[pb.ItemVectors(vectors=[vector(1, 2)])]
    )
    assert (await refusal(stub.PutVectors(request, metadata=admin)))[0] == "INDEX_MISMATCH"


async def test_a_page_of_unembedded_items_fits_into_a_reply(served: Served) -> None:
    sizes = [10, 900_000, 900_000, 900_000, 900_000, 5_000_000, 10]
    for n, size in enumerate(sizes):
        (result,) = (
            await ask_sliced(served, batch(put("a", key=str(n), value={"text": "x" * size})))
        ).results
        assert result.status.code == OK
    pages: list[list[tuple[str, bool]]] = []
    token = ""
    while token or not pages:
        page = await served.items_stub.ListUnembedded(
            pb.ListUnembeddedRequest(page_token=token), metadata=served.metadata
        )
        assert page.ByteSize() <= 3 * MIB
        pages.append([(one.item.key, bool(one.item.value_json)) for one in page.items])
        token = page.next_page_token
    # The one that is too large is told without its value, to be read in slices.
    assert [pair for page in pages for pair in page] == [(str(n), n != 5) for n in range(7)]
    assert len(pages) == 3
