"""TenureSaver as LangGraph sees it."""

from __future__ import annotations

import inspect
import itertools

import pytest
import tenure_client
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from tenure_client import InvalidRequest, TenureSaver, TenureSerializer

METHODS = [
    "get_tuple",
    "list",
    "put",
    "put_writes",
    "delete_thread",
    "delete_for_runs",
    "copy_thread",
    "prune",
    "get_delta_channel_history",
]


@pytest.fixture
def saver() -> TenureSaver:
    return TenureSaver("127.0.0.1:1", api_key="tn_x")


@pytest.mark.parametrize("name", [*METHODS, *("a" + name for name in METHODS), "get_next_version"])
def test_every_method_is_overridden_with_the_same_parameters(name: str) -> None:
    base, ours = getattr(BaseCheckpointSaver, name), getattr(TenureSaver, name)

    assert ours is not base
    assert [(p.name, p.kind, p.default) for p in inspect.signature(ours).parameters.values()] == [
        (p.name, p.kind, p.default) for p in inspect.signature(base).parameters.values()
    ]


def test_versions_grow_and_have_a_random_tail(saver: TenureSaver) -> None:
    versions = [saver.get_next_version(None, None)]
    for _ in range(20):
        versions.append(saver.get_next_version(versions[-1], None))

    assert all(a < b for a, b in itertools.pairwise(versions))
    assert saver.get_next_version(None, None) != saver.get_next_version(None, None)


@pytest.mark.parametrize("current", [None, 7, "00000000000000000000000000000009.0123"])
def test_versions_are_those_of_the_reference(saver: TenureSaver, current: str | None) -> None:
    ours, theirs = (one.get_next_version(current, None) for one in (saver, InMemorySaver()))

    assert ours.split(".")[0] == theirs.split(".")[0]
    assert abs(len(ours) - len(theirs)) < 4


def test_the_serializer_is_ours_by_default(saver: TenureSaver) -> None:
    assert isinstance(saver.serde, TenureSerializer)


def test_allowed_types_are_for_the_default_serializer_only() -> None:
    with pytest.raises(InvalidRequest, match="serde="):
        TenureSaver("127.0.0.1:1", api_key="tn_x", serde=TenureSerializer(), allowed_types=[])


def test_all_public_names_exist() -> None:
    assert tenure_client.__all__ == sorted(tenure_client.__all__)
    assert all(hasattr(tenure_client, name) for name in tenure_client.__all__)
