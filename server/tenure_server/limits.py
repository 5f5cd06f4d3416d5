"""The hard caps of a server; `GetServerInfo` tells them to clients."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Hard caps. Sizes in bytes, times in seconds.

    Attributes:
        max_unary_request_bytes: Largest unary request; larger ones travel in slices.
        max_unary_reply_bytes: Largest unary reply; larger checkpoints come back omitted.
        max_operation_bytes: Largest sliced request.
        max_checkpoint_bytes: Largest checkpoint that is read; it may have come in several puts. A protobuf
            message ends at 2 GiB.
        slice_bytes: Size of one slice.
        max_id_bytes: Ids and names. Postgres caps a composite index entry at 2,704 bytes; ids that
            share an index with a namespace are hashed there.
        max_namespace_bytes: Checkpoint namespaces and task paths; each subgraph level adds about 40.
        max_metadata_bytes: Metadata; LangGraph copies all scalars of `configurable` into it.
        max_filterable_bytes: A metadata scalar that is larger is not in the filter column.
        max_chunks: Chunks of one value.
        max_batch: Operations of one batch.
        max_group_ops: Operations of one group of the store.
        max_labels: Labels of an item's namespace.
        max_labels_bytes: Labels of an item's namespace together. With a key it fits into an index entry.
        max_value_bytes: Value of an item, as JSON text.
        max_text_bytes: Text by whose words an item is found.
        max_query_text_bytes: Words of a query.
        max_filter_bytes: Filter of a search, as JSON text.
        max_filter_elements: Elements of the lists in a filter, and parts of what its operators compare with.
        max_search_limit: Items of one search.
        max_list_limit: Namespaces of one listing.
        max_offset: What a search or a listing skips.
        max_conditions: Conditions of a listing of namespaces.
        max_dims: Numbers of a vector.
        max_vectors: Vectors of an item, and paths by which it is embedded.
        max_ttl: Time to live of an item, a hundred years.
        default_timeout: Time for an operation that names none.
        max_timeout: Cap of the time of an operation.
    """

    max_unary_request_bytes: int = 1 * MIB
    max_unary_reply_bytes: int = 3 * MIB
    max_operation_bytes: int = 128 * MIB
    max_checkpoint_bytes: int = 1024 * MIB
    slice_bytes: int = 256 * KIB
    max_id_bytes: int = 512
    max_namespace_bytes: int = 2 * KIB
    max_metadata_bytes: int = 256 * KIB
    max_metadata_depth: int = 32
    max_filterable_bytes: int = 1 * KIB
    max_filter_members: int = 32
    max_channels: int = 1024
    max_writes: int = 4096
    max_chunks: int = 16 * 1024
    max_batch: int = 256
    max_threads_per_call: int = 1000
    max_page_size: int = 1000
    default_page_size: int = 100
    max_group_ops: int = 1000
    max_labels: int = 32
    max_labels_bytes: int = 1 * KIB
    max_value_bytes: int = 8 * MIB
    max_value_depth: int = 64
    max_text_bytes: int = 1 * MIB
    max_query_text_bytes: int = 8 * KIB
    max_filter_bytes: int = 256 * KIB
    max_filter_depth: int = 16
    max_filter_elements: int = 1000
    max_search_limit: int = 1000
    max_list_limit: int = 10_000
    max_offset: int = 2**31 - 1
    max_conditions: int = 8
    max_dims: int = 16_000
    max_vectors: int = 1024
    max_ttl: float = 100 * 365.25 * 86_400
    default_timeout: float = 10.0
    max_timeout: float = 60.0
