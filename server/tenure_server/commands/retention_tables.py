"""What RetentionService answers, as JSON for scripts and as cells of tables for people."""

from __future__ import annotations

from typing import Any

from tenure.v1 import retention_pb2 as pb

from tenure_server.commands.sizes import human

ALL = "*"
POLICY_COLUMNS = ("scope", "max_age", "max_idle", "keep_last", "item_ttl", "max_bytes", "floor", "updated_at")
HOLD_COLUMNS = ("scope", "reason", "created_at")
PIN_COLUMNS = ("thread_id", "checkpoint_ns", "checkpoint_id", "reason", "created_at")


def scope(message: pb.RetentionScope) -> str:
    """Return threads or items as commands name them."""
    if message.WhichOneof("scope") == "thread_prefix":
        return f"threads:{message.thread_prefix or ALL}"
    labels = (label.replace("%", "%25").replace("/", "%2F") for label in message.namespace.labels)
    return f"items:{'/'.join(labels) or ALL}"


def policy(message: pb.RetentionPolicy) -> dict[str, Any]:
    """Return a policy as JSON has it."""
    names: tuple[Any, ...] = ("max_age", "max_idle", "keep_last", "item_ttl", "max_bytes")
    return {
        "scope": scope(message.scope),
        **{name: getattr(message, name) if message.HasField(name) else None for name in names},
        "floor": message.floor,
        "updated_at": message.updated_at.ToJsonString(),
    }


def readable(row: dict[str, Any]) -> dict[str, str]:
    """Return what a table shows of a policy in place of numbers and None."""
    times = {
        name: "-" if row[name] is None else _duration(row[name])
        for name in ("max_age", "max_idle", "item_ttl")
    }
    return times | {
        "keep_last": "-" if row["keep_last"] is None else f"{row['keep_last']:,}",
        "max_bytes": "-" if row["max_bytes"] is None else human(row["max_bytes"]),
    }


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


def hold(message: pb.LegalHold) -> dict[str, Any]:
    """Return a hold as JSON has it."""
    return {
        "scope": scope(message.scope) if message.HasField("scope") else "tenant",
        "reason": message.reason,
        "created_at": message.created_at.ToJsonString(),
    }


def pin(message: pb.RetentionPin) -> dict[str, Any]:
    """Return a pin as JSON has it."""
    return {
        "thread_id": message.thread_id,
        "checkpoint_ns": message.checkpoint_ns,
        "checkpoint_id": message.checkpoint_id or None,
        "reason": message.reason,
        "created_at": message.created_at.ToJsonString(),
    }
