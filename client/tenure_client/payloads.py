"""Serialized channel values in messages: small ones whole, large ones as edits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from tenure.v1 import checkpoints_pb2 as pb

from tenure_client.chunks import BadEdit
from tenure_client.values import Value, apply, tell

CHUNKED_FROM = 8 * 1024
"""Bytes of the largest value that still goes whole: below, entries and chunks cost more than they save."""


class Payload(Protocol):
    """A serialized value with its type tag: a `Blob` or a `Value`."""

    @property
    def type(self) -> str: ...

    @property
    def data(self) -> bytes: ...


def fill(new: pb.ChannelValue, tag: str, data: bytes, base: Value | None) -> Value | None:
    """Write a value into its message, and return it if it went as an edit."""
    if len(data) > CHUNKED_FROM:
        value = tell(new.edit, tag, data, new.version, base)
        if value is not None:
            return value
        new.ClearField("edit")
    new.value.type = tag
    new.value.data = data
    return None


def tell_whole(put: pb.PutCheckpoint, large: Mapping[str, Value]) -> dict[str, Value]:
    """Tell the large values of a put with all their chunks, and return them."""
    whole: dict[str, Value] = {}
    for new in put.new_values:
        if new.HasField("edit"):
            new.ClearField("edit")
            value = large[new.channel]
            # Cut and packed anew: chunks kept from a base may be those of a client that packs otherwise.
            again = fill(new, value.type, value.data, None)
            if again is not None:
                whole[new.channel] = again
    return whole


def received(value: pb.ChannelValue, base: Payload | None) -> Payload | None:
    """Return a value as a server sent it, None if it was left out.

    Raises:
        BadEdit: See `apply`.
    """
    if value.HasField("edit"):
        return apply(value.edit, value.version, base if isinstance(base, Value) else None)
    return value.value if value.HasField("value") else None


def channel_values(checkpoint: pb.Checkpoint, bases: Mapping[str, Value]) -> dict[str, Payload]:
    """Return the channel values of a checkpoint that was read, by channel.

    Raises:
        BadEdit: A value cannot be made of what was sent and the bases.
    """
    values: dict[str, Payload] = {}
    for value in checkpoint.channel_values:
        payload = received(value, bases.get(value.channel))
        if payload is None:
            raise BadEdit("a value was left out")
        values[value.channel] = payload
    return values
