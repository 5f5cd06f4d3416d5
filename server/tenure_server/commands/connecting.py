"""What commands that call the admin port share: where it is, as whom, and questions first."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tenure_server.commands.admin_client import Admin, Server

_TARGET = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):\d{1,5}")
EPILOG = (
    "TENURE_ADMIN_TARGET and TENURE_API_KEY say where and as whom. Exit codes: 0 done, 1 refused, 2 wrong "
    "arguments or settings, 3 the key may not, 4 not found, 5 no answer."
)

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
tenant_option = click.option(
    "--tenant", "tenant_id", default="", metavar="ID", help="Whose, for operators. Default: your own."
)


def served(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say where the server is, and give the command a `Server`."""

    @click.option("--target", envvar="TENURE_ADMIN_TARGET", metavar="HOST:PORT", help="Of AdminService.")
    @click.option(
        "--key-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Holds the key, in place of TENURE_API_KEY.",
    )
    @click.option(
        "--ca",
        envvar="TENURE_CA",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="PEM file with the certificates to trust. Default: the system's.",
    )
    @click.option("--insecure", is_flag=True, help="Speak plaintext to another machine.")
    @wraps(command)
    def with_server(
        *args: Any, target: str | None, key_file: Path | None, ca: Path | None, insecure: bool, **rest: Any
    ) -> None:
        command(_server(target, key_file, ca, insecure), *args, **rest)

    return with_server


def _server(target: str | None, key_file: Path | None, ca: Path | None, insecure: bool) -> Server:
    from tenure_server.commands.admin_client import Server

    if not target:
        raise click.UsageError("no server given: set TENURE_ADMIN_TARGET, or --target, to its host:port")
    if not _TARGET.fullmatch(target):
        raise click.UsageError("the target must be host:port")
    if insecure and ca is not None:
        raise click.UsageError("--ca and --insecure exclude each other")
    text = key_file.read_text() if key_file is not None else os.environ.get("TENURE_API_KEY", "")
    key = text.strip()
    if not key:
        raise click.UsageError("no key given: set TENURE_API_KEY, or --key-file")
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise click.UsageError("the key holds characters that no key has, perhaps a space or a line break")
    return Server(target, key, ca, insecure)


@contextmanager
def administration(server: Server) -> Iterator[Admin]:
    """Give a connection for a block."""
    from tenure_server.commands.admin_client import connected

    with connected(server) as admin:
        yield admin


def sure(question: str, yes: bool) -> None:
    """End the command unless the answer to a question is yes."""
    if not yes:
        # The answer of a script that reads our output must not begin with a question.
        click.confirm(question, abort=True, err=True)
