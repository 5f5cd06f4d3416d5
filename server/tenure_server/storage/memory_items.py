"""The contract of item storage on dictionaries: the reference for tests and `tenure dev --memory`.

Being the reference, it prefers the plainest code to the fastest. Its order is that of its dictionaries:
namespaces, and keys in a namespace, as they were first put.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from tenure_server import errors
from tenure_server.domain import Operation, TenantId
from tenure_server.items import (
    DeleteItem,
    GetItem,
    Index,
    Item,
    ItemAnswer,
    ItemRead,
    ItemVectors,
    ItemWrite,
    ListNamespaces,
    Namespace,
    PutItem,
    ReadGroup,
    SearchItems,
    SearchMode,
    Unembedded,
    WriteGroup,
)
from tenure_server.storage.memory_matching import RANK_CONSTANT, cosine, is_match, matches, word_score


@dataclass(frozen=True, slots=True)
class _Stored:
    """An item as it was put.

    Attributes:
        embedded: Whether it has vectors or is known to need none.
        used_at: When its time to live began.
    """

    put: PutItem
    value: Mapping[str, object]
    created_at: datetime
    updated_at: datetime
    used_at: datetime
    embedded: bool

    def item(self, score: float | None = None) -> Item:
        put = self.put
        return Item(put.namespace, put.key, put.value, self.created_at, self.updated_at, score)

    def is_there(self, now: datetime) -> bool:
        return self.put.ttl is None or now < self.used_at + timedelta(seconds=self.put.ttl)

    def waits(self) -> bool:
        return not self.embedded and self.put.index_paths != ()


@dataclass(slots=True)
class _Items:
    """The items of a tenant."""

    stored: dict[Namespace, dict[str, _Stored]] = field(default_factory=dict)
    index: Index | None = None
    operations: dict[bytes, bytes] = field(default_factory=dict)

    def live(self, now: datetime) -> Iterator[_Stored]:
        for of_namespace in self.stored.values():
            yield from (one for one in of_namespace.values() if one.is_there(now))

    def waiting(self, now: datetime) -> list[_Stored]:
        return [one for one in self.live(now) if one.waits()]

    def check_index(self, given: Index | None) -> None:
        if given is not None and self.index is not None and given != self.index:
            raise errors.IndexMismatch(str(self.index), str(given))

    def is_repeated(self, operation: Operation) -> bool:
        if time.monotonic() >= operation.deadline:
            raise errors.DeadlineExceeded
        digest = self.operations.get(operation.operation_id)
        if digest is not None and digest != operation.digest:
            raise errors.OperationMismatch
        return digest is not None


class MemoryItems:
    """See `ports.ItemStore`.

    Args:
        clock: Returns the time by which items expire.
    """

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._tenants: defaultdict[TenantId, _Items] = defaultdict(_Items)

    async def read(
        self, tenant: TenantId, groups: Sequence[ReadGroup]
    ) -> Sequence[Sequence[ItemAnswer] | errors.TenureError]:
        return [self._read_group(self._tenants[tenant], group) for group in groups]

    def _read_group(self, items: _Items, group: ReadGroup) -> Sequence[ItemAnswer] | errors.TenureError:
        try:
            if time.monotonic() >= group.operation.deadline:
                raise errors.DeadlineExceeded
            items.check_index(group.index)
        except errors.TenureError as error:
            return error
        now = self._clock()
        answers: list[ItemAnswer] = []
        used: list[tuple[Namespace, str]] = []
        for read in group.reads:
            answers.append(_answer(items, read, group.within, now))
            if not isinstance(read, ListNamespaces) and read.refresh_ttl:
                used += _keys(answers[-1])
        for namespace, key in used:
            items.stored[namespace][key] = replace(items.stored[namespace][key], used_at=now)
        return answers

    async def write(
        self, tenant: TenantId, groups: Sequence[WriteGroup]
    ) -> Sequence[errors.TenureError | None]:
        return [self._write_group(self._tenants[tenant], group) for group in groups]

    def _write_group(self, items: _Items, group: WriteGroup) -> errors.TenureError | None:
        try:
            if items.is_repeated(group.operation):
                return None
            items.check_index(group.index)
        except errors.TenureError as error:
            return error
        items.index = items.index or group.index
        last: dict[tuple[Namespace, str], ItemWrite] = {}
        for write in group.writes:
            last[write.namespace, write.key] = write
        for write in last.values():
            self._apply(items, write)
        items.operations[group.operation.operation_id] = group.operation.digest
        return None

    def _apply(self, items: _Items, write: ItemWrite) -> None:
        now = self._clock()
        of_namespace = items.stored.get(write.namespace, {})
        before = of_namespace.get(write.key)
        if isinstance(write, DeleteItem) or (before is not None and not before.is_there(now)):
            of_namespace.pop(write.key, None)
            before = None
        if isinstance(write, PutItem):
            created_at = now if before is None else before.created_at
            if before is not None and now <= before.updated_at:
                # Two puts are told apart by when they were.
                now = before.updated_at + timedelta(microseconds=1)
            stored = _Stored(write, json.loads(write.value), created_at, now, now, bool(write.vectors))
            items.stored.setdefault(write.namespace, of_namespace)[write.key] = stored

    async def index(self, tenant: TenantId) -> tuple[Index | None, int]:
        items = self._tenants[tenant]
        return items.index, len(items.waiting(self._clock()))

    async def set_index(self, tenant: TenantId, operation: Operation, index: Index) -> int:
        items = self._tenants[tenant]
        if not items.is_repeated(operation):
            if index != items.index:
                items.index = index
                for of_namespace in items.stored.values():
                    for key, one in of_namespace.items():
                        of_namespace[key] = replace(one, put=replace(one.put, vectors=()), embedded=False)
            items.operations[operation.operation_id] = operation.digest
        return len(items.waiting(self._clock()))

    async def unembedded(
        self, tenant: TenantId, after: tuple[Namespace, str] | None, limit: int
    ) -> Sequence[Unembedded]:
        waiting = {
            (one.put.namespace, one.put.key): one for one in self._tenants[tenant].waiting(self._clock())
        }
        places = [place for place in sorted(waiting) if after is None or place > after]
        return [
            Unembedded(waiting[place].item(), waiting[place].put.index_paths or ())
            for place in places[:limit]
        ]

    async def put_vectors(
        self, tenant: TenantId, operation: Operation, index: Index, items: Sequence[ItemVectors]
    ) -> None:
        mine = self._tenants[tenant]
        if mine.is_repeated(operation):
            return
        if mine.index is None:
            mine.index = index
        mine.check_index(index)
        for new in items:
            one = mine.stored.get(new.namespace, {}).get(new.key)
            if one is not None and one.updated_at == new.updated_at:
                put = replace(one.put, vectors=new.vectors)
                mine.stored[new.namespace][new.key] = replace(one, put=put, embedded=True)
        mine.operations[operation.operation_id] = operation.digest


def _answer(items: _Items, read: ItemRead, within: Sequence[Namespace] | None, now: datetime) -> ItemAnswer:
    if isinstance(read, GetItem):
        one = items.stored.get(read.namespace, {}).get(read.key)
        return one.item() if one is not None and one.is_there(now) else None
    found = [one for one in items.live(now) if _is_within(one.put.namespace, within)]
    if isinstance(read, SearchItems):
        prefix = read.namespace_prefix
        candidates = [
            one
            for one in found
            if one.put.namespace[: len(prefix)] == prefix and matches(one.value, read.filter)
        ]
        return _ranked(candidates, read)[read.offset : read.offset + read.limit]
    namespaces = {
        one.put.namespace[: read.max_depth]
        for one in found
        if all(is_match(condition, one.put.namespace) for condition in read.conditions)
    }
    return sorted(namespaces)[read.offset : read.offset + read.limit]


def _ranked(candidates: Sequence[_Stored], search: SearchItems) -> list[Item]:
    if search.mode is SearchMode.NONE:
        return [one.item() for one in candidates]
    if search.mode is SearchMode.SEMANTIC:
        return _in_order(candidates, _by_meaning(candidates, search), rest=True)
    by_words = {
        at: score
        for at, one in enumerate(candidates)
        if (score := word_score(one.put.text, search.query_text)) is not None
    }
    if search.mode is SearchMode.KEYWORD:
        return _in_order(candidates, by_words, rest=False)
    fused: defaultdict[int, float] = defaultdict(float)
    for scores in (_by_meaning(candidates, search), by_words):
        for rank, at in enumerate(sorted(scores, key=lambda at: -scores[at]), 1):
            fused[at] += 1 / (RANK_CONSTANT + rank)
    return _in_order(candidates, dict(sorted(fused.items())), rest=True)


def _by_meaning(candidates: Sequence[_Stored], search: SearchItems) -> dict[int, float]:
    return {
        at: max(cosine(search.query_vector, vector.values) for vector in one.put.vectors)
        for at, one in enumerate(candidates)
        if one.put.vectors
    }


def _in_order(candidates: Sequence[_Stored], scores: Mapping[int, float], *, rest: bool) -> list[Item]:
    """Return those with a score, the best first, then, if wanted, the others."""
    best = sorted(scores, key=lambda at: -scores[at])
    ranked = [candidates[at].item(scores[at]) for at in best]
    if rest:
        ranked += [one.item() for at, one in enumerate(candidates) if at not in scores]
    return ranked


def _keys(answer: ItemAnswer) -> list[tuple[Namespace, str]]:
    items = [answer] if isinstance(answer, Item) else answer or ()
    return [(item.namespace, item.key) for item in items if isinstance(item, Item)]


def _is_within(namespace: Namespace, within: Sequence[Namespace] | None) -> bool:
    return within is None or any(namespace[: len(prefix)] == prefix for prefix in within)
