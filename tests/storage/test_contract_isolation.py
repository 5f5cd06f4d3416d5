"""The storage contract: a foreign thread looks exactly like an absent one, in every method."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

import pytest
from tenure_server import errors
from tenure_server.domain import CheckpointRef, PruneStrategy
from tenure_server.storage.cached import CachedCheckpoints
from tenure_server.storage.ports import CheckpointStore

from tests.storage.chunked import cut, put_edits, read
from tests.storage.tenant import Tenant, Write, put, put_writes

CHUNKED = cut(b"large secret")
TOLD = cut(b"large secret of another step")
Use = Callable[[Tenant], Awaitable[object]]


async def _heads_and_bodies(tenant: Tenant) -> object:
    heads = await tenant.store.heads(tenant.id, [CheckpointRef("t", ""), CheckpointRef("t", "", "1")])
    return [heads, await tenant.get("t", "1", "child:1")]


async def _chunks(tenant: Tenant) -> object:
    heads = await tenant.store.heads(tenant.id, [CheckpointRef("t", "", "2")], [[CHUNKED.held("large", "1")]])
    found = [head for head in heads if head is not None]
    told = [CheckpointRef("t", "told", "2"), CheckpointRef("t", "told", "1")]
    held = [[CHUNKED.held("large", "1")], [TOLD.held("large", "2")]]
    bases = [head.bases for head in await tenant.store.heads(tenant.id, told, held) if head is not None]
    return [await read(tenant, head.thread_id, head.checkpoint_id) for head in found], heads, bases


async def _copy(tenant: Tenant) -> object:
    with pytest.raises(errors.ThreadNotFound) as caught:
        await tenant.copy("t", "copy")
    return str(caught.value)


async def _write(tenant: Tenant) -> object:
    await tenant.write(
        put("t", "1", new={"a": b"the stranger's"}), put_writes("t", "2", Write(data=b"stranger's"))
    )
    await tenant.write(put("t", "3", "2", metadata={"run_id": "run"}))
    # As its own values are others, so is what can be told against them.
    edit = cut(b"large secret of a stranger").edit(CHUNKED, "1")
    (outcome,) = await tenant.apply(put_edits("t", "4", edits={"large": edit}, versions={"large": "4"}))
    assert isinstance(outcome, errors.ChunksMissing)
    return await tenant.stored()


async def _prune(tenant: Tenant) -> None:
    await tenant.prune("t", "u")
    await tenant.prune("t", "u", strategy=PruneStrategy.DELETE_ALL)


USES: dict[str, Use] = {
    "write": _write,
    "heads": _heads_and_bodies,
    "list_heads": lambda tenant: tenant.stored(),
    "list_heads of a thread": lambda tenant: tenant.stored(thread_id="t", checkpoint_ns=""),
    "list_heads by filter": lambda tenant: tenant.listing(filter={"run_id": "run"}),
    "list_heads after": lambda tenant: tenant.listing(after=("2", "t", "")),
    "chunks": _chunks,
    "channel_history": lambda tenant: tenant.history("t", "a"),
    "list_threads": lambda tenant: tenant.threads(),
    "delete_thread": lambda tenant: tenant.delete("t"),
    "delete_for_runs": lambda tenant: tenant.delete_for_runs("run"),
    "copy_thread": _copy,
    "prune_threads": _prune,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_a_stranger_sees_and_changes_nothing(tenant: Tenant, stranger: Tenant, use: Use) -> None:
    absent = await use(stranger)
    await stranger.delete("t")
    await fill(tenant)
    before = await tenant.stored(), await tenant.threads(), await tenant.history("t", "a")
    assert await use(stranger) == absent
    assert (await tenant.stored(), await tenant.threads(), await tenant.history("t", "a")) == before


def test_every_method_is_tried() -> None:
    assert {name.partition(" ")[0] for name in USES} | {"bodies"} == _methods(CheckpointStore)


def test_the_cache_wraps_every_method() -> None:
    assert _methods(CachedCheckpoints) == _methods(CheckpointStore) | {"close"}


async def test_heads_of_one_tenant_are_of_no_use_to_another(tenant: Tenant, stranger: Tenant) -> None:
    await tenant.write(put("t", "1", new={"a": b"the secret of a tenant"}))
    await stranger.write(put("t", "1", new={"a": b"another value"}))
    stolen = await tenant.head("t")
    assert stolen is not None
    (body,) = await stranger.store.bodies(stranger.id, [stolen])
    assert body is None


async def test_chunks_of_one_tenant_are_of_no_use_to_another(tenant: Tenant, stranger: Tenant) -> None:
    for owner in (tenant, stranger):
        await owner.write(put_edits("t", "1", edits={"a": CHUNKED.whole()}))
    stolen = await tenant.head("t")
    assert stolen is not None
    await tenant.write(put_edits("t", "2", edits={"b": cut(b"only here").whole()}))
    ids = list(cut(b"only here").chunks)
    assert list(await stranger.store.chunks(stranger.id, [(stolen, ids)])) == [None]


async def test_the_same_names_hold_different_things(tenant: Tenant, stranger: Tenant) -> None:
    for owner, word in [(tenant, b"one"), (stranger, b"other")]:
        await owner.write(
            put("t", "1", new={"a": word}, body=word, metadata={"owner": word.decode()}),
            put_writes("t", "1", Write(data=word)),
        )
    for owner, word in [(tenant, b"one"), (stranger, b"other")]:
        found = await owner.one("t")
        assert found.values == {"a": ("1", word)}
        assert (found.body, [write.data for write in found.writes]) == (word, [word])
        assert await owner.ids("t", filter={"owner": word.decode()}) == ["1"]


async def test_tenants_at_the_same_time_do_not_mix(tenant: Tenant, stranger: Tenant) -> None:
    async def use(owner: Tenant, thread: str, word: bytes) -> None:
        for number in range(20):
            step, value = f"{number:02}", b"%s %d" % (word, number)
            await owner.write(put(thread, step, new={"a": value}, versions={"a": step}))
            assert (await owner.one(thread)).values == {"a": (step, value)}
        assert {found.values["a"][1].split()[0] for found in await owner.stored()} == {word}

    await asyncio.gather(
        *(
            use(owner, thread, word)
            for owner, word in [(tenant, b"one"), (stranger, b"other")]
            for thread in "tuv"
        )
    )


async def fill(tenant: Tenant) -> None:
    """Give a tenant a thread of everything that a stranger might see."""
    await tenant.write(
        put("t", "1", new={"a": b"secret value"}, metadata={"run_id": "run"}),
        put_edits(
            "t", "2", "1", edits={"large": CHUNKED.whole()}, versions={"a": "2"}, metadata={"run_id": "run"}
        ),
        put("t", "1", ns="child:1", new={"a": b"secret of a child"}, metadata={"parents": {"": "1"}}),
        put_edits("t", "1", ns="told", edits={"large": CHUNKED.whole()}),
        put_edits(
            "t", "2", "1", ns="told", edits={"large": TOLD.edit(CHUNKED, "1")}, versions={"large": "2"}
        ),
        put("u", "1", new={"a": b"secret value"}),
        put_writes("t", "1", Write("a", b"secret write")),
        put_writes("t", "9", Write("a", b"early write")),
    )


def _methods(type: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(type, inspect.isfunction) if not name.startswith("_")}
