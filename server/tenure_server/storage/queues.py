"""A queue in front of a store: what is asked while calls are under way goes into the next call together.

A lone operation goes at once, a crowd shares the price of a transaction.

Mutations of a thread are applied in the order of their arrival, and a thread is in one call at a time: a
second one would only wait for the first one's lock. A thread that somebody else holds, another replica or
a deletion, comes back busy; it then waits alone, under the deadlines of its own operations.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from tenure_server import errors
from tenure_server.domain import TenantId

T = TypeVar("T")
A = TypeVar("A")

MAX_READS = 2
"""Calls under way for one tenant's reads. With one, the database would idle while an answer is taken apart;
with more, batches become smaller without being answered sooner."""
MAX_WRITES = 1
"""Calls under way for one tenant's writes. Each ends by counting what it stored in the tenant's one row, for
which a second one would wait until the first is on disk: two took 6 to 7 % more CPU and wrote no more."""
MAX_OPERATIONS = 256
MAX_BYTES = 4 * 1024 * 1024
MAX_WAITING = 4096
"""Operations that may wait in one queue; with more, refusing is better than a queue nobody outlives."""
_MAX_LONE_WAITS = 4
"""Busy threads of a tenant that are waited for at a time, each with a connection."""
_EXPIRY_STEP = 0.002
"""Seconds between two looks for operations whose time has passed, at least."""


Call = Callable[[Sequence[T], bool], Coroutine[Any, Any, Sequence[A]]]


class _Asker(Generic[A]):
    """Who waits for the answers to some operations.

    Attributes:
        all_there: Done when the last answer is there, or has failed.
        answers: By the index of the operation, as far as they are there.
        left: How many are not.
        context: Of the caller.
    """

    __slots__ = ("_answered", "_untold", "all_there", "answers", "context", "left")

    def __init__(self, count: int, answered: Callable[[int, A], None] | None) -> None:
        self.all_there: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answers: list[Any] = [None] * count
        self.left = count
        self.context: Context = copy_context()
        self._answered = answered
        self._untold: list[int] = []

    def answer(self, index: int, answer: A) -> None:
        self.answers[index] = answer
        self._untold.append(index)
        self.left -= 1
        if not self.left and not self.all_there.done():
            self.all_there.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.all_there.done():
            self.all_there.set_exception(error)
            # Counts as seen, should the caller have given up.
            self.all_there.exception()

    def tell(self) -> None:
        """Tell the answers that are there if the caller has to wait for more."""
        if self._answered is not None and self.left and not self.all_there.done():
            for index in self._untold:
                self._answered(index, self.answers[index])
        self._untold.clear()


@dataclass(slots=True, eq=False)
class Waiting(Generic[T, A]):
    """An operation in a queue.

    Attributes:
        what: What to ask.
        size: Bytes of it, about.
        thread_id: The thread that it changes, None if it changes nothing.
        deadline: `time.monotonic()` after which it must not begin, None if somebody else sees to that.
        asker: Who waits for the answer; set by `Queue.ask`.
        index: Which of its operations this is.
        over: Whether it has been answered, or nobody waits any more.
    """

    what: T
    size: int
    thread_id: str | None
    deadline: float | None = None
    asker: _Asker[A] = field(init=False)
    index: int = field(init=False)
    over: bool = field(init=False, default=False)

    def answer(self, answer: A) -> None:
        """Give the answer to who waits for it, if somebody does."""
        if not self.over:
            self.over = True
            self.asker.answer(self.index, answer)

    def fail(self, error: Exception) -> None:
        """Raise an error where the answer is waited for."""
        if not self.over:
            self.over = True
            self.asker.fail(error)


class Queue(Generic[T, A]):
    """The operations of one tenant of one kind."""

    def __init__(
        self, call: Call[T, A], emptied: Callable[[], object], *, calls: int, patience: float = 0.0
    ) -> None:
        """Make an empty queue.

        Args:
            call: Answers a batch, in its order; whether it may wait for busy threads is its last argument.
            emptied: Called when nothing waits and nothing is under way.
            calls: How many may be under way at a time.
            patience: Seconds that one is left to itself before another begins. What is over by then is
                followed by one large call, which costs less than two; behind one that takes long nobody
                waits.
        """
        self._call = call
        self._emptied = emptied
        self._waiting: deque[Waiting[T, A]] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._lone: set[asyncio.Task[None]] = set()
        self._lone_room = asyncio.Semaphore(_MAX_LONE_WAITS)
        self._threads: set[str] = set()
        """Threads in a call; what else comes for them stays in the queue."""
        self._most_calls = calls
        self._patience = patience
        self._launched_at = 0.0
        self._next_start: asyncio.TimerHandle | None = None
        self._alone: set[Waiting[T, A]] = set()
        """Operations that wait for a busy thread and have not begun again."""
        self._expiry: asyncio.TimerHandle | None = None
        self._expires_at = 0.0

    async def ask(
        self, operations: Sequence[Waiting[T, A]], answered: Callable[[int, A], None] | None = None
    ) -> list[A]:
        """Put operations into the queue and return their answers.

        Args:
            operations: What to ask.
            answered: Called with the index and the answer of each that is there well before the last one.

        Raises:
            Overloaded: Too many wait already.
        """
        if len(self._waiting) + len(operations) > MAX_WAITING:
            raise errors.Overloaded("operations")
        if not operations:
            return []
        asker = _Asker(len(operations), answered)
        for index, operation in enumerate(operations):
            operation.asker, operation.index = asker, index
        self._waiting.extend(operations)
        self._start()
        if self._waiting:
            self._watch(operations)
        try:
            await asker.all_there
        finally:
            for operation in operations:
                # Matters only if the caller gave up: what still waits is left out, what is under way goes on.
                operation.over = True
        return asker.answers

    async def close(self) -> None:
        """Give up what waits and what is under way."""
        waiting = list(self._waiting)
        self._waiting.clear()
        _fail(waiting, _stopping())
        self._stop_timers()
        tasks = self._calls | self._lone
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self) -> None:
        while self._waiting and self._may_launch() and (batch := self._take()):
            self._launched_at = time.monotonic()
            self._launch(self._calls, self._run(batch), batch[0].asker.context)

    def _may_launch(self) -> bool:
        if not self._calls:
            return True
        if len(self._calls) >= self._most_calls:
            return False
        left = self._launched_at + self._patience - time.monotonic()
        if left > 0 and self._next_start is None:
            self._next_start = asyncio.get_running_loop().call_later(left, self._start_now)
        return left <= 0

    def _start_now(self) -> None:
        self._next_start = None
        self._start()

    def _launch(
        self, among: set[asyncio.Task[None]], work: Coroutine[Any, Any, None], context: Context
    ) -> None:
        # In the context of the first operation, so that its trace shows the call.
        task = asyncio.create_task(work, context=context)
        among.add(task)
        task.add_done_callback(partial(self._done, among))

    def _done(self, among: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
        among.discard(task)
        self._start()
        if not self._calls and not self._lone and not self._waiting:
            self._stop_timers()
            self._emptied()

    def _watch(self, operations: Iterable[Waiting[T, A]]) -> None:
        """See to it that operations are answered whose time passes before they begin.

        There is one timer for all of them: most begin long before.
        """
        earliest = min((one.deadline for one in operations if one.deadline is not None), default=None)
        if earliest is None or (self._expiry is not None and self._expires_at <= earliest):
            return
        if self._expiry is not None:
            self._expiry.cancel()
        self._expires_at = earliest
        delay = max(earliest - time.monotonic(), _EXPIRY_STEP)
        self._expiry = asyncio.get_running_loop().call_later(delay, self._expire)

    def _expire(self) -> None:
        """Answer operations whose time has passed before they began; what has begun is the store's."""
        self._expiry = None
        now = time.monotonic()
        early = []
        waiting: list[Waiting[T, Any]] = [*self._waiting, *self._alone]
        for one in waiting:
            if one.deadline is not None and not one.over:
                if one.deadline <= now:
                    one.answer(errors.DeadlineExceeded())
                    one.asker.tell()
                else:
                    early.append(one)
        self._watch(early)

    def _stop_timers(self) -> None:
        for timer in (self._expiry, self._next_start):
            if timer is not None:
                timer.cancel()
        self._expiry = self._next_start = None

    def _take(self) -> list[Waiting[T, A]]:
        batch: list[Waiting[T, A]] = []
        skipped: list[Waiting[T, A]] = []
        room = MAX_BYTES
        while self._waiting and len(batch) < MAX_OPERATIONS:
            first = self._waiting.popleft()
            if first.over:
                continue
            if first.thread_id in self._threads:
                skipped.append(first)
            elif batch and first.size > room:
                self._waiting.appendleft(first)
                break
            else:
                batch.append(first)
                room -= first.size
        self._waiting.extendleft(reversed(skipped))
        self._threads.update(one.thread_id for one in batch if one.thread_id is not None)
        return batch

    async def _run(self, batch: Sequence[Waiting[T, A]]) -> None:
        """Answer a batch; what is busy is waited for apart, its thread staying closed to others."""
        alone: dict[str | None, list[Waiting[T, A]]] = {}
        try:
            for one in await self._answer(batch, wait=False):
                alone.setdefault(one.thread_id, []).append(one)
        finally:
            self._reopen(one for one in batch if one.thread_id not in alone)
        for operations in alone.values():
            self._alone.update(operations)
            self._watch(operations)
            self._launch(self._lone, self._run_alone(operations), operations[0].asker.context)

    async def _run_alone(self, operations: Sequence[Waiting[T, A]]) -> None:
        try:
            async with self._lone_room:
                self._alone.difference_update(operations)
                wanted = [one for one in operations if not one.over]
                if wanted:
                    await self._answer(wanted, wait=True)
        except asyncio.CancelledError:
            _fail(operations, _stopping())
            raise
        finally:
            self._alone.difference_update(operations)
            self._reopen(operations)

    def _reopen(self, operations: Iterable[Waiting[T, A]]) -> None:
        self._threads.difference_update(one.thread_id for one in operations if one.thread_id is not None)

    async def _answer(self, batch: Sequence[Waiting[T, A]], *, wait: bool) -> list[Waiting[T, A]]:
        """Ask the store and tell the answers; return what was busy."""
        busy: list[Waiting[T, A]] = []
        try:
            answers = await self._call([one.what for one in batch], wait)
        except Exception as error:
            _fail(batch, error)
            return busy
        except asyncio.CancelledError:
            _fail(batch, _stopping())
            raise
        for one, answer in zip(batch, answers, strict=True):
            if isinstance(answer, errors.ThreadBusy) and not wait:
                busy.append(one)
            else:
                one.answer(answer)
        # Most callers have all their answers now, and need not be told one by one.
        for asker in {one.asker for one in batch}:
            asker.tell()
        return busy


class TenantQueues(Generic[T, A]):
    """The queues of all tenants for one kind of operation; one is there while it has something to do."""

    def __init__(
        self,
        call: Callable[[TenantId, Sequence[T], bool], Coroutine[Any, Any, Sequence[A]]],
        *,
        calls: int,
        patience: float = 0.0,
    ) -> None:
        """Take what answers a batch of a tenant, and what each of its queues is made with."""
        self._call = call
        self._new_queue = partial(Queue[T, A], calls=calls, patience=patience)
        self._queues: dict[TenantId, Queue[T, A]] = {}

    def of(self, tenant: TenantId) -> Queue[T, A]:
        """Return the queue of a tenant."""
        queue = self._queues.get(tenant)
        if queue is None:
            queue = self._new_queue(partial(self._call, tenant), partial(self._queues.pop, tenant, None))
            self._queues[tenant] = queue
        return queue

    def __len__(self) -> int:
        """Return how many tenants have something to do."""
        return len(self._queues)

    async def close(self) -> None:
        """Give up what waits and what is under way."""
        await asyncio.gather(*(queue.close() for queue in list(self._queues.values())))


def _fail(operations: Iterable[Waiting[Any, Any]], error: Exception) -> None:
    for one in operations:
        one.fail(error)


def _stopping() -> errors.TenureError:
    return errors.Unavailable("the server is stopping; retry")
