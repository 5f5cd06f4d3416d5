"""Rules of limited keys: their text, and what they allow."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenure_server import errors, rules
from tenure_server.rules import MAX_RULES, UNLIMITED, Access, NamespaceRule, Rules, ThreadRule, parse

FEW = st.text("ab:/%*é\U0001f511 \n", max_size=4)
"""Text of few characters, so that prefixes meet."""
THREADS = st.builds(ThreadRule, FEW, st.sampled_from(Access))
LABELS = st.lists(FEW.filter(bool), max_size=3).map(tuple)
NAMESPACES = st.builds(NamespaceRule, LABELS, st.sampled_from(Access))
RULES = (
    st.tuples(st.lists(THREADS, max_size=4).map(tuple), st.lists(NAMESPACES, max_size=4).map(tuple))
    .filter(any)
    .map(lambda both: Rules(*both))
)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("threads:billing-:rw", ThreadRule("billing-", Access.WRITE)),
        ("threads:*:r", ThreadRule("", Access.READ)),
        ("threads:user:42/:r", ThreadRule("user:42/", Access.READ)),
        ("threads:50%25%2A:r", ThreadRule("50%*", Access.READ)),
        ("namespaces:billing/eu:rw", NamespaceRule(("billing", "eu"), Access.WRITE)),
        ("namespaces:*:rw", NamespaceRule((), Access.WRITE)),
        ("namespaces:a%2Fb/c%3Ad:r", NamespaceRule(("a/b", "c:d"), Access.READ)),
        ("namespaces:%2A/é:r", NamespaceRule(("*", "é"), Access.READ)),
    ],
)
def test_a_rule_and_its_text(text: str, rule: ThreadRule | NamespaceRule) -> None:
    parsed = parse([text])
    assert parsed is not None
    assert [*parsed.threads, *parsed.namespaces] == [rule]
    assert parsed.format() == [text]


@given(RULES)
def test_rules_come_back_from_their_text(wanted: Rules) -> None:
    assert parse(wanted.format()) == wanted
    assert all(text.isprintable() for text in wanted.format())


def test_no_text_is_no_limit_and_rules_without_a_rule_cannot_be_made() -> None:
    assert parse([]) is None
    with pytest.raises(ValueError, match="no rule"):
        Rules((), ())


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "billing",
            "billing-:rw",
            "items:billing:rw",
            "Threads:a:r",
            "threads",
            "threads:a",
            "threads:rw",
        ),
        *("threads:a:w", "threads:a:", "threads:a:RW", "threads:a:r ", "namespaces:a", "namespaces:a:rwx"),
        *("threads::rw", "namespaces::rw", "namespaces:a//b:r", "namespaces:/a:r", "namespaces:a/:r"),
        *("threads:billing-*:r", "namespaces:billing/*:r", "threads:%:r", "threads:%2:r", "threads:%zz:r"),
        *("threads:%FF:r", "threads:\udcff:r", "threads:%00:r", "threads:a\0:r", "namespaces:a.b:r"),
        *(f"threads:{'a' * 513}:r", f"threads:{'é' * 257}:r", f"namespaces:{'a' * 1025}:r"),
        *("namespaces:%2E:r", "namespaces:" + "/".join("a" * 33) + ":r"),
    ],
)
def test_what_is_no_rule_is_refused_not_read_as_access(text: str) -> None:
    with pytest.raises(ValueError, match=r"^rule "):
        parse(["threads:fine:r", text])


def test_a_key_has_not_too_many_rules() -> None:
    texts = [f"threads:{number}:r" for number in range(MAX_RULES + 1)]
    assert parse(texts[:-1]) is not None
    with pytest.raises(ValueError, match=str(MAX_RULES)):
        parse(texts)


@given(RULES, FEW, st.booleans())
def test_a_thread_is_allowed_by_any_rule_whose_prefix_it_has(limits: Rules, thread: str, write: bool) -> None:
    expected = any(
        thread.encode().startswith(rule.prefix.encode()) and (rule.access is Access.WRITE or not write)
        for rule in limits.threads
    )
    assert _allows(lambda: limits.check_thread(thread, write=write, field="thread_id")) is expected


@given(RULES, LABELS, st.booleans())
def test_a_namespace_is_allowed_by_any_rule_with_its_first_labels(
    limits: Rules, namespace: tuple[str, ...], write: bool
) -> None:
    expected = any(
        namespace in {rule.prefix, rule.prefix + namespace[len(rule.prefix) :]}
        and (rule.access is Access.WRITE or not write)
        for rule in limits.namespaces
    )
    assert _allows(lambda: limits.check_namespace(namespace, write=write, field="namespace")) is expected


@given(RULES, FEW, FEW)
def test_readable_prefixes_cover_the_readable_threads_once(limits: Rules, within: str, rest: str) -> None:
    thread = within + rest
    readable = _allows(lambda: limits.check_thread(thread, write=False, field="thread_id"))
    prefixes = limits.readable_thread_prefixes(within)
    if prefixes is None:
        assert readable
        return
    assert sum(thread.startswith(prefix) for prefix in prefixes) == int(readable)
    assert list(prefixes) == sorted(prefixes)


@given(RULES, LABELS)
def test_readable_namespaces_cover_what_is_readable_once(limits: Rules, namespace: tuple[str, ...]) -> None:
    readable = _allows(lambda: limits.check_namespace(namespace, write=False, field="namespace"))
    prefixes = limits.readable_namespaces()
    if prefixes is None:
        assert readable
        return
    assert sum(namespace[: len(prefix)] == prefix for prefix in prefixes) == int(readable)


@given(RULES, st.booleans())
def test_every_thread_needs_the_rule_for_all_threads(limits: Rules, write: bool) -> None:
    expected = any(not rule.prefix and (rule.access is Access.WRITE or not write) for rule in limits.threads)
    assert _allows(lambda: limits.check_every_thread(write=write, field="run_ids")) is expected


def test_without_rules_everything_is_allowed() -> None:
    for write in (False, True):
        UNLIMITED.check_thread("any", write=write, field="thread_id")
        UNLIMITED.check_every_thread(write=write, field="run_ids")
        UNLIMITED.check_namespace(("any",), write=write, field="namespace")
        UNLIMITED.check_namespace((), write=write, field="namespace")
    assert UNLIMITED.readable_thread_prefixes() is None
    assert UNLIMITED.readable_namespaces() is None


def test_a_refusal_names_the_field_and_neither_thread_nor_rule() -> None:
    limits = rules.parse(["threads:secret-:r"])
    assert limits is not None
    with pytest.raises(errors.OutsideRules) as caught:
        limits.check_thread("secret-1", write=True, field="ref.thread_id")
    assert caught.value.metadata == {"field": "ref.thread_id"}
    assert "secret" not in str(caught.value)
    assert "write" in str(caught.value)


def _allows(check: Callable[[], None]) -> bool:
    try:
        check()
    except errors.OutsideRules:
        return False
    return True
