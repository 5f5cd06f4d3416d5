"""Numbers and sizes as people write and read them: 10GiB, 1.5 GB, 250k."""

from __future__ import annotations

import re
from typing import Any, Final

import click

_FACTORS: Final = {
    "": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate(["", "k", "m", "g", "t", "p"])},
    **{f"{letter}ib": 1024**power for power, letter in enumerate(["k", "m", "g", "t", "p"], 1)},
}
_COUNTS: Final = {"": 1, "k": 1000, "m": 1_000_000, "g": 1_000_000_000}
_TEXT = re.compile(r"([\d_,]*\.?\d+)\s*([a-z]*)")
_MAX: Final = 2**63 - 1
NONE: Final = "none"
"""What takes a limit away."""


class _Amount(click.ParamType):  # type: ignore[type-arg]
    factors: dict[str, int]
    example: str

    def __init__(self, *, none: bool = True) -> None:
        """Make a type of options, whose values may be NONE if `none`."""
        self._none = none

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = str(value).strip().lower()
        if text == NONE and self._none:
            return NONE
        match = _TEXT.fullmatch(text)
        if match is None or match[2] not in self.factors:
            self.fail(f"{value!r}: give {self.example}{f', or {NONE}' if self._none else ''}", param, ctx)
        amount = self.number(float(match[1].replace(",", "").replace("_", "")) * self.factors[match[2]])
        if amount is None:
            self.fail(f"{value!r} is not whole", param, ctx)
        if amount > _MAX:
            self.fail(f"{value!r} is too large", param, ctx)
        return amount

    def number(self, amount: float) -> float | None:
        """Return the amount as it is sent, None if it cannot be."""
        return round(amount)


class Size(_Amount):
    """Bytes, or NONE, from texts such as 10GiB (1024), 10GB (1000) and 4096."""

    name = "size"
    factors = _FACTORS
    example = "a size such as 10GiB"


class Count(_Amount):
    """A whole number, or NONE, from texts such as 1000, 1,000 and 250k."""

    name = "number"
    factors = _COUNTS
    example = "a number such as 1000 or 250k"

    def number(self, amount: float) -> float | None:
        return round(amount) if amount.is_integer() else None


class Rate(Count):
    """A number that need not be whole, or NONE."""

    name = "rate"
    example = "a number a second such as 50 or 0.5"

    def number(self, amount: float) -> float | None:
        return amount


def human(size: int) -> str:
    """Return bytes as people read them: 10 GiB, 1.5 KiB, 12 B."""
    amount = float(abs(size))
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1023.95 or unit == "TiB":
            break
        amount /= 1024
    text = f"{amount:.0f}" if unit == "B" else f"{amount:.1f}".removesuffix(".0")
    return f"{'-' if size < 0 else ''}{text} {unit}"
