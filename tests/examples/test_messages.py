"""Conversations that grow too long: trim, delete, summarise."""

from __future__ import annotations

from tenure_client import TenureSaver

from examples import delete_messages, summarize_messages, trim_messages
from tests.examples.running import lines_of


def test_trimming_hides_messages_from_the_model_and_keeps_them_in_the_thread(saver: TenureSaver) -> None:
    printed = lines_of(trim_messages.main, saver)

    assert [line.strip() for line in printed if "the model sees" in line] == [
        "the model sees 1 of 1 messages",
        "the model sees 3 of 3 messages",
        "the model sees 5 of 5 messages",
        "the model sees 3 of 7 messages",
        "the model sees 3 of 9 messages",
    ]
    assert printed[-2:] == [
        "Agent: I don't know your name: you have not told me.",
        "Kept in the thread: 10 messages",
    ]


def test_a_removed_message_is_out_of_the_state(saver: TenureSaver) -> None:
    assert lines_of(delete_messages.main, saver) == [
        str(["Hi! I'm Bob.", "Hi Bob! How can I help?"]),
        str(["What's my name?", "Your name is Bob."]),
        str(["What's my name?", "I don't know your name: you have not told me."]),
        "After removing all: []",
    ]


def test_a_summary_remembers_what_the_removed_messages_said(saver: TenureSaver) -> None:
    printed = [line for line in lines_of(summarize_messages.main, saver) if line]

    assert [line.split()[1] for line in printed if line.startswith("Kept:")] == ["2", "4", "2", "4"]
    assert printed[-3:] == [
        "Agent:   Your name is Bob.",
        "Kept:    4 messages",
        "Summary: The user is called Bob. Requests so far: "
        "Write a short poem about cats; Now do the same but for dogs.",
    ]
