"""Checks of single fields: every refusal is one of our errors and names its field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenure.v1.common_pb2 import Blob as BlobMessage
from tenure_server import errors
from tenure_server.limits import Limits
from tenure_server.wire import fields

LIMITS = Limits()


@pytest.mark.parametrize("value", ["x", "x" * 8, "é" * 4, "🦜🦜", " ", "\x01", "a:b|c/d"])
def test_a_text_within_its_bytes_is_returned(value: str) -> None:
    assert fields.text("ref.thread_id", value, 8) == value


@pytest.mark.parametrize("value", ["x" * 9, "é" * 5, "🦜🦜🦜", "x" * 1_000_000])
def test_the_length_of_a_text_counts_bytes(value: str) -> None:
    with pytest.raises(errors.LimitExceeded) as caught:
        fields.text("ref.thread_id", value, 8)
    assert caught.value.metadata == {"field": "ref.thread_id", "limit": "bytes", "maximum": "8"}


@pytest.mark.parametrize("value", ["", "\0", "a\0b"])
def test_a_text_is_neither_empty_nor_has_it_nul(value: str) -> None:
    with pytest.raises(errors.InvalidField) as caught:
        fields.text("ref.thread_id", value, 8)
    assert caught.value.field == "ref.thread_id"


def test_a_text_may_be_empty_where_that_means_something() -> None:
    assert fields.text("ref.checkpoint_ns", "", 8, empty=True) == ""


@pytest.mark.parametrize("value", ["x", "é" * 4, "x" * 8])
def test_a_member_is_a_text_as_well(value: str) -> None:
    assert fields.member("ref", "thread_id", value, 8) == value
    assert fields.member("ref", "checkpoint_ns", "", 8, empty=True) == ""


@pytest.mark.parametrize("value", ["", "\0", "x" * 9, "é" * 5])
def test_a_member_that_is_refused_is_named_with_its_path(value: str) -> None:
    with pytest.raises(errors.TenureError) as caught:
        fields.member("ref", "thread_id", value, 8)
    with pytest.raises(errors.TenureError) as expected:
        fields.text("ref.thread_id", value, 8)
    assert (str(caught.value), caught.value.metadata) == (str(expected.value), expected.value.metadata)


def test_a_list_has_a_greatest_length() -> None:
    fields.count("writes", [], 2)
    fields.count("writes", [1, 2], 2)
    with pytest.raises(errors.LimitExceeded) as caught:
        fields.count("writes", [1, 2, 3], 2)
    assert caught.value.metadata == {"field": "writes", "limit": "items", "maximum": "2"}


def test_a_list_that_must_not_be_empty() -> None:
    with pytest.raises(errors.InvalidField) as caught:
        fields.count("mutations", [], 2, empty=False)
    assert caught.value.field == "mutations"


@pytest.mark.parametrize(
    "tag", ["msgpack", "bytes", "null", "empty", "msgpack+aes", "own", "t" * 64, "jsonplus"]
)
def test_a_payload_is_not_looked_at(tag: str) -> None:
    blob = fields.blob("put.checkpoint", BlobMessage(type=tag, data=b"\x80\x04anything"))
    assert (blob.type, blob.data) == (tag, b"\x80\x04anything")


@pytest.mark.parametrize("tag", ["pickle", "json", "pickle+aes", "json+aes", "", "t" * 65, "a\0b"])
def test_type_tags_that_are_refused(tag: str) -> None:
    with pytest.raises(errors.TenureError) as caught:
        fields.blob("put.checkpoint", BlobMessage(type=tag, data=b"payload"))
    assert caught.value.metadata["field"] == "put.checkpoint.type"
    assert "payload" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        ' {"a" : 1} ',
        '{"a": {"a": [1, 2.5, null, true, "x"]}}',
        '{"surrogate pair": "\\ud83e\\udd9c", "escaped": "\\u00e9\\n"}',
        '{"": 0, "e": -0.0, "big": 123456789012345678901234567890, "small": 1e-400}',
        '{"not nested": "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[{{{{{{{{"}',
        '{"escaped quote": "\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["}',
        '{"wide": [' + "[], " * 40 + "[]]}",
        '{"a":' * 31 + "[1]" + "}" * 31,
    ],
)
def test_json_that_is_stored(text: str) -> None:
    assert fields.json_object("metadata_json", text, LIMITS) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '"text"',
        "5",
        "{",
        "{}{}",
        "{'a': 1}",
        '{"a": 1,}',
        '{"a": NaN}',
        '{"a": Infinity}',
        '{"a": [-Infinity]}',
        '{"a": 1e999}',
        '{"a": {"b": -1e999}}',
        '{"a": 1, "a": 1}',
        '{"b": {"a": 1, "\\u0061": 2}}',
        '{"a": "\\u0000"}',
        '{"\\u0000": 1}',
        '{"a": [{"b": "\\ud800"}]}',
        '{"\\udfff": 1}',
        '{"a": "\x01"}',
        '{"a": "\0"}',
        '{"a": ' + "9" * 5000 + "}",
        "\ufeff{}",
    ],
)
def test_json_that_cannot_be_stored(text: str) -> None:
    with pytest.raises(errors.InvalidField) as caught:
        fields.json_object("metadata_json", text, LIMITS)
    assert caught.value.field == "metadata_json"


@pytest.mark.parametrize(
    "text",
    [
        '{"a":' * 32 + "[1]" + "}" * 32,
        '{"a":' + "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 40_000 + "1" + "}" * 40_000,
        '{"a": "\\\\", "b":' + "[" * 40 + "]" * 40 + "}",
    ],
)
def test_json_that_is_too_deep(text: str) -> None:
    with pytest.raises(errors.LimitExceeded) as caught:
        fields.json_object("metadata_json", text, LIMITS)
    assert caught.value.metadata == {"field": "metadata_json", "limit": "depth", "maximum": "32"}


def test_the_size_of_json_counts_bytes() -> None:
    text = json.dumps({"a": "é" * (128 * 1024)}, ensure_ascii=False)
    with pytest.raises(errors.LimitExceeded) as caught:
        fields.json_object("metadata_json", text, LIMITS)
    assert caught.value.metadata == {"field": "metadata_json", "limit": "bytes", "maximum": str(256 * 1024)}


_texts = st.text(st.characters(), max_size=8)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _texts,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(_texts, children, max_size=4),
    max_leaves=20,
)


@given(_json)
def test_every_json_is_returned_or_refused(value: Any) -> None:
    text = json.dumps(value)
    parsed = _parsed(text)
    if parsed is not None:
        assert parsed == value
        json.dumps(parsed, ensure_ascii=False, allow_nan=False).encode()
        assert "\\u0000" not in text.replace("\\\\", "")


@given(st.text(st.sampled_from('{}[]",:\\u00d8e+-.1anIf ')))
def test_no_text_raises_anything_else(text: str) -> None:
    assert isinstance(_parsed(text), dict | None)


def _parsed(text: str) -> dict[str, Any] | None:
    """Return the object, None if it is refused as it should be."""
    try:
        return fields.json_object("metadata_json", text, LIMITS)
    except errors.TenureError as error:
        if error.metadata["field"] != "metadata_json":
            raise
        return None
