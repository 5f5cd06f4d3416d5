"""TenureSaver: LangGraph checkpoints kept in Tenure, for blocking and asynchronous graphs alike.

Each operation is one generator of `operations`; the methods here run it, each in its colour. Their
signatures are spelled out because LangGraph inspects them, and `self.serde` is read at call time because
`with_allowlist` makes copies with another one.
"""

from __future__ import annotations

import inspect
import os
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from tenure_client import operations
from tenure_client.connected import SetUp
from tenure_client.connection import Connection
from tenure_client.errors import InvalidRequest
from tenure_client.serde import TenureSerializer, TypeName
from tenure_client.single_writer import SingleWriter
from tenure_client.writing import Writing

T = TypeVar("T", bound=Callable[..., Any])


def _inspected(method: T) -> T:
    """Keep the signature of a method that LangGraph asks for with each run, which takes 10 us to find out."""
    vars(method)["__signature__"] = inspect.signature(method)
    return method


class TenureSaver(SetUp, BaseCheckpointSaver[str]):
    """A LangGraph checkpointer that keeps its threads in Tenure.

    One object serves blocking and asynchronous graphs, all threads, event loops and forked workers. As a
    context manager, of either colour, it closes the connection that it made. All operations may be
    repeated safely, and are repeated within `timeout` when that may help.

    The connection keeps up to 64 MiB of large channel values in memory, those of the threads used last, so
    that only what changed of them travels.

        saver = TenureSaver("tenure.internal:7443", api_key="tn_...")
        graph = builder.compile(checkpointer=saver)

    Args:
        target_or_connection: "host:port", "unix:/path", "tenure://KEY@host:port" or a `Connection` to share;
            None = the variable TENURE_TARGET.
        api_key: The tenant's key; None = TENURE_API_KEY.
        serde: Serializer to use as it is; None = `TenureSerializer`.
        allowed_types: Classes, or (module, name), that payloads may name beside LangGraph's safe types;
            None = also data classes, models, enums and named tuples whose module is imported.
        timeout: Seconds for one operation with all its retries; see `Connection`.
        ca: PEM file with the certificates to trust; None = TENURE_CA, else the system's.
        insecure: Speak plaintext to an address that is not on this machine.
        connections: gRPC channels per process and event loop.
        single_writer: Refuse, with `StaleWriter`, a put that does not build on the latest checkpoint: of two
            runs that go on from one checkpoint the first wins, where otherwise both would be stored and one
            forgotten. See also the method of that name.

    Attributes:
        connection: The connection, to be shared with other savers and stores.

    Raises:
        InvalidRequest: An argument is missing or contradicts another.
    """

    def __init__(
        self,
        target_or_connection: str | Connection | None = None,
        *,
        api_key: str | None = None,
        serde: SerializerProtocol | None = None,
        allowed_types: Iterable[type | TypeName] | None = None,
        timeout: float = 10.0,
        ca: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        connections: int = 1,
        single_writer: bool = False,
    ) -> None:
        if serde is not None and allowed_types is not None:
            raise InvalidRequest(
                "serde= is used as it is; give allowed types to it instead of allowed_types=",
                metadata={"field": "allowed_types"},
            )
        super().__init__(serde=serde or TenureSerializer(allowed_types=allowed_types))
        self._connect(
            target_or_connection,
            api_key=api_key,
            timeout=timeout,
            ca=ca,
            insecure=insecure,
            connections=connections,
        )
        self._writing = Writing(expects_parent=single_writer)

    @classmethod
    def from_conn_string(
        cls,
        conn_string: str,
        *,
        serde: SerializerProtocol | None = None,
        allowed_types: Iterable[type | TypeName] | None = None,
        timeout: float = 10.0,
        ca: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        connections: int = 1,
        single_writer: bool = False,
    ) -> TenureSaver:
        """Make a saver from "tenure://KEY@host:port"; other arguments as for the class."""
        return cls(
            conn_string,
            serde=serde,
            allowed_types=allowed_types,
            timeout=timeout,
            ca=ca,
            insecure=insecure,
            connections=connections,
            single_writer=single_writer,
        )

    def single_writer(
        self, thread_id: str, *, ttl: float = 30.0, wait: float = 0.0, holder: str = ""
    ) -> SingleWriter:
        """Keep all others from writing to a thread while a block runs, on whatever machine they are.

            with saver.single_writer("thread-1", wait=10):
                graph.invoke(..., {"configurable": {"thread_id": "thread-1"}})

        Also `async with`. What this saver puts to the thread meanwhile, from whichever thread or task, is put
        as the thread's only writer. Others get `StaleWriter` for what they put, and `LeaseHeld` here.

        Args:
            thread_id: The thread; it is made if there is none.
            ttl: Seconds after which others may have the thread if this program has died; 1 to 3,600. While it
                lives, the lease is renewed.
            wait: Seconds to wait for somebody else's lease.
            holder: What to call this program in the `LeaseHeld` of others of the tenant.

        Raises:
            LeaseHeld: Somebody else is the only writer; by entering the block.
        """
        return SingleWriter(self.connection, self._writing, str(thread_id), ttl=ttl, wait=wait, holder=holder)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint a config names, its latest if it names only a thread, None if absent."""
        return self.connection.run(
            "tenure.saver.get_tuple", operations.get_tuple(config, self.serde, self.connection.held)
        )

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield checkpoints, newest id first; leaving the iterator cancels its stream.

        Args:
            config: The thread, and the namespace and checkpoint if given; None = all threads of the tenant.
            filter: Top-level members that the metadata must equal; JSON values.
            before: Only checkpoints whose id sorts before the one named here.
            limit: At most so many; None = all.
        """
        yield from self.connection.stream(
            "tenure.saver.list", operations.listing(config, filter, before, limit, self.serde)
        )

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint and return the config that names it.

        Raises:
            TypeError: The metadata is not JSON.
        """
        return self.connection.run(
            "tenure.saver.put",
            operations.put(
                config, checkpoint, metadata, new_versions, self.serde, self.connection.held, self._writing
            ),
        )

    @_inspected
    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store what a task wrote, which may arrive before its checkpoint."""
        self.connection.run(
            "tenure.saver.put_writes",
            operations.put_writes(config, writes, task_id, task_path, self.serde, self._writing),
        )

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread with everything in it; an absent one is fine."""
        self.connection.run(
            "tenure.saver.delete_thread", operations.delete_thread(thread_id, self.connection.held)
        )

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints that the given runs made, with their pending writes.

        Raises:
            DeltaChannelInUse: A checkpoint that stays is rebuilt from one that would go; such threads are
                left as they are.
        """
        self.connection.run("tenure.saver.delete_for_runs", operations.delete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread with everything in it to a new thread.

        Raises:
            ThreadNotFound: There is no source.
            ThreadExists: There is a target.
        """
        self.connection.run(
            "tenure.saver.copy_thread", operations.copy_thread(source_thread_id, target_thread_id)
        )

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Remove old checkpoints of threads; absent threads are skipped.

        Args:
            thread_ids: The threads.
            strategy: "keep_latest" keeps the latest checkpoint of each namespace and what it needs; "delete"
                deletes the threads.

        Raises:
            TypeError: `thread_ids` is one text instead of a sequence of them.
            ValueError: The strategy is unknown.
        """
        self.connection.run(
            "tenure.saver.prune", operations.prune(thread_ids, strategy, self.connection.held)
        )

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return what channels contributed along the ancestors of a checkpoint, in one call."""
        return self.connection.run(
            "tenure.saver.get_delta_channel_history", operations.channel_history(config, channels, self.serde)
        )

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See `get_tuple`."""
        return await self.connection.arun(
            "tenure.saver.get_tuple", operations.get_tuple(config, self.serde, self.connection.held)
        )

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[CheckpointTuple]:
        """See `list`."""
        async with aclosing(
            self.connection.astream(
                "tenure.saver.list", operations.listing(config, filter, before, limit, self.serde)
            )
        ) as items:
            async for item in items:
                yield item

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """See `put`."""
        return await self.connection.arun(
            "tenure.saver.put",
            operations.put(
                config, checkpoint, metadata, new_versions, self.serde, self.connection.held, self._writing
            ),
        )

    @_inspected
    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """See `put_writes`."""
        await self.connection.arun(
            "tenure.saver.put_writes",
            operations.put_writes(config, writes, task_id, task_path, self.serde, self._writing),
        )

    async def adelete_thread(self, thread_id: str) -> None:
        """See `delete_thread`."""
        await self.connection.arun(
            "tenure.saver.delete_thread", operations.delete_thread(thread_id, self.connection.held)
        )

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """See `delete_for_runs`."""
        await self.connection.arun("tenure.saver.delete_for_runs", operations.delete_for_runs(run_ids))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """See `copy_thread`."""
        await self.connection.arun(
            "tenure.saver.copy_thread", operations.copy_thread(source_thread_id, target_thread_id)
        )

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """See `prune`."""
        await self.connection.arun(
            "tenure.saver.prune", operations.prune(thread_ids, strategy, self.connection.held)
        )

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """See `get_delta_channel_history`."""
        return await self.connection.arun(
            "tenure.saver.get_delta_channel_history", operations.channel_history(config, channels, self.serde)
        )

    def get_next_version(self, current: str | None, channel: None) -> str:
        """Return a version above `current`, unique even among forks of a thread.

        The random tail keeps two branches that go on from one checkpoint from using one version for two
        values, of which the second would be lost.
        """
        # A thread that began under another saver may have whole numbers.
        number = 0 if current is None else int(str(current).split(".")[0])
        return f"{number + 1:032}.{random.random():016}"  # noqa: S311
