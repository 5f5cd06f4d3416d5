"""Threads as a whole: their state, their history, forks, and getting rid of them."""

from __future__ import annotations

import contextlib
import io

from tenure_client import TenureSaver

from examples import delete_thread, housekeeping, thread_history, thread_state, time_travel
from tests.examples.running import lines_of, with_numbered_ids

FIRST_TURN = ["Hi! I'm Bob.", "Hi Bob! How can I help?"]
SECOND_TURN = ["What's my name?", "Your name is Bob."]


def test_get_state_gives_the_latest_and_a_named_checkpoint(saver: TenureSaver) -> None:
    assert with_numbered_ids(lines_of(thread_state.main, saver)) == [
        f"Latest: {FIRST_TURN + SECOND_TURN}",
        "  next () at step 4",
        f"At <id 0> {FIRST_TURN}",
        "  next () at step 1",
    ]


def test_two_turns_leave_six_snapshots(saver: TenureSaver) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        history = thread_history.main(saver)

    said = FIRST_TURN + SECOND_TURN
    assert [thread_history.texts(one.values) for one in history] == [
        said,
        said[:3],
        said[:2],
        said[:2],
        said[:1],
        [],
    ]
    assert [one.next for one in history] == [
        (),
        ("call_model",),
        ("__start__",),
        (),
        ("call_model",),
        ("__start__",),
    ]
    assert [(one.metadata["source"], one.metadata["step"]) for one in history if one.metadata] == [
        ("loop", 4),
        ("loop", 3),
        ("input", 2),
        ("loop", 1),
        ("loop", 0),
        ("input", -1),
    ]
    assert [
        [(task.name, thread_history.texts(task.result or {})) for task in one.tasks] for one in history
    ] == [
        [],
        [("call_model", said[3:])],
        [("__start__", said[2:3])],
        [],
        [("call_model", said[1:2])],
        [("__start__", said[:1])],
    ]


def test_each_snapshot_names_itself_and_its_parent(saver: TenureSaver) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        history = thread_history.main(saver)

    ids = [one.config["configurable"]["checkpoint_id"] for one in history]
    parents = [one.parent_config and one.parent_config["configurable"]["checkpoint_id"] for one in history]
    assert ids == sorted(set(ids), reverse=True)
    assert parents == [*ids[1:], None]


def test_a_fork_goes_its_own_way_and_the_first_run_stays(saver: TenureSaver) -> None:
    printed = lines_of(time_travel.main, saver)

    first, replayed, forked = (line.partition(":")[2].strip() for line in printed[:3])
    assert "socks in the dryer" in first
    assert replayed == first
    assert "chickens" in forked
    history = printed[printed.index("History, newest first:") + 1 :]
    assert [line.split()[0] for line in history] == [
        "loop",
        "update",
        "loop",
        "fork",
        "loop",
        "loop",
        "loop",
        "input",
    ]
    assert "chickens" in history[0]
    assert "socks in the dryer" in history[4]


def test_a_deleted_thread_is_forgotten_and_no_other(saver: TenureSaver) -> None:
    assert lines_of(delete_thread.main, saver) == [
        "Before: Hi Bob! How can I help?",
        "After:  {}",
        "Checkpoints: 0 of Bob, 3 of Alice",
        "Bob: I don't know your name: you have not told me.",
        "Alice: Your name is Alice.",
    ]


def test_copy_take_back_prune_and_delete(saver: TenureSaver) -> None:
    assert lines_of(housekeeping.main, saver) == [
        f"original   3 checkpoints, {FIRST_TURN}",
        f"copy       6 checkpoints, {[*FIRST_TURN, 'I am Robert now.', 'Hi Robert! How can I help?']}",
        f"taken back 3 checkpoints, {FIRST_TURN}",
        f"pruned     1 checkpoints, {FIRST_TURN}",
        "Agent: Your name is Bob.",
        "deleted:   0 checkpoints left",
    ]
