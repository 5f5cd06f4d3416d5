"""The cache protocol of docs/cache.md, tried in every order in which its steps can happen.

One checkpoint id is put (version 1) and put again (version 2). Postgres names the current version by its
digest; the cache holds bodies. A put commits, then is acknowledged and publishes its body, in either order.
A get asks Postgres for the head, then the cache, then on a miss Postgres for the body, and fills. In between
the cache may lose an entry, be flushed, or fail over to what a replica held earlier.

A get that begins after an acknowledged write, or after a get that returned it, must return it or a newer one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

WRITERS, READERS, FAULTS = 2, 2, 2


class Reader(NamedTuple):
    """A get: where it is, what it must not be older than, and the version whose digest it was told."""

    at: str = "new"
    floor: int = 0
    head: int = 0
    loaded: int = 0


class State(NamedTuple):
    """Everything there is. Versions are numbers; 0 = nothing."""

    committed: int = 0
    acknowledged: int = 0
    cache: frozenset[tuple[int, int]] = frozenset()
    replica: frozenset[tuple[int, int]] = frozenset()
    faults: int = FAULTS
    writers: tuple[tuple[str, int], ...] = (("new", 0),) * WRITERS
    readers: tuple[Reader, ...] = (Reader(),) * READERS


class Stale(AssertionError):
    """A get returned something older than it may."""


class Protocol(NamedTuple):
    """How bodies are found in the cache.

    Attributes:
        key: Cache key of a body of a version; the version stands for the digest of its bytes.
        asks_postgres: Whether a get asks Postgres for the head before it looks into the cache.
    """

    key: Callable[[int], int]
    asks_postgres: bool = True


BY_DIGEST = Protocol(key=lambda version: version)
BY_ID = Protocol(key=lambda version: 0)
WITHOUT_HEAD = Protocol(key=lambda version: 0, asks_postgres=False)


def steps(state: State, protocol: Protocol) -> Iterator[State]:
    """Yield the states that can come next."""
    if state.faults:
        weaker = state._replace(faults=state.faults - 1)
        yield weaker._replace(cache=frozenset())
        yield weaker._replace(cache=state.replica)
        for entry in state.cache:
            yield weaker._replace(cache=state.cache - {entry})
    if state.replica != state.cache:
        yield state._replace(replica=state.cache)
    for index, (at, version) in enumerate(state.writers):
        for moved, after in write(state, at, version, protocol):
            yield moved._replace(writers=_with(state.writers, index, after))
    for index, reader in enumerate(state.readers):
        for moved, next_ in read(state, reader, protocol):
            yield moved._replace(readers=_with(state.readers, index, next_))


def write(state: State, at: str, version: int, protocol: Protocol) -> Iterator[tuple[State, tuple[str, int]]]:
    """Yield the next steps of a put: commit, then acknowledge and publish, which may come late or never."""
    if at == "new":
        yield state._replace(committed=state.committed + 1), ("committed", state.committed + 1)
    if at in {"committed", "published"}:
        acknowledged = state._replace(acknowledged=max(state.acknowledged, version))
        yield acknowledged, ("acknowledged" if at == "committed" else "done", version)
    if at in {"committed", "acknowledged"}:
        yield _stored(state, protocol, version), ("published" if at == "committed" else "done", version)


def read(state: State, reader: Reader, protocol: Protocol) -> Iterator[tuple[State, Reader]]:
    """Yield the next step of a get: begin, head, cache, body, fill."""
    if reader.at == "new":
        yield state, Reader("begun", floor=state.acknowledged)
    elif reader.at == "begun":
        yield state, reader._replace(at="cache", head=state.committed)
    elif reader.at == "cache":
        body = dict(state.cache).get(protocol.key(reader.head))
        if body is None or (protocol.asks_postgres and reader.head == 0):
            yield state, reader._replace(at="miss")
        else:
            yield _returned(state, reader, body), Reader("done")
    elif reader.at == "miss":
        # `bodies` answers None if the thread has another generation by now: the head is read again.
        if protocol.asks_postgres and state.committed != reader.head:
            yield state, reader._replace(at="begun")
        else:
            yield (
                _returned(state, reader, state.committed),
                reader._replace(at="fill", loaded=state.committed),
            )
    elif reader.at == "fill":
        yield _stored(state, protocol, reader.loaded), Reader("done")


def _stored(state: State, protocol: Protocol, version: int) -> State:
    if version == 0:
        return state
    cache = dict(state.cache) | {protocol.key(version): version}
    return state._replace(cache=frozenset(cache.items()))


def _returned(state: State, reader: Reader, version: int) -> State:
    if version < reader.floor:
        raise Stale(f"returned {version} after {reader.floor}: {state}")
    return state._replace(acknowledged=max(state.acknowledged, version))


def _with(items: tuple, index: int, item: object) -> tuple:  # type: ignore[type-arg]
    # Which of two readers is where makes no difference: sorted, equal situations are one state.
    return tuple(sorted((*items[:index], item, *items[index + 1 :])))


def explore(protocol: Protocol) -> int:
    """Visit every state that can be reached and return how many there are.

    Raises:
        Stale: One of them breaks the promise.
    """
    seen = {State()}
    waiting = [State()]
    while waiting:
        for state in steps(waiting.pop(), protocol):
            if state not in seen:
                seen.add(state)
                waiting.append(state)
    return len(seen)


def test_no_order_of_steps_and_faults_makes_a_get_stale() -> None:
    assert explore(BY_DIGEST) > 10_000


@pytest.mark.parametrize(
    "broken", [BY_ID, WITHOUT_HEAD], ids=["bodies by checkpoint id", "latest from Redis"]
)
def test_the_checker_finds_what_is_broken_on_purpose(broken: Protocol) -> None:
    with pytest.raises(Stale):
        explore(broken)
