"""Hypothesis profiles, a database for the stores that are compared, and a loop for the saver."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.databases import Postgres
from tests.harness.server import ServerProcess
from tests.harness.stack import Stack
from tests.property import profiles
from tests.storage.conftest import contract_database

__all__ = ["contract_database"]

profiles.load()


@pytest.fixture
def unswept(open_folder: Path, postgres: Postgres, migrated: str, redis_url: str) -> Iterator[Stack]:
    """A whole Tenure without a sweeper, which would forget the places of empty namespaces at any time."""
    database = postgres.database(postgres.create_database(template=migrated))
    process = ServerProcess(
        open_folder,
        database,
        redis_url,
        env=dict.fromkeys(("TENURE_OPS_DATABASE_URL", "TENURE_ADMIN_DATABASE_URL"), ""),
    )
    try:
        yield Stack(process.start(), database, redis_url)
    finally:
        process.close()
        postgres.drop_database(database.name)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """An event loop for the asynchronous colour."""
    with asyncio.Runner() as opened:
        yield opened
