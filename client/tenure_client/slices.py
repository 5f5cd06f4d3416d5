"""Messages that are too large for one gRPC message travel as slices of their serialized form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError, Message
from tenure.v1 import common_pb2

from tenure_client.errors import UnreadableValue

M = TypeVar("M", bound=Message)

SLICE_BYTES = 256 * 1024


def split(message: Message) -> Iterator[common_pb2.Slice]:
    """Yield the slices of a message; the first one tells the total size."""
    data = memoryview(message.SerializeToString())
    for start in range(0, max(len(data), 1), SLICE_BYTES):
        yield common_pb2.Slice(
            data=bytes(data[start : start + SLICE_BYTES]), total_bytes=0 if start else len(data)
        )


class Assembler(Generic[M]):
    """Puts messages of one type together again."""

    def __init__(self, kind: type[M]) -> None:
        self._kind = kind
        self._data = bytearray()
        self._total: int | None = None

    def add(self, part: common_pb2.Slice) -> M | None:
        """Take the next slice and return the message if it was the last one.

        Raises:
            UnreadableValue: The slices do not make up a message.
        """
        if self._total is None:
            self._total = part.total_bytes
        self._data += part.data
        if len(self._data) < self._total and part.data:
            return None
        if len(self._data) != self._total:
            raise UnreadableValue(f"the server sent {len(self._data):,} bytes instead of {self._total:,}")
        data, self._data, self._total = bytes(self._data), bytearray(), None
        message = self._kind()
        try:
            message.ParseFromString(data)
        except DecodeError:
            raise UnreadableValue(f"the server sent slices that are no {self._kind.__name__}") from None
        return message


def join(kind: type[M], parts: Iterable[common_pb2.Slice]) -> M:
    """Return the one message that the slices make up.

    Raises:
        UnreadableValue: They do not.
    """
    assembler = Assembler(kind)
    for part in parts:
        message = assembler.add(part)
        if message is not None:
            return message
    raise UnreadableValue("the server's stream ended before its last slice")
