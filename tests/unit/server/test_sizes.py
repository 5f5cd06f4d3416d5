"""Sizes and numbers as people write and read them."""

from __future__ import annotations

import click
import pytest
from tenure_server.commands.sizes import NONE, Count, Rate, Size, human


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("12 B", 12),
        ("1KiB", 1024),
        ("10 GiB", 10 * 1024**3),
        ("10gb", 10 * 1000**3),
        ("1.5 TiB", 3 * 1024**4 // 2),
        (" 1,000 kb ", 10**6),
        ("none", NONE),
    ],
)
def test_a_size_is_understood(text: str, size: object) -> None:
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize(("text", "count"), [("1,000", 1000), ("250k", 250_000), ("1.5M", 1_500_000)])
def test_a_number_is_understood(text: str, count: int) -> None:
    assert Count().convert(text, None, None) == count
    assert Rate().convert("0.25", None, None) == 0.25


@pytest.mark.parametrize("text", ["", "-1", "5 parsecs", "GiB", "1e3", "nan", "1 2", "1..5"])
def test_what_is_neither_is_refused(text: str) -> None:
    for kind in (Size(), Count(), Rate()):
        with pytest.raises(click.BadParameter, match="give a"):
            kind.convert(text, None, None)


def test_what_could_not_be_sent_as_it_was_meant_is_refused() -> None:
    for kind, text in ((Count(), "1.5"), (Size(), "9000 PiB"), (Size(none=False), "none")):
        with pytest.raises(click.BadParameter):
            kind.convert(text, None, None)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1 MiB"),
        (10 * 1024**3, "10 GiB"),
        (5000 * 1024**4, "5000 TiB"),
        (-2048, "-2 KiB"),
    ],
)
def test_a_size_is_shown_in_the_unit_that_fits(size: int, text: str) -> None:
    assert human(size) == text
