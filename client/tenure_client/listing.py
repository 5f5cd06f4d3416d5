"""A listing that outlives its stream; no I/O.

The order is checkpoint id descending, then thread and namespace. When a stream is lost, the next one
asks for the ids below the last id but one, and what was handed out already is left out, so that the
listing neither repeats nor skips a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from tenure.v1 import checkpoints_pb2 as pb

from tenure_client import slices
from tenure_client.calls import Call, new_operation_id
from tenure_client.chunks import BadEdit
from tenure_client.errors import DeadlineExceeded, TenureError, UnreadableValue
from tenure_client.payloads import Payload, received
from tenure_client.retry import Budget, Observer, stamp

T = TypeVar("T")
Values = Mapping[str, Payload]
"""Channel values by channel."""


class Listing(Generic[T]):
    """What was asked for, how far it has come, and how it goes on after a failure.

    Args:
        request: What to list; its limit counts what is handed out.
        decode: Makes an item of a checkpoint and its channel values.

    Attributes:
        done: Whether all has been handed out.
        failure: Why the current stream ended early, None if it did not.
    """

    def __init__(self, request: pb.ListRequest, decode: Callable[[pb.Checkpoint, Values], T]) -> None:
        self._request = request
        self._request.operation.operation_id = new_operation_id()
        self._request.accepts_edits = True
        self._decode = decode
        self._left: int | None = request.limit if request.HasField("limit") else None
        self._floor = request.before_checkpoint_id
        self._last_id = ""
        self._seen_at_last_id: set[tuple[str, str]] = set()
        self.failure: TenureError | None = None
        self._start_stream()
        self.done = self._left == 0

    def begin(self, budget: Budget, observer: Observer) -> tuple[float, pb.ListRequest]:
        """Return the seconds the next stream may take and its request."""
        self._start_stream()
        request = pb.ListRequest()
        request.CopyFrom(self._request)
        request.before_checkpoint_id = self._floor
        if self._last_id:
            # Checkpoints already handed out would count against it; the limit is kept here.
            request.ClearField("limit")
        timeout = budget.begin_attempt()
        stamp(Call("List", request, request.operation), timeout, observer)
        return timeout, request

    def items(self, part: pb.ListResponse) -> Iterator[T]:
        """Yield what a part of the stream adds."""
        page = part.page if part.HasField("page") else self._assembler.add(part.slice)
        for checkpoint in page.checkpoints if page is not None else ():
            values = self._values(checkpoint)
            if self.done or not self._is_new(checkpoint.ref):
                continue
            item = self._decode(checkpoint, values)
            self._progress = True
            if self._left is not None:
                self._left -= 1
                self.done = self._left == 0
            yield item

    def finish(self) -> None:
        """Take note that the stream has ended well."""
        self.done = True

    def failed(self, error: TenureError) -> None:
        """Take note that the stream has failed."""
        if not self.done:
            self.failure = error

    def recover(self, budget: Budget, timeout: float) -> tuple[Budget, float]:
        """Return the budget of the next stream and the seconds to wait before it.

        Raises:
            TenureError: Why the listing cannot go on.
        """
        assert self.failure is not None
        if self._progress:
            # The time bounds the wait for the next checkpoint, however slowly the caller takes them.
            budget = Budget(timeout)
            if isinstance(self.failure, DeadlineExceeded):
                return budget, 0
            budget.attempts = 1
        pause = budget.pause_after(self.failure)
        if pause is None:
            raise self.failure
        return budget, pause

    def _start_stream(self) -> None:
        self.failure = None
        self._assembler = slices.Assembler(pb.CheckpointPage)
        self._place = ("", "")
        self._previous: dict[str, tuple[str, Payload]] = {}
        self._progress = False

    def _values(self, checkpoint: pb.Checkpoint) -> Values:
        """Return the channel values; the checkpoint just before has those left out and the bases of edits."""
        place = (checkpoint.ref.thread_id, checkpoint.ref.checkpoint_ns)
        previous = self._previous if place == self._place else {}
        current: dict[str, tuple[str, Payload]] = {}
        for value in checkpoint.channel_values:
            version, before = previous.get(value.channel, ("", None))
            try:
                payload = received(value, before)
            except BadEdit as error:
                raise UnreadableValue(f"the server sent a value that cannot be right: {error}") from None
            if payload is None and version == value.version:
                payload = before
            if payload is None:
                raise UnreadableValue("the server left out a value that it has not sent before")
            current[value.channel] = (value.version, payload)
        self._place, self._previous = place, current
        return {channel: payload for channel, (_, payload) in current.items()}

    def _is_new(self, ref: pb.CheckpointRef) -> bool:
        name = (ref.thread_id, ref.checkpoint_ns)
        if self._last_id and ref.checkpoint_id > self._last_id:
            return False
        if ref.checkpoint_id == self._last_id:
            new = name not in self._seen_at_last_id
            self._seen_at_last_id.add(name)
            return new
        self._floor = self._last_id or self._floor
        self._last_id = ref.checkpoint_id
        self._seen_at_last_id = {name}
        return True
