"""How a gRPC server of ours is set up and bound, whatever it serves."""

from __future__ import annotations

import grpc

from tenure_server.config import Config
from tenure_server.errors import ConfigError
from tenure_server.limits import KIB, MIB

_GRPC_OVERHEAD = 64 * KIB


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


def bind(server: grpc.aio.Server, config: Config, variable: str, listen: str) -> str:
    """Let a server listen, with TLS if the settings name a certificate, and return host:port.

    Args:
        server: What is to listen.
        config: Settings of the process.
        variable: Name of the setting, for the error.
        listen: Its value; port 0 takes a free one.

    Raises:
        ConfigError: The port is taken.
    """
    try:
        if config.tls_cert is not None and config.tls_key is not None:
            pair = (config.tls_key.read_bytes(), config.tls_cert.read_bytes())
            port = server.add_secure_port(listen, grpc.ssl_server_credentials([pair]))
        else:
            port = server.add_insecure_port(listen)
    except RuntimeError:
        raise ConfigError([f"{variable}: cannot listen on {listen}; is another server there?"]) from None
    return f"{listen.rpartition(':')[0]}:{port}"
