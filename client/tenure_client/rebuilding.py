"""Embedding all items of a tenant anew, page by page; it can be broken off and goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tenure.v1 import store_pb2 as pb

from tenure_client import store_calls
from tenure_client.calls import Plan
from tenure_client.errors import InvalidRequest
from tenure_client.indexing import Indexing, Vectors

_PAGE = 100
"""Items whose texts go to the embedder at once."""


class Rebuild:
    """The steps of one rebuild: `begin`, then `next_page` and `store` until `finished`.

    Items that are put meanwhile come with vectors of their own, and keep those.

    Args:
        indexing: What is embedded, and by what.

    Attributes:
        done: Items that were embedded.
        total: Items that had to be embedded when it began.
        texts: What has to be embedded for this page, each text once.
        finished: Whether there is nothing left to do.
    """

    def __init__(self, indexing: Indexing) -> None:
        if indexing.wire is None:
            raise InvalidRequest(
                "there is nothing to embed with: give index={'dims': ..., 'embed': ...}",
                metadata={"field": "index"},
            )
        self._indexing = indexing
        self._wire = indexing.wire
        self._token = ""
        self._items: list[pb.ItemVectors] = []
        self.done = 0
        self.total = 0
        self.texts: dict[str, list[tuple[pb.ItemVectors, str]]] = {}
        self.finished = False

    def begin(self) -> Plan[None]:
        """Make this the tenant's index; vectors that were made with another one are forgotten."""
        self.total = yield from store_calls.set_index(self._wire)

    def next_page(self) -> Plan[None]:
        """Take the next items that wait."""
        page = yield from store_calls.list_unembedded(_PAGE, self._token)
        self._token = page.next_page_token
        self._items, self.texts = [], {}
        for waiting in page.items:
            item = pb.ItemVectors(
                namespace=waiting.item.namespace,
                key=waiting.item.key,
                updated_at_us=waiting.item.updated_at_us,
            )
            self._items.append(item)
            paths: Sequence[str] | None = list(waiting.index_paths) or None
            value = waiting.item.value_json or (yield from self._large_value(waiting.item))
            parts = self._indexing.texts(json.loads(value), paths)
            for path, text in dict(parts).items():
                self.texts.setdefault(text, []).append((item, path))

    def _large_value(self, listed: pb.Item) -> Plan[str]:
        """Read an item that did not fit into the page."""
        get = pb.GetItem(namespace=listed.namespace, key=listed.key, refresh_ttl=False)
        (found,) = yield from store_calls.read(pb.StoreGroup(ops=[pb.StoreOp(get=get)]))
        # Gone or put anew since: what is made of it is not stored, whatever it is.
        return found.item.value_json or "{}"

    def store(self, vectors: Vectors) -> Plan[None]:
        """Store the vectors of this page's `texts`."""
        for text, places in self.texts.items():
            for item, path in places if text in vectors else ():
                item.vectors.add(path=path).values.extend(vectors[text])
        yield from store_calls.put_vectors(self._wire, self._items)
        self.done += len(self._items)
        self.total = max(self.total, self.done)
        self.finished = not self._token
