"""Random groups of two tenants and of limited keys in them: whatever is asked, only what is allowed is shown
and changed, in every form in which a group travels."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from tenure.v1 import store_pb2 as pb
from tenure_server.rules import UNLIMITED, Rules, parse

from tests.harness.stack import Stack
from tests.integration.key_rules_support import REFUSED
from tests.integration.test_key_rules_items import SENDERS, Items, Labels
from tests.integration.wire_support import operation, reason_of
from tests.property.profiles import SLOW

SEEDS, STEPS = (40, 400) if SLOW else (4, 150)
PLACES: list[Labels] = [
    *(("a",), ("a", "x"), ("ab",), ("a\x01", "x"), ("b",), ("b", "x"), ("b", "x", "a"), ("shared",)),
    *(("shared", "a"), ("A",), ("a%",), ("a_", "x"), ('"', "\\"), ("*",), ("é", "\U0010ffff")),
]
KEYS = ["k", "", "%", "a\\'\"", "\x01"]
RULES = {
    "one": ["namespaces:a:rw", "namespaces:shared:r"],
    "two": ["namespaces:b/x:rw", "namespaces:shared:rw", "namespaces:a/x:r", "namespaces:%2A:r"],
    "no items": ["threads:*:rw"],
}
MODES = ["SEARCH_MODE_UNSPECIFIED", "SEARCH_MODE_SEMANTIC", "SEARCH_MODE_KEYWORD", "SEARCH_MODE_HYBRID"]
CANARY = re.compile(r"canary([ab])x([0-9]+)x")
SCOPES = ("read", "write", "admin")
Change = tuple[Labels, str, str | None]
"""Where, and what is there then."""


@dataclass
class Tenant:
    """What a tenant holds.

    Attributes:
        name: "a" or "b"; in everything that is stored.
        index: With what its vectors are made.
        stored: The canary of each item.
        ids: Operations that were applied.
        tokens: Tokens of pages that were given out.
    """

    name: str
    index: pb.StoreIndex
    stored: dict[tuple[Labels, str], str] = field(default_factory=dict)
    ids: list[bytes] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    def canary(self, place: Labels, number: int) -> str:
        """Return a word that tells whose an item is and where it is."""
        return f"canary{self.name}x{PLACES.index(place)}x{number}"


@dataclass(frozen=True)
class Actor:
    """A key."""

    tenant: Tenant
    items: Items
    rules: Rules

    def may(self, place: Labels, *, write: bool) -> bool:
        """Whether it may read, or write, what is there."""
        return any(
            place[: len(rule.prefix)] == rule.prefix and (rule.access.value == "rw" or not write)
            for rule in self.rules.namespaces
        )

    def may_see(self, told: str) -> bool:
        """Whether all items that an answer shows are its to read."""
        assert f"embedder {'b' if self.tenant.name == 'a' else 'a'}" not in told
        return all(
            tenant == self.tenant.name and self.may(PLACES[int(place)], write=False)
            for tenant, place in CANARY.findall(told)
        )


@pytest.fixture
def actors(stack: Stack) -> Iterator[list[Actor]]:
    with ExitStack() as closing:
        made = []
        for dims, name in enumerate("ab", 2):
            handle = stack.new_tenant(SCOPES)
            tenant = Tenant(name, pb.StoreIndex(dims=dims, embedder=f"embedder {name}"))
            keys: Mapping[str, Rules | None] = {handle.api_key: None} | {
                stack.new_key(handle, *texts, scopes=SCOPES): parse(texts) for texts in RULES.values()
            }
            for key, rules in keys.items():
                items = closing.enter_context(Items(stack.target, key))
                made.append(Actor(tenant, items, rules or UNLIMITED))
        yield made


@pytest.mark.timeout(3600 if SLOW else 120)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_is_asked_nobody_sees_or_changes_what_is_not_theirs(actors: list[Actor], seed: int) -> None:
    dice = random.Random(seed)
    everybody = {actor.tenant.name: actor.tenant for actor in actors}
    refused = shown = 0
    for step in range(STEPS):
        actor = dice.choice(actors)
        other = everybody["b" if actor.tenant.name == "a" else "a"]
        if dice.random() < 0.1:
            _ask_the_index(actor, other, dice)
            continue
        writes = dice.random() < 0.5
        changes: list[Change] = []
        ops = [
            _write(actor, changes, dice, step) if writes else _read(actor, everybody, dice)
            for _ in range(dice.randrange(1, 4))
        ]
        unused = [one for one in other.ids if one not in actor.tenant.ids]
        # Ids of operations are each tenant's own.
        identity = dice.choice(unused) if unused and dice.random() < 0.2 else None
        group = pb.StoreGroup(operation=operation(identity), ops=ops)
        if any(op.put.vectors or op.search.query_vector for op in ops):
            group.index.CopyFrom(actor.tenant.index)
        result = dice.choice(list(SENDERS.values()))(actor.items, group)

        assert actor.may_see(str(result)), ops
        reason = reason_of(result.status)[0]
        places = [(tuple(op.get.namespace.labels), False) for op in ops if op.HasField("get")]
        places += [(place, True) for place, _, _ in changes]
        allowed = all(actor.may(place, write=write) for place, write in places)
        assert reason == ("" if allowed else REFUSED), (result.status, group)
        refused += not allowed
        shown += "canary" in str(result)
        for listed in [one for answer in result.results for one in answer.namespaces.namespaces]:
            assert _may_be_listed(actor, tuple(listed.labels)), (listed, ops)
        if writes and allowed:
            actor.tenant.ids.append(group.operation.operation_id)
            for place, key, canary in changes:
                if canary is None:
                    actor.tenant.stored.pop((place, key), None)
                else:
                    actor.tenant.stored[place, key] = canary
    assert refused
    assert shown
    for actor in actors:
        if actor.rules is UNLIMITED:
            assert _everything(actor) == actor.tenant.stored


def _write(actor: Actor, changes: list[Change], dice: random.Random, step: int) -> pb.StoreOp:
    place, key = dice.choice(PLACES), dice.choice(KEYS)
    namespace = pb.Namespace(labels=place)
    if dice.random() < 0.2:
        changes.append((place, key, None))
        return pb.StoreOp(delete=pb.DeleteItem(namespace=namespace, key=key))
    canary = actor.tenant.canary(place, step)
    changes.append((place, key, canary))
    put = pb.PutItem(namespace=namespace, key=key, value_json=json.dumps({"is": canary, "n": step % 3}))
    if dice.random() < 0.7:
        put.text = f"{canary} word"
        put.vectors.add(path="$", values=_vector(actor.tenant, dice))
    return pb.StoreOp(put=put)


def _read(actor: Actor, everybody: Mapping[str, Tenant], dice: random.Random) -> pb.StoreOp:
    place = dice.choice(PLACES)
    namespace = pb.Namespace(labels=place)
    kind = dice.randrange(3)
    if kind == 0:
        return pb.StoreOp(get=pb.GetItem(namespace=namespace, key=dice.choice(KEYS), refresh_ttl=True))
    if kind == 1:
        listing = pb.ListNamespaces(limit=dice.choice([1, 100]), offset=dice.randrange(3))
        if dice.random() < 0.5:
            listing.max_depth = dice.randrange(1, 4)
        for _ in range(dice.randrange(3)):
            path = [dice.choice([label, "*"]) for label in dice.choice(PLACES)]
            listing.conditions.add(type=dice.choice(["MATCH_TYPE_PREFIX", "MATCH_TYPE_SUFFIX"]), path=path)
        return pb.StoreOp(list_namespaces=listing)
    known = [canary for tenant in everybody.values() for canary in tenant.stored.values()] or ["none"]
    filters: list[Any] = [
        *({"is": dice.choice(known)}, {"is": {"$ne": "x"}}, {"n": {"$gte": 1}}),
        *({"is": {"$in": known[:100]}}, {"no": {"$exists": False}}),
    ]
    search = pb.SearchItems(
        namespace_prefix=pb.Namespace(labels=place[: dice.randrange(len(place) + 1)]),
        filter_json=json.dumps(dice.choice(filters)) if dice.random() < 0.5 else "",
        limit=dice.choice([1, 5, 1000]),
        offset=dice.randrange(3),
        refresh_ttl=True,
        mode=dice.choice(MODES),
    )
    if search.mode in (pb.SEARCH_MODE_SEMANTIC, pb.SEARCH_MODE_HYBRID):
        search.query_vector.extend(_vector(actor.tenant, dice))
    if search.mode in (pb.SEARCH_MODE_KEYWORD, pb.SEARCH_MODE_HYBRID):
        search.query_text = dice.choice(["word", dice.choice(known)])
    return pb.StoreOp(search=search)


def _vector(tenant: Tenant, dice: random.Random) -> list[float]:
    return [dice.random() + 0.1 for _ in range(tenant.index.dims)]


def _ask_the_index(actor: Actor, other: Tenant, dice: random.Random) -> None:
    if dice.random() < 0.3:
        told = actor.items.call("GetIndex", pb.GetIndexRequest())
        assert actor.may_see(str(told))
        waiting = told.unembedded
        assert not waiting or actor.rules is UNLIMITED
        return
    if dice.random() < 0.3:
        # Vectors of the other's embedder are none of one's own.
        search = pb.SearchItems(mode=pb.SEARCH_MODE_SEMANTIC, limit=9)
        search.query_vector.extend(_vector(other, dice))
        group = pb.StoreGroup(ops=[pb.StoreOp(search=search)], index=other.index)
        (result,) = actor.items.groups(group)
        assert CANARY.findall(str(result)) == []
        return
    tokens = ["", *actor.tenant.tokens, *other.tokens]
    request = pb.ListUnembeddedRequest(limit=dice.choice([1, 3]), page_token=dice.choice(tokens))
    page = actor.items.call("ListUnembedded", request)
    assert actor.may_see(str(page))
    if page.next_page_token:
        actor.tenant.tokens.append(page.next_page_token)


def _may_be_listed(actor: Actor, listed: Labels) -> bool:
    """Whether there is such a namespace that the key may read; a listing may cut it."""
    return any(
        place[: len(listed)] == listed and actor.may(place, write=False) for place, _ in actor.tenant.stored
    )


def _everything(actor: Actor) -> dict[tuple[Labels, str], str]:
    (result,) = actor.items.groups(
        pb.StoreGroup(operation=operation(), ops=[pb.StoreOp(search=pb.SearchItems(limit=1000))])
    )
    return {
        (tuple(item.namespace.labels), item.key): json.loads(item.value_json)["is"]
        for item in result.results[0].items.items
    }
