"""Whom the servers run as, and where their files can then be.

Postgres refuses to run as root. As root we therefore run it, and Valkey, as an account that is there already
and may do nothing; we never make accounts and never open folders that others made.
"""

from __future__ import annotations

import os
import pwd
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tenure_server.local.errors import DevError

SYSTEM_STATE = Path("/var/lib/tenure")
CLUSTER = "postgres"
"""Name of Postgres' data folder."""
_ELSEWHERE = "databases"
_AS_OTHER = """
import os, sys
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[1]))
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Becomes another account and a program. Popen's own `user=` forks this process, whose child then crashes
now and then if threads use gRPC."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account of the system without any rights."""

    name: str
    uid: int
    gid: int

    def may_enter(self, folder: Path) -> bool:
        """Say whether the account may enter a folder, which depends on all its parents too."""
        return self._can_run("/bin/sh", "-c", 'cd -P -- "$1" 2>/dev/null', "sh", str(folder))

    def may_run(self, program: Path) -> bool:
        """Say whether the account may run a program that knows `--version`."""
        return self._can_run(str(program), "--version")

    def give(self, path: Path) -> None:
        """Make the account the owner of a file or folder."""
        os.chown(path, self.uid, self.gid)

    def _can_run(self, *argv: str) -> bool:
        try:
            ran = subprocess.run(
                [sys.executable, "-I", "-S", "-c", _AS_OTHER, str(self.uid), str(self.gid), *argv],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError:
            return False
        return ran.returncode == 0


def default_data_dir() -> Path:
    """Return where the data lives unless told otherwise: a user's state folder, /var/lib/tenure for root."""
    if os.geteuid() == 0:
        return SYSTEM_STATE
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "tenure"


def server_account(cluster: Path | None = None) -> Account | None:
    """Return whom the servers run as, None = as we do, which is right unless we are root.

    Args:
        cluster: Postgres' data folder; if it exists, its owner is the answer.

    Raises:
        DevError: We are root and there is no account without rights.
    """
    if os.geteuid() != 0:
        return None
    if cluster is not None and cluster.exists() and cluster.stat().st_uid != 0:
        owner = cluster.stat()
        return Account(_name_of(owner.st_uid), owner.st_uid, owner.st_gid)
    for name in ("nobody", "postgres"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise DevError(
        "Postgres refuses to run as root, and there is no account `nobody` or `postgres` to run it as. "
        "Run this as an ordinary user."
    )


def private_folder(path: Path) -> Path:
    """Make a folder for us and, through it, for the servers: others may pass it but not look into it.

    An empty folder that is there already counts as ours; what is in one with files is left as it is.

    Raises:
        DevError: It cannot be made or written to.
    """
    path = path.absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not any(path.iterdir()):
            path.chmod(0o711 if os.geteuid() == 0 else 0o700)
    except OSError as error:
        raise DevError(f"{path} cannot be used: {error.strerror}. Choose another with --data-dir.") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise DevError(f"{path} belongs to someone else. Choose another with --data-dir.")
    return path


def server_folder(data_dir: Path) -> Path:
    """Return where the servers' files are: the data folder, or what its link `databases` points to.

    The link is made if we are root and the servers' account may not enter the data folder, say because it
    is below root's home: opening that home would be wrong, and so would be a server with root's rights.

    Raises:
        DevError: No folder can be made that the account may enter.
    """
    link = data_dir / _ELSEWHERE
    if link.is_symlink():
        return link.resolve()
    account = server_account()
    if account is None or (data_dir / CLUSTER).exists() or account.may_enter(data_dir):
        return data_dir
    target = system_folder("clusters", account) / secrets.token_hex(8)
    target.mkdir(mode=0o711)
    target.chmod(0o711)
    try:
        link.symlink_to(target)
    except FileExistsError:
        # Postgres and Valkey start at the same time; one of them was faster.
        target.rmdir()
        return link.resolve()
    return target


def system_folder(name: str, account: Account) -> Path:
    """Return a folder in /var/lib/tenure that the account may enter, made if need be.

    Raises:
        DevError: There can be none.
    """
    folder = SYSTEM_STATE / name
    try:
        for part in (SYSTEM_STATE, folder):
            if not part.exists():
                part.mkdir(parents=True)
                part.chmod(0o711)
    except OSError:
        pass
    if account.may_enter(folder) and os.access(folder, os.W_OK):
        return folder
    raise DevError(
        f"Postgres refuses to run as root, so it runs as `{account.name}`, who cannot reach its files: "
        f"neither {folder} nor the folders of this installation and of --data-dir are open to that account. "
        "Run this as an ordinary user, or put both below folders that everyone may enter."
    )


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
