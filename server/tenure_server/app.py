"""The composition root: storage, services, gate, health and the life of a server process.

The only module that knows every other.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import _async as health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tenure.v1 import checkpoints_pb2, checkpoints_pb2_grpc, server_pb2, server_pb2_grpc

from tenure_server import __version__, errors, telemetry
from tenure_server.admission import Admission
from tenure_server.auth import Authenticator
from tenure_server.config import Config
from tenure_server.errors import ConfigError
from tenure_server.gate import Gate
from tenure_server.limits import KIB, MIB
from tenure_server.secret_file import write_secret
from tenure_server.services.checkpoints import CheckpointService
from tenure_server.services.server_info import ServerService
from tenure_server.storage.cached import CachedCheckpoints
from tenure_server.storage.ports import CheckpointStore, KeyStore
from tenure_server.storage.redis_cache import RedisCache

_log = logging.getLogger("tenure")

LIVENESS = "liveness"
"""Health service that is SERVING as long as the process lives; "" is readiness."""
SERVICES: Final = (
    checkpoints_pb2.DESCRIPTOR.services_by_name["CheckpointService"].full_name,
    server_pb2.DESCRIPTOR.services_by_name["ServerService"].full_name,
)
_READINESS_INTERVAL = 2.0
_SWEEP_INTERVAL = 60.0
_GRPC_OVERHEAD = 64 * KIB


@dataclass(frozen=True, slots=True)
class Storage:
    """What a server serves from.

    Attributes:
        checkpoints: Checkpoints, with the cache in front if there is one.
        keys: API keys.
        check: Raises `Unavailable` with what to do while requests cannot be served.
    """

    checkpoints: CheckpointStore
    keys: KeyStore
    check: Callable[[], Awaitable[None]]


def server_options(config: Config) -> list[tuple[str, int]]:
    """Return gRPC's options; unknown names are ignored by gRPC without a word, so spell them right."""
    return [
        # The typed refusal of a large unary request needs the request to arrive: hence the margin.
        ("grpc.max_receive_message_length", 4 * MIB),
        ("grpc.max_send_message_length", config.limits.max_unary_reply_bytes + _GRPC_OVERHEAD),
        ("grpc.max_metadata_size", 8 * KIB),
        ("grpc.absolute_max_metadata_size", 16 * KIB),
        ("grpc.max_concurrent_streams", 1000),
        ("grpc.max_connection_idle_ms", 15 * 60_000),
        ("grpc.max_connection_age_ms", 30 * 60_000),
        ("grpc.max_connection_age_grace_ms", 30_000),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 60_000),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.server_handshake_timeout_ms", 10_000),
        # On by default in gRPC, where two servers then share a port unseen.
        ("grpc.so_reuseport", int(config.reuse_port)),
    ]


@asynccontextmanager
async def open_storage(config: Config) -> AsyncIterator[Storage]:
    """Connect to Postgres, and to Redis if there is one.

    Raises:
        ConfigError: The role or the version of the database is not fit.
    """
    from tenure_server.storage.postgres.checkpoints import PostgresCheckpoints
    from tenure_server.storage.postgres.pool import Database
    from tenure_server.storage.postgres.sweeper import Sweeper
    from tenure_server.storage.postgres.tenants import PostgresKeys

    assert config.database_url is not None
    async with AsyncExitStack() as stack:
        database = await Database.open(
            config.database_url, max_size=config.pool_size, application_name="tenure"
        )
        stack.push_async_callback(database.close)
        checkpoints: CheckpointStore = PostgresCheckpoints(database, inline_bytes=config.inline_bytes)
        if config.redis_url:
            cache = RedisCache(config.redis_url, ttl=config.cache_ttl)
            stack.push_async_callback(cache.close)
            checkpoints = cached = CachedCheckpoints(checkpoints, cache, inline_bytes=config.inline_bytes)
            stack.push_async_callback(cached.close)
        if config.ops_database_url:
            stop = asyncio.Event()
            sweeping = asyncio.create_task(
                Sweeper(config.ops_database_url).run(stop, _SWEEP_INTERVAL), name="sweeper"
            )
            stack.push_async_callback(_finish, stop, sweeping)
        yield Storage(checkpoints, PostgresKeys(database), database.ready)


async def serve(
    config: Config,
    *,
    storage: Storage | None = None,
    on_ready: Callable[[str], None] = lambda target: None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`, then drain.

    Args:
        config: Settings, already checked.
        storage: What to serve from; by default what the settings name.
        on_ready: Called once with host:port when requests can be served.
        stop: Set it to stop the server; signals set it too.

    Raises:
        ConfigError: The database's role or version is not fit, or the port is taken.
    """
    telemetry.configure(__version__)
    stop = stop or asyncio.Event()
    async with AsyncExitStack() as stack:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
            stack.callback(asyncio.get_running_loop().remove_signal_handler, number)
        if storage is None:
            storage = await stack.enter_async_context(open_storage(config))
        server, port = _listen(config, storage)
        health_servicer = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
        await _set_health(health_servicer, ready=False)
        await health_servicer.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        if config.health_listen is not None:
            probes = grpc.aio.server()
            health_pb2_grpc.add_HealthServicer_to_server(health_servicer, probes)
            probes.add_insecure_port(config.health_listen)
            await probes.start()
            stack.push_async_callback(probes.stop, None)
        await server.start()
        host = config.listen.rpartition(":")[0]
        target = f"{host}:{port}"
        watching = asyncio.create_task(
            _watch_readiness(storage, health_servicer, target, on_ready, config.ready_file), name="readiness"
        )
        _log.info("listening on %s", target)
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, watching}, return_when=asyncio.FIRST_COMPLETED)
        _log.info("draining for at most %g s", config.drain)
        stopping.cancel()
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        # Not ready, but alive: a liveness probe must not end a pod that still drains.
        await _set_health(health_servicer, ready=False)
        await server.stop(config.drain)
        if config.ready_file is not None:
            config.ready_file.unlink(missing_ok=True)
    telemetry.flush()
    _log.info("stopped")


def _listen(config: Config, storage: Storage) -> tuple[grpc.aio.Server, int]:
    gate = Gate(Authenticator(storage.keys), Admission())
    server = grpc.aio.server(interceptors=[gate], options=server_options(config))
    checkpoints_pb2_grpc.add_CheckpointServiceServicer_to_server(
        CheckpointService(storage.checkpoints, config.limits), server
    )
    server_pb2_grpc.add_ServerServiceServicer_to_server(ServerService(config.limits), server)
    try:
        if config.tls_cert is not None and config.tls_key is not None:
            pair = (config.tls_key.read_bytes(), config.tls_cert.read_bytes())
            port = server.add_secure_port(config.listen, grpc.ssl_server_credentials([pair]))
        else:
            port = server.add_insecure_port(config.listen)
    except RuntimeError:
        raise ConfigError(
            [f"TENURE_LISTEN: cannot listen on {config.listen}; is another server there?"]
        ) from None
    return server, port


async def _watch_readiness(
    storage: Storage,
    servicer: health.HealthServicer,
    target: str,
    on_ready: Callable[[str], None],
    ready_file: Path | None,
) -> None:
    """Keep the health service true: SERVING while the database answers and has the schema we need.

    Redis does not count: without it the answers are the same.
    """
    announced = False
    problem = ""
    while True:
        try:
            await storage.check()
        except errors.TenureError as error:
            if str(error) != problem:
                problem = str(error)
                _log.error("not ready: %s", problem)
            await _set_health(servicer, ready=False)
        else:
            if problem:
                _log.info("ready again")
                problem = ""
            await _set_health(servicer, ready=True)
            if not announced:
                announced = True
                if ready_file is not None:
                    write_secret(ready_file, json.dumps({"target": target}))
                on_ready(target)
        await asyncio.sleep(_READINESS_INTERVAL)


async def _set_health(servicer: health.HealthServicer, *, ready: bool) -> None:
    state = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
    for name in ("", *SERVICES):
        await servicer.set(name, state)


async def _finish(stop: asyncio.Event, task: asyncio.Task[None]) -> None:
    stop.set()
    await task
