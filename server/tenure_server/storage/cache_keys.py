"""What entries of the cache are called, and how one is known to be what its key names.

The scope of a key keeps tenants and threads from learning by timing what others store; it is not needed for
the right bytes, which the digest or id alone decides.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tenure_server import chunks
from tenure_server.domain import Blob, TenantId

V = TypeVar("V")

_VALUE = b"tn1"
_CHUNK = b"tc1"


class Key(Protocol[V]):
    """Names an entry by content, within one thread of one tenant; hashable."""

    def redis_key(self) -> bytes:
        """Return the Redis key. Every part has a fixed length, so no two names share a key.

        The hash tag keeps what belongs to a thread in one slot of a Redis Cluster.
        """
        ...

    def pack(self, value: V) -> bytes:
        """Return the entry of a value."""
        ...

    def unpack(self, entry: bytes) -> V | None:
        """Return the value of an entry, None unless it is the very one that the key names."""
        ...


def scope_of(tenant: TenantId, thread_id: str) -> bytes:
    """Return what Redis sees of a thread: its tenant and a hash of its id, never the id."""
    thread = hashlib.blake2b(thread_id.encode(), digest_size=16, person=b"tenure.thread").digest()
    return (tenant.hex + thread.hex()).encode()


@dataclass(frozen=True, slots=True)
class ValueKey:
    """See `Key`: a channel value, by its digest."""

    scope: bytes
    digest: bytes

    def redis_key(self) -> bytes:
        return b"%s:{%s}:%s" % (_VALUE, self.scope, self.digest.hex().encode())

    def pack(self, value: Blob) -> bytes:
        tag = value.type.encode()
        return b"%s%c%s%s" % (_VALUE, len(tag), tag, value.data)

    def unpack(self, entry: bytes) -> Blob | None:
        value = _parse(entry)
        return value if value is not None and value.digest() == self.digest else None


@dataclass(frozen=True, slots=True)
class ChunkKey:
    """See `Key`: a packed chunk, by its id."""

    scope: bytes
    chunk: bytes

    def redis_key(self) -> bytes:
        return b"%s:{%s}:%s" % (_CHUNK, self.scope, self.chunk.hex().encode())

    def pack(self, value: bytes) -> bytes:
        return _CHUNK + value

    def unpack(self, entry: bytes) -> bytes | None:
        packed = entry[len(_CHUNK) :]
        return packed if entry.startswith(_CHUNK) and chunks.chunk_id(packed) == self.chunk else None


def _parse(entry: bytes) -> Blob | None:
    if not entry.startswith(_VALUE) or len(entry) < 4:
        return None
    start = 4 + entry[3]
    try:
        return Blob(entry[4:start].decode(), entry[start:])
    except UnicodeDecodeError:
        return None
