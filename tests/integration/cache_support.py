"""Replicas on a Redis that is hurt, and what compares their answers with those of InMemorySaver."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import redis
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from tenure_client import TenureSaver

from tests.harness.databases import PrivateRedis
from tests.harness.stack import Stack, TenantHandle
from tests.integration.checkpoints_support import SLOW, config_of, id_of, put, wait_until

INLINE_BYTES = 4096
"""Default of TENURE_INLINE_BYTES: larger values are looked for in Redis."""
CHUNKED_BYTES = 8192
"""The client sends larger values in chunks, which are looked for one by one."""
STEPS_PER_FAULT = 400 if SLOW else 60


@dataclass(frozen=True)
class Cached:
    """Two replicas on one Redis that may be hurt.

    Attributes:
        redis: The Redis.
        targets: Where the replicas are.
        stack: Makes tenants.
    """

    redis: PrivateRedis
    targets: list[str]
    stack: Stack

    def client(self) -> redis.Redis:
        """Return a client of the Redis itself; a context manager."""
        return redis.Redis.from_url(self.redis.url)

    def keys(self, tenant: TenantHandle) -> list[bytes]:
        """Return the keys of a tenant."""
        with self.client() as client:
            scope = b"{" + tenant.tenant_id.replace("-", "").encode()
            return [key for key in client.scan_iter(count=1000) if key.split(b":")[1].startswith(scope)]

    def lookups(self) -> tuple[int, int]:
        """Return the hits and misses that Redis has counted since it started."""
        with self.client() as client:
            stats: Any = client.info("stats")
        return stats["keyspace_hits"], stats["keyspace_misses"]

    def saver(self, tenant: TenantHandle, replica: int = 0) -> TenureSaver:
        """Return a saver at a replica; a context manager."""
        return TenureSaver(self.targets[replica], api_key=tenant.api_key)


def large(seed: int) -> str:
    """Return a text that is above the size that comes with the head, and travels whole."""
    return f"{seed} " + random.Random(seed).randbytes(INLINE_BYTES * 3 // 4).hex()


def huge(seed: int) -> str:
    """Return a text that travels in chunks, the first of which it shares with those of other seeds."""
    return random.Random("shared").randbytes(CHUNKED_BYTES).hex() + large(seed)


class Twins:
    """Does the same to Tenure, through replicas at random, and to InMemorySaver; compares all answers."""

    def __init__(self, name: str, savers: list[TenureSaver]) -> None:
        self._savers = savers
        self._model = InMemorySaver()
        self._random = random.Random(name)
        self._name = name
        self._last = {f"{name}-{number}": 0 for number in range(3)}

    def step(self) -> None:
        thread_id = self._random.choice(list(self._last))
        last = self._last[thread_id]
        kinds: list[Callable[[str, int], None]] = [self._get, self._get, self._get_by_id, self._list]
        kinds += [self._put, self._put] if last < 12 else [self._delete]
        self._random.choice(kinds)(thread_id, last)

    def _put(self, thread_id: str, last: int) -> None:
        self._last[thread_id] = last + 1
        make = self._random.choice([large, large, huge, huge, str])
        value = make(self._random.randrange(1 << 30))
        for saver in self._both():
            put(saver, thread_id, last + 1, value)
            saver.put_writes(config_of(thread_id, id_of(last + 1)), [("state", value)], "task")

    def _get(self, thread_id: str, last: int) -> None:
        found, expected = (saver.get_tuple(config_of(thread_id)) for saver in self._both())
        assert_same(found, expected)

    def _get_by_id(self, thread_id: str, last: int) -> None:
        config = config_of(thread_id, id_of(self._random.randrange(last + 2)))
        found, expected = (saver.get_tuple(config) for saver in self._both())
        assert_same(found, expected)

    def _list(self, thread_id: str, last: int) -> None:
        found, expected = (list(saver.list(config_of(thread_id))) for saver in self._both())
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)

    def _delete(self, thread_id: str, last: int) -> None:
        self._last[thread_id] = 0
        for saver in self._both():
            saver.delete_thread(thread_id)

    def _both(self) -> tuple[BaseCheckpointSaver[Any], BaseCheckpointSaver[Any]]:
        return self._random.choice(self._savers), self._model


def assert_same(found: CheckpointTuple | None, expected: CheckpointTuple | None) -> None:
    """Compare two checkpoints in all they hold."""
    if found is None or expected is None:
        assert found is expected
        return
    for name in ("config", "metadata", "parent_config", "pending_writes"):
        assert getattr(found, name) == getattr(expected, name), name
    assert found.checkpoint == expected.checkpoint


@contextmanager
def comparing(cached: Cached, workers: int = 3) -> Iterator[Callable[[], None]]:
    """Compare in the background; yields what waits for many more comparisons, or raises what went wrong."""
    tenant = cached.stack.new_tenant()
    steps, stop, failures = [0] * workers, threading.Event(), []
    with ExitStack() as stack:
        savers = [stack.enter_context(cached.saver(tenant, replica)) for replica in (0, 1)]

        def work(number: int) -> None:
            twins = Twins(f"thread-{number}", savers)
            try:
                while not stop.is_set():
                    twins.step()
                    steps[number] += 1
            except BaseException as error:
                failures.append(error)

        def wait_for_more() -> None:
            before = sum(steps)
            wait_until(lambda: failures or sum(steps) - before >= STEPS_PER_FAULT, "answers to compare")
            if failures:
                raise failures[0]

        for number in range(workers):
            thread = threading.Thread(target=work, args=(number,))
            thread.start()
            stack.callback(thread.join)
        stack.callback(stop.set)
        yield wait_for_more
        wait_for_more()
