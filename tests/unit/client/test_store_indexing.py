"""Which texts of an item are embedded, by what, and under which name."""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langgraph.store.base import PutOp, SearchOp
from langgraph.store.memory import InMemoryStore
from tenure_client.embedding import Embedder
from tenure_client.errors import InvalidRequest
from tenure_client.indexing import Indexing, embedder_name, searchable_text
from tenure_client.store_operations import Batch

from tests.harness.embedders import DIMS, aembed_letters, embed_letters

VALUE = {
    "title": "a title",
    "parts": [{"text": "first"}, {"text": "second"}, {"other": 1}],
    "nested": {"deep": {"n": 5}},
    "empty": "",
    "none": None,
}


class Recorder(Embeddings):
    """Embeds letters and remembers what it was asked."""

    model = "letters-1"

    def __init__(self) -> None:
        self.documents: list[list[str]] = []
        self.queries: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.documents.append(texts)
        if "poison" in texts:
            raise ValueError("this text cannot be embedded")
        return embed_letters(texts)

    def embed_query(self, text: str) -> list[float]:
        self.queries.append(text)
        return embed_letters([text])[0]


def index(embed: Any = embed_letters, **more: Any) -> Any:
    return {"dims": DIMS, "embed": embed, **more}


@pytest.mark.parametrize(
    "fields",
    [
        None,
        ["$"],
        ["title"],
        ["parts[*].text"],
        ["parts[0].text", "nested.deep", "missing"],
        ["parts[-1]", "nested.*"],
        ["{title,nested.deep.n}", "empty", "none"],
    ],
)
def test_the_texts_are_those_of_the_reference(fields: list[str] | None) -> None:
    reference = InMemoryStore(index=index(fields=fields))
    extracted = reference._extract_texts({(("a",), "k"): PutOp(("a",), "k", VALUE)})

    assert sorted(Indexing(index(fields=fields)).texts(VALUE, None)) == sorted(
        (path, text) for text, places in extracted.items() for _, _, path in places
    )


def test_several_texts_at_a_path_are_numbered() -> None:
    assert Indexing(None).texts(VALUE, ["parts[*].text"]) == [
        ("parts[*].text.0", "first"),
        ("parts[*].text.1", "second"),
    ]


def test_words_are_those_of_all_texts_once_and_not_too_many() -> None:
    assert searchable_text([("a", "x y"), ("b", "z"), ("c", "x y")]) == "x y\nz"
    assert len(searchable_text([("a", "é" * 1024 * 1024)]).encode()) == 1024 * 1024


class Callable_:
    model_name = "small"

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        return embed_letters(texts)


@pytest.mark.parametrize(
    ("embed", "name"),
    [
        ("openai:text-embedding-3-small", "openai:text-embedding-3-small"),
        (embed_letters, "tests.harness.embedders.embed_letters"),
        (Recorder(), f"{__name__}.Recorder:letters-1"),
        (Callable_(), f"{__name__}.Callable_:small"),
        (functools.partial(embed_letters), "functools.partial"),
    ],
)
def test_the_name_of_an_embedder(embed: Any, name: str) -> None:
    assert embedder_name(embed) == name


def test_the_name_can_be_given() -> None:
    wire = Indexing(index(embedder="ours-v2")).wire

    assert wire is not None
    assert (wire.dims, wire.embedder) == (DIMS, "ours-v2")


@pytest.mark.parametrize("dims", [None, 0, -1, 16_001, True, "3"])
def test_dims_is_a_length(dims: Any) -> None:
    with pytest.raises(InvalidRequest, match="dims"):
        Indexing({"dims": dims, "embed": embed_letters})


def test_fields_is_a_list() -> None:
    with pytest.raises(InvalidRequest, match="fields"):
        Indexing({"fields": "title"})  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("made", "message"),
    [([[1.0, 2.0]], f"vectors of 2 numbers, but the index has dims={DIMS}"), ([], "0 vectors of 1 texts")],
)
async def test_an_embedder_that_does_something_else_is_refused(made: Any, message: str) -> None:
    async def wrong(texts: Sequence[str]) -> Any:
        return made

    with pytest.raises(InvalidRequest, match=message):
        await Indexing(index(wrong)).aembed_documents(["a"])
    with pytest.raises(InvalidRequest, match=message):
        Indexing(index(lambda texts: made)).embed_documents(["a"])


def test_a_text_that_means_nothing_has_no_vector() -> None:
    assert Indexing(index()).embed_documents(["", "a"]).keys() == {"a"}


def test_an_async_function_cannot_serve_blocking_callers() -> None:
    with pytest.raises(ValueError, match="async function"):
        Indexing(index(aembed_letters)).embed_documents(["a"])


def test_each_distinct_text_and_query_is_embedded_once() -> None:
    recorder = Recorder()
    indexing = Indexing(index(recorder, fields=["a", "b"]))
    ops = [PutOp(("n",), str(at), {"a": "same", "b": str(at % 2)}) for at in range(4)]

    batch = Batch([*ops, *[SearchOp((), query=query) for query in ("q", "r", "q")]], indexing, "semantic")
    Embedder(indexing).embed(batch)

    assert recorder.documents == [["same", "0", "1"]]
    assert sorted(recorder.queries) == ["q", "r"]
    assert [[vector.path for vector in op.put.vectors] for op in batch.writes] == [["a"], ["a"], ["a"], ["a"]]


def batch_of(indexing: Indexing, *texts: str) -> Batch:
    return Batch([PutOp(("n",), text, {"a": text}) for text in texts], indexing, "semantic")


async def test_tasks_of_one_tick_share_one_call_of_the_embedder() -> None:
    recorder = Recorder()
    indexing = Indexing(index(recorder, fields=["a"]))
    embedder, batches = Embedder(indexing), [batch_of(indexing, "x", text) for text in "abc"]

    await asyncio.gather(*map(embedder.aembed, batches))

    assert recorder.documents == [["x", "a", "b", "c"]]
    assert all(len(op.put.vectors) == 1 for batch in batches for op in batch.writes)


async def test_a_text_that_cannot_be_embedded_fails_its_own_caller_only() -> None:
    indexing = Indexing(index(Recorder(), fields=["a"]))
    embedder, batches = Embedder(indexing), [batch_of(indexing, text) for text in ("a", "poison", "b")]

    outcomes = await asyncio.gather(*map(embedder.aembed, batches), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [type(None), ValueError, type(None)]


async def test_a_caller_that_is_cancelled_takes_nobody_along() -> None:
    indexing = Indexing(index(Recorder(), fields=["a"]))
    embedder, batches = Embedder(indexing), [batch_of(indexing, text) for text in "ab"]
    first, second = (asyncio.ensure_future(embedder.aembed(batch)) for batch in batches)
    await asyncio.sleep(0)

    first.cancel()
    await second

    assert first.cancelled() or first.cancelling()
    assert batches[1].writes[0].put.vectors


def test_a_provider_string_makes_the_embedder_and_names_it(tmp_path: Path) -> None:
    """In a process of its own, where LangChain is a stand-in: the real one is not installed here."""
    (tmp_path / "langchain").mkdir()
    (tmp_path / "langchain" / "__init__.py").touch()
    (tmp_path / "langchain" / "embeddings.py").write_text("""
from langchain_core.embeddings import Embeddings
class Counts(Embeddings):
    def embed_documents(self, texts):
        return [[len(text), 1, 2, 3] for text in texts]
    def embed_query(self, text):
        return self.embed_documents([text])[0]
def init_embeddings(model):
    assert model == "openai:text-embedding-3-small", model
    return Counts()
""")
    asked = _run(
        """
from langgraph.store.base import PutOp
from tenure_client import TenureStore
from tenure_client.store_operations import Batch
MODEL = "openai:text-embedding-3-small"
store = TenureStore("localhost:1", api_key="tn_x", index={"dims": 4, "embed": MODEL})
batch = Batch([PutOp(("ns",), "key", {"text": "words"})], store._indexing, store.search_mode)
store._embedder.embed(batch)
print(store._indexing.wire.embedder, len(batch.writes[0].put.vectors[0].values))
""",
        tmp_path,
    )

    assert (asked.stdout, asked.stderr) == ("openai:text-embedding-3-small 4\n", "")


def test_a_provider_string_without_langchain_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "langchain.py").write_text("raise ImportError('as if it were not installed')")

    asked = _run("import tenure_client.indexing as i; i.Indexing({'dims': 4, 'embed': 'openai:x'})", tmp_path)

    assert asked.returncode == 1
    assert "pip install 'langchain>=" in asked.stderr.splitlines()[-1]


def _run(source: str, first_on_path: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(first_on_path), *sys.path]
    return subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
