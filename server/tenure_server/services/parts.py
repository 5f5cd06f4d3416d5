"""Answers in parts: a write whose threads are not all free is acknowledged as far as it is done.

A thread that somebody else holds for seconds must not delay the acknowledgement of its neighbours in the
batch, nor keep the client from sending what comes next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from tenure.v1 import checkpoints_pb2 as pb

_GATHER = 0.01
"""Seconds that a result waits for others of its batch. Most batches are complete by then."""
_PATIENCE = 0.1
"""Seconds after which a batch without any result is said to take longer. A server that is slow as a whole is
not helped by more batches, so it is longer than a commit takes."""

Send = Callable[[pb.SessionResponse], Coroutine[Any, Any, None]]


class Parts:
    """The answer to one write of a session.

    Nothing is sent and no task is started for a batch that is complete in time.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._results: dict[int, pb.MutationResult] = {}
        """Known, and not sent yet, by position."""
        self._sent: set[int] = set()
        self._sending: set[asyncio.Task[None]] = set()
        self._gathering = False
        self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self._flush)

    def add(self, position: int, result: pb.MutationResult) -> None:
        """Take the result of the mutation at this position of the batch; it is sent soon."""
        self._results[position] = result
        if not self._gathering:
            self._gathering = True
            self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(_GATHER, self._flush)

    async def finish(self, results: Sequence[pb.MutationResult]) -> None:
        """Send what was not sent, given the results of the whole batch."""
        await self.close()
        last = pb.SessionResponse()
        if self._sent:
            last.positions.extend(at for at in range(len(results)) if at not in self._sent)
            last.write.results.extend(results[at] for at in last.positions)
            last.write.SetInParent()
        else:
            last.write.results.extend(results)
        await self._send(last)

    async def close(self) -> None:
        """Send nothing more of its own accord; what is being sent is finished first."""
        self._timer.cancel()
        if self._sending:
            await asyncio.gather(*self._sending)

    def _flush(self) -> None:
        self._gathering = False
        part = pb.SessionResponse(more=True, positions=self._results)
        part.write.results.extend(self._results.values())
        part.write.SetInParent()
        self._sent.update(self._results)
        self._results.clear()
        sending = asyncio.create_task(self._send(part))
        self._sending.add(sending)
        sending.add_done_callback(self._was_sent)

    def _was_sent(self, sending: asyncio.Task[None]) -> None:
        self._sending.discard(sending)
        if not sending.cancelled():
            # It can only be that the stream is gone, which the reader learns, too.
            sending.exception()
