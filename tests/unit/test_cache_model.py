"""The cache protocol of docs/cache.md, tried in every order in which its steps can happen.

First with values that are stored whole. One checkpoint id is put (version 1) and put again (version 2).
Postgres names the current version by its digest; the cache holds bodies. A put commits, then is acknowledged
and publishes its body, in either order. A get asks Postgres for the head, then the cache, then on a miss
Postgres for the body, and fills. In between the cache may lose an entry, be flushed, or fail over to what a
replica held earlier.

A get that begins after an acknowledged write, or after a get that returned it, must return it or a newer one.

Then with values in chunks, of which two versions share one. A get looks for each chunk by itself, asks
Postgres for those that are missing, and must never put together what no version was, whatever came from
where. Here the cache may also hold an entry under the name of another.
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


Chunk = int
MISSING: Chunk = 0
SHARED: Chunk = 10


def recipe(version: int) -> tuple[Chunk, ...]:
    """Return the chunks of a version: the first is the same in all of them."""
    return (SHARED, 20 + version) if version else ()


class Getter(NamedTuple):
    """A get of a value in chunks: where it is, what it was told, and which chunks it has."""

    at: str = "new"
    floor: int = 0
    head: int = 0
    chunks: tuple[Chunk, ...] = ()


class Chunks(NamedTuple):
    """Everything there is; the cache maps names to chunks."""

    committed: int = 0
    acknowledged: int = 0
    cache: frozenset[tuple[int, Chunk]] = frozenset()
    faults: int = FAULTS
    writers: tuple[tuple[str, int], ...] = (("new", 0),) * WRITERS
    getters: tuple[Getter, ...] = (Getter(),) * READERS


class Naming(NamedTuple):
    """How chunks are found in the cache.

    Attributes:
        name: The name of a chunk at a position of the recipe.
        checks: Whether what is found is used only if it is what the recipe names.
    """

    name: Callable[[int, Chunk], int]
    checks: bool = True


BY_CHUNK = Naming(name=lambda position, chunk: chunk)
BY_POSITION = Naming(name=lambda position, chunk: position, checks=False)
UNCHECKED = Naming(name=lambda position, chunk: chunk, checks=False)


def chunk_steps(state: Chunks, naming: Naming) -> Iterator[Chunks]:
    """Yield the states that can come next."""
    if state.faults:
        weaker = state._replace(faults=state.faults - 1)
        yield weaker._replace(cache=frozenset())
        for name, chunk in state.cache:
            yield weaker._replace(cache=state.cache - {(name, chunk)})
            for _, other in state.cache - {(name, chunk)}:
                yield weaker._replace(cache=state.cache - {(name, chunk)} | {(name, other)})
    for index, (at, version) in enumerate(state.writers):
        for moved, after in put_steps(state, at, version, naming):
            yield moved._replace(writers=_with(state.writers, index, after))
    for index, getter in enumerate(state.getters):
        for moved, next_ in get_steps(state, getter, naming):
            yield moved._replace(getters=_with(state.getters, index, next_))


def put_steps(
    state: Chunks, at: str, version: int, naming: Naming
) -> Iterator[tuple[Chunks, tuple[str, int]]]:
    """Yield the next steps of a put: commit, then acknowledge and publish the new chunk."""
    if at == "new":
        # The version before is gone with its own chunk, and the thread has another generation.
        yield state._replace(committed=state.committed + 1), ("committed", state.committed + 1)
    if at in {"committed", "published"}:
        acknowledged = state._replace(acknowledged=max(state.acknowledged, version))
        yield acknowledged, ("acknowledged" if at == "committed" else "done", version)
    if at in {"committed", "acknowledged"}:
        stored = _cached(state, naming, list(enumerate(recipe(version))))
        yield stored, ("published" if at == "committed" else "done", version)


def get_steps(state: Chunks, getter: Getter, naming: Naming) -> Iterator[tuple[Chunks, Getter]]:
    """Yield the next step of a get: begin, head, one chunk after the other from the cache, the rest, fill."""
    wanted = recipe(getter.head)
    if getter.at == "new":
        yield state, Getter("begun", floor=state.acknowledged)
    elif getter.at == "begun":
        yield state, Getter("cache", getter.floor, state.committed)
    elif getter.at == "cache" and len(getter.chunks) < len(wanted):
        position = len(getter.chunks)
        found = dict(state.cache).get(naming.name(position, wanted[position]), MISSING)
        if naming.checks and found != wanted[position]:
            found = MISSING
        yield state, getter._replace(chunks=(*getter.chunks, found))
    elif getter.at == "cache" and MISSING not in getter.chunks:
        yield _put_together(state, getter, getter.chunks), Getter("done")
    elif getter.at == "cache" and state.committed != getter.head:
        # `chunks` answers None if the thread has another generation by now: the head is read again.
        yield state, Getter("begun", getter.floor)
    elif getter.at == "cache":
        whole = tuple(chunk or right for chunk, right in zip(getter.chunks, wanted, strict=True))
        yield _put_together(state, getter, whole), getter._replace(at="fill")
    elif getter.at == "fill":
        missing = [item for item in enumerate(wanted) if getter.chunks[item[0]] == MISSING]
        yield _cached(state, naming, missing), Getter("done")


def _cached(state: Chunks, naming: Naming, brought: list[tuple[int, Chunk]]) -> Chunks:
    named = {naming.name(position, chunk): chunk for position, chunk in brought}
    return state._replace(cache=frozenset((dict(state.cache) | named).items()))


def _put_together(state: Chunks, getter: Getter, chunks: tuple[Chunk, ...]) -> Chunks:
    versions = [version for version in range(WRITERS + 1) if recipe(version) == chunks]
    if not versions or versions[0] < getter.floor:
        raise Stale(f"returned {chunks} after {getter.floor}: {state}")
    return state._replace(acknowledged=max(state.acknowledged, versions[0]))


def explore_chunks(naming: Naming) -> int:
    """Visit every state that can be reached and return how many there are.

    Raises:
        Stale: One of them breaks the promise.
    """
    seen = {Chunks()}
    waiting = [Chunks()]
    while waiting:
        for state in chunk_steps(waiting.pop(), naming):
            if state not in seen:
                seen.add(state)
                waiting.append(state)
    return len(seen)


def test_no_order_of_steps_and_faults_puts_wrong_chunks_together() -> None:
    assert explore_chunks(BY_CHUNK) > 10_000


@pytest.mark.parametrize("broken", [BY_POSITION, UNCHECKED], ids=["chunks by position", "ids not checked"])
def test_the_checker_finds_chunks_that_do_not_belong_together(broken: Naming) -> None:
    with pytest.raises(Stale):
        explore_chunks(broken)
