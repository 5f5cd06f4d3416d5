"""SingleWriter: a thread that nobody else writes to while a block runs, in both colours."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from contextlib import suppress
from typing import Self

from tenure_client import writing
from tenure_client.calls import Plan
from tenure_client.connection import Connection
from tenure_client.errors import InvalidRequest, LeaseHeld, StaleWriter, TenureError
from tenure_client.retry import Budget
from tenure_client.writing import Writing

MIN_TTL, MAX_TTL = 1.0, 3600.0
_RELEASE_TIMEOUT = 2.0
"""Seconds: a lease that cannot be given back ends by itself."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class SingleWriter:
    """Keeps other writers away from a thread while a block runs; made by `TenureSaver.single_writer`.

    The lease is renewed in the background, by a thread or a task of the block's own that ends with it. Should
    it be lost all the same, since this program was stopped or cut off for longer than `ttl` and somebody else
    took the thread, the next put raises `StaleWriter`.

    A forked child does not hold its parent's lease, and does not end it.
    """

    def __init__(
        self,
        connection: Connection,
        signer: Writing,
        thread_id: str,
        *,
        ttl: float,
        wait: float,
        holder: str,
    ) -> None:
        """See `TenureSaver.single_writer`."""
        if not thread_id:
            raise InvalidRequest("thread_id must not be empty", metadata={"field": "thread_id"})
        if not MIN_TTL <= ttl <= MAX_TTL:
            raise InvalidRequest(f"ttl must be {MIN_TTL:g} to {MAX_TTL:g} seconds", metadata={"field": "ttl"})
        if not wait >= 0:
            raise InvalidRequest("wait must be 0 seconds or more", metadata={"field": "wait"})
        self._connection = connection
        self._signer = signer
        self._thread_id = thread_id
        self._ttl = ttl
        self._wait = wait
        self._holder = holder
        self._token: int | None = None
        self._pid = 0
        self._over = threading.Event()
        self._renewing: threading.Thread | None = None
        self._arenewing: asyncio.Task[None] | None = None

    @property
    def token(self) -> int:
        """The fencing token of the lease: larger than that of any writer before, and useful beyond Tenure.

        Raises:
            InvalidRequest: The block has not been entered, or was left.
        """
        if self._token is None:
            raise InvalidRequest("there is no lease outside of the block")
        return self._token

    def __enter__(self) -> Self:
        patience = self._begin()
        while True:
            try:
                token = self._connection.run("tenure.saver.acquire_lease", self._acquire())
                break
            except LeaseHeld as error:
                pause = patience.after(error)
            time.sleep(pause)
        self._hold(token)
        self._renewing = threading.Thread(target=self._renew, name="tenure-lease", daemon=True)
        self._renewing.start()
        return self

    def __exit__(self, *_: object) -> None:
        if os.getpid() != self._pid:
            return
        self._over.set()
        if self._renewing is not None:
            self._renewing.join()
            self._renewing = None
        token = self._let_go()
        with suppress(TenureError):
            self._connection.run(
                "tenure.saver.release_lease",
                writing.release(self._thread_id, token),
                Budget(_RELEASE_TIMEOUT),
            )

    async def __aenter__(self) -> Self:
        patience = self._begin()
        while True:
            try:
                token = await self._connection.arun("tenure.saver.acquire_lease", self._acquire())
                break
            except LeaseHeld as error:
                pause = patience.after(error)
            await asyncio.sleep(pause)
        self._hold(token)
        self._arenewing = asyncio.create_task(self._arenew(), name="tenure-lease")
        return self

    async def __aexit__(self, *_: object) -> None:
        if os.getpid() != self._pid:
            return
        if self._arenewing is not None:
            self._arenewing.cancel()
            await asyncio.wait({self._arenewing})
            self._arenewing = None
        token = self._let_go()
        with suppress(TenureError):
            await self._connection.arun(
                "tenure.saver.release_lease",
                writing.release(self._thread_id, token),
                Budget(_RELEASE_TIMEOUT),
            )

    def _begin(self) -> _Patience:
        if self._token is not None and os.getpid() == self._pid:
            raise InvalidRequest("this block runs already; ask the saver for another one")
        return _Patience(self._wait)

    def _acquire(self) -> Plan[int]:
        return writing.acquire(self._thread_id, self._holder, self._ttl_ms)

    def _hold(self, token: int) -> None:
        self._token, self._pid = token, os.getpid()
        self._over = threading.Event()
        self._signer.begin(self._thread_id, token)

    def _let_go(self) -> int:
        token = self.token
        self._signer.end(self._thread_id, token)
        self._token = None
        return token

    def _renew(self) -> None:
        token, over = self.token, self._over
        while not over.wait(self._ttl / 3):
            try:
                self._connection.run(
                    "tenure.saver.renew_lease",
                    writing.renew(self._thread_id, token, self._ttl_ms),
                    Budget(self._ttl / 3),
                )
            except StaleWriter:
                # The next put says so, where somebody can do something about it.
                return
            except TenureError:
                continue

    async def _arenew(self) -> None:
        token = self.token
        while True:
            await asyncio.sleep(self._ttl / 3)
            try:
                await self._connection.arun(
                    "tenure.saver.renew_lease",
                    writing.renew(self._thread_id, token, self._ttl_ms),
                    Budget(self._ttl / 3),
                )
            except StaleWriter:
                return
            except TenureError:
                continue

    @property
    def _ttl_ms(self) -> int:
        return int(self._ttl * 1000)


class _Patience:
    """For how long somebody else's lease is waited for, and how often it is looked at."""

    def __init__(self, wait: float) -> None:
        self._deadline = time.monotonic() + wait
        self._pause = _FIRST_PAUSE

    def after(self, error: LeaseHeld) -> float:
        """Return the seconds until the next try; raises the error if there is no time for one."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise error
        longest = min(self._pause, left, error.held_for + _FIRST_PAUSE)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        # It may be given back before its time, and others may wait for it, too.
        return longest * random.uniform(0.5, 1.0)  # noqa: S311
