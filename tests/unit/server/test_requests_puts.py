"""Puts whose metadata comes again, and names of any length that is allowed."""

from __future__ import annotations

import pytest
from tenure.v1 import checkpoints_pb2 as pb
from tenure_server.domain import PutCheckpoint
from tenure_server.limits import Limits
from tenure_server.wire.requests import Requests

from tests.unit.server.test_requests import BLOB, OPERATION, REF

LIMITS = Limits()
REQUESTS = Requests(LIMITS)


def _put() -> pb.Mutation:
    return pb.Mutation(
        operation=OPERATION,
        put=pb.PutCheckpoint(
            ref=REF,
            checkpoint=BLOB,
            channel_versions=[pb.ChannelVersion(channel="a", version="i:1")],
            new_values=[pb.ChannelValue(channel="a", version="i:1", value=BLOB)],
        ),
    )


@pytest.mark.parametrize("text", ["x", "x" * 128, "x" * 129, "x" * 512, "é" * 256, "🦜" * 128])
def test_names_of_up_to_512_bytes(text: str) -> None:
    message = _put()
    message.put.ref.thread_id = message.put.parent_checkpoint_id = text
    for named in (message.put.channel_versions[0], message.put.new_values[0]):
        named.channel = named.version = text
    put = REQUESTS.mutation(message, "m")
    assert isinstance(put, PutCheckpoint)
    assert (put.ref.thread_id, put.parent_checkpoint_id, put.channel_versions) == (text, text, {text: text})
    assert [(value.channel, value.version) for value in put.new_values] == [(text, text)]
