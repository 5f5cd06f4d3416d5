"""The default serializer: LangGraph's own format, read without trusting what it names.

LangGraph's payloads name the classes to rebuild. `JsonPlusSerializer` imports and calls whatever they
name, or in strict mode hands out plain dicts where classes were. This one rebuilds a class only if

- it is on LangGraph's list of safe types, or in `allowed_types`, or
- (unless `allowed_types` or LANGGRAPH_STRICT_MSGPACK makes the list exact) its module is already imported
  and it is a data class, pydantic model, Enum or NamedTuple there,

and raises `UntrustedType` otherwise. Nothing else is imported or called.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import Enum
from types import ModuleType
from typing import Any

import ormsgpack
from langgraph.checkpoint.serde import _msgpack as langgraph_lists
from langgraph.checkpoint.serde import jsonplus
from langgraph.checkpoint.serde.event_hooks import emit_serde_event
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from tenure_client.errors import TenureError, UnreadableValue, UntrustedType

TypeName = tuple[str, ...]
"""(module, name) of a class."""

_MAX_DEPTH = 256
"""Nested objects in one payload: a hostile one must not exhaust the stack."""
_SECRETS = frozenset({("pydantic.types", "SecretStr"), ("pydantic.types", "SecretBytes")})
_SEND = ("langgraph.types", "Send")


class TenureSerializer(JsonPlusSerializer):
    """Reads and writes LangGraph's msgpack format; see the module's text for what it rebuilds.

    Args:
        allowed_types: Classes, or (module, name), that payloads may name beside LangGraph's safe types;
            if given, the list is exact. A class given as such is found even if it is local to a function.
    """

    def __init__(self, *, allowed_types: Iterable[type | TypeName] | None = None) -> None:
        # The base class's own reading code is replaced as a whole: it has nothing to allow.
        super().__init__(allowed_msgpack_modules=None)
        self._exact = allowed_types is not None or langgraph_lists.STRICT_MSGPACK_ENABLED
        self._allowed: dict[TypeName, type | None] = dict(map(_entry, allowed_types or ()))

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Return the value of a payload.

        Raises:
            UntrustedType: It names a class that is not trusted, or is in a format that can name any.
            UnreadableValue: It is damaged, or its class no longer accepts what was stored.
        """
        tag, content = data
        if tag == "msgpack":
            return _Reader(self._find).read(content)
        if tag == "null":
            return None
        if tag == "bytes":
            return content
        if tag == "bytearray":
            return bytearray(content)
        if tag in {"json", "pickle"}:
            raise UntrustedType(
                f"a {tag} payload",
                "that format can name anything to be called; pass your own serde= to read it",
            )
        raise UnreadableValue(f"no serializer for payloads of type {tag!r}; pass the serde= that wrote them")

    def with_msgpack_allowlist(self, extra_allowlist: Iterable[TypeName | type]) -> TenureSerializer:
        """Return a serializer that also allows these.

        LangGraph calls it with the types of a graph's state when LANGGRAPH_STRICT_MSGPACK is set.
        """
        extra = {key: cls for key, cls in map(_entry, extra_allowlist) if key not in self._allowed}
        if not extra:
            return self
        clone = copy.copy(self)
        clone._allowed = self._allowed | extra
        return clone

    def _find(self, name: TypeName) -> Any:
        if name in langgraph_lists.SAFE_MSGPACK_TYPES:
            return _imported(name)
        if name in self._allowed:
            return self._allowed[name] or _imported(name)
        if not self._exact:
            cls = _present(name)
            if cls is not None:
                return cls
        raise self._refused(name)

    def _refused(self, name: TypeName) -> UntrustedType:
        module, attribute = name
        emit_serde_event({"kind": "msgpack_blocked", "module": module, "name": attribute})
        if self._exact:
            advice = (
                f"it is not in allowed_types; add the class, or ({module!r}, {attribute!r}), to "
                "TenureSaver(allowed_types=[...])"
            )
        elif module not in sys.modules:
            advice = f"the module {module!r} is not imported; import it before the checkpoint is read"
        else:
            advice = (
                f"{module!r} has no data class, pydantic model, Enum or NamedTuple of that name at its top "
                f"level; move it there, or pass TenureSaver(allowed_types=[{attribute}, ...])"
            )
        return UntrustedType(f"{module}.{attribute}", advice)


def _entry(given: type | TypeName) -> tuple[TypeName, type | None]:
    if isinstance(given, type):
        return (given.__module__, given.__name__), given
    return tuple(given), None


def _imported(name: TypeName) -> Any:
    """Return a class from LangGraph's or the user's own list; its module may be imported."""
    try:
        return getattr(importlib.import_module(name[0]), name[1])
    except (ImportError, AttributeError) as error:
        raise UnreadableValue(f"{name[0]}.{name[1]} cannot be imported here: {error}") from None


def _present(name: TypeName) -> type | None:
    """Return a class of an imported module if it is of a kind that only holds data."""
    module = sys.modules.get(name[0])
    if not isinstance(module, ModuleType):
        return None
    # Not getattr: a module's __getattr__ may import.
    cls = vars(module).get(name[1])
    if not isinstance(cls, type):
        return None
    if dataclasses.is_dataclass(cls) or issubclass(cls, Enum) or _is_namedtuple(cls) or _is_model(cls):
        return cls
    return cls if name in _SECRETS else None


def _is_namedtuple(cls: type) -> bool:
    return issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple)


def _is_model(cls: type) -> bool:
    bases = (_loaded("pydantic", "BaseModel"), _loaded("pydantic.v1", "BaseModel"))
    return any(isinstance(base, type) and issubclass(cls, base) for base in bases)


def _loaded(module: str, name: str) -> Any:
    # pydantic's own names are lazy attributes, so this getattr is wanted; it names nothing foreign.
    return getattr(sys.modules.get(module), name, None)


class _Reader:
    """Reads one payload.

    ormsgpack replaces whatever an ext hook raises by "ext_hook failed", so the first failure is kept here.
    """

    def __init__(self, find: Callable[[TypeName], Any]) -> None:
        self._find = find
        # A list of messages names the same few classes thousands of times.
        self._found: dict[TypeName, Any] = {}
        self._failure: BaseException | None = None
        self._depth = 0

    def read(self, content: bytes) -> Any:
        try:
            return self._unpack(content)
        except (ValueError, RecursionError) as error:
            cause = self._failure or error
            if isinstance(cause, TenureError) or not isinstance(cause, Exception):
                raise cause from None
            raise UnreadableValue(f"the payload is damaged ({type(cause).__name__})") from None

    def _unpack(self, content: bytes) -> Any:
        return ormsgpack.unpackb(content, ext_hook=self._hook, option=ormsgpack.OPT_NON_STR_KEYS)

    def _hook(self, code: int, content: bytes) -> Any:
        self._depth += 1
        try:
            if self._depth > _MAX_DEPTH:
                raise UnreadableValue(f"the payload nests objects more than {_MAX_DEPTH} deep")
            return self._revive(code, content)
        except BaseException as error:
            self._failure = self._failure or error
            raise
        finally:
            self._depth -= 1

    def _revive(self, code: int, content: bytes) -> Any:
        if code == jsonplus.EXT_DELTA_SNAPSHOT:
            return _DeltaSnapshot(self._unpack(content))
        if code == jsonplus.EXT_NUMPY_ARRAY:
            return _array(*self._unpack(content))
        if code not in _BUILDERS:
            raise UnreadableValue(f"the payload has an object of unknown kind {code}")
        module, attribute, argument, *method = ormsgpack.unpackb(
            content, ext_hook=self._hook, option=ormsgpack.OPT_NON_STR_KEYS
        )
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise UnreadableValue("the payload names a class by something that is not text")
        if code == jsonplus.EXT_METHOD_SINGLE_ARG:
            target = self._method(module, attribute, method)
        else:
            target = self._found.get((module, attribute))
            if target is None:
                target = self._found[module, attribute] = self._find((module, attribute))
        try:
            return _BUILDERS[code](target, argument)
        except Exception as error:
            # Only the text of a TypeError, which speaks of parameters: others may quote the state.
            cause = f"TypeError: {error}" if isinstance(error, TypeError) else type(error).__name__
            raise UnreadableValue(
                f"{module}.{attribute} does not accept what was stored ({cause}); give new fields a default "
                "and keep old ones readable"
            ) from None

    def _method(self, module: str, attribute: str, method: list[Any]) -> Any:
        safe = (module, attribute, *method) in langgraph_lists.SAFE_MSGPACK_METHODS
        cls = _imported((module, attribute)) if safe else self._find((module, attribute))
        # An allowed subclass of datetime is written the same way as datetime itself.
        if not safe and not (
            method == ["fromisoformat"] and isinstance(cls, type) and issubclass(cls, datetime)
        ):
            emit_serde_event(
                {"kind": "msgpack_method_blocked", "module": module, "name": attribute, "method": str(method)}
            )
            raise UntrustedType(f"{module}.{attribute}", "it is to be made by a method, which is not allowed")
        return getattr(cls, method[0])


def _array(dtype: str, shape: list[int], order: Any, data: bytes) -> Any:
    try:
        numpy = importlib.import_module("numpy")
    except ImportError:
        raise UnreadableValue("the payload holds a numpy array, but numpy is not installed here") from None
    return numpy.frombuffer(data, dtype=numpy.dtype(dtype)).reshape(shape, order=order)


def _from_args(cls: Any, args: Any) -> Any:
    if (getattr(cls, "__module__", None), getattr(cls, "__name__", None)) == _SEND and len(args) == 3:
        return cls(args[0], args[1], timeout=args[2])
    return cls(*args)


def _from_fields(cls: Any, fields: Mapping[str, Any]) -> Any:
    """Make a data class or named tuple; fields that its __init__ does not take are set afterwards."""
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        return cls(**fields)
    later = {field.name for field in dataclasses.fields(cls) if not field.init} & fields.keys()
    made = cls(**{name: value for name, value in fields.items() if name not in later})
    for name in later:
        object.__setattr__(made, name, fields[name])
    return made


def _model(construct: str) -> Callable[[Any, Any], Any]:
    def build(cls: Any, fields: Any) -> Any:
        if not isinstance(fields, dict):  # a RootModel
            return cls(fields)
        try:
            return cls(**fields)
        except Exception:
            # As LangGraph does: the state was valid once, the model's rules may have changed since.
            return getattr(cls, construct)(**fields)

    return build


_BUILDERS: Mapping[int, Callable[[Any, Any], Any]] = {
    jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG: lambda cls, argument: cls(argument),
    jsonplus.EXT_CONSTRUCTOR_POS_ARGS: _from_args,
    jsonplus.EXT_CONSTRUCTOR_KW_ARGS: _from_fields,
    jsonplus.EXT_METHOD_SINGLE_ARG: lambda method, argument: method(argument),
    jsonplus.EXT_PYDANTIC_V1: _model("construct"),
    jsonplus.EXT_PYDANTIC_V2: _model("model_construct"),
}
