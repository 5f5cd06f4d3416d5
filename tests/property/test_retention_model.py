"""Retention against its oracle: on random threads the same stays, and reads, preview and sweeper agree."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tenure_server.domain import ChannelHistory
from tenure_server.retention import Threads
from tenure_server.storage.postgres import retention_lines

from tests.harness.databases import Database
from tests.harness.retention_oracle import Rules, Step, Thread, expired
from tests.property.profiles import SLOW
from tests.storage import item_tenant
from tests.storage.retained import HOUR, Retained, opened
from tests.storage.tenant import Tenant, Write, put, put_writes

EXAMPLES = 2_000 if SLOW else 60
SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
NAMES = ("a", "ab", "b")
LIMITS = st.sampled_from([None, 5.5, 20.5])


@st.composite
def threads(draw: Any, name: str) -> Thread:
    """A thread with forks, a DeltaChannel, subgraphs, old formats and a slow clock."""
    ages = st.integers(0, 30)
    steps: list[Step] = []
    roots = [f"{n:02}" for n in range(1, draw(st.integers(1, 7)) + 1)]
    calls = draw(st.lists(st.sampled_from(roots), max_size=2, unique=True))
    spaces = [("", roots, None)]
    spaces += [(f"sub:{caller}", ["01", "02"][: draw(st.integers(1, 2))], caller) for caller in calls]
    if draw(st.booleans()):
        spaces.append(("child", ["01", "02", "03"], None))
    for ns, ids, caller in spaces:
        for at, name_of_step in enumerate(ids):
            parent = draw(st.sampled_from([None, *ids[:at]])) if draw(st.integers(0, 4)) == 0 else None
            if parent is None and at:
                parent = ids[at - 1]
            age = draw(ages)
            versions = {"c": draw(st.sampled_from([name_of_step, "00"]))}
            if draw(st.integers(0, 2)) == 0:
                versions["d"] = name_of_step
            steps.append(
                Step(
                    *(ns, name_of_step, age, parent, caller),
                    deltas=frozenset({"d"} if draw(st.booleans()) else ()),
                    versions=versions,
                    format=draw(st.sampled_from([4, 4, 3])),
                    sends=draw(st.booleans()),
                    written=draw(st.one_of(st.just(age), st.integers(0, age))),
                )
            )
    heads = {}
    if draw(st.booleans()):
        # A worker whose clock is slow puts what follows the latest.
        age = draw(ages)
        late = Step("", "005", age, roots[-1], versions={"c": "005"}, written=age)
        steps.append(late)
        heads[""] = late.id
    places = st.sampled_from([step.place for step in steps])
    rarely = st.sampled_from([False, False, False, True])
    return Thread(
        name,
        steps,
        draw(ages),
        heads,
        frozenset(draw(st.lists(places, max_size=2)) if draw(rarely) else ()),
        *(draw(rarely) for _ in range(3)),
    )


policies = st.lists(
    st.builds(
        Rules,
        st.sampled_from(["", "a", "ab"]),
        LIMITS,
        LIMITS,
        st.sampled_from([None, 1, 2, 4]),
        st.sampled_from([0, 0, 1, 3]),
    ).filter(lambda rules: (rules.max_age, rules.max_idle, rules.keep_last) != (None, None, None)),
    max_size=3,
    unique_by=lambda rules: rules.prefix,
)


@pytest.fixture
def base(contract_database: Database, runner: asyncio.Runner) -> Iterator[Retained]:
    """Connections that all examples share, each with a tenant of its own."""
    stack = AsyncExitStack()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retention_lines, "PAGE", 2)
        yield runner.run(stack.enter_async_context(opened(contract_database)))
        runner.run(stack.aclose())


@pytest.mark.timeout(3600 if SLOW else 180)
@settings(max_examples=EXAMPLES, suppress_health_check=SHARED)
@given(st.tuples(*(threads(name) for name in NAMES)), policies)
def test_what_stays_is_what_the_oracle_says(
    base: Retained, runner: asyncio.Runner, made: tuple[Thread, ...], rules: list[Rules]
) -> None:
    runner.run(_compare(base, _as_held(made), rules))


async def _compare(base: Retained, made: tuple[Thread, ...], rules: list[Rules]) -> None:
    tenant = await base.database.tenants().create_tenant("model")
    kept = replace(
        base,
        agent=Tenant(base.agent.store, tenant),
        items=item_tenant.Tenant(base.items.store, tenant),
    )
    for thread in made:
        await _store(kept, thread)
    histories = await _histories(kept, made)
    expected, gone = set(), set()
    for thread in made:
        out = expired(thread, rules)
        places = {step.place for step in thread.steps}
        expected |= {(thread.id, *place) for place in places - (places if out is None else out)}
        if out is None:
            gone.add(thread.id)
    for of in rules:
        await kept.policy(
            of.prefix,
            max_age=None if of.max_age is None else of.max_age * HOUR,
            max_idle=None if of.max_idle is None else of.max_idle * HOUR,
            keep_last=of.keep_last,
            floor=of.floor,
        )

    seen = await _visible(kept, made)
    assert seen == expected
    assert set(await kept.agent.threads()) == set(NAMES) - gone
    preview = await kept.preview()
    everything = {(thread.id, *step.place) for thread in made for step in thread.steps}
    assert (preview.threads, preview.checkpoints) == (len(gone), len(everything - expected))
    before = await kept.agent.stored()
    used, *_ = await kept.used()

    await kept.sweep()

    # Of a thread with a lease everything stays for now, hidden.
    leased = {thread.id for thread in made if thread.leased and not thread.held and not thread.pinned}
    assert {place for place in await kept.checkpoints() if place[0] not in leased} == {
        place for place in expected if place[0] not in leased
    }
    await kept.execute("UPDATE tenure.thread_head SET lease_until = NULL WHERE tenant_id = %s", [tenant])
    if not leased:
        assert used - (await kept.used())[0] == preview.bytes
        assert (await kept.preview()).bytes == 0
        assert await kept.agent.stored() == before
        assert await _histories(kept, made, expected) == {
            place: history for place, history in histories.items() if place in expected
        }
    await _check_rows(kept)
    await base.execute("DELETE FROM tenure.retention_policy WHERE tenant_id = %s", [tenant])
    await base.execute("DELETE FROM tenure.retention_hold WHERE tenant_id = %s", [tenant])


@pytest.mark.timeout(3600 if SLOW else 180)
@settings(max_examples=EXAMPLES // 2, suppress_health_check=SHARED)
@given(
    st.tuples(*(threads(name) for name in NAMES)),
    st.sampled_from([0.0, 0.3, 0.6, 0.9]),
    st.sampled_from([0, 0, 2]),
)
def test_bytes_are_brought_below_their_limit_and_no_thread_goes_before_an_older_one(
    base: Retained, runner: asyncio.Runner, made: tuple[Thread, ...], share: float, floor: int
) -> None:
    runner.run(_evict(base, _as_held(made), share, floor))


async def _evict(base: Retained, made: tuple[Thread, ...], share: float, floor: int) -> None:
    tenant = await base.database.tenants().create_tenant("model")
    kept = replace(base, agent=Tenant(base.agent.store, tenant))
    made = tuple(replace(thread, leased=False) for thread in made)
    for thread in made:
        await _store(kept, thread)
    used, *_ = await kept.used()
    limit = int(used * share)
    await kept.policy(max_bytes=limit, floor=floor)
    seen = await _visible(kept, made)

    rules = [Rules(floor=floor)]
    oldest_first = sorted(made, key=lambda thread: (-thread.last, thread.id))
    evicted = 0
    for count in range(len(made) + 1):
        told = set()
        for at, thread in enumerate(oldest_first):
            out = expired(thread, rules, evicted=at < count)
            places = {step.place for step in thread.steps}
            told |= {(thread.id, *place) for place in places - (places if out is None else out)}
        if told == seen:
            evicted = count
            break
    else:
        pytest.fail("what is left is no prefix of the threads by age")
    preview = await kept.preview()
    await kept.sweep()
    left, *_ = await kept.used()
    assert used - left == preview.bytes
    assert await _visible(kept, made) == seen
    # Not further than needed, and as far as needed if that is possible.
    if left > limit:
        assert all(expired(thread, rules, evicted=True) == set() for thread in oldest_first[evicted:])
    await _check_rows(kept)
    await base.execute("DELETE FROM tenure.retention_policy WHERE tenant_id = %s", [tenant])
    await base.execute("DELETE FROM tenure.retention_hold WHERE tenant_id = %s", [tenant])


def _as_held(made: tuple[Thread, ...]) -> tuple[Thread, ...]:
    """Return the threads as their holds say, which cover ids that go on as well."""
    held = tuple(thread.id for thread in made if thread.held)
    return tuple(replace(thread, held=thread.id.startswith(held)) for thread in made)


async def _store(kept: Retained, thread: Thread) -> None:
    known: set[tuple[str, str, str]] = set()
    for step in thread.steps:
        new: dict[str, bytes | None] = {}
        for channel, version in step.versions.items():
            if (step.ns, channel, version) not in known:
                known.add((step.ns, channel, version))
                new[channel] = f"{channel} {version}".encode() * 3
        metadata: dict[str, object] = {}
        if step.deltas:
            metadata["counters_since_delta_snapshot"] = {channel: [1, 1] for channel in step.deltas}
        if step.caller is not None:
            metadata["parents"] = {"": step.caller}
        await kept.agent.write(
            put(
                *(thread.id, step.id, step.parent),
                ns=step.ns,
                versions=step.versions,
                new=new,
                metadata=metadata,
                format=step.format,
            )
        )
        writes = [Write("d", f"d of {step.id}".encode())]
        if step.sends:
            writes.append(Write("__pregel_tasks", b"send", idx=1))
        await kept.agent.write(put_writes(thread.id, step.id, *writes, ns=step.ns))
    await kept.execute(
        """
        WITH head AS (
            UPDATE tenure.thread_head
            SET created_at = now() - make_interval(hours => %(age)s),
                lease_until = CASE WHEN %(leased)s THEN now() + interval '1 hour' END
            WHERE tenant_id = %(tenant)s AND thread_id = %(thread)s
            RETURNING thread_key
        ), writes AS (
            UPDATE tenure.pending_write AS w SET created_at = now() - make_interval(hours => s.written)
            FROM head,
                unnest(%(namespaces)s::text[], %(ids)s::text[], %(written)s::int[]) AS s (ns, id, written)
            WHERE w.tenant_id = %(tenant)s AND w.thread_key = head.thread_key
                AND w.ns_hash = tenure.ns_hash_1(s.ns) AND w.checkpoint_id = s.id
        )
        UPDATE tenure.checkpoint AS c SET created_at = now() - make_interval(hours => s.age)
        FROM head, unnest(%(namespaces)s::text[], %(ids)s::text[], %(ages)s::int[]) AS s (ns, id, age)
        WHERE c.tenant_id = %(tenant)s AND c.thread_key = head.thread_key
            AND c.checkpoint_ns = s.ns AND c.checkpoint_id = s.id
        """,
        {
            "tenant": kept.id,
            "thread": thread.id,
            "age": thread.age,
            "leased": thread.leased,
            "namespaces": [step.ns for step in thread.steps],
            "ids": [step.id for step in thread.steps],
            "ages": [step.age for step in thread.steps],
            "written": [step.written for step in thread.steps],
        },
    )
    if thread.pinned:
        await kept.pin(thread.id)
    for ns, pinned in thread.pins:
        await kept.pin(thread.id, pinned, ns)
    if thread.held:
        await kept.hold(Threads(thread.id))


async def _visible(kept: Retained, made: tuple[Thread, ...]) -> set[tuple[str, str, str]]:
    """Return what reads give: each checkpoint in all listings or in none, and by its id."""
    listed = set(await kept.agent.listing())
    for thread in made:
        of_thread = {found for found in listed if found[0] == thread.id}
        assert set(await kept.agent.listing(thread_id=thread.id)) == of_thread
        for step in thread.steps:
            there = (thread.id, *step.place) in listed
            assert (await kept.agent.head(thread.id, step.id, step.ns) is not None) is there
        latest = await kept.agent.latest(thread.id)
        assert (latest is not None) is any(ns == "" for _, ns, _ in of_thread)
    return listed


async def _histories(
    kept: Retained, made: tuple[Thread, ...], only: set[tuple[str, str, str]] | None = None
) -> dict[tuple[str, str, str], ChannelHistory]:
    found = {}
    for thread in made:
        for step in thread.steps:
            place = (thread.id, *step.place)
            # One that holds the channel itself is rebuilt from nothing else.
            rebuilt = "d" in step.deltas and "d" not in step.versions
            if rebuilt and (only is None or place in only):
                history = await kept.agent.history(thread.id, "d", id=step.id, ns=step.ns)
                found[place] = history["d"]
    return found


async def _check_rows(kept: Retained) -> None:
    """Nothing dangles: no version without its value, no parent that was swept, no row without a head."""
    rows = await kept.execute(
        """
        SELECT c.checkpoint_ns, c.checkpoint_id, e.channel, e.version
        FROM tenure.checkpoint AS c
        CROSS JOIN LATERAL jsonb_each_text(c.versions) AS e (channel, version)
        WHERE c.tenant_id = %(tenant)s AND NOT EXISTS (
            SELECT FROM tenure.channel_value AS v
            WHERE v.tenant_id = c.tenant_id AND v.thread_key = c.thread_key
                AND v.ns_hash = tenure.ns_hash_1(c.checkpoint_ns)
                AND v.channel = e.channel AND v.version = e.version)
        UNION ALL
        SELECT c.checkpoint_ns, c.checkpoint_id, 'parent', c.parent_checkpoint_id
        FROM tenure.checkpoint AS c
        WHERE c.tenant_id = %(tenant)s AND c.parent_checkpoint_id IS NOT NULL AND NOT EXISTS (
            SELECT FROM tenure.checkpoint AS p
            WHERE p.tenant_id = c.tenant_id AND p.thread_key = c.thread_key
                AND p.checkpoint_ns = c.checkpoint_ns AND p.checkpoint_id = c.parent_checkpoint_id)
        UNION ALL
        SELECT c.checkpoint_ns, c.checkpoint_id, 'head', ''
        FROM tenure.checkpoint AS c
        WHERE c.tenant_id = %(tenant)s AND NOT EXISTS (
            SELECT FROM tenure.thread_head AS h
            WHERE h.tenant_id = c.tenant_id AND h.thread_key = c.thread_key)
        """,
        {"tenant": kept.id},
    )
    assert rows == []
