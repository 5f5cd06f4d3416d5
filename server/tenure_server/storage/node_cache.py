"""Results of graph nodes in Redis, or in memory for a server that keeps everything there.

A share of the cache has a token, and so has each of its namespaces: random bytes that are made when they are
first needed. An entry holds the generation that both make, and counts only as long as they do. So a clear
removes one token, however many entries it makes unreachable; those are overwritten or expire. A token that
Redis loses, by eviction or a flush, does the same as a clear: a new one is random, so nothing comes back.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from tenure_server import errors, telemetry
from tenure_server.domain import DIGEST_BYTES, Blob
from tenure_server.limits import KIB, MIB
from tenure_server.node_results import CacheShare, FoundResults, Namespace, NodeKey, NodeResult
from tenure_server.storage.cache_keys import BadEntry, ResultKey, generation, scope_of_share, token_key
from tenure_server.storage.redis_cache import Command, RedisCache, portions

MAX_TTL = 24 * 3600.0
"""Seconds that a result is kept at most, and if nobody says."""
_MAX_VALUE_BYTES = MIB
_MAX_ENTRY_BYTES = _MAX_VALUE_BYTES + KIB


class RedisNodeCache:
    """See `ports.NodeCache`. Shares the connections, the time-outs and the breaker of the other cache."""

    def __init__(self, redis: RedisCache) -> None:
        self._redis = redis

    async def get(self, share: CacheShare, keys: Sequence[NodeKey], room: int) -> FoundResults:
        scope = scope_of_share(share)
        entries = {key: ResultKey.of(scope, key) for key in keys}
        namespaces = _namespaces(entries)
        # The sizes first: entries of unknown size could outlast a command's time-out, or fill our memory.
        lengths: list[Command] = [("STRLEN", entry.redis_key()) for entry in entries.values()]
        replies = await self._redis.ask([_read_tokens(scope, namespaces), *lengths])
        if replies is None:
            telemetry.node_cache_reads.add(len(entries), {"result": "off"})
            return FoundResults({})
        generations = _generations(namespaces, replies[0])
        sizes = {
            key: size
            for key, size in zip(entries, replies[1:], strict=True)
            if key.namespace in generations and 0 < size <= _MAX_ENTRY_BYTES
        }
        fitting = _fitting(sizes, room)
        found: dict[NodeKey, Blob] = {}
        results = Counter({"miss": len(entries) - len(sizes), "off": len(fitting)})
        for portion in portions((key, sizes[key]) for key in fitting):
            read = await self._redis.ask([("MGET", *(entries[key].redis_key() for key in portion))])
            if read is None:
                break
            results["off"] -= len(portion)
            for key, raw in zip(portion, read[0], strict=True):
                result, value = _unpack(entries[key], generations[key.namespace], raw)
                results[result] += 1
                if value is not None:
                    found[key] = value
        for result, number in results.items():
            telemetry.node_cache_reads.add(number, {"result": result})
        return FoundResults(found, frozenset(sizes.keys() - fitting))

    async def set(self, share: CacheShare, results: Sequence[NodeResult]) -> None:
        last = {result.key: result for result in results}
        scope = scope_of_share(share)
        namespaces = _namespaces(last)
        keys = [token_key(scope, namespace) for namespace in (None, *namespaces)]
        # Tokens outlive every entry that is made with them.
        life = _milliseconds(MAX_TTL)
        replies = await self._redis.ask(
            [
                *(("SET", key, secrets.token_bytes(DIGEST_BYTES), "NX", "PX", life) for key in keys),
                *(("PEXPIRE", key, life) for key in keys),
                _read_tokens(scope, namespaces),
            ]
        )
        generations = {} if replies is None else _generations(namespaces, replies[-1])
        commands: list[tuple[Command, int]] = []
        for key, result in last.items():
            entry = ResultKey.of(scope, key)
            if (made := generations.get(key.namespace)) is None:
                # Redis is away, or somebody clears the namespace at this moment.
                continue
            if result.value is None or len(result.value.data) > _MAX_VALUE_BYTES:
                commands.append((("DEL", entry.redis_key()), 0))
            else:
                packed = entry.pack(made, result.value)
                command = ("SET", entry.redis_key(), packed, "PX", _milliseconds(result.ttl))
                commands.append((command, len(packed)))
        outcomes = Counter({"dropped": len(last)})
        for portion in portions(commands):
            if await self._redis.ask(portion) is None:
                break
            outcomes["dropped"] -= len(portion)
            outcomes.update("stored" if command[0] == "SET" else "forgotten" for command in portion)
        for outcome, number in outcomes.items():
            telemetry.node_cache_writes.add(number, {"result": outcome})

    async def clear(self, share: CacheShare, namespaces: Sequence[Namespace] | None) -> None:
        scope = scope_of_share(share)
        wanted: Sequence[Namespace | None] = [None] if namespaces is None else namespaces
        keys = [token_key(scope, namespace) for namespace in wanted]
        if keys and await self._redis.ask([("DEL", *keys)]) is None:
            raise errors.Unavailable("the cache cannot be reached, nothing is known to be cleared; retry")


class MemoryNodeCache:
    """See `ports.NodeCache`. Of one process; keeps what was used last, up to 64 MiB."""

    def __init__(self, max_bytes: int = 64 * MIB) -> None:
        self._room = max_bytes
        self._entries: OrderedDict[tuple[CacheShare, NodeKey], tuple[Blob, float]] = OrderedDict()

    async def get(self, share: CacheShare, keys: Sequence[NodeKey], room: int) -> FoundResults:
        now = time.monotonic()
        values: dict[NodeKey, Blob] = {}
        for key in keys:
            value, expires_at = self._entries.get((share, key), (None, 0.0))
            if value is not None and now < expires_at:
                values[key] = value
                self._entries.move_to_end((share, key))
        fitting = _fitting({key: len(value.data) for key, value in values.items()}, room)
        return FoundResults({key: values[key] for key in fitting}, frozenset(values.keys() - fitting))

    async def set(self, share: CacheShare, results: Sequence[NodeResult]) -> None:
        for result in results:
            self._remove(share, result.key)
            if result.value is not None and len(result.value.data) <= _MAX_VALUE_BYTES:
                expires_at = time.monotonic() + _milliseconds(result.ttl) / 1000
                self._entries[share, result.key] = result.value, expires_at
                self._room -= len(result.value.data)
        while self._room < 0:
            self._remove(*next(iter(self._entries)))

    async def clear(self, share: CacheShare, namespaces: Sequence[Namespace] | None) -> None:
        for owner, key in list(self._entries):
            if owner == share and (namespaces is None or key.namespace in namespaces):
                self._remove(owner, key)

    def _remove(self, share: CacheShare, key: NodeKey) -> None:
        removed = self._entries.pop((share, key), None)
        if removed is not None:
            self._room += len(removed[0].data)


def _namespaces(keys: Iterable[NodeKey]) -> Sequence[Namespace]:
    return list(dict.fromkeys(key.namespace for key in keys))


def _read_tokens(scope: bytes, namespaces: Sequence[Namespace]) -> Command:
    """Return the command that reads the tokens of a share and of namespaces."""
    return ("MGET", *(token_key(scope, namespace) for namespace in (None, *namespaces)))


def _generations(
    namespaces: Sequence[Namespace], tokens: Sequence[bytes | None]
) -> Mapping[Namespace, bytes]:
    """Return the generations of namespaces; one without a token, its own or the share's, holds nothing."""
    share, *own = tokens
    if share is None:
        return {}
    return {
        namespace: generation(share, token)
        for namespace, token in zip(namespaces, own, strict=True)
        if token is not None
    }


def _fitting(sizes: Mapping[NodeKey, int], room: int) -> Sequence[NodeKey]:
    """Return the keys that fit into the room, the first one in any case."""
    fitting: list[NodeKey] = []
    for key, size in sizes.items():
        room -= size
        if fitting and room < 0:
            break
        fitting.append(key)
    return fitting


def _unpack(entry: ResultKey, made: bytes, raw: bytes | None) -> tuple[str, Blob | None]:
    """Return the result of a look-up for metrics, and what was found."""
    try:
        value = entry.unpack(made, raw) if raw is not None else None
    except BadEntry:
        return "invalid", None
    return "miss" if value is None else "hit", value


def _milliseconds(ttl: float | None) -> int:
    return max(int(min(MAX_TTL if ttl is None else ttl, MAX_TTL) * 1000), 1)
