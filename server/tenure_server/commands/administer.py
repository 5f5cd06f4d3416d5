"""`tenure tenants`, `tenure keys` and `tenure whoami`: administration over the network, with a key."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from tenure_server.commands import options
from tenure_server.commands.connecting import EPILOG, administration, served, sure, tenant_option, yes_option

if TYPE_CHECKING:
    from tenure_server.commands.admin_client import Server


@click.command(epilog=EPILOG)
@options.as_json
@served
def whoami(server: Server, as_json: bool) -> None:
    """Show whose key this is, and what it may do."""
    from tenure.v1 import admin_pb2 as pb

    from tenure_server.commands import tables

    with administration(server) as admin:
        answer = admin.call(pb.GetPrincipalRequest(), pb.GetPrincipalResponse)
    found = tables.key(answer.key)
    found["tenant_name"] = answer.tenant.name if answer.HasField("tenant") else None
    tables.show(found, as_json=as_json)


@click.group(epilog=EPILOG)
def tenants() -> None:
    """Administer tenants, as an operator."""


@tenants.command("list")
@options.as_json
@served
def tenants_list(server: Server, as_json: bool) -> None:
    """List all tenants by name."""
    from tenure.v1 import admin_pb2 as pb

    from tenure_server.commands import tables

    found, token = [], ""
    with administration(server) as admin:
        while True:
            page = admin.call(pb.ListTenantsRequest(page_token=token), pb.ListTenantsResponse)
            found += [tables.tenant(tenant) for tenant in page.tenants]
            token = page.next_page_token
            if not token:
                break
    tables.show_list("tenants", found, tables.TENANT_COLUMNS, as_json=as_json)


@tenants.command("show")
@click.argument("tenant_id", default="")
@options.as_json
@served
def tenants_show(server: Server, tenant_id: str, as_json: bool) -> None:
    """Show a tenant, by default your own."""
    from tenure.v1 import admin_pb2 as pb

    _show_tenant(server, pb.GetTenantRequest(tenant_id=tenant_id), pb.GetTenantResponse, as_json)


@tenants.command("create")
@click.argument("name")
@options.as_json
@served
def tenants_create(server: Server, name: str, as_json: bool) -> None:
    """Make a tenant called NAME. `keys create --tenant` makes its first key."""
    from tenure.v1 import admin_pb2 as pb

    _show_tenant(server, pb.CreateTenantRequest(name=name), pb.CreateTenantResponse, as_json)


@tenants.command("suspend")
@click.argument("tenant_id")
@yes_option
@options.as_json
@served
def tenants_suspend(server: Server, tenant_id: str, yes: bool, as_json: bool) -> None:
    """Stop all keys of a tenant. Its data stay."""
    from tenure.v1 import admin_pb2 as pb

    sure(f"Stop all keys of tenant {tenant_id}?", yes)
    _show_tenant(server, pb.SuspendTenantRequest(tenant_id=tenant_id), pb.SuspendTenantResponse, as_json)


@tenants.command("resume")
@click.argument("tenant_id")
@options.as_json
@served
def tenants_resume(server: Server, tenant_id: str, as_json: bool) -> None:
    """Let the keys of a suspended tenant work again."""
    from tenure.v1 import admin_pb2 as pb

    _show_tenant(server, pb.ResumeTenantRequest(tenant_id=tenant_id), pb.ResumeTenantResponse, as_json)


@tenants.command("delete")
@click.argument("tenant_id")
@click.argument("name")
@yes_option
@options.as_json
@served
def tenants_delete(server: Server, tenant_id: str, name: str, yes: bool, as_json: bool) -> None:
    """Delete a tenant with all that it has, for good. NAME must be its name.

    Its keys stop within 5 seconds; what it has is freed in the background.
    """
    from tenure.v1 import admin_pb2 as pb

    sure(f"Delete tenant {tenant_id} ({name}) with all that it has? This cannot be undone.", yes)
    request = pb.DeleteTenantRequest(tenant_id=tenant_id, name=name)
    _show_tenant(server, request, pb.DeleteTenantResponse, as_json)


def _show_tenant(server: Server, request: Any, response: Any, as_json: bool) -> None:
    from tenure_server.commands import tables

    with administration(server) as admin:
        answer = admin.call(request, response)
    tables.show(tables.tenant(answer.tenant), as_json=as_json)


@click.group(epilog=EPILOG)
def keys() -> None:
    """Administer keys: those of your tenant, or as an operator of all."""


@keys.command("list")
@tenant_option
@options.as_json
@served
def keys_list(server: Server, tenant_id: str, as_json: bool) -> None:
    """List keys, the oldest first; never their text."""
    from tenure.v1 import admin_pb2 as pb

    from tenure_server.commands import tables

    found, token = [], ""
    with administration(server) as admin:
        while True:
            request = pb.ListKeysRequest(tenant_id=tenant_id, page_token=token)
            page = admin.call(request, pb.ListKeysResponse)
            found += [tables.key(key) for key in page.keys]
            token = page.next_page_token
            if not token:
                break
    tables.show_list("keys", found, tables.KEY_COLUMNS, as_json=as_json)


@keys.command("create")
@tenant_option
@click.option(
    "--role",
    type=click.Choice(["reader", "agent", "admin", "operator"]),
    help="reader: read. agent: read and write. admin: manage keys. Default: agent.",
)
@click.option("--scopes", help="Of read, write, admin, in place of a role.")
@click.option("--name", default="", help="What it is for.")
@click.option("--expires-in", type=options.Duration(), metavar="TIME", help="Such as 90d. Default: never.")
@options.thread_prefixes
@options.namespaces
@options.as_json
@served
def keys_create(
    server: Server,
    tenant_id: str,
    role: str | None,
    scopes: str | None,
    name: str,
    expires_in: float | None,
    threads: tuple[str, ...],
    namespaces: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make a key. Its text is shown this once only.

    Without --thread-prefix and --namespace it reaches everything of its tenant; with any of them exactly what
    they say. ACCESS is r (read) or rw (read and write).
    """
    from tenure.v1 import admin_pb2 as pb

    from tenure_server.commands import tables
    from tenure_server.domain import Role
    from tenure_server.wire.admin import scope_numbers

    if role is not None and scopes is not None:
        raise click.UsageError("--role and --scopes exclude each other")
    wanted = options.scopes_of(scopes) if scopes is not None else Role(role or "agent").scopes
    rules = options.rules_of(threads, namespaces)
    request = pb.CreateKeyRequest(
        tenant_id=tenant_id,
        name=name,
        scopes=scope_numbers(wanted),
        rules=[] if rules is None else rules.format(),
        expires_in=expires_in,
    )
    with administration(server) as admin:
        made = admin.call(request, pb.CreateKeyResponse)
    tables.show({"api_key": made.api_key, **tables.key(made.key)}, as_json=as_json)
    _warn_shown_once()


@keys.command("rotate")
@click.argument("key_id")
@click.option(
    "--overlap", type=options.Duration(), metavar="TIME", help="How long KEY_ID works on. Default: 24h."
)
@tenant_option
@options.as_json
@served
def keys_rotate(server: Server, key_id: str, overlap: float | None, tenant_id: str, as_json: bool) -> None:
    """Make a key in place of KEY_ID, with the same name, scopes, rules and lifetime.

    Both work during the overlap. The new key's text is shown this once only.
    """
    from tenure.v1 import admin_pb2 as pb

    from tenure_server.commands import tables

    request = pb.RotateKeyRequest(tenant_id=tenant_id, key_id=key_id, overlap=overlap)
    with administration(server) as admin:
        made = admin.call(request, pb.RotateKeyResponse)
    answer: dict[str, Any] = {"api_key": made.api_key, **tables.key(made.key)}
    replaced = tables.key(made.replaced)
    if as_json:
        answer["replaced"] = replaced
    else:
        answer |= {"replaces": key_id, "old_expires_at": replaced["expires_at"]}
    tables.show(answer, as_json=as_json)
    _warn_shown_once()


@keys.command("expire")
@click.argument("key_id")
@click.option(
    "--in", "expires_in", type=options.Duration(), metavar="TIME", required=True, help="Such as 2h."
)
@tenant_option
@yes_option
@options.as_json
@served
def keys_expire(
    server: Server, key_id: str, expires_in: float, tenant_id: str, yes: bool, as_json: bool
) -> None:
    """Let KEY_ID end in some time, if it does not end sooner."""
    from tenure.v1 import admin_pb2 as pb

    from tenure_server.commands import tables

    sure(f"Let key {key_id} end in {expires_in:g} s?", yes)
    request = pb.ExpireKeyRequest(tenant_id=tenant_id, key_id=key_id, expires_in=expires_in)
    with administration(server) as admin:
        answer = admin.call(request, pb.ExpireKeyResponse)
    tables.show(tables.key(answer.key), as_json=as_json)


@keys.command("revoke")
@click.argument("key_id")
@tenant_option
@yes_option
@options.as_json
@served
def keys_revoke(server: Server, key_id: str, tenant_id: str, yes: bool, as_json: bool) -> None:
    """End KEY_ID for good. Every replica refuses it within 5 seconds."""
    from tenure.v1 import admin_pb2 as pb

    from tenure_server.commands import tables

    sure(f"Revoke key {key_id} for good?", yes)
    with administration(server) as admin:
        answer = admin.call(pb.RevokeKeyRequest(tenant_id=tenant_id, key_id=key_id), pb.RevokeKeyResponse)
    tables.show(tables.key(answer.key), as_json=as_json)


def _warn_shown_once() -> None:
    if sys.stdout.isatty():
        click.echo("Keep the key now: it is not shown again.", err=True)
