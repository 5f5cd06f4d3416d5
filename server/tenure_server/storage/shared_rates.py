"""The buckets of tenants' rates in Redis, by its clock, and who shares them.

What Redis loses, by eviction or a flush, comes back as full buckets: a tenant gets one burst more.
"""

from __future__ import annotations

import secrets
from typing import Final
from uuid import UUID

from tenure_server.rates import Amount, Rates
from tenure_server.storage.cache_keys import REPLICAS, bucket_key
from tenure_server.storage.redis_cache import Command, RedisCache

_TAKE: Final = """
local now = redis.call('TIME')
now = tonumber(now[1]) + tonumber(now[2]) / 1000000
local state = redis.call('HMGET', KEYS[1], 'at', 'left1', 'left2')
local passed = math.max(0, now - (tonumber(state[1]) or now))
local answer, full_after = {}, 0
for i = 1, 2 do
    local rate, room, owed, wanted = unpack(ARGV, 4 * i - 3, 4 * i)
    rate, room = tonumber(rate), tonumber(room)
    local left = math.min(room, (tonumber(state[i + 1]) or room) + passed * rate) - tonumber(owed)
    local taken = math.max(0, math.min(tonumber(wanted), left))
    left = left - taken
    redis.call('HSET', KEYS[1], 'left' .. i, string.format('%.6f', left))
    answer[i], answer[i + 2] = string.format('%.6f', taken), string.format('%.6f', left)
    if rate > 0 then
        full_after = math.max(full_after, (room - left) / rate)
    end
end
redis.call('HSET', KEYS[1], 'at', string.format('%.6f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(1000 * math.min(full_after, 86400)) + 1000)
return answer
"""
"""Takes out of both buckets of a tenant at once: rate, room, what is owed and what is wanted of operations,
then of bytes. What is full again may be forgotten."""

_REPLICAS: Final = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
"""
_ALIVE = 15
"""Seconds for which a replica counts after its last sign of life."""


class RedisBuckets:
    """See `rates.SharedBuckets`. Shares the connections, the time-outs and the breaker of the cache."""

    def __init__(self, redis: RedisCache) -> None:
        self._redis = redis
        self._replica = secrets.token_hex(8)

    async def take(
        self, tenant: UUID, rates: Rates, owed: Amount, wanted: Amount
    ) -> tuple[Amount, Amount] | None:
        arguments: list[str] = []
        for rate, debt, amount in zip(rates.a_second(), owed, wanted, strict=True):
            # At least one operation, or the slowest rates would never let anything through.
            arguments += [repr(rate), repr(max(rate * rates.burst, 1.0)), repr(debt), repr(amount)]
        command: Command = ("EVAL", _TAKE, 1, bucket_key(tenant), *arguments)
        replies = await self._redis.ask([command])
        if replies is None:
            return None
        try:
            numbers = [float(number) for number in replies[0]]
            return Amount(*numbers[:2]), Amount(*numbers[2:])
        except (TypeError, ValueError):
            return None

    async def replicas(self) -> int | None:
        replies = await self._redis.ask([("EVAL", _REPLICAS, 1, REPLICAS, self._replica, _ALIVE)])
        return replies[0] if replies is not None and isinstance(replies[0], int) else None
