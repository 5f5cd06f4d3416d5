"""Random batches give the same results from TenureStore and from InMemoryStore, in both colours.

InMemoryStore is patched where Tenure differs on purpose, and only there: see `tests.harness.item_oracle`.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from langgraph.store.base import (
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchItem,
    SearchOp,
)
from tenure_client import TenureStore

from tests.harness.embedders import DIMS, embed_letters
from tests.harness.item_oracle import ItemOracle
from tests.harness.stack import Target
from tests.property.profiles import SLOW

EXAMPLES, STEPS = (500, 50) if SLOW else (50, 25)
INDEX: Any = {"dims": DIMS, "embed": embed_letters, "fields": ["text", "tags[*]"]}
ALL = 10**6
Place = tuple[tuple[str, ...], str]

colours = st.sampled_from(["sync", "async"])
labels = st.sampled_from(["acme", "acme-corp", "a", "A", "é", "*"])
# Few, so that what is written, deleted and put again is often the same.
namespaces = st.sampled_from(
    [("acme",), ("acme", "a"), ("acme", "é", "*"), ("acme-corp", "a"), ("a",), ("A", "acme"), ("*",)]
)
prefixes = st.lists(labels, max_size=2).map(tuple)
keys = st.sampled_from(["k", "", "é:|"])
scalars = st.sampled_from([None, True, False, 0, 1, 1.0, -1, 2.5, 2**53 + 1, "", "1", "a", "b", "é", "true"])
parts = scalars | st.sampled_from(
    [[], [1], [True], [1, "a"], [[1]], {}, {"x": 1}, {"x": {"y": None}}, {"x": "a"}]
)
texts = st.sampled_from(["", "a dog", "a god", "cats", "zebra", "!", "a dog and cats"])
values = st.fixed_dictionaries(
    {}, optional={"n": parts, "m": parts, "text": texts, "tags": st.lists(texts, max_size=3)}
)
operands = st.one_of(
    st.builds(lambda name, part: {name: part}, st.sampled_from(["$eq", "$ne"]), parts),
    st.builds(lambda name, scalar: {name: scalar}, st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), scalars),
    st.builds(lambda name, some: {name: some}, st.sampled_from(["$in", "$nin"]), st.lists(parts, max_size=3)),
    st.builds(lambda there: {"$exists": there}, st.booleans()),
)
several = st.lists(operands, min_size=1, max_size=2).map(
    lambda some: {k: v for one in some for k, v in one.items()}
)
conditions = st.recursive(
    parts | several,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["x", "y"]), inner, max_size=2)
    ),
    max_leaves=3,
)
filters = st.none() | st.dictionaries(st.sampled_from(["n", "m", "absent"]), conditions, max_size=2)
limits = st.sampled_from([0, 1, 2, 3, 10])
offsets = st.sampled_from([0, 0, 1, 3, 100])
gets = st.builds(GetOp, namespaces, keys)
puts = st.builds(
    PutOp,
    namespaces,
    keys,
    values,
    st.sampled_from([None, None, None, False, [], ["text"], ["tags[0]", "n"]]),
    ttl=st.sampled_from([None, 60.0]),
)
deletes = st.builds(lambda namespace, key: PutOp(namespace, key, None), namespaces, keys)
searches = st.builds(SearchOp, prefixes, filters, limits, offsets, st.none() | texts | st.just("dog"))
matches = st.builds(MatchCondition, st.sampled_from(["prefix", "suffix"]), prefixes)
listings = st.builds(
    ListNamespacesOp,
    st.lists(matches, max_size=2).map(tuple),
    st.none() | st.integers(0, 3),
    limits,
    offsets,
)


class Comparison(RuleBasedStateMachine):
    """Does everything with both stores and compares what comes back."""

    target: Target
    runner: asyncio.Runner
    seen: Counter[str]

    @initialize()
    def open_stores(self) -> None:
        self.oracle = ItemOracle(index=INDEX)
        api_key = self.target.new_tenant().api_key
        self.store = TenureStore(self.target.target, api_key=api_key, index=INDEX)
        self.deleted: set[Place] = set()
        self.emptied: set[tuple[str, ...]] = set()

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.runner.run(self.store.aclose())
            self.store.close()

    def do(self, colour: str, ops: list[Op]) -> list[Any]:
        """Do it with Tenure's store."""
        given = copy.deepcopy(ops)
        if colour == "sync":
            return self.store.batch(given)

        async def call() -> list[Any]:
            return await self.store.abatch(given)

        return self.runner.run(call())

    @rule(colour=colours, ops=st.lists(puts | deletes, min_size=1, max_size=6))
    def write(self, colour: str, ops: list[Op]) -> None:
        self.compare(colour, ops)

    @rule(colour=colours, ops=st.lists(gets | puts | deletes | searches | listings, min_size=1, max_size=6))
    def anything(self, colour: str, ops: list[Op]) -> None:
        self.compare(colour, ops)

    @rule(colour=colours, ops=st.lists(searches, min_size=1, max_size=3))
    def search(self, colour: str, ops: list[Op]) -> None:
        self.compare(colour, ops)

    @invariant()
    def hold_the_same(self) -> None:
        if hasattr(self, "store"):
            self.compare("sync", [SearchOp((), None, ALL), ListNamespacesOp(limit=ALL)])

    def compare(self, colour: str, ops: list[Op]) -> None:
        rankings = [
            self.oracle.batch([op._replace(limit=ALL, offset=0)])[0] if isinstance(op, SearchOp) else None
            for op in ops
        ]
        before = self.places()
        expected = self.oracle.batch(copy.deepcopy(ops))
        self.count(before)
        found = self.do(colour, ops)
        assert len(found) == len(expected)
        for op, got, wanted, ranking in zip(ops, found, expected, rankings, strict=True):
            if isinstance(op, SearchOp):
                assert_same_page(got, wanted, ranking, op)
            elif isinstance(wanted, Item):
                assert plain(got) == plain(wanted), op
            else:
                assert got == wanted, op

    def places(self) -> set[Place]:
        """Return where there are items."""
        found: Any = self.oracle.batch([SearchOp((), None, ALL)])[0]
        return {place(item) for item in found}

    def count(self, before: set[Place]) -> None:
        """Count what the order of searches depends on."""
        after = self.places()
        held, holding = ({namespace for namespace, _ in places} for places in (before, after))
        self.seen["put again"] += bool(self.deleted & after)
        self.seen["filled again"] += bool(self.emptied & holding)
        self.deleted = (self.deleted - after) | (before - after)
        self.emptied = (self.emptied - holding) | (held - holding)


def assert_same_page(found: Any, wanted: Any, ranking: Any, op: SearchOp) -> None:
    """Equal scores may stand in any order; all else is the same."""
    scores = {place(item): item.score for item in ranking}
    assert [one.score for one in found] == pytest.approx([one.score for one in wanted], abs=1e-6), op
    assert len({place(one) for one in found}) == len(found), op
    for one in found:
        assert one.score == pytest.approx(scores[place(one)], abs=1e-6), op
    unscored = [plain(one) for one in wanted if one.score is None]
    assert [plain(one) for one in found if one.score is None] == unscored, op
    values = {place(item): plain(item) for item in ranking}
    assert all(plain(one) == values[place(one)] for one in found), op


def place(item: Item) -> Place:
    return item.namespace, item.key


def plain(item: Any) -> Any:
    """Return what does not depend on the clock, and whether an item has been overwritten."""
    kind = SearchItem if isinstance(item, SearchItem) else Item
    value = json.dumps(item.value, sort_keys=True)  # as text, for 1 == 1.0 == True
    return kind, item.namespace, item.key, value, item.updated_at > item.created_at


@pytest.mark.timeout(3600 if SLOW else 240)
@pytest.mark.parametrize("of", ["unswept", "memory_stack"])
def test_the_store_behaves_like_the_reference(
    request: pytest.FixtureRequest, of: str, runner: asyncio.Runner
) -> None:
    class Machine(Comparison):
        pass

    Machine.target = request.getfixturevalue(of)
    Machine.runner = runner
    Machine.seen = Counter()
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None)
    )
    assert min(Machine.seen["put again"], Machine.seen["filled again"]) >= 10, Machine.seen
