"""Whatever a request about items holds, it is served or refused by an error of ours; never INTERNAL."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from tenure.v1 import store_pb2 as pb
from tenure_server import errors
from tenure_server.domain import TENANT_SCOPES, Principal, TenantId
from tenure_server.limits import Limits
from tenure_server.services.caller import principal
from tenure_server.services.store import StoreService
from tenure_server.services.store_batches import StoreBatches
from tenure_server.storage.memory_items import MemoryItems
from tenure_server.wire.json_text import parsed_object
from tenure_server.wire.requests import traceparents

from tests.unit.server.hostile import any_json, messages_of
from tests.unit.server.storing import (
    INDEX,
    batch,
    delete,
    get,
    group,
    listing,
    put,
    reason_of,
    search,
    vector,
)

TENANT = TenantId(uuid.uuid4())
ACCEPTED = {
    "",
    "INVALID_FIELD",
    "LIMIT_EXCEEDED",
    "OPERATION_MISMATCH",
    "INDEX_MISMATCH",
    "DEADLINE_EXCEEDED",
}

_calls: dict[str, Any] = {
    "GetIndex": pb.GetIndexRequest,
    "SetIndex": pb.SetIndexRequest,
    "ListUnembedded": pb.ListUnembeddedRequest,
    "PutVectors": pb.PutVectorsRequest,
}


class _Direct:
    """The service without gRPC, which would take most of the time."""

    def __init__(self) -> None:
        items = MemoryItems()
        self.batches = StoreBatches(items, Limits())
        self.service = StoreService(items, self.batches, Limits())

    def call(self, serve: Any) -> str:
        """Run a call and return the reason for which it was refused as a whole."""

        async def run() -> None:
            principal.set(Principal(TENANT, "key", TENANT_SCOPES))
            await serve

        try:
            asyncio.run(run())
        except errors.TenureError as error:
            return error.reason
        return ""

    def batch(self, request: pb.BatchRequest) -> set[str]:
        """Serve a batch and return the reasons for which it, or groups of it, were refused."""
        reasons: set[str] = set()

        async def serve() -> None:
            response = await self.batches.unary(request)
            assert len(response.results) == len(request.groups)
            reasons.update(reason_of(result.status)[0] for result in response.results)
            pb.BatchResponse.FromString(response.SerializeToString())

        return reasons | {self.call(serve())}


@given(messages_of(pb.BatchRequest.DESCRIPTOR))
def test_whatever_is_asked_of_a_batch_is_served_or_refused(request_: pb.BatchRequest) -> None:
    assert _Direct().batch(request_) <= ACCEPTED


@pytest.mark.parametrize("method", _calls)
@given(data=st.data())
def test_whatever_is_asked_of_a_call_is_served_or_refused(method: str, data: st.DataObject) -> None:
    request = data.draw(messages_of(_calls[method].DESCRIPTOR))
    assert _Direct().call(_call(method, request)) in ACCEPTED


async def _call(method: str, request: Any) -> None:
    await getattr(_Direct().service, method)(request, None)


@given(st.binary(max_size=60), st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=3)), max_size=8))
def test_whatever_bytes_come_are_served_or_refused(tail: bytes, edits: list[tuple[int, bytes]]) -> None:
    request = batch(
        group(put("a", "b", value={"x": [1, {"y": None}]}, text="t", vectors=[vector(1, 2)]), index=INDEX),
        group(get("a", "b"), search("a", filter={"x": {"$in": [1]}}), listing("a", "*")),
        delete("a"),
    )
    serialized = bytearray(request.SerializeToString())
    for at, replacement in edits:
        serialized[at : at + 1] = replacement
    try:
        mutated = pb.BatchRequest.FromString(bytes(serialized) + tail)
    except DecodeError:
        return
    traceparents(mutated)
    assert _Direct().batch(mutated) <= ACCEPTED


@given(any_json)
def test_a_filter_that_is_accepted_can_be_applied(filter: Any) -> None:
    values = [{}, {"a": 1}, {"a": None, "b": "x"}, {"a": [1, {"b": 2.5}], "": {}}, {"b": {"a": {"b": True}}}]
    puts = [put("a", key=str(n), value=value) for n, value in enumerate(values)]
    direct = _Direct()
    assert direct.batch(batch(group(*puts))) == {""}
    assert direct.batch(batch(search("a", filter=filter))) <= ACCEPTED


@given(st.text(st.sampled_from('{}[]",:\\u0d81eE+-.09aN \n\ud800'), max_size=40), st.integers(1, 5))
def test_json_text_is_what_python_reads_or_is_refused(text: str, depth: int) -> None:
    try:
        parsed = parsed_object("field", text, 100, depth)
    except errors.TenureError:
        return
    assert parsed == json.loads(text)
    json.dumps(parsed, allow_nan=False, ensure_ascii=False).encode()
    assert _depth(parsed) <= depth


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
