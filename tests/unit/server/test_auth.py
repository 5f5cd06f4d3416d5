"""Who calls, and what they may do."""

from __future__ import annotations

import asyncio
import pkgutil
import re
from collections import Counter
from importlib import import_module
from pathlib import Path
from uuid import uuid4

import pytest
import tenure.v1
from tenure_server import auth, errors
from tenure_server.auth import Authenticator
from tenure_server.domain import OPERATORS, TENANT_SCOPES, Principal, Role, Scope, StoredKey, TenantId
from tenure_server.keys import ApiKey
from tenure_server.rules import parse
from tenure_server.storage.memory import MemoryTenants

ALL = TENANT_SCOPES


class Keys(MemoryTenants):
    """Keys in memory that count look-ups, and can be held up or be away."""

    def __init__(self) -> None:
        super().__init__()
        self.lookups: Counter[str] = Counter()
        self.open = asyncio.Event()
        self.open.set()
        self.away = False

    async def find_key(self, tenant: TenantId, key_id: str) -> StoredKey | None:
        self.lookups[key_id] += 1
        await self.open.wait()
        if self.away:
            raise errors.Unavailable
        return await super().find_key(tenant, key_id)

    async def new(self, expires_in: float | None = None) -> ApiKey:
        """Make a key of a new tenant."""
        key = ApiKey.parse(await self.create_key(await self.create_tenant("acme"), ALL, expires_in))
        assert key is not None
        return key


def _bearer(text: str) -> list[tuple[str, str | bytes]]:
    return [("user-agent", "grpc"), ("authorization", f"Bearer {text}")]


async def _refused(authenticator: Authenticator, text: str) -> bool:
    try:
        await authenticator.authenticate(_bearer(text))
    except errors.Unauthenticated:
        return True
    return False


async def test_a_key_tells_who_calls() -> None:
    keys = Keys()
    key = await keys.new()
    principal = await Authenticator(keys).authenticate(_bearer(key.text()))
    assert principal == Principal(key.tenant, key.key_id, ALL)


async def test_a_limited_key_is_limited_when_it_is_looked_up_and_when_it_is_known() -> None:
    keys = Keys()
    limits = parse(["threads:a-:r"])
    tenant = await keys.create_tenant("acme")
    limited, other = [await keys.create_key(tenant, ALL, rules=rules) for rules in (limits, None)]
    authenticator = Authenticator(keys, trust=3600)
    for _ in range(3):
        assert (await authenticator.authenticate(_bearer(limited))).rules == limits
        assert (await authenticator.authenticate(_bearer(other))).rules is None


async def test_the_scheme_may_be_written_as_one_likes() -> None:
    keys = Keys()
    key = await keys.new()
    for scheme in ("bearer", "BEARER", "Bearer"):
        await Authenticator(keys).authenticate([("authorization", f"{scheme} {key.text()}")])


async def test_a_known_key_is_not_looked_up_again() -> None:
    keys = Keys()
    key = await keys.new()
    authenticator = Authenticator(keys, trust=3600)
    for _ in range(5):
        await authenticator.authenticate(_bearer(key.text()))
    assert keys.lookups == {key.key_id: 1}


async def test_all_refusals_look_the_same() -> None:
    keys = Keys()
    good, expired, revoked = await keys.new(), await keys.new(expires_in=0.0), await keys.new()
    await keys.revoke_key(revoked.tenant, revoked.key_id)
    unknown = ApiKey.generate(good.tenant)
    moved = ApiKey(TenantId(uuid4()), good.key_id, good.secret)
    wrong_secret = ApiKey(good.tenant, good.key_id, unknown.secret)
    refused: list[list[tuple[str, str | bytes]]] = [
        [],
        [("authorization", "")],
        [("authorization", good.text())],
        [("authorization", f"Basic {good.text()}")],
        [("authorization", f"Bearer  {good.text()}")],
        [("authorization", b"Bearer " + good.text().encode())],
        [("Authorization", f"Bearer {good.text()}")],
        [("x-authorization", f"Bearer {good.text()}")],
        _bearer(""),
        _bearer("nonsense"),
        _bearer("\udcff" * 10),
        _bearer(expired.text()),
        _bearer(revoked.text()),
        _bearer(unknown.text()),
        _bearer(moved.text()),
        _bearer(wrong_secret.text()),
    ]
    authenticator = Authenticator(keys)
    seen = set()
    for metadata in refused:
        with pytest.raises(errors.Unauthenticated) as caught:
            await authenticator.authenticate(metadata)
        seen.add((str(caught.value), *caught.value.metadata.items()))
    assert len(seen) == 1


async def test_a_wrong_secret_is_refused_while_the_right_one_is_known() -> None:
    keys = Keys()
    key = await keys.new()
    authenticator = Authenticator(keys, trust=3600)
    await authenticator.authenticate(_bearer(key.text()))
    wrong = ApiKey(key.tenant, key.key_id, ApiKey.generate(key.tenant).secret)
    assert await _refused(authenticator, wrong.text())
    assert not await _refused(authenticator, key.text())


async def test_a_revocation_takes_effect_once_the_trust_is_over() -> None:
    keys = Keys()
    key = await keys.new()
    trusting, strict = Authenticator(keys, trust=3600), Authenticator(keys, trust=0.05)
    for authenticator in (trusting, strict):
        await authenticator.authenticate(_bearer(key.text()))
    await keys.revoke_key(key.tenant, key.key_id)
    while not await _refused(strict, key.text()):
        await asyncio.sleep(0.005)
    assert not await _refused(trusting, key.text()), "trusted for an hour"


async def test_a_key_is_not_trusted_beyond_its_end() -> None:
    keys = Keys()
    key = await keys.new(expires_in=0.05)
    authenticator = Authenticator(keys, trust=3600)
    assert not await _refused(authenticator, key.text())
    while not await _refused(authenticator, key.text()):
        await asyncio.sleep(0.005)


async def test_a_refusal_is_not_remembered() -> None:
    keys = Keys()
    tenant = await keys.create_tenant("acme")
    authenticator = Authenticator(keys, trust=3600)
    key = ApiKey.generate(tenant)
    assert await _refused(authenticator, key.text())
    keys._keys[tenant, key.key_id] = StoredKey(tenant, key.key_id, key.digest(), ALL)
    assert not await _refused(authenticator, key.text())


async def test_calls_with_one_key_share_one_look_up() -> None:
    keys = Keys()
    key, other = await keys.new(), await keys.new()
    keys.open.clear()
    authenticator = Authenticator(keys)
    calls = [
        asyncio.create_task(authenticator.authenticate(_bearer(text)))
        for text in [key.text()] * 10 + [other.text()]
    ]
    await asyncio.sleep(0)
    keys.open.set()
    principals = await asyncio.gather(*calls)
    assert keys.lookups == {key.key_id: 1, other.key_id: 1}
    assert [principal.tenant for principal in principals] == [key.tenant] * 10 + [other.tenant]


async def test_a_cancelled_call_does_not_fail_those_that_wait_with_it() -> None:
    keys = Keys()
    key = await keys.new()
    keys.open.clear()
    authenticator = Authenticator(keys)
    first, *others = [asyncio.create_task(authenticator.authenticate(_bearer(key.text()))) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    keys.open.set()
    assert [principal.key_id for principal in await asyncio.gather(*others)] == [key.key_id] * 2
    assert keys.lookups == {key.key_id: 1}


async def test_a_database_that_is_away_is_not_a_wrong_key() -> None:
    keys = Keys()
    key = await keys.new()
    keys.away = True
    authenticator = Authenticator(keys)
    calls = [asyncio.create_task(authenticator.authenticate(_bearer(key.text()))) for _ in range(3)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {errors.Unavailable}
    keys.away = False
    assert not await _refused(authenticator, key.text())


RPCS = {
    f"/{service.full_name}/{method.name}"
    for module in pkgutil.iter_modules(tenure.v1.__path__)
    if module.name.endswith("_pb2")
    for service in import_module(f"tenure.v1.{module.name}").DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def test_every_rpc_of_the_protocol_has_a_rule() -> None:
    assert auth.RULES.keys() == RPCS
    assert not RPCS & auth.PUBLIC


ADMIN_PORT = {"admin": "Admin", "quotas": "Quota", "writers": "Writer"}
"""Services of the admin port that say for each RPC which scope it needs, by the file that defines them."""


def test_the_rules_are_those_that_the_protocol_tells() -> None:
    protos = Path(__file__).parents[3] / "proto/tenure/v1"
    for name, service in {"checkpoints": "Checkpoint", **ADMIN_PORT}.items():
        text = (protos / f"{name}.proto").read_text()
        told = re.findall(r"Needs scope `(\w+)`(?: or `(\w+)`)?(?:: [^.]+)?\.\n\s+rpc (\w+)", text)
        # Sliced twins are as what they are twins of, and a session is for any key.
        every = re.findall(r"^  rpc (?!\w+Sliced|Session)", text, re.MULTILINE)
        assert len(told) == len(every)
        for *scopes, method in told:
            expected = {Scope(scope) for scope in scopes if scope}
            assert auth.RULES[f"/tenure.v1.{service}Service/{method}"] == expected
    for plain in ("Read", "Write"):
        rules = [auth.RULES[f"/tenure.v1.CheckpointService/{name}"] for name in (plain, f"{plain}Sliced")]
        assert rules[0] == rules[1]


@pytest.mark.parametrize("method", auth.RULES)
def test_a_key_may_call_what_its_scopes_cover(method: str) -> None:
    needed = auth.RULES[method]
    for scope in Scope:
        principal = Principal(TenantId(uuid4()), "key", frozenset({scope}))
        if scope in needed or (needed == auth.ANY and scope is not Scope.OPERATOR):
            auth.authorize(principal, method)
            continue
        with pytest.raises(errors.ScopeMissing) as caught:
            auth.authorize(principal, method)
        told = " or ".join(sorted(scope.value for scope in needed)) or "of a tenant"
        assert caught.value.metadata == {"scope": told}


ADMIN = [
    method
    for method in auth.RULES
    if method.startswith(
        tuple(f"/tenure.v1.{service}Service/" for service in (*ADMIN_PORT.values(), "Retention"))
    )
]


@pytest.mark.parametrize("method", ADMIN)
def test_nothing_of_administration_is_for_agents_or_for_limited_keys(method: str) -> None:
    agent = Principal(TenantId(uuid4()), "key", Role.AGENT.scopes)
    with pytest.raises(errors.ScopeMissing):
        auth.authorize(agent, method)
    limited = Principal(
        TenantId(uuid4()), "key", auth.RULES[method], parse(["threads:*:rw", "namespaces:*:rw"])
    )
    with pytest.raises(errors.OutsideRules):
        auth.authorize(limited, method)


def test_operators_reach_nothing_but_administration() -> None:
    operator = Principal(OPERATORS, "key", Role.OPERATOR.scopes)
    for method in auth.RULES:
        if method in ADMIN:
            auth.authorize(operator, method)
        else:
            with pytest.raises(errors.ScopeMissing):
                auth.authorize(operator, method)


async def test_uses_of_a_key_are_noted_once_a_minute_and_behind_the_call() -> None:
    keys = Keys()
    key = await keys.new()
    noted, open_ = [], asyncio.Event()

    async def mark_used(tenant: TenantId, key_id: str) -> None:
        noted.append((tenant, key_id))
        await open_.wait()
        raise errors.Unavailable

    keys.mark_used = mark_used  # type: ignore[method-assign]
    authenticator = Authenticator(keys, trust=0.0)
    for _ in range(3):
        await authenticator.authenticate(_bearer(key.text()))
    await asyncio.sleep(0)
    other = await keys.new()
    await authenticator.authenticate(_bearer(other.text()))
    assert noted == [(key.tenant, key.key_id)], "one at a time, and no call has waited for it"
    open_.set()
    while len(noted) < 2:
        await asyncio.sleep(0)
    assert noted[1:] == [(other.tenant, other.key_id)], (
        "one that fails does not keep the next from being noted"
    )
    assert keys.lookups == {key.key_id: 3, other.key_id: 1}


def test_an_rpc_that_does_not_say_that_it_checks_rules_refuses_limited_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = "/tenure.v1.CheckpointService/Read"
    limited = Principal(TenantId(uuid4()), "key", ALL, parse(["threads:*:rw", "namespaces:*:rw"]))
    auth.authorize(limited, method)
    monkeypatch.setattr(auth, "RULED", auth.RULED - {method})
    auth.authorize(Principal(TenantId(uuid4()), "key", ALL), method)
    with pytest.raises(errors.OutsideRules):
        auth.authorize(limited, method)


def test_an_rpc_without_a_rule_is_refused() -> None:
    for method in ["/tenure.v1.CheckpointService/Forgotten", "", "/grpc.reflection.v1.ServerReflection/Info"]:
        with pytest.raises(errors.ScopeMissing):
            auth.authorize(Principal(TenantId(uuid4()), "key", ALL), method)
