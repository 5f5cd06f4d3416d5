"""Tenants and keys as those who administer them see them, and the contract of what stores them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from tenure_server.domain import Scope, StoredKey, TenantId
from tenure_server.rules import Rules


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant.

    Attributes:
        suspended_at: Since when its keys do not work, None = they do.
        deleted_at: Since when what it has is being freed, None = it is not.
    """

    tenant_id: TenantId
    name: str
    created_at: datetime
    suspended_at: datetime | None = None
    deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """What may be known of a key: everything but its secret.

    Attributes:
        tenant: Whose it is, OPERATORS for an operator's.
        rules: Texts of its rules as they are stored, also of those that this server does not understand.
        replaced_by: The id of the key that a rotation put in its place, "" = none.
        expired: Whether its time is over, by the database's clock.
    """

    tenant: TenantId
    key_id: str
    name: str
    scopes: frozenset[Scope]
    rules: Sequence[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    replaced_by: str
    expired: bool


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made, with its text, which nobody can ask for again; its repr hides it."""

    key: Key
    text: str

    def __repr__(self) -> str:
        return f"NewKey(key={self.key!r}, text='***')"


class Administration(Protocol):
    """Stores tenants and keys. Whether the caller may do what it asks for is not looked at here.

    All methods but those of `KeyStore` raise `TenantNotFound` if there is no such tenant, those that take a
    key's id `KeyNotFound` if the tenant has no such key, and all `Unavailable` while the database is away.
    """

    async def find_key(self, tenant: TenantId, key_id: str) -> StoredKey | None:
        """See `ports.KeyStore`; finds keys of operators, too."""
        ...

    async def mark_used(self, tenant: TenantId, key_id: str) -> None:
        """See `ports.KeyStore`."""
        ...

    async def create_tenant(self, name: str) -> Tenant:
        """Make a tenant."""
        ...

    async def get_tenant(self, tenant: TenantId) -> Tenant:
        """Return a tenant, also one that is being deleted."""
        ...

    async def list_tenants(self, limit: int, after: tuple[str, TenantId] | None) -> Sequence[Tenant]:
        """Return the next tenants by name and id after these; OPERATORS is not one."""
        ...

    async def suspend_tenant(self, tenant: TenantId) -> Tenant:
        """Stop its keys; one that is being deleted counts as absent, here and in the next method."""
        ...

    async def resume_tenant(self, tenant: TenantId) -> Tenant:
        """Let its keys work again."""
        ...

    async def delete_tenant(self, tenant: TenantId, name: str) -> Tenant:
        """Stop its keys for good, and let the sweeper free all it has; again does the same.

        Raises:
            InvalidField: The tenant has another name.
        """
        ...

    async def create_key(
        self,
        tenant: TenantId,
        scopes: frozenset[Scope],
        *,
        name: str = "",
        rules: Rules | None = None,
        expires_in: float | None = None,
    ) -> NewKey:
        """Make a key of a tenant that is not being deleted, or of OPERATORS.

        Args:
            tenant: Whose key it is.
            scopes: What it may do.
            name: What it is for.
            rules: To what it is limited, None = it is not.
            expires_in: Seconds that it lives, None = for ever.
        """
        ...

    async def get_key(self, tenant: TenantId, key_id: str) -> Key:
        """Return a key."""
        ...

    async def list_keys(
        self, tenant: TenantId, limit: int, after: tuple[datetime, str] | None
    ) -> Sequence[Key]:
        """Return the next keys by age and id after these."""
        ...

    async def rotate_key(self, tenant: TenantId, key_id: str, overlap: float) -> tuple[NewKey, Key]:
        """Make a key like another one, which ends after `overlap` seconds; return both.

        Raises:
            InvalidField: The key does not work any more, or was rotated before.
        """
        ...

    async def expire_key(self, tenant: TenantId, key_id: str, expires_in: float) -> Key:
        """Let a key end in so many seconds, if it does not end sooner."""
        ...

    async def revoke_key(self, tenant: TenantId, key_id: str) -> Key:
        """End a key; takes effect on every replica within 5 seconds."""
        ...
