"""From requests of the node cache to domain values; every refusal names its field."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tenure.v1 import cache_pb2 as pb

from tenure_server import errors
from tenure_server.domain import Operation
from tenure_server.limits import Limits
from tenure_server.node_results import Namespace, NodeKey, NodeResult
from tenure_server.wire import fields
from tenure_server.wire.requests import Requests

_MAX_LABELS = 32


class CacheRequests:
    """Turns requests into domain values under the limits of a server."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._requests = Requests(limits)

    def get(self, message: pb.GetRequest) -> tuple[Operation, Sequence[NodeKey]]:
        """Return what to look for."""
        operation = self._requests.operation(message.operation, "operation", identified=False)
        fields.count("keys", message.keys, self._limits.max_batch)
        return operation, [self._key(key, f"keys[{index}]") for index, key in enumerate(message.keys)]

    def set(self, message: pb.SetRequest) -> tuple[Operation, Sequence[NodeResult]]:
        """Return what to keep."""
        size, maximum = message.ByteSize(), self._limits.max_unary_request_bytes
        if size > maximum:
            raise errors.LimitExceeded("request", "max_unary_request_bytes", size, maximum)
        operation = self._requests.operation(message.operation, "operation")
        fields.count("entries", message.entries, self._limits.max_batch)
        return operation, [
            self._result(entry, f"entries[{index}]") for index, entry in enumerate(message.entries)
        ]

    def clear(self, message: pb.ClearRequest) -> tuple[Operation, Sequence[Namespace] | None]:
        """Return the namespaces to clear, None = all."""
        operation = self._requests.operation(message.operation, "operation")
        fields.count("namespaces", message.namespaces, self._limits.max_batch)
        if message.everything:
            if message.namespaces:
                raise errors.InvalidField("namespaces", "must not stand beside everything")
            return operation, None
        return operation, [
            self._namespace(namespace, f"namespaces[{index}]")
            for index, namespace in enumerate(message.namespaces)
        ]

    def _result(self, message: pb.CacheEntry, field: str) -> NodeResult:
        key = self._key(message.key, f"{field}.key")
        value = fields.blob(f"{field}.value", message.value) if message.HasField("value") else None
        if not message.HasField("ttl_seconds"):
            return NodeResult(key, value)
        if not (0 < message.ttl_seconds < math.inf):
            raise errors.InvalidField(f"{field}.ttl_seconds", "must be more than 0")
        return NodeResult(key, value, message.ttl_seconds)

    def _key(self, message: pb.CacheKey, field: str) -> NodeKey:
        return NodeKey(
            self._namespace(message.namespace, f"{field}.namespace"),
            fields.text(f"{field}.key", message.key, self._limits.max_id_bytes, empty=True),
        )

    def _namespace(self, message: pb.CacheNamespace, field: str) -> Namespace:
        maximum = self._limits.max_namespace_bytes
        fields.count(f"{field}.labels", message.labels, _MAX_LABELS)
        for label in message.labels:
            fields.text(f"{field}.labels", label, maximum, empty=True)
        size = sum(len(label.encode()) for label in message.labels)
        if size > maximum:
            raise errors.LimitExceeded(f"{field}.labels", "bytes", size, maximum)
        return tuple(message.labels)
