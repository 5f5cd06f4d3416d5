"""Rates of tenants: how many operations and bytes a second this replica lets through.

All replicas share a bucket for each tenant with rates (`rates.SharedBuckets`). Each takes a slab out of it,
worth a tenth of a second, and spends that by itself: what is let through costs no round trip, but for calls
that find a slab used up before the next one came. A tenant without rates never comes here.

A call passes while one operation and one byte are left, whatever it costs itself; what it overdraws, and what
turns out only later, such as the size of a reply, is owed and paid from the next slabs. So a large batch is
never refused for good, and over time nobody gets more than the rate.

While the buckets are away each replica lets its share through: the rate, divided by the replicas that were
seen last or are configured, whichever is more.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress

from tenure_server import errors
from tenure_server.domain import TenantId
from tenure_server.rates import Amount, Rates, SharedBuckets

_SLAB = 0.1
"""Seconds of its rate that a replica takes at once."""
_SHORTEST_PAUSE = 0.01
_LONGEST_PAUSE = 5.0
_BEAT = 5.0
"""Seconds between two signs of life."""
_MAX_ACCOUNTS = 10_000
_IDLE = 60.0
_LIMITS = ("operations_per_second", "bytes_per_second")

_log = logging.getLogger("tenure")


class _Account:
    """What one tenant has left on this replica; negative = it owes.

    Attributes:
        wanted: What calls that wait for a refill are going to spend.
        empty_until: When asking for more is worth while again.
        filled_at: When more was put in.
        refill: Gets more, for all calls that wait.
    """

    __slots__ = ("empty_until", "filled_at", "left", "rates", "refill", "used_at", "wanted")

    def __init__(self, rates: Rates, now: float) -> None:
        self.rates = rates
        self.left = [0.0, 0.0]
        self.wanted = [0.0, 0.0]
        self.empty_until = now
        # Without the shared buckets it begins with a whole burst.
        self.filled_at = -math.inf
        self.used_at = now
        self.refill: asyncio.Task[None] | None = None

    def lacking(self) -> int | None:
        """Return which of the two rates is used up."""
        for which, rate in enumerate(self.rates.a_second()):
            if rate and self.left[which] < 1:
                return which
        return None

    def runs_low(self) -> bool:
        """Tell whether it is time to get more before anybody has to wait for it."""
        return any(
            rate and self.left[which] < _slab(rate) / 2 for which, rate in enumerate(self.rates.a_second())
        )

    def spend(self, amount: Amount) -> None:
        for which, rate in enumerate(self.rates.a_second()):
            if rate:
                self.left[which] -= amount[which]

    def put(self, amount: Amount) -> None:
        for which, got in enumerate(amount):
            self.left[which] += got

    def owed(self) -> Amount:
        return Amount(*(max(0.0, -left) for left in self.left))

    def needed(self) -> Amount:
        """Return what serves those who wait, and fills a slab, once the debts are paid."""
        return Amount(
            *(
                max(0.0, max(_slab(rate), self.wanted[which]) - max(0.0, self.left[which])) if rate else 0.0
                for which, rate in enumerate(self.rates.a_second())
            )
        )


class Meter:
    """Lets through what tenants may ask for."""

    def __init__(
        self,
        shared: SharedBuckets | None = None,
        *,
        replicas: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what the replicas share.

        Args:
            shared: The buckets; None = each replica lets its share through.
            replicas: How many replicas there are at least, for as long as nobody can count them.
            clock: Returns the time in seconds.
        """
        self._shared = shared
        self._configured = replicas
        self._replicas = replicas
        self._clock = clock
        self._accounts: dict[TenantId, _Account] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Count the replicas until `stop` is set."""
        while self._shared is not None and not stop.is_set():
            seen = await self._shared.replicas()
            if seen is not None:
                self._replicas = max(seen, self._configured)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _BEAT)

    async def admit(self, tenant: TenantId, rates: Rates, cost: Amount) -> None:
        """Let an operation through and spend what it costs.

        Raises:
            RateLimited: Nothing is left; says when to come back.
        """
        now = self._clock()
        account = self._account(tenant, rates, now)
        while (lacking := account.lacking()) is not None:
            if self._clock() < account.empty_until:
                raise self._refusal(account, lacking)
            for which, spent in enumerate(cost):
                account.wanted[which] += spent
            try:
                await asyncio.shield(self._refilling(tenant, account))
            finally:
                for which, spent in enumerate(cost):
                    account.wanted[which] -= spent
        account.spend(cost)
        if account.runs_low() and now >= account.empty_until:
            self._refilling(tenant, account)

    def charge(self, tenant: TenantId, cost: Amount) -> None:
        """Spend what an operation that was let through cost beyond what was known then."""
        account = self._accounts.get(tenant)
        if account is not None:
            account.spend(cost)

    def _account(self, tenant: TenantId, rates: Rates, now: float) -> _Account:
        account = self._accounts.get(tenant)
        if account is None:
            if len(self._accounts) >= _MAX_ACCOUNTS:
                self._forget(now)
            account = self._accounts[tenant] = _Account(rates, now)
        elif account.rates != rates:
            account.rates, account.empty_until = rates, now
        account.used_at = now
        return account

    def _forget(self, now: float) -> None:
        """Drop accounts that nobody uses, and with them less than a slab each."""
        idle = [tenant for tenant, account in self._accounts.items() if now - account.used_at > _IDLE]
        for tenant in idle:
            del self._accounts[tenant]

    def _refilling(self, tenant: TenantId, account: _Account) -> asyncio.Task[None]:
        """Return the one task that gets more."""
        if account.refill is None or account.refill.done():
            account.refill = asyncio.create_task(self._refill(tenant, account), name="rates")
        return account.refill

    async def _refill(self, tenant: TenantId, account: _Account) -> None:
        owed, wanted = account.owed(), account.needed()
        answer = None
        if self._shared is not None:
            try:
                answer = await self._shared.take(tenant, account.rates, owed, wanted)
            except Exception:
                _log.exception("rates: unexpected error; replicas let their shares through")
        now = self._clock()
        fills_at = account.rates.a_second()
        if answer is None:
            fills_at = Amount(*(rate / self._replicas for rate in fills_at))
            account.put(_share(account, fills_at, now))
            got = behind = Amount(*account.left)
        else:
            got, behind = answer
            account.put(owed)
            account.put(got)
        account.filled_at = now
        pause = 0.0
        for which, rate in enumerate(fills_at):
            if rate and got[which] < wanted[which]:
                # Worth asking again once one operation can pass, but not before there is a little more.
                missing = max(0.0, -behind[which]) + max(1 - account.left[which], 0.0)
                pause = max(pause, missing / rate, _SHORTEST_PAUSE)
        account.empty_until = now + min(pause, _LONGEST_PAUSE)

    def _refusal(self, account: _Account, lacking: int) -> errors.RateLimited:
        rate = account.rates.a_second()[lacking]
        wait = max(account.empty_until - self._clock(), (1 - account.left[lacking]) / rate, _SHORTEST_PAUSE)
        return errors.RateLimited(_LIMITS[lacking], rate, min(wait, _LONGEST_PAUSE))


def _share(account: _Account, fills_at: Amount, now: float) -> Amount:
    """Return what this replica's share comes to since it was filled last, up to its share of the burst."""
    passed = now - account.filled_at
    return Amount(
        *(
            max(0.0, min(rate * passed, max(1.0, rate * account.rates.burst) - account.left[which]))
            if rate
            else 0.0
            for which, rate in enumerate(fills_at)
        )
    )


def _slab(rate: float) -> float:
    return max(1.0, rate * _SLAB)
