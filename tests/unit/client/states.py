"""Types that graphs keep in their state, for the tests of the serializer."""

from __future__ import annotations

import dataclasses
import datetime
from enum import Enum, IntEnum, StrEnum
from typing import Any, NamedTuple

import ormsgpack
import pydantic

HERE = __name__


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None
    norm: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        self.norm = abs(self.x)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    name: str
    tags: frozenset[str] = frozenset()
    derived: str = dataclasses.field(init=False, default="")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1


class Kind(StrEnum):
    SMALL = "small"


class Pair(NamedTuple):
    left: Any
    right: Any


class Inner(pydantic.BaseModel):
    colour: Colour
    secret: pydantic.SecretStr = pydantic.SecretStr("hidden")


class Model(pydantic.BaseModel):
    inner: Inner
    numbers: list[int]
    when: datetime.datetime | None = None


class Positive(pydantic.BaseModel):
    number: int = pydantic.Field(gt=0)


class Numbers(pydantic.RootModel[list[int]]):
    pass


class Plain:
    """Neither data class nor model: nothing says that it only holds data."""

    def __init__(self, text: str = "") -> None:
        self.text = text


class Stamp(datetime.datetime):
    """A subclass of datetime, as pandas has one."""


def payload(code: int, *content: Any) -> tuple[str, bytes]:
    """Return a payload with one object of LangGraph's format."""
    return "msgpack", ormsgpack.packb(ormsgpack.Ext(code, ormsgpack.packb(content)))
