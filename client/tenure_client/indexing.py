"""What is embedded, by what, and how texts become vectors: LangGraph's IndexConfig, made ready.

Vectors are made here, never by the server: it holds no model and no provider's key.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from langgraph.store.base import IndexConfig
from langgraph.store.base.embed import ensure_embeddings, get_text_at_path, tokenize_path
from tenure.v1 import store_pb2 as pb

from tenure_client.errors import InvalidRequest

Vectors = Mapping[str, Sequence[float]]
"""By the text that they embed; texts that have no meaning are left out."""

WHOLE = "$"
"""The path of the whole item."""
MAX_DIMS = 16_000
_MODEL_ATTRIBUTES = ("model", "model_name")
_MAX_TEXT = 1024 * 1024


class Indexing:
    """The parts of items that can be searched, and their embedder.

    Args:
        config: LangGraph's `IndexConfig`, in which `embedder` may name the embedder; None = whole items,
            without vectors.

    Attributes:
        config: A copy of it.
        embeddings: The embedder, None if there is none.
        wire: Length and name of its vectors, None if there are none.

    Raises:
        InvalidRequest: The configuration cannot work.
        ValueError: LangGraph cannot make an embedder of `embed`.
    """

    def __init__(self, config: IndexConfig | None) -> None:
        given: dict[str, Any] = dict(config or {})
        self.config: IndexConfig | None = None if config is None else config.copy()
        self._fields = [(path, _tokens(path)) for path in _paths(given.get("fields"))]
        embed = given.get("embed")
        self.embeddings = None if embed is None else ensure_embeddings(embed)
        self.wire: pb.StoreIndex | None = None
        if embed is not None:
            embedder = given.get("embedder") or embedder_name(embed)
            self.wire = pb.StoreIndex(dims=_dims(given.get("dims")), embedder=str(embedder))

    def texts(self, value: Mapping[str, Any], paths: Sequence[str] | None) -> list[tuple[str, str]]:
        """Return the parts of an item that are embedded: (path, text), as InMemoryStore chooses them.

        Args:
            value: The item's value.
            paths: Paths instead of the index's fields, None = those.
        """
        found = []
        for path, tokens in self._fields if paths is None else [(path, _tokens(path)) for path in paths]:
            texts = get_text_at_path(value, tokens)
            if len(texts) == 1:
                found.append((path, texts[0]))
            else:
                found += [(f"{path}.{at}", text) for at, text in enumerate(texts)]
        return found

    def embed_documents(self, texts: Iterable[str]) -> Vectors:
        """Embed texts of items, each once.

        Raises:
            InvalidRequest: The embedder's answer is not one vector of `dims` numbers for each.
        """
        wanted = list(texts)
        if not wanted or self.embeddings is None:
            return {}
        return self._checked(wanted, self.embeddings.embed_documents(wanted))

    async def aembed_documents(self, texts: Iterable[str]) -> Vectors:
        """Embed texts of items; see `embed_documents`."""
        wanted = list(texts)
        if not wanted or self.embeddings is None:
            return {}
        return self._checked(wanted, await self.embeddings.aembed_documents(wanted))

    def embed_queries(self, queries: Iterable[str]) -> Vectors:
        """Embed queries, each once and side by side; see `embed_documents`."""
        wanted = list(queries)
        if not wanted or self.embeddings is None:
            return {}
        if len(wanted) == 1:
            return self._checked(wanted, [self.embeddings.embed_query(wanted[0])])
        with ThreadPoolExecutor() as pool:
            return self._checked(wanted, list(pool.map(self.embeddings.embed_query, wanted)))

    async def aembed_queries(self, queries: Iterable[str]) -> Vectors:
        """Embed queries; see `embed_queries`."""
        wanted = list(queries)
        if not wanted or self.embeddings is None:
            return {}
        return self._checked(wanted, await asyncio.gather(*map(self.embeddings.aembed_query, wanted)))

    def _checked(self, texts: Sequence[str], vectors: Sequence[Sequence[float]]) -> Vectors:
        assert self.wire is not None
        if len(vectors) != len(texts):
            raise InvalidRequest(
                f"the embedder made {len(vectors)} vectors of {len(texts)} texts", metadata={"field": "embed"}
            )
        for vector in vectors:
            if len(vector) != self.wire.dims:
                raise InvalidRequest(
                    f"the embedder makes vectors of {len(vector)} numbers, but the index has dims="
                    f"{self.wire.dims}: correct dims, and rebuild the index if it holds vectors already",
                    metadata={"field": "dims"},
                )
        # Vectors of length 0, which some embedders make of an empty text, cannot be compared.
        return {text: vector for text, vector in zip(texts, vectors, strict=True) if any(vector)}


def embedder_name(embed: Any) -> str:
    """Return the name by which the server tells an embedder from others.

    A provider string is its own name; anything else is named by its function or class, and by its attribute
    `model` or `model_name`. Services that share a tenant's memory must agree on it: `embedder` in the index
    configuration says it outright.
    """
    if isinstance(embed, str):
        return embed
    named = embed if hasattr(embed, "__qualname__") else type(embed)
    name = f"{named.__module__}.{named.__qualname__}"
    models = (getattr(embed, attribute, None) for attribute in _MODEL_ATTRIBUTES)
    model = next((model for model in models if isinstance(model, str) and model), None)
    return name if model is None else f"{name}:{model}"


def searchable_text(texts: Iterable[tuple[str, str]]) -> str:
    """Return what is found by its words, the first MiB of it."""
    text = "\n".join(dict.fromkeys(text for _, text in texts))
    data = text.encode()
    return text if len(data) <= _MAX_TEXT else data[:_MAX_TEXT].decode(errors="ignore")


def _tokens(path: str) -> str | list[str]:
    return path if path == WHOLE else tokenize_path(path)


def _paths(fields: Any) -> list[str]:
    if isinstance(fields, str):
        raise InvalidRequest(
            f"fields is a list of paths, not one text: use [{json.dumps(fields)}]",
            metadata={"field": "fields"},
        )
    return list(fields or [WHOLE])


def _dims(dims: Any) -> int:
    if not isinstance(dims, int) or isinstance(dims, bool) or not 1 <= dims <= MAX_DIMS:
        raise InvalidRequest(
            f"dims is the length of the embedder's vectors, 1 to {MAX_DIMS:,}, not {dims!r}",
            metadata={"field": "dims"},
        )
    return dims
