"""RetentionService and `tenure retention`: who may call it, and what agents see of it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from tenure.v1 import retention_pb2 as pb
from tenure.v1 import retention_pb2_grpc
from tenure_client import LegalHold, TenureSaver, TenureStore

from tests.harness.server import ServerProcess
from tests.harness.stack import Stack, TenantHandle
from tests.integration.admin_support import ADMIN_ENV, Caller
from tests.integration.checkpoints_support import config_of, id_of, put
from tests.integration.test_cli import tenure

METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["RetentionService"].methods]
Run = Callable[..., subprocess.CompletedProcess[str]]
OF_WHAT_IS_THERE = {"DeletePolicy", "Pin", "Unpin", "Release"}
EVERYTHING = pb.RetentionScope(thread_prefix="")


@contextmanager
def callers(target: str, *api_keys: str) -> Iterator[list[Caller]]:
    """Give a caller for each key."""
    with grpc.insecure_channel(target) as channel:
        stub = retention_pb2_grpc.RetentionServiceStub(channel)
        yield [Caller(_Whole(stub), key) for key in api_keys]


class _Whole:
    """A stub whose streamed answers come as lists."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._stub, name)
        return (lambda *args, **more: list(method(*args, **more))) if name == "Preview" else method


def request_of(method: str, tenant_id: str = "") -> Message:
    """Return a valid request."""
    made: Message = getattr(pb, f"{method}Request")(tenant_id=tenant_id)
    given: dict[str, Message] = {
        "policy": pb.RetentionPolicy(scope=EVERYTHING, keep_last=1000),
        "scope": EVERYTHING,
        "pin": pb.RetentionPin(thread_id="t"),
        "hold": pb.LegalHold(),
    }
    for name, value in given.items():
        if name in made.DESCRIPTOR.fields_by_name:
            getattr(made, name).CopyFrom(value)
    return made


@pytest.fixture
def tenant(stack: Stack) -> TenantHandle:
    return stack.new_tenant()


@pytest.fixture
def admin_key(stack: Stack, tenant: TenantHandle) -> str:
    return stack.new_key(tenant, scopes=("admin",))


@pytest.fixture
def saver(stack: Stack, tenant: TenantHandle) -> Iterator[TenureSaver]:
    with TenureSaver(stack.target, api_key=tenant.api_key) as opened:
        yield opened


@pytest.fixture
def admin(stack: Stack, admin_key: str) -> Run:
    """Runs `tenure` as the tenant's admin."""
    env = {"TENURE_ADMIN_TARGET": stack.admin_target, "TENURE_API_KEY": admin_key}
    return lambda *arguments: tenure(*arguments, **env)


def answer(ran: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the JSON object that a command printed."""
    assert (ran.returncode, ran.stderr) == (0, "")
    parsed: dict[str, Any] = json.loads(ran.stdout)
    return parsed


def steps(saver: TenureSaver, thread: str) -> list[str]:
    """Return what an agent sees of a thread, the oldest first."""
    found = [tuple_.checkpoint["id"] for tuple_ in saver.list(config_of(thread))]
    return found[::-1]


@pytest.mark.parametrize("method", METHODS)
def test_agents_and_limited_admins_are_refused(stack: Stack, tenant: TenantHandle, method: str) -> None:
    limited = stack.new_key(tenant, "threads:*:rw", scopes=("admin",))
    with callers(stack.admin_target, tenant.api_key, limited) as (agent, ruled):
        assert agent.refusal(request_of(method)).reason == "SCOPE_MISSING"
        assert ruled.refusal(request_of(method)).reason == "OUTSIDE_RULES"


@pytest.mark.parametrize("method", METHODS)
def test_another_tenant_is_like_one_that_is_not_there(stack: Stack, admin_key: str, method: str) -> None:
    other = stack.new_tenant()
    with callers(stack.admin_target, admin_key, stack.new_operator()) as (admin, operator):
        refused = admin.refusal(request_of(method, other.tenant_id))
        absent = admin.refusal(request_of(method, "00000000-0000-4000-8000-000000000001"))
        assert refused.told == absent.told
        assert refused.reason == "TENANT_NOT_FOUND"
        assert operator.refusal(request_of(method)).reason == "INVALID_FIELD"
        if method in OF_WHAT_IS_THERE:
            refused = operator.refusal(request_of(method, other.tenant_id))
            assert refused.reason in {"INVALID_FIELD", "THREAD_NOT_FOUND"}
        else:
            operator.call(request_of(method, other.tenant_id))


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (pb.RetentionPolicy(scope=EVERYTHING), "policy"),
        (pb.RetentionPolicy(keep_last=1), "policy.scope"),
        (pb.RetentionPolicy(scope=EVERYTHING, keep_last=0), "policy.keep_last"),
        (pb.RetentionPolicy(scope=EVERYTHING, max_age=0), "policy.max_age"),
        (pb.RetentionPolicy(scope=EVERYTHING, max_age=float("nan")), "policy.max_age"),
        (pb.RetentionPolicy(scope=EVERYTHING, item_ttl=5), "policy.item_ttl"),
        (pb.RetentionPolicy(scope=EVERYTHING, max_bytes=2**63), "policy.max_bytes"),
        (
            pb.RetentionPolicy(scope=pb.RetentionScope(namespace=pb.NamespacePrefix()), item_ttl=5, floor=1),
            "policy.floor",
        ),
        (
            pb.RetentionPolicy(
                scope=pb.RetentionScope(namespace=pb.NamespacePrefix(labels=[""])), item_ttl=5
            ),
            "policy.scope.namespace.labels[0]",
        ),
        (
            pb.RetentionPolicy(scope=pb.RetentionScope(thread_prefix="\0"), keep_last=1),
            "policy.scope.thread_prefix",
        ),
    ],
)
def test_a_policy_that_cannot_be_is_refused_by_its_field(
    stack: Stack, admin_key: str, policy: pb.RetentionPolicy, field: str
) -> None:
    with callers(stack.admin_target, admin_key) as (admin,):
        for request in (pb.SetPolicyRequest(policy=policy), pb.PreviewRequest(policy=policy)):
            refused = admin.refusal(request)
            assert refused.reason in {"INVALID_FIELD", "LIMIT_EXCEEDED"}
            assert field in str(refused)


def test_an_admins_way_through_the_commands(admin: Run, saver: TenureSaver) -> None:
    for number in range(1, 6):
        put(saver, "chat-1", number, number)
        put(saver, "case-7", number, number)
    proposal = ["--thread-prefix", "*", "--keep-last", "2"]
    previewed = answer(admin("retention", "preview", *proposal, "--json"))
    assert (previewed["threads"], previewed["checkpoints"], previewed["items"]) == (0, 6, 0)
    assert previewed["bytes"] > 0
    assert len(steps(saver, "chat-1")) == 5, "a preview changes nothing"

    held = answer(admin("retention", "hold", "--thread-prefix", "case-", "--reason", "file 12", "--json"))
    assert (held["scope"], held["reason"]) == ("threads:case-", "file 12")
    pinned = answer(admin("retention", "pin", "chat-1", "--checkpoint", id_of(1), "--json"))
    assert pinned["checkpoint_id"] == id_of(1)
    made = answer(admin("retention", "set", *proposal, "--floor", "1", "--yes", "--json"))
    assert (made["scope"], made["keep_last"], made["floor"]) == ("threads:*", 2, 1)
    assert steps(saver, "chat-1") == [id_of(number) for number in (1, 4, 5)]
    assert len(steps(saver, "case-7")) == 5
    with pytest.raises(LegalHold):
        saver.delete_thread("case-7")

    listed = answer(admin("retention", "list", "--json"))
    assert [policy["scope"] for policy in listed["policies"]] == ["threads:*"]
    assert [hold["scope"] for hold in listed["holds"]] == ["threads:case-"]
    assert [pin["thread_id"] for pin in listed["pins"]] == ["chat-1"]
    shown = admin("retention", "list").stdout
    assert re.search(r"^threads:\*\s+-\s+-\s+2\s+-\s+-\s+1\s", shown, re.MULTILINE)

    admin("retention", "unpin", "chat-1", "--checkpoint", id_of(1))
    assert steps(saver, "chat-1") == [id_of(4), id_of(5)]
    released = admin("retention", "release", "--thread-prefix", "case-", "--yes")
    assert (released.returncode, steps(saver, "case-7")) == (0, [id_of(4), id_of(5)])
    deleted = admin("retention", "delete", "--thread-prefix", "*", "--yes")
    assert deleted.returncode == 0
    assert admin("retention", "delete", "--thread-prefix", "*", "--yes").returncode == 1


def test_every_change_leaves_a_line_that_names_no_thread(open_folder: Path, stack: Stack) -> None:
    server = ServerProcess(open_folder, stack.database, env={**ADMIN_ENV, "TENURE_LOG_LEVEL": "ERROR"})
    tenant = stack.new_tenant(("admin",))
    scope = pb.RetentionScope(thread_prefix="patient-miller")
    try:
        target = server.start().admin_target
        assert target is not None
        with callers(target, tenant.api_key) as (admin,):
            admin.call(pb.SetPolicyRequest(policy=pb.RetentionPolicy(scope=scope, keep_last=3)))
            admin.call(pb.HoldRequest(hold=pb.LegalHold(scope=scope, reason="the miller case")))
            admin.refusal(pb.PinRequest(pin=pb.RetentionPin(thread_id="patient-miller-1")))
            admin.call(pb.ReleaseRequest(scope=scope))
            admin.call(pb.DeletePolicyRequest(scope=scope))
            admin.call(pb.PreviewRequest())
    finally:
        server.close()
    log = server.log.read_text()
    lines = [json.loads(line.partition("tenure.audit: ")[2]) for line in log.splitlines() if "audit" in line]
    assert [(line["rpc"], line["outcome"], line.get("settings", {}).get("of")) for line in lines] == [
        ("SetPolicy", "OK", "threads"),
        ("Hold", "OK", "threads"),
        ("Pin", "THREAD_NOT_FOUND", None),
        ("Release", "OK", "threads"),
        ("DeletePolicy", "OK", "threads"),
    ]
    assert lines[0]["settings"]["keep_last"] == 3
    assert "miller" not in log


def test_items_expire_by_namespace(stack: Stack, admin: Run, tenant: TenantHandle) -> None:
    with TenureStore(stack.target, api_key=tenant.api_key) as store:
        store.put(("a", "b/c"), "k", {"v": 1})
        store.put(("a",), "k", {"v": 1})
        made = admin("retention", "set", "--namespace", "a/b%2Fc", "--max-bytes", "0", "--yes", "--json")
        assert answer(made)["scope"] == "items:a/b%2Fc"
        assert store.get(("a", "b/c"), "k") is None
        assert store.get(("a",), "k") is not None


@pytest.mark.parametrize(
    "arguments",
    [
        ["set", "--keep-last", "1", "--yes"],
        ["set", "--thread-prefix", "", "--keep-last", "1", "--yes"],
        ["set", "--thread-prefix", "*", "--yes"],
        ["set", "--thread-prefix", "*", "--keep-last", "2", "--keep-latest", "--yes"],
        ["set", "--thread-prefix", "*", "--namespace", "*", "--keep-last", "2", "--yes"],
        ["set", "--thread-prefix", "*", "--keep-last", "99999999999", "--yes"],
        ["set", "--thread-prefix", "*", "--keep-last", "1", "--floor", "99999999999", "--yes"],
        ["set", "--thread-prefix", "*", "--max-bytes", "9999999PiB", "--yes"],
        ["set", "--thread-prefix", "*", "--max-bytes", "none", "--yes"],
        ["preview", "--keep-last", "2"],
        ["hold", "--all", "--thread-prefix", "x"],
        ["hold"],
    ],
    ids=" ".join,
)
def test_arguments_that_make_no_sense_send_nothing(admin: Run, arguments: list[str]) -> None:
    assert admin("retention", *arguments).returncode == 2


def test_without_a_yes_nothing_is_set(admin: Run) -> None:
    assert admin("retention", "set", "--thread-prefix", "*", "--keep-last", "1").returncode == 1
    assert answer(admin("retention", "list", "--json"))["policies"] == []
