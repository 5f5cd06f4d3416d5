"""Facts about the machine and the software, without anything that names or places it."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psycopg
import redis

from benchmarks.servers import Servers

_PACKAGES = (
    "tenure",
    "langgraph",
    "langgraph-checkpoint",
    "langgraph-checkpoint-postgres",
    "langgraph-checkpoint-sqlite",
    "langgraph-checkpoint-plainredis",
    "langgraph-checkpoint-redis",
    "psycopg",
    "grpcio",
    "redis",
)


def facts(servers: Servers) -> dict[str, str]:
    """Return what absolute figures depend on."""
    with psycopg.connect(servers.postgres.url()) as connection:
        settings = {
            name: str((connection.execute(f"SHOW {name}").fetchone() or ("?",))[0])
            for name in ("server_version", "fsync", "synchronous_commit", "shared_buffers")
        }
    durability = ", ".join(f"{name}={value}" for name, value in list(settings.items())[1:])
    with redis.Redis.from_url(servers.valkey.url, decode_responses=True) as client:
        info = client.info("server")
    cache = "Valkey" if "valkey_version" in info else "Redis"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": f"{memory / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "postgres": f"{settings['server_version']} ({durability})",
        "redis": f"{cache} {info.get('valkey_version', info['redis_version'])}",
        "packages": ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name))),
    }


def _cpu_model() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
