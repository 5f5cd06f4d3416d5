"""The client process: opens one saver or store and does one workload's work.

Each phase is one message out and one in, "go": between them the run reads clocks or restarts servers. The
end of the pipe ends the process.
"""

from __future__ import annotations

import asyncio
import os
import time
import traceback
from contextlib import aclosing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.systems import SYSTEMS, Endpoint
from benchmarks.workloads import workloads


def main(job: dict[str, Any], pipe: Connection, log: Path) -> None:
    """Do a job.

    Args:
        job: What, as `Bench.clients` makes it.
        pipe: To the run.
        log: File for what is printed.
    """
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        asyncio.run(_work(job, pipe))
    except (_Ended, KeyboardInterrupt):
        pass
    except Exception as error:
        traceback.print_exc()
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        text = str(error).strip().partition("\n")[0][:200]
        pipe.send({"error": f"{type(error).__name__}: {text}"})


async def _work(job: dict[str, Any], pipe: Connection) -> None:
    system = SYSTEMS[job["system"]]
    workload = workloads(quick=job["quick"])[job["workload"]]
    async with workload.open(system, Endpoint(**job["endpoint"])) as opened:
        phases = workload.work(opened, blocking=system.blocking, **job["options"])
        async with aclosing(phases):
            used = time.process_time()
            async for phase in phases:
                cpu = time.process_time() - used
                pipe.send({"cpu": cpu, **(phase.to_json() if phase else {})})
                try:
                    # In a thread, so that what it does in the background goes on.
                    await asyncio.to_thread(pipe.recv)
                except EOFError:
                    raise _Ended from None
                used = time.process_time()


class _Ended(Exception):
    """The run wants no more phases."""
