"""Namespaces as one text, which sorts as their labels do, and the ranges of such texts.

Labels are joined by "\\x01\\x01"; "\\x01" within a label is told as "\\x01\\x02". So a label that ends sorts
before one that goes on, and what lies in or below a namespace is everything from its text up to the text
followed by "\\x01\\x02". See 0006_items.sql for why this is no array.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tenure_server.items import Namespace

_SEPARATOR = "\x01\x01"
_ESCAPED = "\x01\x02"
_END = "\U0010ffff" * 257
"""Sorts after every namespace: they have at most 1,024 bytes of labels."""

Ranges = list[tuple[str, str]]
"""First text, and the one that comes after the last."""


def encoded(labels: Iterable[str]) -> str:
    """Return the text that stands for a namespace."""
    return _SEPARATOR.join(
        [label.replace("\x01", _ESCAPED) if "\x01" in label else label for label in labels]
    )


def decoded(text: str) -> Namespace:
    """Return the namespace of a text."""
    if not text:
        return ()
    return tuple(label.replace(_ESCAPED, "\x01") for label in text.split(_SEPARATOR))


def ranges(prefix: Namespace, within: Sequence[Namespace] | None) -> Ranges:
    """Return where the namespaces lie that are below a prefix and below one of `within`, if that is given.

    The ranges do not overlap; there are none if nothing can be there.
    """
    below = {prefix}
    if within is not None:
        below = {
            max(prefix, limit, key=len)
            for limit in within
            if all(one == other for one, other in zip(prefix, limit, strict=False))
        }
    widest = [one for one in below if not any(one[:length] in below for length in range(len(one)))]
    return sorted(_range(labels) for labels in widest)


def _range(labels: Namespace) -> tuple[str, str]:
    first = encoded(labels)
    return (first, first + _ESCAPED) if labels else ("", _END)
