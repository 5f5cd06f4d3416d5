"""The storage contract: values told against any others read back as they were, whatever has gone since."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tenure_server.domain import Blob

from tests.storage.chunked import History, cut, put_edits, read
from tests.storage.tenant import Tenant, put

ABC = cut(b"a b c")


@pytest.mark.parametrize("seed", range(4))
async def test_values_told_against_any_earlier_ones_read_back(tenant: Tenant, seed: int) -> None:
    history = History(tenant, seed)
    for _ in range(3):
        await history.grow(20)
        await history.check()
        await history.forget(8)
        await history.check()
    await tenant.copy("t", "copy")
    await tenant.prune("t")
    last = max(history.values)
    assert await read(tenant, "t") == {"a": history.values[last].data}
    assert await tenant.ids("t") == [last]
    for version, value in history.values.items():
        assert await read(tenant, "copy", version) == {"a": value.data}


async def test_a_channel_history_begins_at_a_value_that_was_told_against_another(tenant: Tenant) -> None:
    longer = cut(b"a b c d")
    await tenant.write(
        put_edits("t", "1", edits={"a": ABC.whole()}),
        put_edits("t", "2", "1", edits={"a": longer.edit(ABC, "1")}, versions={"a": "2"}),
        put("t", "3", "2", versions={"a": "3"}),
    )
    assert (await tenant.history("t", "a"))["a"].seed == Blob("bytes", longer.data)


async def test_what_an_edit_without_a_base_says_to_keep_is_not_looked_at(tenant: Tenant) -> None:
    edit = replace(ABC.whole(), keep_first=2**32 - 1, keep_last=2**32 - 1)
    await tenant.write(put_edits("t", "1", edits={"a": edit}))
    assert await read(tenant, "t") == {"a": ABC.data}
