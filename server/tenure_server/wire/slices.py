"""Messages above the size of one gRPC message travel as slices of their serialized form."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from tenure.v1.common_pb2 import Slice

from tenure_server import errors
from tenure_server.limits import Limits


def cut(serialized: bytes, limits: Limits) -> Iterator[Slice]:
    """Yield the slices of a serialized message; the first tells the size of the whole."""
    view = memoryview(serialized)
    for start in range(0, max(len(view), 1), limits.slice_bytes):
        data = bytes(view[start : start + limits.slice_bytes])
        yield Slice(data=data, total_bytes=len(view) if start == 0 else 0)


async def join(slices: AsyncIterator[Slice], limits: Limits) -> bytes:
    """Return the message that a client sends in slices.

    Memory is taken as bytes arrive, never by what the first slice claims.

    Raises:
        LimitExceeded: The message or a slice is too large.
        InvalidField: The bytes are not as many as the first slice said, or a later slice has none.
    """
    total: int | None = None
    received = bytearray()
    async for part in slices:
        if total is None:
            total = part.total_bytes
            if total > limits.max_operation_bytes:
                raise errors.LimitExceeded(
                    "slice.total_bytes", "max_operation_bytes", total, limits.max_operation_bytes
                )
        elif not part.data:
            # A sender of nothing could go on for ever.
            raise errors.InvalidField("slice.data", "must not be empty")
        if len(part.data) > limits.slice_bytes:
            raise errors.LimitExceeded("slice.data", "slice_bytes", len(part.data), limits.slice_bytes)
        received += part.data
        if len(received) > total:
            break
    if len(received) != (total or 0):
        raise errors.InvalidField(
            "slice.total_bytes", f"said {total or 0:,} bytes, {len(received):,} or more came"
        )
    return bytes(received)
