"""Redis or Valkey as a place for channel values: commands, keys, time-outs, breaker. Plain strings only.

Whatever Redis answers is untrusted: an entry is used only if its bytes hash to the digest that Postgres
named in the same read. So a flush, an eviction, a stale failover, a split brain, a crossed connection or a
forged entry can cost time, never an answer.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tenure_server import telemetry
from tenure_server.domain import Blob, TenantId

T = TypeVar("T")

_log = logging.getLogger("tenure")

_MAGIC = b"tn1"
_CONNECT_TIMEOUT = 0.1
_COMMAND_TIMEOUT = 0.05
_FAILURES_TO_OPEN = 5
_OPEN_FOR = 1.0


@dataclass(frozen=True, slots=True)
class ValueKey:
    """Names a channel value by content, within one thread of one tenant.

    The scope keeps tenants and threads from learning by timing what others store; it is not needed for the
    right bytes, which the digest alone decides.
    """

    tenant: TenantId
    thread: bytes
    digest: bytes

    @classmethod
    def of(cls, tenant: TenantId, thread_id: str, digest: bytes) -> ValueKey:
        """Return the key of a value of a thread, whose raw id never reaches Redis."""
        thread = hashlib.blake2b(thread_id.encode(), digest_size=16, person=b"tenure.thread").digest()
        return cls(tenant, thread, digest)

    def redis_key(self) -> bytes:
        """Return the Redis key. Every part has a fixed length, so no two names share a key.

        The hash tag keeps a thread's values in one slot of a Redis Cluster.
        """
        return b"tn1:{%s%s}:%s" % (
            self.tenant.hex.encode(),
            self.thread.hex().encode(),
            self.digest.hex().encode(),
        )


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
    """Channel values in Redis. No method ever raises for Redis' sake."""

    def __init__(self, url: str, *, ttl: float) -> None:
        """Prepare a client; nothing is sent yet.

        Args:
            url: redis://, rediss:// or unix:// URL.
            ttl: Lifetime of an entry in seconds, +-10 % so that entries do not expire together.
        """
        self._ttl = ttl
        self._breaker = Breaker()
        self._client = redis.Redis.from_url(
            url,
            socket_timeout=_COMMAND_TIMEOUT,
            socket_connect_timeout=_CONNECT_TIMEOUT,
            # The breaker decides; a library's own retries would multiply the time-out.
            retry=Retry(NoBackoff(), 0),
            max_connections=64,
        )

    async def get(self, keys: Sequence[ValueKey]) -> Mapping[ValueKey, Blob]:
        """Return the entries that are there and whose bytes are right."""
        found: dict[ValueKey, Blob] = {}
        if not keys:
            return found
        if not self._breaker.allows():
            telemetry.cache_reads.add(len(keys), {"result": "off"})
            return found
        with telemetry.span(
            telemetry.REDIS, attributes={telemetry.REDIS_COMMAND: "MGET", telemetry.KEYS: len(keys)}
        ) as span:
            raw = await self._ask(self._client.mget([key.redis_key() for key in keys]))
            invalid = 0
            for key, entry in zip(keys, raw or (), strict=False):
                if isinstance(entry, bytes):
                    value = _unpack(entry)
                    if value is not None and value.digest() == key.digest:
                        found[key] = value
                    else:
                        invalid += 1
            missing = len(keys) - len(found) - invalid
            span.set_attribute(telemetry.CACHE_HITS, len(found))
            span.set_attribute(telemetry.CACHE_MISSES, missing + invalid)
        for result, number in (("hit", len(found)), ("miss", missing), ("invalid", invalid)):
            if number:
                telemetry.cache_reads.add(number, {"result": result})
        return found

    async def set(self, entries: Mapping[ValueKey, Blob]) -> None:
        """Store entries."""
        if not entries or not self._breaker.allows():
            return
        with telemetry.span(
            telemetry.REDIS, attributes={telemetry.REDIS_COMMAND: "SET", telemetry.KEYS: len(entries)}
        ):
            pipeline = self._client.pipeline(transaction=False)
            for key, value in entries.items():
                ttl = int(self._ttl * 1000 * random.uniform(0.9, 1.1))  # noqa: S311
                pipeline.set(key.redis_key(), _pack(value), px=ttl)
            await self._ask(pipeline.execute())

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


def _pack(value: Blob) -> bytes:
    tag = value.type.encode()
    return b"%s%c%s%s" % (_MAGIC, len(tag), tag, value.data)


def _unpack(entry: bytes) -> Blob | None:
    if entry[:3] != _MAGIC or len(entry) < 4:
        return None
    start = 4 + entry[3]
    try:
        return Blob(entry[4:start].decode(), entry[start:])
    except UnicodeDecodeError:
        return None
