"""Configuration of `tenure serve`, read from the environment once and checked as a whole."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tenure_server.errors import ConfigError
from tenure_server.limits import Limits

MAX_WORKERS = 64
"""Processes of one server; whoever has more cores runs more servers."""


@dataclass(frozen=True)
class Config:
    """Settings of a server. Durations in seconds.

    Attributes:
        listen: host:port; port 0 takes a free one.
        database_url: Connects as `tenure_app`, the role that owns nothing; None keeps everything in
            memory (`tenure dev --memory`).
        ops_database_url: Connects as `tenure_ops` for the sweeper and AdminService; None = neither of them
            in this replica.
        redis_url: Redis or Valkey; None = no cache.
        admin_listen: host:port for AdminService, with TLS as on `listen`; None = it is not served.
        tls_cert / tls_key: PEM files; both or none.
        health_listen: host:port for the health service alone, in plaintext, since Kubernetes' gRPC probes
            speak no TLS; health tells nothing about tenants. None = only on `listen`.
        insecure_listen: Plaintext beyond loopback was asked for explicitly.
        pool_size: Connections to Postgres.
        drain: Time that running calls get on SIGTERM.
        ready_file: Where to write {"target": ...} as JSON once the server serves.
        inline_bytes: Channel values up to this size come with the head from Postgres; larger ones are
            looked for in Redis.
        cache_ttl: Lifetime of a value in Redis, +-10 %.
        redis_timeout: Time for one command of Redis; what takes longer counts as a miss.
        workers: Processes that share the port and the pool.
        replicas: Servers at least; each lets its share of tenants' rates through while Redis is away.
        reuse_port: This is one of these processes.
    """

    listen: str = "127.0.0.1:7443"
    database_url: str | None = field(default=None, repr=False)
    ops_database_url: str | None = field(default=None, repr=False)
    redis_url: str | None = field(default=None, repr=False)
    admin_listen: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    health_listen: str | None = None
    insecure_listen: bool = False
    pool_size: int = 16
    drain: float = 25.0
    log_level: str = "INFO"
    ready_file: Path | None = None
    inline_bytes: int = 4096
    cache_ttl: float = 3600.0
    redis_timeout: float = 0.05
    workers: int = 1
    replicas: int = 1
    reuse_port: bool = False
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Config:
        """Read `TENURE_*` variables.

        Raises:
            ConfigError: Names every variable that is wrong.
        """
        faults: list[str] = []

        def number(name: str, default: float) -> float:
            try:
                value = float(env.get(name) or default)
            except ValueError:
                value = -1
            if not 0 <= value < math.inf:
                value = -1
                faults.append(f"{name}: must be a number of at least 0, got {env[name]!r}")
            return value

        def workers() -> int:
            text = env.get("TENURE_WORKERS") or str(cls.workers)
            if text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= MAX_WORKERS:
                return int(text)
            faults.append(
                f"TENURE_WORKERS: must be a whole number from 1 to {MAX_WORKERS}, got {text!r}; "
                "give `--workers` about one per core"
            )
            return cls.workers

        config = cls(
            listen=env.get("TENURE_LISTEN") or cls.listen,
            database_url=env.get("TENURE_DATABASE_URL") or None,
            ops_database_url=env.get("TENURE_OPS_DATABASE_URL")
            or env.get("TENURE_ADMIN_DATABASE_URL")
            or None,
            redis_url=env.get("TENURE_REDIS_URL") or None,
            admin_listen=env.get("TENURE_ADMIN_LISTEN") or None,
            tls_cert=Path(env["TENURE_TLS_CERT"]) if env.get("TENURE_TLS_CERT") else None,
            tls_key=Path(env["TENURE_TLS_KEY"]) if env.get("TENURE_TLS_KEY") else None,
            health_listen=env.get("TENURE_HEALTH_LISTEN") or None,
            insecure_listen=env.get("TENURE_INSECURE_LISTEN", "").lower() in {"1", "true", "yes"},
            pool_size=int(number("TENURE_POOL_SIZE", cls.pool_size)),
            drain=number("TENURE_DRAIN_SECONDS", cls.drain),
            log_level=env.get("TENURE_LOG_LEVEL", cls.log_level).upper(),
            ready_file=Path(env["TENURE_READY_FILE"]) if env.get("TENURE_READY_FILE") else None,
            inline_bytes=int(number("TENURE_INLINE_BYTES", cls.inline_bytes)),
            cache_ttl=number("TENURE_CACHE_TTL_SECONDS", cls.cache_ttl),
            redis_timeout=number("TENURE_REDIS_TIMEOUT_SECONDS", cls.redis_timeout),
            workers=workers(),
            replicas=int(number("TENURE_REPLICAS", cls.replicas)),
        )
        faults += config.faults()
        if not config.database_url:
            faults.append(
                "TENURE_DATABASE_URL: is not set; it connects as tenure_app, the role that "
                "`tenure migrate` makes. For a local trial without any set-up run `tenure dev`."
            )
        if faults:
            raise ConfigError(faults)
        return config

    def faults(self) -> list[str]:
        """Return what is wrong with the settings, each with what to do."""
        faults: list[str] = []
        faults += self._listen_faults("TENURE_LISTEN", self.listen)
        if self.admin_listen is not None:
            faults += self._listen_faults("TENURE_ADMIN_LISTEN", self.admin_listen)
            if not self.ops_database_url:
                faults.append(
                    "TENURE_ADMIN_LISTEN: needs TENURE_OPS_DATABASE_URL, which connects as tenure_ops, the "
                    "role that `tenure migrate` makes"
                )
        if bool(self.tls_cert) != bool(self.tls_key):
            faults.append("TENURE_TLS_CERT, TENURE_TLS_KEY: set both or none")
        faults += [
            f"{name}: cannot read {path}"
            for name, path in (("TENURE_TLS_CERT", self.tls_cert), ("TENURE_TLS_KEY", self.tls_key))
            if path is not None and not path.is_file()
        ]
        if self.pool_size < 1:
            faults.append("TENURE_POOL_SIZE: must be at least 1")
        if self.replicas < 1:
            faults.append("TENURE_REPLICAS: must be at least 1")
        if self.redis_timeout <= 0:
            faults.append("TENURE_REDIS_TIMEOUT_SECONDS: must be more than 0")
        if self.log_level not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
            faults.append(f"TENURE_LOG_LEVEL: must be DEBUG, INFO, WARNING or ERROR, got {self.log_level!r}")
        return faults

    def _listen_faults(self, variable: str, listen: str) -> list[str]:
        host, _, port = listen.rpartition(":")
        if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            return [f"{variable}: must be host:port, got {listen!r}"]
        if not self.tls_cert and not self.insecure_listen and not is_loopback(host):
            return [
                f"{variable}: {listen} is beyond loopback and there is no TLS; set TENURE_TLS_CERT "
                "and TENURE_TLS_KEY, or TENURE_INSECURE_LISTEN=1 if a proxy or mesh encrypts"
            ]
        return []


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, as far as its name says so."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
