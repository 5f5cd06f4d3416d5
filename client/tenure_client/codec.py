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

from tenure_client.errors import InvalidRequest

EMPTY = "empty"
"""Type tag of a channel version without a value, as in InMemorySaver."""
_encode_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def thread_id(config: RunnableConfig) -> str:
    """Return the thread a config names, as text.

    Raises:
        InvalidRequest: It names none.
    """
    value = config.get("configurable", {}).get("thread_id")
    if value is None or value == "":
        raise InvalidRequest(
            'the config names no thread: set config["configurable"]["thread_id"]',
            metadata={"field": "thread_id"},
        )
    return str(value)


def ref(config: RunnableConfig, checkpoint_id: str | None = None) -> pb.CheckpointRef:
    """Return the name of the checkpoint in a config, or of another one beside it."""
    return pb.CheckpointRef(
        thread_id=thread_id(config),
        checkpoint_ns=config["configurable"].get("checkpoint_ns") or "",
        checkpoint_id=checkpoint_id or get_checkpoint_id(config) or "",
    )


def config_of(checkpoint: pb.CheckpointRef) -> RunnableConfig:
    """Return the config that names a checkpoint."""
    return {
        "configurable": {
            "thread_id": checkpoint.thread_id,
            "checkpoint_ns": checkpoint.checkpoint_ns,
            "checkpoint_id": checkpoint.checkpoint_id,
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


def encode_blob(value: Any, serde: SerializerProtocol) -> common_pb2.Blob:
    """Return a value as a payload."""
    tag, data = serde.dumps_typed(value)
    return common_pb2.Blob(type=tag, data=bytes(data))


def decode_blob(blob: common_pb2.Blob, serde: SerializerProtocol) -> Any:
    """Return the value of a payload."""
    return serde.loads_typed((blob.type, blob.data))


def put_checkpoint(
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
    serde: SerializerProtocol,
) -> pb.PutCheckpoint:
    """Return the message that stores a checkpoint.

    Raises:
        TypeError: The metadata is not JSON, or a version is neither text nor a number.
    """
    body = {key: value for key, value in checkpoint.items() if key != "channel_values"}
    values = checkpoint["channel_values"]
    return pb.PutCheckpoint(
        ref=ref(config, checkpoint["id"]),
        parent_checkpoint_id=get_checkpoint_id(config) or "",
        checkpoint=encode_blob(body, serde),
        metadata_json=to_json(get_checkpoint_metadata(config, metadata), "metadata"),
        channel_versions=[
            pb.ChannelVersion(channel=channel, version=encode_version(version))
            for channel, version in checkpoint["channel_versions"].items()
        ],
        new_values=[
            pb.ChannelValue(
                channel=channel,
                version=encode_version(version),
                value=encode_blob(values[channel], serde)
                if channel in values
                else common_pb2.Blob(type=EMPTY),
            )
            for channel, version in new_versions.items()
        ],
        format_version=checkpoint["v"],
    )


def put_writes(
    config: RunnableConfig,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
    serde: SerializerProtocol,
) -> pb.PutWrites:
    """Return the message that stores pending writes.

    Raises:
        InvalidRequest: The config names no checkpoint.
    """
    checkpoint = ref(config)
    if not checkpoint.checkpoint_id:
        raise InvalidRequest(
            'the config names no checkpoint: set config["configurable"]["checkpoint_id"]',
            metadata={"field": "checkpoint_id"},
        )
    return pb.PutWrites(
        ref=checkpoint,
        writes=[
            pb.PendingWrite(
                task_id=task_id,
                task_path=task_path,
                idx=WRITES_IDX_MAP.get(channel, index),
                channel=channel,
                value=encode_blob(value, serde),
            )
            for index, (channel, value) in enumerate(writes)
        ],
    )


def checkpoint_tuple(
    checkpoint: pb.Checkpoint,
    values: Mapping[str, common_pb2.Blob],
    serde: SerializerProtocol,
    config: RunnableConfig | None = None,
) -> CheckpointTuple:
    """Return a stored checkpoint as LangGraph knows it.

    Args:
        checkpoint: The stored checkpoint.
        values: Its channel values.
        serde: Reads the payloads.
        config: The config to return, None = one that names the checkpoint.
    """
    body = decode_blob(checkpoint.checkpoint, serde)
    parent = pb.CheckpointRef(
        thread_id=checkpoint.ref.thread_id,
        checkpoint_ns=checkpoint.ref.checkpoint_ns,
        checkpoint_id=checkpoint.parent_checkpoint_id,
    )
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
        parent_config=config_of(parent) if parent.checkpoint_id else None,
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


def to_json(value: Mapping[str, Any], name: str) -> str:
    """Return a mapping as JSON text from which `json.loads` makes the same mapping.

    Tuples become lists. InMemorySaver would take any value that msgpack takes; here metadata is JSON, so
    that the server can filter by it.

    Raises:
        TypeError: A value is not JSON, or is NaN, infinite, or text that Postgres cannot hold; the message
            names its place.
    """
    return _encode_json(_plain(value, name))


def _plain(value: Any, place: str) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return _text(value, place)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{place} is {value}, which is not JSON: use None or text")
        return value
    if isinstance(value, Mapping):
        return {_key(key, place): _plain(item, f"{place}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    raise TypeError(
        f"{place} is of type {type(value).__name__}, which is not JSON: put it into the graph's state, or "
        "store its text here"
    )


def _key(key: Any, place: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{place} has the key {key!r}, but the keys of JSON are text")
    return _text(key, f"a key of {place}")


def _text(text: str, place: str) -> str:
    if "\x00" in text:
        raise TypeError(f"{place} contains the character NUL, which cannot be stored")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TypeError(f"{place} contains a lone surrogate, which is not Unicode text") from None
    return text
