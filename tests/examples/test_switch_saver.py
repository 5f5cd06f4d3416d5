"""Moving a graph, and its threads, from LangGraph's own savers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres import PostgresSaver
from tenure_client import TenureSaver

from examples import chatbot, switch_saver
from tests.examples.running import lines_of
from tests.harness.databases import Postgres

CONFIG = {"configurable": {"thread_id": "moved"}}


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """An empty database for PostgresSaver."""
    name = postgres.create_database()
    yield postgres.admin_dsn(name)
    postgres.drop_database(name)


@pytest.fixture(params=["memory", "postgres"])
def old_saver(request: pytest.FixtureRequest) -> Iterator[BaseCheckpointSaver[str]]:
    """The saver that a graph had before."""
    if request.param == "memory":
        yield InMemorySaver()
        return
    with PostgresSaver.from_conn_string(request.getfixturevalue("database_url")) as saver:
        saver.setup()
        yield saver


def test_the_graph_is_the_same_on_all_three(saver: TenureSaver, database_url: str) -> None:
    on_tenure = lines_of(switch_saver.main, saver)

    assert on_tenure == ["Agent: Your name is Bob."]
    assert lines_of(switch_saver.with_memory) == on_tenure
    assert lines_of(switch_saver.with_postgres, database_url) == on_tenure


def test_a_thread_moves_with_its_history(old_saver: BaseCheckpointSaver[str], saver: TenureSaver) -> None:
    lines_of(switch_saver.main, old_saver, "moved")

    assert switch_saver.bring_thread("moved", old_saver, saver) == 6

    before = list(chatbot.build(old_saver).get_state_history(CONFIG))
    assert list(chatbot.build(saver).get_state_history(CONFIG)) == before


def test_a_moved_conversation_goes_on(old_saver: BaseCheckpointSaver[str], saver: TenureSaver) -> None:
    lines_of(switch_saver.main, old_saver, "moved")
    switch_saver.bring_thread("moved", old_saver, saver)

    state = chatbot.build(saver).invoke({"messages": ["What's my name?"]}, CONFIG)

    assert len(state["messages"]) == 6
    assert state["messages"][-1].text == "Your name is Bob."
