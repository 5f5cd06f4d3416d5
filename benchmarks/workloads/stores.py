"""The workloads of long-term memory, in a full and a quick size."""

from __future__ import annotations

from benchmarks.workloads.base import Workload
from benchmarks.workloads.items import FilterSearches, Gets, Puts
from benchmarks.workloads.vectors import VectorSearches

_SHAPES = (
    "Processes are many services that share one memory: each has a store object and a pool of its own. "
    "In one process AsyncPostgresStore's background task folds what its tasks ask "
    "for at one time, as Tenure's client does."
)
_VECTORS = (
    "Unit vectors of 384 numbers in clusters, not from a model. Recall is the share of the 10 nearest items, "
    "found by comparing with all, that a search returns; a p50 says little without it."
)
_BOTH = ("postgres", "tenure")


def full() -> list[Workload]:
    """Return those of a full run."""
    return [
        Puts(
            name="store-put-32",
            part="k",
            title="small items put by 32 clients, half new and half overwritten",
            note=_SHAPES,
            operations=3840,
        ),
        Gets(
            name="store-get-32",
            part="k",
            title="small items got by 32 clients",
            note=_SHAPES,
            operations=1920,
        ),
        FilterSearches(
            name="store-search-filter",
            part="k",
            title="search by filter in a namespace of 10,000 items, limit 10",
            items=10_000,
            searches=60,
            systems=("memory", *_BOTH),
        ),
        VectorSearches(
            name="store-vector-10k",
            part="l",
            title="semantic search in 10,000 items, limit 10",
            note=_VECTORS,
            large=10_000,
            searches=60,
            systems=_BOTH,
        ),
        VectorSearches(
            name="store-vector-100k",
            part="l",
            title="semantic search in 100,000 items, limit 10",
            note=_VECTORS,
            large=100_000,
            searches=60,
            systems=_BOTH,
        ),
        VectorSearches(
            name="store-recall",
            part="l",
            title="semantic search of 100 tenants with 1,000 items each, limit 10",
            note=_VECTORS,
            tenants=100,
            searches=100,
            systems=_BOTH,
            rounds=1,
        ),
    ]


def quick() -> list[Workload]:
    """Return one of them, small."""
    return [
        Puts(
            name="store-put-32",
            part="k",
            title="small items put by 32 clients, half new and half overwritten",
            operations=960,
            systems=("memory", *_BOTH),
            rounds=1,
        )
    ]
