"""Batches: what of a list of mutations may go into one call of `write_batch_3`, and its arguments."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from json.encoder import encode_basestring

from tenure_server.domain import Blob, ChannelValue, Mutation, PendingWrite, PutCheckpoint, ValueEdit
from tenure_server.storage.postgres.arrays import (
    Array,
    BigintArray,
    ByteaArray,
    DigestArray,
    IntArray,
    TextArray,
)

_MAX_INT = 2**31 - 1
"""More entries than any base has."""


def ns_hash(checkpoint_ns: str) -> bytes:
    """Return what stands for a namespace in keys; the SQL function of that name does the same."""
    return hashlib.sha256(checkpoint_ns.encode()).digest()[:16]


def rounds(mutations: Sequence[Mutation]) -> Iterator[list[int]]:
    """Cut a batch where a namespace's puts are not in ascending order of their ids, or build on each other.

    Within a round no checkpoint is put twice, no edit has a base that is put and no put expects one that is,
    so the SQL function need not look at the puts of the round itself to know which checkpoint is the latest,
    and what a base is. Nor does a thread have two writers there.
    """
    current: list[int] = []
    last: dict[tuple[str, str], bytes] = {}
    edited: set[tuple[str, str, str, str]] = set()
    tokens: dict[str, int | None] = {}
    for index, mutation in enumerate(mutations):
        if tokens.get(mutation.ref.thread_id, mutation.lease_token) != mutation.lease_token:
            yield current
            current, last, edited, tokens = [], {}, set(), {}
        tokens[mutation.ref.thread_id] = mutation.lease_token
        if isinstance(mutation, PutCheckpoint):
            namespace = (mutation.ref.thread_id, mutation.ref.checkpoint_ns)
            checkpoint_id = _id(mutation).encode("utf-8", "surrogatepass")
            edits = [(new, new.value) for new in mutation.new_values if isinstance(new.value, ValueEdit)]
            # Most puts have no edit, and even a generator that yields nothing takes its time.
            if (
                namespace in last
                and (checkpoint_id <= last[namespace] or mutation.expected_parent is not None)
            ) or (
                edits
                and any(
                    edit.base is not None and (*namespace, new.channel, edit.base.version) in edited
                    for new, edit in edits
                )
            ):
                yield current
                current, last, edited = [], {}, set()
                tokens = {mutation.ref.thread_id: mutation.lease_token}
            last[namespace] = checkpoint_id
            if edits:
                edited.update((*namespace, new.channel, new.version) for new, _ in edits)
        current.append(index)
    if current:
        yield current


class Batch:
    """The arguments of one call.

    Attributes:
        threads: Thread ids in the order that the SQL function counts them.
        puts: Which of the mutations are puts, in the order that the SQL function counts them.
    """

    def __init__(self, mutations: Sequence[Mutation]) -> None:
        self.puts = [index for index, m in enumerate(mutations) if isinstance(m, PutCheckpoint)]
        self._puts = [mutation for mutation in mutations if isinstance(mutation, PutCheckpoint)]
        self._put_threads = _sorted({put.ref.thread_id for put in self._puts})
        self._write_threads = _sorted({m.ref.thread_id for m in mutations} - set(self._put_threads))
        self.threads = [*self._put_threads, *self._write_threads]
        self._tokens = {m.ref.thread_id: m.lease_token for m in mutations if m.lease_token is not None}
        self._number = {thread_id: number for number, thread_id in enumerate(self.threads, start=1)}
        self._values: list[tuple[int, ChannelValue]] = [
            (number, value) for number, put in enumerate(self._puts, start=1) for value in put.new_values
        ]
        self._edits = [
            (number, new.value)
            for number, (_, new) in enumerate(self._values, start=1)
            if isinstance(new.value, ValueEdit)
        ]
        # A graph without subgraphs has one namespace.
        self._hashes = {ns: ns_hash(ns) for ns in {m.ref.checkpoint_ns for m in mutations}}
        self._writes = self._fold(mutations)

    def _fold(self, mutations: Sequence[Mutation]) -> list[tuple[int, bytes, str, PendingWrite]]:
        """Return each pending write once: of the ordinary ones the first, of the special ones the last."""
        folded: dict[tuple[int, bytes, str, str, int], PendingWrite] = {}
        for mutation in mutations:
            if isinstance(mutation, PutCheckpoint):
                continue
            ref = mutation.ref
            where = (self._number[ref.thread_id], self._hashes[ref.checkpoint_ns], _id(mutation))
            for write in mutation.writes:
                key = (*where, write.task_id, write.idx)
                if write.idx < 0 or key not in folded:
                    folded[key] = write
        return [(key[0], key[1], key[2], write) for key, write in folded.items()]

    def params(self) -> list[Array]:
        """Return the arguments from p_put_threads on."""
        return [
            TextArray(self._put_threads),
            TextArray(self._write_threads),
            *(_of_puts(self._puts, self._number, self._hashes) if self._puts else _NO_PUTS),
            *(_of_values(self._values) if self._values else _NO_VALUES),
            *(_of_edits(self._edits) if self._edits else _NO_EDITS),
            *(_of_writes(self._writes) if self._writes else _NO_WRITES),
            *(self._of_leases() if self._tokens else _NO_LEASES),
            self._of_expected(),
        ]

    def _of_leases(self) -> list[Array]:
        return [
            BigintArray([self._tokens.get(thread_id) for thread_id in threads])
            for threads in (self._put_threads, self._write_threads)
        ]

    def _of_expected(self) -> Array:
        expected = [put.expected_parent for put in self._puts]
        return TextArray(expected) if any(parent is not None for parent in expected) else _NO_TEXTS


def _of_puts(
    puts: Sequence[PutCheckpoint], numbers: Mapping[str, int], hashes: Mapping[str, bytes]
) -> list[Array]:
    refs = [put.ref for put in puts]
    bodies = [put.body for put in puts]
    return [
        IntArray([numbers[ref.thread_id] for ref in refs]),
        TextArray([ref.checkpoint_ns for ref in refs]),
        DigestArray([hashes[ref.checkpoint_ns] for ref in refs]),
        TextArray([ref.checkpoint_id for ref in refs]),
        TextArray([put.parent_checkpoint_id for put in puts]),
        TextArray([body.type for body in bodies]),
        ByteaArray([body.data for body in bodies]),
        TextArray([put.metadata for put in puts]),
        TextArray([put.filterable for put in puts]),
        TextArray([put.run_id for put in puts]),
        IntArray([put.format_version for put in puts]),
        TextArray([_versions(put.channel_versions) for put in puts]),
    ]


def _of_values(values: Sequence[tuple[int, ChannelValue]]) -> list[Array]:
    told = [new.value for _, new in values]
    return [
        IntArray([put for put, _ in values]),
        TextArray([new.channel for _, new in values]),
        TextArray([new.version for _, new in values]),
        TextArray([value.type for value in told]),
        DigestArray([_digest(value) for value in told]),
        ByteaArray([_data(value) for value in told]),
    ]


def _of_edits(edits: Sequence[tuple[int, ValueEdit]]) -> list[Array]:
    chunks = [
        (number, chunk_id, packed)
        for number, edit in edits
        for chunk_id, packed in sorted(edit.chunks.items())
    ]
    return [
        IntArray([number for number, _ in edits]),
        TextArray([edit.base.version if edit.base else None for _, edit in edits]),
        ByteaArray([edit.base.digest if edit.base else b"" for _, edit in edits]),
        IntArray([min(edit.keep_first, _MAX_INT) for _, edit in edits]),
        IntArray([min(edit.keep_last, _MAX_INT) for _, edit in edits]),
        ByteaArray([edit.entries for _, edit in edits]),
        IntArray([number for number, _, _ in chunks]),
        DigestArray([chunk_id for _, chunk_id, _ in chunks]),
        ByteaArray([packed for _, _, packed in chunks]),
    ]


def _of_writes(writes: Sequence[tuple[int, bytes, str, PendingWrite]]) -> list[Array]:
    pending = [write for _, _, _, write in writes]
    values = [write.value for write in pending]
    return [
        IntArray([thread for thread, _, _, _ in writes]),
        DigestArray([ns for _, ns, _, _ in writes]),
        TextArray([checkpoint_id for _, _, checkpoint_id, _ in writes]),
        TextArray([write.task_id for write in pending]),
        IntArray([write.idx for write in pending]),
        TextArray([write.task_path for write in pending]),
        TextArray([write.channel for write in pending]),
        TextArray([value.type for value in values]),
        ByteaArray([value.data for value in values]),
    ]


def _versions(versions: Mapping[str, str]) -> str:
    """Return the JSON text of an object of texts, in a third of the time of an encoder for anything."""
    members = [
        f"{encode_basestring(channel)}:{encode_basestring(version)}" for channel, version in versions.items()
    ]
    return "{" + ",".join(members) + "}"


def _digest(value: Blob | ValueEdit) -> bytes:
    return value.digest() if isinstance(value, Blob) else value.digest


def _data(value: Blob | ValueEdit) -> bytes:
    return value.data if isinstance(value, Blob) else value.header


def _id(mutation: Mutation) -> str:
    assert mutation.ref.checkpoint_id is not None
    return mutation.ref.checkpoint_id


def _sorted(ids: set[str]) -> list[str]:
    return sorted(ids, key=lambda thread_id: thread_id.encode("utf-8", "surrogatepass"))


# Most batches lack some of these: encoding empty arrays would take as long as the rest.
_NO_PUTS = _of_puts([], {}, {})
_NO_VALUES = _of_values([])
_NO_EDITS = _of_edits([])
_NO_WRITES = _of_writes([])
_NO_LEASES: list[Array] = [BigintArray([]), BigintArray([])]
_NO_TEXTS = TextArray([])
