"""The composition root: storage, services, gate, health and the life of a server process.

The only module that knows every other.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import grpc
from grpc_health.v1 import _async as health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tenure.v1 import (
    cache_pb2,
    cache_pb2_grpc,
    checkpoints_pb2,
    checkpoints_pb2_grpc,
    server_pb2,
    server_pb2_grpc,
    store_pb2,
    store_pb2_grpc,
)

from tenure_server import __version__, errors, telemetry
from tenure_server.admin_port import admin_port
from tenure_server.admission import Admission
from tenure_server.auth import Authenticator
from tenure_server.config import Config
from tenure_server.errors import ConfigError
from tenure_server.gate import Gate
from tenure_server.listening import bind, server_options
from tenure_server.metering import Meter
from tenure_server.rates import SharedBuckets
from tenure_server.secret_file import write_secret
from tenure_server.services.checkpoints import CheckpointService
from tenure_server.services.node_cache import CacheService
from tenure_server.services.server_info import ServerService
from tenure_server.services.sessions import Sessions
from tenure_server.services.store import StoreService
from tenure_server.services.store_batches import StoreBatches
from tenure_server.storage.cached import CachedCheckpoints
from tenure_server.storage.coalescing import CoalescedCheckpoints
from tenure_server.storage.item_queues import CoalescedItems
from tenure_server.storage.node_cache import RedisNodeCache
from tenure_server.storage.ports import CheckpointStore, ItemStore, KeyStore, LeaseStore, NodeCache
from tenure_server.storage.redis_cache import RedisCache
from tenure_server.storage.shared_rates import RedisBuckets

_log = logging.getLogger("tenure")

LIVENESS = "liveness"
"""Health service that is SERVING as long as the process lives; "" is readiness."""
SERVICES: Final = (
    cache_pb2.DESCRIPTOR.services_by_name["CacheService"].full_name,
    checkpoints_pb2.DESCRIPTOR.services_by_name["CheckpointService"].full_name,
    store_pb2.DESCRIPTOR.services_by_name["StoreService"].full_name,
    server_pb2.DESCRIPTOR.services_by_name["ServerService"].full_name,
)
_READINESS_INTERVAL = 2.0
_SWEEP_INTERVAL = 60.0
_COLLECT_AFTER = (20_000, 20, 20)
"""Objects and collections between collections of garbage: serving a batch leaves no circles, so that most of
the usual ones, after each 700 objects, find nothing (2 % of the server's CPU)."""


@dataclass(frozen=True, slots=True)
class Storage:
    """What a server serves from.

    Attributes:
        checkpoints: Checkpoints, with the cache in front if there is one.
        leases: Leases on their threads.
        items: Items.
        keys: API keys.
        check: Raises `Unavailable` with what to do while requests cannot be served.
        node_cache: Results of graph nodes; None = none are kept.
        buckets: What replicas share of tenants' rates; None = nothing.
    """

    checkpoints: CheckpointStore
    leases: LeaseStore
    items: ItemStore
    keys: KeyStore
    check: Callable[[], Awaitable[None]]
    node_cache: NodeCache | None = None
    buckets: SharedBuckets | None = None


@dataclass(frozen=True, slots=True)
class Targets:
    """Where a server listens.

    Attributes:
        target: host:port of what agents use.
        admin_target: host:port of AdminService, None if it is not served.
    """

    target: str
    admin_target: str | None = None

    def told(self) -> dict[str, str]:
        """Return what the ready file says."""
        if self.admin_target is None:
            return {"target": self.target}
        return {"target": self.target, "admin_target": self.admin_target}


@asynccontextmanager
async def open_storage(config: Config) -> AsyncIterator[Storage]:
    """Connect to Postgres, and to Redis if there is one.

    Raises:
        ConfigError: The role or the version of the database is not fit.
    """
    from tenure_server.storage.postgres.checkpoints import PostgresCheckpoints
    from tenure_server.storage.postgres.items import PostgresItems
    from tenure_server.storage.postgres.leases import PostgresLeases
    from tenure_server.storage.postgres.pool import Database
    from tenure_server.storage.postgres.retention_sweeping import PolicySweeping
    from tenure_server.storage.postgres.sweeper import Sweeper
    from tenure_server.storage.postgres.tenants import PostgresKeys

    assert config.database_url is not None
    async with AsyncExitStack() as stack:
        database = await Database.open(
            config.database_url, max_size=config.pool_size, application_name="tenure"
        )
        stack.push_async_callback(database.close)
        checkpoints: CheckpointStore
        checkpoints = queued = CoalescedCheckpoints(
            PostgresCheckpoints(database, inline_bytes=config.inline_bytes)
        )
        stack.push_async_callback(queued.close)
        node_cache: NodeCache | None = None
        buckets: SharedBuckets | None = None
        if config.redis_url:
            cache = RedisCache(config.redis_url, ttl=config.cache_ttl, timeout=config.redis_timeout)
            stack.push_async_callback(cache.close)
            node_cache = RedisNodeCache(cache)
            buckets = RedisBuckets(cache)
            checkpoints = cached = CachedCheckpoints(checkpoints, cache, inline_bytes=config.inline_bytes)
            stack.push_async_callback(cached.close)
        if config.ops_database_url:
            stop = asyncio.Event()
            sweeping = asyncio.create_task(
                Sweeper(config.ops_database_url, PolicySweeping(database)).run(stop, _SWEEP_INTERVAL),
                name="sweeper",
            )
            stack.push_async_callback(_finish, stop, sweeping)
        stored_items = PostgresItems(database)
        stack.push_async_callback(stored_items.close)
        items = CoalescedItems(stored_items)
        stack.push_async_callback(items.close)
        yield Storage(
            checkpoints,
            PostgresLeases(database),
            items,
            PostgresKeys(database),
            database.ready,
            node_cache,
            buckets,
        )


async def serve(
    config: Config,
    *,
    storage: Storage | None = None,
    on_ready: Callable[[Targets], None] = lambda targets: None,
    on_health: Callable[[bool], None] = lambda ready: None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`, then drain.

    Args:
        config: Settings, already checked.
        storage: What to serve from; by default what the settings name.
        on_ready: Called once with where it listens when requests can be served.
        on_health: Called with each change of whether they can, and when the drain begins.
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
        sessions = Sessions()
        meter = Meter(storage.buckets, replicas=config.replicas)
        counting_ends = asyncio.Event()
        counting = asyncio.create_task(meter.run(counting_ends), name="replicas")
        stack.push_async_callback(_finish, counting_ends, counting)
        server, target = _listen(config, storage, sessions, meter)
        health_servicer = await new_health()
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
        if config.health_listen is not None:
            await stack.enter_async_context(health_port(config.health_listen, health_servicer))
        # What is there by now stays: looking at it in each full collection would hold up everybody for 40 ms.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_COLLECT_AFTER)
        await server.start()
        targets = Targets(target)
        if config.admin_listen is not None:
            targets = Targets(target, await stack.enter_async_context(admin_port(config, health_servicer)))

        def announce() -> None:
            if config.ready_file is not None:
                write_secret(config.ready_file, json.dumps(targets.told()))
            on_ready(targets)

        watching = asyncio.create_task(
            _watch_readiness(storage, health_servicer, announce, on_health), name="readiness"
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
        await set_health(health_servicer, ready=False)
        on_health(False)
        sessions.drain()
        await server.stop(config.drain)
        if config.ready_file is not None:
            config.ready_file.unlink(missing_ok=True)
    telemetry.flush()
    _log.info("stopped")


def _listen(
    config: Config, storage: Storage, sessions: Sessions, meter: Meter
) -> tuple[grpc.aio.Server, str]:
    gate = Gate(Authenticator(storage.keys), Admission(), meter)
    server = grpc.aio.server(interceptors=[gate], options=server_options(config))
    batches = StoreBatches(storage.items, config.limits)
    checkpoints_pb2_grpc.add_CheckpointServiceServicer_to_server(
        CheckpointService(storage.checkpoints, storage.leases, batches, config.limits, sessions), server
    )
    store_pb2_grpc.add_StoreServiceServicer_to_server(
        StoreService(storage.items, batches, config.limits), server
    )
    cache_pb2_grpc.add_CacheServiceServicer_to_server(CacheService(storage.node_cache, config.limits), server)
    server_pb2_grpc.add_ServerServiceServicer_to_server(ServerService(config.limits), server)
    return server, bind(server, config, "TENURE_LISTEN", config.listen)


async def new_health() -> health.HealthServicer:
    """Return a health service that says: alive, not ready yet."""
    servicer = health.HealthServicer()
    await set_health(servicer, ready=False)
    await servicer.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
    return servicer


async def set_health(servicer: health.HealthServicer, *, ready: bool) -> None:
    """Say whether requests can be served."""
    state = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
    for name in ("", *SERVICES):
        await servicer.set(name, state)


@asynccontextmanager
async def health_port(listen: str, servicer: health.HealthServicer) -> AsyncIterator[None]:
    """Serve health alone on a port of its own, in plaintext, while the block runs.

    Raises:
        ConfigError: The port is taken.
    """
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    try:
        server.add_insecure_port(listen)
    except RuntimeError:
        raise ConfigError(
            [f"TENURE_HEALTH_LISTEN: cannot listen on {listen}; is another server there?"]
        ) from None
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


async def _watch_readiness(
    storage: Storage,
    servicer: health.HealthServicer,
    announce: Callable[[], None],
    on_health: Callable[[bool], None],
) -> None:
    """Keep the health service true: SERVING while the database answers and has the schema we need.

    Redis does not count: without it the answers are the same.
    """
    announced = was_ready = False
    problem = ""
    while True:
        try:
            await storage.check()
        except errors.TenureError as error:
            ready = False
            if str(error) != problem:
                problem = str(error)
                _log.error("not ready: %s", problem)
        else:
            ready = True
            if problem:
                _log.info("ready again")
                problem = ""
        await set_health(servicer, ready=ready)
        if ready and not announced:
            announced = True
            announce()
        if ready != was_ready:
            was_ready = ready
            on_health(ready)
        await asyncio.sleep(_READINESS_INTERVAL)


async def _finish(stop: asyncio.Event, task: asyncio.Task[None]) -> None:
    stop.set()
    await task
