"""The cache in front of a store: what comes from Redis, and that nothing Redis does changes an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from tenure_server import errors
from tenure_server.domain import TenantId
from tenure_server.storage.cached import MAX_VALUE_BYTES

from tests.harness.databases import PrivateRedisFactory
from tests.storage.caching import Cached, open_cached
from tests.storage.tenant import Tenant, put

VALUE = b"a value that is larger than what is inline"


@pytest.fixture
async def cached(redis_url: str) -> AsyncIterator[Cached]:
    """A store behind the run's Redis."""
    async with open_cached(redis_url) as opened:
        yield opened


async def test_what_was_put_is_read_from_redis(cached: Cached) -> None:
    await cached.tenant.write(put("t", "1", new={"a": VALUE, "b": VALUE * 100}))
    await cached.filled()
    for _ in range(3):
        assert (await cached.read("t")).values == {"a": ("1", VALUE), "b": ("1", VALUE * 100)}
    assert cached.store.values == 0


async def test_what_redis_lost_is_read_once_and_filled(cached: Cached) -> None:
    await cached.tenant.write(put("t", "1", new={"a": VALUE, "b": VALUE + b"2"}))
    await cached.filled()
    first, _ = await cached.keys()
    await cached.client.delete(first)
    for _ in range(3):
        await cached.read("t")
    assert cached.store.values == 1
    assert len(await cached.keys()) == 2


@pytest.mark.parametrize(
    "forged",
    [
        b"",
        b"x",
        b"tn1",
        b"tn1\x05bytes",
        b"tn1\x05bytesanother value",
        b"tn1\xffshort",
        b"tn1\x02\xff\xfedata",
    ],
)
async def test_an_entry_with_other_bytes_is_not_used_and_replaced(cached: Cached, forged: bytes) -> None:
    await cached.tenant.write(put("t", "1", new={"a": VALUE}))
    await cached.filled()
    (key,) = await cached.keys()
    await cached.client.set(key, forged)
    assert (await cached.read("t")).values == {"a": ("1", VALUE)}
    assert cached.store.values == 1
    await cached.read("t")
    assert cached.store.values == 1


async def test_an_entry_of_another_kind_changes_nothing(cached: Cached) -> None:
    await cached.tenant.write(put("t", "1", new={"a": VALUE}))
    await cached.filled()
    (key,) = await cached.keys()
    await cached.client.delete(key)
    await cached.client.lpush(key, "a list")
    assert (await cached.read("t")).values == {"a": ("1", VALUE)}


async def test_the_first_value_of_a_version_wins_whatever_redis_holds(cached: Cached) -> None:
    await cached.tenant.write(put("t", "1", new={"a": VALUE}))
    await cached.tenant.write(put("t", "2", "1", new={"a": b"another value of the same version"}))
    await cached.filled()
    assert (await cached.read("t", "2")).values == {"a": ("1", VALUE)}


async def test_another_life_of_a_thread_has_its_own_values(cached: Cached) -> None:
    await cached.tenant.write(put("t", "1", new={"a": VALUE}))
    await cached.filled()
    await cached.tenant.delete("t")
    assert await cached.tenant.get("t", "1") is None
    await cached.tenant.write(put("t", "1", new={"a": b"the value of another life"}))
    assert (await cached.read("t")).values == {"a": ("1", b"the value of another life")}


async def test_small_and_huge_values_are_not_cached(cached: Cached) -> None:
    huge = b"h" * (MAX_VALUE_BYTES + 1)
    await cached.tenant.write(put("t", "1", new={"small": b"abc", "huge": huge}))
    assert (await cached.read("t")).values == {"small": ("1", b"abc"), "huge": ("1", huge)}
    assert await cached.keys() == []


async def test_keys_show_no_ids_and_no_tenant_shares_one(cached: Cached) -> None:
    other = Tenant(cached.front, TenantId(uuid4()))
    for tenant, thread in [
        (cached.tenant, "a thread id"),
        (cached.tenant, "another"),
        (other, "a thread id"),
    ]:
        await tenant.write(put(thread, "1", new={"a": VALUE}))
    await cached.filled()
    keys = await cached.keys()
    assert len(set(keys)) == 2
    assert not [key for key in keys if b"thread" in key or b"another" in key or other.id.hex.encode() in key]


async def test_entries_do_not_live_for_ever(cached: Cached) -> None:
    await cached.tenant.write(put("t", "1", new={"a": VALUE}))
    await cached.filled()
    (key,) = await cached.keys()
    assert 0 < await cached.client.ttl(key) <= 66


async def test_readers_of_the_same_values_share_one_load(cached: Cached) -> None:
    cached.store.open.clear()
    await cached.tenant.write(put("t", "1", new={"a": VALUE}))
    await cached.filled()
    await cached.client.delete(*await cached.keys())
    first, *others = [asyncio.create_task(cached.tenant.one("t")) for _ in range(5)]
    await cached.store.asked.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    cached.store.open.set()
    assert [found.values for found in await asyncio.gather(*others)] == [{"a": ("1", VALUE)}] * 4
    assert 1 <= cached.store.values <= 2


async def test_a_failed_load_fails_its_readers_and_no_later_one(cached: Cached) -> None:
    await cached.tenant.write(put("t", "1", new={"a": VALUE}))
    await cached.filled()
    await cached.client.delete(*await cached.keys())
    cached.store.away = True
    outcomes = await asyncio.gather(*(cached.tenant.one("t") for _ in range(3)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {errors.Unavailable}
    cached.store.away = False
    assert (await cached.read("t")).values == {"a": ("1", VALUE)}


@pytest.mark.parametrize("fault", ["killed", "paused", "flushed", "empty after a restart"])
async def test_no_fault_of_redis_changes_an_answer(private_redis: PrivateRedisFactory, fault: str) -> None:
    server = private_redis()
    async with open_cached(server.url) as cached:
        await cached.tenant.write(put("t", "1", new={"a": VALUE}))
        await cached.filled()
        match fault:
            case "killed":
                server.kill()
            case "paused":
                server.pause()
            case "flushed":
                server.flush()
            case _:
                server.kill()
                server.start()
        for number in range(8):
            step = f"{number + 2}"
            assert (await cached.read("t", "1")).values == {"a": ("1", VALUE)}
            await cached.tenant.write(
                put("t", step, "1", versions={"a": step}, new={"a": VALUE + step.encode()})
            )
            assert (await cached.read("t")).values == {"a": (step, VALUE + step.encode())}
        await cached.tenant.delete("t")
        assert await cached.tenant.get("t", "1") is None
        if fault == "paused":
            server.resume()


async def test_a_cache_that_comes_back_is_used_again(private_redis: PrivateRedisFactory) -> None:
    server = private_redis()
    async with open_cached(server.url) as cached:
        await cached.tenant.write(put("t", "1", new={"a": VALUE}))
        server.kill()
        for _ in range(8):
            await cached.read("t")
        server.start()
        while True:
            before = cached.store.values
            await cached.read("t")
            if cached.store.values == before:
                break
            await asyncio.sleep(0.01)
