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
    default_timeout: float = 10.0
    max_timeout: float = 60.0
