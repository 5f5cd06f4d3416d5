"""Writers that keep books: what was tried, what was acknowledged, which errors they saw."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple
from tenure_client import OutcomeUnknown, TenureError, TenureSaver, ThreadExists

from tests.harness.processes import PATIENCE
from tests.integration.checkpoints_support import checkpoint, config_of, id_of

PER_THREAD = 20
"""Checkpoints of one thread, which is then copied and left alone."""
Ids = defaultdict[str, set[str]]
"""Checkpoint ids by thread."""


class _Stopped(Exception):
    """The writer was told to stop before an operation was acknowledged."""


@dataclass
class Books:
    """What writers together know.

    Attributes:
        tried: Checkpoints that were sent.
        put: Those that were acknowledged.
        written: Those whose pending writes were acknowledged.
        copies: Threads that were to be copied, by the name of the copy.
        copied: Names of the copies that were acknowledged.
        errors: Errors that were seen, by the name of their class.
        acknowledged: Operations that were.
    """

    tried: Ids = field(default_factory=lambda: defaultdict(set))
    put: Ids = field(default_factory=lambda: defaultdict(set))
    written: Ids = field(default_factory=lambda: defaultdict(set))
    copies: dict[str, str] = field(default_factory=dict)
    copied: set[str] = field(default_factory=set)
    errors: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def note(self, acknowledged: set[str], name: str) -> None:
        """Book an acknowledged operation."""
        with self.changed:
            acknowledged.add(name)
            self.acknowledged += 1
            self.changed.notify_all()

    def error(self, error: TenureError) -> None:
        """Book an error."""
        with self.changed:
            self.errors[type(error).__name__] += 1
            self.changed.notify_all()

    def wait_for_more(self, number: int) -> None:
        """Wait until so many operations more were acknowledged."""
        with self.changed:
            wanted = self.acknowledged + number
            enough = self.changed.wait_for(lambda: self.acknowledged >= wanted, PATIENCE)
            assert enough, f"{self.acknowledged} acknowledged instead of {wanted}; errors: {self.errors}"

    def wait_for_more_errors(self, number: int) -> None:
        """Wait until so many errors more were seen."""
        with self.changed:
            wanted = self.errors.total() + number
            enough = self.changed.wait_for(lambda: self.errors.total() >= wanted, PATIENCE)
            assert enough, f"errors: {self.errors}"


class Writer:
    """Puts checkpoints and pending writes until it is stopped.

    Repeats what failed until it is acknowledged; one that abandons leaves an unknown outcome at that.
    """

    def __init__(self, name: str, saver: TenureSaver, books: Books, *, abandons: bool) -> None:
        self.stop = threading.Event()
        self._name = name
        self._saver = saver
        self._books = books
        self._abandons = abandons

    def run(self) -> None:
        number = 0
        try:
            while True:
                thread_id = f"{self._name}-{number // PER_THREAD}"
                number += 1
                self._step(thread_id, number)
                if number % PER_THREAD == 0:
                    self._copy(thread_id)
        except _Stopped:
            pass

    def _step(self, thread_id: str, number: int) -> None:
        books, checkpoint_id = self._books, id_of(number)
        made = checkpoint(number, value(thread_id, number))
        parent = config_of(thread_id, None if _is_first(number) else id_of(number - 1))
        writes = [("state", number), ("other", thread_id)]
        books.tried[thread_id].add(checkpoint_id)
        if self._done(lambda: self.put(parent, made, {"step": number}, made["channel_versions"])):
            books.note(books.put[thread_id], checkpoint_id)
        if self._done(lambda: self.put_writes(config_of(thread_id, checkpoint_id), writes, "task")):
            books.note(books.written[thread_id], checkpoint_id)

    def _copy(self, thread_id: str) -> None:
        target = f"{thread_id}-copy"
        attempts = 0

        def copy() -> None:
            nonlocal attempts
            attempts += 1
            try:
                self.copy_thread(thread_id, target)
            except ThreadExists:
                # Fine only when asked again, under another operation id, after an unknown outcome.
                assert attempts > 1, "one operation was done twice"

        self._books.copies[target] = thread_id
        if self._done(copy):
            self._books.note(self._books.copied, target)

    def _done(self, operation: Callable[[], object]) -> bool:
        while not self.stop.is_set():
            try:
                operation()
            except TenureError as error:
                self._books.error(error)
                if self._abandons and isinstance(error, OutcomeUnknown):
                    return False
            else:
                return True
        raise _Stopped

    def put(self, *arguments: Any) -> None:
        self._saver.put(*arguments)

    def put_writes(self, *arguments: Any) -> None:
        self._saver.put_writes(*arguments)

    def copy_thread(self, source: str, target: str) -> None:
        self._saver.copy_thread(source, target)


class AsyncWriter(Writer):
    """A writer of the other colour, on an event loop of its own."""

    def run(self) -> None:
        with asyncio.Runner() as self._runner:
            super().run()
            self._await(self._saver.aclose())

    def put(self, *arguments: Any) -> None:
        self._await(self._saver.aput(*arguments))

    def put_writes(self, *arguments: Any) -> None:
        self._await(self._saver.aput_writes(*arguments))

    def copy_thread(self, source: str, target: str) -> None:
        self._await(self._saver.acopy_thread(source, target))

    def _await(self, work: Coroutine[Any, Any, Any]) -> None:
        self._runner.run(work)


@contextmanager
def writing(savers: Sequence[TenureSaver]) -> Iterator[Books]:
    """Let three writers of both colours write through each saver while the block runs; then wait for them."""
    books = Books()
    failures: list[BaseException] = []

    def guarded(writer: Writer) -> None:
        try:
            writer.run()
        except BaseException as error:
            failures.append(error)

    with ExitStack() as stack:
        writers = [
            kind(f"w{number}-{index}", saver, books, abandons=index == 1)
            for number, saver in enumerate(savers)
            for index, kind in enumerate([Writer, Writer, AsyncWriter])
        ]
        for writer in writers:
            thread = threading.Thread(target=guarded, args=(writer,))
            thread.start()
            stack.callback(thread.join)
        for writer in writers:
            stack.callback(writer.stop.set)
        yield books
    assert not failures, failures


def value(thread_id: str, number: int) -> list[Any]:
    """Return what a writer puts; some are above the size that comes with the head."""
    return [thread_id, number, "x" * (6000 if number % 5 == 0 else 50)]


def assert_nothing_lost_or_doubled(saver: TenureSaver, books: Books) -> None:
    """Compare all that is stored with the books.

    What was acknowledged is there, once, whole and unchanged; what is not known is there whole or not at all;
    and there is nothing else.
    """
    found: defaultdict[str, dict[str, CheckpointTuple]] = defaultdict(dict)
    for item in saver.list(None):
        named = item.config["configurable"]
        assert named["checkpoint_id"] not in found[named["thread_id"]], f"{named} is there twice"
        found[named["thread_id"]][named["checkpoint_id"]] = item
    assert found.keys() <= books.tried.keys() | books.copies.keys(), "nobody has put these"
    for thread_id, tried in books.tried.items():
        assert books.put[thread_id] <= found[thread_id].keys() <= tried, thread_id
        for item in found[thread_id].values():
            assert_whole(item, thread_id, books)
    for target, source in books.copies.items():
        if target in books.copied or found[target]:
            assert books.put[source] <= found[target].keys() <= books.tried[source], target
        for item in found[target].values():
            assert_whole(item, source, books)


def assert_whole(item: CheckpointTuple, source: str, books: Books) -> None:
    """Compare a checkpoint with what was put under its number."""
    checkpoint_id = item.config["configurable"]["checkpoint_id"]
    number = int(checkpoint_id)
    assert item.checkpoint["channel_values"] == {"state": value(source, number)}
    assert item.metadata == {"step": number}
    assert (item.parent_config is None) == _is_first(number)
    writes = [("task", "state", number), ("task", "other", source)]
    if checkpoint_id in books.written[source]:
        assert item.pending_writes == writes
    else:
        assert item.pending_writes in ([], writes), "a call with two writes did one of them"


def _is_first(number: int) -> bool:
    return number % PER_THREAD == 1
