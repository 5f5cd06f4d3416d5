"""LangGraph's values <-> protocol messages; pure, the serializer is passed in."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
    get_checkpoint_id,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import common_pb2

from tenure_client.errors import InvalidRequest, UnreadableValue
from tenure_client.held import Place
from tenure_client.jsontext import to_json
from tenure_client.payloads import Payload, fill
from tenure_client.values import Value


def thread_id(config: RunnableConfig) -> str:
    """Return the thread a config names, as text.

    Raises:
        InvalidRequest: It names none.
    """
    return _thread_id(config.get("configurable", {}))


def _thread_id(configurable: Mapping[str, Any]) -> str:
    value = configurable.get("thread_id")
    if value is None or value == "":
        raise InvalidRequest(
            'the config names no thread: set config["configurable"]["thread_id"]',
            metadata={"field": "thread_id"},
        )
    return str(value)


def place_of(config: RunnableConfig) -> Place:
    """Return the thread and the namespace that a config names.

    Raises:
        InvalidRequest: It names no thread.
    """
    configurable = config.get("configurable", {})
    return _thread_id(configurable), configurable.get("checkpoint_ns") or ""


def fill_ref(ref: pb.CheckpointRef, config: RunnableConfig, checkpoint_id: str | None = None) -> None:
    """Write the name of the checkpoint in a config, or of another one beside it.

    Raises:
        InvalidRequest: The config names no thread.
    """
    ref.thread_id, ref.checkpoint_ns = place_of(config)
    ref.checkpoint_id = checkpoint_id or get_checkpoint_id(config) or ""


def config_of(checkpoint: pb.CheckpointRef, checkpoint_id: str | None = None) -> RunnableConfig:
    """Return the config that names a checkpoint, or another one beside it."""
    return {
        "configurable": {
            "thread_id": checkpoint.thread_id,
            "checkpoint_ns": checkpoint.checkpoint_ns,
            "checkpoint_id": checkpoint_id or checkpoint.checkpoint_id,
        }
    }


def encode_version(version: str | float) -> str:
    """Return a channel version as text; versions that are equal in Python have the same text.

    Raises:
        TypeError: It is neither text nor a finite number.
    """
    if isinstance(version, str):
        return "s:" + version
    if isinstance(version, int):
        return f"i:{int(version)}"
    if isinstance(version, float) and math.isfinite(version):
        return f"i:{int(version)}" if version.is_integer() else f"f:{float(version)!r}"
    raise TypeError(f"a channel version is a str, an int or a finite float, not {version!r}")


def fill_blob(blob: common_pb2.Blob, value: Any, serde: SerializerProtocol) -> None:
    """Write a value as a payload."""
    tag, data = serde.dumps_typed(value)
    blob.type = tag
    blob.data = bytes(data)


def decode_blob(blob: Payload, serde: SerializerProtocol) -> Any:
    """Return the value of a payload."""
    return serde.loads_typed((blob.type, blob.data))


def put_checkpoint(
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
    serde: SerializerProtocol,
    bases: Mapping[str, Value],
) -> tuple[pb.Mutation, dict[str, Value]]:
    """Return the mutation that stores a checkpoint, and its large values, which go as edits.

    Args:
        config: Names the thread, the namespace and the parent.
        checkpoint: The checkpoint.
        metadata: Its metadata.
        new_versions: The channels whose values are new in it.
        serde: Writes the payloads.
        bases: By channel, a value that edits may be told against.

    Raises:
        TypeError: The metadata is not JSON, or a version is neither text nor a number.
    """
    values = checkpoint["channel_values"]
    body: dict[str, Any] = {**checkpoint}
    del body["channel_values"]
    # Filled in place: protobuf would serialize and parse a message that is put into another one.
    mutation = pb.Mutation()
    put = mutation.put
    fill_ref(put.ref, config, checkpoint["id"])
    put.parent_checkpoint_id = get_checkpoint_id(config) or ""
    fill_blob(put.checkpoint, body, serde)
    put.metadata_json = to_json(get_checkpoint_metadata(config, metadata), "metadata")
    put.format_version = checkpoint["v"]
    for channel, version in checkpoint["channel_versions"].items():
        # Not by keywords, which take upb half as long again.
        entry = put.channel_versions.add()
        entry.channel = channel
        entry.version = encode_version(version)
    large: dict[str, Value] = {}
    for channel, version in new_versions.items():
        if channel not in values:
            # A version without a value needs no room: what is not stored reads as no value.
            continue
        new = put.new_values.add()
        new.channel = channel
        new.version = encode_version(version)
        tag, data = serde.dumps_typed(values[channel])
        value = fill(new, tag, bytes(data), bases.get(channel))
        if value is not None:
            large[channel] = value
    return mutation, large


def put_writes(
    config: RunnableConfig,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
    serde: SerializerProtocol,
) -> pb.Mutation:
    """Return the mutation that stores pending writes.

    Raises:
        InvalidRequest: The config names no checkpoint.
    """
    mutation = pb.Mutation()
    message = mutation.put_writes
    fill_ref(message.ref, config)
    if not message.ref.checkpoint_id:
        raise InvalidRequest(
            'the config names no checkpoint: set config["configurable"]["checkpoint_id"]',
            metadata={"field": "checkpoint_id"},
        )
    for index, (channel, value) in enumerate(writes):
        write = message.writes.add(
            task_id=task_id,
            task_path=task_path,
            idx=WRITES_IDX_MAP.get(channel, index),
            channel=channel,
        )
        fill_blob(write.value, value, serde)
    return mutation


def checkpoint_tuple(
    checkpoint: pb.Checkpoint,
    values: Mapping[str, Payload],
    serde: SerializerProtocol,
    config: RunnableConfig | None = None,
) -> CheckpointTuple:
    """Return a stored checkpoint as LangGraph knows it.

    Args:
        checkpoint: The stored checkpoint.
        values: Its channel values.
        serde: Reads the payloads.
        config: The config to return, None = one that names the checkpoint.

    Raises:
        UnreadableValue: The stored checkpoint is none.
    """
    body = decode_blob(checkpoint.checkpoint, serde)
    if not isinstance(body, Mapping) or not isinstance(body.get("channel_versions"), Mapping):
        raise UnreadableValue(
            f"checkpoint {checkpoint.ref.checkpoint_id!r} does not read as one; was it written with another "
            "serializer?"
        )
    parent = checkpoint.parent_checkpoint_id
    return CheckpointTuple(
        config=config if config is not None else config_of(checkpoint.ref),
        checkpoint=cast(
            "Checkpoint",
            {
                **body,
                "channel_values": {
                    channel: decode_blob(values[channel], serde)
                    for channel in body["channel_versions"]
                    if channel in values
                },
            },
        ),
        metadata=json.loads(checkpoint.metadata_json),
        parent_config=config_of(checkpoint.ref, parent) if parent else None,
        pending_writes=[
            (write.task_id, write.channel, decode_blob(write.value, serde))
            for write in checkpoint.pending_writes
        ],
    )


def list_request(
    config: RunnableConfig | None,
    filter: Mapping[str, Any] | None,
    before: RunnableConfig | None,
    limit: int | None,
) -> pb.ListRequest:
    """Return the request for a listing.

    Raises:
        TypeError: A value of the filter is not JSON.
    """
    request = pb.ListRequest()
    if config:
        request.thread_id = thread_id(config)
        request.checkpoint_id = get_checkpoint_id(config) or ""
        namespace = config["configurable"].get("checkpoint_ns")
        if namespace is not None:
            request.checkpoint_ns = namespace
    if before:
        request.before_checkpoint_id = get_checkpoint_id(before) or ""
    if filter:
        request.filter_json = to_json(filter, "filter")
    if limit is not None:
        request.limit = max(limit, 0)
    return request


def channel_history(
    channels: Iterable[str], pages: Iterable[pb.ChannelHistoryPage], serde: SerializerProtocol
) -> dict[str, DeltaChannelHistory]:
    """Return what each channel contributed, oldest write first."""
    writes: dict[str, list[PendingWrite]] = {channel: [] for channel in channels}
    seeds: dict[str, Any] = {}
    for page in pages:
        for write in page.writes:
            value = decode_blob(write.value, serde)
            writes[write.channel].append((write.task_id, write.channel, value))
        for seed in page.seeds:
            seeds[seed.channel] = decode_blob(seed.value, serde)
    result: dict[str, DeltaChannelHistory] = {}
    for channel, newest_first in writes.items():
        result[channel] = {"writes": newest_first[::-1]}
        if channel in seeds:
            result[channel]["seed"] = seeds[channel]
    return result
