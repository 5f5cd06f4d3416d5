"""`tenure quota` and `tenure usage`: what tenants may use, and what they do use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tenure_server.commands import options
from tenure_server.commands.connecting import EPILOG, administration, served, tenant_option
from tenure_server.commands.sizes import NONE, Count, Rate, Size

if TYPE_CHECKING:
    from tenure_server.commands.admin_client import Server

# A little more than the server takes for it.
_PATIENCE = 30.0
_SETTINGS = {
    "stored_bytes": "max_stored_bytes",
    "threads": "max_threads",
    "items": "max_items",
    "checkpoints_per_thread": "max_checkpoints_per_thread",
    "value_bytes": "max_value_bytes",
    "soft": "soft_percent",
    "ops": "operations_per_second",
    "bandwidth": "bytes_per_second",
    "burst": "burst_seconds",
    "concurrency": "max_concurrency",
}
"""Options of `quota set`, and the fields that they set."""


@click.group(epilog=EPILOG)
def quota() -> None:
    """Show and set what a tenant may use."""


@quota.command("show")
@tenant_option
@options.as_json
@served
def quota_show(server: Server, tenant_id: str, as_json: bool) -> None:
    """Show the limits of a tenant, by default your own."""
    from tenure.v1 import quotas_pb2 as pb

    from tenure_server.commands import usage_tables

    with administration(server) as admin:
        answer = admin.call(pb.GetQuotaRequest(tenant_id=tenant_id), pb.GetQuotaResponse)
    usage_tables.show_quota(answer.quota, as_json=as_json)


@quota.command("set")
@click.option("--tenant", "tenant_id", required=True, metavar="ID", help="Whose.")
@click.option("--stored-bytes", type=Size(), help="All that is stored, such as 10GiB.")
@click.option("--threads", type=Count(), help="Threads.")
@click.option("--items", type=Count(), help="Items of long-term memory.")
@click.option("--checkpoints-per-thread", type=Count(), help="Checkpoints of one thread.")
@click.option("--value-bytes", type=Size(), help="One value of a channel, a pending write or an item.")
@click.option("--soft", type=Count(), metavar="PERCENT", help="Warn from so much of a limit on. Default: 80.")
@click.option("--ops", type=Rate(), help="Operations a second, over all servers.")
@click.option("--bandwidth", type=Size(), help="Bytes of requests and replies a second, such as 5MiB.")
@click.option("--burst", type=Rate(), metavar="SECONDS", help="Of both rates, to save up. Default: 1.")
@click.option("--concurrency", type=Count(), help="Calls at once, on each server.")
@options.as_json
@served
def quota_set(server: Server, tenant_id: str, as_json: bool, **given: Any) -> None:
    """Set limits of a tenant, as an operator; those not named stay. `none` takes one away.

    \b
      tenure quota set --tenant ID --stored-bytes 10GiB --threads 250k
      tenure quota set --tenant ID --ops 200 --burst 5 --items none
    """
    from tenure.v1 import quotas_pb2 as pb

    from tenure_server.commands import usage_tables

    named = {_SETTINGS[option]: value for option, value in given.items() if value is not None}
    if not named:
        raise click.UsageError("say at least one limit")
    request = pb.SetQuotaRequest(tenant_id=tenant_id)
    request.update_mask.paths.extend(sorted(named))
    for field, value in named.items():
        if value != NONE:
            try:
                setattr(request.quota, field, value)
            except ValueError:
                raise click.UsageError(f"{field}: {value:,} is too large") from None
    with administration(server) as admin:
        answer = admin.call(request, pb.SetQuotaResponse)
    usage_tables.show_quota(answer.quota, as_json=as_json)


@click.command(epilog=EPILOG)
@click.option(
    "--by",
    type=click.Choice(["thread", "thread-prefix", "namespace", "day"]),
    help="Break it down; the largest parts come first.",
)
@click.option("--top", type=click.IntRange(1, 1000), metavar="N", help="The N largest threads, or parts.")
@click.option("--thread-prefix", default="", metavar="PREFIX", help="Only threads whose id begins so.")
@click.option(
    "--namespace", default="", metavar="LABEL/LABEL", help="Only items in or below it; / in a label is %2F."
)
@tenant_option
@options.as_json
@served
def usage(
    server: Server,
    by: str | None,
    top: int | None,
    thread_prefix: str,
    namespace: str,
    tenant_id: str,
    as_json: bool,
) -> None:
    """Show what a tenant uses, by default your own, beside its limits.

    \b
      tenure usage --top 10                                the largest threads
      tenure usage --by thread-prefix                      ids up to the next of - _ : / . | @ #
      tenure usage --by thread-prefix --thread-prefix a-   the same below a-
      tenure usage --by namespace --namespace users        items by the label after users
      tenure usage --by day                                the last days, with their growth
    """
    from urllib.parse import unquote

    from tenure.v1 import quotas_pb2 as pb

    from tenure_server.commands import usage_tables

    if thread_prefix and namespace:
        raise click.UsageError("--thread-prefix and --namespace exclude each other")
    kind = by or ("namespace" if namespace else "thread" if top is not None or thread_prefix else None)
    if (thread_prefix and kind in {"namespace", "day"}) or (namespace and kind != "namespace"):
        raise click.UsageError(
            f"--by {kind} goes without {'--thread-prefix' if thread_prefix else '--namespace'}"
        )
    with administration(server) as admin:
        if kind is None:
            whole = admin.call(pb.GetUsageRequest(tenant_id=tenant_id), pb.GetUsageResponse)
            usage_tables.show_usage(whole, as_json=as_json)
            return
        request = pb.ListUsageRequest(
            tenant_id=tenant_id,
            by=f"USAGE_KIND_{kind.replace('-', '_').upper()}",
            limit=top or 0,
            thread_prefix=thread_prefix,
            namespace=[unquote(label) for label in namespace.split("/")] if namespace else [],
        )
        parts = admin.call(request, pb.ListUsageResponse, timeout=_PATIENCE)
    usage_tables.show_parts(kind, parts, as_json=as_json)
