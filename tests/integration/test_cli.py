"""The `tenure` command as people and scripts use it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tenure_client import PermissionDenied, TenureSaver, Unauthenticated

from tests.harness.databases import Database
from tests.harness.server import clean_environment
from tests.harness.stack import Stack
from tests.integration.checkpoints_support import config_of, put, value_of


def tenure(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tenure_server", *arguments],
        capture_output=True,
        text=True,
        env=clean_environment() | env,
        timeout=60,
        check=False,
    )


def test_a_script_makes_a_tenant_with_a_key_that_works(stack: Stack) -> None:
    made = tenure(
        "tenant",
        "create",
        "acme",
        "--key",
        "read,write",
        "--json",
        TENURE_ADMIN_DATABASE_URL=stack.database.ops_url,
    )
    answer = json.loads(made.stdout)
    assert answer.keys() >= {"tenant_id", "api_key"}
    with TenureSaver(stack.target, api_key=answer["api_key"]) as saver:
        saver.setup()


@pytest.mark.parametrize("role", ["admin_url", "ops_url"])
def test_keys_are_made_and_revoked_as_the_superuser_or_as_tenure_ops(stack: Stack, role: str) -> None:
    env = {"TENURE_ADMIN_DATABASE_URL": getattr(stack.database, role)}
    tenant = stack.new_tenant().tenant_id
    made = tenure("key", "create", "--tenant", tenant, "--scopes", "read", "--json", **env)
    key = json.loads(made.stdout)
    assert key["tenant_id"] == tenant
    assert key["scopes"] == "read"
    assert tenure("key", "revoke", key["api_key"], "--json", **env).returncode == 0
    with TenureSaver(stack.target, api_key=key["api_key"]) as saver, pytest.raises(Unauthenticated):
        saver.setup()
    again = tenure("key", "revoke", "nosuchkey000", "--tenant", tenant, **env)
    assert again.returncode == 1
    assert "no such key" in again.stderr


def test_a_key_is_made_with_rules_and_limited_by_them(stack: Stack) -> None:
    env = {"TENURE_ADMIN_DATABASE_URL": stack.database.ops_url}
    create = ["key", "create", "--tenant", stack.new_tenant().tenant_id]
    rules = ["--thread-prefix", "billing-:rw", "--namespace", "billing/eu:rw", "--namespace", "*:r"]
    key = json.loads(tenure(*create, *rules, "--json", **env).stdout)
    assert key["rules"] == ["threads:billing-:rw", "namespaces:billing/eu:rw", "namespaces:*:r"]
    with TenureSaver(stack.target, api_key=key["api_key"]) as saver:
        put(saver, "billing-1", 1, "mine")
        assert value_of(saver.get_tuple(config_of("billing-1"))) == "mine"
        with pytest.raises(PermissionDenied, match=r"rules of this API key do not allow to write"):
            put(saver, "orders-1", 1, "theirs")
    assert "threads:billing-:rw" in tenure(*create, *rules, **env).stdout
    assert json.loads(tenure(*create, "--json", **env).stdout)["rules"] == []


@pytest.mark.parametrize(
    ("option", "value", "hint"),
    [
        ("--thread-prefix", "billing-", 'must end in ":r" (read) or ":rw"'),
        ("--thread-prefix", ":rw", 'write "*" for all'),
        ("--thread-prefix", "billing-*:rw", 'needs no "*"'),
        ("--namespace", "billing.eu:rw", 'separated by "/"'),
        ("--namespace", "", "must end in"),
    ],
)
def test_a_rule_that_cannot_be_read_makes_no_key(stack: Stack, option: str, value: str, hint: str) -> None:
    env = {"TENURE_ADMIN_DATABASE_URL": stack.database.ops_url}
    ran = tenure("key", "create", "--tenant", stack.new_tenant().tenant_id, option, value, **env)
    assert ran.returncode == 2
    assert hint in ran.stderr
    assert "tn_" not in ran.stdout


def test_migrate_says_what_it_did_and_is_quiet_the_second_time(database: Database) -> None:
    env = {"TENURE_ADMIN_DATABASE_URL": database.admin_url}
    second = tenure("migrate", "--json", **env)
    assert json.loads(second.stdout) == {"applied": []}
    assert "up to date" in tenure("migrate", **env).stdout


def test_missing_settings_are_told_all_at_once_with_what_to_do() -> None:
    ran = tenure("serve", TENURE_LISTEN="0.0.0.0:7443", TENURE_POOL_SIZE="none")
    assert ran.returncode == 1
    for hint in ("TENURE_DATABASE_URL", "TENURE_TLS_CERT", "TENURE_POOL_SIZE", "tenure dev"):
        assert hint in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_role_that_owns_the_tables_or_bypasses_row_level_security_is_refused(database: Database) -> None:
    ran = tenure("serve", TENURE_DATABASE_URL=database.admin_url, TENURE_LISTEN="127.0.0.1:0")
    assert ran.returncode == 1
    assert "tenure_app" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_database_that_is_away_is_a_message_not_a_traceback() -> None:
    ran = tenure("tenant", "create", "x", TENURE_ADMIN_DATABASE_URL="postgresql://nobody@127.0.0.1:1/x")
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["serve", "--help"], ["key", "create", "-h"], ["completion", "bash"]]
)
def test_help_and_completion_work_without_any_setting(arguments: list[str]) -> None:
    assert tenure(*arguments).returncode == 0


def test_the_command_starts_without_loading_grpc_psycopg_or_redis() -> None:
    code = (
        "import sys, tenure_server.__main__\n"
        "print([name for name in ('grpc', 'psycopg', 'redis', 'google.protobuf') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
