"""Who calls and what is counted of it: set by the gate, used by servicers, which pass the tenant on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Protocol

from google.protobuf.message import Message
from google.rpc import status_pb2

from tenure_server.domain import Principal
from tenure_server.rates import Amount
from tenure_server.rules import UNLIMITED, Rules

principal: ContextVar[Principal] = ContextVar("principal")
"""The caller of the RPC that the current task serves."""


def rules() -> Rules:
    """Return to what the caller is limited."""
    return principal.get().rules or UNLIMITED


spending: ContextVar[Callable[[Amount], None] | None] = ContextVar("spending", default=None)
"""What counts the cost of the RPC that the current task serves; None = its tenant has no rates."""


def charge_operations(count: int) -> None:
    """Count operations that the gate could not see in the request."""
    spend = spending.get()
    if spend is not None:
        spend(Amount(operations=count))


def charge_message(message: Message) -> None:
    """Count the bytes of a message that is received or sent."""
    spend = spending.get()
    if spend is not None:
        spend(Amount(bytes=message.ByteSize()))


class Guard(Protocol):
    """Lets a batch of a session through the gate, as if it had come in a call of its own."""

    async def __call__(
        self, method: str, request: Message, serve: Callable[[], Awaitable[None]], /
    ) -> status_pb2.Status | None:
        """Run `serve` with `principal` set; return why the batch is refused or failed, None if neither.

        `method` is the RPC for which the batch stands, such as "CheckpointService/Write".
        """
        ...


guard: ContextVar[Guard] = ContextVar("guard")
"""The gate, for sessions."""
