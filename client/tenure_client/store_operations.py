"""What one call of `batch` does: checked and encoded before anything is sent, then a plan without I/O.

As in InMemoryStore, reads come before writes whatever their order, and of several writes to one key the last
one counts, in the place of the first one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Any, cast

from langgraph.store.base import GetOp, ListNamespacesOp, Op, PutOp, Result, SearchOp
from tenure.v1 import store_pb2 as pb

from tenure_client import store_calls, store_codec
from tenure_client.calls import Plan
from tenure_client.errors import InvalidRequest
from tenure_client.indexing import Indexing, Vectors, searchable_text

SPAN = "tenure.store.batch"
"""What a batch is called in traces."""
MAX_OPS = 1_000
"""Operations of one group."""
PAGE_SECONDS = 1.0
"""What each further page of a long answer adds to the time of the operation."""
_WORDS = frozenset({"keyword", "hybrid"})
_MEANING = frozenset({"semantic", "hybrid"})


class Kind(Enum):
    """What all operations of a batch are, if they are quick."""

    GETS = "gets"
    WRITES = "writes"


class ModeSearchOp(SearchOp):
    """A SearchOp that says itself how its query is used.

    Attributes:
        mode: "semantic", "keyword" or "hybrid"; None = as the store does.
    """

    mode: str | None = None


class Batch:
    """The operations of one call.

    Args:
        ops: The operations.
        indexing: What is embedded, and by what.
        mode: How queries are used, None = they are ignored.

    Attributes:
        texts: What has to be embedded for the writes, each text once.
        queries: What has to be embedded for the searches.
        writes: The writes, one for each key.

    Raises:
        InvalidNamespaceError: A namespace breaks LangGraph's rules.
        InvalidRequest: Another argument is not allowed.
        TypeError: A value or a filter is not JSON.
    """

    def __init__(self, ops: Iterable[Op], indexing: Indexing, mode: str | None) -> None:
        self._indexing = indexing
        self._mode = mode
        self._results: list[Result] = []
        self._reads: list[tuple[int, Op, pb.StoreOp]] = []
        self.texts: dict[str, list[tuple[pb.PutItem, str]]] = {}
        self.queries: dict[str, list[pb.SearchItems]] = {}
        puts: dict[tuple[tuple[str, ...], str], PutOp] = {}
        for at, op in enumerate(ops):
            store_codec.check(op)
            self._results.append(None)
            if isinstance(op, PutOp):
                puts[tuple(op.namespace), str(op.key)] = op
            else:
                self._reads.append((at, op, self._read(op)))
        self.writes = [self._write(op) for op in puts.values()]

    @property
    def kind(self) -> Kind | None:
        """What it consists of; None = of more than one kind, or of what may take long."""
        if not self._reads:
            return Kind.WRITES if self.writes else None
        gets = not self.writes and all(isinstance(op, GetOp) for _, op, _ in self._reads)
        return Kind.GETS if gets else None

    @property
    def messages(self) -> list[pb.StoreOp]:
        """What is sent."""
        return [message for _, _, message in self._reads] + self.writes

    def answered(self, results: Sequence[pb.StoreResult]) -> list[Result]:
        """Return the result of each operation, given those of its messages."""
        self._take(self._reads, results[: len(self._reads)])
        return self._results

    def embedded(self, texts: Vectors, queries: Vectors) -> None:
        """Take the vectors of `texts` and `queries`."""
        for text, places in self.texts.items():
            for item, path in places if text in texts else ():
                item.vectors.add(path=path).values.extend(texts[text])
        for query, searches in self.queries.items():
            for search in searches:
                if query in queries:
                    search.query_vector.extend(queries[query])
                else:  # nothing is nearer to it than anything else
                    search.mode = pb.SEARCH_MODE_KEYWORD if search.query_text else pb.SEARCH_MODE_UNSPECIFIED

    def plan(self) -> Plan[list[Result]]:
        """Do it all and return the result of each operation."""
        for some in _portions(self._reads):
            answers = yield from store_calls.read(self.group([message for _, _, message in some]))
            self._take(some, answers)
        for at, op, message in self._reads:
            if isinstance(op, (SearchOp, ListNamespacesOp)):
                found = cast("list[Any]", self._results[at] or [])
                self._results[at] = yield from self._further_pages(found, op.limit, message)
        for writes in _portions(self.writes):
            yield from store_calls.write(self.group(writes))
        return self._results

    def _take(self, reads: Sequence[tuple[int, Op, pb.StoreOp]], answers: Sequence[pb.StoreResult]) -> None:
        for (at, _, _), result in zip(reads, answers, strict=True):
            self._results[at] = cast("Result", store_codec.answer(result))

    def _read(self, op: Op) -> pb.StoreOp:
        if isinstance(op, GetOp):
            return store_codec.get(op)
        if isinstance(op, ListNamespacesOp):
            return store_codec.list_namespaces(op)
        assert isinstance(op, SearchOp)
        mode = self._mode_of(op)
        message = store_codec.search(op, mode)
        if op.query and mode in _MEANING:
            self.queries.setdefault(op.query, []).append(message.search)
        return message

    def _write(self, op: PutOp) -> pb.StoreOp:
        message = store_codec.put(op)
        by_words = self._mode in _WORDS
        if op.value is None or message.put.unindexed or not (by_words or self._indexing.wire):
            return message
        parts = self._indexing.texts(op.value, op.index or None)
        if by_words:
            message.put.text = searchable_text(parts)
        if self._indexing.wire:
            # A path that is named twice is one part.
            for path, text in dict(parts).items():
                self.texts.setdefault(text, []).append((message.put, path))
        return message

    def _mode_of(self, op: SearchOp) -> str | None:
        own = op.mode if isinstance(op, ModeSearchOp) else None
        if own is None:
            return self._mode
        check_mode(own, self._indexing)
        if own in _WORDS and self._mode not in _WORDS:
            raise InvalidRequest(
                f"mode={own!r} finds nothing here: make the store with search_mode='hybrid' or "
                "'keyword', so that the words of items are sent along",
                metadata={"field": "mode"},
            )
        return own

    def _further_pages(self, found: list[Any], limit: int, first: pb.StoreOp) -> Plan[list[Any]]:
        """Read on as long as pages are full and more was asked for; return all that was found."""
        message = pb.StoreOp()
        message.CopyFrom(first)
        page = message.search if message.HasField("search") else message.list_namespaces
        full, missing = len(found) == page.limit, limit - page.limit
        while full and missing > 0:
            page.offset += page.limit
            page.limit = min(page.limit, missing)
            (result,) = yield from store_calls.read(self.group([message]), extra_seconds=PAGE_SECONDS)
            more = cast("list[Any]", store_codec.answer(result) or [])
            found = found + more
            full, missing = len(more) == page.limit, missing - page.limit
        return found

    def group(self, ops: Sequence[pb.StoreOp]) -> pb.StoreGroup:
        """Return a group of operations, with what the vectors in it were made."""
        group = pb.StoreGroup(ops=ops)
        wire = self._indexing.wire
        if wire is not None and any(op.search.query_vector or op.put.vectors for op in group.ops):
            group.index.CopyFrom(wire)
        return group


def check_mode(mode: str, indexing: Indexing) -> None:
    """Check that a store with such an index can search so.

    Raises:
        InvalidRequest: It cannot.
    """
    if mode not in store_codec.MODES:
        raise InvalidRequest(
            f"unknown search mode {mode!r}: use {', '.join(map(repr, store_codec.MODES))}",
            metadata={"field": "search_mode"},
        )
    if mode in _MEANING and indexing.embeddings is None:
        raise InvalidRequest(
            f"searching by meaning needs an embedder: give index={{'dims': ..., 'embed': ...}} for {mode!r}",
            metadata={"field": "index"},
        )


def _portions(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), MAX_OPS):
        yield items[start : start + MAX_OPS]
