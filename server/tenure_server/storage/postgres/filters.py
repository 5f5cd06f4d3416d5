"""The one compiler of metadata filters, to the arguments of the SQL function `matches_1`."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tenure_server.storage.postgres.arrays import Array, TextArray

_SURELY_SMALL = 256
"""Bytes of a text that is in the filter column for sure; a longer one is looked for in the metadata, too."""


def compiled(filter: Mapping[str, object]) -> tuple[Array, Array, Array]:
    """Return names, whether the whole metadata is to be looked at, and values as jsonb without booleans."""
    return (
        TextArray(list(filter)),
        TextArray(["true" if _everywhere(value) else "false" for value in filter.values()]),
        TextArray([json.dumps(_without_booleans(value), ensure_ascii=False) for value in filter.values()]),
    )


def _everywhere(value: object) -> bool:
    """Tell whether a member that equals the value may be missing from the filter column."""
    if isinstance(value, str):
        return len(value.encode()) > _SURELY_SMALL
    return value is None or isinstance(value, (dict, list))


def _without_booleans(value: object) -> object:
    """Replace booleans by numbers: in Python, and so for `InMemorySaver`, True == 1; not so in jsonb."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, dict):
        return {key: _without_booleans(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_without_booleans(member) for member in value]
    return value
