"""A port that several processes of ours share, and nobody else."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tenure_server.errors import ConfigError


@contextmanager
def reserved(listen: str, variable: str = "TENURE_LISTEN") -> Iterator[str]:
    """Hold a port that nobody has, for workers alone, and give host:port; port 0 takes a free one.

    The socket is bound and never listens, so it gets no connection. It is bound without SO_REUSEPORT, which
    fails if anybody else is there, another parent included; only then is sharing allowed, so that workers,
    which do ask for it, can join. SO_REUSEADDR is for connections of an earlier server that still close, and
    is taken back, or the next one could bind, too.

    Raises:
        ConfigError: The port is taken, or the host is not ours.
    """
    host, _, port = listen.rpartition(":")
    try:
        reservation = _bound(host.strip("[]"), int(port))
    except OSError as error:
        hint = "; is another server there?" if error.errno == errno.EADDRINUSE else ""
        raise ConfigError([f"{variable}: cannot listen on {listen}: {error.strerror}{hint}"]) from None
    with reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield f"{host}:{reservation.getsockname()[1]}"


def _bound(host: str, port: int) -> socket.socket:
    """Bind the first of the host's addresses that this machine has: `localhost` may name one of IPv6, too."""
    problem = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with ExitStack() as stack:
            try:
                reservation = stack.enter_context(socket.socket(family, kind, protocol))
                reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                reservation.bind(address)
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                problem = error
            else:
                stack.pop_all()
                return reservation
    raise problem
