"""What TenureStore has to do: InMemoryStore, with the differences that docs/semantics.md lists."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from langgraph.store.base import GetOp, Item, ListNamespacesOp, PutOp, SearchItem, SearchOp
from langgraph.store.memory import InMemoryStore, _cosine_similarity

Key = tuple[tuple[str, ...], str]
_MISSING = object()


class ItemOracle(InMemoryStore):
    """InMemoryStore, patched only where Tenure differs on purpose."""

    def _prepare_ops(self, ops: Any) -> Any:
        """A read brings no namespace into being."""
        listed = list(ops)
        absent = {op.namespace for op in listed if isinstance(op, GetOp)} - self._data.keys()
        prepared = super()._prepare_ops(listed)
        for namespace in absent:
            del self._data[namespace]
        return prepared

    def _apply_put_ops(self, put_ops: dict[Key, PutOp]) -> None:
        """Values are JSON, an overwrite keeps when an item was created, and no delete makes a namespace."""
        for (namespace, key), op in put_ops.items():
            before = self._data.get(namespace, {}).get(key)
            if op.value is None:
                self._data.get(namespace, {}).pop(key, None)
                continue
            now = datetime.now(UTC)
            self._data[namespace][key] = Item(
                value=json.loads(json.dumps(op.value)),
                key=key,
                namespace=namespace,
                created_at=before.created_at if before else now,
                updated_at=now,
            )

    def _extract_texts(self, put_ops: dict[Key, PutOp]) -> Any:
        """A put replaces the vectors that the item had."""
        for namespace, key in put_ops:
            self._vectors[namespace].pop(key, None)
        return super()._extract_texts(put_ops)

    def _insertinmem_store(self, to_embed: Any, embeddings: Any) -> None:
        """A text may be in several items; one without meaning has no vector."""
        for embedding, places in zip(embeddings, to_embed.values(), strict=True):
            for namespace, key, path in places if any(embedding) else ():
                self._vectors[namespace][key][path] = embedding

    def _filter_items(self, op: SearchOp) -> Any:
        """Filters agree with JSON: a missing member never matches, and only comparable values compare."""
        everything = super()._filter_items(op._replace(filter=None, limit=10**9, offset=0))
        return [(item, vectors) for item, vectors in everything if matches(item.value, op.filter or {})]

    def _batch_search(self, ops: Any, queryinmem_store: Any, results: Any) -> None:
        """The page is cut out of the scored items and then the others."""
        for at, (op, candidates) in ops.items():
            query = queryinmem_store.get(op.query) if op.query else None
            found: list[tuple[float | None, Item]] = [(None, item) for item, _ in candidates]
            if query is not None and any(query):
                scored = [
                    (max(_cosine_similarity(query, vectors)), item) for item, vectors in candidates if vectors
                ]
                scored.sort(key=lambda pair: -pair[0])
                found = [*scored, *((None, item) for item, vectors in candidates if not vectors)]
            results[at] = [
                SearchItem(item.namespace, item.key, item.value, item.created_at, item.updated_at, score)
                for score, item in found[op.offset : op.offset + op.limit]
            ]

    def _handle_list_namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        """A namespace is listed while it holds items; its place in the order of searches it keeps."""
        everything = self._data
        self._data = {namespace: items for namespace, items in everything.items() if items}
        try:
            return super()._handle_list_namespaces(op)
        finally:
            self._data = everything


def matches(value: Any, wanted: Any) -> bool:
    """Whether a value that is there matches a filter, or a part of one."""
    if isinstance(wanted, Mapping):
        if any(name.startswith("$") for name in wanted):
            return _operators(value, wanted)
        return isinstance(value, Mapping) and all(
            _member(value.get(name, _MISSING), part) for name, part in wanted.items()
        )
    if isinstance(wanted, (list, tuple)):
        return (
            isinstance(value, list)
            and len(value) == len(wanted)
            and all(matches(one, part) for one, part in zip(value, wanted, strict=True))
        )
    return bool(value == wanted)


def _member(value: Any, wanted: Any) -> bool:
    if value is _MISSING:
        return isinstance(wanted, Mapping) and dict(wanted) == {"$exists": False}
    return matches(value, wanted)


def _operators(value: Any, wanted: Mapping[str, Any]) -> bool:
    return all(_OPERATORS[name](value, operand) for name, operand in wanted.items())


def _comparable(value: Any, operand: Any) -> bool:
    return (isinstance(value, str) and isinstance(operand, str)) or (
        isinstance(value, (int, float)) and isinstance(operand, (int, float))
    )


_OPERATORS: dict[str, Any] = {
    "$eq": lambda value, operand: value == operand,
    "$ne": lambda value, operand: value != operand,
    "$gt": lambda value, operand: _comparable(value, operand) and value > operand,
    "$gte": lambda value, operand: _comparable(value, operand) and value >= operand,
    "$lt": lambda value, operand: _comparable(value, operand) and value < operand,
    "$lte": lambda value, operand: _comparable(value, operand) and value <= operand,
    "$in": lambda value, operand: value in operand,
    "$nin": lambda value, operand: value not in operand,
    "$exists": lambda value, operand: bool(operand),
}
