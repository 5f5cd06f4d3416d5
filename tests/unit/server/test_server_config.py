"""Settings are read once and refused as a whole, each fault with its variable."""

from __future__ import annotations

from pathlib import Path

import pytest
from tenure_server.config import Config
from tenure_server.errors import ConfigError

URL = "postgresql://tenure_app:secret@127.0.0.1/tenure"


def _faults(**env: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Config.from_env({"TENURE_DATABASE_URL": URL, **env})
    assert str(caught.value) == "\n".join(caught.value.faults)
    return caught.value.faults


def test_only_the_database_is_needed() -> None:
    config = Config.from_env({"TENURE_DATABASE_URL": URL})
    assert config == Config(database_url=URL)
    assert config.listen == "127.0.0.1:7443"


def test_a_server_without_a_database_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"TENURE_DATABASE_URL: is not set.*tenure dev"):
        Config.from_env({})
    with pytest.raises(ConfigError, match="TENURE_DATABASE_URL"):
        Config.from_env({"TENURE_DATABASE_URL": ""})


def test_everything_can_be_set(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.touch()
    key.touch()
    config = Config.from_env(
        {
            "TENURE_DATABASE_URL": URL,
            "TENURE_OPS_DATABASE_URL": "postgresql://ops",
            "TENURE_ADMIN_DATABASE_URL": "postgresql://admin",
            "TENURE_REDIS_URL": "redis://cache",
            "TENURE_LISTEN": "0.0.0.0:9000",
            "TENURE_TLS_CERT": str(cert),
            "TENURE_TLS_KEY": str(key),
            "TENURE_POOL_SIZE": "3",
            "TENURE_DRAIN_SECONDS": "0.5",
            "TENURE_LOG_LEVEL": "debug",
            "TENURE_READY_FILE": str(tmp_path / "ready"),
            "TENURE_INLINE_BYTES": "0",
            "TENURE_CACHE_TTL_SECONDS": "60",
            "TENURE_REDIS_TIMEOUT_SECONDS": "0.5",
            "TENURE_WORKERS": "64",
        }
    )
    assert config == Config(
        listen="0.0.0.0:9000",
        database_url=URL,
        ops_database_url="postgresql://ops",
        redis_url="redis://cache",
        tls_cert=cert,
        tls_key=key,
        pool_size=3,
        drain=0.5,
        log_level="DEBUG",
        ready_file=tmp_path / "ready",
        inline_bytes=0,
        cache_ttl=60,
        redis_timeout=0.5,
        workers=64,
    )


def test_empty_variables_are_unset() -> None:
    names = [
        "LISTEN",
        "OPS_DATABASE_URL",
        "ADMIN_DATABASE_URL",
        "REDIS_URL",
        "TLS_CERT",
        "TLS_KEY",
        "POOL_SIZE",
        "WORKERS",
    ]
    env = {f"TENURE_{name}": "" for name in names}
    assert Config.from_env({"TENURE_DATABASE_URL": URL, **env}) == Config(database_url=URL)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.8.9.1:65535", "localhost:80", "[::1]:443", "::1:443"])
def test_loopback_needs_no_tls(listen: str) -> None:
    assert Config.from_env({"TENURE_DATABASE_URL": URL, "TENURE_LISTEN": listen}).listen == listen


@pytest.mark.parametrize(
    "listen",
    ["0.0.0.0:443", "[::]:443", "10.0.0.1:443", "tenure.internal:443", "localhost.evil:443", "*:443"],
)
def test_beyond_loopback_needs_tls_or_a_word(listen: str) -> None:
    (fault,) = _faults(TENURE_LISTEN=listen)
    assert fault.startswith("TENURE_LISTEN: ")
    assert "TENURE_TLS_CERT" in fault
    assert "TENURE_INSECURE_LISTEN=1" in fault
    for word in ("1", "true", "YES"):
        Config.from_env({"TENURE_DATABASE_URL": URL, "TENURE_LISTEN": listen, "TENURE_INSECURE_LISTEN": word})
    assert _faults(TENURE_LISTEN=listen, TENURE_INSECURE_LISTEN="0")


@pytest.mark.parametrize(
    "listen",
    [
        "7443",
        ":7443",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:x",
        "127.0.0.1:65536",
        "127.0.0.1:²",
        "127.0.0.1:-1",
    ],
)
def test_what_is_no_address(listen: str) -> None:
    (fault,) = _faults(TENURE_LISTEN=listen)
    assert fault.startswith("TENURE_LISTEN: must be host:port")


@pytest.mark.parametrize(
    "name", ["POOL_SIZE", "DRAIN_SECONDS", "INLINE_BYTES", "CACHE_TTL_SECONDS", "REDIS_TIMEOUT_SECONDS"]
)
@pytest.mark.parametrize("value", ["many", "-1", "nan", "inf", "1e999"])
def test_what_is_no_number(name: str, value: str) -> None:
    faults = _faults(**{f"TENURE_{name}": value})
    assert faults[0] == f"TENURE_{name}: must be a number of at least 0, got {value!r}"


def test_a_pool_has_a_connection() -> None:
    assert _faults(TENURE_POOL_SIZE="0") == ["TENURE_POOL_SIZE: must be at least 1"]


@pytest.mark.parametrize("value", ["0", "65", "-1", "2.0", "auto", "²", "1" * 5000])
def test_workers_are_a_whole_number_within_bounds(value: str) -> None:
    (fault,) = _faults(TENURE_WORKERS=value)
    assert fault.startswith(f"TENURE_WORKERS: must be a whole number from 1 to 64, got {value!r}")
    assert "--workers" in fault
    assert Config.from_env({"TENURE_DATABASE_URL": URL, "TENURE_WORKERS": "1"}).workers == 1


def test_tls_files_are_both_there(tmp_path: Path) -> None:
    cert = tmp_path / "cert.pem"
    cert.touch()
    assert _faults(TENURE_TLS_CERT=str(cert)) == ["TENURE_TLS_CERT, TENURE_TLS_KEY: set both or none"]
    missing = tmp_path / "missing.pem"
    assert _faults(TENURE_TLS_CERT=str(cert), TENURE_TLS_KEY=str(missing)) == [
        f"TENURE_TLS_KEY: cannot read {missing}"
    ]


def test_all_faults_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_env({"TENURE_LISTEN": "x", "TENURE_POOL_SIZE": "0", "TENURE_LOG_LEVEL": "loud"})
    names = [fault.partition(":")[0] for fault in caught.value.faults]
    assert names == ["TENURE_LISTEN", "TENURE_POOL_SIZE", "TENURE_LOG_LEVEL", "TENURE_DATABASE_URL"]


def test_no_password_is_shown() -> None:
    config = Config(database_url=URL, ops_database_url=URL, redis_url="redis://:secret@cache")
    assert "secret" not in repr(config)
