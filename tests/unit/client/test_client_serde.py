"""The default serializer: typed state comes back typed; what is trusted can be said."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import ipaddress
import pathlib
import re
import sys
import types
import uuid
import zoneinfo
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.serde import _msgpack, jsonplus
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Command, Interrupt, Send
from tenure_client import TenureSaver, TenureSerializer, UnreadableValue, UntrustedType

from tests.unit.client.states import (
    HERE,
    Colour,
    Frozen,
    Inner,
    Kind,
    Level,
    Model,
    Numbers,
    Pair,
    Point,
    Positive,
    Stamp,
    payload,
)

SERDE = TenureSerializer()
DATES = st.datetimes(timezones=st.sampled_from([None, datetime.UTC]))
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
    st.sampled_from([*Colour, *Level, *Kind]),
    DATES,
    st.dates(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
    st.ip_addresses(),
    st.builds(Inner, colour=st.sampled_from(Colour)),
    st.builds(Frozen, name=st.text("ab"), tags=st.frozensets(st.text("ab"))),
    st.builds(Numbers, st.lists(st.integers(0, 9))),
    st.builds(HumanMessage, content=st.text("ab"), id=st.text("ab", min_size=1)),
)
STATES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text("abc"), inner, max_size=3),
        st.builds(Point, x=st.integers(-9, 9), y=inner),
        st.builds(Pair, left=inner, right=inner),
        st.builds(collections.deque, st.lists(inner, max_size=3)),
        st.builds(Send, node=st.just("node"), arg=inner),
        st.builds(_DeltaSnapshot, inner),
    ),
    max_leaves=8,
)


def round_trip(value: Any, serde: TenureSerializer = SERDE) -> Any:
    return serde.loads_typed(serde.dumps_typed(value))


@given(STATES)
def test_typed_state_comes_back_typed(value: Any) -> None:
    found = round_trip(value)

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        Model(inner=Inner(colour=Colour.RED), numbers=[1], when=datetime.datetime(2025, 1, 1)),
        AIMessage("hi", tool_calls=[{"name": "f", "args": {"a": 1}, "id": "1"}], id="1"),
        ToolMessage("done", tool_call_id="1"),
        Document("text", metadata={"a": 1}),
        Interrupt(value={"ask": 1}, id="i"),
        Command(update={"a": 1}, goto="node"),
        Send("node", {"a": Pair(1, 2)}),
        Send("node", 1, timeout=3),
        re.compile("a+", re.IGNORECASE),
        pathlib.Path("a/b"),
        ipaddress.ip_network("10.0.0.0/8"),
        zoneinfo.ZoneInfo("UTC"),
        {1, 2},
        decimal.Decimal("1.50"),
        datetime.time(1, 2, tzinfo=datetime.UTC),
        uuid.UUID(int=5),
        _DeltaSnapshot([HumanMessage("a", id="1")]),
        bytearray(b"bytes"),
        {1: "a", (1, 2)[0]: "b"},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_graphs_keep_comes_back(value: Any) -> None:
    found = round_trip(value)

    assert found == value
    assert type(found) is type(value)


def test_fields_that_init_does_not_take_come_back() -> None:
    frozen = Frozen("a")
    object.__setattr__(frozen, "derived", "kept")
    point = Point(-3)
    point.norm = 99

    assert round_trip(frozen).derived == "kept"
    assert round_trip(point).norm == 99


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="pydantic.v1 does not work there")
def test_models_of_pydantic_1_come_back() -> None:
    from pydantic import v1 as pydantic_v1

    made = types.ModuleType(HERE + "_v1")
    model = type(
        "Old", (pydantic_v1.BaseModel,), {"__annotations__": {"a": int}, "__module__": made.__name__}
    )
    made.Old = model  # type: ignore[attr-defined]
    sys.modules[made.__name__] = made
    try:
        assert round_trip(model(a=1)) == model(a=1)
    finally:
        del sys.modules[made.__name__]


def test_a_model_that_no_longer_validates_comes_back_as_it_was() -> None:
    invalid = Positive.model_construct(number=-1)

    assert round_trip(invalid).number == -1


def test_a_class_that_no_longer_takes_what_was_stored_is_an_error() -> None:
    stored = payload(jsonplus.EXT_CONSTRUCTOR_KW_ARGS, HERE, "Pair", {"left": 1, "middle": 2})

    with pytest.raises(UnreadableValue, match=r"Pair does not accept what was stored.*middle"):
        SERDE.loads_typed(stored)


def test_an_enum_member_that_is_gone_is_an_error_that_does_not_quote_it() -> None:
    stored = payload(jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG, HERE, "Colour", "private-shade")

    with pytest.raises(UnreadableValue, match="Colour") as raised:
        SERDE.loads_typed(stored)
    assert "private-shade" not in str(raised.value)


def test_a_local_class_is_refused_with_advice_and_can_be_allowed() -> None:
    @dataclasses.dataclass
    class Local:
        a: int

    stored = SERDE.dumps_typed(Local(1))

    with pytest.raises(UntrustedType, match=r"allowed_types=\[Local"):
        SERDE.loads_typed(stored)
    assert TenureSerializer(allowed_types=[Local]).loads_typed(stored) == Local(1)


def test_a_class_of_a_module_that_is_not_imported_says_so() -> None:
    with pytest.raises(UntrustedType, match="not imported"):
        SERDE.loads_typed(payload(jsonplus.EXT_CONSTRUCTOR_KW_ARGS, "tests.absent", "State", {}))


def test_allowed_types_make_the_list_exact() -> None:
    serde = TenureSerializer(allowed_types=[Point, (HERE, "Colour")])

    assert round_trip([Point(1), Colour.RED, HumanMessage("a", id="1")], serde)
    with pytest.raises(UntrustedType, match="allowed_types"):
        round_trip(Pair(1, 2), serde)


def test_an_empty_list_allows_langgraphs_types_only() -> None:
    serde = TenureSerializer(allowed_types=[])

    assert round_trip({1, 2}, serde) == {1, 2}
    with pytest.raises(UntrustedType):
        round_trip(Point(1), serde)


def test_an_allowed_subclass_of_datetime_comes_back() -> None:
    stamp = Stamp(2025, 1, 2)

    with pytest.raises(UntrustedType):
        round_trip(stamp)
    found = round_trip(stamp, TenureSerializer(allowed_types=[Stamp]))
    assert type(found) is Stamp
    assert found == stamp


def test_the_strict_variable_allows_only_what_the_graph_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_msgpack, "STRICT_MSGPACK_ENABLED", True)
    strict = TenureSerializer()

    with pytest.raises(UntrustedType):
        round_trip(Point(1), strict)
    declared = strict.with_msgpack_allowlist([(HERE, "Point")])
    assert round_trip(Point(1), declared) == Point(1)
    with pytest.raises(UntrustedType):
        round_trip(Pair(1, 2), declared)
    with pytest.raises(UntrustedType):
        round_trip(Point(1), strict)


def test_an_allowlist_that_adds_nothing_changes_nothing() -> None:
    serde = TenureSerializer(allowed_types=[Point])

    assert serde.with_msgpack_allowlist([Point]) is serde


def test_a_clone_with_allowlist_shares_the_connection() -> None:
    saver = TenureSaver("127.0.0.1:1", api_key="tn_x")

    clone = saver.with_allowlist([(HERE, "Plain")])

    assert isinstance(clone, TenureSaver)
    assert clone.connection is saver.connection
    assert clone.serde is not saver.serde


def test_it_can_be_encrypted() -> None:
    class Xor:
        def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
            return "xor", bytes(byte ^ 7 for byte in plaintext)

        def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
            return bytes(byte ^ 7 for byte in ciphertext)

    saver = TenureSaver("127.0.0.1:1", api_key="tn_x", serde=EncryptedSerializer(Xor(), SERDE))
    clone = saver.with_allowlist([(HERE, "Plain")])

    assert clone.serde.loads_typed(clone.serde.dumps_typed(Point(1))) == Point(1)


def test_a_given_serializer_is_used_as_it_is() -> None:
    mine = jsonplus.JsonPlusSerializer()

    assert TenureSaver("127.0.0.1:1", api_key="tn_x", serde=mine).serde is mine
