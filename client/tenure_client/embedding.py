"""Tasks of one event loop that need embeddings at the same time share one call of the embedder.

A call of an embedding provider takes about as long for fifty texts as for one. Operations leave in the order
in which they came, so that of two puts to one key in one tick the second one wins.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Sequence

from tenure_client.indexing import Indexing, Vectors
from tenure_client.store_operations import Batch


class _Round:
    """What is embedded together."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.task: asyncio.Task[tuple[Vectors, Vectors] | None] | None = None


class Embedder:
    """Embeds what batches need, in either colour.

    Args:
        indexing: What embeds.
    """

    def __init__(self, indexing: Indexing) -> None:
        self._indexing = indexing
        self._rounds: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Round] = (
            weakref.WeakKeyDictionary()
        )

    def embed(self, batch: Batch) -> None:
        """Give a batch the vectors that it needs; see `Indexing.embed_documents` for the errors."""
        texts = self._indexing.embed_documents(batch.texts)
        batch.embedded(texts, self._indexing.embed_queries(batch.queries))

    async def aembed(self, batch: Batch) -> None:
        """Give a batch the vectors that it needs, together with those of other tasks in this tick."""
        if self._indexing.embeddings is None:
            return
        loop = asyncio.get_running_loop()
        round_ = self._rounds.get(loop)
        if round_ is not None and round_.task is not None and round_.task.done():
            # It was cancelled, with all tasks of the loop, before it began.
            round_ = None
        # Without this, a delete would overtake the put before it.
        joins = round_ is not None and batch.writes
        if not (batch.texts or batch.queries or joins):
            return
        if round_ is None:
            round_ = self._rounds[loop] = _Round()
            round_.task = loop.create_task(self._run(loop, round_))
        round_.batches.append(batch)
        assert round_.task is not None
        vectors = await asyncio.shield(round_.task)
        if vectors is None:
            # Somebody's text cannot be embedded; it is not the others' fault.
            vectors = await self._together([batch])
        batch.embedded(*vectors)

    async def _run(self, loop: asyncio.AbstractEventLoop, round_: _Round) -> tuple[Vectors, Vectors] | None:
        # Whoever comes in this tick takes part, also where the loop begins its tasks at once.
        await asyncio.sleep(0)
        del self._rounds[loop]
        if len(round_.batches) == 1:
            return None
        try:
            return await self._together(round_.batches)
        except Exception:
            return None

    async def _together(self, batches: Sequence[Batch]) -> tuple[Vectors, Vectors]:
        texts = dict.fromkeys(text for batch in batches for text in batch.texts)
        queries = dict.fromkeys(query for batch in batches for query in batch.queries)
        return await self._indexing.aembed_documents(texts), await self._indexing.aembed_queries(queries)
