"""What workers share: the port, which nobody else gets, and the settings of the whole server."""

from __future__ import annotations

import socket

import pytest
from tenure_server.config import Config
from tenure_server.errors import ConfigError
from tenure_server.workers.environment import worker_environment
from tenure_server.workers.port import reserved


@pytest.mark.parametrize(
    ("pool_size", "number", "share"), [(16, 2, 8), (16, 3, 5), (16, 16, 2), (1, 4, 2), (500, 64, 7)]
)
def test_a_worker_has_its_share_of_the_pool_and_at_least_two(pool_size: int, number: int, share: int) -> None:
    config = Config(pool_size=pool_size, workers=number)
    assert worker_environment({}, config, "host:1", number, "id")["TENURE_POOL_SIZE"] == str(share)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "service.instance.id=server-3"),
        ("service.instance.id=pod,a=b", "service.instance.id=pod-3,a=b"),
        ("a=b=c", "a=b=c,service.instance.id=server-3"),
    ],
)
def test_workers_are_told_apart_in_telemetry(given: str, expected: str) -> None:
    env = worker_environment({"OTEL_RESOURCE_ATTRIBUTES": given}, Config(workers=3), "host:1", 3, "server")
    assert env["OTEL_RESOURCE_ATTRIBUTES"] == expected


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_port_is_reserved_for_those_who_share_it_alone(host: str) -> None:
    def bind(*options: int) -> None:
        with socket.socket() as other:
            for option in options:
                other.setsockopt(socket.SOL_SOCKET, option, 1)
            other.bind(("127.0.0.1", port))
            other.listen()

    with reserved(f"{host}:0") as target:
        name, _, number = target.rpartition(":")
        port = int(number)
        assert name == host
        assert port
        with pytest.raises(ConfigError, match="is another server there"), reserved(target):
            pass
        if not _is_version_6(host):
            for options in ([], [socket.SO_REUSEADDR]):
                with pytest.raises(OSError, match="in use"):
                    bind(*options)
        bind(socket.SO_REUSEADDR, socket.SO_REUSEPORT)
    with reserved(target) as again:
        assert again == target


def _is_version_6(host: str) -> bool:
    return socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0][0] == socket.AF_INET6


def test_connections_of_an_earlier_server_that_still_close_are_not_in_the_way() -> None:
    with socket.create_server(("127.0.0.1", 0)) as earlier:
        host, port = earlier.getsockname()
        with socket.create_connection((host, port)) as client:
            accepted, _ = earlier.accept()
            accepted.close()
            assert client.recv(1) == b""
    with reserved(f"{host}:{port}") as target, pytest.raises(ConfigError), reserved(target):
        pass
