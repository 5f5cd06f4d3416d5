"""Requests about items with any values, likely and unlikely."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from tenure.v1 import common_pb2
from tenure.v1 import store_pb2 as pb

any_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "b", "", "$eq", "$ne", "$gt", "$lte", "$in", "$nin", "$exists", "$odd"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
"""JSON that looks like a filter now and then."""
_texts = (
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
    | any_json.map(lambda value: json.dumps(value))
    | st.sampled_from(["a", "a", "key", "", "\0", "a.b", "langgraph", "*", "$", "x" * 600, '{"a": 1}', "{}"])
)


def messages_of(descriptor: Any) -> st.SearchStrategy[Any]:
    """Return messages of a type with any values of the right types, likely and unlikely."""
    drawn: dict[str, st.SearchStrategy[Any]] = {}
    for field in descriptor.fields:
        if field.message_type is not None:
            value = messages_of(field.message_type)
        elif field.type == field.TYPE_STRING:
            value = _texts
        elif field.type == field.TYPE_BYTES:
            value = st.just(b"i" * 16) | st.binary(min_size=16, max_size=16) | st.binary(max_size=20)
        elif field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
            value = st.floats(width=32)
        elif field.type == field.TYPE_BOOL:
            value = st.booleans()
        elif field.type == field.TYPE_INT64:
            value = st.integers(-(2**63), 2**63 - 1)
        else:
            value = st.integers(0, 4) | st.integers(0, 2**31 - 1)
        drawn[field.name] = st.lists(value, max_size=3) if field.is_repeated else value
    make = getattr(pb, descriptor.name, None) or getattr(common_pb2, descriptor.name)
    choices = [st.fixed_dictionaries({}, optional=_without_siblings(descriptor, drawn, one)) for one in drawn]
    return st.one_of(choices).map(lambda members: make(**members)) if choices else st.just(make())


def _without_siblings(descriptor: Any, drawn: dict[str, Any], chosen: str) -> dict[str, Any]:
    """Leave out the other members of the chosen one's oneof."""
    of_chosen = descriptor.fields_by_name[chosen].containing_oneof
    return {
        name: value
        for name, value in drawn.items()
        if name == chosen
        or of_chosen is None
        or descriptor.fields_by_name[name].containing_oneof is not of_chosen
    }
