"""Values in chunks, in the words that storage tests use: cut by hand, so that a test says what is shared."""

from __future__ import annotations

import random
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
    return mutation._replace(new_values=[*mutation.new_values, *told])


class History:
    """A thread whose channel "a" changes at random, each value told against any earlier one that is there.

    Attributes:
        values: What must be stored, by version, which is also the checkpoint's id and its run's.
    """

    def __init__(self, tenant: Tenant, seed: int, thread: str = "t") -> None:
        self._tenant = tenant
        self._random = random.Random(seed)
        self._thread = thread
        self._count = 0
        self.values: dict[str, Chunked] = {}

    async def grow(self, steps: int) -> None:
        """Put as many checkpoints."""
        for _ in range(steps):
            version = f"{self._count:04}"
            self._count += 1
            near, anywhere = list(self.values)[-3:], list(self.values)
            base = self._random.choice(near if self._random.random() < 0.8 else anywhere) if near else None
            value = Chunked(self._words(40) if base is None else self._changed(self.values[base].parts))
            edit = value.whole() if base is None else self._told(value, self.values[base], base)
            await self._tenant.write(
                put_edits(
                    self._thread,
                    version,
                    base,
                    edits={"a": edit},
                    versions={"a": version},
                    metadata={"run_id": version},
                )
            )
            self.values[version] = value

    async def forget(self, steps: int) -> None:
        """Remove as many checkpoints."""
        versions = self._random.sample(sorted(self.values), steps)
        await self._tenant.delete_for_runs(*versions)
        for version in versions:
            del self.values[version]

    async def check(self) -> None:
        """See that every value reads back as it was put."""
        for version, value in self.values.items():
            assert await read(self._tenant, self._thread, version) == {"a": value.data}

    def _words(self, count: int) -> list[bytes]:
        # Few enough to come again within a value.
        return [b"%d " % self._random.randrange(200) for _ in range(count)]

    def _changed(self, parts: Sequence[bytes]) -> list[bytes]:
        """Return the words with some at the end, the start or anywhere replaced by others."""
        start = self._random.choice([len(parts), len(parts), 0, self._random.randint(0, len(parts))])
        end = min(len(parts), start + self._random.randint(0, 2))
        return [*parts[:start], *self._words(self._random.randint(0, 4)), *parts[end:]]

    def _told(self, value: Chunked, base: Chunked, version: str) -> ValueEdit:
        """Return an edit that may keep less of its base than it could."""
        edit = value.edit(base, version)
        first, last = edit.keep_first, edit.keep_last
        if self._random.random() < 0.3:
            first, last = self._random.randint(0, first), self._random.randint(0, last)
        entries = value.entries[first * chunks.ENTRY_BYTES : len(value.entries) - last * chunks.ENTRY_BYTES]
        packed = {chunk_id: value.chunks[chunk_id] for chunk_id in chunks.ids(entries)}
        return replace(edit, keep_first=first, keep_last=last, entries=entries, chunks=packed)


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
