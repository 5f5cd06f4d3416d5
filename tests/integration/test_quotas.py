"""QuotaService on the admin port, `tenure quota` and `tenure usage`: who may, what it shows and does."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from tenure.v1 import quotas_pb2 as pb
from tenure_client import QuotaExceeded, TenureSaver, TenureStore
from tenure_server import telemetry
from tenure_server.domain import Role, TenantId
from tenure_server.storage.postgres.sweeper import Sweeper

from tests.harness.databases import Database
from tests.harness.running import run
from tests.harness.stack import Stack, TenantHandle
from tests.integration.admin_support import new_admin
from tests.integration.checkpoints_support import put
from tests.integration.quota_support import METHODS, OPERATOR_ONLY, QuotaCaller, quota_callers, request_of
from tests.integration.test_cli import tenure

LIMITS = {
    "max_stored_bytes": 10 * 1024**3,
    "max_threads": 250_000,
    "max_items": 5,
    "max_checkpoints_per_thread": 100,
    "max_value_bytes": 1024**2,
    "soft_percent": 90,
    "operations_per_second": 0.5,
    "bytes_per_second": 5_000_000,
    "burst_seconds": 2.5,
    "max_concurrency": 7,
}


@pytest.fixture
def operator(stack: Stack) -> Iterator[QuotaCaller]:
    """An operator at QuotaService."""
    with quota_callers(stack.admin_target, stack.new_operator()) as (caller,):
        yield caller


ROLES = {"reader": Role.READER, "agent": Role.AGENT, "admin": Role.ADMIN, "operator": Role.OPERATOR}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("method", METHODS)
def test_each_role_may_call_what_is_meant_for_it(stack: Stack, method: str, role: str) -> None:
    tenant = stack.new_tenant()
    scopes = tuple(scope.value for scope in ROLES[role].scopes)
    key = stack.new_operator() if role == "operator" else stack.new_key(tenant, scopes=scopes)
    request = request_of(method, tenant.tenant_id)
    with quota_callers(stack.admin_target, key) as (caller,):
        if role == "operator" or (role == "admin" and method not in OPERATOR_ONLY):
            caller.call(request)
        else:
            assert caller.refusal(request).reason == "SCOPE_MISSING"


@pytest.mark.parametrize("method", sorted(set(METHODS) - OPERATOR_ONLY))
def test_another_tenant_is_to_an_admin_what_an_absent_one_is(
    stack: Stack, operator: QuotaCaller, method: str
) -> None:
    mine, other = new_admin(stack), new_admin(stack)
    with quota_callers(stack.admin_target, mine.api_key) as (admin,):
        admin.call(request_of(method, ""))
        foreign = admin.refusal(request_of(method, other.tenant_id))
        absent = admin.refusal(request_of(method, str(uuid4())))
    assert foreign.told == absent.told == operator.refusal(request_of(method, str(uuid4()))).told
    assert foreign.reason == "TENANT_NOT_FOUND"
    assert operator.refusal(request_of(method, "")).reason == "INVALID_FIELD"


def test_limits_of_a_tenant_that_is_not_there_cannot_be_set(operator: QuotaCaller) -> None:
    assert operator.refusal(request_of("SetQuota", str(uuid4()))).reason == "TENANT_NOT_FOUND"


def test_only_the_named_limits_change(stack: Stack, operator: QuotaCaller) -> None:
    tenant = stack.new_tenant().tenant_id
    none = operator.call(pb.GetQuotaRequest(tenant_id=tenant)).quota
    assert none == pb.Quota(soft_percent=80, burst_seconds=1.0)
    assert operator.set(tenant, **LIMITS) == pb.Quota(**LIMITS)
    assert operator.set(tenant, max_items=None, burst_seconds=None) == pb.Quota(
        **{**LIMITS, "burst_seconds": 1.0, "max_items": None}
    )
    assert operator.set(tenant, **dict.fromkeys(LIMITS)) == none


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("soft_percent", 0),
        ("soft_percent", 101),
        ("operations_per_second", 0.0),
        ("operations_per_second", float("nan")),
        ("operations_per_second", float("inf")),
        ("burst_seconds", -1.0),
        ("bytes_per_second", 0),
        ("max_concurrency", 0),
        ("max_stored_bytes", 2**63),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(
    stack: Stack, operator: QuotaCaller, field: str, value: float
) -> None:
    request = pb.SetQuotaRequest(tenant_id=stack.new_tenant().tenant_id)
    request.update_mask.paths.append(field)
    setattr(request.quota, field, value)
    refused = operator.refusal(request)
    assert refused.reason == "INVALID_FIELD"
    assert f"quota.{field}" in str(refused)
    for paths in ([], ["tenant_id"], ["max_threads.x"]):
        del request.update_mask.paths[:]
        request.update_mask.paths.extend(paths)
        assert "update_mask" in str(operator.refusal(request))


@pytest.fixture
def filled(stack: Stack) -> TenantHandle:
    """A tenant with threads of several prefixes, and items."""
    tenant = stack.new_tenant(("read", "write", "admin"))
    with TenureSaver(stack.target, api_key=tenant.api_key) as saver:
        for thread, size in {
            "a-x-1": 30_000,
            "a-x-2": 20_000,
            "a-y-1": 5000,
            "b-1": 9000,
            "alone": 10,
        }.items():
            put(saver, thread, 1, size * "v")
        put(saver, "b-1", 2, "small")
        store = TenureStore(saver.connection)
        for user, size in {"ann": 7000, "bob": 3000}.items():
            store.put(("users", user), "profile", {"text": size * "t"})
        store.put(("shared",), "note", {"text": "short"})
    return tenant


def parts_of(operator: QuotaCaller, tenant: TenantHandle, by: str, **rest: object) -> pb.ListUsageResponse:
    answer: pb.ListUsageResponse = operator.call(
        pb.ListUsageRequest(tenant_id=tenant.tenant_id, by=f"USAGE_KIND_{by}", **rest)  # type: ignore[arg-type]
    )
    return answer


def test_the_parts_of_the_usage_add_up_to_it(operator: QuotaCaller, filled: TenantHandle) -> None:
    usage = operator.call(pb.GetUsageRequest(tenant_id=filled.tenant_id)).usage
    assert (usage.threads, usage.items) == (5, 3)
    for by in ("THREAD", "THREAD_PREFIX"):
        threads, items = (
            parts_of(operator, filled, by, limit=2),
            parts_of(operator, filled, "NAMESPACE", limit=1),
        )
        rows = [*threads.rows, threads.rest, *items.rows, items.rest]
        assert sum(row.stored_bytes for row in rows) == usage.stored_bytes
        assert sum(row.threads for row in rows) == 5
        assert sum(row.checkpoints for row in rows) == 6
        assert sum(row.items for row in rows) == 3


def test_usage_is_broken_down_by_thread_prefix_and_namespace(
    operator: QuotaCaller, filled: TenantHandle
) -> None:
    def threads(by: str, **rest: object) -> list[tuple[str, int]]:
        return [(row.name, row.threads) for row in parts_of(operator, filled, by, **rest).rows]

    names = [name for name, _ in threads("THREAD")]
    assert set(names) == {"a-x-1", "a-x-2", "a-y-1", "b-1", "alone"}
    assert threads("THREAD", limit=2) == [(name, 1) for name in names[:2]]
    assert dict(threads("THREAD_PREFIX")) == {"a-": 3, "b-": 1, "alone": 1}
    assert dict(threads("THREAD_PREFIX", thread_prefix="a-")) == {"a-x-": 2, "a-y-": 1}
    assert dict(threads("THREAD", thread_prefix="a-y")) == {"a-y-1": 1}
    spaces = parts_of(operator, filled, "NAMESPACE")
    assert [(list(row.namespace), row.items) for row in spaces.rows] == [(["users"], 2), (["shared"], 1)]
    below = parts_of(operator, filled, "NAMESPACE", namespace=["users"])
    assert [list(row.namespace) for row in below.rows] == [["users", "ann"], ["users", "bob"]]


def sweep(database: Database) -> Sweeper:
    sweeper = Sweeper(database.ops_url)
    run(sweeper.run_once())
    return sweeper


def test_usage_is_noted_day_by_day(database: Database) -> None:
    tenant = run(database.tenants().create_tenant("test"))
    today = datetime.now(UTC).date()
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute("INSERT INTO tenure.tenant_usage VALUES (%s, 5000, 7, 3)", [tenant])
        for days, stored in ((500, 1), (2, 1000), (1, 6000)):
            admin.execute(
                "INSERT INTO tenure.usage_day VALUES (%s, %s, %s, 1, 1)",
                [tenant, today - timedelta(days), stored],
            )
        sweep(database)
        kept = admin.execute(
            "SELECT day, stored_bytes, threads, items FROM tenure.usage_day ORDER BY day"
        ).fetchall()
        assert [row[0] for row in kept] == [today - timedelta(days) for days in (2, 1, 0)]
        assert kept[-1] == (today, 5000, 7, 3)
        admin.execute("UPDATE tenure.tenant_usage SET stored_bytes = 4000")
        sweep(database)
        assert admin.execute("SELECT stored_bytes FROM tenure.usage_day ORDER BY day").fetchall() == [
            *((1000,), (6000,), (4000,))
        ]


def test_days_are_told_with_their_growth(stack: Stack, operator: QuotaCaller) -> None:
    tenant = stack.new_tenant()
    today = datetime.now(UTC).date()
    with psycopg.connect(stack.database.admin_url) as admin:
        admin.execute("INSERT INTO tenure.tenant_usage VALUES (%s, 5000, 7, 3)", [tenant.tenant_id])
        admin.execute(
            "INSERT INTO tenure.usage_day VALUES (%s, %s, 6000, 1, 1)",
            [tenant.tenant_id, today - timedelta(1)],
        )
    rows = parts_of(operator, tenant, "DAY").rows
    assert [(row.name, row.stored_bytes) for row in rows[-1:]] == [(today.isoformat(), 5000)]
    assert not rows[0].HasField("grown_bytes")
    assert rows[-1].grown_bytes == -1000
    assert [row.name for row in parts_of(operator, tenant, "DAY", limit=1).rows] == [today.isoformat()]


def test_a_soft_limit_is_warned_of_once_and_shown_as_a_metric(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    tenants = [run(database.tenants().create_tenant("test")) for _ in range(3)]
    rows = [(79, 100), (80, 100), (0, None)]
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        for tenant, (used, maximum) in zip(tenants, rows, strict=True):
            admin.execute(
                "INSERT INTO tenure.tenant_usage (tenant_id, threads, max_threads) VALUES (%s, %s, %s)",
                [tenant, used, maximum],
            )
        warned = telemetry.tenant_hash(tenants[1])
        with caplog.at_level(logging.INFO, "tenure.quota"):
            sweeper = sweep(database)
            assert [record.getMessage() for record in caplog.records if record.name == "tenure.quota"] == [
                f"tenant {warned} uses 80 of 100 threads, 80.0 %"
            ]
            observed = {
                (
                    str((reading.attributes or {})[telemetry.TENANT]),
                    (reading.attributes or {})["limit"],
                ): reading.value
                for reading in telemetry._observe_quotas(None)  # type: ignore[arg-type]
            }
            assert observed == {
                (telemetry.tenant_hash(tenants[0]), "threads"): 0.79,
                (warned, "threads"): 0.8,
            }
            caplog.clear()
            run(sweeper.run_once())
            assert not [record for record in caplog.records if record.name == "tenure.quota"]
            admin.execute("UPDATE tenure.tenant_usage SET threads = 10")
            run(sweeper.run_once())
            admin.execute("UPDATE tenure.tenant_usage SET threads = 99")
            run(sweeper.run_once())
            assert len([record for record in caplog.records if record.name == "tenure.quota"]) == 2


def test_the_metric_names_nobody_by_its_id() -> None:
    tenant = TenantId(uuid4())
    telemetry.show_quotas({(tenant, "threads"): 0.5})
    try:
        (reading,) = telemetry._observe_quotas(None)  # type: ignore[arg-type]
    finally:
        telemetry.show_quotas({})
    assert UUID(str(tenant)).hex[:12] not in str(reading.attributes)


def test_people_read_sizes_and_scripts_numbers(stack: Stack) -> None:
    tenant = stack.new_tenant(("admin",)).tenant_id
    env = {"TENURE_ADMIN_TARGET": stack.admin_target, "TENURE_API_KEY": stack.new_operator()}
    set_ = ["quota", "set", "--tenant", tenant]
    given = [*("--stored-bytes", "10GiB", "--threads", "250k", "--ops", "0.5", "--bandwidth", "5MB")]
    told = tenure(*set_, *given, **env)
    assert (told.returncode, told.stderr) == (0, "")
    lines = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in told.stdout.splitlines())
    assert lines["max_stored_bytes"] == "10 GiB"
    assert lines["max_threads"] == "250,000"
    assert lines["max_items"] == "no limit"
    assert lines["operations_per_second"] == "0.5"
    found = json.loads(tenure(*set_, "--threads", "none", "--json", **env).stdout)
    assert (found["max_stored_bytes"], found["max_threads"]) == (10 * 1024**3, None)
    assert found == json.loads(tenure("quota", "show", "--tenant", tenant, "--json", **env).stdout)


def test_the_usage_is_shown_beside_the_limits(stack: Stack, filled: TenantHandle) -> None:
    operator = {"TENURE_ADMIN_TARGET": stack.admin_target, "TENURE_API_KEY": stack.new_operator()}
    tenure("quota", "set", "--tenant", filled.tenant_id, "--threads", "6", "--items", "3", **operator)
    env = operator | {"TENURE_API_KEY": filled.api_key}
    title, stored, threads, items = tenure("usage", **env).stdout.splitlines()
    assert title.split() == ["LIMIT", "USED", "OF", "SHARE", "STATE"]
    assert re.match(r"stored bytes +[\d.]+ KiB +no limit", stored)
    assert re.split(r"\s{2,}", threads) == ["threads", "5", "6", "83.3 %", "above 80 %"]
    assert re.split(r"\s{2,}", items) == ["items", "3", "3", "100.0 %", "full"]
    usage = json.loads(tenure("usage", "--json", **env).stdout)
    assert (usage["threads"], usage["quota"]["max_threads"]) == (5, 6)
    top = tenure("usage", "--top", "2", **env).stdout.splitlines()
    assert top[0].split() == ["THREAD", "STORED", "CHECKPOINTS"]
    assert [line.split("  ")[0] for line in top[3:]] == ["(all others)"]
    prefixes = json.loads(tenure("usage", "--by", "thread-prefix", "--json", **env).stdout)
    assert {row["prefix"]: row["threads"] for row in prefixes["rows"]} == {"a-": 3, "b-": 1, "alone": 1}
    assert prefixes["rest"]["threads"] == 0
    spaces = tenure("usage", "--by", "namespace", "--namespace", "users", **env).stdout.splitlines()
    assert [line.split()[0] for line in spaces] == ["NAMESPACE", "users/ann", "users/bob"]
    days = json.loads(tenure("usage", "--by", "day", "--json", **env).stdout)
    assert days["rows"][-1]["stored_bytes"] == usage["stored_bytes"]


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["quota", "set", "--tenant", str(uuid4())], 2, "at least one limit"),
        (["quota", "set", "--threads", "5"], 2, "--tenant"),
        (["quota", "set", "--tenant", str(uuid4()), "--threads", "many"], 2, "1000 or 250k"),
        (["quota", "set", "--tenant", str(uuid4()), "--stored-bytes", "5 parsecs"], 2, "10GiB"),
        (["quota", "set", "--tenant", str(uuid4()), "--threads", "1e"], 2, "1000 or 250k"),
        (["quota", "set", "--tenant", str(uuid4()), "--threads", "5"], 3, "lacks the scope 'operator'"),
        (["quota", "show", "--tenant", str(uuid4())], 4, "no such tenant"),
        (["usage", "--tenant", str(uuid4())], 4, "no such tenant"),
        (["usage", "--by", "moon"], 2, "thread-prefix"),
        (["usage", "--top", "0"], 2, "--top"),
        (["usage", "--by", "day", "--namespace", "users"], 2, "without --namespace"),
        (["usage", "--by", "namespace", "--thread-prefix", "a-"], 2, "without --thread-prefix"),
        (["usage", "--thread-prefix", "a-", "--namespace", "users"], 2, "exclude each other"),
    ],
)
def test_what_cannot_be_is_told_with_an_exit_code(
    stack: Stack, arguments: list[str], code: int, hint: str
) -> None:
    env = {"TENURE_ADMIN_TARGET": stack.admin_target, "TENURE_API_KEY": new_admin(stack).api_key}
    ran = tenure(*arguments, **env)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert hint in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_limit_on_what_is_stored_counts_for_the_next_write(stack: Stack, operator: QuotaCaller) -> None:
    tenant = stack.new_tenant()
    with TenureSaver(stack.target, api_key=tenant.api_key) as saver:
        put(saver, "one", 1, "value")
        operator.set(tenant.tenant_id, max_threads=1)
        with pytest.raises(QuotaExceeded):
            put(saver, "two", 1, "value")
        put(saver, "one", 2, "value")
        operator.set(tenant.tenant_id, max_threads=None)
        put(saver, "two", 1, "value")
