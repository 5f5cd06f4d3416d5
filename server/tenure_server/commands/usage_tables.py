"""What QuotaService answers, as JSON for scripts and as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from tenure.v1 import quotas_pb2 as pb

from tenure_server.commands import tables
from tenure_server.commands.sizes import human

_BYTES: Final = {"max_stored_bytes", "max_value_bytes", "bytes_per_second"}
_USED: Final = ("stored_bytes", "threads", "items")
_COLUMNS: Final = {
    "thread": ("thread", "stored", "checkpoints"),
    "thread-prefix": ("prefix", "stored", "threads", "checkpoints"),
    "namespace": ("namespace", "stored", "items"),
    "day": ("day", "stored", "growth", "threads", "items"),
}


def show_quota(message: pb.Quota, *, as_json: bool) -> None:
    """Print limits."""
    found = _quota(message)
    if not as_json:
        found = {name: "no limit" if value is None else _limit(name, value) for name, value in found.items()}
    tables.show(found, as_json=as_json)


def show_usage(message: pb.GetUsageResponse, *, as_json: bool) -> None:
    """Print what is used beside what may be."""
    limits = _quota(message.quota)
    used = {name: getattr(message.usage, name) for name in _USED}
    if as_json:
        tables.show({**used, "quota": limits}, as_json=True)
        return
    rows = []
    for name, amount in used.items():
        maximum = limits[f"max_{name}"]
        rows.append(
            {
                "limit": name.replace("_", " "),
                "used": human(amount) if name in {"stored_bytes"} else f"{amount:,}",
                "of": "no limit" if maximum is None else _limit(f"max_{name}", maximum),
                "share": "" if maximum is None else _share(amount, maximum),
                "state": _state(amount, maximum, limits["soft_percent"]),
            }
        )
    tables.show_list("usage", rows, ("limit", "used", "of", "share", "state"), as_json=False)


def show_parts(kind: str, message: pb.ListUsageResponse, *, as_json: bool) -> None:
    """Print by what usage is made up."""
    if as_json:
        found: dict[str, Any] = {"by": kind, "rows": [_row(kind, row) for row in message.rows]}
        if kind != "day":
            rest = _row(kind, message.rest)
            found["rest"] = {name: rest[name] for name in _counts(kind)}
        tables.show(found, as_json=True)
        return
    rows = [_shown(kind, row) for row in message.rows]
    if kind != "day" and (message.rest.threads or message.rest.items):
        rows.append({**_shown(kind, message.rest), _COLUMNS[kind][0]: "(all others)"})
    tables.show_list("rows", rows, _COLUMNS[kind], as_json=False)


def _quota(message: pb.Quota) -> dict[str, Any]:
    """Return limits as JSON has them."""
    return {
        field.name: getattr(message, field.name) if message.HasField(field.name) else None
        for field in message.DESCRIPTOR.fields
    }


def _limit(name: str, value: float) -> str:
    return human(int(value)) if name in _BYTES else f"{value:,.10g}" if value < 1e9 else f"{value:,.0f}"


def _share(used: int, maximum: int) -> str:
    return f"{100 * used / maximum:.1f} %" if maximum else "100.0 %"


def _state(used: int, maximum: int | None, soft_percent: int) -> str:
    if maximum is None or used * 100 < maximum * soft_percent:
        return ""
    return "full" if used >= maximum else f"above {soft_percent} %"


def _counts(kind: str) -> Sequence[str]:
    if kind == "namespace":
        return ("stored_bytes", "items")
    return ("stored_bytes", "threads", "items" if kind == "day" else "checkpoints")


def _row(kind: str, row: pb.UsageRow) -> dict[str, Any]:
    """Return a part as JSON has it."""
    name: dict[str, Any] = {_COLUMNS[kind][0]: list(row.namespace) if kind == "namespace" else row.name}
    found = name | {count: getattr(row, count) for count in _counts(kind)}
    if kind == "day":
        found["grown_bytes"] = row.grown_bytes if row.HasField("grown_bytes") else None
    return found


def _shown(kind: str, row: pb.UsageRow) -> dict[str, Any]:
    """Return a part as the table has it."""
    labels = "/".join(quote(label, safe=" @:+,=") for label in row.namespace)
    growth = ("+" if row.grown_bytes >= 0 else "") + human(row.grown_bytes)
    return {
        _COLUMNS[kind][0]: labels if kind == "namespace" else row.name,
        "stored": human(row.stored_bytes),
        "growth": growth if row.HasField("grown_bytes") else "",
        **{name: f"{getattr(row, name):,}" for name in ("threads", "checkpoints", "items") if name != kind},
    }
