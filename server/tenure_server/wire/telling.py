"""How a checkpoint is told to a reader, given what the reader has already.

A value that the reader has is left out or told as an edit that brings nothing; a large one that it has in
another version is told by what is new; everything else whole. This is decided on heads alone, so that only
what will be sent is fetched, and so that its size is known before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from tenure_server import chunks
from tenure_server.domain import Base, Blob, Head, HeldValue, ValueEdit, ValueRef

_PER_ROW = 64
"""Bytes that field tags, lengths and short ids of one value or write take at most, about."""
_PER_CHUNK = chunks.MAX_OVERHEAD + 4

Bases = Mapping[str, tuple[Base, bytes]]
"""By channel a value that the reader has, and the entries of its recipe."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Who a checkpoint is told to.

    Attributes:
        accepts_edits: Whether large values may go as edits.
        held: Large values of the namespace that the reader says it has, by channel.
        before: The checkpoint just before in the same stream, which the reader has whole.
    """

    accepts_edits: bool = False
    held: Mapping[str, HeldValue] = field(default_factory=dict)
    before: Head | None = None

    def tell(self, head: Head) -> Telling:
        """Decide how to tell a checkpoint."""
        before = self.before
        if before is not None and (
            (before.thread_key, before.checkpoint_ns) != (head.thread_key, head.checkpoint_ns)
        ):
            before = None
        repeated = frozenset[int]() if before is None else _repeated(before, head)
        if not self.accepts_edits:
            return Telling(head, repeated, {})
        bases = self._held(head) if before is None else _recipes(before)
        edits = {
            index: _edit(value, bases)
            for index, value in enumerate(head.values)
            if value.recipe is not None and index not in repeated
        }
        return Telling(head, repeated, edits)

    def _held(self, head: Head) -> Bases:
        bases = {}
        for value in head.values if self.held else ():
            held = self.held.get(value.channel)
            if held is None or value.recipe is None:
                continue
            # One digest is one recipe: the reader has this very value, perhaps of another version.
            same = held.digest == value.digest
            recipe = value.recipe.entries if same else head.bases.get(value.channel)
            if recipe is not None:
                bases[value.channel] = Base(held.version, held.digest), recipe
        return bases


@dataclass(frozen=True, slots=True)
class Telling:
    """How a checkpoint is told.

    Attributes:
        head: The checkpoint.
        repeated: Indexes of the values that are left out.
        edits: The values told as edits, by index, without their chunks; all others go whole.
    """

    head: Head
    repeated: frozenset[int]
    edits: Mapping[int, ValueEdit]

    def size(self) -> int:
        """Return at most how many bytes it takes in a reply, about."""
        head = self.head
        return (
            len(head.body.data)
            + len(head.metadata)
            + sum(
                len(value.channel) + len(value.version) + _PER_ROW + self._value_size(index, value)
                for index, value in enumerate(head.values)
            )
            + sum(
                len(write.value.data) + len(write.task_path) + len(write.channel) + 2 * _PER_ROW
                for write in head.pending_writes
            )
            + len(head.thread_id)
            + len(head.checkpoint_ns)
            + 2 * _PER_ROW
        )

    def _value_size(self, index: int, value: ValueRef) -> int:
        if index in self.repeated:
            return 0
        edit = self.edits.get(index)
        if edit is None:
            return value.size
        lengths = dict(chunks.entries(edit.entries))
        version = 0 if edit.base is None else len(edit.base.version)
        return _PER_ROW + version + len(edit.entries) + sum(lengths.values()) + _PER_CHUNK * len(lengths)

    def bodies(self) -> list[int]:
        """Return the indexes of the values that are stored whole and have to be fetched."""
        return [
            index
            for index, (value, blob) in enumerate(zip(self.head.values, self.head.at_hand(), strict=True))
            if value.recipe is None and blob is None and index not in self.repeated
        ]

    def chunks(self) -> list[bytes]:
        """Return the ids of the chunks that have to be fetched."""
        return list(dict.fromkeys(chunk for recipe in self._recipes() for chunk in chunks.ids(recipe)))

    def assembled_size(self) -> int:
        """Return how many bytes `values` has to put together."""
        return sum(value.size for _, value in self._assembled())

    def values(
        self, bodies: Mapping[int, Blob], packed: Mapping[bytes, bytes]
    ) -> list[Blob | ValueEdit | None]:
        """Return the values as they are told.

        Args:
            bodies: What `bodies` asks for, by index.
            packed: What `chunks` asks for, by id.

        Raises:
            BadChunk: A stored chunk is damaged.
        """
        told: list[Blob | ValueEdit | None] = list(self.head.at_hand())
        for index, blob in bodies.items():
            told[index] = blob
        for index in self.repeated:
            told[index] = None
        for index, edit in self.edits.items():
            brought = {chunk: packed[chunk] for chunk in chunks.ids(edit.entries)}
            told[index] = replace(edit, chunks=brought)
        for index, value in self._assembled():
            recipe = value.recipe
            assert recipe is not None
            told[index] = Blob(recipe.type, chunks.assemble(recipe.header, recipe.entries, packed))
        return told

    def _recipes(self) -> Iterator[bytes]:
        for edit in self.edits.values():
            yield edit.entries
        for _, value in self._assembled():
            assert value.recipe is not None
            yield value.recipe.entries

    def _assembled(self) -> Iterator[tuple[int, ValueRef]]:
        """Yield the values that are stored in chunks and told whole."""
        for index, value in enumerate(self.head.values):
            if value.recipe is not None and index not in self.repeated and index not in self.edits:
                yield index, value


def _repeated(before: Head, head: Head) -> frozenset[int]:
    """Return the indexes of the values that the checkpoint before carried with the same bytes."""
    known = {(value.channel, value.version): value.digest for value in before.values}
    return frozenset(
        index
        for index, value in enumerate(head.values)
        if known.get((value.channel, value.version)) == value.digest
    )


def _recipes(before: Head) -> Bases:
    return {
        value.channel: (Base(value.version, value.digest), value.recipe.entries)
        for value in before.values
        if value.recipe is not None
    }


def _edit(value: ValueRef, bases: Bases) -> ValueEdit:
    assert value.recipe is not None
    recipe = value.recipe
    base, entries = bases.get(value.channel, (None, b""))
    first, last, between = chunks.difference(entries, recipe.entries)
    # A base of which nothing is kept would only be one more thing that can be missing.
    return ValueEdit(
        recipe.type, recipe.header, value.digest, base if first or last else None, first, last, between, {}
    )


WHOLE = Reader()
"""Takes every value whole."""
