"""The text of API keys."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenure_server.domain import TenantId
from tenure_server.keys import MAX_LENGTH, ApiKey

TENANT = TenantId(UUID(int=2**128 - 1))


@given(st.uuids())
def test_a_key_is_parsed_from_its_text(tenant: UUID) -> None:
    key = ApiKey.generate(TenantId(tenant))
    text = key.text()
    assert ApiKey.parse(text) == key
    assert len(text) == MAX_LENGTH
    assert text.isascii()
    assert text.replace("_", "").isalnum()


def test_keys_and_secrets_are_never_the_same() -> None:
    keys = [ApiKey.generate(TENANT) for _ in range(100)]
    assert len({key.key_id for key in keys}) == len({key.secret for key in keys}) == 100


def test_a_digest_matches_its_own_secret_only() -> None:
    key, other = ApiKey.generate(TENANT), ApiKey.generate(TENANT)
    assert key.matches(key.digest())
    assert not key.matches(other.digest())
    assert not key.matches(b"")
    assert len(key.digest()) == 32


def test_the_secret_is_not_shown() -> None:
    key = ApiKey.generate(TENANT)
    for shown in (repr(key), str(key), f"{key}"):
        assert key.secret not in shown
        assert key.key_id in shown


def _forged() -> list[str]:
    key = ApiKey.generate(TENANT)
    prefix, tenant, key_id, secret = key.text().split("_")
    return [
        "",
        "tn",
        "tn___",
        f"xx_{tenant}_{key_id}_{secret}",
        f"TN_{tenant}_{key_id}_{secret}",
        f"{prefix}_{tenant}_{key_id}",
        f"{prefix}_{tenant}_{key_id}_{secret}_",
        f"{prefix}_{tenant}__{secret}",
        f"{prefix}_{tenant}_{key_id}_",
        f"{prefix}_{tenant[:-1]}_{key_id}_{secret}",
        f"{prefix}_0{tenant}_{key_id}_{secret}",
        f"{prefix}_{'z' * 22}_{key_id}_{secret}",
        f"{prefix}_{tenant[:-1]}-_{key_id}_{secret}",
        f"{prefix}_{tenant[:-1]}\u0663_{key_id}_{secret}",
        f"{prefix}_{uuid4()}_{key_id}_{secret}",
        key.text() + "x",
        "tn_" + "A" * 1_000_000,
    ]


@pytest.mark.parametrize("text", _forged(), ids=range(len(_forged())))
def test_what_is_no_key(text: str) -> None:
    assert ApiKey.parse(text) is None


@given(st.text())
def test_no_text_raises(text: str) -> None:
    assert ApiKey.parse(text) is None
    ApiKey.parse(f"tn_{text}_{text}_{text}")


@given(st.uuids(), st.uuids())
def test_a_key_names_one_tenant(one: UUID, other: UUID) -> None:
    key = ApiKey.generate(TenantId(one))
    moved = ApiKey(TenantId(other), key.key_id, key.secret).text()
    parsed = ApiKey.parse(moved)
    assert parsed is not None
    assert parsed.tenant == other
    assert (moved == key.text()) is (one == other)
