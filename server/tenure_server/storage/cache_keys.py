"""What entries of the cache are called, and how one is known to be what its key names.

The scope of a value or chunk keeps tenants and threads from learning by timing what others store; it is not
needed for the right bytes, which the digest or id alone decides. Results of nodes are known to Redis alone:
there the scope does keep tenants apart.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol, TypeVar
from uuid import UUID

from tenure_server import chunks
from tenure_server.domain import DIGEST_BYTES, Blob, TenantId
from tenure_server.node_results import CacheShare, Namespace, NodeKey

V = TypeVar("V")

_VALUE = b"tn1"
_CHUNK = b"tc1"
_RESULT = b"te1"
_TOKEN = b"tg1"
_BUCKET = b"tr1"
REPLICAS = b"tr1:replicas"
"""Redis key of the replicas that live."""


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


class BadEntry(ValueError):
    """An entry is not what was stored under its key."""


@dataclass(frozen=True, slots=True)
class ResultKey:
    """Names the result of a node, within a tenant's share of the node cache.

    Nothing but Redis knows a result, so its entry carries the digest of its bytes, of its key and of the
    generation in which it was made.
    """

    scope: bytes
    name: bytes

    @classmethod
    def of(cls, scope: bytes, key: NodeKey) -> ResultKey:
        return cls(scope, _hash(b"tenure.result", *_encoded(key.namespace), key.key.encode()))

    def redis_key(self) -> bytes:
        """Return the Redis key; the hash tag keeps a share in one slot of a Redis Cluster."""
        return b"%s:{%s}:%s" % (_RESULT, self.scope, self.name.hex().encode())

    def pack(self, generation: bytes, value: Blob) -> bytes:
        """Return the entry of a result."""
        tag = value.type.encode()
        body = b"%c%s%s" % (len(tag), tag, value.data)
        return b"%s%s%s%s" % (_RESULT, generation, self._digest(generation, body), body)

    def unpack(self, generation: bytes, entry: bytes) -> Blob | None:
        """Return the result of an entry, None if it was made in another generation.

        Raises:
            BadEntry: Its bytes are not those that were stored here.
        """
        start = len(_RESULT)
        middle, end = start + DIGEST_BYTES, start + 2 * DIGEST_BYTES
        made, digest, body = entry[start:middle], entry[middle:end], entry[end:]
        if not entry.startswith(_RESULT) or not body or digest != self._digest(made, body):
            raise BadEntry
        return _tagged(body) if made == generation else None

    def _digest(self, generation: bytes, body: bytes) -> bytes:
        return _hash(b"tenure.entry", self.redis_key(), generation, body)


def scope_of_share(share: CacheShare) -> bytes:
    """Return what Redis sees of a share: its tenant and a hash of its rules."""
    rules = _hash(b"tenure.rules", *_encoded(share.rules))
    return (share.tenant.hex + rules.hex()).encode()


def token_key(scope: bytes, namespace: Namespace | None) -> bytes:
    """Return the Redis key of a namespace's token, or of the share's own (None)."""
    if namespace is None:
        return b"%s:{%s}" % (_TOKEN, scope)
    name = _hash(b"tenure.token", *_encoded(namespace))
    return b"%s:{%s}:%s" % (_TOKEN, scope, name.hex().encode())


def bucket_key(tenant: UUID) -> bytes:
    """Return the Redis key of a tenant's rates."""
    return b"%s:{%s}" % (_BUCKET, tenant.hex.encode())


def generation(share_token: bytes, namespace_token: bytes) -> bytes:
    """Return the generation that two tokens make; other tokens make another one."""
    return _hash(b"tenure.generate", share_token, namespace_token)


def _encoded(texts: tuple[str, ...]) -> list[bytes]:
    return [text.encode() for text in texts]


def _hash(person: bytes, *parts: bytes) -> bytes:
    """Return a digest of parts, each with its length, so that no others give the same bytes to hash."""
    state = hashlib.blake2b(digest_size=DIGEST_BYTES, person=person)
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()


def _parse(entry: bytes) -> Blob | None:
    return _tagged(entry[len(_VALUE) :]) if entry.startswith(_VALUE) and len(entry) > len(_VALUE) else None


def _tagged(body: bytes) -> Blob | None:
    """Return the value of a length, a type tag and bytes."""
    start = 1 + body[0]
    try:
        return Blob(body[1:start].decode(), body[start:])
    except UnicodeDecodeError:
        return None
