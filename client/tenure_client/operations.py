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

from tenure_client import calls, codec, payloads
from tenure_client.calls import Plan
from tenure_client.chunks import BadEdit
from tenure_client.errors import ChunksMissing, InvalidRequest, UnreadableValue
from tenure_client.held import HeldValues, told
from tenure_client.listing import Listing
from tenure_client.values import Value
from tenure_client.writing import Writing

_STRATEGIES = {
    "keep_latest": pb.PRUNE_STRATEGY_KEEP_LATEST,
    "delete": pb.PRUNE_STRATEGY_DELETE_ALL,
    "delete_all": pb.PRUNE_STRATEGY_DELETE_ALL,
}
_MAX_PER_CALL = 1000
"""Threads or runs that one request may name."""


def get_tuple(
    config: RunnableConfig, serde: SerializerProtocol, held: HeldValues
) -> Plan[CheckpointTuple | None]:
    """Read the checkpoint a config names, the latest if it names only a thread."""
    place = codec.place_of(config)
    bases = held.of(place)
    while True:
        wanted = pb.CheckpointRead(accepts_edits=True, held=told(bases))
        codec.fill_ref(wanted.ref, config)
        result = yield from calls.read(wanted)
        if not result.HasField("checkpoint"):
            return None
        try:
            values = payloads.channel_values(result.checkpoint, bases)
            break
        except BadEdit as error:
            if not bases:
                raise UnreadableValue(f"the server sent a value that cannot be right: {error}") from None
            # Whoever is wrong, values that are told without ours can be read.
            held.forget(place, bases)
            bases = {}
    held.keep(place, {channel: value for channel, value in values.items() if isinstance(value, Value)})
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
    held: HeldValues,
    writing: Writing,
) -> Plan[RunnableConfig]:
    """Store a checkpoint and return the config that names it."""
    place = codec.place_of(config)
    mutation, large = codec.put_checkpoint(config, checkpoint, metadata, new_versions, serde, held.of(place))
    writing.sign_put(mutation.put)
    try:
        yield calls.write(mutation)
    except ChunksMissing:
        held.forget(place, large)
        large = payloads.tell_whole(mutation.put, large)
        yield calls.write(mutation)
    held.keep(place, large)
    return codec.config_of(mutation.put.ref)


def put_writes(
    config: RunnableConfig,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
    serde: SerializerProtocol,
    writing: Writing,
) -> Plan[None]:
    """Store what a task wrote."""
    mutation = codec.put_writes(config, writes, task_id, task_path, serde)
    writing.sign_writes(mutation.put_writes)
    if mutation.put_writes.writes:
        yield calls.write(mutation)


def delete_thread(thread_id: str, held: HeldValues) -> Plan[None]:
    """Delete a thread."""
    yield from calls.mutate("DeleteThread", pb.DeleteThreadRequest(thread_id=str(thread_id)))
    held.forget_thread(str(thread_id))


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


def prune(thread_ids: Sequence[str], strategy: str, held: HeldValues) -> Plan[None]:
    """Remove old checkpoints of threads, or the threads."""
    if strategy not in _STRATEGIES:
        raise InvalidRequest(
            f"unknown strategy {strategy!r}: use 'keep_latest' or 'delete'", metadata={"field": "strategy"}
        )
    for some in _portions(thread_ids, "thread_ids"):
        request = pb.PruneThreadsRequest(thread_ids=some, strategy=_STRATEGIES[strategy])
        yield from calls.mutate("PruneThreads", request)
        if request.strategy == pb.PRUNE_STRATEGY_DELETE_ALL:
            for thread_id in some:
                held.forget_thread(thread_id)


def channel_history(
    config: RunnableConfig, channels: Sequence[str], serde: SerializerProtocol
) -> Plan[Mapping[str, DeltaChannelHistory]]:
    """Read what channels contributed along the ancestors of a checkpoint."""
    if not channels:
        return {}
    wanted = list(dict.fromkeys(channels))
    request = pb.GetChannelHistoryRequest(channels=wanted)
    codec.fill_ref(request.ref, config)
    pages = yield from calls.history(request)
    return codec.channel_history(wanted, pages, serde)


def _portions(ids: Sequence[str], name: str) -> Iterator[Sequence[str]]:
    if isinstance(ids, str):
        raise TypeError(f"{name} is a sequence of ids, not one text: use [{ids!r}]")
    texts = [str(one) for one in ids]
    for start in range(0, len(texts), _MAX_PER_CALL):
        yield texts[start : start + _MAX_PER_CALL]
