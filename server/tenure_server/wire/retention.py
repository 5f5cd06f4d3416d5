"""Between messages of RetentionService and domain values: every field is checked here."""

from __future__ import annotations

import base64
import json
from typing import Final, Literal

from tenure.v1 import retention_pb2 as pb

from tenure_server import errors
from tenure_server.limits import Limits
from tenure_server.retention import Expired, Hold, Items, Pin, Policy, Scope, Threads
from tenure_server.wire import fields
from tenure_server.wire.admin import seconds
from tenure_server.wire.times import timestamp

_MAX_SECONDS: Final = 100 * 366 * 86_400.0
_MAX_COUNT: Final = 1_000_000
_MAX_BYTES: Final = 2**63 - 1
_MAX_REASON_BYTES: Final = 1000
_THREADS_ONLY: Final = ("max_age", "max_idle", "keep_last")
_RULES: Final = (*_THREADS_ONLY, "item_ttl", "max_bytes")


class Requests:
    """Checks requests against limits of the server."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def scope(self, field: str, message: pb.RetentionScope) -> Scope:
        """Return the scope that a message names."""
        if message.WhichOneof("scope") == "thread_prefix":
            prefix = fields.text(
                f"{field}.thread_prefix", message.thread_prefix, self._limits.max_id_bytes, empty=True
            )
            return Threads(prefix)
        if message.WhichOneof("scope") is None:
            raise errors.InvalidField(field, "must be a thread_prefix or a namespace")
        labels = tuple(message.namespace.labels)
        fields.count(f"{field}.namespace.labels", labels, self._limits.max_labels)
        for at, label in enumerate(labels):
            fields.text(f"{field}.namespace.labels[{at}]", label, self._limits.max_labels_bytes)
            if "." in label:
                raise errors.InvalidField(f"{field}.namespace.labels[{at}]", 'must not contain "."')
        return Items(labels)

    def hold_scope(self, message: pb.RetentionScope | None) -> Scope | None:
        """Return the scope of a hold; None = the whole tenant."""
        return None if message is None else self.scope("scope", message)

    def policy(self, message: pb.RetentionPolicy) -> Policy:
        """Return a policy that says something, and only what goes with its scope."""
        scope = self.scope("policy.scope", message.scope)
        given = [name for name in _RULES if message.HasField(name)]
        if not given:
            raise errors.InvalidField("policy", f"must have one of {', '.join(_RULES)}")
        wrong = (*_THREADS_ONLY, "floor") if isinstance(scope, Items) else ("item_ttl",)
        for name in wrong:
            if name in given or (name == "floor" and message.floor):
                raise errors.InvalidField(
                    f"policy.{name}", f"is not for {'items' if isinstance(scope, Items) else 'threads'}"
                )
        return Policy(
            scope,
            _seconds(message, "max_age"),
            _seconds(message, "max_idle"),
            _count("policy.keep_last", message.keep_last, 1) if "keep_last" in given else None,
            _seconds(message, "item_ttl"),
            _bytes(message.max_bytes) if "max_bytes" in given else None,
            _count("policy.floor", message.floor, 0),
        )

    def pin(self, message: pb.RetentionPin) -> Pin:
        """Return a pin."""
        maximum = self._limits.max_id_bytes
        pin = Pin(
            fields.text("pin.thread_id", message.thread_id, maximum),
            fields.text(
                "pin.checkpoint_ns", message.checkpoint_ns, self._limits.max_namespace_bytes, empty=True
            ),
            fields.text("pin.checkpoint_id", message.checkpoint_id, maximum, empty=True),
            _reason("pin.reason", message.reason),
        )
        if pin.checkpoint_ns and not pin.checkpoint_id:
            raise errors.InvalidField("pin.checkpoint_id", "must not be empty with a checkpoint_ns")
        return pin

    def hold(self, message: pb.LegalHold) -> Hold:
        """Return a hold."""
        scope = message.scope if message.HasField("scope") else None
        return Hold(self.hold_scope(scope), _reason("hold.reason", message.reason))


def pins_after(token: str) -> tuple[str, str, str] | None:
    """Return after which pin a page begins."""
    if not token:
        return None
    try:
        parts = json.loads(base64.urlsafe_b64decode(token.encode()))
        thread, ns, checkpoint_id = parts
        if not all(isinstance(part, str) and "\0" not in part for part in parts):
            raise ValueError
    except (ValueError, TypeError):
        raise errors.InvalidField("page_token", "is not the next_page_token of a page before") from None
    return thread, ns, checkpoint_id


def token_after(last: Pin) -> str:
    """Return the token of the page after a pin."""
    parts = [last.thread_id, last.checkpoint_ns, last.checkpoint_id]
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def scope_message(scope: Scope) -> pb.RetentionScope:
    """Return a scope as its message."""
    if isinstance(scope, Threads):
        return pb.RetentionScope(thread_prefix=scope.prefix)
    return pb.RetentionScope(namespace=pb.NamespacePrefix(labels=scope.namespace))


def policy_message(policy: Policy) -> pb.RetentionPolicy:
    """Return a policy as its message."""
    return pb.RetentionPolicy(
        scope=scope_message(policy.scope),
        max_age=policy.max_age,
        max_idle=policy.max_idle,
        keep_last=policy.keep_last,
        item_ttl=policy.item_ttl,
        max_bytes=policy.max_bytes,
        floor=policy.floor,
        updated_at=timestamp(policy.updated_at),
    )


def hold_message(hold: Hold) -> pb.LegalHold:
    """Return a hold as its message."""
    return pb.LegalHold(
        scope=None if hold.scope is None else scope_message(hold.scope),
        reason=hold.reason,
        created_at=timestamp(hold.created_at),
    )


def pin_message(pin: Pin) -> pb.RetentionPin:
    """Return a pin as its message."""
    return pb.RetentionPin(
        thread_id=pin.thread_id,
        checkpoint_ns=pin.checkpoint_ns,
        checkpoint_id=pin.checkpoint_id,
        reason=pin.reason,
        created_at=timestamp(pin.created_at),
    )


def preview_message(found: Expired) -> pb.PreviewResponse:
    """Return what was found as its message."""
    return pb.PreviewResponse(
        seen=found.seen,
        total=found.total,
        threads=found.threads,
        checkpoints=found.checkpoints,
        items=found.items,
        bytes=found.bytes,
        done=found.done,
    )


def _seconds(message: pb.RetentionPolicy, name: Literal["max_age", "max_idle", "item_ttl"]) -> float | None:
    if not message.HasField(name):
        return None
    return seconds(f"policy.{name}", getattr(message, name), _MAX_SECONDS, zero=False)


def _count(field: str, value: int, least: int) -> int:
    if value < least:
        raise errors.InvalidField(field, f"must be at least {least}")
    if value > _MAX_COUNT:
        raise errors.LimitExceeded(field, "checkpoints", value, _MAX_COUNT)
    return value


def _bytes(value: int) -> int:
    if value > _MAX_BYTES:
        raise errors.LimitExceeded("policy.max_bytes", "bytes", value, _MAX_BYTES)
    return value


def _reason(field: str, text: str) -> str:
    fields.text(field, text, _MAX_REASON_BYTES, empty=True)
    if not text.isprintable():
        raise errors.InvalidField(field, "must not contain control characters")
    return text
