"""What the services of the admin port share: whom a caller may ask about, and the trail of its changes."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tenure_server import errors, telemetry
from tenure_server.domain import OPERATORS, Scope, TenantId
from tenure_server.services.caller import principal
from tenure_server.wire import admin as wire

_trail = logging.getLogger("tenure.audit")
# Whatever the level of other lines: a trail with gaps proves nothing.
_trail.setLevel(logging.INFO)


def reachable(tenant_id: str) -> TenantId:
    """Return whom a request is about: the caller's tenant, or one that the caller may name.

    Raises:
        TenantNotFound: An admin names another tenant; whether there is one is not looked at.
    """
    caller = principal.get()
    if not tenant_id:
        return caller.tenant
    tenant = wire.tenant_id(tenant_id)
    if tenant != caller.tenant and Scope.OPERATOR not in caller.scopes:
        raise errors.TenantNotFound
    return tenant


def tenant_of(tenant_id: str) -> TenantId:
    """Return which tenant a request is about; an operator has none of its own."""
    tenant = reachable(tenant_id)
    if tenant == OPERATORS:
        raise errors.InvalidField("tenant_id", "must not be empty, since an operator belongs to no tenant")
    return tenant


@dataclass
class Change:
    """What the trail tells of a change.

    Attributes:
        tenant: Whom it is about, None as long as that is not known.
        key_id: The key that it is about.
        made: The key that it made.
        settings: What it sets, in numbers and words that may be logged; left out if there are none.
    """

    tenant: TenantId | None = None
    key_id: str = ""
    made: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)


@contextmanager
def recorded(rpc: str) -> Iterator[Change]:
    """Log and count a change that a block makes, or fails to make."""
    told, outcome = Change(), "INTERNAL"
    try:
        yield told
        outcome = "OK"
    except errors.TenureError as error:
        outcome = error.reason
        raise
    finally:
        caller = principal.get()
        telemetry.admin_changes.add(1, {"rpc": rpc, "outcome": outcome})
        _trail.info(
            "%s",
            json.dumps(
                {
                    "rpc": rpc,
                    "outcome": outcome,
                    "by": caller.key_id,
                    "by_tenant": _shown(caller.tenant),
                    "tenant": _shown(told.tenant),
                    "key": told.key_id,
                    "made": told.made,
                }
                | ({"settings": dict(told.settings)} if told.settings else {})
            ),
        )


def _shown(tenant: TenantId | None) -> str:
    if tenant is None:
        return ""
    return "operators" if tenant == OPERATORS else telemetry.tenant_hash(tenant)
