"""Chunks of large values in the cache: each is found by its id, and used only if it is what its id says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from tenure_server import errors
from tenure_server.domain import Blob, CheckpointRef, TenantId
from tenure_server.storage.cache_keys import ChunkKey, ValueKey, scope_of
from tenure_server.storage.fills import MAX_WAITING_BYTES_PER_TENANT

from tests.harness.databases import PrivateRedisFactory
from tests.storage.caching import Cached, open_cached
from tests.storage.chunked import Chunked, cut, put_edits, read
from tests.storage.tenant import Tenant, put

VALUE = b"a value that is larger than what is inline"
ONE = cut(b"a large value in chunks of a word each", b"header")
TWO = cut(b"a large and longer value in chunks of a word each", b"header")


@pytest.fixture
async def cached(redis_url: str) -> AsyncIterator[Cached]:
    """A store behind the run's Redis."""
    async with open_cached(redis_url) as opened:
        yield opened


async def put_large(cached: Cached, thread: str = "t", value: Chunked = ONE) -> None:
    """Put a large value and wait until the cache has its chunks."""
    await cached.tenant.write(put_edits(thread, "1", edits={"a": value.whole()}))
    await cached.filled()


async def test_the_chunks_of_a_put_are_read_from_redis(cached: Cached) -> None:
    await put_large(cached)
    await cached.tenant.write(put_edits("t", "2", "1", edits={"a": TWO.edit(ONE, "1")}, versions={"a": "2"}))
    await cached.filled()
    for _ in range(3):
        assert await read(cached.tenant, "t", "1") == {"a": ONE.data}
        assert await read(cached.tenant, "t", "2") == {"a": TWO.data}
    assert cached.store.chunks_asked == 0
    assert len(await cached.keys()) == len(ONE.chunks | TWO.chunks)


async def test_the_chunks_of_a_put_that_failed_are_not_in_redis(cached: Cached) -> None:
    outcomes = await cached.tenant.apply(put_edits("t", "1", edits={"a": TWO.edit(ONE, "1")}))
    assert [type(outcome) for outcome in outcomes] == [errors.ChunksMissing]
    await cached.filled()
    assert await cached.keys() == []


async def test_chunks_that_redis_lost_are_read_once_and_filled(cached: Cached) -> None:
    await put_large(cached)
    lost, *_ = await cached.keys()
    await cached.client.delete(lost)
    for _ in range(3):
        assert await read(cached.tenant, "t") == {"a": ONE.data}
        await cached.filled()
    assert cached.store.chunks_asked == 1
    assert len(await cached.keys()) == len(ONE.chunks)


@pytest.mark.parametrize(
    "forged", [b"", b"tc1", b"tc1\0other", b"\0a ", b"tn1\0a ", b"tn1\x07msgpackvalue", b"xx1\0a "]
)
async def test_a_chunk_with_other_bytes_is_not_used_and_replaced(cached: Cached, forged: bytes) -> None:
    await put_large(cached)
    for key in await cached.keys():
        await cached.client.set(key, forged)
    assert await read(cached.tenant, "t") == {"a": ONE.data}
    assert cached.store.chunks_asked == len(ONE.chunks)
    await cached.filled()
    assert await read(cached.tenant, "t") == {"a": ONE.data}
    assert cached.store.chunks_asked == len(ONE.chunks)


async def test_a_genuine_chunk_under_the_name_of_another_is_not_used(cached: Cached) -> None:
    await put_large(cached)
    first, *others = await cached.keys()
    genuine = await cached.client.get(first)
    for key in others:
        await cached.client.set(key, genuine)
    assert await read(cached.tenant, "t") == {"a": ONE.data}


async def test_a_value_and_a_chunk_never_share_an_entry(cached: Cached) -> None:
    """Even if a chunk's id were a value's digest: their keys differ, and so do the entries' first bytes."""
    scope, content = scope_of(cached.tenant.id, "t"), bytes(range(16))
    assert ValueKey(scope, content).redis_key() != ChunkKey(scope, content).redis_key()
    blob = Blob("bytes", b"data")
    value = ValueKey(scope, blob.digest())
    assert value.unpack(value.pack(blob)) == blob
    assert value.unpack(b"tc1" + value.pack(blob)[3:]) is None


async def test_threads_and_tenants_do_not_share_chunks(cached: Cached) -> None:
    other = Tenant(cached.front, TenantId(uuid4()))
    await put_large(cached, "t")
    await put_large(cached, "u")
    await other.write(put_edits("t", "1", edits={"a": ONE.whole()}))
    await cached.filled()
    keys = [key async for key in cached.client.scan_iter(b"tc1:{%s*" % other.id.hex.encode())]
    assert len(await cached.keys()) == 2 * len(ONE.chunks)
    assert len(keys) == len(ONE.chunks)


async def test_a_large_state_is_asked_for_in_portions(cached: Cached) -> None:
    """One command for all of it would outlast its time-out."""
    many = Chunked([b"%05d" % number * 2000 for number in range(600)])
    await put_large(cached, value=many)
    asked = await cached.client.info("commandstats")
    assert await read(cached.tenant, "t") == {"a": many.data}
    assert cached.store.chunks_asked == 0
    now = await cached.client.info("commandstats")
    portions = now["cmdstat_mget"]["calls"] - asked.get("cmdstat_mget", {"calls": 0})["calls"]
    assert 6 <= portions < 600


async def test_readers_of_the_same_chunks_share_one_load(cached: Cached) -> None:
    await put_large(cached)
    await cached.client.delete(*await cached.keys())
    cached.store.open.clear()
    first, *others = [asyncio.create_task(read(cached.tenant, "t")) for _ in range(5)]
    await cached.store.asked.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    cached.store.open.set()
    assert await asyncio.gather(*others) == [{"a": ONE.data}] * 4
    assert cached.store.calls <= 2


async def test_a_batch_that_misses_asks_the_store_once(cached: Cached) -> None:
    refs = []
    for thread in "tuvw":
        await cached.tenant.write(put(thread, "1", new={"b": VALUE}))
        await cached.tenant.write(put_edits(thread, "2", "1", edits={"a": ONE.whole()}, versions={"b": "1"}))
        refs.append(CheckpointRef(thread, "", "2"))
    await cached.filled()
    await cached.client.delete(*await cached.keys())
    heads = [head for head in await cached.front.heads(cached.tenant.id, refs) if head is not None]
    bodies = await cached.front.bodies(cached.tenant.id, heads)
    assert all(values is not None and Blob("bytes", VALUE) in values for values in bodies)
    assert cached.store.calls == 1
    wanted = [(head, list(ONE.chunks)) for head in heads]
    assert await cached.front.chunks(cached.tenant.id, wanted) == [ONE.chunks] * 4
    assert cached.store.calls == 2


async def test_chunks_of_a_life_that_is_over_cannot_be_had(cached: Cached) -> None:
    await put_large(cached)
    head = await cached.tenant.head("t")
    assert head is not None
    await cached.client.delete(*await cached.keys())
    await cached.tenant.delete("t")
    assert await cached.front.chunks(cached.tenant.id, [(head, list(ONE.chunks))]) == [None]


@pytest.mark.parametrize("fault", ["killed", "paused", "flushed"])
async def test_no_fault_of_redis_changes_a_large_value(
    private_redis: PrivateRedisFactory, fault: str
) -> None:
    server = private_redis()
    async with open_cached(server.url) as cached:
        await put_large(cached)
        match fault:
            case "killed":
                server.kill()
            case "paused":
                server.pause()
            case _:
                server.flush()
        for _ in range(8):
            assert await read(cached.tenant, "t") == {"a": ONE.data}
            await cached.filled()
        if fault == "paused":
            server.resume()


async def test_what_waits_for_the_cache_is_bounded(cached: Cached) -> None:
    fills, (key, *_) = cached.front._fills, (ChunkKey(b"scope", chunk) for chunk in ONE.chunks)
    one, other, third = (TenantId(uuid4()) for _ in range(3))
    fills.add(one, {key: b"too large"}, MAX_WAITING_BYTES_PER_TENANT + 1)
    assert fills._task is None
    for tenant in (one, other):
        fills.add(tenant, {key: b"fits"}, MAX_WAITING_BYTES_PER_TENANT)
        fills.add(tenant, {key: b"one too many"}, 1)
    fills.add(third, {key: b"of somebody else, but too many for all"}, 1)
    await cached.filled()
    assert await cached.client.get(key.redis_key()) == b"tc1fits"
    fills.add(third, {key: b"there is room again"}, MAX_WAITING_BYTES_PER_TENANT)
    await cached.filled()
    assert await cached.client.get(key.redis_key()) == b"tc1there is room again"
