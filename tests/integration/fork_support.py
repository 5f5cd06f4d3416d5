"""A program that uses one saver in both colours, then forks workers that use it, too.

`python -m tests.integration.fork_support TARGET KEY`. Prints, as JSON, what each worker read and how
it ended.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

from tenure_client import TenureSaver, TenureStore

from tests.integration.checkpoints_support import checkpoint, config_of, id_of, put, value_of

WORKERS = 4


def use(saver: TenureSaver, name: str) -> list[Any]:
    """Put and get in both colours and return what was read; do the same with a store on its connection."""
    put(saver, f"{name} sync", 1, f"{name} sync")
    store = TenureStore(saver.connection)
    store.put(("items", name), "sync", {"by": name})

    async def use_async() -> list[Any]:
        made = checkpoint(1, f"{name} async")
        config = config_of(f"{name} async")
        await saver.aput(config, made, {"step": 1}, made["channel_versions"])
        await store.aput(("items", name), "async", {"by": name})
        items = await store.asearch(("items", name))
        assert [(item.key, item.value) for item in items] == [("sync", {"by": name}), ("async", {"by": name})]
        mine = value_of(await saver.aget_tuple(config))
        listed = [value_of(item) async for item in saver.alist(config_of("parent async"))]
        return [mine, *listed]

    found = asyncio.run(use_async())
    assert store.get(("items", "parent"), "async") is not None
    mine = value_of(saver.get_tuple(config_of(f"{name} sync", id_of(1))))
    return [mine, *found, *(value_of(item) for item in saver.list(config_of("parent sync")))]


def work(saver: TenureSaver, name: str, results: Connection) -> None:
    """Be a worker."""
    results.send([name, use(saver, name)])
    results.close()


def main(target: str, key: str) -> None:
    saver = TenureSaver(target, api_key=key)
    use(saver, "parent")
    report: dict[str, Any] = {}

    context = multiprocessing.get_context("fork")
    started = []
    for number in range(WORKERS):
        receiver, sender = context.Pipe(duplex=False)
        worker = context.Process(target=work, args=(saver, f"process-{number}", sender))
        worker.start()
        sender.close()
        started.append((worker, receiver))
    for worker, receiver in started:
        name, found = receiver.recv()
        worker.join()
        report[name] = [found, worker.exitcode]

    forked = []
    for number in range(WORKERS):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.write(writing, json.dumps(use(saver, f"fork-{number}")).encode())
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            # As any program ends, with all that runs at exit.
            sys.exit(0)
        os.close(writing)
        forked.append((f"fork-{number}", pid, reading))
    for name, pid, reading in forked:
        with os.fdopen(reading) as pipe:
            found = json.loads(pipe.read() or "null")
        report[name] = [found, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]

    report["parent again"] = [use(saver, "parent again"), 0]
    saver.close()
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
