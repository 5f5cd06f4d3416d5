"""How fast a tenant may go: its rates, and the contract of the buckets that all replicas share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol
from uuid import UUID


class Amount(NamedTuple):
    """So many operations and bytes."""

    operations: float = 0.0
    bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class Rates:
    """What a tenant may ask for, over all its keys.

    Attributes:
        operations: Operations a second over all replicas, None = no limit.
        bytes: Bytes of requests and replies a second over all replicas, None = no limit.
        burst: Seconds of these rates that may be saved up.
        concurrency: Calls at once on each replica, None = no limit.
    """

    operations: float | None = None
    bytes: float | None = None
    burst: float = 1.0
    concurrency: int | None = None

    def a_second(self) -> Amount:
        """Return both rates; 0 stands for no limit."""
        return Amount(self.operations or 0.0, self.bytes or 0.0)


class SharedBuckets(Protocol):
    """One bucket for each tenant with rates, which fills at these rates up to the burst."""

    async def take(
        self, tenant: UUID, rates: Rates, owed: Amount, wanted: Amount
    ) -> tuple[Amount, Amount] | None:
        """Take out of a tenant's bucket.

        Args:
            tenant: Whose.
            rates: How it fills.
            owed: What is taken in any case; the bucket may owe it itself then.
            wanted: What is taken beyond that, as far as it is there.

        Returns:
            What was taken of `wanted`, and what is left, which is negative for what is owed. None if nobody
            answers; it may have been taken all the same.
        """
        ...

    async def replicas(self) -> int | None:
        """Say that this replica lives, and return how many do; None if that cannot be known."""
        ...
