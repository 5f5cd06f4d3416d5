"""One worker: a server that ends with its parent and tells it how it is."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace

from tenure_server import app
from tenure_server.config import Config
from tenure_server.errors import ConfigError
from tenure_server.workers.errors import CLOSING, WorkersFailed

_log = logging.getLogger("tenure")


async def work(config: Config, number: int) -> None:
    """Serve as worker `number` of a parent, until it or a signal says stop, or it is gone.

    Raises:
        WorkersFailed: Nobody holds the other end of standard input.
        SystemExit: The settings cannot work, as the parent was told.
    """
    try:
        parent = socket.socket(fileno=os.dup(0))
        parent.getpeername()
    except OSError:
        raise WorkersFailed("--slot is for `tenure serve --workers N` alone; use that") from None
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def watch() -> None:
        with suppress(OSError):
            parent.recv(1)
        _log.warning("the parent is gone; draining")
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)
        time.sleep(config.drain + CLOSING)
        os._exit(1)

    def tell(**message: object) -> None:
        with suppress(OSError):
            parent.sendall(json.dumps(message).encode() + b"\n")

    # A thread, so that even a worker whose event loop hangs does not outlive its parent.
    threading.Thread(target=watch, name="parent", daemon=True).start()
    try:
        await app.serve(
            replace(config, reuse_port=True), on_health=lambda ready: tell(ready=ready), stop=stop
        )
    except ConfigError as error:
        tell(faults=error.faults)
        raise SystemExit(os.EX_CONFIG) from None
