"""The client process: `python -m benchmarks.client` opens one saver and does one workload's work.

The first line of stdin is the job. Then each phase is one line out, JSON, and one line in, `go`: between
them the run reads clocks or restarts servers. The end of stdin ends the process.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import traceback
from contextlib import aclosing
from typing import IO, Any

from benchmarks.systems import SYSTEMS, Endpoint, open_saver
from benchmarks.workloads import workloads


def main() -> int:
    """Do the job on stdin and return the exit status."""
    answers, sys.stdout = sys.stdout, sys.stderr
    job = json.loads(sys.stdin.readline())
    try:
        asyncio.run(_work(job, answers))
    except _Ended:
        return 0
    except Exception as error:
        traceback.print_exc()
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        text = str(error).strip().partition("\n")[0][:200]
        _answer(answers, {"error": f"{type(error).__name__}: {text}"})
        return 1
    return 0


async def _work(job: dict[str, Any], answers: IO[str]) -> None:
    system = SYSTEMS[job["system"]]
    workload = workloads(quick=job["quick"])[job["workload"]]
    async with open_saver(system, Endpoint(**job["endpoint"])) as saver:
        phases = workload.work(saver, blocking=system.blocking, **job["options"])
        async with aclosing(phases):
            used = time.process_time()
            async for phase in phases:
                cpu = time.process_time() - used
                _answer(answers, {"cpu": cpu, **(phase.to_json() if phase else {})})
                # In a thread, so that what the saver does in the background goes on.
                if not await asyncio.to_thread(sys.stdin.readline):
                    raise _Ended
                used = time.process_time()


def _answer(answers: IO[str], line: dict[str, Any]) -> None:
    answers.write(json.dumps(line) + "\n")
    answers.flush()


class _Ended(Exception):
    """The run wants no more phases."""


if __name__ == "__main__":
    sys.exit(main())
