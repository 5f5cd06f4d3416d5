"""Medians, percentiles and ratios."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """What several rounds of one figure come to.

    Attributes:
        median / low / high: Median, smallest and largest of the rounds.
        rounds: How many there were.
    """

    median: float
    low: float
    high: float
    rounds: int


def summarise(values: Sequence[float]) -> Summary | None:
    """Return the summary of a figure's rounds, None if there were none."""
    if not values:
        return None
    return Summary(statistics.median(values), min(values), max(values), len(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile by the nearest-rank method: always a value that was measured.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("no values")
    rank = math.ceil(percent / 100 * len(values))
    return sorted(values)[max(rank, 1) - 1]


def ratio(value: float | None, reference: float | None) -> float | None:
    """Return value / reference, None if one of them is missing or infinite, or the reference is 0."""
    if value is None or not reference or math.isinf(value) or math.isinf(reference):
        return None
    return value / reference
