"""Large values as edits, as they come in: checked chunk by chunk before anything is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tenure.v1 import checkpoints_pb2 as pb

from tenure_server import chunks, errors
from tenure_server.domain import EMPTY, Base, HeldValue, ValueEdit
from tenure_server.limits import Limits
from tenure_server.wire import fields


def edit(field: str, message: pb.ValueEdit, limits: Limits) -> ValueEdit:
    """Return an edit whose chunks are what their ids and entries say.

    One chunk at a time is inflated, to no more than its entry states, and dropped again: memory is bounded by
    what came, whatever it claims.

    Raises:
        InvalidField: A field has a value that is not allowed.
        LimitExceeded: The value has too many chunks, or the new ones too many bytes.
    """
    tag = fields.type_tag(f"{field}.type", message.type)
    if tag == EMPTY:
        raise errors.InvalidField(f"{field}.type", f"{EMPTY!r} marks a version without a value")
    if len(message.header) > chunks.MAX_HEADER_BYTES:
        raise errors.LimitExceeded(f"{field}.header", "bytes", len(message.header), chunks.MAX_HEADER_BYTES)
    base = _base(field, message, limits)
    entries = message.entries
    count, rest = divmod(len(entries), chunks.ENTRY_BYTES)
    if rest:
        raise errors.InvalidField(f"{field}.entries", f"must be entries of {chunks.ENTRY_BYTES} bytes each")
    whole = message.keep_first + message.keep_last + count
    if whole > limits.max_chunks:
        raise errors.LimitExceeded(f"{field}.entries", "max_chunks", whole, limits.max_chunks)
    lengths = _lengths(f"{field}.entries", entries, limits)
    _digest(f"{field}.digest", message.digest)
    if base is None and chunks.recipe_digest(tag, message.header, entries) != message.digest:
        raise errors.InvalidField(f"{field}.digest", "is not that of type, header and entries")
    return ValueEdit(
        tag,
        message.header,
        message.digest,
        base,
        message.keep_first,
        message.keep_last,
        entries,
        _chunks(f"{field}.chunks", message.chunks, lengths),
    )


def weight(put: pb.PutCheckpoint) -> int:
    """Return how many raw bytes the new chunks of a put state to have; they cost time by these.

    Entries that are cut short count as nothing here; `edit` refuses them.
    """
    stated = 0
    for new in put.new_values:
        if new.HasField("edit"):
            entries = new.edit.entries
            if len(entries) % chunks.ENTRY_BYTES == 0:
                stated += chunks.size(b"", entries)
    return stated


def held(field: str, messages: Sequence[pb.HeldValue], limits: Limits) -> Mapping[str, HeldValue]:
    """Return what a reader says it has, by channel."""
    fields.count(field, messages, limits.max_channels)
    found = {}
    for message in messages:
        channel = fields.text(f"{field}.channel", message.channel, limits.max_id_bytes)
        version = fields.text(f"{field}.version", message.version, limits.max_id_bytes)
        found[channel] = HeldValue(channel, version, _digest(f"{field}.digest", message.digest))
    if len(found) != len(messages):
        raise errors.InvalidField(field, "a channel stands twice")
    return found


def _base(field: str, message: pb.ValueEdit, limits: Limits) -> Base | None:
    version = fields.text(f"{field}.base_version", message.base_version, limits.max_id_bytes, empty=True)
    if version:
        return Base(version, _digest(f"{field}.base_digest", message.base_digest))
    if message.base_digest:
        raise errors.InvalidField(f"{field}.base_digest", "needs a base_version")
    for name in ("keep_first", "keep_last"):
        if getattr(message, name):
            raise errors.InvalidField(f"{field}.{name}", "needs a base_version")
    return None


def _digest(field: str, value: bytes) -> bytes:
    if len(value) != chunks.DIGEST_BYTES:
        raise errors.InvalidField(field, f"must be {chunks.DIGEST_BYTES} bytes")
    return value


def _lengths(field: str, entries: bytes, limits: Limits) -> dict[bytes, int]:
    """Return the raw length of each distinct chunk, in the order of their first entries."""
    lengths: dict[bytes, int] = {}
    total = 0
    for chunk, length in chunks.entries(entries):
        if not 0 < length <= chunks.MAX_CHUNK_BYTES:
            raise errors.InvalidField(field, f"a chunk must have 1 to {chunks.MAX_CHUNK_BYTES:,} bytes")
        if lengths.setdefault(chunk, length) != length:
            raise errors.InvalidField(field, "a chunk stands with two lengths")
        total += length
    if total > limits.max_operation_bytes:
        raise errors.LimitExceeded(field, "max_operation_bytes", total, limits.max_operation_bytes)
    return lengths


def _chunks(field: str, packed: Sequence[bytes], lengths: Mapping[bytes, int]) -> dict[bytes, bytes]:
    if len(packed) != len(lengths):
        raise errors.InvalidField(field, "must be the chunks of the entries, each once")
    checked: dict[bytes, bytes] = {}
    for (chunk, length), data in zip(lengths.items(), packed, strict=True):
        if len(data) > length + chunks.MAX_OVERHEAD:
            raise errors.InvalidField(field, "a chunk is larger packed than raw; send it raw")
        if chunks.chunk_id(data) != chunk:
            raise errors.InvalidField(field, "a chunk is not the one that its entry names")
        try:
            chunks.unpack(data, length)
        except chunks.BadChunk as error:
            raise errors.InvalidField(field, f"a chunk cannot be unpacked: {error}") from None
        checked[chunk] = data
    return checked
