"""The example about two writers of one thread: what is lost without protection, and nothing with it."""

from __future__ import annotations

from tenure_client import TenureSaver

from examples import single_writer
from tests.examples.running import lines_of, run_script
from tests.harness.stack import Stack

PRINTED = [
    "Unprotected: ['milk'] - the tea was confirmed, and is gone",
    "Refused:     ['tea'] - the milk was not confirmed",
    "Run again:   ['tea', 'milk']",
    "Held by:     worker 1",
    "In turn:     ['milk', 'tea']",
]


def test_no_turn_is_lost_under_protection(saver: TenureSaver) -> None:
    assert lines_of(single_writer.main, saver) == PRINTED


def test_it_runs_as_a_script(stack: Stack) -> None:
    assert run_script("single_writer", stack) == PRINTED
