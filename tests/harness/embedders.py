"""A tiny embedder that needs no model: a text is near another one that has the same letters."""

from __future__ import annotations

from collections.abc import Sequence

LETTERS = "abcdefghijklmnopqrstuvwxyz "
DIMS = len(LETTERS)


def embed_letters(texts: Sequence[str]) -> list[list[float]]:
    """Return how often each text has each letter."""
    return [[float(text.lower().count(letter)) for letter in LETTERS] for text in texts]


async def aembed_letters(texts: Sequence[str]) -> list[list[float]]:
    """Return the same without blocking."""
    return embed_letters(texts)
