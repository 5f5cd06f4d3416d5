"""Between messages of QuotaService and domain values: every field is checked here, every refusal names it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from tenure.v1 import quotas_pb2 as pb

from tenure_server import errors
from tenure_server.limits import Limits
from tenure_server.quotas import Quota, Usage, UsageKind, UsageRow
from tenure_server.wire import fields

_ROWS, _MAX_ROWS, _MAX_DAYS = 20, 1000, 400
_MOST: Final = 2**62
_MOST_INT: Final = 2**31 - 1
# From and up to which a field may be; float marks those that need not be whole.
_RANGES: Final[dict[str, tuple[float, float]]] = {
    "max_stored_bytes": (0, _MOST),
    "max_threads": (0, _MOST),
    "max_items": (0, _MOST),
    "max_checkpoints_per_thread": (1, _MOST_INT),
    "max_value_bytes": (1, _MOST),
    "soft_percent": (1, 100),
    "operations_per_second": (0.1, 1e9),
    "bytes_per_second": (1024, 1e15),
    "burst_seconds": (0.1, 3600),
    "max_concurrency": (1, _MOST_INT),
}
_KINDS: Final = {
    pb.USAGE_KIND_THREAD: UsageKind.THREAD,
    pb.USAGE_KIND_THREAD_PREFIX: UsageKind.THREAD_PREFIX,
    pb.USAGE_KIND_NAMESPACE: UsageKind.NAMESPACE,
    pb.USAGE_KIND_DAY: UsageKind.DAY,
}


def quota(message: pb.Quota, paths: Iterable[str]) -> tuple[Quota, list[str]]:
    """Return limits, and which of them are to be set."""
    names = sorted(set(paths))
    if not names:
        raise errors.InvalidField("update_mask", "must name at least one field of Quota")
    given: dict[str, Any] = {}
    for name in names:
        if name not in _RANGES:
            raise errors.InvalidField("update_mask", "names a field that Quota does not have")
        if message.HasField(name):
            value = getattr(message, name)
            least, most = _RANGES[name]
            if not math.isfinite(value) or not least <= value <= most:
                raise errors.InvalidField(f"quota.{name}", f"must be from {least:,} to {most:,}")
            given[name] = value
    return Quota(**given), names


def quota_message(found: Quota) -> pb.Quota:
    """Return limits as their message."""
    message = pb.Quota()
    for name in _RANGES:
        value = getattr(found, name)
        if value is not None:
            setattr(message, name, int(value) if name == "bytes_per_second" else value)
    return message


def usage_message(found: Usage) -> pb.Usage:
    """Return usage as its message."""
    return pb.Usage(stored_bytes=found.stored_bytes, threads=found.threads, items=found.items)


def kind(number: pb.UsageKind) -> UsageKind:
    """Return by what usage is to be broken down."""
    if number not in _KINDS:
        raise errors.InvalidField("by", "must be thread, thread prefix, namespace or day")
    return _KINDS[number]


def rows(value: int, by: UsageKind) -> int:
    """Return how many rows are wanted."""
    most = _MAX_DAYS if by is UsageKind.DAY else _MAX_ROWS
    if value > most:
        raise errors.LimitExceeded("limit", "rows", value, most)
    return value or _ROWS


def prefix(text: str, limits: Limits) -> str:
    """Return the beginning of threads' ids."""
    return fields.text("thread_prefix", text, limits.max_id_bytes, empty=True)


def namespace(labels: Sequence[str], limits: Limits) -> tuple[str, ...]:
    """Return a namespace, () for all."""
    if len(labels) > limits.max_labels:
        raise errors.LimitExceeded("namespace", "max_labels", len(labels), limits.max_labels)
    return tuple(
        fields.text(f"namespace[{at}]", label, limits.max_labels_bytes) for at, label in enumerate(labels)
    )


def row_message(row: UsageRow) -> pb.UsageRow:
    """Return a part of the usage as its message."""
    return pb.UsageRow(
        name=row.name,
        namespace=row.namespace,
        stored_bytes=row.stored_bytes,
        threads=row.threads,
        checkpoints=row.checkpoints,
        items=row.items,
        grown_bytes=row.grown_bytes,
    )
