"""What each operation of the saver does, as plans: no I/O, the serializer passed in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from tenure.v1 import checkpoints_pb2 as pb

from tenure_client import calls, codec
from tenure_client.calls import Plan
from tenure_client.errors import InvalidRequest
from tenure_client.listing import Listing

_STRATEGIES = {
    "keep_latest": pb.PRUNE_STRATEGY_KEEP_LATEST,
    "delete": pb.PRUNE_STRATEGY_DELETE_ALL,
    "delete_all": pb.PRUNE_STRATEGY_DELETE_ALL,
}
_MAX_PER_CALL = 1000
"""Threads or runs that one request may name."""


def get_tuple(config: RunnableConfig, serde: SerializerProtocol) -> Plan[CheckpointTuple | None]:
    """Read the checkpoint a config names, the latest if it names only a thread."""
    result = yield from calls.read(codec.ref(config))
    if not result.HasField("checkpoint"):
        return None
    values = {value.channel: value.value for value in result.checkpoint.channel_values}
    named = config if get_checkpoint_id(config) else None
    return codec.checkpoint_tuple(result.checkpoint, values, serde, named)


def listing(
    config: RunnableConfig | None,
    filter: Mapping[str, Any] | None,
    before: RunnableConfig | None,
    limit: int | None,
    serde: SerializerProtocol,
) -> Listing[CheckpointTuple]:
    """List checkpoints, newest id first."""
    return Listing(
        codec.list_request(config, filter, before, limit),
        lambda checkpoint, values: codec.checkpoint_tuple(checkpoint, values, serde),
    )


def put(
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
    serde: SerializerProtocol,
) -> Plan[RunnableConfig]:
    """Store a checkpoint and return the config that names it."""
    message = codec.put_checkpoint(config, checkpoint, metadata, new_versions, serde)
    yield from calls.write(pb.Mutation(put=message))
    return codec.config_of(message.ref)


def put_writes(
    config: RunnableConfig,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
    serde: SerializerProtocol,
) -> Plan[None]:
    """Store what a task wrote."""
    message = codec.put_writes(config, writes, task_id, task_path, serde)
    if message.writes:
        yield from calls.write(pb.Mutation(put_writes=message))


def delete_thread(thread_id: str) -> Plan[None]:
    """Delete a thread."""
    yield from calls.mutate("DeleteThread", pb.DeleteThreadRequest(thread_id=str(thread_id)))


def delete_for_runs(run_ids: Sequence[str]) -> Plan[None]:
    """Delete the checkpoints that runs made."""
    for some in _portions(run_ids, "run_ids"):
        yield from calls.mutate("DeleteForRuns", pb.DeleteForRunsRequest(run_ids=some))


def copy_thread(source_thread_id: str, target_thread_id: str) -> Plan[None]:
    """Copy a thread to a new one."""
    request = pb.CopyThreadRequest(
        source_thread_id=str(source_thread_id), target_thread_id=str(target_thread_id)
    )
    yield from calls.mutate("CopyThread", request)


def prune(thread_ids: Sequence[str], strategy: str) -> Plan[None]:
    """Remove old checkpoints of threads, or the threads."""
    if strategy not in _STRATEGIES:
        raise InvalidRequest(
            f"unknown strategy {strategy!r}: use 'keep_latest' or 'delete'", metadata={"field": "strategy"}
        )
    for some in _portions(thread_ids, "thread_ids"):
        request = pb.PruneThreadsRequest(thread_ids=some, strategy=_STRATEGIES[strategy])
        yield from calls.mutate("PruneThreads", request)


def channel_history(
    config: RunnableConfig, channels: Sequence[str], serde: SerializerProtocol
) -> Plan[Mapping[str, DeltaChannelHistory]]:
    """Read what channels contributed along the ancestors of a checkpoint."""
    if not channels:
        return {}
    wanted = list(dict.fromkeys(channels))
    request = pb.GetChannelHistoryRequest(ref=codec.ref(config), channels=wanted)
    pages = yield from calls.history(request)
    return codec.channel_history(wanted, pages, serde)


def _portions(ids: Sequence[str], name: str) -> Iterator[Sequence[str]]:
    if isinstance(ids, str):
        raise TypeError(f"{name} is a sequence of ids, not one text: use [{ids!r}]")
    texts = [str(one) for one in ids]
    for start in range(0, len(texts), _MAX_PER_CALL):
        yield texts[start : start + _MAX_PER_CALL]
