"""Long-term memory: what is told in one thread is known in another one, and to who may know it."""

from __future__ import annotations

import pytest
from tenure_client import OutsideRules, TenureSaver, TenureStore

from examples import long_term_memory, semantic_memory, shared_memory, summary_memory
from tests.examples.running import lines_of, run_script
from tests.harness.stack import Stack


def test_a_tool_keeps_facts_of_a_user_and_of_nobody_else(saver: TenureSaver) -> None:
    printed = lines_of(long_term_memory.main, saver, TenureStore(saver.connection))

    assert printed[-4:] == [
        "bob: What do you remember?",
        "Agent: I remember: I am allergic to peanuts; I like short answers",
        "alice: What do you remember?",
        "Agent: I know nothing about you yet.",
    ]


def test_a_question_finds_the_fact_that_matters(saver: TenureSaver) -> None:
    store = TenureStore(saver.connection, index=semantic_memory.INDEX)

    printed = lines_of(semantic_memory.main, saver, store)

    assert [line for line in printed if line.startswith("Agent:")] == [
        "Agent: I remember: Is allergic to peanuts and cashews.",
        "Agent: I remember: Has two cats named Mia and Leo.",
        "Agent: I remember: Hikes in the mountains on weekends.",
    ]
    assert [line.split(maxsplit=1)[1] for line in printed[-2:]] == [
        "Is allergic to peanuts and cashews.",
        "Takes vitamins in the morning.",
    ]


def test_a_summary_outlives_its_messages_and_reaches_another_chat(saver: TenureSaver) -> None:
    printed = lines_of(summary_memory.main, saver, TenureStore(saver.connection))

    assert [line.split()[1] for line in printed if line.startswith("Kept:")] == ["2", "4", "2", "2"]
    assert "Agent:  Your name is Bob." in printed
    assert printed[-1] == (
        "Stored: The user is called Bob. Requests so far: "
        "Write a short poem about cats; Now do the same but for dogs."
    )


SHARED = [
    "Support reads:   250",
    "Billing reads:   Asked why invoice 1 is so high.",
    "Support writes:  refused",
    "Still unpaid:    ['invoice-1']",
]


def test_two_services_share_a_memory_as_far_as_their_keys_allow(stack: Stack) -> None:
    tenant = stack.new_tenant()
    keys = {
        "BILLING_API_KEY": stack.new_key(tenant, "namespaces:billing:rw", "namespaces:support:r"),
        "SUPPORT_API_KEY": stack.new_key(tenant, "namespaces:support:rw", "namespaces:billing:r"),
    }

    assert run_script("shared_memory", stack, **keys) == SHARED


def test_a_service_without_a_rule_reads_nothing_of_it(stack: Stack) -> None:
    tenant = stack.new_tenant()
    billing = TenureStore(stack.target, api_key=stack.new_key(tenant, "namespaces:billing:rw"))
    sales = TenureStore(stack.target, api_key=stack.new_key(tenant, "namespaces:sales:rw"))

    with billing, sales, pytest.raises(OutsideRules):
        shared_memory.main(billing, sales)


def test_the_scripts_find_their_server_in_the_environment(stack: Stack) -> None:
    assert run_script("long_term_memory", stack)[-1] == "Agent: I know nothing about you yet."
    assert run_script("semantic_memory", stack)[1] == "Agent: I remember: Is allergic to peanuts and cashews."
    assert run_script("summary_memory", stack)[-1].startswith("Stored: The user is called Bob.")
