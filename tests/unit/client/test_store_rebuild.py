"""Embedding all items anew: in pages, after a break, and from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from langgraph.store.base import PutOp
from tenure_client import TenureStore, errors, rebuilding
from tenure_client.__main__ import main
from tenure_client.calls import MAX_UNARY_REQUEST

from tests.harness.embedders import DIMS, aembed_letters, embed_letters
from tests.unit.client.item_server import LARGE, ItemServer, running

NEW: Any = {"dims": DIMS, "embed": embed_letters, "fields": ["text"]}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ItemServer]:
    """A server with 25 items: one is hidden, one has paths of its own, one has nothing to embed."""
    monkeypatch.setattr(rebuilding, "_PAGE", 10)
    with running() as items:
        old: Any = {"dims": 1, "embed": lambda texts: [[1.0] for _ in texts], "embedder": "old"}
        with TenureStore(items.target, api_key="tn_test", index=old) as store:
            store.batch([PutOp(("a",), f"{at:02}", {"text": f"text {at}"}) for at in range(22)])
            store.put(("a",), "hidden", {"text": "hidden"}, index=False)
            store.put(("a",), "own", {"title": "a title", "text": "text"}, index=["title"])
            store.put(("a",), "nothing", {"other": 1})
        yield items


def put(server: ItemServer, key: str, value: dict[str, Any]) -> None:
    """Store an item as somebody does who embeds nothing."""
    with TenureStore(server.target, api_key="tn_test") as store:
        store.put(("a",), key, value)


def paths(server: ItemServer) -> dict[str, list[str]]:
    return {key: [vector.path for vector in put.vectors] for (_, key), put in server.puts.items()}


def open_store(server: ItemServer, **index: Any) -> TenureStore:
    return TenureStore(server.target, api_key="tn_test", index={**NEW, **index})


def test_every_item_that_can_be_found_is_embedded_anew(server: ItemServer) -> None:
    told: list[tuple[int, int]] = []
    with open_store(server) as store:
        assert store.rebuild_index(lambda done, total: told.append((done, total))) == 24

    assert told == [(10, 24), (20, 24), (24, 24)]
    found = paths(server)
    assert found.pop("hidden") == found.pop("nothing") == []
    assert found.pop("own") == ["title"]
    assert set(map(tuple, found.values())) == {("text",)}
    assert {len(vector.values) for put in server.puts.values() for vector in put.vectors} == {DIMS}


async def test_an_async_embedder_rebuilds_too(server: ItemServer) -> None:
    async with open_store(server, embed=aembed_letters) as store:
        assert await store.arebuild_index() == 24


def test_a_rebuild_that_was_broken_off_goes_on(server: ItemServer) -> None:
    calls = 0

    def fails(texts: Sequence[str]) -> list[list[float]]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("no more quota")
        return embed_letters(texts)

    with open_store(server, embed=fails, embedder="letters") as store, pytest.raises(RuntimeError):
        store.rebuild_index()
    with open_store(server, embedder="letters") as store:
        assert store.rebuild_index() == 14


def test_an_item_that_fits_into_no_page_is_embedded_too(server: ItemServer) -> None:
    put(server, "large", {"text": "a large text", "rest": "x" * LARGE})
    with open_store(server) as store:
        assert store.rebuild_index() == 25
    assert paths(server)["large"] == ["text"]


async def test_vectors_that_fit_into_no_request_go_in_slices(server: ItemServer) -> None:
    wide = DIMS * 50
    fields = [f"f{at}" for at in range(MAX_UNARY_REQUEST // (4 * wide) + 1)]
    put(server, "wide", {name: name for name in fields})
    new: Any = {"dims": wide, "embed": lambda texts: [v * 50 for v in embed_letters(texts)], "fields": fields}
    for embedder in "one", "other":
        async with TenureStore(
            server.target, api_key="tn_test", index={**new, "embedder": embedder}
        ) as store:
            assert (store.rebuild_index() if embedder == "one" else await store.arebuild_index()) == 25
        assert paths(server)["wide"] == fields
        assert server.index is not None
        assert server.index.embedder == embedder


def test_without_an_embedder_there_is_nothing_to_rebuild_with(server: ItemServer) -> None:
    with (
        TenureStore(server.target, api_key="tn_test") as store,
        pytest.raises(errors.InvalidRequest, match="embed"),
    ):
        store.rebuild_index()


EMBED = ("--embed", "tests.harness.embedders.embed_letters", "--dims", str(DIMS), "--fields", "text")


def test_the_command_draws_its_progress(
    server: ItemServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TENURE_API_KEY", "tn_test")

    assert main(["rebuild-index", *EMBED, "--target", server.target]) == 0

    out, err = capsys.readouterr()
    assert out == "embedded 24 items\n"
    assert err.splitlines()[-1] == f"[{'#' * 30}] 24 of 24 items"
    assert server.index is not None
    assert server.index.embedder == "tests.harness.embedders.embed_letters"


def test_the_command_speaks_json(
    server: ItemServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TENURE_TARGET", f"tenure://tn_test@{server.target}")

    assert main(["rebuild-index", *EMBED, "--embedder", "letters", "--json"]) == 0

    out, err = capsys.readouterr()
    assert json.loads(out) == {"embedded": 24}
    assert err == ""
    assert server.index is not None
    assert server.index.embedder == "letters"


@pytest.mark.parametrize("embed", ["no_such_module.embed", "tests.harness.embedders.nothing", "embed"])
def test_the_command_says_what_is_wrong(embed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rebuild-index", "--embed", embed, "--dims", "3", "--target", "127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
