"""The sweeper works on threads that are written to, and is killed amid that: what must stay is not lost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from operator import add
from pathlib import Path
from typing import Annotated, Any, TypedDict

import psycopg
import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph
from tenure_client import TenureError, TenureSaver
from tenure_server.domain import Role
from tenure_server.storage.postgres import sweeper

from tests.harness.databases import Database
from tests.harness.server import ServerProcess, clean_environment
from tests.harness.stack import Stack
from tests.integration.checkpoints_support import SLOW, config_of, replicas
from tests.storage.retained import opened
from tests.storage.tenant import put

SECONDS = 300.0 if SLOW else 10.0
THREADS, KEPT = 6, 3
STEPS, FREQUENCY = 4, 7
"""Checkpoints of a turn, and turns after which a DeltaChannel is stored whole."""
EVERY = 0.05
KILL_EVERY = 1.0


def _extend(value: Sequence[str], writes: Sequence[Sequence[str]]) -> Sequence[str]:
    return [*value, *(entry for write in writes for entry in write)]


class Said(TypedDict):
    """What a conversation says: whole, and as changes."""

    said: Annotated[list[str], add]
    changes: Annotated[list[str], DeltaChannel(_extend, snapshot_frequency=FREQUENCY)]
    now: str


class Inner(TypedDict):
    """The state of the subgraph, which has checkpoints of its own."""

    now: str
    heard: Annotated[list[str], add]


def _graph(saver: TenureSaver) -> Any:
    inner = StateGraph(Inner)
    inner.add_node("hear", lambda state: {"heard": [state["now"]]})
    inner.add_edge(START, "hear")
    inner.add_edge("hear", END)
    outer = StateGraph(Said)
    outer.add_node("say", lambda state: {"said": [state["now"]], "changes": [state["now"]]})
    outer.add_node("listen", inner.compile())
    outer.add_edge(START, "say")
    outer.add_edge("say", "listen")
    outer.add_edge("listen", END)
    return outer.compile(checkpointer=saver)


async def _sweep_until_killed(database: Database, over: asyncio.Event, seconds: float) -> list[int]:
    """Run a sweeper, kill it after so many seconds or at the end, and return what its runs deleted."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.harness.sweeping"),
        *(database.ops_url, database.app_url, str(EVERY), "0"),
        stdout=subprocess.PIPE,
        env=clean_environment(),
        cwd=Path(__file__).parents[2],
    )
    telling = asyncio.create_task(process.communicate())
    with suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), seconds)
    process.kill()
    told, _ = await telling
    return [int(line) for line in told.split()]


@asynccontextmanager
async def _killed_in_turn(database: Database, server: ServerProcess) -> AsyncIterator[list[int]]:
    """Keep two sweepers at work, kill them again and again, and the server once; gives what they deleted."""
    deleted: list[int] = []
    over = asyncio.Event()

    async def keep(seconds: float) -> None:
        while not over.is_set():
            deleted.extend(await _sweep_until_killed(database, over, seconds))

    async def kill_server() -> None:
        await asyncio.sleep(SECONDS / 2)
        server.kill()
        await asyncio.to_thread(server.start)

    tasks = [asyncio.create_task(work) for work in (keep(KILL_EVERY), keep(KILL_EVERY * 1.7), kill_server())]
    try:
        yield deleted
    finally:
        over.set()
        for task in tasks:
            await task


@pytest.fixture
def stack(database: Database, open_folder: Path) -> Iterator[Stack]:
    """A server without a sweeper."""
    nobody = {"TENURE_OPS_DATABASE_URL": "", "TENURE_ADMIN_DATABASE_URL": ""}
    with replicas(1, open_folder, database, **nobody) as (server,):
        yield Stack(server, database, None)


@pytest.mark.timeout(SECONDS + 120)
async def test_what_must_stay_stays_and_graphs_go_on(stack: Stack) -> None:
    database = stack.database
    async with opened(database) as kept:
        api_key = await database.tenants().create_key(kept.id, Role.AGENT.scopes)
        await kept.policy(keep_last=KEPT)
        acknowledged: dict[str, list[str]] = {f"t{n}": [] for n in range(THREADS)}
        tried: dict[str, set[str]] = {thread: set() for thread in acknowledged}
        until = time.monotonic() + SECONDS

        async with TenureSaver(stack.target, api_key=api_key) as saver:
            graph = _graph(saver)

            async def converse(thread: str) -> None:
                number = 0
                while time.monotonic() < until:
                    number += 1
                    word = f"{thread}-{number}"
                    tried[thread].add(word)
                    try:
                        state = await graph.ainvoke({"now": word}, config_of(thread))
                    except TenureError:
                        continue
                    acknowledged[thread].append(word)
                    assert state["said"] == state["changes"], "what changes add up to is what was said"

            async with _killed_in_turn(database, stack.server) as deleted:
                await asyncio.gather(*(converse(thread) for thread in acknowledged))
            assert sum(deleted) > THREADS * KEPT, "the sweepers had something to do"
            await kept.sweep()

            for thread, words in acknowledged.items():
                state = (await graph.aget_state(config_of(thread))).values
                assert [word for word in words if word not in state["said"]] == []
                assert set(state["said"]) <= tried[thread]
                assert state["said"] == state["changes"]
                goes_on = await graph.ainvoke({"now": "last"}, config_of(thread))
                assert goes_on["said"] == [*state["said"], "last"]
                history = [step async for step in graph.aget_state_history(config_of(thread))]
                # With what their DeltaChannel is rebuilt from.
                assert KEPT <= len(history) < KEPT + STEPS * FREQUENCY
                for step in history:
                    assert step.values["said"] == step.values["changes"]
        await kept.sweep()
        await kept.used()
    _nothing_dangles(database)


def _nothing_dangles(database: Database) -> None:
    with psycopg.connect(database.admin_url) as connection:
        for missing in (
            """
            SELECT c.checkpoint_id, e.channel, e.version FROM tenure.checkpoint AS c
            CROSS JOIN LATERAL jsonb_each_text(c.versions) AS e (channel, version)
            WHERE NOT EXISTS (
                SELECT FROM tenure.channel_value AS v
                WHERE v.thread_key = c.thread_key AND v.ns_hash = tenure.ns_hash_1(c.checkpoint_ns)
                    AND v.channel = e.channel AND v.version = e.version)
                -- LangGraph's marks of what a node has seen have versions and no values.
                AND e.channel NOT LIKE 'branch:%' AND e.channel NOT LIKE '\\_\\_%' AND e.channel <> 'changes'
            """,
            """
            SELECT w.checkpoint_id, w.channel FROM tenure.pending_write AS w
            WHERE NOT EXISTS (
                SELECT FROM tenure.checkpoint AS c
                WHERE c.thread_key = w.thread_key AND c.checkpoint_id = w.checkpoint_id)
            """,
            """
            SELECT o.checkpoint_id FROM tenure.head_override AS o
            WHERE NOT EXISTS (
                SELECT FROM tenure.checkpoint AS c
                WHERE c.thread_key = o.thread_key AND c.checkpoint_id = o.checkpoint_id)
            """,
            """
            SELECT c.checkpoint_id, c.parent_checkpoint_id FROM tenure.checkpoint AS c
            WHERE c.parent_checkpoint_id IS NOT NULL AND NOT EXISTS (
                SELECT FROM tenure.checkpoint AS p
                WHERE p.thread_key = c.thread_key AND p.checkpoint_ns = c.checkpoint_ns
                    AND p.checkpoint_id = c.parent_checkpoint_id)
            """,
        ):
            assert connection.execute(missing).fetchall() == []


async def test_of_two_sweepers_one_works(database: Database) -> None:
    async with opened(database) as kept:
        await kept.policy(keep_last=1)
        async with await psycopg.AsyncConnection.connect(database.ops_url, autocommit=True) as leader:
            await leader.execute("SELECT pg_advisory_lock(%s)", [sweeper._LOCK])
            await kept.agent.write(put("t", "1"), put("t", "2", "1"))
            assert (await kept.sweep()).expired_checkpoints == 0
        assert (await kept.sweep()).expired_checkpoints == 1
