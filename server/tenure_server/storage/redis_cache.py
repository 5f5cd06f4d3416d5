"""Redis or Valkey as a place for values and chunks: commands, keys, time-outs, breaker. Plain strings only.

Whatever Redis answers is untrusted: a value is used only if its bytes hash to the digest that Postgres
named in the same read. So a flush, an eviction, a stale failover, a split brain, a crossed connection or a
forged entry can cost time, never an answer.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tenure_server import telemetry
from tenure_server.storage.cache_keys import Key

T = TypeVar("T")
V = TypeVar("V")
Command = tuple[str | bytes | int, ...]

_log = logging.getLogger("tenure")

_CONNECT_TIMEOUT = 0.1
_FAILURES_TO_OPEN = 5
_OPEN_FOR = 1.0
_PORTION_KEYS = 128
_PORTION_BYTES = 1024 * 1024
"""What one command asks for or brings at most, unless a single entry is larger. The time-out is for one
command: a large state in one would outlast it, and count as a failure."""


class Breaker:
    """Stops asking after failures in a row; then lets one call in a second try."""

    def __init__(self) -> None:
        self._failures = 0
        self._closed_again = 0.0

    def allows(self) -> bool:
        """Tell whether to ask now."""
        if self._failures < _FAILURES_TO_OPEN:
            return True
        now = time.monotonic()
        if now < self._closed_again:
            return False
        # This caller is the probe; the others wait for its result.
        self._closed_again = now + _OPEN_FOR * random.uniform(0.9, 1.1)  # noqa: S311
        return True

    def record(self, *, success: bool) -> None:
        """Note how a call went."""
        if success:
            self._failures = 0
            return
        self._failures += 1
        if self._failures == _FAILURES_TO_OPEN:
            self._closed_again = time.monotonic() + _OPEN_FOR * random.uniform(0.9, 1.1)  # noqa: S311
            _log.warning("the cache is away; reads come from Postgres until it answers again")


class RedisCache:
    """Values and chunks in Redis. No method ever raises for Redis' sake."""

    def __init__(self, url: str, *, ttl: float, timeout: float = 0.05) -> None:
        """Prepare a client; nothing is sent yet.

        Args:
            url: redis://, rediss:// or unix:// URL.
            ttl: Lifetime of an entry in seconds, +-10 % so that entries do not expire together.
            timeout: Seconds for one command.
        """
        self._ttl = ttl
        self._breaker = Breaker()
        self._client = redis.Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=max(timeout, _CONNECT_TIMEOUT),
            # The breaker decides; a library's own retries would multiply the time-out.
            retry=Retry(NoBackoff(), 0),
            max_connections=64,
        )

    async def get(self, keys: Mapping[Key[V], int]) -> dict[Key[V], V]:
        """Return the entries that are there and are what their keys name.

        Args:
            keys: What to look for, with the size in bytes that it has about.
        """
        found: dict[Key[V], V] = {}
        asked = 0
        for portion in portions(keys.items()):
            if not self._breaker.allows() or not await self._get(portion, found):
                break
            asked += len(portion)
        if asked < len(keys):
            telemetry.cache_reads.add(len(keys) - asked, {"result": "off"})
        return found

    async def _get(self, keys: Sequence[Key[V]], found: dict[Key[V], V]) -> bool:
        """Add entries to those found; False if Redis did not answer."""
        with telemetry.span(
            telemetry.REDIS, attributes={telemetry.REDIS_COMMAND: "MGET", telemetry.KEYS: len(keys)}
        ) as span:
            raw = await self._ask(self._client.mget([key.redis_key() for key in keys]))
            hits = invalid = 0
            for key, entry in zip(keys, raw or (), strict=False):
                if isinstance(entry, bytes):
                    value = key.unpack(entry)
                    if value is None:
                        invalid += 1
                    else:
                        found[key] = value
                        hits += 1
            missing = len(keys) - hits - invalid
            span.set_attribute(telemetry.CACHE_HITS, hits)
            span.set_attribute(telemetry.CACHE_MISSES, missing + invalid)
        if raw is None:
            return False
        for result, number in (("hit", hits), ("miss", missing), ("invalid", invalid)):
            if number:
                telemetry.cache_reads.add(number, {"result": result})
        return True

    async def set(self, entries: Mapping[Key[V], V]) -> None:
        """Store entries."""
        commands = (
            (("SET", key.redis_key(), entry, "PX", self._lifetime()), len(entry))
            for key, value in entries.items()
            for entry in (key.pack(value),)
        )
        for portion in portions(commands):
            if await self.ask(portion) is None:
                return

    async def ask(self, commands: Sequence[Command]) -> Sequence[Any] | None:
        """Send commands in one pipeline and return their replies, None if Redis is away or refuses one.

        Any of them may have been executed all the same.
        """
        if not self._breaker.allows():
            return None
        with telemetry.span(
            telemetry.REDIS,
            attributes={telemetry.REDIS_COMMAND: str(commands[0][0]), telemetry.KEYS: len(commands)},
        ):
            pipeline = self._client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            return await self._ask(pipeline.execute())

    def _lifetime(self) -> int:
        """Return the milliseconds that an entry lives."""
        return int(self._ttl * 1000 * random.uniform(0.9, 1.1))  # noqa: S311

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(self, work: Awaitable[T]) -> T | None:
        try:
            answer = await work
        except (RedisError, OSError, TimeoutError) as error:
            self._breaker.record(success=False)
            _log.debug("the cache failed: %s", type(error).__name__)
            return None
        self._breaker.record(success=True)
        return answer


def portions(sized: Iterable[tuple[T, int]]) -> Iterator[Sequence[T]]:
    """Yield items, which come with their sizes, in runs for one command or pipeline each."""
    portion: list[T] = []
    room = _PORTION_BYTES
    for item, size in sized:
        if portion and (size > room or len(portion) == _PORTION_KEYS):
            yield portion
            portion, room = [], _PORTION_BYTES
        portion.append(item)
        room -= size
    if portion:
        yield portion
