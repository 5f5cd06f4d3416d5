"""Values in chunks under retention: what stays is whole, and the preview knows to a byte what goes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.harness.databases import Database
from tests.storage.chunked import History, read
from tests.storage.retained import Retained, opened


@pytest.fixture
async def kept(contract_database: Database) -> AsyncIterator[Retained]:
    """A new tenant."""
    async with opened(contract_database) as tenant:
        yield tenant


@pytest.mark.parametrize("seed", range(5))
async def test_what_stays_is_whole_and_what_goes_was_told(kept: Retained, seed: int) -> None:
    history = History(kept.agent, seed)
    await history.grow(40)
    before = {step: await read(kept.agent, "t", step) for step in await kept.steps("t")}
    anchored = "SELECT count(*) FROM tenure.channel_value WHERE tenant_id = %s AND anchor_version IS NOT NULL"
    ((told_against_others,),) = await kept.execute(anchored, [kept.id])
    assert told_against_others > 5
    await kept.policy(keep_last=4)
    preview = await kept.preview()
    used, *_ = await kept.used()
    for _ in range(2):
        left = await kept.steps("t")
        assert len(left) == 4
        assert {step: await read(kept.agent, "t", step) for step in left} == {
            step: before[step] for step in left
        }
        await kept.sweep()
    assert used - (await kept.used())[0] == preview.bytes
