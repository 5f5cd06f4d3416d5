"""The port of AdminService: a server of its own in the same process, on connections of its own."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
from grpc_health.v1 import _async as health
from grpc_health.v1 import health_pb2_grpc
from tenure.v1 import admin_pb2_grpc, quotas_pb2_grpc, retention_pb2_grpc, writers_pb2_grpc

from tenure_server.admission import Admission
from tenure_server.auth import Authenticator
from tenure_server.config import Config
from tenure_server.gate import Gate
from tenure_server.listening import bind, server_options
from tenure_server.services.admin import AdminService
from tenure_server.services.quotas import QuotaService
from tenure_server.services.retention import RetentionService
from tenure_server.services.writers import WriterService

_DRAIN = 5.0
_CONNECTIONS = 2
"""As `tenure_app`, for what must not wait; previews have their own."""

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
    from tenure_server.storage.postgres.pool import Database
    from tenure_server.storage.postgres.quotas import PostgresQuotas
    from tenure_server.storage.postgres.retention import MAX_PREVIEWS, PostgresRetention
    from tenure_server.storage.postgres.retention_sweeping import SETTLE
    from tenure_server.storage.postgres.usage_parts import PostgresUsageParts
    from tenure_server.storage.postgres.writer_policies import PostgresWriterPolicies

    assert config.admin_listen is not None
    assert config.ops_database_url is not None
    assert config.database_url is not None
    async with AsyncExitStack() as stack:
        pool = await OpsPool.open(config.ops_database_url)
        stack.push_async_callback(pool.close)
        # What has expired is told within a tenant; nothing that agents do waits for that.
        database = await Database.open(
            config.database_url, max_size=_CONNECTIONS, application_name="tenure retention"
        )
        stack.push_async_callback(database.close)
        previews = await Database.open(
            config.database_url, max_size=MAX_PREVIEWS, application_name="tenure previews"
        )
        stack.push_async_callback(previews.close)
        store = PostgresAdministration(pool)
        # Keys are looked up for each call: here a revocation takes effect at once.
        gate = Gate(Authenticator(store, trust=0.0), Admission())
        server = grpc.aio.server(interceptors=[gate], options=server_options(config))
        admin_pb2_grpc.add_AdminServiceServicer_to_server(AdminService(store), server)
        writers_pb2_grpc.add_WriterServiceServicer_to_server(
            WriterService(PostgresWriterPolicies(pool)), server
        )
        quotas_pb2_grpc.add_QuotaServiceServicer_to_server(
            QuotaService(PostgresQuotas(pool), PostgresUsageParts(pool), config.limits), server
        )
        retention = PostgresRetention(pool, database, SETTLE, previews)
        retention_pb2_grpc.add_RetentionServiceServicer_to_server(
            RetentionService(retention, config.limits), server
        )
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        target = bind(server, config, "TENURE_ADMIN_LISTEN", config.admin_listen)
        await server.start()
        _log.info("administration listens on %s", target)
        try:
            yield target
        finally:
            await server.stop(min(config.drain, _DRAIN))
