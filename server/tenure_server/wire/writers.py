"""Between messages of WriterService and domain values."""

from __future__ import annotations

from typing import Final

from tenure.v1 import writers_pb2 as pb

from tenure_server.wire import fields
from tenure_server.wire.times import timestamp
from tenure_server.writer_policies import WriterPolicy

_MAX_PREFIX_BYTES: Final = 512
"""As long as a thread's id, so that a policy can name one thread."""


def thread_prefix(text: str) -> str:
    """Return with what ids of threads begin."""
    return fields.text("thread_prefix", text, _MAX_PREFIX_BYTES, empty=True)


def policy_message(policy: WriterPolicy) -> pb.WriterPolicy:
    """Return a policy as its message."""
    return pb.WriterPolicy(thread_prefix=policy.thread_prefix, created_at=timestamp(policy.created_at))
