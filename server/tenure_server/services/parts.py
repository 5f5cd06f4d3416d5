"""Answers in parts: a batch some of whose operations take longer is answered as far as it is done.

A thread that somebody else holds for seconds, or a search through much, must not delay the answers to its
neighbours in the batch, nor keep the client from sending what comes next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Generic, Literal, TypeVar

from google.protobuf.message import Message
from tenure.v1 import checkpoints_pb2 as pb

_GATHER = 0.01
"""Seconds that a result waits for others of its batch. Most batches are complete by then."""
_PATIENCE = 0.1
"""Seconds after which a batch without any result is said to take longer. A server that is slow as a whole is
not helped by more batches, so it is longer than a commit takes."""
_OVERHEAD = 16
"""Bytes that a result takes in its part beside its own, at most."""

Send = Callable[[pb.SessionResponse], Coroutine[Any, Any, None]]
Result = TypeVar("Result", bound=Message)


class Parts(Generic[Result]):
    """The answer to one batch of a session.

    Nothing is sent and no task is started for a batch that is complete in time.

    Args:
        send: Sends one part.
        kind: Of the batch: the member of SessionResponse that has its results.
        budget: Bytes of results in one part, unless one result alone is larger.
    """

    def __init__(self, send: Send, kind: Literal["write", "store"], budget: int) -> None:
        self._send = send
        self._kind = kind
        self._budget = budget
        self._results: dict[int, Result] = {}
        """Known, and not sent yet, by position."""
        self._sent: set[int] = set()
        self._sending: set[asyncio.Task[None]] = set()
        self._gathering = False
        self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self._flush)

    def add(self, position: int, result: Result) -> None:
        """Take the result of the operation at this position of the batch; it is sent soon."""
        self._results[position] = result
        if not self._gathering:
            self._gathering = True
            self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(_GATHER, self._flush)

    async def finish(self, results: Sequence[Result]) -> None:
        """Send what was not sent, given the results of the whole batch."""
        await self.close()
        if not self._sent and sum([result.ByteSize() + _OVERHEAD for result in results]) <= self._budget:
            # Most answers are one part: filled at once, in half the time.
            whole = self._new_part()
            getattr(whole, self._kind).results.extend(results)
            await self._send(whole)
            return
        left = {at: result for at, result in enumerate(results) if at not in self._sent}
        for part in self._parts(left, in_order=not self._sent, last=True):
            await self._send(part)

    async def close(self) -> None:
        """Send nothing more of its own accord; what is being sent is finished first."""
        self._timer.cancel()
        if self._sending:
            await asyncio.gather(*self._sending)

    def _flush(self) -> None:
        self._gathering = False
        parts = list(self._parts(self._results))
        self._sent.update(self._results)
        self._results.clear()
        sending = asyncio.create_task(self._send_all(parts))
        self._sending.add(sending)
        sending.add_done_callback(self._was_sent)

    async def _send_all(self, parts: Sequence[pb.SessionResponse]) -> None:
        for part in parts:
            await self._send(part)

    def _parts(
        self, results: dict[int, Result], *, in_order: bool = False, last: bool = False
    ) -> Iterator[pb.SessionResponse]:
        """Yield results in parts, at least one; each names the positions unless all come in order."""
        part, room = self._new_part(), self._budget
        for position, result in results.items():
            size = result.ByteSize() + _OVERHEAD
            if size > room and room < self._budget:
                part.more = True
                yield part
                part, room = self._new_part(), self._budget
            if not in_order:
                part.positions.append(position)
            getattr(part, self._kind).results.append(result)
            room -= size
        part.more = not last
        yield part

    def _new_part(self) -> pb.SessionResponse:
        part = pb.SessionResponse()
        getattr(part, self._kind).SetInParent()
        return part

    def _was_sent(self, sending: asyncio.Task[None]) -> None:
        self._sending.discard(sending)
        if not sending.cancelled():
            # It can only be that the stream is gone, which the reader learns, too.
            sending.exception()
