"""Draws the lines of `max_bytes`: what lies behind a policy's line has expired.

A line goes through the last thread or item that has to go so that those which stay come to no more than the
policy allows, beginning with what was written to longest ago. It passes over what is kept anyway, takes no
thread that was written to within `settle` seconds, and never goes back. It is found page by page, so that no
statement takes long; what is written, or goes, meanwhile counts in the next run.
"""

from __future__ import annotations

import bisect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Final, LiteralString, NamedTuple

from tenure_server.domain import TenantId
from tenure_server.storage.postgres.pool import Database

PAGE: Final = 200
"""Threads or items that one statement looks at."""
_SUMMED: Final = 10_000
"""Items whose bytes one statement adds up."""
CANDIDATES: Final = 50_000
"""Threads or items that a line passes at most, for what they take; the next run goes on from there."""

Call = Callable[[LiteralString, list[Any]], Awaitable[Sequence[tuple[Any, ...]]]]
"""Runs a statement as `tenure_app` and returns its rows."""

_POLICIES: LiteralString = "SELECT kind, prefix, max_bytes, updated_at FROM tenure.lines_to_draw_1(%s, %s)"
_THREADS: LiteralString = (
    "SELECT thread_id, bytes, gain, last FROM tenure.line_threads_1(%s, %s, %s, %s, %s, %s)"
)
_ITEMS: LiteralString = (
    "SELECT namespace, key, name, bytes, last FROM tenure.line_items_1(%s, %s, %s, %s, %s)"
)
_STORED: LiteralString = "SELECT namespace, key, bytes FROM tenure.stored_items_1(%s, %s, %s, %s, %s)"
_MOVE: LiteralString = "SELECT tenure.move_line_1(%s, %s, %s, %s, %s, %s)"


class _Line(NamedTuple):
    """What a line goes through: a thread's id or an item's name, and when it was last written to."""

    last: datetime
    name: str


async def draw_lines(call: Call, tenant: TenantId, settle: float) -> None:
    """Draw the lines of a tenant's policies that have too much and whose line has settled."""
    for kind, prefix, max_bytes, updated_at in await call(_POLICIES, [tenant, settle]):
        if kind == "threads":
            line = await _line_of_threads(call, tenant, prefix, max_bytes, settle)
        else:
            line = await _line_of_items(call, tenant, prefix, max_bytes)
        if line is not None:
            await call(_MOVE, [tenant, kind, prefix, updated_at, *line])


def calling(database: Database, tenant: TenantId) -> Call:
    """Return what runs each statement in a transaction of its own."""

    async def call(statement: LiteralString, params: list[Any]) -> Sequence[tuple[Any, ...]]:
        moves = statement is _MOVE
        return await database.call(tenant, statement, params, operation="draw_lines", writes=moves)

    return call


async def _line_of_threads(
    call: Call, tenant: TenantId, prefix: str, max_bytes: int, settle: float
) -> _Line | None:
    needed = -max_bytes
    async for _, stored, _, _ in _threads(call, tenant, prefix, settle, gain=False):
        needed += stored
    # What of it has expired takes longer to tell.
    if needed <= 0:
        return None
    oldest = _Oldest()
    async for thread_id, expired, gain, last in _threads(call, tenant, prefix, settle, gain=True):
        needed -= expired
        if last is not None:
            oldest.add(_Line(last, thread_id), gain)
    return oldest.line(needed)


async def _threads(
    call: Call, tenant: TenantId, prefix: str, settle: float, *, gain: bool
) -> AsyncIterator[tuple[str, int, int, datetime | None]]:
    after = ""
    while rows := await call(_THREADS, [tenant, prefix, after, PAGE, gain, settle]):
        for thread_id, size, gained, last in rows:
            if size is not None:
                yield thread_id, size, gained, last
        after = rows[-1][0]
        if not after.startswith(prefix):
            return


async def _line_of_items(call: Call, tenant: TenantId, prefix: str, max_bytes: int) -> _Line | None:
    if await _bytes_of_items(call, tenant, prefix) <= max_bytes:
        return None
    needed = -max_bytes
    oldest = _Oldest()
    namespace, key = "", ""
    while rows := await call(_ITEMS, [tenant, prefix, namespace, key, PAGE]):
        for _, _, name, size, last in rows:
            needed += size
            if last is not None:
                oldest.add(_Line(last, name), size)
        namespace, key, *_ = rows[-1]
        if not namespace.startswith(prefix):
            break
    return oldest.line(needed)


async def _bytes_of_items(call: Call, tenant: TenantId, prefix: str) -> int:
    """Return what the items below a prefix have at most: cheap beside telling what of it has expired."""
    total = 0
    namespace, key = "", ""
    while True:
        size: int
        ((namespace, key, size),) = await call(_STORED, [tenant, prefix, namespace, key, _SUMMED])
        total += size
        if namespace is None or not namespace.startswith(prefix):
            return total


class _Oldest:
    """What was written to longest ago of what a line may go through, and what it gains."""

    def __init__(self) -> None:
        self._lines: list[_Line] = []
        self._gains: dict[_Line, int] = {}

    def add(self, line: _Line, gain: int) -> None:
        """Keep one, unless it gains nothing or enough others are older."""
        if gain <= 0:
            return
        if len(self._lines) >= CANDIDATES:
            if line > self._lines[-1]:
                return
            del self._gains[self._lines.pop()]
        bisect.insort(self._lines, line)
        self._gains[line] = gain

    def line(self, needed: int) -> _Line | None:
        """Return the first with which enough bytes are gained, or the last; None if none are needed."""
        found = None
        for line in self._lines:
            if needed <= 0:
                break
            needed -= self._gains[line]
            found = line
        return found
