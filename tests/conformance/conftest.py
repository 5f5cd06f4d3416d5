"""A store of a new tenant, on each server and in each colour."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tenure_client import TenureStore

from tests.harness.stack import Target

Do = Callable[..., Awaitable[Any]]
"""Calls a method of the store in the colour of the test."""


@pytest.fixture(params=["memory_stack", "stack"], ids=["memory", "full"])
def target(request: pytest.FixtureRequest) -> Target:
    """A server on in-memory storage, and one on Postgres and Redis."""
    found: Target = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def index() -> Any:
    return None


@pytest.fixture
async def store(target: Target, index: Any) -> AsyncIterator[TenureStore]:
    async with TenureStore(target.target, api_key=target.new_tenant().api_key, index=index) as opened:
        yield opened


@pytest.fixture(params=["sync", "async"])
def do(request: pytest.FixtureRequest, store: TenureStore) -> Do:
    async def call(method: str, *args: Any, **kwargs: Any) -> Any:
        if request.param == "async":
            return await getattr(store, f"a{method}")(*args, **kwargs)
        return await asyncio.to_thread(getattr(store, method), *args, **kwargs)

    return call
