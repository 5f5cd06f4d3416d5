"""Batches of groups of writes: what may go into one call of `write_items_1`, and its arguments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from tenure_server.items import DeleteItem, Index, ItemWrite, Namespace, PutItem, Vector, WriteGroup
from tenure_server.storage.postgres.arrays import ByteaArray, IntArray, TextArray
from tenure_server.storage.postgres.items_namespaces import encoded
from tenure_server.storage.postgres.items_values import embeddings, needs_verbatim

_MAX_WRITES = 4000
"""Writes of one call: their places come from one number of a sequence that counts by 4,096."""
_LONGEST_TTL = 1e10
"""Seconds, some three centuries; the database's time ends at some point after that."""
_VERBATIM, _HAS_VECTORS, _IS_PUT = 1, 2, 4


def rounds(groups: Sequence[WriteGroup]) -> Iterator[list[int]]:
    """Cut a list of groups where one must see what another did.

    Within a round operations differ, vectors are made with one index, and no key is written after another
    group has deleted it: it would be a new item.
    """
    current: list[int] = []
    operations: set[bytes] = set()
    deleted: set[tuple[Namespace, str]] = set()
    index: Index | None = None
    writes = 0
    for number, group in enumerate(groups):
        if (
            group.operation.operation_id in operations
            or writes + len(group.writes) > _MAX_WRITES
            or (index is not None and group.index is not None and index != group.index)
            or (deleted and any((write.namespace, write.key) in deleted for write in group.writes))
        ):
            yield current
            current, operations, deleted, index, writes = [], set(), set(), None, 0
        current.append(number)
        operations.add(group.operation.operation_id)
        index = index or group.index
        writes += len(group.writes)
        for write in group.writes:
            if isinstance(write, DeleteItem):
                deleted.add((write.namespace, write.key))
    if current:
        yield current


class Batch:
    """The arguments of one call.

    Attributes:
        index: With what the vectors are made, None if there are none.
    """

    def __init__(self, groups: Sequence[WriteGroup]) -> None:
        self._groups = groups
        self.index = next((group.index for group in groups if group.index is not None), None)
        self._writes: list[ItemWrite] = []
        self._of_group: list[int] = []
        for number, group in enumerate(groups, 1):
            writes = group.writes
            if len(writes) > 1:
                # Of several writes to a key the last, in the place of the first, as a dictionary does.
                writes = list({(write.namespace, write.key): write for write in writes}.values())
            self._writes += writes
            self._of_group += [number] * len(writes)

    def params(self) -> list[Any]:
        """Return the arguments from p_operation on."""
        writes = self._writes
        texts = {namespace: encoded(namespace) for namespace in {write.namespace for write in writes}}
        puts = [write if isinstance(write, PutItem) else None for write in writes]
        vectors: list[tuple[int, Vector]] = [
            (number, vector)
            for number, put in enumerate(puts, 1)
            if put is not None
            for vector in put.vectors
        ]
        return [
            ByteaArray([group.operation.operation_id for group in self._groups]),
            ByteaArray([group.operation.digest for group in self._groups]),
            IntArray([int(group.index is not None) for group in self._groups]),
            0 if self.index is None else self.index.dims,
            "" if self.index is None else self.index.embedder,
            IntArray(self._of_group),
            TextArray([texts[write.namespace] for write in writes]),
            TextArray([write.key for write in writes]),
            IntArray([0 if put is None else _flags(put) for put in puts]),
            TextArray([None if put is None else put.value for put in puts]),
            _sparse([None if put is None or put.ttl is None else _seconds(put.ttl) for put in puts]),
            _sparse(
                [
                    None if put is None or put.index_paths is None else json.dumps(list(put.index_paths))
                    for put in puts
                ]
            ),
            _sparse([None if put is None else put.text or None for put in puts]),
            len(self._groups) == 1 or len({(write.namespace, write.key) for write in writes}) == len(writes),
            None in puts,
            IntArray([number for number, _ in vectors]),
            TextArray([vector.path for _, vector in vectors]),
            embeddings(vector for _, vector in vectors),
        ]


def _flags(put: PutItem) -> int:
    return _IS_PUT | (_HAS_VECTORS if put.vectors else 0) | (_VERBATIM if needs_verbatim(put.value) else 0)


def _sparse(items: Sequence[str | None]) -> TextArray:
    """Return an array that is empty if it would hold nothing."""
    return TextArray(items if any(item is not None for item in items) else ())


def _seconds(ttl: float) -> str:
    return repr(float(min(ttl, _LONGEST_TTL)))
