"""Large values in chunks, put together by hand: what a client of ours or of others could send."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import zstandard
from tenure.v1 import checkpoints_pb2 as pb
from tenure_server import chunks


def raw(data: bytes) -> bytes:
    """Return a packed chunk that is not compressed."""
    return b"\0" + data


def zstd(data: bytes) -> bytes:
    """Return a packed chunk that is compressed."""
    return b"\1" + zstandard.ZstdCompressor().compress(data)


def entry(packed: bytes, length: int) -> bytes:
    """Return the entry of a packed chunk in a recipe."""
    return chunks.chunk_id(packed) + struct.pack("!I", length)


@dataclass
class Large:
    """A large value.

    Attributes:
        parts: The raw bytes of its chunks.
        header: Its first bytes.
        type: Its type tag.
    """

    parts: Sequence[bytes]
    header: bytes = b"header"
    type: str = "msgpack"
    packed: list[bytes] = field(init=False)

    def __post_init__(self) -> None:
        # Both encodings, so that every test has both.
        self.packed = [zstd(part) if len(part) % 2 else raw(part) for part in self.parts]

    @property
    def data(self) -> bytes:
        """The whole value."""
        return self.header + b"".join(self.parts)

    @property
    def entries(self) -> list[bytes]:
        """One for each chunk."""
        return [entry(packed, len(part)) for packed, part in zip(self.packed, self.parts, strict=True)]

    @property
    def recipe(self) -> bytes:
        """All entries."""
        return b"".join(self.entries)

    @property
    def digest(self) -> bytes:
        """The digest of the value."""
        return chunks.recipe_digest(self.type, self.header, self.recipe)

    def edit(
        self, base: Large | None = None, base_version: str = "", first: int = 0, last: int = 0
    ) -> pb.ValueEdit:
        """Return it as an edit of a base, of which so many entries are kept."""
        stop = len(self.parts) - last
        between = self.packed[first:stop]
        return pb.ValueEdit(
            type=self.type,
            header=self.header,
            digest=self.digest,
            base_version=base_version,
            base_digest=b"" if base is None else base.digest,
            keep_first=first,
            keep_last=last,
            entries=b"".join(self.entries[first:stop]),
            chunks=list(dict.fromkeys(between)),
        )


def whole(
    edit: pb.ValueEdit, bases: Mapping[tuple[str, bytes], bytes], known: Mapping[bytes, bytes]
) -> tuple[bytes, bytes, dict[bytes, bytes]]:
    """Put an edit together as a reader does, checking all that a reader may rely on.

    Args:
        edit: What came.
        bases: Recipes that the reader has, by version and digest.
        known: Packed chunks that the reader has, by id.

    Returns:
        (the value, its recipe, its packed chunks).
    """
    came = {chunks.chunk_id(packed): packed for packed in edit.chunks}
    assert list(came) == chunks.ids(edit.entries)
    base = bases[edit.base_version, edit.base_digest] if edit.base_version else b""
    assert len(base) >= (edit.keep_first + edit.keep_last) * chunks.ENTRY_BYTES
    tail = base[len(base) - edit.keep_last * chunks.ENTRY_BYTES :]
    recipe = base[: edit.keep_first * chunks.ENTRY_BYTES] + edit.entries + tail
    assert chunks.recipe_digest(edit.type, edit.header, recipe) == edit.digest
    packed = {chunk: came[chunk] if chunk in came else known[chunk] for chunk in chunks.ids(recipe)}
    return chunks.assemble(edit.header, recipe, packed), recipe, packed
