"""Fixtures that every test may use. Servers start once per run and when first asked for."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tenure_server.local.postgres import LocalPostgres
from tenure_server.local.valkey import LocalValkey

from tests.harness import server
from tests.harness.databases import (
    Database,
    Postgres,
    PrivatePostgresFactory,
    PrivateRedis,
    PrivateRedisFactory,
)
from tests.harness.server import ServerProcess
from tests.harness.stack import MemoryStack, Stack

if TYPE_CHECKING:
    from tenure_client import TenureSaver


@pytest.fixture(scope="session")
def run_folder() -> Iterator[Path]:
    """A folder of this run that, unlike pytest's, other accounts may pass: as root, Postgres is one."""
    folder = Path(tempfile.mkdtemp(prefix="tenure-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def open_folder(run_folder: Path) -> Iterator[Path]:
    """An empty folder of one test in `run_folder`, for servers of its own."""
    folder = Path(tempfile.mkdtemp(dir=run_folder))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres(run_folder: Path) -> Iterator[Postgres]:
    """The run's Postgres; TENURE_TEST_DSN names another, as its superuser."""
    external = os.environ.get("TENURE_TEST_DSN")
    if external:
        yield Postgres(external)
        return
    local = LocalPostgres(run_folder / "postgres")
    local.start()
    yield Postgres(local)
    local.stop()


@pytest.fixture(scope="session")
def migrated(postgres: Postgres) -> Iterator[str]:
    """Name of a database with our schema and nothing else, to be copied."""
    database = postgres.migrated_database()
    yield database.name
    postgres.drop_database(database.name)


@pytest.fixture
def database(postgres: Postgres, migrated: str) -> Iterator[Database]:
    """A database of one test, with our schema."""
    name = postgres.create_database(template=migrated)
    yield postgres.database(name)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def redis_url(run_folder: Path) -> Iterator[str]:
    """The run's Valkey; TENURE_TEST_REDIS names another."""
    external = os.environ.get("TENURE_TEST_REDIS")
    if external:
        yield external
        return
    local = LocalValkey(run_folder / "valkey")
    local.start()
    yield local.url
    local.stop()


@pytest.fixture
def private_postgres(open_folder: Path) -> Iterator[PrivatePostgresFactory]:
    """Makes Postgres servers of one test, to be killed and restarted."""
    with ExitStack() as stack:

        def make() -> Postgres:
            local = LocalPostgres(Path(tempfile.mkdtemp(dir=open_folder)))
            stack.callback(local.stop)
            local.start()
            return Postgres(local)

        yield make


@pytest.fixture
def private_redis(open_folder: Path) -> Iterator[PrivateRedisFactory]:
    """Makes Valkey servers of one test, to be killed, paused and emptied."""
    with ExitStack() as stack:

        def make() -> PrivateRedis:
            private = PrivateRedis(Path(tempfile.mkdtemp(dir=open_folder)))
            stack.callback(private.close)
            return private

        yield make


@pytest.fixture(scope="session")
def stack(run_folder: Path, postgres: Postgres, migrated: str, redis_url: str) -> Iterator[Stack]:
    """The run's whole Tenure: a server process on Postgres and Redis. Be kind to it."""
    database = postgres.database(postgres.create_database(template=migrated))
    # A busy machine must not turn what is in Redis into misses.
    env = {"TENURE_REDIS_TIMEOUT_SECONDS": "10", "TENURE_ADMIN_LISTEN": "127.0.0.1:0"}
    process = ServerProcess(run_folder, database, redis_url, env=env)
    try:
        yield Stack(process.start(), database, redis_url)
    finally:
        process.close()
        postgres.drop_database(database.name)


@pytest.fixture(scope="session")
def memory_stack(run_folder: Path) -> Iterator[MemoryStack]:
    """The run's server process on in-memory storage."""
    memory = MemoryStack(run_folder)
    yield memory
    memory.close()


@pytest.fixture
def saver(stack: Stack) -> Iterator[TenureSaver]:
    """A saver for a new tenant of the run's stack."""
    from tenure_client import TenureSaver

    with TenureSaver(stack.target, api_key=stack.new_tenant().api_key) as opened:
        yield opened


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the servers' logs with a failure."""
    report = yield
    if report.failed:
        report.sections += server.logs()
    return report
