"""`tenure dev`: a whole Tenure on this machine, with its databases, a tenant and a key."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import psycopg

from tenure_server import app
from tenure_server.config import Config
from tenure_server.domain import OPERATORS, TENANT_SCOPES, Role
from tenure_server.local.account import default_data_dir, private_folder
from tenure_server.local.errors import DevError as DevError
from tenure_server.local.ports import HOST
from tenure_server.local.postgres import LocalPostgres
from tenure_server.local.valkey import LocalValkey
from tenure_server.secret_file import write_secret
from tenure_server.storage.ports import TenantAdmin

DATABASE = "tenure"
_TENANT_NAME = "dev"
_DRAIN = 2.0
_PARENT_CHECK = 0.5


@dataclass(frozen=True, slots=True)
class _Credentials:
    """What the first start makes and later ones use again."""

    app_password: str
    ops_password: str
    tenant_id: str
    api_key: str
    operator_key: str = ""


@dataclass(frozen=True, slots=True)
class Ready:
    """What the ready file says, as JSON.

    Attributes:
        target: host:port of the server.
        api_key / tenant_id: The tenant made on the first start, and its key.
        database_url: The superuser of the embedded Postgres, so that other databases can be made beside
            ours; None in memory.
        app_database_url: The role that the server uses; None in memory.
        redis_url: The embedded Valkey; None in memory.
        admin_target: host:port of AdminService; None in memory.
        operator_key: A key that may administer all tenants; None in memory.
    """

    target: str
    api_key: str
    tenant_id: str
    database_url: str | None = None
    app_database_url: str | None = None
    redis_url: str | None = None
    admin_target: str | None = None
    operator_key: str | None = None


async def dev(
    *,
    port: int,
    admin_port: int | None = None,
    data_dir: Path | None = None,
    ready_file: Path | None = None,
    memory: bool = False,
    outlive_parent: bool = False,
) -> None:
    """Run a local Tenure until SIGINT, SIGTERM or the parent's end; nothing that it started outlives it.

    Args:
        port: Port on 127.0.0.1; 0 takes a free one.
        admin_port: Port of AdminService, which needs the databases; None = two above the other port, or a
            free one if that is 0.
        data_dir: Where the databases live; made if need be. Default: a state folder of the user.
        ready_file: Written once it serves, as `Ready` in JSON that only its owner reads; removed at the end.
        memory: Keep everything in memory instead.
        outlive_parent: Go on when the process that started this one ends.

    Raises:
        DevError: Something is missing, or another one runs on the same folder; says what to do.
        ConfigError: The port is taken.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    watching = None if outlive_parent else asyncio.create_task(_stop_with_parent(stop))
    try:
        if memory:
            with _announcing("in memory, gone at the end", ready_file) as say:
                await _serve_memory(port, say, stop)
        else:
            folder = private_folder(data_dir or default_data_dir())
            with _only_one(folder) as hold, _announcing(f"in {folder}", ready_file) as say:

                def hold_and_say(ready: Ready) -> None:
                    hold(ready.target)
                    say(ready)

                if admin_port is None:
                    admin_port = port + 2 if port else 0
                await _serve_databases(port, admin_port, folder, hold_and_say, stop)
    finally:
        if watching is not None:
            watching.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _serve_memory(port: int, say: Callable[[Ready], None], stop: asyncio.Event) -> None:
    from tenure_server.storage.memory import MemoryCheckpoints, MemoryTenants
    from tenure_server.storage.memory_items import MemoryItems
    from tenure_server.storage.memory_leases import MemoryLeases
    from tenure_server.storage.node_cache import MemoryNodeCache

    async def always_ready() -> None:
        return

    tenants, checkpoints = MemoryTenants(), MemoryCheckpoints()
    tenant_id, api_key = await _new_tenant(tenants)
    await app.serve(
        Config(listen=f"{HOST}:{port}", drain=_DRAIN),
        storage=app.Storage(
            checkpoints, MemoryLeases(checkpoints), MemoryItems(), tenants, always_ready, MemoryNodeCache()
        ),
        on_ready=lambda targets: say(Ready(targets.target, api_key, tenant_id)),
        stop=stop,
    )


async def _serve_databases(
    port: int, admin_port: int, folder: Path, say: Callable[[Ready], None], stop: asyncio.Event
) -> None:
    postgres, valkey = LocalPostgres(folder), LocalValkey(folder)
    async with _running(postgres, valkey):
        if stop.is_set():
            return
        credentials = await _prepare(postgres, folder)
        app_url = postgres.url(DATABASE, user="tenure_app", password=credentials.app_password)
        config = Config(
            listen=f"{HOST}:{port}",
            database_url=app_url,
            ops_database_url=postgres.url(DATABASE, user="tenure_ops", password=credentials.ops_password),
            redis_url=valkey.url,
            admin_listen=f"{HOST}:{admin_port}",
            drain=_DRAIN,
        )

        def on_ready(targets: app.Targets) -> None:
            say(
                Ready(
                    targets.target,
                    credentials.api_key,
                    credentials.tenant_id,
                    database_url=postgres.url(DATABASE),
                    app_database_url=app_url,
                    redis_url=valkey.url,
                    admin_target=targets.admin_target,
                    operator_key=credentials.operator_key,
                )
            )

        watching = asyncio.create_task(_stop_with(postgres, stop))
        try:
            await app.serve(config, on_ready=on_ready, stop=stop)
        finally:
            watching.cancel()
        if not postgres.running:
            raise DevError(f"Postgres ended by itself; {postgres.log} says why")


@asynccontextmanager
async def _running(postgres: LocalPostgres, valkey: LocalValkey) -> AsyncIterator[None]:
    """Start both at the same time and stop both, also if one of them does not start."""
    servers = (postgres, valkey)
    try:
        starts = await asyncio.gather(
            *(asyncio.to_thread(server.start) for server in servers), return_exceptions=True
        )
        for failure in starts:
            if failure is not None:
                raise failure
        yield
    finally:
        await asyncio.gather(*(asyncio.to_thread(server.stop) for server in servers))


async def _stop_with(postgres: LocalPostgres, stop: asyncio.Event) -> None:
    """Stop when Postgres ends. Without Valkey we go on: the answers are the same, only slower."""
    await asyncio.to_thread(postgres.wait)
    stop.set()


async def _stop_with_parent(stop: asyncio.Event) -> None:
    """Stop when the process that started us ends, so that a killed test run or script leaves nothing behind.

    Asking now and then is enough. PR_SET_PDEATHSIG would fire already when the *thread* that started us ends.
    """
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110 - nobody tells us
        await asyncio.sleep(_PARENT_CHECK)
    stop.set()


async def _prepare(postgres: LocalPostgres, folder: Path) -> _Credentials:
    """Bring the schema up to date, and make a tenant and a key if the database is new."""
    from tenure_server.storage.postgres.migrate import migrate
    from tenure_server.storage.postgres.tenants import PostgresTenants

    file = folder / "dev.json"
    is_new = await _create_database(postgres.url())
    found = None if is_new or not file.exists() else _Credentials(**json.loads(file.read_text()))
    credentials = found or _Credentials(secrets.token_urlsafe(24), secrets.token_urlsafe(24), "", "")
    await migrate(
        postgres.url(DATABASE),
        app_password=credentials.app_password,
        ops_password=credentials.ops_password,
    )
    tenants = PostgresTenants(postgres.url(DATABASE, user="tenure_ops", password=credentials.ops_password))
    if found is None:
        tenant_id, api_key = await _new_tenant(tenants)
        credentials = replace(credentials, tenant_id=tenant_id, api_key=api_key)
    if not credentials.operator_key:
        operator_key = await tenants.create_key(OPERATORS, Role.OPERATOR.scopes)
        credentials = replace(credentials, operator_key=operator_key)
        write_secret(file, json.dumps(asdict(credentials)))
    return credentials


async def _create_database(url: str) -> bool:
    """Make our database; False if it is there."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        try:
            await connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.errors.DuplicateDatabase:
            return False
    return True


async def _new_tenant(tenants: TenantAdmin) -> tuple[str, str]:
    tenant = await tenants.create_tenant(_TENANT_NAME)
    return str(tenant), await tenants.create_key(tenant, TENANT_SCOPES)


@contextmanager
def _announcing(where: str, ready_file: Path | None) -> Iterator[Callable[[Ready], None]]:
    """Give a function that tells users and the ready file that we serve; the file goes at the end.

    Raises:
        DevError: The file cannot be written.
    """

    def say(ready: Ready) -> None:
        if ready_file is not None:
            write_secret(ready_file, json.dumps(asdict(ready)))
        click.echo(_paste(ready, where))

    if ready_file is None:
        yield say
        return
    if not os.access(ready_file.absolute().parent, os.W_OK):
        raise DevError(f"--ready-file {ready_file}: its folder does not exist or cannot be written to")
    try:
        ready_file.unlink(missing_ok=True)
        yield say
    finally:
        ready_file.unlink(missing_ok=True)


def _paste(ready: Ready, where: str) -> str:
    administer = f"    export TENURE_ADMIN_TARGET={ready.admin_target}\n" if ready.admin_target else ""
    return f"""
Tenure serves on {ready.target} (data {where}). Ctrl-C stops it.

    export TENURE_TARGET={ready.target}
    export TENURE_API_KEY={ready.api_key}
{administer}
    from tenure_client import TenureSaver
    saver = TenureSaver()
    graph = builder.compile(checkpointer=saver)
"""


@contextmanager
def _only_one(folder: Path) -> Iterator[Callable[[str], None]]:
    """Hold the folder for this process, and give a function that says who holds it for what target.

    Raises:
        DevError: Another process holds it.
    """
    with open(os.open(folder / "dev.lock", os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DevError(
                f"`tenure dev` runs on {folder} already ({file.read().strip() or 'it starts just now'}). "
                "Use that one, stop it, or choose another folder with --data-dir."
            ) from None

        def write(text: str) -> None:
            file.seek(0)
            file.truncate()
            file.write(text)
            file.flush()

        write(f"pid {os.getpid()}")
        yield lambda target: write(f"pid {os.getpid()}, {target}")
        write("")
