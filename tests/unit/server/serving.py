"""The gate and the service on a real gRPC server, on storage that can be made to fail."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import checkpoints_pb2_grpc, common_pb2, store_pb2, store_pb2_grpc
from tenure_server import errors
from tenure_server.admission import Admission
from tenure_server.auth import Authenticator
from tenure_server.domain import CheckpointRef, Head, HeldValue, ListQuery, Mutation, Scope, TenantId
from tenure_server.gate import Gate
from tenure_server.items import ItemAnswer, ReadGroup, SearchItems, WriteGroup
from tenure_server.limits import Limits
from tenure_server.services.checkpoints import CheckpointService
from tenure_server.services.sessions import Sessions
from tenure_server.services.store import StoreService
from tenure_server.services.store_batches import StoreBatches
from tenure_server.storage.memory import MemoryCheckpoints, MemoryTenants
from tenure_server.storage.memory_items import MemoryItems
from tenure_server.storage.memory_leases import MemoryLeases
from tenure_server.storage.ports import Answered

TRACE = "0af7651916cd43dd8448eb211c80319c"
OPERATION = common_pb2.Operation(operation_id=b"i" * 16, traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
REF = pb.CheckpointRef(thread_id="of a customer", checkpoint_id="1")
READ = pb.ReadRequest(reads=[pb.CheckpointRead(operation=OPERATION, ref=REF)])
WRITE = pb.WriteRequest(mutations=[pb.Mutation(operation=OPERATION, put_writes=pb.PutWrites(ref=REF))])
LIST = pb.ListRequest(operation=OPERATION)
SLICES = [
    pb.WriteSlicedRequest(
        slice=common_pb2.Slice(data=WRITE.SerializeToString(), total_bytes=WRITE.ByteSize())
    )
]


class Store(MemoryCheckpoints):
    """In-memory storage that can be made to fail, and to wait.

    Attributes:
        failure: What every call fails with.
        asked: Set by the first call.
        open: Calls wait until it is set.
        held: Names of the methods that wait; by default all.
        running: Calls under way.
        busy: Threads whose mutations wait for `freed`; those of others are answered before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failure: BaseException | None = None
        self.asked = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.held: set[str] = {"write", "heads", "list_heads"}
        self.running = 0
        self.busy: set[str] = set()
        self.freed = asyncio.Event()

    async def _pass(self, method: str) -> None:
        self.asked.set()
        self.running += 1
        try:
            if method in self.held:
                await self.open.wait()
        finally:
            self.running -= 1
        if self.failure is not None:
            raise self.failure

    async def write(
        self,
        tenant: TenantId,
        mutations: Sequence[Mutation],
        *,
        wait: bool = True,
        answered: Answered | None = None,
    ) -> Sequence[errors.TenureError | None]:
        await self._pass("write")
        outcomes: dict[int, errors.TenureError | None] = {}
        for index, mutation in sorted(
            enumerate(mutations), key=lambda one: one[1].ref.thread_id in self.busy
        ):
            if mutation.ref.thread_id in self.busy:
                await self.freed.wait()
            (outcomes[index],) = await super().write(tenant, [mutation], wait=wait)
            if answered is not None:
                answered(index, outcomes[index])
        return [outcomes[index] for index in range(len(mutations))]

    async def heads(
        self,
        tenant: TenantId,
        refs: Sequence[CheckpointRef],
        held: Sequence[Sequence[HeldValue]] = (),
    ) -> Sequence[Head | None]:
        await self._pass("heads")
        return await super().heads(tenant, refs, held)

    async def list_heads(self, tenant: TenantId, query: ListQuery, limit: int) -> Sequence[Head]:
        await self._pass("list_heads")
        return await super().list_heads(tenant, query, limit)


class Items(MemoryItems):
    """In-memory items that can be made to fail, and to wait.

    Attributes:
        failure: What every call fails with.
        searches: Searches wait until it is set.
        writes: Writes wait until it is set.
        running: Searches under way.
        stored: How many groups of writes have been handed in.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failure: BaseException | None = None
        self.searches = asyncio.Event()
        self.searches.set()
        self.writes = asyncio.Event()
        self.writes.set()
        self.running = 0
        self.stored = 0

    async def read(
        self, tenant: TenantId, groups: Sequence[ReadGroup]
    ) -> Sequence[Sequence[ItemAnswer] | errors.TenureError]:
        if self.failure is not None:
            raise self.failure
        if any(isinstance(read, SearchItems) for group in groups for read in group.reads):
            self.running += 1
            try:
                await self.searches.wait()
            finally:
                self.running -= 1
        return await super().read(tenant, groups)

    async def write(
        self, tenant: TenantId, groups: Sequence[WriteGroup]
    ) -> Sequence[errors.TenureError | None]:
        self.stored += len(groups)
        if self.failure is not None:
            raise self.failure
        await self.writes.wait()
        return await super().write(tenant, groups)


@dataclass
class Served:
    """A server, a client's stubs, and ways to fail."""

    store: Store
    channel: grpc.aio.Channel
    stub: Any
    metadata: list[tuple[str, str]]
    tenant: TenantId
    tenants: MemoryTenants = field(repr=False)
    sessions: Sessions = field(repr=False)
    admission: Admission = field(repr=False)
    items: Items = field(repr=False)
    items_stub: Any = field(repr=False)

    async def key(self, *scopes: Scope, tenant: TenantId | None = None) -> list[tuple[str, str]]:
        """Make a key and return the metadata with it."""
        key = await self.tenants.create_key(tenant or self.tenant, frozenset(scopes))
        return [("authorization", f"Bearer {key}")]

    async def call(self, method: str, metadata: Sequence[tuple[str, str]] | None = None) -> Any:
        """Call an RPC with a key, or with this metadata, and return its first reply."""
        given = self.metadata if metadata is None else list(metadata)
        if method == "Read":
            return await self.stub.Read(READ, metadata=given)
        if method == "List":
            return [part async for part in self.stub.List(LIST, metadata=given)]
        return await self.stub.WriteSliced(iter(SLICES), metadata=given)


@asynccontextmanager
async def serving(limits: Limits | None = None, trust: float = 4.0) -> AsyncIterator[Served]:
    """Serve from a store of its own."""
    tenants, store, sessions, admission = MemoryTenants(), Store(), Sessions(), Admission()
    items = Items()
    server = grpc.aio.server(interceptors=[Gate(Authenticator(tenants, trust), admission)])
    limits = limits or Limits()
    batches = StoreBatches(items, limits)
    checkpoints_pb2_grpc.add_CheckpointServiceServicer_to_server(
        CheckpointService(store, MemoryLeases(store), batches, limits, sessions), server
    )
    store_pb2_grpc.add_StoreServiceServicer_to_server(StoreService(items, batches, limits), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    tenant = await tenants.create_tenant("acme")
    key = await tenants.create_key(tenant, frozenset({Scope.READ, Scope.WRITE}))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = checkpoints_pb2_grpc.CheckpointServiceStub(channel)
        given = [("authorization", f"Bearer {key}")]
        items_stub = store_pb2_grpc.StoreServiceStub(channel)
        yield Served(store, channel, stub, given, tenant, tenants, sessions, admission, items, items_stub)
    await server.stop(None)


def operation() -> common_pb2.Operation:
    trace = f"00-{TRACE}-b7ad6b7169203331-01"
    return common_pb2.Operation(operation_id=os.urandom(16), traceparent=trace)


def write(*threads: str, value: bytes = b"value") -> pb.WriteRequest:
    """Return a batch that puts a checkpoint in each of these threads."""
    return pb.WriteRequest(
        mutations=[
            pb.Mutation(
                operation=operation(),
                put=pb.PutCheckpoint(
                    ref=pb.CheckpointRef(thread_id=thread, checkpoint_id="1"),
                    checkpoint=common_pb2.Blob(type="bytes", data=value),
                    metadata_json="{}",
                    format_version=4,
                ),
            )
            for thread in threads
        ]
    )


def read(*threads: str) -> pb.ReadRequest:
    return pb.ReadRequest(
        reads=[
            pb.CheckpointRead(operation=operation(), ref=pb.CheckpointRef(thread_id=thread))
            for thread in threads
        ]
    )


Batch = pb.WriteRequest | pb.ReadRequest | store_pb2.BatchRequest


class Stream:
    """The client's end of a session."""

    def __init__(self, served: Served, metadata: Sequence[tuple[str, str]] | None = None) -> None:
        given = served.metadata if metadata is None else list(metadata)
        self.call: Any = served.stub.Session(metadata=given)
        self._ids = 0

    async def send(self, batch: Batch | None) -> int:
        """Send a batch and return its id."""
        self._ids += 1
        request = pb.SessionRequest(call_id=self._ids)
        if isinstance(batch, pb.WriteRequest):
            request.write.CopyFrom(batch)
        elif isinstance(batch, store_pb2.BatchRequest):
            request.store.CopyFrom(batch)
        elif batch is not None:
            request.read.CopyFrom(batch)
        await self.call.write(request)
        return self._ids

    async def give_up(self, call_id: int) -> None:
        """Say that nobody waits for a batch any more."""
        await self.call.write(pb.SessionRequest(call_id=call_id, cancel=True))

    async def receive(self) -> pb.SessionResponse | None:
        """Return the next answer, None at the end."""
        response: Any = await self.call.read()
        return None if response is grpc.aio.EOF else response

    async def ask(self, batch: Batch | None) -> pb.SessionResponse:
        """Send a batch and return its answer."""
        sent = await self.send(batch)
        response = await self.receive()
        assert response is not None
        assert response.call_id == sent
        return response
