"""Options that several commands share, and what their texts mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tenure_server.domain import Scope
    from tenure_server.rules import Rules

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
thread_prefixes = click.option(
    "--thread-prefix",
    "threads",
    multiple=True,
    metavar="PREFIX:ACCESS",
    help="Allow threads whose id starts with PREFIX, * = all. May be repeated.",
)
namespaces = click.option(
    "--namespace",
    "namespaces",
    multiple=True,
    metavar="LABEL/LABEL:ACCESS",
    help="Allow items of this namespace and those below it, * = all. May be repeated.",
)


class Duration(click.ParamType):  # type: ignore[type-arg]
    """Seconds as a float, from texts such as 90d, 12h, 30m, 45s and 45."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = _DURATION.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r}: give a number of s, m, h or d, such as 12h", param, ctx)
        return float(match[1]) * _UNITS[match[2]]


def rules_of(threads: Sequence[str], labels: Sequence[str]) -> Rules | None:
    """Return the rules that options say; a text that is no rule ends the command."""
    from tenure_server.rules import parse

    try:
        return parse([*(f"threads:{text}" for text in threads), *(f"namespaces:{text}" for text in labels)])
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def scopes_of(text: str) -> frozenset[Scope]:
    """Return the scopes that an option says, of those that keys of tenants have."""
    from tenure_server.domain import TENANT_SCOPES, Scope

    try:
        found = frozenset(Scope(name.strip()) for name in text.split(","))
    except ValueError:
        found = frozenset()
    if not found or not found <= TENANT_SCOPES:
        raise click.BadParameter(f"{text!r}: give some of read, write, admin, separated by commas")
    return found
