"""A lane whose batches a test answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from google.rpc import status_pb2
from tenure.v1 import checkpoints_pb2 as pb
from tenure_client.calls import Call
from tenure_client.company import Company
from tenure_client.flights import Ticket
from tenure_client.lanes import Lane


class Batch:
    """A batch that was sent, to be answered when the test wants.

    Attributes:
        cancelled: How often the server was told that nobody waits for it.
    """

    def __init__(self, request: pb.SessionRequest, answer: Callable[[Any], None]) -> None:
        self.request = request
        self.answer = answer
        self.cancelled = 0

    @property
    def names(self) -> list[str]:
        mutations = self.request.write.mutations
        named: Any = [one.put if one.HasField("put") else one.put_writes for one in mutations]
        return [one.ref.thread_id for one in named or self.request.read.reads]

    def cancel(self) -> None:
        self.cancelled += 1

    def results(self, *codes: int) -> pb.SessionResponse:
        """Return an answer with these statuses, OK for all by default."""
        given = codes or (0,) * len(self.names)
        results = [pb.MutationResult(status=status_pb2.Status(code=code)) for code in given]
        return pb.SessionResponse(write=pb.WriteResponse(results=results))


class Sent:
    """A lane, what it has sent, and what became of operations.

    Args:
        company: That of the lane.

    Attributes:
        failure: What sending raises.
        on_batch: Is called after each batch.
        outcomes: What each operation was told, by its name.
        tickets: The last one of each name.
        led: Whose threads were told to flush for all.
    """

    def __init__(self, company: Company | None = None) -> None:
        self.lane = Lane(self._send, company)
        self.batches: list[Batch] = []
        self.failure: BaseException | None = None
        self.on_batch: Callable[[], None] = lambda: None
        self.outcomes: dict[str, list[Any]] = {}
        self.tickets: dict[str, Ticket] = {}
        self.led: list[str] = []

    def _send(self, request: pb.SessionRequest, on_answer: Callable[[Any], None]) -> Callable[[], None]:
        if self.failure is not None:
            raise self.failure
        batch = Batch(request, on_answer)
        self.batches.append(batch)
        self.on_batch()
        return batch.cancel

    def ticket(self, name: str, *, size: int = 0, seconds: float = 60) -> Ticket:
        """Put a put of a thread of this name into the lane."""
        ref = pb.CheckpointRef(thread_id=name)
        return self._add(name, pb.Mutation(put=pb.PutCheckpoint(ref=ref, metadata_json="x" * size)), seconds)

    def pending(self, name: str) -> Ticket:
        """Put pending writes of a thread of this name into the lane."""
        return self._add(name, pb.Mutation(put_writes=pb.PutWrites(ref=pb.CheckpointRef(thread_id=name))), 60)

    def read(self, name: str) -> Ticket:
        """Put a read of a thread of this name into the lane."""
        return self._add(name, pb.CheckpointRead(ref=pb.CheckpointRef(thread_id=name)), 60)

    def _add(self, name: str, request: pb.Mutation | pb.CheckpointRead, seconds: float) -> Ticket:
        told = self.outcomes.setdefault(name, [])
        writes = isinstance(request, pb.Mutation)
        call = Call("Write" if writes else "Read", request, request.operation, mutates=writes)
        deadline = time.monotonic() + seconds
        ticket = Ticket(call, deadline, told.append, lambda: self.led.append(name))
        self.tickets[name] = ticket
        self.lane.add(ticket)
        return ticket

    def submit(self, *names: str, size: int = 0) -> list[Ticket]:
        """Submit puts one after the other."""
        tickets = []
        for name in names:
            tickets.append(self.ticket(name, size=size))
            self.lane.flush()
        return tickets

    @property
    def names(self) -> list[list[str]]:
        """The batches, each as the names of its operations."""
        return [batch.names for batch in self.batches]

    def outcome(self, name: str) -> Any:
        """Return what an operation was told, which must be one thing."""
        (outcome,) = self.outcomes[name]
        return outcome
