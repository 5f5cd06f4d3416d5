"""Reading in two steps: what changes in between is read again, and what is damaged fails alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from uuid import uuid4

import pytest
from tenure.v1 import checkpoints_pb2 as pb
from tenure_server import errors
from tenure_server.domain import (
    Blob,
    CheckpointRef,
    Head,
    HeldValue,
    ListQuery,
    Principal,
    Scope,
    TenantId,
)
from tenure_server.limits import Limits
from tenure_server.services.caller import principal
from tenure_server.services.checkpoints import CheckpointService
from tenure_server.services.store_batches import StoreBatches
from tenure_server.services.streams import listing_parts
from tenure_server.storage.memory import MemoryCheckpoints
from tenure_server.storage.memory_items import MemoryItems
from tenure_server.storage.memory_leases import MemoryLeases
from tenure_server.wire.telling import Reader

from tests.storage.chunked import Chunked, cut, put_edits
from tests.storage.tenant import Tenant, operation, put

ONE = cut(b"a large value in chunks of a word each", b"header")
TWO = cut(b"a large and longer value in chunks of a word each", b"header")
THREE = cut(b"something else", b"header")


class Store(MemoryCheckpoints):
    """A store in which something happens before values or chunks are given out.

    Attributes:
        between: What happens, each once.
        always: What happens each time.
        calls: What was asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.between: list[Callable[[], Awaitable[None]]] = []
        self.always: Callable[[], Awaitable[None]] | None = None
        self.calls: list[str] = []
        self.damaged: set[bytes] = set()

    async def heads(
        self,
        tenant: TenantId,
        refs: Sequence[CheckpointRef],
        held: Sequence[Sequence[HeldValue]] = (),
    ) -> Sequence[Head | None]:
        self.calls.append("heads")
        return await super().heads(tenant, refs, held)

    async def bodies(self, tenant: TenantId, heads: Sequence[Head]) -> Sequence[Sequence[Blob | None] | None]:
        self.calls.append("bodies")
        return await super().bodies(tenant, heads)

    async def chunks(
        self, tenant: TenantId, wanted: Sequence[tuple[Head, Sequence[bytes]]]
    ) -> Sequence[Mapping[bytes, bytes] | None]:
        self.calls.append("chunks")
        if self.between:
            await self.between.pop(0)()
        if self.always is not None:
            await self.always()
        found = await super().chunks(tenant, wanted)
        return [
            packed and {id_: b"\2" if id_ in self.damaged else data for id_, data in packed.items()}
            for packed in found
        ]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def tenant(store: Store) -> Tenant:
    return Tenant(store, TenantId(uuid4()))


@pytest.fixture
def service(store: Store) -> CheckpointService:
    return CheckpointService(store, MemoryLeases(store), StoreBatches(MemoryItems(), Limits()), Limits())


def read(thread: str = "t", *, edits: bool = True, holds: Chunked | None = None) -> pb.CheckpointRead:
    held = [] if holds is None else [pb.HeldValue(channel="a", version="1", digest=holds.digest)]
    return pb.CheckpointRead(ref=pb.CheckpointRef(thread_id=thread), accepts_edits=edits, held=held)


async def results(
    service: CheckpointService, tenant: Tenant, *reads: pb.CheckpointRead
) -> Sequence[pb.ReadResult]:
    principal.set(Principal(tenant.id, "key", frozenset({Scope.READ})))
    return [result async for part in service._read(tenant.id, pb.ReadRequest(reads=reads)) for result in part]


async def test_a_batch_asks_once_for_everything(
    store: Store, tenant: Tenant, service: CheckpointService
) -> None:
    for thread in "tuv":
        await tenant.write(put_edits(thread, "1", edits={"a": ONE.whole()}, new={"b": b"whole"}))
    found = await results(service, tenant, read("t"), read("u", edits=False), read("v", holds=TWO))
    assert [len(result.checkpoint.channel_values) for result in found] == [2, 2, 2]
    assert sorted(store.calls) == ["bodies", "chunks", "heads"]


async def test_nothing_is_fetched_for_a_reader_that_has_it(
    store: Store, tenant: Tenant, service: CheckpointService
) -> None:
    await tenant.write(put_edits("t", "1", edits={"a": ONE.whole()}))
    await results(service, tenant, read(holds=ONE))
    assert store.calls == ["heads"]


@pytest.mark.parametrize("edits", [True, False])
async def test_a_thread_that_begins_anew_in_between_is_read_again(
    store: Store, tenant: Tenant, service: CheckpointService, edits: bool
) -> None:
    await tenant.write(put_edits("t", "1", edits={"a": ONE.whole()}))

    async def begin_anew() -> None:
        await tenant.delete("t")
        await tenant.write(put_edits("t", "2", edits={"a": TWO.whole()}))

    store.between.append(begin_anew)
    (result,) = await results(service, tenant, read(edits=edits))
    (value,) = result.checkpoint.channel_values
    assert result.checkpoint.ref.checkpoint_id == "2"
    assert (value.edit.digest == TWO.digest) if edits else (value.value.data == TWO.data)


async def test_a_thread_that_goes_in_between_is_absent(
    store: Store, tenant: Tenant, service: CheckpointService
) -> None:
    for thread in "tu":
        await tenant.write(put_edits(thread, "1", edits={"a": ONE.whole()}))
    store.between.append(lambda: tenant.delete("t"))
    gone, there = await results(service, tenant, read("t"), read("u"))
    assert (gone.status.code, gone.HasField("checkpoint"), gone.omitted) == (0, False, False)
    assert there.HasField("checkpoint")


async def test_a_thread_that_never_stands_still_is_a_conflict(
    store: Store, tenant: Tenant, service: CheckpointService
) -> None:
    async def begin_anew() -> None:
        await tenant.delete("t")
        await tenant.write(put_edits("t", "1", edits={"a": ONE.whole()}))

    await begin_anew()
    store.always = begin_anew
    with pytest.raises(errors.Conflict):
        await results(service, tenant, read())


async def test_a_damaged_chunk_fails_its_read_alone(
    store: Store, tenant: Tenant, service: CheckpointService
) -> None:
    await tenant.write(put_edits("t", "1", edits={"a": TWO.whole()}))
    await tenant.write(put_edits("u", "1", edits={"a": THREE.whole()}))
    store.damaged = set(TWO.chunks)
    bad, good = await results(service, tenant, read("t", edits=False), read("u", edits=False))
    assert bad.status.message == "internal error; the server's log has the cause"
    assert good.checkpoint.channel_values[0].value.data == THREE.data


async def listed(store: Store, tenant: Tenant, *, edits: bool) -> list[pb.Checkpoint]:
    parts = listing_parts(
        store, tenant.id, operation(), ListQuery(thread_id="t"), None, Reader(accepts_edits=edits), Limits()
    )
    return [
        found async for part in parts if isinstance(part, pb.CheckpointPage) for found in part.checkpoints
    ]


async def test_a_page_of_a_listing_asks_once(store: Store, tenant: Tenant) -> None:
    await tenant.write(
        put_edits("t", "1", edits={"a": ONE.whole()}),
        put_edits("t", "2", "1", edits={"a": TWO.whole()}, versions={"a": "2"}),
        put("t", "3", "2", versions={"a": "2"}),
    )
    assert len(await listed(store, tenant, edits=True)) == 3
    assert store.calls == ["chunks"]


@pytest.mark.parametrize("edits", [True, False])
async def test_what_changes_during_a_listing_is_told_against_what_was_sent(
    store: Store, tenant: Tenant, edits: bool
) -> None:
    await tenant.write(
        put_edits("t", "1", edits={"a": ONE.whole()}, metadata={"run_id": "stays"}),
        put_edits(
            "t", "2", "1", edits={"a": THREE.whole()}, versions={"a": "2"}, metadata={"run_id": "goes"}
        ),
        put_edits("t", "3", "2", edits={"a": TWO.whole()}, versions={"a": "3"}, metadata={"run_id": "stays"}),
    )
    store.between.append(lambda: tenant.delete_for_runs("goes"))
    found = await listed(store, tenant, edits=edits)
    assert [checkpoint.ref.checkpoint_id for checkpoint in found] == ["3", "1"]
    newest, oldest = (checkpoint.channel_values[0] for checkpoint in found)
    if edits:
        assert newest.edit.base_version == ""
        assert (oldest.edit.base_version, oldest.edit.base_digest) == ("3", TWO.digest)
        assert oldest.edit.digest == ONE.digest
    else:
        assert (newest.value.data, oldest.value.data) == (TWO.data, ONE.data)
