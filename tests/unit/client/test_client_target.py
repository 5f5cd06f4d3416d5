"""Where a target points, when it is encrypted, and that its key is not shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from tenure_client import Connection, InvalidRequest, TenureSaver
from tenure_client.target import Target

KEY = "tn_0w3us6Q4GE3gFXPes4wwg8_UMvkTouEQ3IX_DTwirp8hVCeTXzYeruWosOonEIFq"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TENURE_TARGET", "TENURE_API_KEY", "TENURE_CA"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("text", "address", "plaintext"),
    [
        ("127.0.0.1:1234", "127.0.0.1:1234", True),
        ("127.8.0.1", "127.8.0.1:7443", True),
        ("[::1]:1234", "[::1]:1234", True),
        ("::1", "[::1]:7443", True),
        ("localhost:1234", "dns:///localhost:1234", True),
        ("unix:/run/tenure.sock", "unix:/run/tenure.sock", True),
        ("10.0.0.1:1234", "10.0.0.1:1234", False),
        ("[2001:db8::1]:1234", "[2001:db8::1]:1234", False),
        ("tenure.internal:1234", "dns:///tenure.internal:1234", False),
        ("tenure.internal", "dns:///tenure.internal:7443", False),
        ("localhost.example.com:1", "dns:///localhost.example.com:1", False),
        ("dns:///tenure.internal:1234", "dns:///tenure.internal:1234", False),
        (f"tenure://{KEY}@tenure.internal:1234", "dns:///tenure.internal:1234", False),
        (f"tenure://{KEY}@127.0.0.1:1234/", "127.0.0.1:1234", True),
    ],
)
def test_plaintext_is_for_this_machine_only(text: str, address: str, plaintext: bool) -> None:
    target = Target.resolve(text, api_key=KEY)

    assert (target.address, target.plaintext) == (address, plaintext)
    assert (target.credentials() is None) == plaintext


def test_plaintext_elsewhere_must_be_said() -> None:
    assert Target.resolve("tenure.internal:1", api_key=KEY, insecure=True).plaintext


def test_a_ca_asks_for_tls_even_on_this_machine(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(b"pem")

    target = Target.resolve("127.0.0.1:1", api_key=KEY, ca=ca)

    assert not target.plaintext
    assert target.roots == b"pem"


def test_a_ca_and_plaintext_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="exclude each other"):
        Target.resolve("tenure.internal:1", api_key=KEY, ca=tmp_path / "ca.pem", insecure=True)


def test_a_missing_ca_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"absent\.pem"):
        Target.resolve("tenure.internal:1", api_key=KEY, ca=tmp_path / "absent.pem")


def test_the_environment_fills_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(b"pem")
    monkeypatch.setenv("TENURE_TARGET", "tenure.internal:1")
    monkeypatch.setenv("TENURE_API_KEY", KEY)
    monkeypatch.setenv("TENURE_CA", str(tmp_path / "ca.pem"))

    target = Target.resolve(None)

    assert (target.address, target.api_key, target.roots) == ("dns:///tenure.internal:1", KEY, b"pem")


def test_a_given_key_outranks_the_one_in_the_target() -> None:
    assert Target.resolve("tenure://other@127.0.0.1:1", api_key=KEY).api_key == KEY
    assert Target.resolve(f"tenure://{KEY}@127.0.0.1:1").api_key == KEY


@pytest.mark.parametrize("text", [None, ""])
def test_no_target_says_what_to_set(text: str | None) -> None:
    with pytest.raises(ValueError, match="TENURE_TARGET"):
        Target.resolve(text, api_key=KEY)


def test_no_key_says_what_to_set() -> None:
    with pytest.raises(ValueError, match="TENURE_API_KEY"):
        Target.resolve("127.0.0.1:1")


@pytest.mark.parametrize(
    "text",
    [
        "https://tenure.internal",
        f"{KEY}@tenure.internal:1",
        KEY,
        f"tenure://{KEY}@tenure.internal:1/path",
        f"tenure://{KEY}@tenure.internal:1?insecure=1",
        f"tenure://{KEY}@tenure.internal:port",
    ],
)
def test_what_is_no_target_is_refused_without_showing_a_key(text: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        Target.resolve(text, api_key=KEY)

    assert KEY not in str(raised.value)


@pytest.mark.parametrize("text", ["host:", "host:0", "host:65536", "host:1x", "ho st:1", ":1", "[::1]:x"])
def test_what_has_no_host_or_port_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        Target.resolve(text, api_key=KEY)


@pytest.mark.parametrize("key", [f"{KEY}\n", f" {KEY}", "tn_ü"])
def test_a_key_with_foreign_characters_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        Target.resolve("127.0.0.1:1", api_key=key)

    assert key.strip() not in str(raised.value)


def test_no_repr_shows_the_key() -> None:
    saver = TenureSaver.from_conn_string(f"tenure://{KEY}@127.0.0.1:1")

    for thing in (saver, saver.connection, saver.connection._target):
        for part in KEY.split("_")[1:]:
            assert part not in repr(thing)


def test_a_shared_connection_has_its_own_key() -> None:
    connection = Connection("127.0.0.1:1", api_key=KEY)

    assert TenureSaver(connection).connection is connection
    with pytest.raises(InvalidRequest):
        TenureSaver(connection, api_key=KEY)


@pytest.mark.parametrize(("name", "value"), [("timeout", 0), ("connections", 0)])
def test_impossible_settings_are_refused(name: str, value: int) -> None:
    with pytest.raises(InvalidRequest, match=name):
        Connection("127.0.0.1:1", api_key=KEY, **{name: value})  # type: ignore[arg-type]
