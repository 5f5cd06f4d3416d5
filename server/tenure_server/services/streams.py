"""Parts of streamed replies: pages of at most a unary reply's size, or slices of a page that is larger."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1.common_pb2 import Slice

from tenure_server.domain import (
    ChannelHistory,
    Checkpoint,
    CheckpointRef,
    Head,
    ListQuery,
    Operation,
    TenantId,
)
from tenure_server.limits import Limits
from tenure_server.services.reading import complete, remaining, within
from tenure_server.storage.ports import CheckpointStore
from tenure_server.wire import replies, slices

_HEADS_AT_ONCE = 64


async def listing_parts(
    store: CheckpointStore,
    tenant: TenantId,
    operation: Operation,
    query: ListQuery,
    limit: int | None,
    limits: Limits,
) -> AsyncIterator[pb.CheckpointPage | Slice]:
    """Yield a listing part by part.

    A value that the checkpoint just before in the stream carried as well is left out: the client has it.
    Only the checkpoint just before counts, so that both sides remember one checkpoint, however long the
    listing is; along a linear thread this sends each (channel, version) once.

    The caller's time holds for each page, not for the whole: a reader may take pauses.
    """
    patience = remaining([operation])
    previous: Head | None = None
    wanted = limit
    while wanted is None or wanted > 0:
        count = _HEADS_AT_ONCE if wanted is None else min(wanted, _HEADS_AT_ONCE)
        heads = await within(patience, store.list_heads(tenant, query, count))
        for group in _groups(heads, limits.max_unary_reply_bytes):
            page, previous = await within(patience, _page(store, tenant, group, previous))
            serialized_size = page.ByteSize()
            if serialized_size <= limits.max_unary_reply_bytes:
                yield page
            else:
                for part in slices.cut(page.SerializeToString(), limits):
                    yield part
        if len(heads) < count:
            return
        last = heads[-1]
        query = dataclasses.replace(query, after=(last.checkpoint_id, last.thread_id, last.checkpoint_ns))
        wanted = None if wanted is None else wanted - len(heads)


async def _page(
    store: CheckpointStore, tenant: TenantId, heads: Sequence[Head], previous: Head | None
) -> tuple[pb.CheckpointPage, Head | None]:
    page = pb.CheckpointPage()
    lean: list[Head] = []
    befores: list[Head | None] = []
    for head in heads:
        held = _held(previous, head)
        new = [i for i, value in enumerate(head.values) if (value.channel, value.version) not in held]
        lean.append(head.only(new))
        befores.append(previous)
        previous = head
    refs = [CheckpointRef(head.thread_id, head.checkpoint_ns, head.checkpoint_id) for head in heads]
    found = await complete(store, tenant, refs, lean)
    sent: Head | None = befores[0]
    for head, reduced, before, checkpoint in zip(heads, lean, befores, found, strict=True):
        if checkpoint is None:
            # Deleted since the page of heads was read: the listing goes on without it.
            continue
        if checkpoint.head is reduced and before is sent:
            page.checkpoints.append(
                replies.checkpoint(Checkpoint(head, checkpoint.values), _held(before, head))
            )
        else:
            # Read again in full, or what it builds on was not sent: send it in full.
            (whole,) = await complete(
                store,
                tenant,
                [CheckpointRef(head.thread_id, head.checkpoint_ns, head.checkpoint_id)],
                [head if checkpoint.head is reduced else checkpoint.head],
            )
            if whole is None:
                continue
            head = whole.head
            page.checkpoints.append(replies.checkpoint(whole))
        sent = head
    return page, sent


def _held(previous: Head | None, head: Head) -> frozenset[tuple[str, str]]:
    """Return the (channel, version) of a head that the one before carried with the same bytes."""
    if (
        previous is None
        or previous.thread_key != head.thread_key
        or previous.checkpoint_ns != head.checkpoint_ns
    ):
        return frozenset()
    before = {(value.channel, value.version): value.digest for value in previous.values}
    return frozenset(
        (value.channel, value.version)
        for value in head.values
        if before.get((value.channel, value.version)) == value.digest
    )


def _groups(heads: Sequence[Head], budget: int) -> Iterator[Sequence[Head]]:
    """Yield runs of heads whose checkpoints fit into one page together; a larger one stands alone."""
    group: list[Head] = []
    room = budget
    for head in heads:
        size = replies.size_of(head)
        if group and size > room:
            yield group
            group, room = [], budget
        group.append(head)
        room -= size
    if group:
        yield group


def channel_history_parts(
    histories: Mapping[str, ChannelHistory], limits: Limits
) -> Iterator[pb.ChannelHistoryPage | Slice]:
    """Yield the histories of channels part by part."""
    page = pb.ChannelHistoryPage()
    room = limits.max_unary_reply_bytes
    for item in _history_items(histories):
        size = item.ByteSize()
        if size > room and (page.writes or page.seeds):
            yield page
            page, room = pb.ChannelHistoryPage(), limits.max_unary_reply_bytes
        if isinstance(item, pb.ChannelWrite):
            page.writes.append(item)
        else:
            page.seeds.append(item)
        room -= size + 16
        if size > limits.max_unary_reply_bytes:
            yield from slices.cut(page.SerializeToString(), limits)
            page, room = pb.ChannelHistoryPage(), limits.max_unary_reply_bytes
    if page.writes or page.seeds:
        yield page


def _history_items(histories: Mapping[str, ChannelHistory]) -> Iterator[pb.ChannelWrite | pb.ChannelSeed]:
    for channel, history in histories.items():
        for task_id, value in history.writes:
            yield pb.ChannelWrite(channel=channel, task_id=task_id, value=replies.blob(value))
        if history.seed is not None:
            yield pb.ChannelSeed(channel=channel, value=replies.blob(history.seed))
