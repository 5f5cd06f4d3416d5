"""What a worker is told: its part of what the whole server was given."""

from __future__ import annotations

from collections.abc import Mapping

from tenure_server.config import Config

_MIN_POOL = 2
"""Connections of a worker at least: with one, a slow statement would make it look not ready."""


def worker_environment(
    env: Mapping[str, str],
    config: Config,
    target: str,
    number: int,
    server_id: str,
    admin_target: str | None = None,
) -> dict[str, str]:
    """Return the environment of a worker: its part of what the whole server was given.

    Args:
        env: Environment of the parent.
        config: Settings of the whole server.
        target: host:port that all workers listen on.
        number: The worker's, from 1.
        admin_target: host:port of AdminService, which worker 1 serves; None = nobody does.
        server_id: Tells this server from others in telemetry, if the environment does not.
    """
    ours = {"TENURE_ADMIN_LISTEN", "TENURE_HEALTH_LISTEN", "TENURE_READY_FILE", "TENURE_WORKERS"}
    if number != 1:
        ours |= {"TENURE_OPS_DATABASE_URL", "TENURE_ADMIN_DATABASE_URL"}
    resource = dict(
        entry.split("=", 1) for entry in env.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",") if "=" in entry
    )
    # Under one id the series of several workers would overwrite each other.
    resource["service.instance.id"] = f"{resource.get('service.instance.id', server_id)}-{number}"
    admin = {} if admin_target is None or number != 1 else {"TENURE_ADMIN_LISTEN": admin_target}
    return (
        {name: value for name, value in env.items() if name not in ours}
        | admin
        | {
            "TENURE_LISTEN": target,
            "TENURE_POOL_SIZE": str(max(_MIN_POOL, config.pool_size // config.workers)),
            "TENURE_REPLICAS": str(config.replicas * config.workers),
            "OTEL_RESOURCE_ATTRIBUTES": ",".join(f"{name}={value}" for name, value in resource.items()),
        }
    )
