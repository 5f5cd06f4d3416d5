"""Free ports on loopback that servers need before they start."""

from __future__ import annotations

import socket

HOST = "127.0.0.1"


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now; who uses it must be ready to find it taken."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
