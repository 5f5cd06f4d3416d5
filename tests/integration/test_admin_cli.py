"""`tenure tenants`, `keys` and `whoami` as people and scripts use them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from tests.harness.stack import Stack
from tests.integration.admin_support import key_id_of, new_admin, works
from tests.integration.test_cli import tenure

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def as_operator(stack: Stack) -> Run:
    """Runs `tenure` as an operator."""
    env = {"TENURE_ADMIN_TARGET": stack.admin_target, "TENURE_API_KEY": stack.new_operator()}
    return lambda *arguments: tenure(*arguments, **env)


def answer(ran: subprocess.CompletedProcess[str]) -> dict[str, object]:
    """Return the one JSON object that a command printed."""
    assert (ran.returncode, ran.stderr) == (0, "")
    parsed: dict[str, object] = json.loads(ran.stdout)
    return parsed


def test_scripts_get_one_object_from_every_command(stack: Stack, as_operator: Run) -> None:
    assert answer(as_operator("whoami", "--json"))["role"] == "operator"
    tenant = answer(as_operator("tenants", "create", "acme", "--json"))
    tenant_id = str(tenant["tenant_id"])
    assert tenant == {
        "tenant_id": tenant_id,
        "name": "acme",
        "state": "active",
        "created_at": tenant["created_at"],
        "suspended_at": None,
    }
    assert answer(as_operator("tenants", "show", tenant_id, "--json")) == tenant
    assert tenant in answer(as_operator("tenants", "list", "--json"))["tenants"]  # type: ignore[operator]
    of = ["--tenant", tenant_id, "--json"]
    key = answer(as_operator("keys", "create", "--role", "reader", "--expires-in", "90d", *of))
    assert works(stack.target, str(key["api_key"]))
    assert (key["role"], key["scopes"], key["rules"]) == ("reader", ["read"], [])
    rotated = answer(as_operator("keys", "rotate", str(key["key_id"]), "--overlap", "1h", *of))
    assert rotated["replaced"]["key_id"] == key["key_id"]  # type: ignore[index]
    new_id = str(rotated["key_id"])
    assert answer(as_operator("keys", "expire", new_id, "--in", "30m", "--yes", *of))["state"] == "active"
    assert answer(as_operator("keys", "revoke", new_id, "--yes", *of))["state"] == "revoked"
    listed = answer(as_operator("keys", "list", *of))["keys"]
    assert [entry["key_id"] for entry in listed] == [key["key_id"], new_id]  # type: ignore[attr-defined]
    for command, state in (("suspend", "suspended"), ("resume", "active")):
        yes = [] if command == "resume" else ["--yes"]
        assert answer(as_operator("tenants", command, tenant_id, *yes, "--json"))["state"] == state
    assert (
        answer(as_operator("tenants", "delete", tenant_id, "acme", "--yes", "--json"))["state"] == "deleting"
    )


def test_people_get_a_table_with_all_keys_of_several_pages(stack: Stack, as_operator: Run) -> None:
    tenant = stack.new_tenant(("read", "write", "admin"))
    made = [key_id_of(stack.new_key(tenant, "threads:a-:rw")) for _ in range(101)]
    title, first, *rest = as_operator("keys", "list", "--tenant", tenant.tenant_id).stdout.splitlines()
    assert re.split(r"\s{2,}", title) == [
        *("KEY ID", "NAME", "ROLE", "STATE", "CREATED", "EXPIRES", "LAST USED", "RULES")
    ]
    cells = re.split(r"\s{2,}", first)
    assert (cells[0], cells[2], cells[3]) == (key_id_of(tenant.api_key), "read,write,admin", "active")
    assert [line.split()[0] for line in rest] == made
    assert all(line.index("active") == title.index("STATE") for line in [first, *rest])


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["tenants", "list"], 3, "lacks the scope 'operator'"),
        (["keys", "list", "--tenant", str(uuid4())], 4, "there is no such tenant"),
        (["keys", "revoke", "nosuchkey000", "--yes"], 4, "there is no such key"),
        (
            ["keys", "create", "--role", "operator"],
            1,
            "scopes: operator is for keys that belong to no tenant",
        ),
        (["keys", "create", "--role", "agent", "--scopes", "read"], 2, "exclude each other"),
        (["keys", "create", "--scopes", "operator"], 2, "read, write, admin"),
        (["keys", "create", "--expires-in", "soon"], 2, "such as 12h"),
        (["keys", "create", "--thread-prefix", ":rw"], 2, 'write "*" for all'),
        (["keys", "revoke", "nosuchkey000"], 1, "Revoke key nosuchkey000 for good? [y/N]"),
        (["whoami", "--target", "nowhere"], 2, "host:port"),
        (["whoami", "--target", "127.0.0.1:1"], 5, "127.0.0.1:1 does not answer"),
    ],
)
def test_a_refusal_says_why_and_its_exit_code_what_kind_it_is(
    stack: Stack, arguments: list[str], code: int, hint: str
) -> None:
    env = {"TENURE_ADMIN_TARGET": stack.admin_target, "TENURE_API_KEY": new_admin(stack).api_key}
    ran = tenure(*arguments, **env)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert hint in ran.stderr
    assert "Traceback" not in ran.stderr
    assert env["TENURE_API_KEY"] not in ran.stderr


def test_settings_that_are_missing_or_wrong_are_told(stack: Stack, tmp_path: Path) -> None:
    admin = new_admin(stack).api_key
    file = tmp_path / "key"
    file.write_text(f"{admin}\n")
    target = {"TENURE_ADMIN_TARGET": stack.admin_target}
    assert "TENURE_ADMIN_TARGET" in tenure("whoami", TENURE_API_KEY=admin).stderr
    assert "TENURE_API_KEY" in tenure("whoami", **target).stderr
    found = tenure("whoami", "--key-file", str(file), "--json", **target, TENURE_API_KEY="tn_wrong")
    assert json.loads(found.stdout)["key_id"] == key_id_of(admin)
    assert tenure("whoami", **target, TENURE_API_KEY="tn_wrong").returncode == 3
    wrong_port = tenure("whoami", TENURE_ADMIN_TARGET=stack.target, TENURE_API_KEY=admin)
    assert "TENURE_ADMIN_LISTEN" in wrong_port.stderr


def test_the_first_operator_is_made_in_the_database(stack: Stack) -> None:
    env = {"TENURE_ADMIN_DATABASE_URL": stack.database.ops_url}
    made = json.loads(tenure("key", "create", "--operator", "--json", **env).stdout)
    served = {"TENURE_ADMIN_TARGET": stack.admin_target, "TENURE_API_KEY": made["api_key"]}
    assert answer(tenure("whoami", "--json", **served))["key_id"] == made["key_id"]
    assert tenure("key", "revoke", "--operator", made["key_id"], **env).returncode == 0
    assert tenure("whoami", **served).returncode == 3
    for arguments in ([], ["--operator", "--scopes", "read"], ["--operator", "--tenant", str(uuid4())]):
        assert tenure("key", "create", *arguments, **env).returncode == 2


@pytest.mark.parametrize(
    ("env", "hint"),
    [
        ({"TENURE_ADMIN_LISTEN": "127.0.0.1:0"}, "needs TENURE_OPS_DATABASE_URL"),
        (
            {"TENURE_ADMIN_LISTEN": "0.0.0.0:7445", "TENURE_OPS_DATABASE_URL": "postgresql://x"},
            "TENURE_ADMIN_LISTEN: 0.0.0.0:7445 is beyond loopback",
        ),
        ({"TENURE_ADMIN_LISTEN": "7445", "TENURE_OPS_DATABASE_URL": "postgresql://x"}, "must be host:port"),
        ({"TENURE_ADMIN_LISTEN": "127.0.0.1:0", "TENURE_OPS_DATABASE_URL": "app"}, "act as tenure_ops"),
    ],
)
def test_a_server_that_cannot_administer_says_what_is_wrong(
    stack: Stack, env: dict[str, str], hint: str
) -> None:
    urls = {"TENURE_DATABASE_URL": stack.database.app_url, "TENURE_LISTEN": "127.0.0.1:0"}
    if env.get("TENURE_OPS_DATABASE_URL") == "app":
        env = {**env, "TENURE_OPS_DATABASE_URL": stack.database.app_url}
    ran = tenure("serve", **urls, **env)
    assert ran.returncode == 1
    assert hint in ran.stderr
    assert "cannot serve:" in ran.stderr
