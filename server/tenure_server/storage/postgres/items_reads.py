"""Reading items: all groups that only get are one call; every other group is a snapshot of its own.

A group with one search or one listing is one call. A group with several reads runs them in one transaction
that sees one moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, LiteralString, Protocol

from psycopg import AsyncConnection

from tenure_server import errors, telemetry
from tenure_server.domain import TenantId
from tenure_server.items import (
    GetItem,
    Index,
    Item,
    ItemAnswer,
    ItemRead,
    ListNamespaces,
    MatchType,
    Namespace,
    ReadGroup,
    SearchItems,
)
from tenure_server.storage.postgres import item_filters
from tenure_server.storage.postgres.arrays import IntArray, RealArray, TextArray
from tenure_server.storage.postgres.items_namespaces import decoded, encoded, ranges
from tenure_server.storage.postgres.items_touches import Place, Touches
from tenure_server.storage.postgres.items_values import scaled
from tenure_server.storage.postgres.pool import Database

_GET: LiteralString = "SELECT * FROM tenure.read_items_2(%s, %s, %s, %s)"
_SEARCH: LiteralString = """
SELECT * FROM tenure.search_items_2(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_LIST: LiteralString = "SELECT * FROM tenure.list_namespaces_2(%s, %s, %s, %s, %s, %s, %s, %s)"
_MAX_INT = 2**31 - 1

_Answers = Sequence[ItemAnswer]


class _Call(Protocol):
    async def __call__(
        self, statement: LiteralString, params: Sequence[Any], operation: str
    ) -> list[tuple[Any, ...]]: ...


async def read(
    database: Database, touches: Touches, tenant: TenantId, groups: Sequence[ReadGroup], max_bytes: int
) -> list[_Answers | errors.TenureError]:
    """See `ports.ItemStore.read`; the values of a group have at most `max_bytes`."""
    reader = _Reader(database, touches, tenant, max_bytes)
    gets: list[int] = []
    others: list[int] = []
    for number, group in enumerate(groups):
        (gets if all(isinstance(one, GetItem) for one in group.reads) else others).append(number)
    if not others:
        return await reader.get(groups)
    answers: list[_Answers | errors.TenureError] = [()] * len(groups)

    async def get() -> None:
        found = await reader.get([groups[number] for number in gets])
        for number, answer in zip(gets, found, strict=True):
            answers[number] = answer

    async def search(number: int) -> None:
        answers[number] = await reader.group(groups[number])

    tasks = [search(number) for number in others]
    await asyncio.gather(*([get()] if gets else []), *tasks)
    return answers


class _Reader:
    def __init__(self, database: Database, touches: Touches, tenant: TenantId, max_bytes: int) -> None:
        self._database = database
        self._touches = touches
        self._tenant = tenant
        self._max_bytes = max_bytes

    async def get(self, groups: Sequence[ReadGroup]) -> list[_Answers | errors.TenureError]:
        """Answer groups that only get, in one call."""
        now = time.monotonic()
        alive = [group for group in groups if group.operation.deadline > now]
        found: list[Item | None] = []
        if alive:
            call = _single(self._database, self._tenant, max(group.operation.deadline for group in alive))
            try:
                found = await self._gets(call, [get for group in alive for get in group.reads], 0)
            except errors.LimitExceeded as error:
                if len(groups) == 1:
                    return [error]
                # Too much together; whoever asks for too much alone fails alone.
                return [(await self.get([group]))[0] for group in groups]
            except errors.TenureError as error:
                return [error] * len(groups)
        items = iter(found)
        return [
            [next(items) for _ in group.reads]
            if group.operation.deadline > now
            else errors.DeadlineExceeded()
            for group in groups
        ]

    async def group(self, group: ReadGroup) -> _Answers | errors.TenureError:
        """Answer one group from one snapshot."""
        deadline = group.operation.deadline
        if deadline <= time.monotonic():
            return errors.DeadlineExceeded()
        try:
            if len(group.reads) == 1:
                call = _single(self._database, self._tenant, deadline)
                return await self._all(call, group)
            async with (
                asyncio.timeout(deadline - time.monotonic()),
                self._database.transaction(self._tenant, deadline=deadline, snapshot=True) as connection,
            ):
                return await self._all(_together(connection), group)
        except TimeoutError:
            return errors.DeadlineExceeded()
        except errors.TenureError as error:
            return error

    async def _all(self, call: _Call, group: ReadGroup) -> list[ItemAnswer]:
        answers: list[ItemAnswer] = []
        found = 0
        for at, one in enumerate(group.reads):
            if isinstance(one, GetItem):
                items = await self._gets(call, [one], found)
                found += sum(len(item.value) for item in items if item is not None)
                answers += items
            elif isinstance(one, SearchItems):
                matches = await self._search(call, group, at, found)
                found += sum(len(item.value) for item in matches)
                answers.append(matches)
            else:
                answers.append(await self._list(call, group.within, one))
        return answers

    async def _gets(self, call: _Call, gets: Sequence[ItemRead], before: int) -> list[Item | None]:
        """Answer gets of which those before have found so many bytes."""
        asked = [get for get in gets if isinstance(get, GetItem)]
        places = [(encoded(get.namespace), get.key) for get in asked]
        params = [
            self._tenant,
            TextArray([namespace for namespace, _ in places]),
            TextArray([key for _, key in places]),
            self._max_bytes - before,
        ]
        found: list[Item | None] = [None] * len(asked)
        used: list[Place] = []
        for position, value, created_at, updated_at, expires in await call(_GET, params, "read_items"):
            if value is None:
                # All that is left came before it, and one item may have 8 MiB.
                raise errors.LimitExceeded(
                    "ops", "bytes of values found", self._max_bytes + 1, self._max_bytes
                )
            get = asked[position - 1]
            found[position - 1] = Item(get.namespace, get.key, value, created_at, updated_at)
            if expires and get.refresh_ttl:
                used.append(places[position - 1])
        if used:
            self._touches.add(self._tenant, used)
        return found

    async def _search(self, call: _Call, group: ReadGroup, at: int, found: int) -> list[Item]:
        """Answer the search at a position of a group, whose searches before have found so many bytes."""
        search = group.reads[at]
        assert isinstance(search, SearchItems)
        places = ranges(search.namespace_prefix, group.within)
        index = group.index if search.query_vector else None
        if index is None and not (places and search.limit):
            return []
        params = [
            self._tenant,
            TextArray([first for first, _ in places]),
            TextArray([after for _, after in places]),
            *(item_filters.compiled(search.filter) or (None, None, None)),
            search.limit,
            search.offset,
            search.mode.value,
            RealArray(scaled(search.query_vector)),
            search.query_text,
            0 if index is None else index.dims,
            "" if index is None else index.embedder,
            self._max_bytes - found,
        ]
        items: list[Item] = []
        used: list[Place] = []
        for namespace, key, value, created_at, updated_at, expires, score in await call(
            _SEARCH, params, "search_items"
        ):
            if key is None and value is None:
                size = found + int(score)
                raise errors.LimitExceeded(
                    f"ops[{at}].search.limit", "bytes of values found", size, self._max_bytes
                )
            if key is None:
                raise errors.IndexMismatch(str(Index(int(score), value)), str(index))
            items.append(Item(decoded(namespace), key, value, created_at, updated_at, score))
            if expires and search.refresh_ttl:
                used.append((namespace, key))
        if used:
            self._touches.add(self._tenant, used)
        return items

    async def _list(
        self, call: _Call, within: Sequence[Namespace] | None, listing: ListNamespaces
    ) -> list[Namespace]:
        places = ranges(_common_prefix(listing), within)
        if not places or not listing.limit:
            return []
        params = [
            self._tenant,
            TextArray([first for first, _ in places]),
            TextArray([after for _, after in places]),
            TextArray([encoded(condition.path) for condition in listing.conditions]),
            IntArray([int(condition.type is MatchType.SUFFIX) for condition in listing.conditions]),
            None if listing.max_depth is None else min(listing.max_depth, _MAX_INT),
            listing.limit,
            listing.offset,
        ]
        return [decoded(namespace) for (namespace,) in await call(_LIST, params, "list_namespaces")]


def _common_prefix(listing: ListNamespaces) -> Namespace:
    """Return labels with which all namespaces that match begin."""
    known: Namespace = ()
    for condition in listing.conditions:
        if condition.type is MatchType.PREFIX:
            path = tuple(condition.path)
            plain = path[: path.index("*")] if "*" in path else path
            known = max(known, plain, key=len)
    return known


def _single(database: Database, tenant: TenantId, deadline: float) -> _Call:
    """Return what makes each call a round trip of its own."""

    async def call(statement: LiteralString, params: Sequence[Any], operation: str) -> list[tuple[Any, ...]]:
        return await database.call(tenant, statement, params, operation=operation, deadline=deadline)

    return call


def _together(connection: AsyncConnection[tuple[Any, ...]]) -> _Call:
    """Return what makes each call in the transaction of a connection."""

    async def call(statement: LiteralString, params: Sequence[Any], operation: str) -> list[tuple[Any, ...]]:
        with telemetry.span(telemetry.SQL, attributes={telemetry.STATEMENT: operation}):
            cursor = connection.cursor(binary=True)
            await cursor.execute(statement, params)
            return await cursor.fetchall()

    return call
