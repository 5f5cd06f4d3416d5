"""The parent: starts workers, starts others for those that die, and ends them.

It imports neither gRPC nor psycopg, unless it is to answer probes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from tenure_server.config import Config
from tenure_server.errors import ConfigError
from tenure_server.secret_file import write_secret
from tenure_server.workers.environment import worker_environment
from tenure_server.workers.errors import CLOSING, WorkersFailed
from tenure_server.workers.port import reserved

_log = logging.getLogger("tenure")

_QUICK = 10.0
"""A worker that lived for fewer seconds has probably died of something that kills the next one, too."""
_MOST_QUICK_DEATHS = 5
_BACKOFF, _MAX_BACKOFF = 0.25, 8.0


async def supervise(config: Config) -> None:
    """Keep `config.workers` workers serving until SIGTERM or SIGINT, then drain them; a second signal kills.

    Raises:
        ConfigError: A port is taken, or a worker found that the settings cannot work.
        WorkersFailed: A worker dies again and again, or one had to be killed at the end.
    """
    async with _health(config.health_listen) as show:
        with reserved(config.listen) as target, _admin_port(config.admin_listen) as admin_target:
            supervisor = _Supervisor(config, target, admin_target, show)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, supervisor.stop)
            try:
                await supervisor.run()
            finally:
                for number in (signal.SIGTERM, signal.SIGINT):
                    loop.remove_signal_handler(number)


@contextmanager
def _admin_port(listen: str | None) -> Iterator[str | None]:
    """Hold the port of AdminService for the worker that serves it, if that is asked for."""
    if listen is None:
        yield None
        return
    with reserved(listen, "TENURE_ADMIN_LISTEN") as target:
        yield target


@asynccontextmanager
async def _health(listen: str | None) -> AsyncIterator[Callable[[bool], Awaitable[None]]]:
    """Answer probes while the block runs, if that is asked for, and give what says whether we are ready."""
    if listen is None:

        async def show_nobody(ready: bool) -> None:
            return

        yield show_nobody
        return
    from tenure_server import app

    servicer = await app.new_health()

    async def show(ready: bool) -> None:
        await app.set_health(servicer, ready=ready)

    async with app.health_port(listen, servicer):
        yield show


class _Supervisor:
    """Starts workers, starts others for those that die, and says when all serve.

    Ready from when every worker was ready at the same time, as long as one of them is.
    """

    def __init__(
        self,
        config: Config,
        target: str,
        admin_target: str | None,
        show: Callable[[bool], Awaitable[None]],
    ) -> None:
        self._config = config
        self._target = target
        self._admin_target = admin_target
        self._show = show
        self._server_id = str(uuid.uuid4())
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._ready: set[int] = set()
        self._announced = False
        self._stopping = asyncio.Event()
        self._killing = asyncio.Event()

    def stop(self) -> None:
        """Drain; asked again, kill."""
        (self._killing if self._stopping.is_set() else self._stopping).set()

    async def run(self) -> None:
        """Keep workers until `stop`, then wait until all are gone."""
        _log.info("starting %d workers for %s", self._config.workers, self._target)
        keeping = [asyncio.create_task(self._keep(number + 1)) for number in range(self._config.workers)]
        stopping = asyncio.create_task(self._stopping.wait())
        # A keeper ends before that only by what makes us give up.
        await asyncio.wait({stopping, *keeping}, return_when=asyncio.FIRST_COMPLETED)
        self._stopping.set()
        try:
            in_time = await self._drain(keeping)
        finally:
            if self._config.ready_file is not None and self._announced:
                self._config.ready_file.unlink(missing_ok=True)
        for failure in [task.exception() for task in keeping]:
            if failure is not None:
                raise failure
        if not in_time:
            raise WorkersFailed("workers were killed before they had drained")
        _log.info("all workers stopped")

    async def _drain(self, keeping: list[asyncio.Task[None]]) -> bool:
        """Ask workers to end, kill those that do not, and return whether that was not needed."""
        _log.info("draining %d workers for at most %g s", len(self._processes), self._config.drain)
        self._signal(signal.SIGTERM)
        await self._show(False)
        gone = asyncio.create_task(asyncio.wait(keeping))
        killing = asyncio.create_task(self._killing.wait())
        limit = self._config.drain + CLOSING
        await asyncio.wait({gone, killing}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        killing.cancel()
        in_time = gone.done()
        if not in_time:
            _log.error("killing %d workers", len(self._processes))
            self._signal(signal.SIGKILL)
        await gone
        return in_time

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.send_signal(number)

    async def _keep(self, number: int) -> None:
        """Keep one worker alive until we stop.

        Raises:
            ConfigError: The settings cannot work.
            WorkersFailed: It dies quickly again and again.
        """
        quick_deaths = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            ending = await self._run(number)
            if self._stopping.is_set():
                return
            quick_deaths = quick_deaths + 1 if time.monotonic() - started < _QUICK else 0
            if quick_deaths == _MOST_QUICK_DEATHS:
                raise WorkersFailed(
                    f"worker {number} ended {quick_deaths} times in a row within {_QUICK:g} s of its start, "
                    f"last with {ending}; its log lines say why"
                )
            wait = min(_BACKOFF * 2**quick_deaths, _MAX_BACKOFF) * random.uniform(0.5, 1)  # noqa: S311
            _log.error("worker %d ended unexpectedly with %s; another starts in %.1f s", number, ending, wait)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait)

    async def _run(self, number: int) -> str:
        """Run a worker to its end and return how it ended, for the log."""
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "tenure_server", "serve", "--slot", str(number)),
                    stdin=theirs.fileno(),
                    env=self._environment(number),
                    # Ctrl-C in a terminal reaches the whole process group; stopping workers is our decision.
                    start_new_session=True,
                )
        except OSError as error:
            writer.close()
            return str(error)
        self._processes[number] = process
        _log.info("worker %d has pid %d", number, process.pid)
        if self._stopping.is_set():
            process.terminate()
        try:
            async for line in reader:
                await self._hear(number, json.loads(line))
        except Exception:
            with suppress(ProcessLookupError):
                process.terminate()
            raise
        finally:
            code = await process.wait()
            writer.close()
            del self._processes[number]
            self._ready.discard(number)
            await self._show_health()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def _environment(self, number: int) -> dict[str, str]:
        return worker_environment(
            os.environ, self._config, self._target, number, self._server_id, self._admin_target
        )

    async def _hear(self, number: int, message: dict[str, Any]) -> None:
        faults = message.get("faults")
        if faults is not None and not self._announced:
            raise ConfigError(faults)
        if faults is not None:
            _log.error("worker %d cannot serve: %s", number, "; ".join(faults))
        elif message["ready"]:
            self._ready.add(number)
        else:
            self._ready.discard(number)
        if len(self._ready) == self._config.workers and not self._announced:
            self._announced = True
            if self._config.ready_file is not None:
                told = {"target": self._target}
                if self._admin_target is not None:
                    told["admin_target"] = self._admin_target
                write_secret(self._config.ready_file, json.dumps(told))
            _log.info("%d workers serve on %s", self._config.workers, self._target)
        await self._show_health()

    async def _show_health(self) -> None:
        await self._show(self._announced and bool(self._ready) and not self._stopping.is_set())
