"""What a DeltaChannel is rebuilt from is the same as with InMemorySaver, on random histories."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from tenure_client import TenureSaver

from tests.conformance.sync_as_async import SyncAsAsync
from tests.harness.stack import Target

CHANNELS = ["a", "b"]
WRITES = st.lists(
    st.tuples(
        st.lists(
            st.tuples(st.sampled_from([*CHANNELS, "other", "__error__"]), st.integers(0, 99)), max_size=3
        ),
        st.sampled_from(["task-1", "task-2"]),
        st.sampled_from(["", "~__pregel_pull, x", "~__pregel_push, 0"]),
    ),
    max_size=3,
)
STEP = st.fixed_dictionaries(
    {
        "parent": st.integers(0, 20),
        "stored": st.dictionaries(
            st.sampled_from(CHANNELS),
            st.none() | st.integers(0, 99) | st.builds(_DeltaSnapshot, st.lists(st.integers(0, 9))),
        ),
        "writes": WRITES,
    }
)


@pytest.fixture(params=["memory_stack", "stack"], ids=["memory", "full"])
def target(request: pytest.FixtureRequest) -> Target:
    found: Target = request.getfixturevalue(request.param)
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, min_size=1, max_size=7))
async def test_history_is_that_of_the_reference(target: Target, history: list[dict[str, Any]]) -> None:
    async with TenureSaver(target.target, api_key=target.new_tenant().api_key) as saver:
        reference = InMemorySaver()
        ids = await replay(history, saver, reference)
        for checkpoint_id in [*ids, None, "absent"]:
            config: Any = {
                "configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": checkpoint_id}
            }
            for colour in (saver, SyncAsAsync(saver)):
                found = await colour.aget_delta_channel_history(config=config, channels=CHANNELS)
                assert found == reference.get_delta_channel_history(config=config, channels=CHANNELS)
                default = await BaseCheckpointSaver.aget_delta_channel_history(
                    colour, config=config, channels=CHANNELS
                )
                assert found == default


async def replay(history: list[dict[str, Any]], *savers: BaseCheckpointSaver[Any]) -> list[str]:
    """Put the same history into savers and return the ids of its checkpoints.

    A value of None stands for a version without a value, as a DeltaChannel makes them.
    """
    checkpoints: list[Any] = []
    for number, step in enumerate(history):
        parent = checkpoints[step["parent"] % len(checkpoints)] if checkpoints else None
        checkpoint = empty_checkpoint()
        checkpoint["id"] = f"{number:04}"
        new = dict.fromkeys(step["stored"], f"{number:04}.1")
        checkpoint["channel_versions"] = {**(parent["channel_versions"] if parent else {}), **new}
        checkpoint["channel_values"] = {
            channel: value for channel, value in step["stored"].items() if value is not None
        }
        checkpoints.append(checkpoint)
        for saver in savers:
            config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
            if parent:
                config["configurable"]["checkpoint_id"] = parent["id"]
            stored = await saver.aput(config, checkpoint, {"source": "loop"}, new)
            for writes, task_id, task_path in step["writes"]:
                await saver.aput_writes(stored, writes, task_id, task_path)
    return [checkpoint["id"] for checkpoint in checkpoints]
