"""What tenants may use and do use, and the contract of what stores and counts it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from tenure_server.domain import TenantId

SOFT_PERCENT: Final = 80
BURST: Final = 1.0


@dataclass(frozen=True, slots=True)
class Quota:
    """Limits of a tenant, None = no limit; names and units are those of the protocol's Quota."""

    max_stored_bytes: int | None = None
    max_threads: int | None = None
    max_items: int | None = None
    max_checkpoints_per_thread: int | None = None
    max_value_bytes: int | None = None
    soft_percent: int = SOFT_PERCENT
    operations_per_second: float | None = None
    bytes_per_second: float | None = None
    burst_seconds: float = BURST
    max_concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tenant uses."""

    stored_bytes: int = 0
    threads: int = 0
    items: int = 0


class UsageKind(Enum):
    """By what usage is broken down."""

    THREAD = "thread"
    THREAD_PREFIX = "thread-prefix"
    NAMESPACE = "namespace"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class UsageRow:
    """A part of the usage.

    Attributes:
        name: Id of the thread, prefix of threads or day in ISO 8601; "" for namespaces.
        namespace: Labels of the namespace, which stands for all below it.
        grown_bytes: How much more it is than on the day before, None if that is not known.
    """

    name: str = ""
    namespace: tuple[str, ...] = ()
    stored_bytes: int = 0
    threads: int = 0
    checkpoints: int = 0
    items: int = 0
    grown_bytes: int | None = None


class Quotas(Protocol):
    """Stores what tenants may use.

    All methods raise `TenantNotFound` if there is no such tenant, and `Unavailable` while the database is
    away.
    """

    async def get_quota(self, tenant: TenantId) -> Quota:
        """Return the limits."""
        ...

    async def set_quota(self, tenant: TenantId, quota: Quota, fields: Collection[str]) -> Quota:
        """Set these fields as `quota` has them, and return all; a tenant that is being deleted is absent."""
        ...

    async def get_usage(self, tenant: TenantId) -> Usage:
        """Return what is used."""
        ...

    async def list_days(self, tenant: TenantId, limit: int) -> Sequence[UsageRow]:
        """Return the last so many days on which the usage was noted, today last."""
        ...


class UsageParts(Protocol):
    """Finds by what a tenant's usage is made up; reads sizes and ids alone.

    Both methods return the largest parts, the largest first, and all others together. They raise
    `DeadlineExceeded` if it takes too long.
    """

    async def threads(
        self, tenant: TenantId, prefix: str, limit: int, *, grouped: bool
    ) -> tuple[Sequence[UsageRow], UsageRow]:
        """Break down threads whose id begins with a prefix.

        Args:
            tenant: Whose.
            prefix: Beginning of the ids.
            limit: Parts at most.
            grouped: Whether threads that go on alike up to the next separator are one part.
        """
        ...

    async def namespaces(
        self, tenant: TenantId, below: tuple[str, ...], limit: int
    ) -> tuple[Sequence[UsageRow], UsageRow]:
        """Break down items in or below a namespace by its next label."""
        ...
