"""LangGraph's own conformance suite, in both colours, against a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability
from tenure_client import TenureSaver

from tests.conformance.sync_as_async import SyncAsAsync
from tests.harness.stack import Target

Colour = Callable[[TenureSaver], BaseCheckpointSaver[Any]]
COLOURS = pytest.mark.parametrize("colour", [lambda saver: saver, SyncAsAsync], ids=["async", "sync"])


@pytest.fixture(params=["memory_stack", "stack"], ids=["memory", "full"])
def target(request: pytest.FixtureRequest) -> Target:
    """A server on in-memory storage, and one on Postgres and Redis."""
    found: Target = request.getfixturevalue(request.param)
    return found


@COLOURS
async def test_all_capabilities_are_detected_and_pass(target: Target, colour: Colour) -> None:
    @checkpointer_test(name="TenureSaver")
    async def factory() -> AsyncIterator[BaseCheckpointSaver[Any]]:
        async with TenureSaver(target.target, api_key=target.new_tenant().api_key) as saver:
            yield colour(saver)

    report = await validate(factory)

    assert {name: result.failures for name, result in report.results.items() if result.failures} == {}
    assert {name for name, result in report.results.items() if result.detected and result.passed} == {
        capability.value for capability in Capability
    }
    assert all(result.tests_passed for result in report.results.values())
