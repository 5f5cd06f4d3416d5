"""Keys of one tenant that are limited to some threads: neither reads, changes or learns of the other's."""

from __future__ import annotations

import random
import time
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.protobuf.message import Message
from tenure.v1 import checkpoints_pb2 as pb
from tenure_server import auth
from tenure_server.domain import TenantId
from tenure_server.keys import ApiKey

from tests.harness.running import run
from tests.harness.stack import Stack
from tests.integration.key_rules_support import (
    ITEMS,
    REFUSED,
    RESULTS,
    THREADS,
    How,
    Shared,
    ids_below,
    shared,
)
from tests.integration.tenants_support import CASES, Ids, Make, contents, reads, writes
from tests.integration.wire_support import LEASES, Answer, Wire, operation, outcome_of, reason_of

REVOCATION = 5.0
"""Seconds after which a revoked key is refused by every replica: a promise."""


each_request = pytest.mark.parametrize(
    ("method", "make"),
    [
        pytest.param(method, make, id=f"{method}-{number}")
        for method in THREADS
        for number, make in enumerate(CASES[method])
    ],
)


def names_a_thread(method: str, make: Make) -> bool:
    """Whether a request says which thread it is about."""
    if THREADS[method] is not How.ALL:
        return THREADS[method] is How.NAMED
    (request,) = make(ids_below(""))
    return isinstance(request, pb.ListRequest) and request.HasField("thread_id")


def test_every_rpc_that_limited_keys_may_call_says_how_rules_apply() -> None:
    """The tests here, in test_key_rules_items, test_node_cache and test_leases call all of them."""
    names = [path.rpartition("/")[2] for path in auth.RULED]
    assert sorted(names) == sorted([*THREADS, *ITEMS, *RESULTS, *LEASES])
    assert auth.RULES.keys() >= auth.RULED


@each_request
def test_what_lies_outside_the_rules_is_out_of_reach(stack: Stack, method: str, make: Make) -> None:
    with shared(stack) as both:
        before = both.stored()
        foreign = both.b.wire.call(method, *make(both.a.own))
        absent = both.b.wire.call(method, *make(ids_below("a-absent")))
        assert both.a.canary.encode() not in foreign.everything
        assert both.stored() == before
        assert foreign == absent, "it tells whether there is such a thread"
        if THREADS[method] in {How.NAMED, How.ALL}:
            assert reason_of(outcome_of(method, foreign))[0] == REFUSED
        else:
            assert outcome_of(method, foreign).code == 0


@each_request
def test_what_the_rules_allow_goes_as_without_rules(stack: Stack, method: str, make: Make) -> None:
    with shared(stack) as both:
        before, theirs = both.stored(both.a), both.stored(both.b)
        answer = both.a.wire.call(method, *make(both.a.own))
        if THREADS[method] is How.ALL and not names_a_thread(method, make):
            assert reason_of(outcome_of(method, answer))[0] == REFUSED
            return
        assert outcome_of(method, answer).code == 0
        if reads(method, make):
            assert both.a.canary.encode() in answer.everything
        if writes(method, make):
            assert both.stored(both.a) != before
        assert both.stored(both.b) == theirs


@each_request
def test_a_rule_to_read_does_not_let_write(stack: Stack, method: str, make: Make) -> None:
    with shared(stack, a="threads:*:r") as both:
        before = both.stored()
        answer = both.a.wire.call(method, *make(both.b.own))
        if writes(method, make):
            assert reason_of(outcome_of(method, answer))[0] == REFUSED
        else:
            assert outcome_of(method, answer).code == 0
        if reads(method, make):
            assert both.b.canary.encode() in answer.everything
        assert both.stored() == before


@each_request
def test_a_rule_to_write_all_threads_limits_none_of_them(stack: Stack, method: str, make: Make) -> None:
    with shared(stack, a="threads:*:rw") as both:
        before = both.stored()
        assert outcome_of(method, both.a.wire.call(method, *make(both.b.own))).code == 0
        assert (both.stored() != before) is writes(method, make)


@each_request
def test_a_key_with_rules_for_namespaces_alone_reaches_no_thread(
    stack: Stack, method: str, make: Make
) -> None:
    with shared(stack, b="namespaces:*:rw") as both:
        before = both.stored()
        for ids in (both.a.own, both.b.own):
            answer = both.b.wire.call(method, *make(ids))
            if THREADS[method] in {How.NAMED, How.ALL}:
                assert reason_of(outcome_of(method, answer))[0] == REFUSED
            assert both.a.canary.encode() not in answer.everything
            assert both.b.canary.encode() not in answer.everything
        assert both.stored() == before


def test_scopes_count_beside_rules(stack: Stack) -> None:
    with shared(stack) as both:
        key = stack.new_key(both.tenant, "threads:*:rw", scopes=("read",))
        with Wire(stack.target, key) as wire:
            for method, makes in CASES.items():
                for make in makes:
                    if writes(method, make):
                        status = outcome_of(method, wire.call(method, *make(both.a.own)))
                        assert reason_of(status)[0] == "SCOPE_MISSING"


def test_in_a_batch_only_what_is_outside_the_rules_is_refused(stack: Stack) -> None:
    with shared(stack) as both:
        own, foreign = ids_below("b-new"), ids_below("a-new")
        mutations = [*contents(own, "mine"), *contents(foreign, "mine")]
        random.Random(0).shuffle(mutations)
        kinds = ["put" if mutation.HasField("put") else "put_writes" for mutation in mutations]
        threads = [
            getattr(mutation, kind).ref.thread_id for mutation, kind in zip(mutations, kinds, strict=True)
        ]
        written = both.b.wire.call("Write", pb.WriteRequest(mutations=mutations)).message(pb.WriteResponse)
        for index, result in enumerate(written.results):
            reason, metadata = reason_of(result.status)
            if threads[index] == foreign.thread:
                assert reason == REFUSED
                assert metadata == {"field": f"mutations[{index}].{kinds[index]}.ref.thread_id"}
            else:
                assert reason in {"", "CHUNKS_MISSING"}
        refs = [pb.CheckpointRef(thread_id=ids.thread) for ids in (both.a.own, both.b.own, both.a.own)]
        asked = pb.ReadRequest(reads=[pb.CheckpointRead(operation=operation(), ref=ref) for ref in refs])
        found = both.b.wire.call("Read", asked).message(pb.ReadResponse).results
        assert [reason_of(result.status)[0] for result in found] == [REFUSED, "", REFUSED]
        assert [result.HasField("checkpoint") for result in found] == [False, True, False]


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        (["threads:a-:r", "threads:b-:rw"], True),
        (["threads:*:r", "threads:b-new:rw"], True),
        (["threads:a-:rw", "threads:b-:r"], False),
        (["threads:b-:rw"], False),
        (["threads:a-:rw"], False),
        (["threads:a-:r", "threads:b-other:rw"], False),
    ],
)
def test_a_copy_needs_its_source_to_read_and_its_target_to_write(
    stack: Stack, rules: list[str], allowed: bool
) -> None:
    with shared(stack) as both, Wire(stack.target, stack.new_key(both.tenant, *rules)) as wire:
        before = both.stored(both.b)
        request = pb.CopyThreadRequest(
            operation=operation(), source_thread_id=both.a.own.thread, target_thread_id="b-new"
        )
        answer = wire.call("CopyThread", request)
        assert reason_of(answer.status)[0] == ("" if allowed else REFUSED)
        assert (both.stored(both.b) != before) is allowed


def test_a_prune_of_threads_of_which_one_is_outside_the_rules_does_nothing(stack: Stack) -> None:
    with shared(stack) as both:
        before = both.stored()
        request = pb.PruneThreadsRequest(
            operation=operation(),
            thread_ids=[both.b.own.thread, both.a.own.thread],
            strategy=pb.PRUNE_STRATEGY_DELETE_ALL,
        )
        assert reason_of(both.b.wire.call("PruneThreads", request).status)[0] == REFUSED
        assert both.stored() == before


STORED = ["a", "a-", "a-1", "a-2", "a-é", "b", "b-1", "b-1-2", "b-10", "b-2", "c-1", "\U0001f511-1", "z"]


def test_pages_of_threads_hold_what_may_be_read_each_once_in_order(stack: Stack) -> None:
    readable = ["a-", "b-1", "b-1-", "\U0001f511", "zz"]
    tenant = stack.new_tenant()
    limited = stack.new_key(tenant, *(f"threads:{start}:r" for start in readable))
    puts = [contents(Ids(thread, "", "1", "run"), "canary")[0] for thread in STORED]
    with Wire(stack.target, tenant.api_key) as everywhere, Wire(stack.target, limited) as wire:
        assert everywhere.call("Write", pb.WriteRequest(mutations=puts)).code is grpc.StatusCode.OK
        for prefix in ("", "a", "a-", "b-1", "b-1-", "c", "z"):
            below = [thread for thread in sorted(STORED) if thread.startswith(prefix)]
            expected = [thread for thread in below if thread.startswith(tuple(readable))]
            for size in (1, 2, 3, 100):
                assert _pages(wire, prefix, size) == expected
            # A token of another key grants nothing, but is a place in the order.
            request = pb.ListThreadsRequest(prefix=prefix, page_size=1)
            page = everywhere.call("ListThreads", request).message(pb.ListThreadsResponse)
            if page.next_page_token:
                after = [thread for thread in expected if thread > below[0]]
                assert _pages(wire, prefix, 2, page.next_page_token) == after


def _pages(wire: Wire, prefix: str, size: int, token: str = "") -> list[str]:
    found: list[str] = []
    while True:
        request = pb.ListThreadsRequest(prefix=prefix, page_size=size, page_token=token)
        page = wire.call("ListThreads", request).message(pb.ListThreadsResponse)
        assert len(page.threads) <= size
        found += [thread.thread_id for thread in page.threads]
        token = page.next_page_token
        if not token:
            return found


@pytest.mark.parametrize("seed", range(4))
def test_whatever_one_asks_the_other_is_out_of_reach(stack: Stack, seed: int) -> None:
    dice = random.Random(seed)
    with shared(stack) as both:
        teams = [both.a, both.b]
        for _ in range(40):
            asking, other = dice.sample(teams, 2)
            theirs = both.stored(other)
            method = dice.choice(list(THREADS))
            ids = dice.choice([asking.own, other.own, ids_below(dice.choice("ab") + "-x")])
            requests = [_disturbed(request, dice, both) for request in dice.choice(CASES[method])(ids)]
            answer = asking.wire.call(method, *requests)
            assert _outcome(method, answer) in {
                "",
                REFUSED,
                *("THREAD_NOT_FOUND", "THREAD_EXISTS", "CHUNKS_MISSING", "INVALID_FIELD"),
            }
            assert other.canary.encode() not in answer.everything, (method, requests)
            assert both.stored(other) == theirs, (method, requests)


def _disturbed(request: Message, dice: random.Random, both: Shared) -> Message:
    """Return a request whose threads may be others than those it was made for."""
    own, foreign = both.a.own.thread, both.b.own.thread
    threads = [
        own,
        foreign,
        "a-",
        "b-",
        "a",
        "b",
        f"{own}-copy",
        f"{foreign}-copy",
        "A-1",
        "-a-",
        "b-a-",
        "a-b-",
    ]

    def visit(message: Any) -> None:
        for field, value in message.ListFields():
            if field.name in {"thread_id", "source_thread_id", "target_thread_id", "prefix"}:
                if dice.random() < 0.5:
                    setattr(message, field.name, dice.choice(threads))
            elif field.name == "thread_ids":
                value.extend(dice.sample(threads, dice.randrange(3)))
            elif field.message_type is not None:
                for member in value if field.is_repeated else [value]:
                    visit(member)

    copy = type(request)()
    copy.CopyFrom(request)
    visit(copy)
    return copy


def _outcome(method: str, answer: Answer) -> str:
    return reason_of(outcome_of(method, answer))[0]


def test_rules_hold_for_every_batch_of_a_session(stack: Stack) -> None:
    with shared(stack) as both, both.a.wire.session() as ask_a, both.b.wire.session() as ask_b:
        for _ in range(3):
            for team, ask, other in ((both.a, ask_a, both.b), (both.b, ask_b, both.a)):
                for method in ("Read", "Write"):
                    for make in CASES[method]:
                        (own,), (foreign,) = make(team.own), make(other.own)
                        answers = [ask(own), ask(foreign)]
                        reasons = [_batch_reason(answer) for answer in answers]
                        assert reasons[0] != REFUSED
                        assert reasons[1] == REFUSED
                        assert other.canary.encode() not in answers[1].SerializeToString()


def _batch_reason(answer: pb.SessionResponse) -> str:
    (result,) = (answer.write if answer.HasField("write") else answer.read).results
    return reason_of(result.status)[0]


def test_a_revoked_limited_key_is_refused_in_time(stack: Stack) -> None:
    tenant = stack.new_tenant()
    text = stack.new_key(tenant, "threads:a-:rw")
    key = ApiKey.parse(text)
    assert key is not None
    with Wire(stack.target, text) as wire:

        def accepted() -> bool:
            return wire.call("ListThreads", pb.ListThreadsRequest()).code is grpc.StatusCode.OK

        assert accepted()
        assert run(stack.database.tenants().revoke_key(TenantId(UUID(tenant.tenant_id)), key.key_id))
        began = revoked = time.monotonic()
        while accepted():
            assert began < revoked + REVOCATION, "accepted too long after it was revoked"
            began = time.monotonic()
