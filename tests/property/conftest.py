"""Hypothesis profiles, a database for the stores that are compared, and a loop for the saver."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.property import profiles
from tests.storage.conftest import contract_database

__all__ = ["contract_database"]

profiles.load()


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """An event loop for the asynchronous colour."""
    with asyncio.Runner() as opened:
        yield opened
