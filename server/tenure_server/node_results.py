"""Results of graph nodes, as the node cache keeps them: frozen values without gRPC or Redis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tenure_server.domain import Blob, TenantId

Namespace = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CacheShare:
    """The part of the node cache that a caller has; nobody sees into another one.

    Attributes:
        tenant: Whose it is.
        rules: The rules of the caller's key as texts, sorted; none if it is not limited. A result may be made
            of what only these rules let the node read.
    """

    tenant: TenantId
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeKey:
    """Names a result: usually the node it is of, and a hash of the node's input."""

    namespace: Namespace
    key: str


@dataclass(frozen=True, slots=True)
class NodeResult:
    """A result to be kept.

    Attributes:
        key: What it is called.
        value: The result, None if what the key had is only to be forgotten.
        ttl: Seconds that it is kept, more than 0; None = as long as may be.
    """

    key: NodeKey
    value: Blob | None
    ttl: float | None = None


@dataclass(frozen=True, slots=True)
class FoundResults:
    """What a look-up found.

    Attributes:
        values: The results that are there.
        omitted: Keys that may have results beyond the room that was given; never all that were asked for.
    """

    values: Mapping[NodeKey, Blob]
    omitted: frozenset[NodeKey] = frozenset()
