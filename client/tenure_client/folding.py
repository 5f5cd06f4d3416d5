"""Tasks of one event loop that get, or write, items in the same tick share one group.

A crowd of tasks that was answered together asks again together. One group of their operations has one id, one
place in a lane and one record in the database, instead of one for each task. A lone task does not wait for
the end of its tick: only where several came at the last time, the next ones are waited for.

A group is done or refused as a whole. If it is refused, each task asks for its own part alone: the fault of
one is not the others'. (Of writes to one key that overlap in time, one that is asked for again may then come
after a later one.) In an application that traces, each operation travels by itself and has its own trace.
"""

from __future__ import annotations

import asyncio
import copy
import weakref
from collections.abc import Callable, Mapping, Sequence

from langgraph.store.base import Result
from tenure.v1 import store_pb2 as pb

from tenure_client import store_calls, tracing
from tenure_client.calls import Plan
from tenure_client.connection import Connection
from tenure_client.errors import TenureError
from tenure_client.store_operations import SPAN, Batch, Kind

MAX_OPS = 256
"""Operations of a group of several tasks."""
MAX_BYTES = 256 * 1024
"""Bytes of such a group."""

_Answer = list[Result] | None
"""The results of a batch; None = it is to be asked for alone."""


class _Fold:
    """What becomes a group when the tick is over."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._asked: list[tuple[Batch, asyncio.Future[_Answer]]] = []
        self._count = 0
        self._size = 0

    def takes(self, batch: Batch) -> bool:
        """Count a batch in, and tell whether there is room for it beside others."""
        messages = batch.messages
        self._count += len(messages)
        self._size += sum([message.ByteSize() for message in messages])
        return not self._asked or (self._count <= MAX_OPS and self._size <= MAX_BYTES)

    async def answer(self, batch: Batch) -> _Answer:
        """Have a batch done, and wait for its answer."""
        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._asked.append((batch, answer))
        try:
            return await answer
        except asyncio.CancelledError:
            if self._task is not None and all(other.done() for _, other in self._asked):
                self._task.cancel()
            raise

    def leave(self, connection: Connection, begins: Callable[[], None]) -> None:
        """Do what was asked for; `begins` is called just before it is sent."""
        self._task = asyncio.create_task(self._perform(connection, begins))

    async def _perform(self, connection: Connection, begins: Callable[[], None]) -> None:
        begins()
        wanted = [(batch, answer) for batch, answer in self._asked if not answer.done()]
        batches = [batch for batch, _ in wanted]
        found: Sequence[_Answer]
        try:
            if len(batches) < 2:
                found = [await connection.arun(SPAN, batch.plan()) for batch in batches]
            else:
                found = await connection.arun(SPAN, _together(batches))
        except asyncio.CancelledError:
            for _, answer in wanted:
                answer.cancel()
            raise
        except Exception as error:
            for _, answer in wanted:
                if not answer.done():
                    # One for each: an exception that several tasks raise would collect all their tracebacks.
                    answer.set_exception(copy.copy(error) if isinstance(error, TenureError) else error)
            return
        for (_, answer), one in zip(wanted, found, strict=True):
            if not answer.done():
                answer.set_result(one)


class _Place:
    """Where the tasks of one loop meet that ask for the same kind of operations.

    Args:
        connection: Where these are sent.

    """

    def __init__(self, connection: Connection) -> None:
        self._together = False
        self._leaving = 0
        self._connection = connection
        self._folds: list[_Fold] = []
        self._came = 0

    def enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note that one asks."""
        self._came += 1
        if self._came == 1:
            loop.call_soon(self._end_tick)

    def gathers(self) -> bool:
        """Whether several asked in the last tick in which any did, or what was asked has not been sent.

        Whoever went alone then would overtake it.
        """
        return self._together or self._leaving > 0

    async def answer(self, batch: Batch) -> _Answer:
        """Have a batch done together with others of this tick, and wait for its answer."""
        if not self._folds or not self._folds[-1].takes(batch):
            self._folds.append(_Fold())
            self._folds[-1].takes(batch)
        return await self._folds[-1].answer(batch)

    def _end_tick(self) -> None:
        self._together = self._came > 1
        self._came = 0
        # Not before: a loop may begin its tasks at once, and nobody could join.
        folds, self._folds = self._folds, []
        self._leaving += len(folds)
        for fold in folds:
            fold.leave(self._connection, self._left)

    def _left(self) -> None:
        self._leaving -= 1


class Folding:
    """Does the batches of the tasks that share a store.

    Args:
        connection: Where they are sent.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._places: Mapping[Kind, weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Place]] = {
            kind: weakref.WeakKeyDictionary() for kind in Kind
        }

    async def run(self, batch: Batch) -> list[Result]:
        """Do a batch and return the results of its operations.

        Raises:
            TenureError: See `tenure_client.errors`.
        """
        kind = batch.kind
        if kind is None or tracing.active():
            return await self._alone(batch)
        loop = asyncio.get_running_loop()
        place = self._places[kind].get(loop)
        if place is None:
            place = self._places[kind][loop] = _Place(self._connection)
        place.enter(loop)
        answer = await place.answer(batch) if place.gathers() else None
        return await self._alone(batch) if answer is None else answer

    async def _alone(self, batch: Batch) -> list[Result]:
        return await self._connection.arun(SPAN, batch.plan())


def _together(batches: Sequence[Batch]) -> Plan[Sequence[_Answer]]:
    """Do batches of one kind as one group, unless it is refused or does not fit into one answer."""
    group = batches[0].group([message for batch in batches for message in batch.messages])
    found = yield from store_calls.tried(group, writes=batches[0].kind is Kind.WRITES)
    if found is None:
        return [None] * len(batches)
    results = iter(found)
    return [_answered(batch, [next(results) for _ in batch.messages]) for batch in batches]


def _answered(batch: Batch, results: Sequence[pb.StoreResult]) -> _Answer:
    try:
        return batch.answered(results)
    except Exception:
        # Its task meets the same when it asks alone, and nobody else does.
        return None
