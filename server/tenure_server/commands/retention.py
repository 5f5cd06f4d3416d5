"""`tenure retention`: how long what agents store is kept, what would go, and what stays in any case."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import click

from tenure_server.commands import options
from tenure_server.commands.connecting import EPILOG, administration, served, sure, tenant_option, yes_option
from tenure_server.commands.sizes import Size, human

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenure.v1 import retention_pb2

    from tenure_server.commands.admin_client import Server

_ALL = "*"
_BAR = 30
_PREVIEW_PATIENCE = 600.0


def _scoped(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name threads or items."""
    command = click.option(
        "--namespace", metavar="LABEL/LABEL", help="Items in or below it, * = all; / in a label is %2F."
    )(command)
    return click.option("--thread-prefix", metavar="PREFIX", help="Threads whose id begins so, * = all.")(
        command
    )


def _ruled(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say what a policy says."""
    duration = options.Duration()
    for option in reversed(
        [
            click.option("--max-age", type=duration, metavar="TIME", help="Of a checkpoint, such as 90d."),
            click.option("--max-idle", type=duration, metavar="TIME", help="Of a thread as a whole."),
            click.option(
                "--keep-last", type=click.IntRange(1), metavar="N", help="Checkpoints of each namespace."
            ),
            click.option("--keep-latest", is_flag=True, help="The same as --keep-last 1."),
            click.option("--item-ttl", type=duration, metavar="TIME", help="Of an item since it was put."),
            click.option(
                "--max-bytes", type=Size(none=False), help="Of all in scope, oldest first: such as 10GiB."
            ),
            click.option(
                "--floor",
                type=click.IntRange(0),
                default=0,
                metavar="N",
                help="Checkpoints that stay anyway.",
            ),
        ]
    ):
        command = option(command)
    return command


@click.group(epilog=EPILOG)
def retention() -> None:
    """Set how long what agents store is kept.

    What has expired is hidden at once and deleted in the background. Of several policies the one with the
    longest prefix counts, and it alone.
    """


@retention.command("set")
@_scoped
@_ruled
@tenant_option
@yes_option
@options.as_json
@served
def retention_set(server: Server, tenant_id: str, yes: bool, as_json: bool, **given: Any) -> None:
    """Set a policy for threads or items, in place of the one with the same prefix.

    \b
      tenure retention set --thread-prefix '*' --max-idle 90d --keep-last 50
      tenure retention set --namespace users/sessions --item-ttl 30d
    """
    from tenure.v1 import retention_pb2 as pb

    from tenure_server.commands import retention_tables as shown
    from tenure_server.commands import tables

    policy = _policy(given)
    sure("What this policy lets expire is hidden at once and then deleted; `preview` says what. Set it?", yes)
    with administration(server) as admin:
        answer = admin.call(
            pb.SetPolicyRequest(tenant_id=tenant_id, policy=policy),
            pb.SetPolicyResponse,
            timeout=_PREVIEW_PATIENCE,
        )
    made = shown.policy(answer.policy)
    if not as_json:
        made |= shown.readable(made)
    tables.show(made, as_json=as_json)


@retention.command("list")
@tenant_option
@options.as_json
@served
def retention_list(server: Server, tenant_id: str, as_json: bool) -> None:
    """List policies, legal holds and pins."""
    import json

    from tenure.v1 import retention_pb2 as pb

    from tenure_server.commands import retention_tables as shown
    from tenure_server.commands import tables

    pins, token = [], ""
    with administration(server) as admin:
        answer = admin.call(pb.ListPoliciesRequest(tenant_id=tenant_id), pb.ListPoliciesResponse)
        while True:
            request = pb.ListPinsRequest(tenant_id=tenant_id, page_token=token)
            page = admin.call(request, pb.ListPinsResponse)
            pins += [shown.pin(pin) for pin in page.pins]
            token = page.next_page_token
            if not token:
                break
    policies = [shown.policy(policy) for policy in answer.policies]
    holds = [shown.hold(hold) for hold in answer.holds]
    if as_json:
        click.echo(json.dumps({"policies": policies, "holds": holds, "pins": pins}))
        return
    for title, rows, columns in (
        ("policies", [{**row, **shown.readable(row)} for row in policies], shown.POLICY_COLUMNS),
        ("legal holds", holds, shown.HOLD_COLUMNS),
        ("pins", pins, shown.PIN_COLUMNS),
    ):
        if rows or title == "policies":
            click.echo(f"{title}:")
            tables.show_list(title, rows, columns, as_json=False)


@retention.command("delete")
@_scoped
@tenant_option
@yes_option
@options.as_json
@served
def retention_delete(
    server: Server,
    thread_prefix: str | None,
    namespace: str | None,
    tenant_id: str,
    yes: bool,
    as_json: bool,
) -> None:
    """Take a policy back. A shorter prefix's policy counts then, if there is one."""
    from tenure.v1 import retention_pb2 as pb

    from tenure_server.commands import retention_tables as shown
    from tenure_server.commands import tables

    scope = _scope(thread_prefix, namespace)
    sure(f"Delete the policy for {shown.scope(scope)}?", yes)
    with administration(server) as admin:
        admin.call(pb.DeletePolicyRequest(tenant_id=tenant_id, scope=scope), pb.DeletePolicyResponse)
    tables.show({"deleted": shown.scope(scope)}, as_json=as_json)


@retention.command("preview")
@_scoped
@_ruled
@tenant_option
@options.as_json
@served
def retention_preview(server: Server, tenant_id: str, as_json: bool, **given: Any) -> None:
    """Say what has expired and is not deleted yet; or, with a policy's options, what would have with it."""
    from tenure.v1 import retention_pb2 as pb

    from tenure_server.commands import tables

    request = pb.PreviewRequest(tenant_id=tenant_id)
    if any(value for value in given.values()):
        request.policy.CopyFrom(_policy(given))
    last = pb.PreviewResponse()
    with administration(server) as admin:
        for last in admin.stream(request, pb.PreviewResponse, timeout=_PREVIEW_PATIENCE):
            _progress(last)
    found = {name: getattr(last, name) for name in ("threads", "checkpoints", "items", "bytes", "seen")}
    if as_json:
        tables.show(found, as_json=True)
    else:
        tables.show(
            {name: human(count) if name == "bytes" else f"{count:,}" for name, count in found.items()},
            as_json=False,
        )


def _pinned(command: Callable[..., None]) -> Callable[..., None]:
    """Add what names a thread or a checkpoint."""
    command = click.option("--ns", "checkpoint_ns", default="", help="Its namespace. Default: the root's.")(
        command
    )
    command = click.option(
        "--checkpoint", "checkpoint_id", default="", metavar="ID", help="Only this checkpoint."
    )(command)
    return click.argument("thread_id")(command)


@retention.command("pin")
@_pinned
@click.option("--reason", default="", help="Why.")
@tenant_option
@options.as_json
@served
def retention_pin(server: Server, tenant_id: str, as_json: bool, **pin: str) -> None:
    """Keep a thread, or one of its checkpoints, from all policies."""
    from tenure.v1 import retention_pb2 as pb

    from tenure_server.commands import retention_tables as shown
    from tenure_server.commands import tables

    with administration(server) as admin:
        request = pb.PinRequest(tenant_id=tenant_id, pin=_pin_of(pin))
        answer = admin.call(request, pb.PinResponse)
    tables.show(shown.pin(answer.pin), as_json=as_json)


@retention.command("unpin")
@_pinned
@tenant_option
@options.as_json
@served
def retention_unpin(server: Server, tenant_id: str, as_json: bool, **pin: str) -> None:
    """Take a pin back."""
    from tenure.v1 import retention_pb2 as pb

    from tenure_server.commands import tables

    with administration(server) as admin:
        request = pb.UnpinRequest(tenant_id=tenant_id, pin=_pin_of(pin))
        admin.call(request, pb.UnpinResponse)
    tables.show({"unpinned": pin["thread_id"]}, as_json=as_json)


@retention.command("hold")
@_scoped
@click.option("--all", "whole", is_flag=True, help="The whole tenant.")
@click.option("--reason", default="", help="Why.")
@tenant_option
@options.as_json
@served
def retention_hold(
    server: Server,
    thread_prefix: str | None,
    namespace: str | None,
    whole: bool,
    reason: str,
    tenant_id: str,
    as_json: bool,
) -> None:
    """Put a legal hold: nothing in scope expires by policy, and deleting it on request is refused."""
    from tenure.v1 import retention_pb2 as pb

    from tenure_server.commands import retention_tables as shown
    from tenure_server.commands import tables

    hold = pb.LegalHold(scope=_hold_scope(thread_prefix, namespace, whole), reason=reason)
    with administration(server) as admin:
        answer = admin.call(pb.HoldRequest(tenant_id=tenant_id, hold=hold), pb.HoldResponse)
    tables.show(shown.hold(answer.hold), as_json=as_json)


@retention.command("release")
@_scoped
@click.option("--all", "whole", is_flag=True, help="The whole tenant.")
@tenant_option
@yes_option
@options.as_json
@served
def retention_release(
    server: Server,
    thread_prefix: str | None,
    namespace: str | None,
    whole: bool,
    tenant_id: str,
    yes: bool,
    as_json: bool,
) -> None:
    """Take a legal hold back."""
    from tenure.v1 import retention_pb2 as pb

    from tenure_server.commands import retention_tables as shown
    from tenure_server.commands import tables

    scope = _hold_scope(thread_prefix, namespace, whole)
    told = "tenant" if scope is None else shown.scope(scope)
    sure(f"Release the hold on {told}? Policies let what it kept expire at once.", yes)
    with administration(server) as admin:
        admin.call(pb.ReleaseRequest(tenant_id=tenant_id, scope=scope), pb.ReleaseResponse)
    tables.show({"released": told}, as_json=as_json)


def _scope(thread_prefix: str | None, namespace: str | None) -> retention_pb2.RetentionScope:
    from tenure.v1 import retention_pb2 as pb

    if (thread_prefix is None) is (namespace is None):
        raise click.UsageError("say either --thread-prefix or --namespace")
    if not (thread_prefix or namespace):
        # An unset variable of a shell must not become everything.
        raise click.UsageError('the prefix is empty; write "*" for all')
    if thread_prefix is not None:
        return pb.RetentionScope(thread_prefix="" if thread_prefix == _ALL else thread_prefix)
    assert namespace is not None
    labels = [] if namespace == _ALL else [unquote(label) for label in namespace.split("/")]
    return pb.RetentionScope(namespace=pb.NamespacePrefix(labels=labels))


def _hold_scope(
    thread_prefix: str | None, namespace: str | None, whole: bool
) -> retention_pb2.RetentionScope | None:
    if not whole:
        if thread_prefix is None and namespace is None:
            raise click.UsageError("say one of --thread-prefix, --namespace and --all")
        return _scope(thread_prefix, namespace)
    if thread_prefix is not None or namespace is not None:
        raise click.UsageError("--all excludes --thread-prefix and --namespace")
    return None


def _policy(given: dict[str, Any]) -> retention_pb2.RetentionPolicy:
    from tenure.v1 import retention_pb2 as pb

    if given["keep_latest"] and given["keep_last"] not in (None, 1):
        raise click.UsageError("--keep-latest and --keep-last exclude each other")
    rules = {
        "max_age": given["max_age"],
        "max_idle": given["max_idle"],
        "keep_last": 1 if given["keep_latest"] else given["keep_last"],
        "item_ttl": given["item_ttl"],
        "max_bytes": given["max_bytes"],
    }
    if all(value is None for value in rules.values()):
        raise click.UsageError(
            "say at least one of --max-age, --max-idle, --keep-last, --item-ttl, --max-bytes"
        )
    scope = _scope(given["thread_prefix"], given["namespace"])
    try:
        return pb.RetentionPolicy(scope=scope, floor=given["floor"], **rules)
    except ValueError:
        raise click.UsageError("--keep-last or --floor is too large") from None


def _progress(found: retention_pb2.PreviewResponse) -> None:
    """Show how far it is, to people only."""
    if sys.stderr.isatty():
        share = 1.0 if found.done else min(found.seen / max(found.total, 1), 1.0)
        bar = "#" * int(share * _BAR)
        click.echo(f"\r[{bar:<{_BAR}}] {found.seen:,} of {found.total:,}", nl=found.done, err=True)


def _pin_of(given: dict[str, str]) -> retention_pb2.RetentionPin:
    from tenure.v1 import retention_pb2 as pb

    return pb.RetentionPin(
        thread_id=given["thread_id"],
        checkpoint_ns=given["checkpoint_ns"],
        checkpoint_id=given["checkpoint_id"],
        reason=given.get("reason", ""),
    )
