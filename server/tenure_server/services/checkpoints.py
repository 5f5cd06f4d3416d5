"""CheckpointService: batches of puts and reads, listings, and what removes or copies threads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import checkpoints_pb2_grpc
from tenure.v1.common_pb2 import Slice

from tenure_server import errors
from tenure_server.domain import CheckpointRef, Head, Mutation, TenantId
from tenure_server.limits import Limits
from tenure_server.services.caller import principal
from tenure_server.services.reading import complete, remaining, within
from tenure_server.services.streams import channel_history_parts, listing_parts
from tenure_server.storage.ports import CheckpointStore
from tenure_server.wire import replies, slices, status
from tenure_server.wire.fields import count
from tenure_server.wire.requests import Requests, page_token

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class CheckpointService(checkpoints_pb2_grpc.CheckpointServiceServicer):
    """See checkpoints.proto."""

    def __init__(self, store: CheckpointStore, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self._requests = Requests(limits)

    async def Write(self, request: pb.WriteRequest, context: Context) -> pb.WriteResponse:
        size = request.ByteSize()
        if size > self._limits.max_unary_request_bytes:
            raise errors.LimitExceeded(
                "request", "max_unary_request_bytes", size, self._limits.max_unary_request_bytes
            )
        return pb.WriteResponse(results=await self._write(principal.get().tenant, request))

    async def WriteSliced(
        self, request_iterator: AsyncIterator[pb.WriteSlicedRequest], context: Context
    ) -> pb.WriteSlicedResponse:
        parts = (request.slice async for request in request_iterator)
        # A stalled sender would keep its slot, of which all tenants together have few.
        serialized = await within(self._limits.max_timeout, slices.join(parts, self._limits))
        try:
            request = pb.WriteRequest.FromString(serialized)
        except DecodeError:
            raise errors.InvalidField("slice", "the slices are not a serialized WriteRequest") from None
        del serialized
        return pb.WriteSlicedResponse(results=await self._write(principal.get().tenant, request))

    async def _write(self, tenant: TenantId, request: pb.WriteRequest) -> list[pb.MutationResult]:
        count("mutations", request.mutations, self._limits.max_batch, empty=False)
        outcomes: dict[int, errors.TenureError | None] = {}
        accepted: dict[int, Mutation] = {}
        for index, message in enumerate(request.mutations):
            try:
                mutation = self._requests.mutation(message, f"mutations[{index}]")
                remaining([mutation.operation])
                accepted[index] = mutation
            except errors.TenureError as error:
                outcomes[index] = error
        if accepted:
            written = await self._store.write(tenant, list(accepted.values()))
            outcomes.update(zip(accepted, written, strict=True))
        ordered = [outcomes[index] for index in range(len(request.mutations))]
        return [
            pb.MutationResult(status=status.OK if outcome is None else status.of(outcome))
            for outcome in ordered
        ]

    async def Read(self, request: pb.ReadRequest, context: Context) -> pb.ReadResponse:
        count("reads", request.reads, self._limits.max_batch, empty=False)
        tenant = principal.get().tenant
        results: list[pb.ReadResult | None] = [None] * len(request.reads)
        wanted = {}
        for index, message in enumerate(request.reads):
            try:
                operation, ref = self._requests.read(message, f"reads[{index}]")
                wanted[index] = (operation, ref)
            except errors.TenureError as error:
                results[index] = pb.ReadResult(status=status.of(error))
        if wanted:
            operations = [operation for operation, _ in wanted.values()]
            refs = [ref for _, ref in wanted.values()]
            read = await within(remaining(operations), self._read(tenant, refs))
            for index, result in zip(wanted, read, strict=True):
                results[index] = result
        return pb.ReadResponse(results=[result for result in results if result is not None])

    async def _read(self, tenant: TenantId, refs: Sequence[CheckpointRef]) -> list[pb.ReadResult]:
        heads = await self._store.heads(tenant, refs)
        fitting: list[Head | None] = []
        room = self._limits.max_unary_reply_bytes
        for head in heads:
            size = replies.size_of(head) if head is not None else 0
            fitting.append(head if size <= room else None)
            room -= size if size <= room else 0
        found = await complete(self._store, tenant, refs, fitting)
        return [
            pb.ReadResult(
                status=status.OK,
                checkpoint=replies.checkpoint(checkpoint) if checkpoint is not None else None,
                omitted=fits is None and head is not None,
            )
            for head, fits, checkpoint in zip(heads, fitting, found, strict=True)
        ]

    async def ReadSliced(
        self, request: pb.ReadSlicedRequest, context: Context
    ) -> AsyncIterator[pb.ReadSlicedResponse]:
        operation, ref = self._requests.read(request.read, "read")
        tenant = principal.get().tenant
        heads = await within(remaining([operation]), self._store.heads(tenant, [ref]))
        for head in heads:
            if head is not None and (size := replies.size_of(head)) > self._limits.max_checkpoint_bytes:
                raise errors.LimitExceeded(
                    "checkpoint", "max_checkpoint_bytes", size, self._limits.max_checkpoint_bytes
                )
        (found,) = await within(remaining([operation]), complete(self._store, tenant, [ref], heads))
        result = pb.ReadResult(
            status=status.OK, checkpoint=replies.checkpoint(found) if found is not None else None
        )
        for part in slices.cut(result.SerializeToString(), self._limits):
            yield pb.ReadSlicedResponse(slice=part)

    async def List(self, request: pb.ListRequest, context: Context) -> AsyncIterator[pb.ListResponse]:
        operation, query, limit = self._requests.list(request)
        parts = listing_parts(self._store, principal.get().tenant, operation, query, limit, self._limits)
        async for part in parts:
            yield (pb.ListResponse(slice=part) if isinstance(part, Slice) else pb.ListResponse(page=part))

    async def GetChannelHistory(
        self, request: pb.GetChannelHistoryRequest, context: Context
    ) -> AsyncIterator[pb.GetChannelHistoryResponse]:
        operation, ref, channels = self._requests.history(request)
        histories = await within(
            remaining([operation]), self._store.channel_history(principal.get().tenant, ref, channels)
        )
        for part in channel_history_parts(histories, self._limits):
            yield (
                pb.GetChannelHistoryResponse(slice=part)
                if isinstance(part, Slice)
                else pb.GetChannelHistoryResponse(page=part)
            )

    async def ListThreads(self, request: pb.ListThreadsRequest, context: Context) -> pb.ListThreadsResponse:
        operation, prefix, after, size = self._requests.threads(request)
        threads = await within(
            remaining([operation]), self._store.list_threads(principal.get().tenant, prefix, after, size + 1)
        )
        page = threads[:size]
        more = len(threads) > size
        return pb.ListThreadsResponse(
            threads=[replies.thread(thread) for thread in page],
            next_page_token=page_token(prefix, page[-1].thread_id) if more else "",
        )

    async def DeleteThread(
        self, request: pb.DeleteThreadRequest, context: Context
    ) -> pb.DeleteThreadResponse:
        operation, thread_id = self._requests.delete_thread(request)
        remaining([operation])
        await self._store.delete_thread(principal.get().tenant, operation, thread_id)
        return pb.DeleteThreadResponse()

    async def DeleteForRuns(
        self, request: pb.DeleteForRunsRequest, context: Context
    ) -> pb.DeleteForRunsResponse:
        operation, run_ids = self._requests.delete_for_runs(request)
        remaining([operation])
        if run_ids:
            await self._store.delete_for_runs(principal.get().tenant, operation, run_ids)
        return pb.DeleteForRunsResponse()

    async def CopyThread(self, request: pb.CopyThreadRequest, context: Context) -> pb.CopyThreadResponse:
        operation, source, target = self._requests.copy_thread(request)
        remaining([operation])
        await self._store.copy_thread(principal.get().tenant, operation, source, target)
        return pb.CopyThreadResponse()

    async def PruneThreads(
        self, request: pb.PruneThreadsRequest, context: Context
    ) -> pb.PruneThreadsResponse:
        operation, thread_ids, strategy = self._requests.prune(request)
        remaining([operation])
        if thread_ids:
            await self._store.prune_threads(principal.get().tenant, operation, thread_ids, strategy)
        return pb.PruneThreadsResponse()
