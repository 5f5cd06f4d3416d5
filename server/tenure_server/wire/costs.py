"""How many operations a request asks for, as rates count them."""

from __future__ import annotations

from google.protobuf.message import Message
from tenure.v1 import cache_pb2, checkpoints_pb2, store_pb2

from tenure_server.rates import Amount


def operations(request: Message) -> int:
    """Return the operations of a request, at least 1."""
    if isinstance(request, checkpoints_pb2.WriteRequest):
        count = len(request.mutations)
    elif isinstance(request, checkpoints_pb2.ReadRequest):
        count = len(request.reads)
    elif isinstance(request, store_pb2.BatchRequest):
        count = sum(len(group.ops) for group in request.groups)
    elif isinstance(request, store_pb2.PutVectorsRequest):
        count = len(request.items)
    elif isinstance(request, checkpoints_pb2.PruneThreadsRequest):
        count = len(request.thread_ids)
    elif isinstance(request, cache_pb2.GetRequest):
        count = len(request.keys)
    elif isinstance(request, cache_pb2.SetRequest):
        count = len(request.entries)
    else:
        count = 1
    return max(count, 1)


def of(request: Message) -> Amount:
    """Return what is known of the cost of a request before it is served."""
    return Amount(operations(request), request.ByteSize())
