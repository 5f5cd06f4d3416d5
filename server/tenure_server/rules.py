"""What a limited API key may reach: threads and namespaces by their prefixes, to read or to write.

A key without any rule is not limited. A key with at least one may do exactly what its rules say: without a
rule for threads it reaches no thread, without one for namespaces no item. Scopes apply as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeVar
from urllib.parse import unquote

from tenure_server import errors

MAX_RULES: Final = 64
"""Rules of one key; each request is held against all of them."""
_MAX_PREFIX_BYTES: Final = {"threads": 512, "namespaces": 1024}
_MAX_LABELS = 32
_ALL = "*"
_SPECIAL = re.compile(r"[%*\x00-\x20\x7f]")
_SPECIAL_IN_LABELS = re.compile(r"[%*:/\x00-\x20\x7f]")
_NO_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

Prefix = TypeVar("Prefix", str, tuple[str, ...])


class Access(Enum):
    """What a rule allows; who may write may read."""

    READ = "r"
    WRITE = "rw"


@dataclass(frozen=True, slots=True)
class ThreadRule:
    """Access to the threads whose id starts with `prefix`, bytewise; "" = all threads."""

    prefix: str
    access: Access


@dataclass(frozen=True, slots=True)
class NamespaceRule:
    """Access to the namespace `prefix` and those below it, label by label; () = all namespaces."""

    prefix: tuple[str, ...]
    access: Access


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules of a key, at least one; what none of them allows is refused."""

    threads: Sequence[ThreadRule]
    namespaces: Sequence[NamespaceRule]

    def __post_init__(self) -> None:
        if not self.threads and not self.namespaces:
            # Stored, they would be those of a key that is not limited.
            raise ValueError("there is no rule; None stands for a key without rules")

    def check_thread(self, thread_id: str, *, write: bool, field: str) -> None:
        """Check that the key may read, or write, a thread, be it there or not.

        Raises:
            OutsideRules: It may not; the error names `field`.
        """
        if not self._allow_thread(thread_id, write):
            raise errors.OutsideRules(field, _verb(write))

    def check_every_thread(self, *, write: bool, field: str) -> None:
        """Check that the key may read, or write, whatever thread there is.

        Raises:
            OutsideRules: It may not; the error names `field`.
        """
        if not self._allow_thread("", write):
            raise errors.OutsideRules(
                field, _verb(write), "every thread, as this needs; name threads instead"
            )

    def check_namespace(self, namespace: tuple[str, ...], *, write: bool, field: str) -> None:
        """Check that the key may read, or write, the items of a namespace and of those below it.

        Raises:
            OutsideRules: It may not; the error names `field`.
        """
        for rule in self.namespaces:
            if namespace[: len(rule.prefix)] == rule.prefix and _allows(rule.access, write):
                return
        raise errors.OutsideRules(field, _verb(write))

    def readable_thread_prefixes(self, within: str = "") -> Sequence[str] | None:
        """Return prefixes of the threads that start with `within` and may be read; None = all of those.

        Sorted, and none of them starts with another: each thread has one of them at most.
        """
        prefixes = _outermost([rule.prefix for rule in self.threads])
        if any(within.startswith(prefix) for prefix in prefixes):
            return None
        return [prefix for prefix in prefixes if prefix.startswith(within)]

    def readable_namespaces(self) -> Sequence[tuple[str, ...]] | None:
        """Return the namespaces that may be read with all below, sorted, none below another; None = all."""
        namespaces = _outermost([rule.prefix for rule in self.namespaces])
        return None if namespaces == [()] else namespaces

    def format(self) -> list[str]:
        """Return the text of each rule, from which `parse` makes the same rules."""
        threads = [(_SPECIAL.sub(_escape, rule.prefix), rule.access) for rule in self.threads]
        namespaces = [
            ("/".join(_SPECIAL_IN_LABELS.sub(_escape, label) for label in rule.prefix), rule.access)
            for rule in self.namespaces
        ]
        return [
            *(f"threads:{prefix or _ALL}:{access.value}" for prefix, access in threads),
            *(f"namespaces:{prefix or _ALL}:{access.value}" for prefix, access in namespaces),
        ]

    def _allow_thread(self, thread_id: str, write: bool) -> bool:
        # Asked for each operation, mostly of keys without rules.
        return self is UNLIMITED or any(
            thread_id.startswith(rule.prefix) and _allows(rule.access, write) for rule in self.threads
        )


UNLIMITED: Final = Rules((ThreadRule("", Access.WRITE),), (NamespaceRule((), Access.WRITE),))
"""What a key without rules may reach."""


def parse(texts: Sequence[str]) -> Rules | None:
    """Return the rules that `texts` say, one each: `threads:billing-:rw`, `namespaces:billing/eu:r`.

    "*" instead of a prefix stands for all. The characters "%" and "*", and in labels "/" and ":", too, are
    written as %25, %2A, %2F and %3A.

    Returns:
        The rules, None if there are none: the key is not limited.

    Raises:
        ValueError: A text is no rule; the message says what is wrong with it.
    """
    if len(texts) > MAX_RULES:
        raise ValueError(f"{len(texts)} rules: a key has at most {MAX_RULES}")
    threads: list[ThreadRule] = []
    namespaces: list[NamespaceRule] = []
    for text in texts:
        kind, _, rest = text.partition(":")
        prefix, _, access = rest.rpartition(":")
        try:
            if kind not in _MAX_PREFIX_BYTES:
                raise ValueError("must be threads:PREFIX:ACCESS or namespaces:LABEL/LABEL:ACCESS")
            allowed = _access(access)
            if kind == "threads":
                threads.append(ThreadRule(_thread_prefix(prefix), allowed))
            else:
                namespaces.append(NamespaceRule(_labels(prefix), allowed))
        except ValueError as error:
            raise ValueError(f"rule {text!r}: {error}") from None
    return Rules(tuple(threads), tuple(namespaces)) if texts else None


def _access(text: str) -> Access:
    try:
        return Access(text)
    except ValueError:
        raise ValueError('must end in ":r" (read) or ":rw" (read and write)') from None


def _thread_prefix(text: str) -> str:
    return "" if text == _ALL else _unescaped(text, "threads")


def _labels(text: str) -> tuple[str, ...]:
    if text == _ALL:
        return ()
    labels = tuple(_unescaped(label, "namespaces") for label in text.split("/"))
    if any("." in label for label in labels):
        raise ValueError('a label has no "."; labels are separated by "/"')
    if len(labels) > _MAX_LABELS or len("".join(labels).encode()) > _MAX_PREFIX_BYTES["namespaces"]:
        raise ValueError(
            f"a namespace has at most {_MAX_LABELS} labels and {_MAX_PREFIX_BYTES['namespaces']:,} bytes"
        )
    return labels


def _unescaped(text: str, kind: str) -> str:
    if not text:
        # An unset variable of a shell must not become access to everything.
        raise ValueError('the prefix or a label of it is empty; write "*" for all')
    if "*" in text:
        raise ValueError('a prefix needs no "*"; write %2A if the character is meant')
    if _NO_ESCAPE.search(text):
        raise ValueError(
            '"%" must be followed by two hexadecimal digits; write %25 if the character is meant'
        )
    try:
        plain = unquote(text, errors="strict")
        size = len(plain.encode())
    except UnicodeError:
        raise ValueError("is not valid UTF-8") from None
    if "\0" in plain:
        raise ValueError("has a NUL")
    if size > _MAX_PREFIX_BYTES[kind]:
        raise ValueError(f"is longer than {_MAX_PREFIX_BYTES[kind]:,} bytes")
    return plain


def _escape(found: re.Match[str]) -> str:
    return f"%{ord(found[0]):02X}"


def _outermost(prefixes: Sequence[Prefix]) -> list[Prefix]:
    """Return the prefixes that are below none of the others, sorted."""
    kept: list[Prefix] = []
    for prefix in sorted(prefixes):
        # Sorted, all that starts with a prefix comes right after it.
        if not kept or prefix[: len(kept[-1])] != kept[-1]:
            kept.append(prefix)
    return kept


def _allows(access: Access, write: bool) -> bool:
    return access is Access.WRITE or not write


def _verb(write: bool) -> str:
    return "write" if write else "read"
