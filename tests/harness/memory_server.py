"""A server on in-memory storage whose tenants are made through standard input.

The first line of standard output is {"target": ...}. Each line of standard input is a list of scopes and is
answered by a line {"tenant_id": ..., "api_key": ...}. The end of standard input ends the server.
"""

from __future__ import annotations

import asyncio
import json
import sys

from tenure_server import app
from tenure_server.config import Config
from tenure_server.domain import Scope
from tenure_server.storage.memory import MemoryCheckpoints, MemoryTenants
from tenure_server.storage.memory_items import MemoryItems
from tenure_server.storage.memory_leases import MemoryLeases
from tenure_server.storage.node_cache import MemoryNodeCache


async def main() -> None:
    tenants, checkpoints = MemoryTenants(), MemoryCheckpoints()
    stop = asyncio.Event()

    async def always_ready() -> None:
        return

    async def make_tenants() -> None:
        while line := await asyncio.to_thread(sys.stdin.readline):
            tenant = await tenants.create_tenant("test")
            key = await tenants.create_key(tenant, frozenset(Scope(name) for name in json.loads(line)))
            print(json.dumps({"tenant_id": str(tenant), "api_key": key}), flush=True)
        stop.set()

    making = asyncio.create_task(make_tenants())
    await app.serve(
        Config(listen="127.0.0.1:0", drain=1.0),
        storage=app.Storage(
            checkpoints, MemoryLeases(checkpoints), MemoryItems(), tenants, always_ready, MemoryNodeCache()
        ),
        on_ready=lambda targets: print(json.dumps(targets.told()), flush=True),
        stop=stop,
    )
    await making


if __name__ == "__main__":
    asyncio.run(main())
