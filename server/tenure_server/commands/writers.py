"""`tenure writers`: which threads have one writer at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tenure_server.commands import options
from tenure_server.commands.connecting import EPILOG, administration, served, sure, tenant_option, yes_option

if TYPE_CHECKING:
    from tenure_server.commands.admin_client import Server

_ALL = "*"
_COLUMNS = ("thread_prefix", "created_at")
_LONG = 60.0
"""Seconds: threads that are there are changed one by one."""


@click.group(epilog=EPILOG)
def writers() -> None:
    """Say which threads have one writer at a time.

    A put to such a thread needs a lease (`saver.single_writer(...)`), or names the checkpoint that it builds
    on (`TenureSaver(..., single_writer=True)`); all others are refused.
    """


@writers.command("require")
@click.argument("thread_prefix", metavar="PREFIX")
@tenant_option
@options.as_json
@served
def writers_require(server: Server, thread_prefix: str, tenant_id: str, as_json: bool) -> None:
    """Let threads whose ids begin with PREFIX have one writer at a time, * = all.

    Those that are there, and those that will be made.
    """
    from tenure.v1 import writers_pb2 as pb

    from tenure_server.commands import tables

    request = pb.CreateWriterPolicyRequest(tenant_id=tenant_id, thread_prefix=_prefix(thread_prefix))
    with administration(server) as admin:
        answer = admin.call(request, pb.CreateWriterPolicyResponse, timeout=_LONG)
    tables.show({**_policy(answer.policy), "threads": answer.threads}, as_json=as_json)


@writers.command("list")
@tenant_option
@options.as_json
@served
def writers_list(server: Server, tenant_id: str, as_json: bool) -> None:
    """List the prefixes of threads that have one writer at a time."""
    from tenure.v1 import writers_pb2 as pb

    from tenure_server.commands import tables

    with administration(server) as admin:
        answer = admin.call(pb.ListWriterPoliciesRequest(tenant_id=tenant_id), pb.ListWriterPoliciesResponse)
    tables.show_list("policies", [_policy(policy) for policy in answer.policies], _COLUMNS, as_json=as_json)


@writers.command("free")
@click.argument("thread_prefix", metavar="PREFIX")
@tenant_option
@yes_option
@options.as_json
@served
def writers_free(server: Server, thread_prefix: str, tenant_id: str, yes: bool, as_json: bool) -> None:
    """Take `require PREFIX` back: threads of no other prefix may have many writers again."""
    from tenure.v1 import writers_pb2 as pb

    from tenure_server.commands import tables

    sure(f"Let threads {thread_prefix} have many writers at a time?", yes)
    request = pb.DeleteWriterPolicyRequest(tenant_id=tenant_id, thread_prefix=_prefix(thread_prefix))
    with administration(server) as admin:
        answer = admin.call(request, pb.DeleteWriterPolicyResponse, timeout=_LONG)
    tables.show({"thread_prefix": thread_prefix, "threads": answer.threads}, as_json=as_json)


def _prefix(text: str) -> str:
    if not text:
        # An unset variable of a shell must not become all threads.
        raise click.UsageError('PREFIX is empty; write "*" for all threads')
    return "" if text == _ALL else text


def _policy(message: object) -> dict[str, object]:
    from tenure.v1 import writers_pb2 as pb

    assert isinstance(message, pb.WriterPolicy)
    return {
        "thread_prefix": message.thread_prefix or _ALL,
        "created_at": message.created_at.ToJsonString(),
    }
