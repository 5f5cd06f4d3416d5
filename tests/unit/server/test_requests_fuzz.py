"""Whatever a request holds, it is accepted or refused by an error of ours that names a field."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import common_pb2
from tenure_server.wire.requests import traceparents

from tests.unit.server.test_requests import LONG, NUL, refused
from tests.unit.server.test_requests import PARSERS as PLAIN
from tests.unit.server.test_requests_edits import PARSERS as WITH_EDITS

PARSERS = PLAIN | WITH_EDITS


@given(st.sampled_from(sorted(PARSERS)), st.data())
def test_whatever_bytes_come_nothing_else_is_raised(kind: str, data: st.DataObject) -> None:
    make, parse = PARSERS[kind]
    message = make()
    serialized = bytearray(message.SerializeToString())
    if data.draw(st.booleans()):
        serialized = bytearray(data.draw(st.binary(max_size=200)))
    for _ in range(data.draw(st.integers(0, 8))):
        index = data.draw(st.integers(0, len(serialized)))
        serialized[index : index + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    try:
        mutated = type(message).FromString(bytes(serialized))
    except DecodeError:
        return
    traceparents(mutated)
    assert refused(parse, mutated) != ""


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ["", NUL, LONG, "x" * 2049, "{}", "[]", '{"run_id": "r"}', '{"a": NaN}', "pickle", "msgpack", "empty"]
)


def _messages(descriptor: Any) -> st.SearchStrategy[Any]:
    """Return messages of a type with any values of the right types, likely and unlikely."""
    drawn: dict[str, st.SearchStrategy[Any]] = {}
    for field in descriptor.fields:
        if field.message_type is not None:
            value = _messages(field.message_type)
        elif field.type == field.TYPE_STRING:
            value = _texts
        elif field.type == field.TYPE_BYTES:
            value = st.binary(max_size=20) | st.just(b"i" * 16)
        elif field.type in (field.TYPE_UINT32, field.TYPE_UINT64):
            value = st.integers(0, 2**32 - 1)
        elif field.type == field.TYPE_BOOL:
            value = st.booleans()
        else:
            value = st.integers(-(2**31), 2**31 - 1)
        drawn[field.name] = st.lists(value, max_size=3) if field.is_repeated else value
    make = getattr(pb, descriptor.name, None) or getattr(common_pb2, descriptor.name)
    return st.fixed_dictionaries({}, optional=drawn).map(lambda members: make(**members))


FUZZED = {kind: _messages(make().DESCRIPTOR) for kind, (make, _) in PARSERS.items()}


@pytest.mark.parametrize("kind", sorted(PARSERS))
@given(data=st.data())
def test_whatever_is_asked_nothing_else_is_raised(kind: str, data: st.DataObject) -> None:
    assert refused(PARSERS[kind][1], data.draw(FUZZED[kind])) != ""
