"""A Valkey of our own for caching: on loopback with a password, nothing on disk."""

from __future__ import annotations

import secrets
import socket
import time
from pathlib import Path

from tenure_server.local.account import private_folder, server_account, server_folder
from tenure_server.local.binaries import valkey_server
from tenure_server.local.errors import DevError
from tenure_server.local.ports import HOST, free_port
from tenure_server.local.supervisor import Child, tail
from tenure_server.secret_file import write_secret

_START_TIMEOUT = 20.0
_POLL = 0.01
_ATTEMPTS = 5


class LocalValkey:
    """A Valkey (or Redis) that forgets everything when it stops. Not for use by several threads at once.

    Attributes:
        data_dir: Folder for its settings and its log.
        port: On 127.0.0.1; another one after each start unless `start` is told to keep it.
        password: Made for this object.
    """

    def __init__(self, data_dir: Path, *, max_memory: str = "256mb") -> None:
        self.data_dir = data_dir.absolute()
        self.port = 0
        self.password = secrets.token_urlsafe(24)
        self._max_memory = max_memory
        self._child: Child | None = None

    @property
    def log(self) -> Path:
        """File with what the server wrote."""
        return self.data_dir / "valkey.log"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._child is not None, "not running"
        return self._child.pid

    @property
    def url(self) -> str:
        """Where it is, password included."""
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    @property
    def running(self) -> bool:
        """Whether the server was started and has not ended."""
        return self._child is not None and self._child.exit_code is None

    def start(self, *, port: int | None = None) -> None:
        """Start the server and return when it answers; running already is fine.

        Args:
            port: Port to use, for one that comes back after a crash; None = any free one.

        Raises:
            DevError: It cannot be started; says why and what to do.
        """
        if self.running:
            return
        private_folder(self.data_dir)
        home = server_folder(self.data_dir)
        account = server_account()
        program = valkey_server(account)
        # Settings go into a file: arguments can be read by everybody on the machine.
        settings = home / "valkey.conf"
        for _ in range(_ATTEMPTS):
            self.port = port or free_port()
            write_secret(settings, self._settings())
            if account is not None:
                account.give(settings)
            try:
                child = Child.start([program, settings], cwd=home, log=self.log, account=account, grace=5.0)
            except OSError as error:
                raise DevError(f"Valkey cannot be started: {error}") from None
            if self._wait_until_ready(child):
                self._child = child
                return
            child.stop()
        raise DevError(f"Valkey does not start; {self.log} ends with:\n{tail(self.log)}")

    def stop(self) -> None:
        """Stop the server; not running is fine."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def kill(self) -> None:
        """Kill the server as a crash would."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _settings(self) -> str:
        lines = {
            "bind": HOST,
            "port": str(self.port),
            "protected-mode": "yes",
            "requirepass": self.password,
            "maxmemory": self._max_memory,
            "maxmemory-policy": "allkeys-lru",
            "save": '""',
            "appendonly": "no",
            "daemonize": "no",
            "loglevel": "warning",
        }
        return "".join(f"{name} {value}\n" for name, value in lines.items())

    def _wait_until_ready(self, child: Child) -> bool:
        give_up = time.monotonic() + _START_TIMEOUT
        while child.exit_code is None and time.monotonic() < give_up:
            try:
                with socket.create_connection((HOST, self.port), timeout=1.0) as connection:
                    connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                    with connection.makefile("rb") as replies:
                        if (replies.readline(), replies.readline()) == (b"+OK\r\n", b"+PONG\r\n"):
                            return True
            except OSError:
                pass
            time.sleep(_POLL)
        return False
