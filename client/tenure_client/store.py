"""TenureStore: LangGraph's long-term memory kept in Tenure, for blocking and asynchronous graphs alike.

`batch` and `abatch` do everything; the other methods come from BaseStore. Texts are embedded by the caller's
embedder before anything is sent, so that an embedder that fails changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, Self, cast

from langgraph.store.base import BaseStore, IndexConfig, Op, Result, SearchItem, TTLConfig

from tenure_client.connected import SetUp
from tenure_client.connection import Connection
from tenure_client.embedding import Embedder
from tenure_client.errors import InvalidRequest
from tenure_client.folding import Folding
from tenure_client.indexing import Indexing
from tenure_client.rebuilding import Rebuild
from tenure_client.store_codec import SearchMode
from tenure_client.store_operations import SPAN, Batch, ModeSearchOp, check_mode

Progress = Callable[[int, int], object]
"""Is called with how many items are done, and how many there are."""


class TenureStore(SetUp, BaseStore):
    """A LangGraph store that keeps its items in Tenure.

    One object serves blocking and asynchronous graphs, all threads, event loops and forked workers. As a
    context manager, of either colour, it closes the connection that it made. All operations may be
    repeated safely, and are repeated within `timeout` when that may help.

        store = TenureStore(saver.connection, index={"dims": 1536, "embed": "openai:text-embedding-3-small"})
        graph = builder.compile(checkpointer=saver, store=store)

    The reads of a batch are done before its writes, from one snapshot; the writes are applied together or
    not at all. Both hold for up to 1,000 operations.

    Args:
        target_or_connection: "host:port", "unix:/path", "tenure://KEY@host:port" or a `Connection` to share;
            None = the variable TENURE_TARGET.
        api_key: The tenant's key; None = TENURE_API_KEY.
        index: What is embedded and by what, as for LangGraph's own stores. An additional key `embedder` names
            the embedder; by default its provider string, or the name of its function or class, does. All
            vectors of a tenant come from one embedder. `embed` may be left out for searching by words alone.
        ttl: Defaults for the time to live: `default_ttl` in minutes and `refresh_on_read`. Expired items are
            never returned and the server removes them, so that `omit_expired` and `sweep_interval_minutes`
            have no effect.
        search_mode: How queries find items: "semantic" by meaning, "keyword" by words, "hybrid" by both.
            None = "semantic" if there is an embedder; else queries are ignored, as LangGraph's stores do.
            With the latter two modes, the texts of items are stored for finding them by their words.
        timeout: Seconds for one operation with all its retries; see `Connection`. Embedding is not in it.
        ca: PEM file with the certificates to trust; None = TENURE_CA, else the system's.
        insecure: Speak plaintext to an address that is not on this machine.
        connections: gRPC channels per process and event loop.

    Attributes:
        connection: The connection, to be shared with savers and other stores.
        index_config: The index as it was given.
        search_mode: See above.

    Raises:
        InvalidRequest: An argument is missing or contradicts another.
    """

    supports_ttl = True

    def __init__(
        self,
        target_or_connection: str | Connection | None = None,
        *,
        api_key: str | None = None,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        search_mode: SearchMode | None = None,
        timeout: float = 10.0,
        ca: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        connections: int = 1,
    ) -> None:
        self._indexing = Indexing(index)
        if search_mode is not None:
            check_mode(search_mode, self._indexing)
        elif index is not None and self._indexing.embeddings is None:
            raise InvalidRequest(
                "the index has no embedder: give it `embed`, or say search_mode='keyword'",
                metadata={"field": "index"},
            )
        else:
            search_mode = "semantic" if self._indexing.embeddings is not None else None
        self.search_mode = search_mode
        self._embedder = Embedder(self._indexing)
        self.index_config = self._indexing.config
        self.ttl_config = ttl
        self._connect(
            target_or_connection,
            api_key=api_key,
            timeout=timeout,
            ca=ca,
            insecure=insecure,
            connections=connections,
        )
        self._folding = Folding(self.connection)

    @classmethod
    def from_conn_string(
        cls,
        conn_string: str,
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        search_mode: SearchMode | None = None,
        timeout: float = 10.0,
        ca: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        connections: int = 1,
    ) -> Self:
        """Make a store from "tenure://KEY@host:port"; other arguments as for the class."""
        return cls(
            conn_string,
            index=index,
            ttl=ttl,
            search_mode=search_mode,
            timeout=timeout,
            ca=ca,
            insecure=insecure,
            connections=connections,
        )

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Do several operations at once: the reads, then the writes, of which the last one to a key counts.

        Returns:
            The result of each operation, None for a write.

        Raises:
            InvalidNamespaceError: A namespace breaks LangGraph's rules; nothing was sent.
            InvalidRequest: Another argument is not allowed.
            TypeError: A value or a filter is not JSON; nothing was sent.
            IndexMismatch: The tenant's vectors were made with another embedder.
            OutcomeUnknown: The writes may or may not have been applied.
            TenureError: See `tenure_client.errors`.
        """
        batch = Batch(ops, self._indexing, self.search_mode)
        self._embedder.embed(batch)
        return self.connection.run(SPAN, batch.plan())

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do several operations at once; see `batch`."""
        batch = Batch(ops, self._indexing, self.search_mode)
        await self._embedder.aembed(batch)
        return await self._folding.run(batch)

    def search(
        self,
        namespace_prefix: tuple[str, ...],
        /,
        *,
        query: str | None = None,
        filter: dict[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
        mode: SearchMode | None = None,
    ) -> list[SearchItem]:
        """Find items in a namespace and those below it.

        Args:
            namespace_prefix: The namespace; () = all.
            query: What to look for, used as `mode` says.
            filter: What the values of items must match: members that equal these, or compare as the operators
                `$eq $ne $gt $gte $lt $lte $in $nin $exists` say.
            limit: At most so many.
            offset: How many to skip.
            refresh_ttl: Whether the time to live of what is returned begins anew; None = as configured.
            mode: "semantic", "keyword" or "hybrid"; None = the store's own.
        """
        op = self._search_op(namespace_prefix, query, filter, limit, offset, refresh_ttl, mode)
        return cast("list[SearchItem]", self.batch([op])[0])

    async def asearch(
        self,
        namespace_prefix: tuple[str, ...],
        /,
        *,
        query: str | None = None,
        filter: dict[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
        mode: SearchMode | None = None,
    ) -> list[SearchItem]:
        """Find items; see `search`."""
        op = self._search_op(namespace_prefix, query, filter, limit, offset, refresh_ttl, mode)
        return cast("list[SearchItem]", (await self.abatch([op]))[0])

    def rebuild_index(self, progress: Progress | None = None) -> int:
        """Embed the tenant's items anew with this store's embedder, after it has been changed.

        Vectors of the old embedder are forgotten at once, so searches find fewer items until it is done. If
        it is broken off, the next call goes on. Needs a key with the scope `admin`.

        Args:
            progress: Is told how many items are done, and how many there are.

        Returns:
            How many items were embedded.
        """
        rebuild = Rebuild(self._indexing)
        self.connection.run("tenure.store.rebuild_index", rebuild.begin())
        while not rebuild.finished:
            self.connection.run("tenure.store.rebuild_index", rebuild.next_page())
            vectors = self._indexing.embed_documents(rebuild.texts)
            self.connection.run("tenure.store.rebuild_index", rebuild.store(vectors))
            if progress is not None:
                progress(rebuild.done, rebuild.total)
        return rebuild.done

    async def arebuild_index(self, progress: Progress | None = None) -> int:
        """Embed the tenant's items anew; see `rebuild_index`."""
        rebuild = Rebuild(self._indexing)
        await self.connection.arun("tenure.store.rebuild_index", rebuild.begin())
        while not rebuild.finished:
            await self.connection.arun("tenure.store.rebuild_index", rebuild.next_page())
            vectors = await self._indexing.aembed_documents(rebuild.texts)
            await self.connection.arun("tenure.store.rebuild_index", rebuild.store(vectors))
            if progress is not None:
                progress(rebuild.done, rebuild.total)
        return rebuild.done

    def _search_op(
        self,
        namespace_prefix: tuple[str, ...],
        query: str | None,
        filter: dict[str, Any] | None,
        limit: int,
        offset: int,
        refresh_ttl: bool | None,
        mode: SearchMode | None,
    ) -> ModeSearchOp:
        if refresh_ttl is None:
            refresh_ttl = (self.ttl_config or {}).get("refresh_on_read", True)
        op = ModeSearchOp(namespace_prefix, filter, limit, offset, query, refresh_ttl)
        op.mode = mode
        return op
