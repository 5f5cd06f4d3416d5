"""Batches of the store: groups are checked one by one, and answered as they are done.

Reads of single items are asked for together. Whatever may take longer goes its own way: a search, or the
writes, must not hold up a read that shares the batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial

from google.rpc import status_pb2
from tenure.v1 import store_pb2 as pb

from tenure_server import errors
from tenure_server.domain import Scope, TenantId
from tenure_server.items import DeleteItem, GetItem, ItemAnswer, ReadGroup, WriteGroup
from tenure_server.limits import MIB, Limits
from tenure_server.services.caller import principal, rules
from tenure_server.services.parts import Parts, Send
from tenure_server.services.reading import remaining, within
from tenure_server.storage.ports import ItemStore
from tenure_server.wire import status
from tenure_server.wire.fields import count
from tenure_server.wire.item_requests import ItemRequests
from tenure_server.wire.items import fill_result

_CHECKED_INLINE = MIB
"""Bytes of a batch up to which it is checked on the loop, if it has few operations."""
_FEW = 1000
_OVERHEAD = 16
"""Bytes that a result takes in its reply beside its own, at most."""

Results = dict[int, pb.StoreGroupResult]
"""Of groups, by position."""
Work = Callable[[], Awaitable[Results]]
Told = Callable[[int, pb.StoreGroupResult], None]
"""Is told the position of a group and its result, as soon as that is known."""


class StoreBatches:
    """Serves batches of groups for `StoreService` and for sessions."""

    def __init__(self, store: ItemStore, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self._requests = ItemRequests(limits)

    async def unary(self, request: pb.BatchRequest) -> pb.BatchResponse:
        """Answer with what fits into one reply; the rest is `omitted`."""
        self._check_size(request)
        response = pb.BatchResponse()
        room = self._limits.max_unary_reply_bytes
        for result in await self.results(request):
            size = result.ByteSize() + _OVERHEAD
            if size <= room:
                response.results.append(result)
                room -= size
            else:
                response.results.add(status=status.OK, omitted=True)
        return response

    async def in_session(self, request: pb.BatchRequest, send: Send) -> None:
        """Send the answer to a batch of a session; only what alone does not fit is `omitted`."""
        self._check_size(request)
        parts: Parts[pb.StoreGroupResult] = Parts(send, "store", self._limits.max_unary_reply_bytes)

        def told(position: int, result: pb.StoreGroupResult) -> None:
            parts.add(position, self._fitting(result))

        try:
            results = await self.results(request, told)
            await parts.finish([self._fitting(result) for result in results])
        finally:
            await parts.close()

    async def results(self, request: pb.BatchRequest, told: Told | None = None) -> list[pb.StoreGroupResult]:
        """Return the result of each group.

        Args:
            request: The batch, of any size.
            told: Is told results before all of them are known, unless they are known all at once.
        """
        count("groups", request.groups, self._limits.max_batch, empty=False)
        few = sum(len(group.ops) for group in request.groups) <= _FEW
        if few and request.ByteSize() <= _CHECKED_INLINE:
            accepted, refused = self._accept(request)
        else:
            # Parsing megabytes would hold up everybody else on the loop.
            accepted, refused = await asyncio.to_thread(self._accept, request)
        results = {at: pb.StoreGroupResult(status=refusal) for at, refusal in refused.items()}
        works = list(self._works(principal.get().tenant, accepted))
        if len(works) + len(refused) < 2:
            told = None
        if told is not None:
            for at, result in results.items():
                told(at, result)

        async def run(work: Work) -> None:
            for at, result in (await work()).items():
                results[at] = result
                if told is not None:
                    told(at, result)

        if len(works) == 1:
            await run(works[0])
        else:
            async with asyncio.TaskGroup() as running:
                for work in works:
                    running.create_task(run(work))
        return [results[at] for at in range(len(request.groups))]

    def _check_size(self, request: pb.BatchRequest) -> None:
        size, maximum = request.ByteSize(), self._limits.max_unary_request_bytes
        if size > maximum:
            raise errors.LimitExceeded("request", "max_unary_request_bytes", size, maximum)

    def _fitting(self, result: pb.StoreGroupResult) -> pb.StoreGroupResult:
        if result.ByteSize() + _OVERHEAD <= self._limits.max_unary_reply_bytes:
            return result
        return pb.StoreGroupResult(status=status.OK, omitted=True)

    def _accept(
        self, request: pb.BatchRequest
    ) -> tuple[dict[int, ReadGroup | WriteGroup], dict[int, status_pb2.Status]]:
        """Return the groups that are in order, and why the others are not, by position."""
        accepted: dict[int, ReadGroup | WriteGroup] = {}
        refused: dict[int, status_pb2.Status] = {}
        readable = rules().readable_namespaces()
        scopes = principal.get().scopes
        for at, message in enumerate(request.groups):
            try:
                group = self._requests.group(message, f"groups[{at}]", readable)
                needed = Scope.WRITE if isinstance(group, WriteGroup) else Scope.READ
                if needed not in scopes:
                    raise errors.ScopeMissing(needed.value)
                _check_rules(group, f"groups[{at}]")
                remaining([group.operation])
                accepted[at] = group
            except errors.TenureError as error:
                refused[at] = status.of(error)
        return accepted, refused

    def _works(self, tenant: TenantId, accepted: Mapping[int, ReadGroup | WriteGroup]) -> Iterator[Work]:
        """Yield what can be done side by side."""
        writes: dict[int, WriteGroup] = {}
        quick: dict[int, ReadGroup] = {}
        for at, group in accepted.items():
            if isinstance(group, WriteGroup):
                writes[at] = group
            elif all(isinstance(read, GetItem) for read in group.reads):
                quick[at] = group
            else:
                yield partial(_settled, [at], partial(self._read, tenant, {at: group}))
        if quick:
            yield partial(_settled, list(quick), partial(self._read, tenant, quick))
        if writes:
            yield partial(_settled, list(writes), partial(self._write, tenant, writes))

    async def _read(self, tenant: TenantId, groups: Mapping[int, ReadGroup]) -> Results:
        patience = remaining([group.operation for group in groups.values()])
        answers = await within(patience, self._store.read(tenant, list(groups.values())))
        return {
            at: _result(group, answer) for (at, group), answer in zip(groups.items(), answers, strict=True)
        }

    async def _write(self, tenant: TenantId, groups: Mapping[int, WriteGroup]) -> Results:
        outcomes = await self._store.write(tenant, list(groups.values()))
        results = {}
        for (at, group), outcome in zip(groups.items(), outcomes, strict=True):
            if outcome is None:
                results[at] = pb.StoreGroupResult(
                    status=status.OK, results=[pb.StoreResult() for _ in group.writes]
                )
            else:
                results[at] = pb.StoreGroupResult(status=status.of(outcome))
        return results


async def _settled(positions: Sequence[int], work: Work) -> Results:
    """Return results of a part of the batch; what it fails with as a whole fails all its groups."""
    try:
        return await work()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Something below was cancelled, not this call.
        refusal = status.of(errors.Unavailable("the operation was interrupted; retry"))
    except Exception as error:
        refusal = status.of(error)
    return {at: pb.StoreGroupResult(status=refusal) for at in positions}


def _result(group: ReadGroup, answers: Sequence[ItemAnswer] | errors.TenureError) -> pb.StoreGroupResult:
    if isinstance(answers, errors.TenureError):
        return pb.StoreGroupResult(status=status.of(answers))
    result = pb.StoreGroupResult(status=status.OK)
    for read, answer in zip(group.reads, answers, strict=True):
        fill_result(result.results.add(), read, answer)
    return result


def _check_rules(group: ReadGroup | WriteGroup, field: str) -> None:
    """Check the namespaces that a group names; what its searches find is limited by `ReadGroup.within`."""
    if principal.get().rules is None:
        return
    allowed = rules()
    if isinstance(group, ReadGroup):
        for at, read in enumerate(group.reads):
            if isinstance(read, GetItem):
                allowed.check_namespace(read.namespace, write=False, field=f"{field}.ops[{at}].get.namespace")
        return
    for at, write in enumerate(group.writes):
        kind = "delete" if isinstance(write, DeleteItem) else "put"
        allowed.check_namespace(write.namespace, write=True, field=f"{field}.ops[{at}].{kind}.namespace")
