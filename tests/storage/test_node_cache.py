"""The contract of the node cache, on both of its implementations, and what Redis can do to one of them."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
import redis.asyncio as redis
from tenure_server import errors, telemetry
from tenure_server.domain import Blob, TenantId
from tenure_server.limits import MIB
from tenure_server.node_results import CacheShare, NodeKey, NodeResult
from tenure_server.storage.cache_keys import ResultKey, scope_of_share, token_key
from tenure_server.storage.node_cache import MAX_TTL, MemoryNodeCache, RedisNodeCache
from tenure_server.storage.ports import NodeCache
from tenure_server.storage.redis_cache import Command, RedisCache

from tests.harness.databases import PrivateRedisFactory

ROOM = 3 * MIB
KEY = NodeKey(("writes", "node"), "hash")
ONE, TWO = Blob("msgpack", b"one"), Blob("msgpack", b"two")


@asynccontextmanager
async def on_redis(url: str, timeout: float = 10.0) -> AsyncIterator[NodeCache]:
    connected = RedisCache(url, ttl=60.0, timeout=timeout)
    yield RedisNodeCache(connected)
    await connected.close()


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[NodeCache]:
    """A node cache."""
    if request.param == "memory":
        yield MemoryNodeCache()
        return
    async with on_redis(request.getfixturevalue("redis_url")) as opened:
        yield opened


@pytest.fixture
def share() -> CacheShare:
    """The share of a new tenant."""
    return CacheShare(TenantId(uuid4()))


async def put(cache: NodeCache, share: CacheShare, value: Blob = ONE, key: NodeKey = KEY) -> None:
    await cache.set(share, [NodeResult(key, value)])


async def read(cache: NodeCache, share: CacheShare, key: NodeKey = KEY) -> Blob | None:
    found = await cache.get(share, [key], ROOM)
    assert not found.omitted
    return found.values.get(key)


async def test_a_result_is_there_until_it_is_replaced(cache: NodeCache, share: CacheShare) -> None:
    assert await read(cache, share) is None
    await put(cache, share, ONE)
    assert await read(cache, share) == ONE
    await put(cache, share, TWO)
    assert await read(cache, share) == TWO


async def test_results_come_back_as_they_were(cache: NodeCache, share: CacheShare) -> None:
    values = [Blob("null", b""), Blob("bytes", b"\0\xff"), Blob("x" * 64, b"1"), Blob("bytes", b"2" * MIB)]
    keys = [NodeKey(("n",), str(number)) for number in range(len(values))]
    await cache.set(share, [NodeResult(key, value) for key, value in zip(keys, values, strict=True)])
    found = await cache.get(share, [*keys, KEY, keys[0]], ROOM)
    assert (found.values, found.omitted) == (dict(zip(keys, values, strict=True)), frozenset())


@pytest.mark.parametrize(
    "other",
    [
        NodeKey(("writes", "node"), "hash2"),
        NodeKey(("writes",), "hash"),
        NodeKey(("writes", "node", ""), "hash"),
        NodeKey(("writesnode",), "hash"),
        NodeKey((), "hash"),
        NodeKey(("writes", "node", "hash"), ""),
        NodeKey(("writes", "nodeh"), "ash"),
    ],
)
async def test_names_that_differ_anywhere_are_others(
    cache: NodeCache, share: CacheShare, other: NodeKey
) -> None:
    await put(cache, share)
    assert await read(cache, share, other) is None
    await put(cache, share, TWO, other)
    assert (await read(cache, share), await read(cache, share, other)) == (ONE, TWO)


@pytest.mark.parametrize(
    "change",
    [
        lambda share: replace(share, tenant=TenantId(uuid4())),
        lambda share: replace(share, rules=("namespaces:a:r",)),
        lambda share: replace(share, rules=("namespaces:a", ":r")),
    ],
    ids=["another tenant", "a limited key", "a key with other rules"],
)
async def test_a_share_is_seen_changed_and_cleared_by_nobody_else(
    cache: NodeCache, share: CacheShare, change: Callable[[CacheShare], CacheShare]
) -> None:
    stranger = change(share)
    await put(cache, share)
    assert await read(cache, stranger) is None
    await put(cache, stranger, TWO)
    await cache.clear(stranger, None)
    await cache.clear(stranger, [KEY.namespace])
    assert await read(cache, share) == ONE
    assert await read(cache, stranger) is None


async def test_of_several_with_one_key_the_last_counts(cache: NodeCache, share: CacheShare) -> None:
    await cache.set(share, [NodeResult(KEY, ONE), NodeResult(KEY, TWO)])
    assert await read(cache, share) == TWO
    await cache.set(share, [NodeResult(KEY, ONE), NodeResult(KEY, None)])
    assert await read(cache, share) is None


async def test_a_result_that_is_too_large_takes_the_old_one_away(cache: NodeCache, share: CacheShare) -> None:
    await put(cache, share)
    await put(cache, share, Blob("bytes", bytes(MIB + 1)))
    assert await read(cache, share) is None


async def test_a_result_expires(cache: NodeCache, share: CacheShare) -> None:
    kept = NodeKey(KEY.namespace, "kept")
    await cache.set(share, [NodeResult(KEY, ONE, ttl=1.0), NodeResult(kept, TWO, ttl=10 * MAX_TTL)])
    assert await read(cache, share) == ONE
    while await read(cache, share) is not None:
        await asyncio.sleep(0.01)
    assert await read(cache, share, kept) == TWO


async def test_clear_takes_exactly_the_named_namespaces(cache: NodeCache, share: CacheShare) -> None:
    keys = [NodeKey(namespace, "k") for namespace in [("a",), ("a", "b"), ("b",), ()]]
    for key in keys:
        await put(cache, share, ONE, key)
    await cache.clear(share, [])
    assert set((await cache.get(share, keys, ROOM)).values) == set(keys)
    await cache.clear(share, [("a",), ("never",), ()])
    assert set((await cache.get(share, keys, ROOM)).values) == {keys[1], keys[2]}
    await cache.clear(share, None)
    assert not (await cache.get(share, keys, ROOM)).values
    await put(cache, share, TWO, keys[0])
    assert (await cache.get(share, keys, ROOM)).values == {keys[0]: TWO}


async def test_what_does_not_fit_is_told_and_can_be_asked_for_again(
    cache: NodeCache, share: CacheShare
) -> None:
    keys = [NodeKey(("n",), str(number)) for number in range(5)]
    for key in keys:
        await put(cache, share, Blob("bytes", key.key.encode() * 600_000), key)
    asked, rounds = list(keys), 0
    while asked:
        found = await cache.get(share, asked, MIB)
        assert 1 <= len(found.values) < 3
        assert found.values.keys() | found.omitted == set(asked)
        asked, rounds = [key for key in asked if key in found.omitted], rounds + 1
    assert rounds > 1
    assert await read(cache, share, keys[0]) is not None
    assert (await cache.get(share, keys, 1)).values.keys() == {keys[0]}


async def test_memory_keeps_what_was_used_last(share: CacheShare) -> None:
    cache = MemoryNodeCache(max_bytes=30)
    keys = [NodeKey(("n",), str(number)) for number in range(4)]
    for key in keys[:3]:
        await put(cache, share, Blob("bytes", b"0123456789"), key)
    await read(cache, share, keys[0])
    await put(cache, share, ONE, keys[3])
    assert (await cache.get(share, keys, ROOM)).values.keys() == {keys[0], keys[2], keys[3]}


class Redis:
    """The cache on Redis, and what is in it."""

    def __init__(self, cache: NodeCache, client: redis.Redis, share: CacheShare) -> None:
        self.cache = cache
        self.client = client
        self.share = share
        self.scope = scope_of_share(share)

    @property
    def entry(self) -> bytes:
        """The Redis key of `KEY`."""
        return ResultKey.of(self.scope, KEY).redis_key()

    def token(self, *, of_share: bool) -> bytes:
        """The Redis key of a token that `KEY` depends on."""
        return token_key(self.scope, None if of_share else KEY.namespace)

    async def keys(self) -> list[bytes]:
        """Return the keys of the share's tenant."""
        return [key async for key in self.client.scan_iter(b"t?1:{%s*" % self.share.tenant.hex.encode())]


@pytest.fixture
async def stored(redis_url: str, share: CacheShare) -> AsyncIterator[Redis]:
    """The cache on Redis with `ONE` in it."""
    async with on_redis(redis_url) as cache, redis.Redis.from_url(redis_url) as client:
        await put(cache, share)
        yield Redis(cache, client, share)


async def test_all_keys_of_a_share_expire_and_are_in_one_slot(stored: Redis) -> None:
    keys = await stored.keys()
    assert set(keys) == {stored.entry, stored.token(of_share=True), stored.token(of_share=False)}
    assert {key.split(b":")[1] for key in keys} == {b"{" + stored.scope + b"}"}
    for key in keys:
        assert 0 < await stored.client.pttl(key) <= MAX_TTL * 1000


@pytest.mark.parametrize("of_share", [True, False])
async def test_a_token_that_redis_lost_brings_nothing_back(stored: Redis, of_share: bool) -> None:
    await stored.client.delete(stored.token(of_share=of_share))
    assert await read(stored.cache, stored.share) is None
    await put(stored.cache, stored.share, TWO, NodeKey(KEY.namespace, "makes a new token"))
    assert await stored.client.exists(stored.token(of_share=of_share)) == 1
    assert await stored.client.exists(stored.entry) == 1
    assert await read(stored.cache, stored.share) is None


async def test_an_entry_of_an_earlier_generation_stays_away_for_good(stored: Redis) -> None:
    old = await stored.client.get(stored.entry)
    assert old is not None
    for namespaces in (None, [KEY.namespace]):
        await stored.cache.clear(stored.share, namespaces)
        await put(stored.cache, stored.share, TWO)
        await stored.client.set(stored.entry, old)
        assert await read(stored.cache, stored.share) is None


async def test_a_set_that_a_clear_overtook_does_not_count(stored: Redis, redis_url: str) -> None:
    """The tokens are read, then somebody clears, then the entry is written."""
    cleared = asyncio.Event()

    class Overtaken(RedisCache):
        async def ask(self, commands: Sequence[Command]) -> Sequence[Any] | None:
            replies = await super().ask(commands)
            if not cleared.is_set():
                cleared.set()
                await stored.cache.clear(stored.share, [KEY.namespace])
            return replies

    slow = Overtaken(redis_url, ttl=60.0, timeout=10.0)
    await put(RedisNodeCache(slow), stored.share, TWO)
    await slow.close()
    assert cleared.is_set()
    await put(stored.cache, stored.share, ONE, NodeKey(KEY.namespace, "makes a new token"))
    assert await read(stored.cache, stored.share) is None


LIES: dict[str, Callable[[bytes], bytes]] = {
    "random bytes": lambda old: os.urandom(len(old)),
    "nothing": lambda old: b"",
    "one bit of the value flipped": lambda old: old[:-1] + bytes([old[-1] ^ 1]),
    "one bit of the generation flipped": lambda old: old[:3] + bytes([old[3] ^ 1]) + old[4:],
    "another type": lambda old: old.replace(b"msgpack", b"bytes++"),
    "cut short": lambda old: old[:-1],
    "header only": lambda old: old[:35],
    "less than a header": lambda old: old[:20],
    "another kind": lambda old: b"tn1" + old[3:],
    "more than anybody stores": lambda old: bytes(2 * MIB),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_what_was_not_stored_there_is_a_miss(stored: Redis, lie: Callable[[bytes], bytes]) -> None:
    old = await stored.client.get(stored.entry)
    assert isinstance(old, bytes)
    await stored.client.set(stored.entry, lie(old))
    assert await read(stored.cache, stored.share) is None
    await put(stored.cache, stored.share, TWO)
    assert await read(stored.cache, stored.share) == TWO


async def test_a_genuine_entry_of_another_key_or_tenant_is_a_miss(stored: Redis) -> None:
    """Also if the tokens are copied with it."""
    other = CacheShare(TenantId(uuid4()))
    await put(stored.cache, other, TWO)
    for namespace in (None, KEY.namespace):
        token = await stored.client.get(token_key(stored.scope, namespace))
        assert isinstance(token, bytes)
        await stored.client.set(token_key(scope_of_share(other), namespace), token)
    entry = await stored.client.get(stored.entry)
    assert isinstance(entry, bytes)
    await stored.client.set(ResultKey.of(scope_of_share(other), KEY).redis_key(), entry)
    assert await read(stored.cache, other) is None

    neighbour = NodeKey(KEY.namespace, "neighbour")
    await stored.client.set(ResultKey.of(stored.scope, neighbour).redis_key(), entry)
    assert await read(stored.cache, stored.share, neighbour) is None
    assert await read(stored.cache, stored.share) == ONE


async def test_what_became_of_results_is_counted(stored: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: Counter[str] = Counter()

    class Counts:
        def add(self, number: int, attributes: dict[str, str]) -> None:
            counted[attributes["result"]] += number

    for name in ("node_cache_reads", "node_cache_writes"):
        monkeypatch.setattr(telemetry, name, Counts())
    keys = [KEY, *(NodeKey(KEY.namespace, name) for name in ("absent", "damaged"))]
    await put(stored.cache, stored.share, TWO, keys[2])
    await stored.client.append(ResultKey.of(stored.scope, keys[2]).redis_key(), "x")
    await stored.cache.get(stored.share, keys, ROOM)
    await put(stored.cache, stored.share, Blob("bytes", bytes(MIB + 1)))
    assert +counted == Counter(stored=1, hit=1, miss=1, invalid=1, forgotten=1)


async def test_without_redis_nothing_is_found_or_kept_and_clear_says_so(
    private_redis: PrivateRedisFactory, share: CacheShare
) -> None:
    private = private_redis()
    async with on_redis(private.url, timeout=0.05) as cache:
        while await read(cache, share) is None:
            await put(cache, share)
        private.pause()
        assert await read(cache, share) is None
        await put(cache, share, TWO)
        with pytest.raises(errors.Unavailable, match="clear"):
            await cache.clear(share, None)
        private.kill()
        for _ in range(10):
            assert await read(cache, share) is None
            await put(cache, share)
        with pytest.raises(errors.Unavailable):
            await cache.clear(share, [KEY.namespace])
        private.start()
        while await read(cache, share) is None:
            await put(cache, share, TWO)
        assert await read(cache, share) == TWO
