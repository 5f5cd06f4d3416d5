"""What a client process tells the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Work:
    """What a client did in one phase.

    Attributes:
        operations: How many.
        started / ended: On the monotonic clock, which processes of one machine share.
        latencies: Of the operations, in milliseconds and in order of their ends.
        extra: Anything else, as JSON takes it.
    """

    operations: int
    started: float
    ended: float
    latencies: Sequence[float] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it for the line to the run."""
        return asdict(self)
