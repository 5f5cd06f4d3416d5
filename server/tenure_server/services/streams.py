"""Parts of streamed replies: pages of at most a unary reply's size, or slices of a page that is larger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1.common_pb2 import Slice

from tenure_server.domain import (
    ChannelHistory,
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
from tenure_server.wire.telling import Reader, Telling

_HEADS_AT_ONCE = 64


async def listing_parts(
    store: CheckpointStore,
    tenant: TenantId,
    operation: Operation,
    query: ListQuery,
    limit: int | None,
    reader: Reader,
    limits: Limits,
) -> AsyncIterator[pb.CheckpointPage | Slice]:
    """Yield a listing part by part.

    Each checkpoint is told against the one just before in the stream: a value that it carried as well is left
    out, and a large one goes as an edit of its. Only the checkpoint just before counts, so that both sides
    remember one checkpoint, however long the listing is; along a linear thread this sends each (channel,
    version) once, and of large values what is new.

    The caller's time holds for each page, not for the whole: a reader may take pauses.
    """
    patience = remaining([operation])
    wanted = limit
    while wanted is None or wanted > 0:
        count = _HEADS_AT_ONCE if wanted is None else min(wanted, _HEADS_AT_ONCE)
        heads = await within(patience, store.list_heads(tenant, query, count))
        for group in _groups(heads, reader, limits.max_unary_reply_bytes):
            page, reader = await within(patience, _page(store, tenant, group, reader))
            serialized_size = page.ByteSize()
            if serialized_size <= limits.max_unary_reply_bytes:
                yield page
            else:
                for part in slices.cut(page.SerializeToString(), limits):
                    yield part
        if len(heads) < count:
            return
        last = heads[-1]
        query = replace(query, after=(last.checkpoint_id, last.thread_id, last.checkpoint_ns))
        wanted = None if wanted is None else wanted - len(heads)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A checkpoint of a page, and the reader that it is told to, who has the one before it."""

    telling: Telling
    reader: Reader

    @property
    def ref(self) -> CheckpointRef:
        head = self.telling.head
        return CheckpointRef(head.thread_id, head.checkpoint_ns, head.checkpoint_id)


def _groups(heads: Sequence[Head], reader: Reader, budget: int) -> Iterator[Sequence[_Entry]]:
    """Yield runs of checkpoints that fit into one page together; a larger one stands alone."""
    group: list[_Entry] = []
    room = budget
    for head in heads:
        telling = reader.tell(head)
        size = telling.size()
        if group and size > room:
            yield group
            group, room = [], budget
        group.append(_Entry(telling, reader))
        room -= size
        reader = replace(reader, before=head)
    if group:
        yield group


async def _page(
    store: CheckpointStore, tenant: TenantId, group: Sequence[_Entry], reader: Reader
) -> tuple[pb.CheckpointPage, Reader]:
    """Return a page for a reader, and the reader as it is after it."""
    page = pb.CheckpointPage()
    found = await complete(
        store,
        tenant,
        [entry.ref for entry in group],
        [entry.telling for entry in group],
        [entry.reader for entry in group],
    )
    for entry, checkpoint in zip(group, found, strict=True):
        if checkpoint is not None and entry.reader.before is not reader.before:
            # What it was told against was not sent as it was: told anew.
            (checkpoint,) = await complete(
                store, tenant, [entry.ref], [reader.tell(checkpoint.head)], [reader]
            )
        if checkpoint is None:
            # Deleted since the page of heads was read: the listing goes on without it.
            continue
        replies.fill_checkpoint(page.checkpoints.add(), checkpoint)
        reader = replace(reader, before=checkpoint.head)
    return page, reader


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
