"""Authentication and authorization: from the `authorization` header to a principal with a scope."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from tenure_server import errors
from tenure_server.domain import Principal, Scope, StoredKey
from tenure_server.key_uses import KeyUses
from tenure_server.keys import ApiKey
from tenure_server.storage.ports import KeyStore

_SERVICE = "/tenure.v1.CheckpointService/"
_STORE = "/tenure.v1.StoreService/"
_CACHE = "/tenure.v1.CacheService/"
_ADMIN = "/tenure.v1.AdminService/"
_QUOTA = "/tenure.v1.QuotaService/"
_WRITERS = "/tenure.v1.WriterService/"
_RETENTION = "/tenure.v1.RetentionService/"
ANY: Final[frozenset[Scope]] = frozenset()
_READ, _WRITE = frozenset({Scope.READ}), frozenset({Scope.WRITE})
_EITHER = _READ | _WRITE
_OPERATOR = frozenset({Scope.OPERATOR})
_ADMINS = frozenset({Scope.ADMIN, Scope.OPERATOR})

RULES: Final[dict[str, frozenset[Scope]]] = {
    _SERVICE + "Write": _WRITE,
    _SERVICE + "WriteSliced": _WRITE,
    _SERVICE + "Read": _READ,
    _SERVICE + "ReadSliced": _READ,
    _SERVICE + "Session": ANY,
    _SERVICE + "List": _READ,
    _SERVICE + "GetChannelHistory": _READ,
    _SERVICE + "ListThreads": _READ,
    _SERVICE + "DeleteThread": _WRITE,
    _SERVICE + "DeleteForRuns": _WRITE,
    _SERVICE + "CopyThread": _WRITE,
    _SERVICE + "PruneThreads": _WRITE,
    _SERVICE + "AcquireLease": _WRITE,
    _SERVICE + "RenewLease": _WRITE,
    _SERVICE + "ReleaseLease": _WRITE,
    _STORE + "Batch": _EITHER,
    _STORE + "BatchSliced": _EITHER,
    _STORE + "GetIndex": _READ,
    _STORE + "SetIndex": frozenset({Scope.ADMIN}),
    _STORE + "ListUnembedded": _READ,
    _STORE + "PutVectors": _WRITE,
    _STORE + "PutVectorsSliced": _WRITE,
    _CACHE + "Get": _READ,
    _CACHE + "Set": _WRITE,
    _CACHE + "Clear": _WRITE,
    "/tenure.v1.ServerService/GetServerInfo": ANY,
    _ADMIN + "GetPrincipal": _ADMINS,
    _ADMIN + "CreateTenant": _OPERATOR,
    _ADMIN + "ListTenants": _OPERATOR,
    _ADMIN + "GetTenant": _ADMINS,
    _ADMIN + "SuspendTenant": _OPERATOR,
    _ADMIN + "ResumeTenant": _OPERATOR,
    _ADMIN + "DeleteTenant": _OPERATOR,
    _ADMIN + "CreateKey": _ADMINS,
    _ADMIN + "ListKeys": _ADMINS,
    _ADMIN + "RotateKey": _ADMINS,
    _ADMIN + "ExpireKey": _ADMINS,
    _ADMIN + "RevokeKey": _ADMINS,
    _QUOTA + "GetQuota": _ADMINS,
    _QUOTA + "SetQuota": _OPERATOR,
    _QUOTA + "GetUsage": _ADMINS,
    _QUOTA + "ListUsage": _ADMINS,
    _WRITERS + "CreateWriterPolicy": _ADMINS,
    _WRITERS + "ListWriterPolicies": _ADMINS,
    _WRITERS + "DeleteWriterPolicy": _ADMINS,
    _RETENTION + "SetPolicy": _ADMINS,
    _RETENTION + "ListPolicies": _ADMINS,
    _RETENTION + "DeletePolicy": _ADMINS,
    _RETENTION + "Preview": _ADMINS,
    _RETENTION + "Pin": _ADMINS,
    _RETENTION + "Unpin": _ADMINS,
    _RETENTION + "ListPins": _ADMINS,
    _RETENTION + "Hold": _ADMINS,
    _RETENTION + "Release": _ADMINS,
}
"""The scopes of which each RPC needs one, ANY = any key of a tenant. An RPC without a rule is refused; a test
compares this table with the protocol. (CVE-2026-104873: decorators on handlers silently missed some.) Of a
store batch each group needs the scope for what it does; its service checks that, since the group fails alone.
AdminService checks that an admin names no tenant but its own."""

RULED: Final = frozenset(
    {
        *(_SERVICE + name for name in ("Write", "WriteSliced", "Read", "ReadSliced", "Session", "List")),
        *(_SERVICE + name for name in ("GetChannelHistory", "ListThreads", "DeleteThread", "DeleteForRuns")),
        *(_SERVICE + name for name in ("CopyThread", "PruneThreads")),
        *(_SERVICE + name for name in ("AcquireLease", "RenewLease", "ReleaseLease")),
        # Keys with the same rules have a cache of their own.
        *(_CACHE + name for name in ("Get", "Set", "Clear")),
        *(_STORE + name for name in ("Batch", "BatchSliced", "GetIndex", "SetIndex")),
        *(_STORE + name for name in ("ListUnembedded", "PutVectors", "PutVectorsSliced")),
        "/tenure.v1.ServerService/GetServerInfo",
    }
)
"""RPCs that hold each thread and namespace they reach against the rules of the key, or that reach none. A
limited key may call no other; a test calls each with such keys."""

PUBLIC: Final = frozenset(
    {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/List"}
)
"""RPCs without a key: probes have none, and health tells nothing about tenants."""

_MAX_CACHED = 10_000


class Authenticator:
    """Looks keys up and remembers the valid ones for a short while.

    Never depends on Redis. A key found valid is trusted for `trust` seconds, so a revocation takes effect
    on every replica within that time; refusals are not remembered.
    """

    def __init__(self, keys: KeyStore, trust: float = 4.0) -> None:
        self._keys = keys
        self._uses = KeyUses(keys.mark_used)
        self._trust = trust
        self._known: dict[bytes, tuple[Principal, float]] = {}
        self._looking_up: dict[bytes, asyncio.Task[Principal]] = {}

    async def authenticate(self, metadata: Sequence[tuple[str, str | bytes]]) -> Principal:
        """Return the caller.

        Raises:
            Unauthenticated: For whatever reason; all of them look the same.
            Unavailable: The database cannot be asked.
        """
        text = next((value for name, value in metadata if name == "authorization"), "")
        scheme, _, token = text.partition(" ") if isinstance(text, str) else ("", "", "")
        if scheme.lower() != "bearer":
            raise errors.Unauthenticated
        # Only a digest of the key stays in memory.
        identity = hashlib.sha256(token.encode(errors="replace")).digest()
        known = self._known.get(identity)
        if known is not None and time.monotonic() < known[1]:
            return known[0]
        key = ApiKey.parse(token)
        if key is None:
            raise errors.Unauthenticated
        # One look-up for all calls that wait for the same key; it belongs to none of them, so a cancelled
        # call does not fail its neighbours.
        task = self._looking_up.get(identity)
        if task is None:
            task = asyncio.create_task(self._look_up(identity, key))
            self._looking_up[identity] = task
            task.add_done_callback(lambda done: self._forget(identity, done))
        return await asyncio.shield(task)

    def _forget(self, identity: bytes, task: asyncio.Task[Principal]) -> None:
        self._looking_up.pop(identity, None)
        if not task.cancelled():
            task.exception()

    async def _look_up(self, identity: bytes, key: ApiKey) -> Principal:
        started = time.monotonic()
        stored = await self._keys.find_key(key.tenant, key.key_id)
        # An unknown key costs the same comparison as a known one.
        matches = key.matches(stored.digest if stored is not None else bytes(32))
        left = _seconds_left(stored) if stored is not None else 0.0
        if stored is None or not matches or left <= 0:
            self._known.pop(identity, None)
            raise errors.Unauthenticated
        self._uses.note(stored.tenant, stored.key_id)
        principal = Principal(stored.tenant, stored.key_id, stored.scopes, stored.rules, stored.rates)
        if len(self._known) >= _MAX_CACHED:
            self._known.clear()
        self._known[identity] = (principal, started + min(self._trust, left))
        return principal


def authorize(principal: Principal, method: str) -> None:
    """Check that the principal may call an RPC; what it may reach is for the RPC to check.

    Raises:
        ScopeMissing: It may not, or the RPC has no rule.
        OutsideRules: The key is limited, and the RPC does not check to what.
    """
    if method not in RULES:
        raise errors.ScopeMissing("none: the method is not known")
    scopes = RULES[method]
    # An operator belongs to no tenant, and so has no business with RPCs that any key of one may call.
    enough = scopes & principal.scopes if scopes else Scope.OPERATOR not in principal.scopes
    if not enough:
        raise errors.ScopeMissing(" or ".join(sorted(scope.value for scope in scopes)) or "of a tenant")
    if principal.rules is not None and method not in RULED:
        raise errors.OutsideRules("method", "call")


def _seconds_left(key: StoredKey) -> float:
    if key.revoked_at is not None:
        return 0.0
    if key.expires_at is None:
        return float("inf")
    return (key.expires_at - datetime.now(UTC)).total_seconds()
