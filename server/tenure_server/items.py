"""Items, the long-term memory: frozen values without gRPC, SQL or Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from tenure_server.domain import Operation

Namespace = tuple[str, ...]
"""Labels, the root first; none is empty or contains "." or NUL."""


class SearchMode(Enum):
    """How a query finds items; see SearchMode in store.proto."""

    NONE = "none"
    SEMANTIC = "semantic"
    KEYWORD = "keyword"
    HYBRID = "hybrid"


class MatchType(Enum):
    """At which end of a namespace a condition looks."""

    PREFIX = "prefix"
    SUFFIX = "suffix"


@dataclass(frozen=True, slots=True)
class Index:
    """With what vectors are made: their length, and the embedder's name."""

    dims: int
    embedder: str

    def __str__(self) -> str:
        """Return it as errors name it."""
        return f"{self.embedder or 'an embedder without name'} ({self.dims:,} dimensions)"


@dataclass(frozen=True, slots=True)
class GetItem:
    """Read one item."""

    namespace: Namespace
    key: str
    refresh_ttl: bool


@dataclass(frozen=True, slots=True)
class SearchItems:
    """Find items below a namespace.

    Attributes:
        filter: A JSON object, already checked by `filters.checked`; empty = any.
        query_vector: As long as the tenant's index says, empty for modes without one.
        query_text: Words, empty for modes without them.
    """

    namespace_prefix: Namespace
    filter: Mapping[str, object]
    limit: int
    offset: int
    refresh_ttl: bool
    mode: SearchMode = SearchMode.NONE
    query_vector: Sequence[float] = ()
    query_text: str = ""


@dataclass(frozen=True, slots=True)
class MatchCondition:
    """A pattern for namespaces; "*" matches any one label."""

    type: MatchType
    path: Sequence[str]


@dataclass(frozen=True, slots=True)
class ListNamespaces:
    """List the namespaces that hold items, each once, sorted; longer ones are cut to `max_depth` labels."""

    conditions: Sequence[MatchCondition]
    max_depth: int | None
    limit: int
    offset: int


ItemRead = GetItem | SearchItems | ListNamespaces


@dataclass(frozen=True, slots=True)
class Vector:
    """An embedding of the part of an item that `path` names."""

    path: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class PutItem:
    """Store an item in place of the one with its key.

    Attributes:
        value: JSON text of one object, already checked.
        ttl: Seconds from its last use, None = it stays.
        index_paths: Paths it is embedded by, None = the index's fields, empty = it is not to be found by a
            query.
        vectors: Embeddings.
        text: Text to be found by its words, empty = none.
    """

    namespace: Namespace
    key: str
    value: str
    ttl: float | None = None
    index_paths: Sequence[str] | None = None
    vectors: Sequence[Vector] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class DeleteItem:
    """Remove an item; an absent one is fine."""

    namespace: Namespace
    key: str


ItemWrite = PutItem | DeleteItem


@dataclass(frozen=True, slots=True)
class ReadGroup:
    """Reads of one caller, all from one snapshot.

    Attributes:
        within: Namespaces to which the caller is limited, with those below them: what lies elsewhere is not
            found by a search and not listed. None = the whole tenant.
        index: With what query vectors were made, None if there are none.
    """

    operation: Operation
    reads: Sequence[ItemRead]
    within: Sequence[Namespace] | None = None
    index: Index | None = None


@dataclass(frozen=True, slots=True)
class WriteGroup:
    """Writes of one caller, applied together; of several to one key the last counts.

    Attributes:
        index: With what the vectors were made, None if there are none.
    """

    operation: Operation
    writes: Sequence[ItemWrite]
    index: Index | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """A stored item.

    Attributes:
        value: JSON text from which `json.loads` makes the value that was put.
        score: How well it matches a query, more is better; None if there was none.
    """

    namespace: Namespace
    key: str
    value: str
    created_at: datetime
    updated_at: datetime
    score: float | None = None


ItemAnswer = Item | None | Sequence[Item] | Sequence[Namespace]
"""Of a GetItem, a SearchItems or a ListNamespaces."""


@dataclass(frozen=True, slots=True)
class Unembedded:
    """An item that waits to be embedded, by the index's fields if it has no paths of its own."""

    item: Item
    index_paths: Sequence[str]


@dataclass(frozen=True, slots=True)
class ItemVectors:
    """New vectors of an item that has not been put since `updated_at`."""

    namespace: Namespace
    key: str
    updated_at: datetime
    vectors: Sequence[Vector]
