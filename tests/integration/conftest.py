"""Fixtures of AdminService."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.server import ServerProcess
from tests.harness.stack import Stack
from tests.integration.admin_support import ADMIN_ENV, Caller, callers


@pytest.fixture
def operator(stack: Stack) -> Iterator[Caller]:
    """An operator of the run's stack."""
    with callers(stack.admin_target, stack.new_operator()) as (caller,):
        yield caller


@pytest.fixture(scope="module")
def replica(run_folder: Path, stack: Stack) -> Iterator[ServerProcess]:
    """A second server on the run's database, without a cache."""
    server = ServerProcess(run_folder, stack.database, env=ADMIN_ENV)
    yield server.start()
    server.close()
