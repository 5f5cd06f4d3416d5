"""What AdminService answers, as JSON for scripts and as tables for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from tenure.v1 import admin_pb2 as pb

from tenure_server.domain import Role

TENANT_COLUMNS = ("tenant_id", "name", "state", "created_at")
KEY_COLUMNS = ("key_id", "name", "role", "state", "created_at", "expires_at", "last_used_at", "rules")


def tenant(message: pb.Tenant) -> dict[str, Any]:
    """Return a tenant as JSON has it."""
    return {
        "tenant_id": message.tenant_id,
        "name": message.name,
        "state": _word(pb.TenantState.Name(message.state), "TENANT_STATE_"),
        "created_at": _time(message, "created_at"),
        "suspended_at": _time(message, "suspended_at"),
    }


def key(message: pb.Key) -> dict[str, Any]:
    """Return a key as JSON has it."""
    scopes = [_word(pb.Scope.Name(number), "SCOPE_") for number in message.scopes]
    return {
        "key_id": message.key_id,
        "tenant_id": message.tenant_id or None,
        "name": message.name,
        "role": role(scopes),
        "scopes": scopes,
        "rules": list(message.rules),
        "state": _word(pb.KeyState.Name(message.state), "KEY_STATE_"),
        "created_at": _time(message, "created_at"),
        "expires_at": _time(message, "expires_at"),
        "revoked_at": _time(message, "revoked_at"),
        "last_used_at": _time(message, "last_used_at"),
        "replaced_by": message.replaced_by or None,
    }


def role(scopes: Sequence[str]) -> str | None:
    """Return the role that has exactly these scopes, if there is one."""
    for known in Role:
        if {scope.value for scope in known.scopes} == set(scopes):
            return known.value
    return None


def show(answer: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one answer: names and values, a list with a line for each member."""
    if as_json:
        click.echo(json.dumps(answer))
        return
    width = max(len(name) for name in answer)
    for name, value in answer.items():
        for member in value if isinstance(value, list) else [value]:
            if member is not None and member != "":
                click.echo(f"{name:<{width}}  {_cell(name, member)}")


def show_list(
    name: str, answers: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool
) -> None:
    """Print a list of answers: a JSON object with `name`, or a table of these columns."""
    if as_json:
        click.echo(json.dumps({name: list(answers)}))
        return
    titles = [column.removesuffix("_at").replace("_", " ").upper() for column in columns]
    rows = [titles, *([_cell(column, answer[column], answer) for column in columns] for answer in answers)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(columns))]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _cell(column: str, value: Any, answer: Mapping[str, Any] | None = None) -> str:
    if column == "role" and value is None and answer is not None:
        value = ",".join(answer["scopes"])
    if column.endswith("_at"):
        # To the minute, in UTC.
        return "never" if value is None else f"{value[:10]} {value[11:16]}Z"
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(value) or "-"
    # A name that was made through the database may hold what would write into the terminal.
    return "".join(letter if letter.isprintable() else "?" for letter in str(value)) or "-"


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()


def _time(message: Message, field: str) -> str | None:
    if not message.HasField(field):
        return None
    value: Timestamp = getattr(message, field)
    return value.ToJsonString()
