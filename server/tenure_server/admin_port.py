"""The port of AdminService: a server of its own in the same process, on connections of its own."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from grpc_health.v1 import _async as health
from grpc_health.v1 import health_pb2_grpc
from tenure.v1 import admin_pb2_grpc

from tenure_server.admission import Admission
from tenure_server.auth import Authenticator
from tenure_server.config import Config
from tenure_server.gate import Gate
from tenure_server.listening import bind, server_options
from tenure_server.services.admin import AdminService

_DRAIN = 5.0

_log = logging.getLogger("tenure")


@asynccontextmanager
async def admin_port(config: Config, servicer: health.HealthServicer) -> AsyncIterator[str]:
    """Serve AdminService, and health, while the block runs; gives host:port.

    Args:
        config: Settings with `admin_listen` and `ops_database_url`.
        servicer: Health of the process.

    Raises:
        ConfigError: The port is taken, or the role of the database may not act as `tenure_ops`.
    """
    from tenure_server.storage.postgres.administration import PostgresAdministration
    from tenure_server.storage.postgres.ops_pool import OpsPool

    assert config.admin_listen is not None
    assert config.ops_database_url is not None
    pool = await OpsPool.open(config.ops_database_url)
    try:
        store = PostgresAdministration(pool)
        # Keys are looked up for each call: here a revocation takes effect at once.
        gate = Gate(Authenticator(store, trust=0.0), Admission())
        server = grpc.aio.server(interceptors=[gate], options=server_options(config))
        admin_pb2_grpc.add_AdminServiceServicer_to_server(AdminService(store), server)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        target = bind(server, config, "TENURE_ADMIN_LISTEN", config.admin_listen)
        await server.start()
        _log.info("administration listens on %s", target)
        try:
            yield target
        finally:
            await server.stop(min(config.drain, _DRAIN))
    finally:
        await pool.close()
