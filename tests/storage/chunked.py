"""Values in chunks, in the words that storage tests use: cut by hand, so that a test says what is shared."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import zstandard
from tenure_server import chunks
from tenure_server.domain import Base, ChannelValue, Head, HeldValue, Mutation, PutCheckpoint, ValueEdit

from tests.storage.tenant import Tenant, put


@dataclass(frozen=True)
class Chunked:
    """A large value: a header and the raw bytes of its chunks."""

    parts: Sequence[bytes]
    header: bytes = b""
    type: str = "bytes"
    compressed: bool = False

    @property
    def data(self) -> bytes:
        """The whole value."""
        return self.header + b"".join(self.parts)

    @property
    def chunks(self) -> dict[bytes, bytes]:
        """Packed chunks by id."""
        return {chunks.chunk_id(packed): packed for packed in map(self._packed, self.parts)}

    @property
    def entries(self) -> bytes:
        """The recipe."""
        return b"".join(
            struct.pack("!16sI", chunks.chunk_id(self._packed(part)), len(part)) for part in self.parts
        )

    @property
    def digest(self) -> bytes:
        """The digest by recipe."""
        return chunks.recipe_digest(self.type, self.header, self.entries)

    def _packed(self, part: bytes) -> bytes:
        return b"\1" + zstandard.ZstdCompressor().compress(part) if self.compressed else b"\0" + part

    def whole(self) -> ValueEdit:
        """Return the value told against nothing."""
        return self.edit(None, "")

    def edit(self, base: Chunked | None, version: str) -> ValueEdit:
        """Return the value told against another one that is stored as `version`."""
        first, last, entries = chunks.difference(base.entries if base else b"", self.entries)
        new = set(chunks.ids(entries))
        return ValueEdit(
            self.type,
            self.header,
            self.digest,
            Base(version, base.digest) if base else None,
            first,
            last,
            entries,
            {chunk_id: packed for chunk_id, packed in self.chunks.items() if chunk_id in new},
        )

    def held(self, channel: str, version: str) -> HeldValue:
        """Return what a reader says that has the value."""
        return HeldValue(channel, version, self.digest)


def cut(text: bytes, header: bytes = b"") -> Chunked:
    """Return a value with a chunk for each word."""
    return Chunked([word + b" " for word in text.split()], header)


def put_edits(
    thread: str,
    id: str,
    parent: str | None = None,
    *,
    edits: Mapping[str, ValueEdit],
    versions: Mapping[str, str] | None = None,
    new: Mapping[str, bytes | None] | None = None,
    ns: str = "",
    metadata: Mapping[str, object] | None = None,
) -> Mutation:
    """Return a put that brings values as edits by channel; for the rest see `put`."""
    held = dict.fromkeys(edits, "1") | dict(versions or {})
    mutation = put(thread, id, parent, ns=ns, versions=held, new=new, metadata=metadata)
    assert isinstance(mutation, PutCheckpoint)
    told = [ChannelValue(channel, held[channel], edit) for channel, edit in edits.items()]
    return replace(mutation, new_values=[*mutation.new_values, *told])


async def values_of(tenant: Tenant, head: Head) -> dict[str, bytes]:
    """Return a head's values by channel, put together from what the store gives."""
    (bodies,) = await tenant.store.bodies(tenant.id, [head])
    assert bodies is not None
    wanted = [chunk_id for ref in head.values if ref.recipe for chunk_id in chunks.ids(ref.recipe.entries)]
    (packed,) = await tenant.store.chunks(tenant.id, [(head, wanted)])
    assert packed is not None
    values = {}
    for ref, body in zip(head.values, bodies, strict=True):
        if ref.recipe is None:
            assert body is not None
            values[ref.channel] = body.data
        else:
            assert body is None
            values[ref.channel] = chunks.assemble(ref.recipe.header, ref.recipe.entries, packed)
    return values


async def read(tenant: Tenant, thread: str, id: str | None = None, ns: str = "") -> dict[str, bytes]:
    """Return the values of a checkpoint that must be there, by channel."""
    head = await tenant.head(thread, id, ns)
    assert head is not None, f"there is no checkpoint {id} in {thread}"
    return await values_of(tenant, head)


async def chunks_in(tenant: Tenant, thread: str, value: Chunked) -> bytes:
    """Return which words of a value are stored in a thread, named by a recipe or not."""
    head = await tenant.head(thread)
    assert head is not None
    asked = [(head, [chunks.chunk_id(b"\0" + part)]) for part in value.parts]
    answers = await tenant.store.chunks(tenant.id, asked)
    found = [part for part, answer in zip(value.parts, answers, strict=True) if answer is not None]
    return b"".join(found).strip()
