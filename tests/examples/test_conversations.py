"""Memory of a conversation: what the agent says shows what it remembers."""

from __future__ import annotations

from tenure_client import TenureSaver

from examples import accumulate, chatbot, functional_api, short_term_memory, subgraph_memory
from tests.examples.running import lines_of


def test_the_chatbot_remembers_a_name_in_its_thread_only(saver: TenureSaver) -> None:
    assert lines_of(chatbot.main, saver) == [
        "You:   Hi! I'm Bob.",
        "Agent: Hi Bob! How can I help?",
        "You:   What's my name?",
        "Agent: Your name is Bob.",
        "In another thread: I don't know your name: you have not told me.",
    ]


def test_a_state_graph_remembers_sync_async_and_streaming(saver: TenureSaver) -> None:
    assert lines_of(short_term_memory.main, saver) == [
        "sync:   Your name is Bob.",
        "async:  Your name is Alice.",
        "values: Hi! I'm Carol.",
        "values: Hi Carol! How can I help?",
        "values: What's my name?",
        "values: Your name is Carol.",
        "tokens: ['Your ', 'name ', 'is ', 'Dave.']",
    ]


async def test_one_saver_serves_blocking_and_asynchronous_graphs_inside_a_loop(saver: TenureSaver) -> None:
    await short_term_memory.chat_async(saver)
    short_term_memory.chat_sync(saver)
    await short_term_memory.stream_async(saver)


def test_a_subgraph_stops_and_goes_on_with_its_parent(saver: TenureSaver) -> None:
    assert lines_of(subgraph_memory.shared_memory, saver) == [
        "parent waits for: ('child',) child waits for: ('ask',) child holds: {'foo': 'a'}",
        "resumed: {'foo': 'ab'}",
    ]


def test_a_subgraph_with_a_memory_of_its_own_adds_to_it(saver: TenureSaver) -> None:
    assert lines_of(subgraph_memory.own_memory, saver) == [
        "first turn:  {'foo': 'tea'}",
        "second turn: {'foo': 'tea and cake'}",
    ]


def test_an_entrypoint_gets_what_it_returned_as_previous(saver: TenureSaver) -> None:
    assert lines_of(functional_api.main, saver)[-2:] == [
        "Agent: Your name is Bob.",
        "Remembered: 4 messages",
    ]


def test_entrypoint_final_returns_one_thing_and_saves_another(saver: TenureSaver) -> None:
    assert lines_of(accumulate.main, saver) == ["0", "1", "3"]
