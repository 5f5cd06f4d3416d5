"""CheckpointService: batches of puts and reads, listings, and what removes or copies threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import checkpoints_pb2_grpc
from tenure.v1.common_pb2 import Slice

from tenure_server import errors
from tenure_server.chunks import BadChunk
from tenure_server.domain import CheckpointRef, Mutation, Operation, TenantId
from tenure_server.limits import MIB, Limits
from tenure_server.rules import UNLIMITED
from tenure_server.services.caller import charge_operations, principal, rules
from tenure_server.services.leases import LeaseCalls, count_refusal
from tenure_server.services.parts import Parts, Send
from tenure_server.services.reading import complete, heads_for, remaining, threads_below, within
from tenure_server.services.sessions import Sessions
from tenure_server.services.store_batches import StoreBatches
from tenure_server.services.streams import channel_history_parts, listing_parts
from tenure_server.storage.ports import Answered, CheckpointStore, LeaseStore
from tenure_server.wire import replies, slices, status
from tenure_server.wire.edits import weight
from tenure_server.wire.fields import count
from tenure_server.wire.requests import Requests, page_token
from tenure_server.wire.telling import Reader, Telling

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

_CHECKED_INLINE = MIB
"""Raw bytes of new chunks up to which a call is checked on the loop; that takes a millisecond or two."""
_DONE = pb.MutationResult(status=status.OK)
"""The result of most mutations. Answers take copies of it."""


class CheckpointService(LeaseCalls, checkpoints_pb2_grpc.CheckpointServiceServicer):
    """See checkpoints.proto."""

    def __init__(
        self,
        store: CheckpointStore,
        leases: LeaseStore,
        items: StoreBatches,
        limits: Limits,
        sessions: Sessions | None = None,
    ) -> None:
        super().__init__(leases, limits)
        self._store = store
        self._items = items
        self._sessions = sessions or Sessions()
        self._limits = limits
        self._requests = Requests(limits)

    async def Write(self, request: pb.WriteRequest, context: Context) -> pb.WriteResponse:
        return pb.WriteResponse(results=await self._write_unary(request))

    async def _write_unary(
        self, request: pb.WriteRequest, parts: Parts[pb.MutationResult] | None = None
    ) -> list[pb.MutationResult]:
        size, maximum = request.ByteSize(), self._limits.max_unary_request_bytes
        if size > maximum:
            raise errors.LimitExceeded("request", "max_unary_request_bytes", size, maximum)
        return await self._write(principal.get().tenant, request, parts)

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
        charge_operations(len(request.mutations) - 1)
        return pb.WriteSlicedResponse(results=await self._write(principal.get().tenant, request))

    async def _write(
        self, tenant: TenantId, request: pb.WriteRequest, parts: Parts[pb.MutationResult] | None = None
    ) -> list[pb.MutationResult]:
        count("mutations", request.mutations, self._limits.max_batch, empty=False)
        weights = [weight(message.put) for message in request.mutations]
        if sum(weights) <= _CHECKED_INLINE:
            accepted, outcomes = self._accept(request, weights)
        else:
            # Inflating megabytes would hold up everybody else on the loop.
            accepted, outcomes = await asyncio.to_thread(self._accept, request, weights)
        if accepted:
            answered = None if parts is None else _answering(parts, accepted, outcomes)
            written = await self._store.write(tenant, list(accepted.values()), answered=answered)
            outcomes.update(zip(accepted, written, strict=True))
            for outcome in written:
                if outcome is not None:
                    count_refusal(tenant, outcome)
        return [_result(outcomes[index]) for index in range(len(request.mutations))]

    def _accept(
        self, request: pb.WriteRequest, weights: Sequence[int]
    ) -> tuple[dict[int, Mutation], dict[int, errors.TenureError | None]]:
        """Return the mutations that are in order, and why the others are not, by index."""
        accepted: dict[int, Mutation] = {}
        refused: dict[int, errors.TenureError | None] = {}
        room = maximum = self._limits.max_operation_bytes
        allowed = rules()
        for index, (message, inflated) in enumerate(zip(request.mutations, weights, strict=True)):
            field = f"mutations[{index}]"
            try:
                if inflated > maximum:
                    raise errors.LimitExceeded(
                        f"{field}.put.new_values.edit.entries", "max_operation_bytes", inflated, maximum
                    )
                if inflated > room:
                    # Each may be small packed: what is checked for one call is bounded all the same.
                    raise errors.Overloaded("bytes of new chunks")
                room -= inflated
                mutation = self._requests.mutation(message, field)
                if allowed is not UNLIMITED:
                    # Only a limited key needs to know what its error would name.
                    kind = message.WhichOneof("kind")
                    allowed.check_thread(
                        mutation.ref.thread_id, write=True, field=f"{field}.{kind}.ref.thread_id"
                    )
                remaining([mutation.operation])
                accepted[index] = mutation
            except errors.TenureError as error:
                refused[index] = error
        return accepted, refused

    async def Read(self, request: pb.ReadRequest, context: Context) -> pb.ReadResponse:
        """Answer with what fits into one reply; the rest is `omitted`."""
        results: list[pb.ReadResult] = []
        async for part in self._read(principal.get().tenant, request):
            results += part
            break
        left_out = len(request.reads) - len(results)
        results += [pb.ReadResult(status=status.OK, omitted=True) for _ in range(left_out)]
        return pb.ReadResponse(results=results)

    async def Session(self, request_iterator: AsyncIterator[pb.SessionRequest], context: Context) -> None:
        await self._sessions.run(context, self._batch)

    async def _batch(self, request: pb.SessionRequest, send: Send) -> None:
        if request.HasField("store"):
            await self._items.in_session(request.store, send)
            return
        if request.HasField("write"):
            parts: Parts[pb.MutationResult] = Parts(send, "write", self._limits.max_unary_reply_bytes)
            try:
                await parts.finish(await self._write_unary(request.write, parts))
            finally:
                await parts.close()
            return
        left = len(request.read.reads)
        async for part in self._read(principal.get().tenant, request.read):
            left -= len(part)
            # Filled in place: each message that is nested by a constructor would be copied once more.
            read = pb.SessionResponse(more=left > 0)
            read.read.results.extend(part)
            await send(read)

    async def _read(self, tenant: TenantId, request: pb.ReadRequest) -> AsyncIterator[list[pb.ReadResult]]:
        """Yield the results in their order, in parts that each fit into a reply."""
        count("reads", request.reads, self._limits.max_batch, empty=False)
        refused: dict[int, pb.ReadResult] = {}
        wanted: dict[int, tuple[Operation, CheckpointRef, Reader]] = {}
        for index, message in enumerate(request.reads):
            try:
                operation, ref, reader = self._requests.read(message, f"reads[{index}]")
                rules().check_thread(ref.thread_id, write=False, field=f"reads[{index}].ref.thread_id")
                wanted[index] = operation, ref, reader
            except errors.TenureError as error:
                refused[index] = pb.ReadResult(status=status.of(error))
        tellings: dict[int, Telling | None] = {}
        if wanted:
            operations, refs, readers = zip(*wanted.values(), strict=True)
            heads = await within(remaining(operations), heads_for(self._store, tenant, refs, readers))
            for index, head, reader in zip(wanted, heads, readers, strict=True):
                tellings[index] = None if head is None else reader.tell(head)
        for part in self._parts(len(request.reads), tellings):
            asked = {index: wanted[index] for index in part if index in wanted}
            found = await self._results(tenant, asked, tellings)
            yield [refused[index] if index in refused else found[index] for index in part]

    def _parts(self, reads: int, tellings: Mapping[int, Telling | None]) -> Iterator[range]:
        """Cut a batch into runs whose checkpoints fit into one reply together."""
        start, room = 0, self._limits.max_unary_reply_bytes
        for index in range(reads):
            telling = tellings.get(index)
            size = 0 if telling is None else telling.size()
            if size > self._limits.max_unary_reply_bytes:
                size = 0  # comes back omitted
            if size > room:
                yield range(start, index)
                start, room = index, self._limits.max_unary_reply_bytes
            room -= size
        yield range(start, reads)

    async def _results(
        self,
        tenant: TenantId,
        wanted: Mapping[int, tuple[Operation, CheckpointRef, Reader]],
        tellings: Mapping[int, Telling | None],
    ) -> dict[int, pb.ReadResult]:
        if not wanted:
            return {}
        operations, refs, readers = zip(*wanted.values(), strict=True)
        fitting: dict[int, Telling | None] = {}
        for index in wanted:
            telling = tellings[index]
            too_large = telling is not None and telling.size() > self._limits.max_unary_reply_bytes
            fitting[index] = None if too_large else telling
        try:
            found = await within(
                remaining(operations), complete(self._store, tenant, refs, list(fitting.values()), readers)
            )
        except BadChunk as error:
            if len(wanted) == 1:
                return dict.fromkeys(wanted, pb.ReadResult(status=status.of(error)))
            # The damaged one fails alone.
            alone = [await self._results(tenant, {index: wanted[index]}, tellings) for index in wanted]
            return {index: result for results in alone for index, result in results.items()}
        results = {}
        for index, checkpoint in zip(wanted, found, strict=True):
            omitted = fitting[index] is None and tellings[index] is not None
            results[index] = result = pb.ReadResult(status=status.OK, omitted=omitted)
            if checkpoint is not None:
                replies.fill_checkpoint(result.checkpoint, checkpoint)
        return results

    async def ReadSliced(
        self, request: pb.ReadSlicedRequest, context: Context
    ) -> AsyncIterator[pb.ReadSlicedResponse]:
        operation, ref, reader = self._requests.read(request.read, "read")
        rules().check_thread(ref.thread_id, write=False, field="read.ref.thread_id")
        tenant = principal.get().tenant
        (head,) = await within(remaining([operation]), heads_for(self._store, tenant, [ref], [reader]))
        telling = None if head is None else reader.tell(head)
        size = 0 if telling is None else telling.size()
        if size > self._limits.max_checkpoint_bytes:
            raise errors.LimitExceeded(
                "checkpoint", "max_checkpoint_bytes", size, self._limits.max_checkpoint_bytes
            )
        (found,) = await within(
            remaining([operation]), complete(self._store, tenant, [ref], [telling], [reader])
        )
        result = pb.ReadResult(status=status.OK)
        if found is not None:
            replies.fill_checkpoint(result.checkpoint, found)
        for part in slices.cut(result.SerializeToString(), self._limits):
            yield pb.ReadSlicedResponse(slice=part)

    async def List(self, request: pb.ListRequest, context: Context) -> AsyncIterator[pb.ListResponse]:
        operation, query, limit, reader = self._requests.list(request)
        if query.thread_id is None:
            rules().check_every_thread(write=False, field="thread_id")
        else:
            rules().check_thread(query.thread_id, write=False, field="thread_id")
        tenant = principal.get().tenant
        parts = listing_parts(self._store, tenant, operation, query, limit, reader, self._limits)
        async for part in parts:
            yield (pb.ListResponse(slice=part) if isinstance(part, Slice) else pb.ListResponse(page=part))

    async def GetChannelHistory(
        self, request: pb.GetChannelHistoryRequest, context: Context
    ) -> AsyncIterator[pb.GetChannelHistoryResponse]:
        operation, ref, channels = self._requests.history(request)
        rules().check_thread(ref.thread_id, write=False, field="ref.thread_id")
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
        prefixes = rules().readable_thread_prefixes(prefix)
        threads = await within(
            remaining([operation]),
            threads_below(
                self._store,
                principal.get().tenant,
                [prefix] if prefixes is None else prefixes,
                after,
                size + 1,
            ),
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
        rules().check_thread(thread_id, write=True, field="thread_id")
        remaining([operation])
        await self._store.delete_thread(principal.get().tenant, operation, thread_id)
        return pb.DeleteThreadResponse()

    async def DeleteForRuns(
        self, request: pb.DeleteForRunsRequest, context: Context
    ) -> pb.DeleteForRunsResponse:
        operation, run_ids = self._requests.delete_for_runs(request)
        rules().check_every_thread(write=True, field="run_ids")
        remaining([operation])
        if run_ids:
            await self._store.delete_for_runs(principal.get().tenant, operation, run_ids)
        return pb.DeleteForRunsResponse()

    async def CopyThread(self, request: pb.CopyThreadRequest, context: Context) -> pb.CopyThreadResponse:
        operation, source, target = self._requests.copy_thread(request)
        rules().check_thread(source, write=False, field="source_thread_id")
        rules().check_thread(target, write=True, field="target_thread_id")
        remaining([operation])
        await self._store.copy_thread(principal.get().tenant, operation, source, target)
        return pb.CopyThreadResponse()

    async def PruneThreads(
        self, request: pb.PruneThreadsRequest, context: Context
    ) -> pb.PruneThreadsResponse:
        operation, thread_ids, strategy = self._requests.prune(request)
        for thread_id in thread_ids:
            rules().check_thread(thread_id, write=True, field="thread_ids")
        remaining([operation])
        if thread_ids:
            await self._store.prune_threads(principal.get().tenant, operation, thread_ids, strategy)
        return pb.PruneThreadsResponse()


def _result(outcome: errors.TenureError | None) -> pb.MutationResult:
    return _DONE if outcome is None else pb.MutationResult(status=status.of(outcome))


def _answering(
    parts: Parts[pb.MutationResult],
    accepted: Mapping[int, Mutation],
    refused: Mapping[int, errors.TenureError | None],
) -> Answered | None:
    """Return what takes the outcomes of the accepted mutations; those of one thread come together anyway."""
    if len({mutation.ref.thread_id for mutation in accepted.values()}) + len(refused) < 2:
        return None
    for position, outcome in refused.items():
        parts.add(position, _result(outcome))
    positions = list(accepted)
    return lambda index, outcome: parts.add(positions[index], _result(outcome))
