"""The `tenure` command. Heavy modules are imported by the command that needs them: `--help` stays quick."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import click

from tenure_server import __version__
from tenure_server.commands import options
from tenure_server.commands.administer import keys, tenants, whoami
from tenure_server.commands.quotas import quota, usage
from tenure_server.commands.retention import retention
from tenure_server.commands.writers import writers

if TYPE_CHECKING:
    from tenure_server.config import Config
    from tenure_server.domain import Scope, TenantId
    from tenure_server.rules import Rules
    from tenure_server.storage.postgres.tenants import PostgresTenants

T = TypeVar("T")

_EPILOG = (
    "Environment variables and their defaults: docs/operations.md. Shell completion: `tenure completion`."
)


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tenure")
def main() -> None:
    """Tenure: shared memory for LangGraph agents."""


main.add_command(tenants)
main.add_command(keys)
main.add_command(whoami)
main.add_command(quota)
main.add_command(usage)
main.add_command(retention)
main.add_command(writers)


@main.command()
@click.option("--workers", metavar="N", help="Processes that share the port, about one per core. Default: 1.")
@click.option("--slot", "number", type=int, hidden=True)
def serve(workers: str | None, number: int | None) -> None:
    """Serve, as the TENURE_* environment variables say.

    TENURE_DATABASE_URL (as tenure_app) is needed; TENURE_REDIS_URL, TENURE_OPS_DATABASE_URL (sweeper),
    TENURE_LISTEN, TENURE_ADMIN_LISTEN, TENURE_TLS_CERT and TENURE_TLS_KEY are usual. --workers wins over
    TENURE_WORKERS.
    """
    from tenure_server.config import Config
    from tenure_server.errors import ConfigError

    try:
        config = Config.from_env(os.environ if workers is None else {**os.environ, "TENURE_WORKERS": workers})
        _log_to_stderr(config.log_level, worker=number)
        _run(_serving(config, number))
    except ConfigError as error:
        raise _Failure("\n".join(["cannot serve:", *(f"  {fault}" for fault in error.faults)])) from None


@main.command()
@options.as_json
def migrate(as_json: bool) -> None:
    """Bring the schema of TENURE_ADMIN_DATABASE_URL up to date.

    Makes the roles tenure_owner, tenure_app and tenure_ops. TENURE_APP_PASSWORD and TENURE_OPS_PASSWORD, if
    set, become the passwords of the latter two.
    """
    from tenure_server.storage.postgres.migrate import migrate as apply

    applied = _run(
        apply(
            _admin_url(),
            app_password=os.environ.get("TENURE_APP_PASSWORD"),
            ops_password=os.environ.get("TENURE_OPS_PASSWORD"),
        )
    )
    lines = [f"applied {name}" for name in applied] or ["the schema is up to date"]
    _show({"applied": applied}, lines, as_json=as_json)


@main.group()
def tenant() -> None:
    """Make tenants in the database itself: the first one, or without a server. Else use `tenants`."""


@tenant.command("create")
@click.argument("name")
@click.option(
    "--key", "scopes", metavar="SCOPES", help="Also make a key with these scopes: read,write,admin."
)
@options.as_json
def tenant_create(name: str, scopes: str | None, as_json: bool) -> None:
    """Make a tenant called NAME."""
    wanted = options.scopes_of(scopes) if scopes is not None else None

    async def create(tenants: PostgresTenants) -> dict[str, Any]:
        tenant_id = await tenants.create_tenant(name)
        result: dict[str, Any] = {"tenant_id": str(tenant_id), "name": name}
        if wanted is not None:
            result |= await _new_key(tenants, tenant_id, wanted, None)
        return result

    result = _run(create(_tenants()))
    _show(result, _table(result), as_json=as_json)
    _warn_shown_once(result)


@main.group()
def key() -> None:
    """Make and revoke keys in the database itself: the first ones, or without a server. Else use `keys`."""


@key.command("create")
@click.option("--tenant", "tenant_id", type=click.UUID, help="The tenant's id.")
@click.option("--operator", is_flag=True, help="Make a key that belongs to no tenant and administers all.")
@click.option("--scopes", help="Of read, write, admin. Default: read,write.")
@click.option("--expires-in", type=click.FloatRange(min=1), metavar="SECONDS", help="Default: never.")
@options.thread_prefixes
@options.namespaces
@options.as_json
def key_create(
    tenant_id: UUID | None,
    operator: bool,
    scopes: str | None,
    expires_in: float | None,
    threads: tuple[str, ...],
    namespaces: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make a key of a tenant. Its text is shown this once only.

    Without --thread-prefix and --namespace the key reaches everything of its tenant. With any of them it is
    limited to exactly what they say: without a --thread-prefix it reaches no thread, without a --namespace
    no item. ACCESS is r (read) or rw (read and write); the scopes must allow it, too.

    \b
      --thread-prefix billing-:rw             threads billing-1, billing-eu-7, ...
      --namespace billing/eu:rw               items of ("billing", "eu") and below
      --namespace '*:r'                       all items, to read them

    In a prefix or label % and * are written as %25 and %2A, in a label / and : as %2F and %3A.
    """
    from tenure_server.domain import OPERATORS, Role, TenantId

    if (tenant_id is None) is not operator:
        raise click.UsageError("say either --tenant or --operator")
    rules = options.rules_of(threads, namespaces)
    if tenant_id is None:
        if scopes is not None or rules is not None:
            raise click.UsageError("an operator's key has no other scopes, and no rules")
        result = _run(_new_key(_tenants(), OPERATORS, Role.OPERATOR.scopes, expires_in))
    else:
        wanted = options.scopes_of(scopes or "read,write")
        result = _run(_new_key(_tenants(), TenantId(tenant_id), wanted, expires_in, rules))
    _show(result, _table(result), as_json=as_json)
    _warn_shown_once(result)


@key.command("revoke")
@click.option("--tenant", "tenant_id", type=click.UUID, help="The tenant's id, if KEY is a key id.")
@click.option("--operator", is_flag=True, help="KEY is the id of an operator's key.")
@click.argument("key")
@options.as_json
def key_revoke(tenant_id: UUID | None, operator: bool, key: str, as_json: bool) -> None:
    """Revoke KEY, a key's id or its whole text. Every replica refuses it within 5 seconds."""
    from tenure_server.domain import OPERATORS, TenantId
    from tenure_server.keys import ApiKey

    parsed = ApiKey.parse(key)
    if parsed is not None:
        tenant, key_id = parsed.tenant, parsed.key_id
    elif tenant_id is not None:
        tenant, key_id = TenantId(tenant_id), key
    elif operator:
        tenant, key_id = OPERATORS, key
    else:
        raise click.UsageError("KEY is a key id: say --tenant or --operator as well")
    if not _run(_tenants().revoke_key(tenant, key_id)):
        raise _Failure("there is no such key")
    _show({"revoked": key_id}, [f"revoked {key_id}"], as_json=as_json)


@main.command()
@click.option("--port", default=7443, show_default=True, help="0 takes a free one.")
@click.option("--admin-port", type=int, help="Of AdminService. Default: two above the other port.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where the databases live.")
@click.option(
    "--ready-file", type=click.Path(path_type=Path), help="Write target and key as JSON, once it serves."
)
@click.option("--memory", is_flag=True, help="No databases: everything is lost at the end.")
@click.option("--outlive-parent", is_flag=True, help="Go on when the process that started it ends.")
def dev(
    port: int,
    admin_port: int | None,
    data_dir: Path | None,
    ready_file: Path | None,
    memory: bool,
    outlive_parent: bool,
) -> None:
    """Run a whole local Tenure: Postgres, Valkey, a tenant and a key.

    Ends with Ctrl-C, and with the shell or script that started it.
    """
    from tenure_server.errors import ConfigError
    from tenure_server.local.dev import DevError
    from tenure_server.local.dev import dev as run

    _log_to_stderr(os.environ.get("TENURE_LOG_LEVEL", "WARNING"))
    try:
        _run(
            run(
                port=port,
                admin_port=admin_port,
                data_dir=data_dir,
                ready_file=ready_file,
                memory=memory,
                outlive_parent=outlive_parent,
            )
        )
    except (ConfigError, DevError) as error:
        raise _Failure(str(error)) from None


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL, to be sourced in its start-up file."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(main, {}, "tenure", "_TENURE_COMPLETE").source())


def _serving(config: Config, number: int | None) -> Coroutine[Any, Any, None]:
    """Return what this process has to do: all of it, one worker's part, or to keep workers."""
    if number is None and config.workers == 1:
        from tenure_server import app

        return app.serve(config)
    if number is None:
        from tenure_server.workers.supervisor import supervise

        return supervise(config)
    from tenure_server.workers.worker import work

    return work(config, number)


class _Failure(click.ClickException):
    """Ends the command with exit code 1 and a message."""


async def _new_key(
    tenants: PostgresTenants,
    tenant_id: TenantId,
    scopes: frozenset[Scope],
    expires_in: float | None,
    rules: Rules | None = None,
) -> dict[str, Any]:
    from tenure_server.domain import OPERATORS
    from tenure_server.keys import ApiKey

    text = await tenants.create_key(tenant_id, scopes, expires_in, rules=rules)
    parsed = ApiKey.parse(text)
    assert parsed is not None
    return {
        "api_key": text,
        "key_id": parsed.key_id,
        "tenant_id": None if tenant_id == OPERATORS else str(tenant_id),
        "scopes": ",".join(sorted(scope.value for scope in scopes)),
        "rules": [] if rules is None else rules.format(),
    }


def _admin_url() -> str:
    url = os.environ.get("TENURE_ADMIN_DATABASE_URL") or os.environ.get("TENURE_DATABASE_URL")
    if not url:
        raise _Failure(
            "TENURE_ADMIN_DATABASE_URL is not set: the database's owner or superuser for `migrate`, "
            "or tenure_ops for tenants and keys, such as postgresql://postgres@127.0.0.1/tenure"
        )
    return url


def _tenants() -> PostgresTenants:
    from tenure_server.storage.postgres.tenants import PostgresTenants

    return PostgresTenants(_admin_url())


def _run(work: Coroutine[Any, Any, T]) -> T:
    from tenure_server.errors import TenureError

    try:
        # A tenth less of the server's time, and of a lone turn (docs/performance.md).
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(work)
    except TenureError as error:
        raise _Failure(str(error)) from None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's, None where it is not to be had: on Windows."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _table(result: dict[str, Any]) -> list[str]:
    """Return lines of names and values; of a list each member has one, and an empty one none."""
    return [
        f"{name:<10} {value}"
        for name, values in result.items()
        for value in (values if isinstance(values, list) else [values])
        if value is not None
    ]


def _show(result: dict[str, Any], lines: list[str], *, as_json: bool) -> None:
    click.echo(json.dumps(result) if as_json else "\n".join(lines))


def _warn_shown_once(result: dict[str, Any]) -> None:
    if "api_key" in result and sys.stdout.isatty():
        click.echo("Keep the key now: it is not shown again.", err=True)


def _log_to_stderr(level: str, *, worker: int | None = None) -> None:
    import logging

    who = "%(name)s" if worker is None else f"%(name)s[worker {worker}]"
    logging.basicConfig(level=level, format=f"%(asctime)s %(levelname)s {who}: %(message)s")


if __name__ == "__main__":
    main()
