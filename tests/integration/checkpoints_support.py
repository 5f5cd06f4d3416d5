"""Small checkpoints to put, and what must come back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, CheckpointTuple, empty_checkpoint

from tests.harness.databases import Database
from tests.harness.processes import PATIENCE
from tests.harness.server import ServerProcess

SLOW = os.environ.get("TENURE_TEST_SLOW", "0") not in {"", "0"}


def config_of(thread_id: str, checkpoint_id: str | None = None) -> RunnableConfig:
    """Return the config of a thread's root namespace, or of a checkpoint in it."""
    configurable = {"thread_id": thread_id, "checkpoint_ns": ""}
    return {"configurable": configurable | ({"checkpoint_id": checkpoint_id} if checkpoint_id else {})}


def id_of(number: int) -> str:
    """Return a checkpoint id that sorts as its number."""
    return f"{number:08}"


def checkpoint(number: int, value: Any) -> Checkpoint:
    """Return a checkpoint with one channel that is new in it."""
    made = empty_checkpoint()
    made["id"] = id_of(number)
    made["ts"] = "2026-01-01T00:00:00+00:00"
    made["channel_values"] = {"state": value}
    made["channel_versions"] = {"state": f"{number:032}.0"}
    return made


def put(
    saver: BaseCheckpointSaver[Any],
    thread_id: str,
    number: int,
    value: Any,
    *,
    metadata: dict[str, Any] | None = None,
) -> RunnableConfig:
    """Put a checkpoint on top of the one with the number before."""
    made = checkpoint(number, value)
    parent = config_of(thread_id, id_of(number - 1) if number > 1 else None)
    told: Any = {"source": "loop", "step": number} | (metadata or {})
    return saver.put(parent, made, told, made["channel_versions"])


def value_of(found: CheckpointTuple | None) -> Any:
    """Return what the channel of a checkpoint holds."""
    assert found is not None, "there is no checkpoint"
    return found.checkpoint["channel_values"]["state"]


def wait_until(holds: Callable[[], object], what: str) -> None:
    """Wait for something that has no event to wait for."""
    give_up = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < give_up, f"not within {PATIENCE:g} s: {what}"
        time.sleep(0.01)


@contextmanager
def replicas(
    number: int, folder: Path, database: Database, redis_url: str | None = None, **env: str
) -> Iterator[list[ServerProcess]]:
    """Run so many servers on one database and one cache."""
    with ExitStack() as stack:
        servers = [ServerProcess(folder, database, redis_url, env=env) for _ in range(number)]
        for server in servers:
            stack.callback(server.close)
            server.start()
        yield servers
