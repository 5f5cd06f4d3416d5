"""Where the server is, whether the way there is encrypted, and the key that opens it.

TLS is the rule. Plaintext needs no word for loopback addresses and unix sockets, and `insecure=True`
for everything else.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import grpc

from tenure_client.errors import InvalidRequest

DEFAULT_PORT = 7443
_SCHEME = "tenure://"
_KEY = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Target:
    """A server; its repr hides the key.

    Attributes:
        address: The target as gRPC takes it.
        api_key: The key.
        plaintext: Whether the connection is not encrypted.
        roots: PEM certificates that sign the server's, None = the system's.
    """

    address: str
    api_key: str = field(repr=False)
    plaintext: bool = False
    roots: bytes | None = field(default=None, repr=False)

    @classmethod
    def resolve(
        cls,
        target: str | None,
        *,
        api_key: str | None = None,
        ca: str | os.PathLike[str] | None = None,
        insecure: bool = False,
    ) -> Target:
        """Fill in what the environment knows and decide about TLS.

        Args:
            target: "host:port", "host", "unix:/path", "tenure://KEY@host:port" or any gRPC target; None =
                TENURE_TARGET.
            api_key: The key; None = the one in `target`, else TENURE_API_KEY.
            ca: PEM file with the certificates to trust; None = TENURE_CA, else the system's.
            insecure: Speak plaintext to an address that is not on this machine.

        Raises:
            InvalidRequest: Something is missing or contradicts itself.
        """
        text = target or os.environ.get("TENURE_TARGET", "")
        if not text:
            raise InvalidRequest(
                "no server given: pass its host:port or set TENURE_TARGET", metadata={"field": "target"}
            )
        key_in_url = None
        if text.startswith(_SCHEME):
            key_in_url, text = _split_url(text)
        address, local = _address(text)
        ca_file = ca or os.environ.get("TENURE_CA")
        if insecure and ca:
            raise InvalidRequest(
                "ca= and insecure=True exclude each other: give one", metadata={"field": "insecure"}
            )
        plaintext = insecure or (local and ca_file is None)
        return cls(
            address=address,
            api_key=_checked_key(api_key or key_in_url or os.environ.get("TENURE_API_KEY")),
            plaintext=plaintext,
            roots=None if plaintext or ca_file is None else _read_roots(ca_file),
        )

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Return what a secure channel needs, None for a plaintext one."""
        return None if self.plaintext else grpc.ssl_channel_credentials(root_certificates=self.roots)


def _split_url(url: str) -> tuple[str | None, str]:
    authority = url.removeprefix(_SCHEME).rstrip("/")
    if "/" in authority or "?" in authority or "#" in authority:
        raise InvalidRequest(
            "a connection string is tenure://KEY@host:port and nothing more", metadata={"field": "target"}
        )
    userinfo, _, host = authority.rpartition("@")
    return unquote(userinfo) or None, host


def _address(text: str) -> tuple[str, bool]:
    """Return the gRPC target and whether it stays on this machine."""
    if text.startswith(("unix:", "unix-abstract:")):
        return text, True
    if re.match(r"(dns|ipv4|ipv6|xds):", text):
        return text, False
    if "://" in text or "@" in text or text.startswith("tn_"):  # the text may hold a key: not shown
        raise InvalidRequest(
            "the target is host:port, unix:/path or tenure://KEY@host:port", metadata={"field": "target"}
        )
    host, port = _host_and_port(text)
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        if not _HOST.fullmatch(host):
            raise InvalidRequest(
                f"the target {text!r} is not host:port", metadata={"field": "target"}
            ) from None
        # dns:/// returns every replica's address, over which round_robin spreads the calls.
        return f"dns:///{host}:{port}", host.lower() in {"localhost", "localhost."}
    return (f"[{host}]:{port}" if ip.version == 6 else f"{host}:{port}"), ip.is_loopback


def _host_and_port(text: str) -> tuple[str, int]:
    bracketed = re.fullmatch(r"\[([^\]]+)\](?::(\d{1,5}))?", text)
    if bracketed:
        host, port = bracketed[1], bracketed[2]
    elif text.count(":") > 1:
        host, port = text, None
    else:
        host, _, port = text.partition(":")
        if ":" in text and not port.isdecimal():
            raise InvalidRequest(f"the target {text!r} has no valid port", metadata={"field": "target"})
    number = int(port) if port else DEFAULT_PORT
    if not 0 < number < 65536:
        raise InvalidRequest(f"the target {text!r} has no valid port", metadata={"field": "target"})
    return host, number


def _checked_key(key: str | None) -> str:
    if not key:
        raise InvalidRequest("no API key: pass api_key= or set TENURE_API_KEY", metadata={"field": "api_key"})
    if not _KEY.fullmatch(key):
        raise InvalidRequest(
            "the API key holds characters that no key has, perhaps a space or a line break",
            metadata={"field": "api_key"},
        )
    return key


def _read_roots(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequest(
            f"cannot read the CA file {os.fspath(path)!r}: {error.strerror}", metadata={"field": "ca"}
        ) from None
