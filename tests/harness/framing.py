"""Where the reply to a marked request ends, for the fault proxy."""

from __future__ import annotations

from typing import Literal, Protocol

Verdict = Literal["pass", "hold", "cut"]


class Framing(Protocol):
    """What one connection needs to know about its protocol."""

    def sent(self, data: bytes, marker: bytes) -> bool:
        """Take what the client sent, and say whether it completes a marked request."""
        ...

    def doom(self) -> None:
        """Decide that the reply to the request just marked shall be dropped."""
        ...

    def received(self, data: bytes) -> Verdict:
        """Take what the server sent, and say what to do with it: hold = drop it, the end comes later."""
        ...


class ReplyFraming:
    """For any protocol: the first bytes after the marked request are its reply."""

    def __init__(self) -> None:
        self._rest = b""
        self._doomed = False

    def sent(self, data: bytes, marker: bytes) -> bool:
        text = self._rest + data
        found = marker in text
        self._rest = b"" if found else text[-len(marker) :]
        return found

    def doom(self) -> None:
        self._doomed = True

    def received(self, data: bytes) -> Verdict:
        return "cut" if self._doomed else "pass"


class PostgresFraming:
    """For Postgres: the reply ends with the ReadyForQuery that answers the marked Query or Sync.

    Only then has the transaction committed: CommandComplete may come before. A prepared statement is marked
    by its text whenever it is executed, not when it is prepared, which does nothing yet.
    """

    _ENCRYPTION_REQUESTS = (b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30")

    def __init__(self) -> None:
        self._client = bytearray()
        self._server = bytearray()
        self._started = False
        self._bare_replies = 0
        self._asked = 0
        self._answered = 0
        self._marked = 0
        self._doomed: int | None = None
        self._prepared: dict[bytes, bytes] = {}

    def sent(self, data: bytes, marker: bytes) -> bool:
        self._client += data
        found = False
        while (message := self._next_sent()) is not None:
            kind, body = message
            text = self._text(kind, body)
            if marker and marker in text and self._marked <= self._asked:
                found = True
                self._marked = self._asked + 1
            if kind in b"QSF" or kind == b"startup":
                self._asked += 1
        return found

    def doom(self) -> None:
        self._doomed = self._marked

    def received(self, data: bytes) -> Verdict:
        self._server += data
        while (kind := self._next_received()) is not None:
            if kind == b"Z":
                self._answered += 1
        if self._doomed is None:
            return "pass"
        return "cut" if self._answered >= self._doomed else "hold"

    def _text(self, kind: bytes, body: bytes) -> bytes:
        """Return what a message is marked by: its body, and the prepared statement that it executes."""
        if kind == b"P" and not body.startswith(b"\0"):
            name, _, statement = body.partition(b"\0")
            self._prepared[name] = statement
            return b""
        if kind == b"B":
            # The name of a portal, then that of a statement.
            return body + self._prepared.get(body.split(b"\0", 2)[1], b"")
        return body

    def _next_sent(self) -> tuple[bytes, bytes] | None:
        head = 1 if self._started else 0
        size = head + int.from_bytes(self._client[head : head + 4])
        if len(self._client) < head + 4 or len(self._client) < size:
            return None
        kind, body = bytes(self._client[:head]), bytes(self._client[head + 4 : size])
        del self._client[:size]
        if self._started:
            return kind, body
        if body[:4] in self._ENCRYPTION_REQUESTS:
            self._bare_replies += 1
            return b"encryption", b""
        self._started = True
        return b"startup", b""

    def _next_received(self) -> bytes | None:
        if self._bare_replies and self._server:
            del self._server[:1]
            self._bare_replies -= 1
            return b"encryption"
        size = 1 + int.from_bytes(self._server[1:5])
        if len(self._server) < 5 or len(self._server) < size:
            return None
        kind = bytes(self._server[:1])
        del self._server[:size]
        return kind
