"""The default serializer: a payload can neither import nor call what it names, nor be half understood."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.serde import jsonplus
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from tenure_client import TenureSerializer, UnreadableValue, UntrustedType

from tests.unit.client.states import HERE, payload

SERDE = TenureSerializer()
CONSTRUCTORS = [
    jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG,
    jsonplus.EXT_CONSTRUCTOR_POS_ARGS,
    jsonplus.EXT_CONSTRUCTOR_KW_ARGS,
    jsonplus.EXT_PYDANTIC_V1,
    jsonplus.EXT_PYDANTIC_V2,
]


def naming(code: int, module: str, name: str) -> tuple[str, bytes]:
    argument: Any = {} if code in CONSTRUCTORS[2:] else []
    return payload(code, module, name, argument, "fromisoformat")


_watched: list[str] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is not None and event.split(".")[0] in {
        "import", "exec", "compile", "open", "os", "subprocess", "socket", "pickle", "marshal", "ctypes"
    }:  # fmt: skip
        _watched.append(f"{event} {arguments[:1]}")


@contextmanager
def nothing_happens() -> Iterator[None]:
    """Fail if the block imports, compiles, opens or starts anything."""
    global _watched
    if not getattr(_audit, "installed", False):
        sys.addaudithook(_audit)
        _audit.installed = True  # type: ignore[attr-defined]
    modules = set(sys.modules)
    _watched = []
    try:
        yield
    finally:
        events, _watched = _watched, None
    assert events == []
    assert set(sys.modules) == modules


DANGEROUS = [
    ("os", "system"),
    ("subprocess", "Popen"),
    ("subprocess", "CompletedProcess"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "open"),
    ("builtins", "__import__"),
    ("builtins", "dict"),
    ("importlib", "import_module"),
    ("pickle", "loads"),
    ("pathlib", "Path.unlink"),
    ("antigravity", "fly"),
    ("this", "s"),
    ("tests.absent", "Thing"),
    (HERE, "Plain"),
    (HERE, "payload"),
    (HERE, "HERE"),
    (HERE, "pydantic"),
    (HERE, "absent"),
    (HERE, "Point.__init__"),
    ("", ""),
    ("pydantic", "BaseModel.parse_file"),
    ("datetime", "datetime.now"),
]


@pytest.mark.parametrize("code", [*CONSTRUCTORS, jsonplus.EXT_METHOD_SINGLE_ARG])
@pytest.mark.parametrize(("module", "name"), DANGEROUS, ids=lambda part: part or "empty")
def test_a_payload_cannot_import_or_call_what_it_names(code: int, module: str, name: str) -> None:
    hostile = naming(code, module, name)

    with nothing_happens(), pytest.raises(UntrustedType):
        SERDE.loads_typed(hostile)


@pytest.mark.parametrize("method", ["now", "__class__", "fromtimestamp", "__reduce__"])
@pytest.mark.parametrize("name", ["datetime", "date"])
def test_only_one_method_may_be_named(name: str, method: str) -> None:
    hostile = payload(jsonplus.EXT_METHOD_SINGLE_ARG, "datetime", name, "2025-01-01", method)

    with nothing_happens(), pytest.raises(UntrustedType, match="method"):
        SERDE.loads_typed(hostile)


def test_a_refusal_deep_inside_is_not_swallowed() -> None:
    hostile = ormsgpack.packb(("os", "system", ["true"]))
    inner = ormsgpack.packb((HERE, "Point", {"x": 1, "y": ormsgpack.Ext(1, hostile)}))
    outer = ormsgpack.packb({"a": [1, ormsgpack.Ext(jsonplus.EXT_CONSTRUCTOR_KW_ARGS, inner)]})

    with nothing_happens(), pytest.raises(UntrustedType) as raised:
        SERDE.loads_typed(("msgpack", outer))
    assert raised.value.name == "os.system"


def test_a_lazy_module_is_not_made_to_import() -> None:
    module = types.ModuleType("tenure_test_lazy")
    module.__getattr__ = lambda name: pytest.fail(f"asked for {name}")  # type: ignore[method-assign]
    sys.modules[module.__name__] = module
    try:
        with pytest.raises(UntrustedType):
            SERDE.loads_typed(naming(2, module.__name__, "Thing"))
    finally:
        del sys.modules[module.__name__]


@pytest.mark.parametrize("tag", ["json", "pickle"])
def test_formats_that_can_name_anything_are_refused(tag: str) -> None:
    with nothing_happens(), pytest.raises(UntrustedType, match=tag):
        SERDE.loads_typed(
            (tag, b'{"lc": 2, "type": "constructor", "id": ["os", "system"], "args": ["true"]}')
        )


def test_an_unknown_tag_says_what_is_missing() -> None:
    with pytest.raises(UnreadableValue, match="serde="):
        SERDE.loads_typed(("msgpack+aes", b""))


@given(
    st.integers(0, 127),
    st.recursive(
        st.none() | st.text("abos.", max_size=3) | st.binary(max_size=3) | st.integers(0, 9),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab"), inner, max_size=2),
        max_leaves=6,
    ),
)
def test_damaged_objects_are_errors_of_ours(code: int, content: Any) -> None:
    data = "msgpack", ormsgpack.packb(ormsgpack.Ext(code, ormsgpack.packb(content)))

    if code == jsonplus.EXT_DELTA_SNAPSHOT:
        assert SERDE.loads_typed(data) == _DeltaSnapshot(content)
    else:
        with pytest.raises((UntrustedType, UnreadableValue)):
            SERDE.loads_typed(data)


@given(st.binary(max_size=50))
def test_any_bytes_are_a_value_or_an_error_of_ours(data: bytes) -> None:
    try:
        SERDE.loads_typed(("msgpack", data))
    except (UntrustedType, UnreadableValue) as error:
        assert str(error)  # noqa: PT017


def test_a_payload_cannot_exhaust_the_stack() -> None:
    data = ormsgpack.packb(None)
    for _ in range(5000):
        data = ormsgpack.packb(ormsgpack.Ext(jsonplus.EXT_DELTA_SNAPSHOT, data))

    with pytest.raises(UnreadableValue):
        SERDE.loads_typed(("msgpack", data))
