"""Both ports over TLS, with a certificate that clients are told to trust, and without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tenure_client import TenureSaver, TenureStore, errors

from benchmarks.certificates import self_signed
from tests.harness.databases import Database
from tests.harness.server import ServerProcess
from tests.harness.stack import Stack
from tests.integration.admin_support import new_admin
from tests.integration.checkpoints_support import config_of, put, value_of
from tests.integration.test_cli import tenure

SOON = 2.0
"""Seconds for which a client tries."""


@dataclass(frozen=True)
class Encrypted:
    """A server that speaks TLS only.

    Attributes:
        stack: The server.
        ca: What its clients are to trust.
        other_ca: A certificate that somebody else has.
    """

    stack: Stack
    ca: Path
    other_ca: Path


@pytest.fixture
def encrypted(open_folder: Path, database: Database) -> Iterator[Encrypted]:
    """A server with a certificate for 127.0.0.1, on both ports."""
    files = []
    for name in ("server", "other"):
        folder = open_folder / name
        folder.mkdir()
        files.append(self_signed(folder))
    (certificate, key), (other, _) = files
    env = {
        "TENURE_TLS_CERT": str(certificate),
        "TENURE_TLS_KEY": str(key),
        "TENURE_ADMIN_LISTEN": "127.0.0.1:0",
    }
    server = ServerProcess(open_folder, database, env=env).start()
    yield Encrypted(Stack(server, database, None), certificate, other)
    server.close()


async def test_saver_and_store_work_over_tls(encrypted: Encrypted) -> None:
    target, key = encrypted.stack.target, encrypted.stack.api_key
    with TenureSaver(target, api_key=key, ca=encrypted.ca) as saver:
        put(saver, "t", 1, "value")
        assert value_of(saver.get_tuple(config_of("t"))) == "value"
    async with TenureSaver(target, api_key=key, ca=encrypted.ca) as saver:
        assert value_of(await saver.aget_tuple(config_of("t"))) == "value"
    async with TenureStore(target, api_key=key, ca=encrypted.ca) as store:
        await store.aput(("n",), "k", {"a": 1})
        found = await store.aget(("n",), "k")
        assert found is not None
        assert found.value == {"a": 1}


@pytest.mark.parametrize(
    ("trusts", "why"), [("another", "CERTIFICATE_VERIFY_FAILED"), ("nobody", "Socket closed")]
)
async def test_who_does_not_know_the_certificate_gets_no_further_and_is_told_why(
    encrypted: Encrypted, trusts: str, why: str
) -> None:
    ca = encrypted.other_ca if trusts == "another" else None
    target, key = encrypted.stack.target, encrypted.stack.api_key
    with (
        TenureSaver(target, api_key=key, ca=ca, timeout=SOON) as saver,
        pytest.raises(errors.Unavailable, match=why),
    ):
        saver.get_tuple(config_of("t"))
    async with TenureSaver(target, api_key=key, ca=ca, timeout=SOON) as saver:
        with pytest.raises(errors.Unavailable, match=why):
            await saver.aget_tuple(config_of("t"))


def test_an_admin_works_over_tls(encrypted: Encrypted) -> None:
    admin = new_admin(encrypted.stack)
    env = {"TENURE_ADMIN_TARGET": encrypted.stack.admin_target, "TENURE_API_KEY": admin.api_key}
    ran = tenure("whoami", "--json", "--ca", str(encrypted.ca), **env)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout)["role"] == "admin"
    ran = tenure("whoami", "--ca", str(encrypted.other_ca), **env)
    assert ran.returncode == 5
    assert "CERTIFICATE_VERIFY_FAILED" in ran.stderr
    ran = tenure("whoami", **env)
    assert ran.returncode == 5
    assert "does not answer" in ran.stderr
