"""How fast a tenant may go, on a clock that only the test moves."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest
from tenure_server import errors
from tenure_server.domain import TenantId
from tenure_server.metering import Meter
from tenure_server.rates import Amount, Rates

from tests.harness.clock import Clock

TENANT = TenantId(uuid4())


class Buckets:
    """One bucket on the clock of the test, as the shared ones are; `away` makes it not answer."""

    def __init__(self, clock: Clock, living: int = 1) -> None:
        self.away = False
        self.asked = 0
        self._clock = clock
        self._living = living
        self._left: list[float] | None = None
        self._at = clock.now

    async def take(
        self, tenant: UUID, rates: Rates, owed: Amount, wanted: Amount
    ) -> tuple[Amount, Amount] | None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            return None
        room = [rate * rates.burst for rate in rates.a_second()]
        left = room if self._left is None else self._left
        passed = self._clock.now - self._at
        self._left, self._at = [], self._clock.now
        taken = []
        for rate, most, have, debt, want in zip(rates.a_second(), room, left, owed, wanted, strict=True):
            now = min(most, have + rate * passed) - debt
            taken.append(max(0.0, min(want, now)))
            self._left.append(now - taken[-1])
        return Amount(*taken), Amount(*self._left)

    async def replicas(self) -> int | None:
        return None if self.away else self._living


async def passed(meters: list[Meter], rates: Rates, cost: Amount, clock: Clock, seconds: float) -> int:
    """Let everybody try every millisecond; return how many got through."""
    through = 0
    for _ in range(int(seconds * 1000)):
        for meter in meters:
            try:
                await meter.admit(TENANT, rates, cost)
                through += 1
            except errors.RateLimited:
                pass
            # What was asked for ahead comes before the time goes on.
            for _ in range(3):
                await asyncio.sleep(0)
        clock.now += 0.001
    return through


@pytest.mark.parametrize("replicas", [1, 2, 5])
@pytest.mark.parametrize(("rate", "burst"), [(100.0, 1.0), (7.0, 2.0), (400.0, 0.5)])
async def test_over_time_replicas_together_let_through_the_rate_and_one_burst(
    replicas: int, rate: float, burst: float
) -> None:
    clock = Clock()
    buckets = Buckets(clock)
    meters = [Meter(buckets, clock=clock) for _ in range(replicas)]
    through = await passed(meters, Rates(rate, burst=burst), Amount(1), clock, 4)
    wanted = rate * (4 + burst)
    # Each replica may owe one operation, and not get at its last slab.
    assert wanted * 0.95 - replicas <= through <= wanted + replicas


async def test_bytes_are_paid_after_the_fact_and_a_large_operation_is_never_refused_for_good() -> None:
    clock = Clock()
    meter = Meter(Buckets(clock), clock=clock)
    rates = Rates(bytes=1000.0, burst=1.0)
    through, pauses = 0, []
    for _ in range(10_000):
        try:
            await meter.admit(TENANT, rates, Amount(1, 1500))
            meter.charge(TENANT, Amount(bytes=500))
            through += 1
        except errors.RateLimited as refused:
            pauses.append(refused.retry_after or 0)
        clock.now += 0.001
    # 2,000 bytes each, 11,000 in ten seconds and a burst, and one that is owed.
    assert 5 <= through <= 6
    assert 0 < min(pauses) <= max(pauses) <= 5


async def test_what_a_large_batch_owes_is_paid_at_the_rate_even_with_room_for_little() -> None:
    clock = Clock()
    meters = [Meter(buckets, clock=clock) for buckets in [Buckets(clock)] for _ in range(2)]
    batches = await passed(meters, Rates(50.0, burst=0.1), Amount(25), clock, 10)
    assert 18 <= batches <= 22


async def test_a_slab_is_fetched_ahead_so_that_few_calls_wait() -> None:
    clock = Clock()
    buckets = Buckets(clock)
    meter = Meter(buckets, clock=clock)
    for _ in range(1000):
        await meter.admit(TENANT, Rates(1000.0), Amount(1))
        await asyncio.sleep(0)
        clock.now += 0.001
    assert buckets.asked <= 30


async def test_a_tenant_that_is_refused_does_not_ask_the_buckets_each_time() -> None:
    clock = Clock()
    buckets = Buckets(clock)
    meter = Meter(buckets, clock=clock)
    rates = Rates(10.0, burst=0.1)
    await passed([meter], rates, Amount(1), clock, 0.02)
    before = buckets.asked
    for _ in range(1000):
        with pytest.raises(errors.RateLimited):
            await meter.admit(TENANT, rates, Amount(1))
    assert buckets.asked == before


async def test_without_buckets_each_replica_lets_its_share_through() -> None:
    clock = Clock()
    buckets = Buckets(clock, living=4)
    meters = [Meter(buckets, clock=clock) for _ in range(4)]
    for meter in meters:
        stop = asyncio.Event()
        counting = asyncio.create_task(meter.run(stop))
        await asyncio.sleep(0)
        stop.set()
        await counting
    buckets.away = True
    through = await passed(meters, Rates(100.0), Amount(1), clock, 4)
    assert 390 <= through <= 520
    one = await passed(meters[:1], Rates(100.0), Amount(1), clock, 4)
    assert 98 <= one <= 130


async def test_as_many_replicas_are_assumed_as_are_configured() -> None:
    clock = Clock()
    meter = Meter(None, replicas=10, clock=clock)
    through = await passed([meter], Rates(100.0), Amount(1), clock, 4)
    assert 39 <= through <= 52


async def test_buckets_that_come_back_are_used_again() -> None:
    clock = Clock()
    buckets = Buckets(clock)
    meters = [Meter(buckets, replicas=2, clock=clock) for _ in range(2)]
    buckets.away = True
    await passed(meters, Rates(100.0), Amount(1), clock, 1)
    buckets.away = False
    first = await passed(meters, Rates(100.0), Amount(1), clock, 4)
    assert 380 <= first <= 510


async def test_the_refusal_names_the_rate_that_is_used_up() -> None:
    clock = Clock()
    meter = Meter(clock=clock)
    for rates, cost, name in (
        (Rates(1.0, 1e6), Amount(100, 1), "operations_per_second"),
        (Rates(1e6, 1000.0), Amount(1, 1e6), "bytes_per_second"),
    ):
        tenant = TenantId(uuid4())
        await meter.admit(tenant, rates, cost)
        with pytest.raises(errors.RateLimited) as caught:
            await meter.admit(tenant, rates, cost)
        assert caught.value.metadata["limit"] == name


async def test_a_new_rate_counts_at_once() -> None:
    clock = Clock()
    meter = Meter(Buckets(clock), clock=clock)
    slow = Rates(1.0, burst=0.1)
    await passed([meter], slow, Amount(1), clock, 0.5)
    with pytest.raises(errors.RateLimited):
        await meter.admit(TENANT, slow, Amount(1))
    clock.now += 0.01
    fast = await passed([meter], Rates(10_000.0), Amount(1), clock, 0.5)
    assert fast > 400
    for _ in range(100):
        await meter.admit(TENANT, Rates(concurrency=3), Amount(1000, 1000))


async def test_tenants_do_not_pay_for_each_other() -> None:
    clock = Clock()
    meter = Meter(clock=clock)
    rates = Rates(1.0)
    for _ in range(100):
        await meter.admit(TenantId(uuid4()), rates, Amount(1))


async def test_a_charge_for_a_tenant_that_is_not_known_is_none() -> None:
    Meter().charge(TENANT, Amount(1, 1))
