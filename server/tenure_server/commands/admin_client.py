"""A connection to the admin port, and what its refusals mean to a script."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import click
import grpc
from google.protobuf.message import Message

from tenure_server.config import is_loopback

_TIMEOUT = 15.0
EXIT_CODES: Final = {
    grpc.StatusCode.UNAUTHENTICATED: 3,
    grpc.StatusCode.PERMISSION_DENIED: 3,
    grpc.StatusCode.NOT_FOUND: 4,
    grpc.StatusCode.UNAVAILABLE: 5,
    grpc.StatusCode.DEADLINE_EXCEEDED: 5,
}
"""Exit code of a command that a server answered so, or did not answer; 1 for all others."""

Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True, slots=True)
class Server:
    """Where AdminService is; its repr hides the key.

    Attributes:
        target: host:port.
        api_key: The caller's key.
        ca: PEM file with the certificates to trust, None = the system's.
        insecure: Speak plaintext to an address that is not on this machine.
    """

    target: str
    api_key: str = field(repr=False)
    ca: Path | None = None
    insecure: bool = False

    def channel(self) -> grpc.Channel:
        """Open a channel: TLS, but on loopback without a CA."""
        host = self.target.rpartition(":")[0]
        if self.insecure or (self.ca is None and is_loopback(host)):
            return grpc.insecure_channel(self.target)
        roots = None if self.ca is None else self.ca.read_bytes()
        return grpc.secure_channel(self.target, grpc.ssl_channel_credentials(root_certificates=roots))


class Refused(click.ClickException):
    """Ends the command with what the server said, and an exit code that tells scripts what kind it was."""

    def __init__(self, message: str, code: grpc.StatusCode) -> None:
        super().__init__(message)
        self.exit_code = EXIT_CODES.get(code, 1)  # type: ignore[misc]


class Admin:
    """Calls the services of the admin port."""

    def __init__(self, channel: grpc.Channel, api_key: str, target: str) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {api_key}"),)
        self._target = target

    def call(self, request: Message, response: type[Response], timeout: float = _TIMEOUT) -> Response:
        """Call the RPC that a request belongs to.

        Raises:
            Refused: The server refused it, or cannot be reached.
        """
        method = self._channel.unary_unary(
            _method_of(request),
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        with self._refusals(request):
            answer: Response = method(request, timeout=timeout, metadata=self._metadata)
        return answer

    def stream(self, request: Message, response: type[Response], timeout: float) -> Iterator[Response]:
        """Call the RPC that a request belongs to, which answers more than once.

        Raises:
            Refused: The server refused it, or cannot be reached.
        """
        method = self._channel.unary_stream(
            _method_of(request),
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        with self._refusals(request):
            yield from method(request, timeout=timeout, metadata=self._metadata)

    @contextmanager
    def _refusals(self, request: Message) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            code = error.code()
            if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                raise Refused(f"{self._target} does not answer: {error.details()}", code) from None
            if code is grpc.StatusCode.UNIMPLEMENTED:
                raise Refused(
                    f"{self._target} does not serve {_method_of(request).split('/')[1]}; is it the port of "
                    "TENURE_ADMIN_LISTEN?",
                    code,
                ) from None
            raise Refused(str(error.details()), code) from None


def _method_of(request: Message) -> str:
    """Return the path of the RPC whose name its request bears."""
    name = type(request).__name__.removesuffix("Request")
    for service in request.DESCRIPTOR.file.services_by_name.values():
        if name in service.methods_by_name:
            return f"/{service.full_name}/{name}"
    raise ValueError(f"no service has an RPC {name}")


@contextmanager
def connected(server: Server) -> Iterator[Admin]:
    """Give a connection for a block."""
    with server.channel() as channel:
        yield Admin(channel, server.api_key, server.target)
