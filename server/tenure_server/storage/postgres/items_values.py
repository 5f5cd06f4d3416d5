"""Values and vectors of items on their way to the database."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from tenure_server.items import Vector
from tenure_server.storage.postgres.arrays import RealArray

# A number with an exponent may come back from jsonb as an integer (1e5) and -0.0 without its sign. What only
# looks like one, within a text, is merely stored twice.
_NOT_FOR_JSONB = re.compile(r"[\[:,\s]-(?:0(?:\.0+)?[,\]}\s])|[\[:,\s]-?\d+(?:\.\d+)?[eE]")
# Cheap to look for, and not in most values.
_EXPONENT = re.compile("[0-9][eE]")
_CALM = 1e-12, 1e12
"""Lengths between which the squares of a vector's numbers stay within 32 bits."""


def needs_verbatim(value: str) -> bool:
    """Tell whether jsonb might give back another Python value for a JSON object."""
    if "-0" not in value and _EXPONENT.search(value) is None:
        return False
    return _NOT_FOR_JSONB.search(value) is not None


def embeddings(vectors: Iterable[Vector]) -> RealArray:
    """Return the numbers of vectors, one after the other."""
    return RealArray([number for vector in vectors for number in scaled(vector.values)])


def scaled(values: Sequence[float]) -> Sequence[float]:
    """Return a vector of the same direction whose squares neither vanish nor overflow."""
    length = math.hypot(*values)
    if _CALM[0] < length < _CALM[1] or length == 0:
        return values
    largest = max(map(abs, values))
    return [value / largest for value in values]
