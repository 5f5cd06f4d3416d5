"""Which threads of a tenant have one writer at a time, and the contract of what stores that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from tenure_server.domain import TenantId


@dataclass(frozen=True, slots=True)
class WriterPolicy:
    """Threads whose ids begin with `thread_prefix`, bytewise, have one writer at a time."""

    thread_prefix: str
    created_at: datetime


class WriterPolicies(Protocol):
    """Stores policies. All methods raise `TenantNotFound`, and `Unavailable` while the database is away."""

    async def create(self, tenant: TenantId, thread_prefix: str) -> tuple[WriterPolicy, int]:
        """Make a policy, if it is not there, and return how many threads it changed.

        Raises:
            LimitExceeded: The tenant has too many.
        """
        ...

    async def list_policies(self, tenant: TenantId) -> Sequence[WriterPolicy]:
        """Return the tenant's policies by their prefixes."""
        ...

    async def delete(self, tenant: TenantId, thread_prefix: str) -> int:
        """Take a policy back, and return how many threads that changed.

        Raises:
            InvalidField: There is no such policy.
        """
        ...
