"""`tenure writers`: threads that take no put of a writer who does not say what it builds on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.message import Message
from tenure.v1 import writers_pb2 as pb
from tenure.v1 import writers_pb2_grpc
from tenure_client import StaleWriter, TenureSaver

from tests.harness.server import ServerProcess
from tests.harness.stack import Stack, TenantHandle
from tests.integration.admin_support import Caller
from tests.integration.checkpoints_support import config_of, id_of, put, value_of
from tests.integration.single_writer_support import graph_of, said, say
from tests.integration.test_cli import tenure

METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["WriterService"].methods]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tenant(stack: Stack) -> TenantHandle:
    return stack.new_tenant()


@pytest.fixture
def admin(stack: Stack, tenant: TenantHandle) -> Run:
    """Runs `tenure` as the tenant's admin."""
    key = stack.new_key(tenant, scopes=("admin",))
    env = {"TENURE_ADMIN_TARGET": stack.admin_target, "TENURE_API_KEY": key}
    return lambda *arguments: tenure(*arguments, **env)


@pytest.fixture
def savers(stack: Stack, replica: ServerProcess, tenant: TenantHandle) -> Iterator[list[TenureSaver]]:
    """A plain saver, and one on another server that expects what it builds on."""
    with ExitStack() as opened:
        yield [
            opened.enter_context(TenureSaver(stack.target, api_key=tenant.api_key)),
            opened.enter_context(TenureSaver(replica.target, api_key=tenant.api_key, single_writer=True)),
        ]


def answer(ran: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the JSON object that a command printed."""
    assert (ran.returncode, ran.stderr) == (0, "")
    parsed: dict[str, Any] = json.loads(ran.stdout)
    return parsed


def test_a_policy_reaches_threads_that_are_there_and_those_to_come(
    admin: Run, savers: list[TenureSaver]
) -> None:
    plain, careful = savers
    for thread in ("billing-1", "billing-2", "chat-1"):
        put(plain, thread, 1, "before")
    made = answer(admin("writers", "require", "billing-", "--json"))
    assert (made["thread_prefix"], made["threads"]) == ("billing-", 2)
    for thread in ("billing-1", "billing-3"):
        with pytest.raises(StaleWriter):
            put(plain, thread, 2 if thread == "billing-1" else 1, "careless")
    put(plain, "chat-1", 2, "not meant")
    put(careful, "billing-1", 2, "expected")
    careful.put_writes(config_of("billing-1", id_of(2)), [("state", 1)], "task")
    put(careful, "billing-3", 1, "expected")
    with plain.single_writer("billing-2"):
        put(plain, "billing-2", 2, "leased")
    with pytest.raises(StaleWriter):
        put(plain, "billing-2", 3, "careless")
    assert value_of(plain.get_tuple(config_of("billing-2"))) == "leased"
    copied = "billing-copy"
    plain.copy_thread("chat-1", copied)
    with pytest.raises(StaleWriter):
        put(plain, copied, 3, "careless")


def test_free_takes_a_policy_back_where_no_other_one_holds(admin: Run, savers: list[TenureSaver]) -> None:
    plain, _ = savers
    put(plain, "billing-eu-1", 1, "before")
    put(plain, "billing-us-1", 1, "before")
    assert answer(admin("writers", "require", "billing-", "--json"))["threads"] == 2
    assert answer(admin("writers", "require", "billing-eu", "--json"))["threads"] == 0
    assert answer(admin("writers", "require", "billing-eu", "--json"))["threads"] == 0, "again"
    listed = answer(admin("writers", "list", "--json"))["policies"]
    assert [policy["thread_prefix"] for policy in listed] == ["billing-", "billing-eu"]
    assert answer(admin("writers", "free", "billing-", "--yes", "--json"))["threads"] == 1
    put(plain, "billing-us-1", 2, "free")
    put(plain, "billing-us-2", 1, "free")
    with pytest.raises(StaleWriter):
        put(plain, "billing-eu-1", 2, "careless")
    answer(admin("writers", "free", "billing-eu", "--yes", "--json"))
    put(plain, "billing-eu-1", 2, "free")


def test_all_threads_of_a_tenant_and_of_no_other(stack: Stack, admin: Run, savers: list[TenureSaver]) -> None:
    plain, careful = savers
    thread = str(uuid4())
    assert answer(admin("writers", "require", "*", "--json"))["thread_prefix"] == "*"
    with pytest.raises(StaleWriter):
        graph_of(plain).invoke(say("careless"), config_of(thread))
    graph_of(careful).invoke(say("careful"), config_of(thread))
    assert said(plain, thread) == ["careful", "heard careful"]
    with TenureSaver(stack.target, api_key=stack.new_tenant().api_key) as stranger:
        put(stranger, thread, 1, "of another tenant")


def test_more_threads_than_are_changed_at_a_time(
    stack: Stack, tenant: TenantHandle, admin: Run, savers: list[TenureSaver]
) -> None:
    import psycopg

    with psycopg.connect(stack.database.admin_url) as connection:
        connection.execute(
            "INSERT INTO tenure.thread_head (tenant_id, thread_id) "
            "SELECT %s, 'many-' || n FROM generate_series(1, 1203) AS n",
            [tenant.tenant_id],
        )
    assert answer(admin("writers", "require", "many-", "--json"))["threads"] == 1203
    with pytest.raises(StaleWriter):
        put(savers[0], "many-777", 1, "careless")
    assert answer(admin("writers", "free", "many-", "--yes", "--json"))["threads"] == 1203
    put(savers[0], "many-777", 1, "free")


def test_people_get_a_table_and_clear_words(admin: Run) -> None:
    assert admin("writers", "list").stdout.splitlines() == ["THREAD PREFIX  CREATED"]
    admin("writers", "require", "billing-")
    _, line = admin("writers", "list").stdout.splitlines()
    assert line.split()[0] == "billing-"
    refused = admin("writers", "free", "biling-", "--yes")
    assert (refused.returncode, refused.stderr) == (
        1,
        "Error: thread_prefix: is not the prefix of a policy; list them\n",
    )
    empty = admin("writers", "require", "")
    assert empty.returncode == 2
    assert 'write "*" for all' in empty.stderr
    long = admin("writers", "require", "x" * 513)
    assert (long.returncode, "bytes" in long.stderr) == (1, True)


@contextmanager
def callers(stack: Stack, *keys: str) -> Iterator[list[Caller]]:
    """Give a caller of WriterService for each key."""
    with grpc.insecure_channel(stack.admin_target) as channel:
        stub = writers_pb2_grpc.WriterServiceStub(channel)
        yield [Caller(stub, key) for key in keys]


def request_of(method: str, tenant_id: str) -> Message:
    """Return a request about a tenant."""
    made: Message = getattr(pb, f"{method}Request")(tenant_id=tenant_id)
    if "thread_prefix" in made.DESCRIPTOR.fields_by_name:
        made.thread_prefix = "billing-"  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize("method", METHODS)
def test_agents_are_refused_and_admins_reach_their_own_tenant_alone(
    stack: Stack, tenant: TenantHandle, method: str
) -> None:
    other = stack.new_tenant()
    keys = [tenant.api_key, stack.new_key(tenant, scopes=("admin",)), stack.new_operator()]
    with callers(stack, *keys) as (agent, admin, operator):
        if method == "DeleteWriterPolicy":
            for tenant_id in (tenant.tenant_id, other.tenant_id):
                operator.call(request_of("CreateWriterPolicy", tenant_id))
        assert agent.refusal(request_of(method, "")).reason == "SCOPE_MISSING"
        foreign = admin.refusal(request_of(method, other.tenant_id))
        absent = admin.refusal(request_of(method, str(uuid4())))
        assert foreign.told == absent.told == operator.refusal(request_of(method, str(uuid4()))).told
        assert foreign.reason == "TENANT_NOT_FOUND"
        assert operator.refusal(request_of(method, "")).reason == "INVALID_FIELD"
        admin.call(request_of(method, ""))
        operator.call(request_of(method, other.tenant_id))
