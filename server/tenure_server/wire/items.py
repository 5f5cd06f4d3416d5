"""From items to replies."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, cast

from tenure.v1 import store_pb2 as pb

from tenure_server.items import (
    GetItem,
    Index,
    Item,
    ItemAnswer,
    ItemRead,
    Namespace,
    SearchItems,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
LAST_US: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
"""The last moment there is, in microseconds since the epoch."""


def time_of(microseconds: int) -> datetime:
    """Return the moment that is so many microseconds after the epoch, at most `LAST_US`."""
    return _EPOCH + microseconds * _MICROSECOND


def microseconds_of(moment: datetime) -> int:
    """Return how many microseconds after the epoch a moment is."""
    return (moment - _EPOCH) // _MICROSECOND


def index(value: Index) -> pb.StoreIndex:
    """Return with what vectors are made."""
    return pb.StoreIndex(dims=value.dims, embedder=value.embedder)


def fill_item(message: pb.Item, item: Item) -> None:
    """Tell an item; in place, for a message that a constructor nests into another is copied."""
    message.namespace.labels.extend(item.namespace)
    message.key = item.key
    message.value_json = item.value
    message.created_at_us = microseconds_of(item.created_at)
    message.updated_at_us = microseconds_of(item.updated_at)
    if item.score is not None:
        message.score = item.score


def fill_result(message: pb.StoreResult, read: ItemRead, answer: ItemAnswer) -> None:
    """Tell the answer to a read; an absent item leaves the result empty."""
    if isinstance(read, GetItem):
        if answer is not None:
            fill_item(message.item, cast("Item", answer))
    elif isinstance(read, SearchItems):
        message.items.SetInParent()
        for item in cast("Sequence[Item]", answer):
            fill_item(message.items.items.add(), item)
    else:
        message.namespaces.SetInParent()
        for namespace in cast("Sequence[Namespace]", answer):
            message.namespaces.namespaces.add(labels=namespace)
