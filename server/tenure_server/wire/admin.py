"""Between messages of AdminService and domain values: every field is checked here, every refusal names it."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from tenure.v1 import admin_pb2 as pb

from tenure_server import errors
from tenure_server.administration import Key, Tenant
from tenure_server.domain import OPERATORS, TENANT_SCOPES, Role, Scope, TenantId
from tenure_server.rules import Rules, parse
from tenure_server.wire import fields
from tenure_server.wire.times import timestamp

MAX_OVERLAP: Final = 30 * 86_400.0
DEFAULT_OVERLAP: Final = 86_400.0
MAX_LIFETIME: Final = 100 * 366 * 86_400.0
_MAX_NAME_BYTES = 200
_PAGE, _MAX_PAGE = 100, 1000

_SCOPES: Final = {
    pb.SCOPE_READ: Scope.READ,
    pb.SCOPE_WRITE: Scope.WRITE,
    pb.SCOPE_ADMIN: Scope.ADMIN,
    pb.SCOPE_OPERATOR: Scope.OPERATOR,
}
_NUMBERS: Final = {scope: number for number, scope in _SCOPES.items()}


def tenant_id(text: str) -> TenantId:
    """Return the id of a tenant; never that which stands for operators."""
    try:
        tenant = TenantId(UUID(text))
    except ValueError:
        raise errors.InvalidField("tenant_id", "is not the id of a tenant, which is a UUID") from None
    if tenant == OPERATORS:
        raise errors.TenantNotFound
    return tenant


def name(text: str, *, empty: bool = False) -> str:
    """Return a name that can be shown: control characters would write into an administrator's terminal."""
    fields.text("name", text, _MAX_NAME_BYTES, empty=empty)
    if not text.isprintable():
        raise errors.InvalidField("name", "must not contain control characters")
    return text


def key_id(text: str) -> str:
    """Return a key's id."""
    return fields.text("key_id", text, 64)


def seconds(field: str, value: float, maximum: float, *, zero: bool = True) -> float:
    """Return a duration of at most `maximum` seconds."""
    if not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
        raise errors.InvalidField(field, f"must be a number of seconds {'from' if zero else 'above'} 0")
    if value > maximum:
        raise errors.LimitExceeded(field, "seconds", int(value), int(maximum))
    return value


def scopes(tenant: TenantId, numbers: Sequence[pb.Scope]) -> frozenset[Scope]:
    """Return what a key of a tenant, or of operators, is to be allowed."""
    found = frozenset(_SCOPES[number] for number in numbers if number in _SCOPES)
    if not numbers or len(found) != len(set(numbers)):
        raise errors.InvalidField("scopes", "must be some of read, write, admin and operator")
    if tenant == OPERATORS and found != Role.OPERATOR.scopes:
        raise errors.InvalidField("scopes", "without a tenant must be operator alone; give a tenant_id")
    if tenant != OPERATORS and not found <= TENANT_SCOPES:
        raise errors.InvalidField("scopes", "operator is for keys that belong to no tenant")
    return found


def rules(tenant: TenantId, texts: Sequence[str]) -> Rules | None:
    """Return to what a key is to be limited."""
    if tenant == OPERATORS and texts:
        raise errors.InvalidField("rules", "must be empty for an operator's key")
    try:
        return parse(list(texts))
    except ValueError as error:
        raise errors.InvalidField("rules", str(error)) from None


def page_size(value: int) -> int:
    """Return how many a page may have."""
    if value > _MAX_PAGE:
        raise errors.LimitExceeded("page_size", "entries", value, _MAX_PAGE)
    return value or _PAGE


def tenants_after(token: str) -> tuple[str, TenantId] | None:
    """Return after which tenant a page begins."""
    if not token:
        return None
    try:
        after, last = _parts(token)
        return after, TenantId(UUID(last))
    except ValueError:
        raise _bad_token() from None


def keys_after(token: str) -> tuple[datetime, str] | None:
    """Return after which key a page begins."""
    if not token:
        return None
    try:
        created, last = _parts(token)
        after = datetime.fromisoformat(created)
    except ValueError:
        raise _bad_token() from None
    if after.tzinfo is None or "\0" in last:
        raise _bad_token()
    return after, last


def token_after_tenant(last: Tenant) -> str:
    """Return the token of the page after a tenant."""
    return _token(last.name, str(last.tenant_id))


def token_after_key(last: Key) -> str:
    """Return the token of the page after a key."""
    return _token(last.created_at.isoformat(), last.key_id)


def tenant_message(tenant: Tenant) -> pb.Tenant:
    """Return a tenant as its message."""
    state = pb.TENANT_STATE_ACTIVE
    if tenant.deleted_at is not None:
        state = pb.TENANT_STATE_DELETING
    elif tenant.suspended_at is not None:
        state = pb.TENANT_STATE_SUSPENDED
    return pb.Tenant(
        tenant_id=str(tenant.tenant_id),
        name=tenant.name,
        state=state,
        created_at=timestamp(tenant.created_at),
        suspended_at=timestamp(tenant.suspended_at),
    )


def key_message(key: Key) -> pb.Key:
    """Return a key as its message."""
    state = pb.KEY_STATE_ACTIVE
    if key.revoked_at is not None:
        state = pb.KEY_STATE_REVOKED
    elif key.expired:
        state = pb.KEY_STATE_EXPIRED
    return pb.Key(
        key_id=key.key_id,
        tenant_id="" if key.tenant == OPERATORS else str(key.tenant),
        name=key.name,
        scopes=scope_numbers(key.scopes),
        rules=key.rules,
        state=state,
        created_at=timestamp(key.created_at),
        expires_at=timestamp(key.expires_at),
        revoked_at=timestamp(key.revoked_at),
        last_used_at=timestamp(key.last_used_at),
        replaced_by=key.replaced_by,
    )


def scope_numbers(found: Iterable[Scope]) -> list[pb.Scope]:
    """Return scopes as the protocol tells them, in its order."""
    return sorted(_NUMBERS[scope] for scope in found)


def _token(*parts: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def _parts(token: str) -> tuple[str, str]:
    """Raises ValueError if it is no token of ours."""
    parts = json.loads(base64.urlsafe_b64decode(token.encode()))
    if not (isinstance(parts, list) and [type(part) for part in parts] == [str, str]):
        raise ValueError
    return parts[0], parts[1]


def _bad_token() -> errors.InvalidField:
    return errors.InvalidField("page_token", "is not the next_page_token of a page before")
