"""How long what agents store is kept: policies, pins, legal holds, and the contract of what stores them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from tenure_server.domain import TenantId


@dataclass(frozen=True, slots=True)
class Threads:
    """Threads whose ids begin with `prefix`, bytewise; "" = all."""

    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Items:
    """Items of a namespace and of those below it; () = all."""

    namespace: tuple[str, ...] = ()


Scope = Threads | Items


@dataclass(frozen=True, slots=True)
class Policy:
    """When what is in a scope expires; None = a rule that is not given. See retention.proto.

    Attributes:
        scope: Of what.
        max_age: Seconds since a checkpoint was stored.
        max_idle: Seconds since anything was stored in a thread.
        keep_last: Checkpoints of each namespace that stay.
        item_ttl: Seconds since an item was put.
        max_bytes: Stored bytes of all that the policy is for.
        floor: Checkpoints of each namespace that stay in any case.
        updated_at: When it was set, None = it is not.
    """

    scope: Scope = field(default_factory=Threads)
    max_age: float | None = None
    max_idle: float | None = None
    keep_last: int | None = None
    item_ttl: float | None = None
    max_bytes: int | None = None
    floor: int = 0
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """A legal hold; of the whole tenant if `scope` is None."""

    scope: Scope | None
    reason: str = ""
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Pin:
    """Keeps a checkpoint, or the thread as a whole if `checkpoint_id` is ""."""

    thread_id: str
    checkpoint_ns: str = ""
    checkpoint_id: str = ""
    reason: str = ""
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Expired:
    """What has expired, as far as it was looked at.

    Attributes:
        seen: Threads and items that were looked at.
        total: Threads and items that there were at the beginning.
        threads: Threads that go as a whole.
        checkpoints: Checkpoints that go, those of these threads included.
        items: Items that go.
        bytes: By how much the tenant's stored bytes shrink.
        done: Whether all was looked at.
    """

    seen: int = 0
    total: int = 0
    threads: int = 0
    checkpoints: int = 0
    items: int = 0
    bytes: int = 0
    done: bool = False


class Retention(Protocol):
    """Stores policies, pins and holds; tells what has expired.

    All methods raise `TenantNotFound` if there is no such tenant or it is being deleted, and `Unavailable`
    while the database is away.
    """

    async def set_policy(self, tenant: TenantId, policy: Policy) -> Policy:
        """Make a policy, or replace the one of the same scope.

        Raises:
            LimitExceeded: The tenant has too many.
        """
        ...

    async def list_policies(self, tenant: TenantId) -> tuple[Sequence[Policy], Sequence[Hold]]:
        """Return all policies and holds."""
        ...

    async def delete_policy(self, tenant: TenantId, scope: Scope) -> None:
        """Take a policy back.

        Raises:
            InvalidField: There is none of this scope.
        """
        ...

    def preview(self, tenant: TenantId, proposed: Policy | None) -> AsyncGenerator[Expired, None]:
        """Tell what has expired, or would have with another policy; the last one is of all."""
        ...

    async def pin(self, tenant: TenantId, pin: Pin) -> Pin:
        """Keep a thread or a checkpoint.

        Raises:
            ThreadNotFound: There is no such thread, or it has expired.
            InvalidField: It has no such checkpoint, or that has expired.
            LimitExceeded: The tenant has too many pins.
        """
        ...

    async def unpin(self, tenant: TenantId, pin: Pin) -> None:
        """Take a pin back.

        Raises:
            InvalidField: There is no such pin.
        """
        ...

    async def list_pins(
        self, tenant: TenantId, limit: int, after: tuple[str, str, str] | None
    ) -> Sequence[Pin]:
        """Return the next pins by thread, namespace and checkpoint after these."""
        ...

    async def hold(self, tenant: TenantId, hold: Hold) -> Hold:
        """Put a legal hold on a scope.

        Raises:
            LimitExceeded: The tenant has too many.
        """
        ...

    async def release(self, tenant: TenantId, scope: Scope | None) -> None:
        """Take a hold back.

        Raises:
            InvalidField: There is none of this scope.
        """
        ...
