"""A thread with one writer at a time: what others write is refused, and nothing of it is stored."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from langgraph.types import Command, interrupt
from tenure_client import LeaseHeld, StaleWriter, TenureSaver

from tests.harness.processes import PATIENCE
from tests.harness.server import ServerProcess
from tests.harness.stack import Stack
from tests.integration.checkpoints_support import (
    checkpoint,
    config_of,
    id_of,
    put,
    replicas,
    value_of,
    wait_until,
)
from tests.integration.single_writer_support import State, graph_of, holder, said, say

DURABILITIES = ["sync", "async", "exit"]
BEFORE_THE_RACE = 3
"""Checkpoints of one turn."""
Savers = list[TenureSaver]


@pytest.fixture
def thread() -> str:
    return f"thread-{uuid4()}"


@pytest.fixture
def key(stack: Stack) -> str:
    """A key of a new tenant."""
    return stack.new_tenant().api_key


def savers_of(stack: Stack, replica: ServerProcess, key: str, **options: Any) -> Iterator[Savers]:
    """Give two savers, each on a server of its own."""
    with ExitStack() as opened:
        yield [
            opened.enter_context(TenureSaver(target, api_key=key, **options))
            for target in (stack.target, replica.target)
        ]


@pytest.fixture
def pair(stack: Stack, replica: ServerProcess, key: str) -> Iterator[Savers]:
    yield from savers_of(stack, replica, key)


@pytest.fixture
def careful(stack: Stack, replica: ServerProcess, key: str) -> Iterator[Savers]:
    """Two savers that expect what they build on to be the latest."""
    yield from savers_of(stack, replica, key, single_writer=True)


def race(savers: Savers, thread_id: str) -> list[object]:
    """Run a turn by each saver at the same time, both from one checkpoint; return what came of them."""
    graph_of(savers[0]).invoke(say("hello"), config_of(thread_id))
    together = threading.Barrier(len(savers))
    graphs = [graph_of(saver, lambda: together.wait(PATIENCE)) for saver in savers]

    def turn(number: int) -> object:
        try:
            # Nothing is put before both nodes have run.
            return graphs[number].invoke(say(f"{number}"), config_of(thread_id), durability="exit")
        except StaleWriter as error:
            return error

    with ThreadPoolExecutor(len(savers)) as threads:
        return list(threads.map(turn, range(len(savers))))


def test_without_opt_in_both_are_stored_and_one_is_forgotten(pair: Savers, thread: str) -> None:
    """As on LangGraph's own savers (its issue 8796)."""
    outcomes = race(pair, thread)
    assert [isinstance(outcome, dict) for outcome in outcomes] == [True, True]
    latest = said(pair[0], thread)
    assert ("0" in latest) is not ("1" in latest)
    assert len(list(pair[0].list(config_of(thread)))) == BEFORE_THE_RACE + 2


def test_of_two_runs_that_go_on_from_one_checkpoint_the_second_is_refused(
    careful: Savers, thread: str
) -> None:
    outcomes = race(careful, thread)
    refused = [outcome for outcome in outcomes if isinstance(outcome, StaleWriter)]
    stored = [outcome for outcome in outcomes if isinstance(outcome, dict)]
    assert (len(refused), len(stored)) == (1, 1)
    assert said(careful[0], thread) == stored[0]["said"]
    assert len(list(careful[0].list(config_of(thread)))) == BEFORE_THE_RACE + 1


def intrusion(saver: TenureSaver, thread_id: str, durability: str) -> Callable[[], None]:
    """Return what writes to a thread while a node of another run, whose input was "late", runs."""

    def intrude() -> None:
        if durability != "exit":
            wait_until(lambda: said(saver, thread_id)[-1] == "late", "what was put before the node is stored")
        graph_of(saver).update_state(config_of(thread_id), say("the other"))

    return intrude


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_run_from_a_checkpoint_that_is_not_the_latest_any_more_is_refused(
    careful: Savers, thread: str, durability: Any
) -> None:
    first, second = careful
    graph_of(first).invoke(say("hello"), config_of(thread))
    graph = graph_of(first, intrusion(second, thread, durability))
    with pytest.raises(StaleWriter, match="single_writer"):
        graph.invoke(say("late"), config_of(thread), durability=durability)
    assert said(second, thread)[-1] == "the other"
    assert "heard late" not in said(second, thread)


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_the_same_without_blocking(careful: Savers, thread: str, durability: Any) -> None:
    first, second = careful
    await graph_of(first).ainvoke(say("hello"), config_of(thread))
    graph = graph_of(first, intrusion(second, thread, durability))
    with pytest.raises(StaleWriter):
        await graph.ainvoke(say("late"), config_of(thread), durability=durability)
    latest = (await graph_of(second).aget_state(config_of(thread))).values["said"]
    assert latest[-1] == "the other"
    assert "heard late" not in latest


def test_what_langgraph_does_in_one_run_is_no_race(careful: Savers, thread: str) -> None:
    """Interrupts, resumes, updates of the state, subgraphs with a memory of their own, many turns."""
    from langgraph.graph import START, StateGraph

    saver, other = careful

    def ask(state: State) -> State:
        return {"said": [interrupt("who?")]}

    inner = StateGraph(State).add_node("ask", ask).add_edge(START, "ask").compile(checkpointer=True)
    graph: Any = (
        StateGraph(State).add_node("inner", inner).add_edge(START, "inner").compile(checkpointer=saver)
    )
    for turn in ("one", "two"):
        graph.invoke(say(turn), config_of(thread))
        graph.update_state(config_of(thread), say("meanwhile"), as_node="__start__")
        answered = graph.invoke(Command(resume=f"me, {turn}"), config_of(thread))
        assert answered["said"][-1] == f"me, {turn}"
    assert said(other, thread) == answered["said"]


def test_a_put_that_is_sent_again_is_fine_and_a_fork_is_not(careful: Savers, thread: str) -> None:
    saver, other = careful
    for number in (1, 2, 3):
        put(saver, thread, number, number)
    put(other, thread, 3, 3)
    put(other, thread, 1, 1)
    fork = checkpoint(9, "fork")
    with pytest.raises(StaleWriter):
        saver.put(config_of(thread, id_of(2)), fork, {}, fork["channel_versions"])
    with pytest.raises(StaleWriter):
        saver.put(config_of(thread), fork, {}, fork["channel_versions"])
    assert saver.get_tuple(config_of(thread, id_of(9))) is None
    assert value_of(saver.get_tuple(config_of(thread))) == 3


def test_going_on_from_an_older_checkpoint_on_purpose_takes_a_lease(careful: Savers, thread: str) -> None:
    saver, other = careful
    graph = graph_of(saver)
    graph.invoke(say("hello"), config_of(thread))
    graph.invoke(say("again"), config_of(thread))
    old = list(graph.get_state_history(config_of(thread)))[-2].config
    with pytest.raises(StaleWriter):
        graph.update_state(old, say("fork"))
    with saver.single_writer(thread):
        fork = graph.update_state(old, say("fork"))
        graph.invoke(None, fork)
    assert said(other, thread)[-1].startswith("heard fork")


def test_a_lease_keeps_all_others_out_and_lets_its_holder_in(pair: Savers, thread: str) -> None:
    saver, other = pair
    with saver.single_writer(thread, holder="billing, host 7"):
        put(saver, thread, 1, "mine")
        for intruder in (other, TenureSaver(other.connection, single_writer=True)):
            with pytest.raises(StaleWriter):
                put(intruder, thread, 2, "theirs")
            with pytest.raises(StaleWriter):
                intruder.put_writes(config_of(thread, id_of(1)), [("state", "theirs")], "task")
        with pytest.raises(LeaseHeld) as held, other.single_writer(thread):
            pass
        assert held.value.holder == "billing, host 7"
        assert 0 < held.value.held_for <= 30
        saver.put_writes(config_of(thread, id_of(1)), [("state", "mine")], "task")
        put(saver, thread, 2, "mine, too")
    found = [(value_of(each), each.pending_writes) for each in saver.list(config_of(thread))]
    assert found == [("mine, too", []), ("mine", [("task", "state", "mine")])]
    put(other, thread, 3, "theirs at last")


async def test_a_lease_does_the_same_without_blocking(pair: Savers, thread: str) -> None:
    saver, other = pair
    async with saver.single_writer(thread) as held:
        assert held.token > 0
        await graph_of(saver).ainvoke(say("mine"), config_of(thread))
        with pytest.raises(StaleWriter):
            await graph_of(other).ainvoke(say("theirs"), config_of(thread))
        with pytest.raises(LeaseHeld):
            async with other.single_writer(thread):
                pass
    assert said(other, thread) == ["mine", "heard mine"]
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "tenure-lease"] == []


def test_a_value_in_slices_is_refused_as_well(pair: Savers, thread: str) -> None:
    saver, other = pair
    large = os.urandom(3 << 20)
    with saver.single_writer(thread):
        with pytest.raises(StaleWriter):
            put(other, thread, 1, large)
        put(saver, thread, 1, large)
    assert value_of(other.get_tuple(config_of(thread))) == large


def test_turns_that_wait_for_each_other_are_all_kept(pair: Savers, thread: str) -> None:
    def turns(number: int) -> None:
        for turn in range(5):
            with pair[number].single_writer(thread, wait=PATIENCE):
                graph_of(pair[number]).invoke(say(f"{number}-{turn}"), config_of(thread))

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(turns, range(2)))
    kept = [text for text in said(pair[0], thread) if not text.startswith("heard")]
    assert sorted(kept) == [f"{number}-{turn}" for number in range(2) for turn in range(5)]


async def test_tasks_that_wait_for_each_other_are_all_kept(pair: Savers, thread: str) -> None:
    async def turns(number: int) -> None:
        for turn in range(3):
            async with pair[number % 2].single_writer(thread, wait=PATIENCE):
                await graph_of(pair[number % 2]).ainvoke(say(f"{number}-{turn}"), config_of(thread))

    await asyncio.gather(*(turns(number) for number in range(3)))
    kept = [text for text in said(pair[0], thread) if not text.startswith("heard")]
    assert len(kept) == len(set(kept)) == 9


def test_a_writer_that_slept_through_its_lease_is_refused_when_it_wakes(
    stack: Stack, key: str, pair: Savers, thread: str
) -> None:
    saver, other = pair
    with holder(stack.target, key, thread, ttl=1.0) as sleeper:
        assert sleeper.put() == "put"
        sleeper.pause()
        with other.single_writer(thread, wait=PATIENCE) as taken:
            put(other, thread, 3, "of who took over")
            sleeper.resume()
            assert sleeper.put() == "StaleWriter"
            put(other, thread, 4, "of who took over, again")
            assert taken.token
        assert sleeper.put() == "StaleWriter", "its token is of no use any more, even without another lease"
    assert values_of(saver, thread) == [
        "of who took over, again",
        "of who took over",
        "put 2 of the holder",
        "first",
    ]


def test_the_thread_of_a_writer_that_was_killed_is_free_again(
    stack: Stack, key: str, pair: Savers, thread: str
) -> None:
    saver, other = pair
    with holder(stack.target, key, thread, ttl=1.0) as doomed:
        with pytest.raises(LeaseHeld) as held, other.single_writer(thread):
            pass
        assert held.value.holder == "a process"
        doomed.kill()
        with other.single_writer(thread, wait=PATIENCE):
            put(other, thread, 2, "survivor")
    assert value_of(saver.get_tuple(config_of(thread))) == "survivor"


def values_of(saver: TenureSaver, thread_id: str) -> list[object]:
    """Return what the checkpoints of a thread hold, the newest first."""
    return [value_of(found) for found in saver.list(config_of(thread_id))]


def lease_until(stack: Stack, thread_id: str) -> datetime | None:
    """Return when a thread's lease ends."""
    with psycopg.connect(stack.database.admin_url) as connection:
        row = connection.execute(
            "SELECT lease_until FROM tenure.thread_head WHERE thread_id = %s", [thread_id]
        ).fetchone()
    assert row is not None
    until: datetime | None = row[0]
    return until


def test_a_lease_is_renewed_as_long_as_its_block_runs_and_leaves_nothing(
    stack: Stack, pair: Savers, thread: str
) -> None:
    saver, other = pair
    with saver.single_writer(thread, ttl=1.0):
        seen = set()

        def renewed_often() -> bool:
            seen.add(lease_until(stack, thread))
            return len(seen) > 4

        wait_until(renewed_often, "the lease is renewed")
        with pytest.raises(LeaseHeld), other.single_writer(thread):
            pass
        put(saver, thread, 1, "still mine")
    assert [one for one in threading.enumerate() if one.name == "tenure-lease"] == []
    assert lease_until(stack, thread) is None


async def test_a_lease_of_a_task_is_renewed_as_well(stack: Stack, pair: Savers, thread: str) -> None:
    async with pair[0].single_writer(thread, ttl=1.0):
        first = lease_until(stack, thread)
        while lease_until(stack, thread) == first:
            await asyncio.sleep(0.05)
        await graph_of(pair[0]).ainvoke(say("still mine"), config_of(thread))


def test_a_lease_outlives_the_server_it_was_got_from(
    stack: Stack, replica: ServerProcess, run_folder: Any, thread: str
) -> None:
    api_key = stack.new_tenant().api_key
    with (
        replicas(1, run_folder, stack.database) as (server,),
        TenureSaver(server.target, api_key=api_key) as saver,
        TenureSaver(replica.target, api_key=api_key) as other,
        saver.single_writer(thread),
    ):
        server.kill()
        with pytest.raises(StaleWriter):
            put(other, thread, 1, "theirs")
        server.start()
        put(saver, thread, 1, "mine")
        assert value_of(other.get_tuple(config_of(thread))) == "mine"


def test_a_copy_with_another_allowlist_writes_under_the_same_lease(pair: Savers, thread: str) -> None:
    saver, _ = pair
    clone = saver.with_allowlist([("tests.integration.single_writer_support", "State")])
    assert clone is not saver
    with saver.single_writer(thread):
        put(clone, thread, 1, "mine")
    with pytest.raises(StaleWriter), clone.single_writer(thread):  # type: ignore[attr-defined]
        put(pair[1], thread, 2, "theirs")


def test_a_forked_child_is_another_writer_and_does_not_end_its_parents_lease(
    stack: Stack, key: str, pair: Savers, thread: str
) -> None:
    with holder(stack.target, key, thread, ttl="forked") as parent:
        assert parent.told() == "StaleWriter", "what the child put"
        wait_until(lambda: values_of(pair[0], thread) == ["parent again", "parent"], "the parent puts again")
        with pytest.raises(LeaseHeld), pair[1].single_writer(thread):
            pass


def test_a_lease_is_gone_with_its_thread_and_its_token_never_fits_another(pair: Savers, thread: str) -> None:
    saver, other = pair
    with saver.single_writer(thread) as held:
        put(saver, thread, 1, "first life")
        other.delete_thread(thread)
        with other.single_writer(thread) as next_life:
            assert next_life.token > held.token
            put(other, thread, 1, "second life")
            with pytest.raises(StaleWriter):
                put(saver, thread, 2, "first life")
    assert value_of(saver.get_tuple(config_of(thread))) == "second life"


def test_other_threads_and_other_tenants_are_not_touched(stack: Stack, pair: Savers, thread: str) -> None:
    saver, other = pair
    with saver.single_writer(thread), other.single_writer(f"{thread}-2"):
        put(saver, f"{thread}-3", 1, "unprotected")
        put(other, f"{thread}-3", 2, "unprotected")
        with TenureSaver(stack.target, api_key=stack.new_tenant().api_key) as stranger:
            with stranger.single_writer(thread):
                put(stranger, thread, 1, "a thread of the same name")
            assert len(list(stranger.list(None))) == 1
