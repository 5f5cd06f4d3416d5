"""Large values that grow and change come back from TenureSaver as from InMemorySaver, whatever clients hold.

Two clients take turns, so that each holds values that are older than the other's, or gone. InMemorySaver can
neither prune nor copy: what is left of a pruned thread is asked of Tenure, and must be what it was.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from tenure_client import payloads

from tests.harness.stack import Stack
from tests.property.profiles import SLOW
from tests.property.saver_comparison import Comparison, colours, config_of, which

EXAMPLES, STEPS = (300, 50) if SLOW else (25, 20)

clients = st.sampled_from([0, 1])
threads = st.sampled_from(["t", "u"])
namespaces = st.sampled_from(["", "", "child:1"])
channels = st.sampled_from(["messages", "x"])
changes = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "insert", "replace", "remove"]),
        st.integers(0, 30),
        st.sampled_from([20, 700, 5000, 9000]),
    ),
    min_size=1,
    max_size=6,
)
"""What becomes of a list of texts: how, where, and the length of what is new."""
MOST_BYTES = 40 * 1024
"""Bytes of the largest list."""


class LargeValues(Comparison):
    """Lists of texts of up to 40 KiB, by two clients that know nothing of each other."""

    @rule(
        client=clients,
        colour=colours,
        thread=threads,
        ns=namespaces,
        parent=st.none() | which,
        channel=channels,
        steps=st.lists(changes, min_size=1, max_size=4),
        seed=st.integers(0, 1000),
    )
    def put_grown(
        self,
        client: int,
        colour: str,
        thread: str,
        ns: str,
        parent: int | None,
        channel: str,
        steps: list[list[tuple[str, int, int]]],
        seed: int,
    ) -> None:
        """Put some steps of a graph, from any checkpoint, in which a list grows or changes."""
        self.saver = self.savers[client]
        before = self.choose(parent, thread, ns)
        for changes in steps:
            value = changed(before["channel_values"].get(channel) if before else None, changes, seed)
            checkpoint = self.child_of(before, {channel: value}, set(), set(), set())
            self.put_child(colour, thread, ns, before, checkpoint, {"source": "loop"})
            before, seed = checkpoint, seed + 1

    @rule(
        client=clients,
        colour=colours,
        thread=threads,
        ns=namespaces,
        how=st.sampled_from(["deleted", "pruned", "copied over"]),
        seed=st.integers(0, 1000),
    )
    def put_after_the_base_went(
        self, client: int, colour: str, thread: str, ns: str, how: str, seed: int
    ) -> None:
        """Put a list, let the other client do away with it, and put a longer one."""
        self.saver = self.savers[client]
        first = self.child_of(
            None, {"messages": changed(None, [("append", 0, 12_000)], seed)}, set(), set(), set()
        )
        self.put_child(colour, thread, ns, None, first, {"source": "input"})
        self.saver = self.savers[1 - client]
        if how == "deleted":
            self.remove_thread(colour, thread)
        elif how == "pruned":
            short = self.child_of(first, {"messages": []}, set(), set(), set())
            self.put_child(colour, thread, ns, first, short, {"source": "loop"})
            self.prune_thread(colour, thread)
        else:
            self.copy_over(colour, "u" if thread == "t" else "t", thread)
        self.saver = self.savers[client]
        longer = changed(first["channel_values"]["messages"], [("append", 0, 3000)], seed + 1)
        second = self.child_of(None, {"messages": longer}, set(), set(), set())
        self.put_child(colour, thread, ns, None, second, {"source": "input"})

    @precondition(lambda self: self.known)
    @rule(client=clients, index=which)
    def get(self, client: int, index: int) -> None:
        self.saver = self.savers[client]
        name = self.known[index % len(self.known)]
        self.same("get_tuple", config_of(*name))
        self.same("get_tuple", config_of(*name[:2]))

    @rule(client=clients)
    def begin_anew(self, client: int) -> None:
        """Go on as a client that has just been started."""
        self.savers[client].connection.held.clear()

    @rule(client=clients, colour=colours, thread=threads)
    def delete_thread(self, client: int, colour: str, thread: str) -> None:
        self.saver = self.savers[client]
        self.remove_thread(colour, thread)

    @rule(client=clients, colour=colours, thread=threads)
    def prune(self, client: int, colour: str, thread: str) -> None:
        self.saver = self.savers[client]
        self.prune_thread(colour, thread)

    @rule(client=clients, colour=colours, source=threads, onto=threads)
    def copy_thread(self, client: int, colour: str, source: str, onto: str) -> None:
        self.saver = self.savers[client]
        self.copy_over(colour, source, onto)


def changed(value: Any, changes: list[tuple[str, int, int]], seed: int) -> list[str]:
    """Return a list of texts with changes; another value counts as an empty one."""
    texts = [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
    made = random.Random(seed)
    for how, place, length in changes:
        start = len(texts) if how == "append" else min(place, len(texts))
        new = [] if how == "remove" else [made.randbytes(length // 2).hex()]
        texts[start : start + (how in {"replace", "remove"})] = new
    while sum(map(len, texts)) > MOST_BYTES:
        texts = texts[1:]
    return texts


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts how values were told, so that none of the ways is left out unseen."""
    counted: Counter[str] = Counter()
    tell, tell_whole, apply = payloads.tell, payloads.tell_whole, payloads.apply

    def tell_spy(edit: Any, *args: Any) -> Any:
        value = tell(edit, *args)
        counted["put as a change" if edit.base_version else "put with all chunks"] += 1
        return value

    def tell_whole_spy(*args: Any) -> Any:
        counted["base was gone"] += 1
        return tell_whole(*args)

    def apply_spy(edit: Any, *args: Any) -> Any:
        counted["got as a change" if edit.base_version else "got with all chunks"] += 1
        return apply(edit, *args)

    monkeypatch.setattr(payloads, "tell", tell_spy)
    monkeypatch.setattr(payloads, "tell_whole", tell_whole_spy)
    monkeypatch.setattr(payloads, "apply", apply_spy)
    return counted


@pytest.mark.timeout(3600 if SLOW else 180)
def test_large_values_behave_as_in_memory_saver(
    stack: Stack, runner: asyncio.Runner, seen: Counter[str]
) -> None:
    class Machine(LargeValues):
        pass

    Machine.stack, Machine.runner = stack, runner
    run_state_machine_as_test(Machine, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS))

    assert set(seen) == {
        "put as a change",
        "put with all chunks",
        "base was gone",
        "got as a change",
        "got with all chunks",
    }, seen
