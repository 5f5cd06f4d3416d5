"""A sweeper in a process of its own, which a test may kill."""

from __future__ import annotations

import asyncio
import sys

from tenure_server.storage.postgres.pool import Database
from tenure_server.storage.postgres.retention_sweeping import PolicySweeping
from tenure_server.storage.postgres.sweeper import Sweeper


async def sweep(ops_url: str, app_url: str, interval: float, settle: float) -> None:
    """Sweep until killed; a line for each run says how many checkpoints it deleted."""
    database = await Database.open(app_url, max_size=2, application_name="tests sweeper")
    sweeper = Sweeper(ops_url, PolicySweeping(database, settle))
    while True:
        swept = await sweeper.run_once()
        print(swept.expired_checkpoints, flush=True)
        await asyncio.sleep(interval)


if __name__ == "__main__":
    _, ops, app, every, settled = sys.argv
    asyncio.run(sweep(ops, app, float(every), float(settled)))
