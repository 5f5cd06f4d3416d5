"""Chunks as rows, each once for a thread and none that nothing names; recipes told against a whole one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psycopg
import pytest
from psycopg.rows import class_row
from tenure_server import chunks

from tests.harness.databases import Database
from tests.storage.chunked import Chunked, History, cut, put_edits, read
from tests.storage.tenant import Tenant

pytestmark = pytest.mark.parametrize("backend", ["postgres"], indirect=True)

GROWING = [cut(b"a b c d e f g h"[: 2 * length]) for length in range(1, 9)]


@dataclass(frozen=True)
class Told:
    """A recipe as it is stored."""

    version: str
    recipe: bytes
    anchor_version: str | None
    keep_first: int | None
    keep_last: int | None


class Rows:
    """Counts a tenant's rows."""

    def __init__(self, admin_url: str, tenant: Tenant) -> None:
        self._admin_url = admin_url
        self._tenant = tenant

    def by_thread(self) -> dict[str, int]:
        """Return the chunks of each thread that has some."""
        query = """
            SELECT h.thread_id, count(*)
            FROM tenure.chunk AS c JOIN tenure.thread_head AS h USING (thread_key)
            WHERE c.tenant_id = %s GROUP BY 1"""
        with psycopg.connect(self._admin_url) as admin:
            rows: list[tuple[str, int]] = admin.execute(query, [self._tenant.id]).fetchall()
        return dict(rows)

    def recipes(self, thread: str) -> dict[str, Told]:
        """Return the recipes of a thread's channel "a" as they are stored, by version."""
        query = """
            SELECT v.version, v.recipe, v.anchor_version, v.keep_first, v.keep_last
            FROM tenure.channel_value AS v JOIN tenure.thread_head AS h USING (thread_key)
            WHERE v.tenant_id = %s AND h.thread_id = %s AND v.channel = 'a'"""
        with psycopg.connect(self._admin_url) as admin:
            cursor = admin.cursor(row_factory=class_row(Told))
            return {row.version: row for row in cursor.execute(query, [self._tenant.id, thread])}

    def anchors(self, thread: str) -> dict[str, str | None]:
        """Return which version each recipe of a thread is told against, None = it is whole."""
        return {version: row.anchor_version for version, row in self.recipes(thread).items()}


@pytest.fixture
def rows(contract_database: Database, tenant: Tenant) -> Rows:
    """The tenant's rows."""
    return Rows(contract_database.admin_url, tenant)


async def _grow(tenant: Tenant, thread: str) -> None:
    """Store a channel that grows by a chunk at each step, as versions 1 to 8."""
    for number, value in enumerate(GROWING, start=1):
        base = GROWING[number - 2] if number > 1 else None
        await tenant.write(
            put_edits(
                thread,
                str(number),
                str(number - 1) if base else None,
                edits={"a": value.edit(base, str(number - 1))},
                versions={"a": str(number)},
                metadata={"run_id": f"run {number}"},
            )
        )


async def test_what_steps_share_is_stored_once(tenant: Tenant, rows: Rows) -> None:
    await _grow(tenant, "t")
    assert rows.by_thread() == {"t": 8}


async def test_a_copy_has_its_own_rows_and_keeps_them(tenant: Tenant, rows: Rows) -> None:
    await _grow(tenant, "t")
    await tenant.copy("t", "copy")
    assert rows.by_thread() == {"t": 8, "copy": 8}
    await tenant.prune("t")
    await tenant.delete("t")
    assert rows.by_thread() == {"copy": 8}
    assert [await read(tenant, "copy", str(number)) for number in range(1, 9)] == [
        {"a": value.data} for value in GROWING
    ]


async def test_pruning_frees_exactly_what_is_named_no_more(tenant: Tenant, rows: Rows) -> None:
    await _grow(tenant, "t")
    value = Chunked([*GROWING[2].parts, b"x", b"x"])
    await tenant.write(put_edits("t", "9", edits={"a": value.edit(GROWING[7], "8")}, versions={"a": "9"}))
    assert rows.by_thread() == {"t": 9}
    await tenant.prune("t")
    assert rows.by_thread() == {"t": 4}
    assert await read(tenant, "t") == {"a": value.data}


LONG = Chunked([b"%d" % number for number in range(100)])


async def test_a_recipe_is_told_against_one_that_is_whole(tenant: Tenant, rows: Rows) -> None:
    middle = Chunked([*LONG.parts[:40], b"new", b"newer", *LONG.parts[43:]])
    near = Chunked([*middle.parts[:45], b"near", *middle.parts[45:]])
    far = Chunked([*middle.parts[:60], b"far", *middle.parts[60:]])
    end = Chunked([*far.parts, b"end"])
    steps = [(LONG, None, ""), (middle, LONG, "1"), (near, middle, "2"), (far, middle, "2"), (end, far, "4")]
    for number, (value, base, version) in enumerate(steps, start=1):
        edit = value.edit(base, version)
        await tenant.write(put_edits("t", str(number), edits={"a": edit}, versions={"a": str(number)}))
    assert rows.recipes("t") == {
        "1": Told("1", LONG.entries, None, None, None),
        "2": Told("2", _between(middle, 40, 57), "1", 40, 57),
        "3": Told("3", _between(near, 40, 54), "1", 40, 54),
        "4": Told("4", far.entries, None, None, None),
        "5": Told("5", _between(end, 100, 0), "4", 100, 0),
    }


@pytest.mark.parametrize(
    ("base", "value"),
    {
        "it names more than it keeps": (cut(b"a"), cut(b"a b c d")),
        "nothing is kept": (LONG, cut(b"a b")),
        "it has no entries": (cut(b"", header=b"h"), cut(b"", header=b"i")),
    }.values(),
    ids=["more is new", "all is new", "nothing is there"],
)
async def test_a_recipe_that_would_not_be_shorter_is_whole(
    tenant: Tenant, rows: Rows, base: Chunked, value: Chunked
) -> None:
    await tenant.write(put_edits("t", "1", edits={"a": base.whole()}))
    await tenant.write(put_edits("t", "2", edits={"a": value.edit(base, "1")}, versions={"a": "2"}))
    assert rows.recipes("t")["2"] == Told("2", value.entries, None, None, None)


@pytest.mark.parametrize("seed", range(4))
async def test_no_recipe_is_told_against_one_that_is_told_itself(
    tenant: Tenant, rows: Rows, seed: int
) -> None:
    history = History(tenant, seed)
    for _ in range(3):
        await history.grow(30)
        _assert_whole_anchors(rows.recipes("t"), history.values)
        assert sum(anchor is not None for anchor in rows.anchors("t").values()) >= 10
        await history.forget(15)
        _assert_whole_anchors(rows.recipes("t"), history.values)
        assert rows.by_thread() == {"t": len(_named(history.values.values()))}


def _assert_whole_anchors(stored: Mapping[str, Told], values: Mapping[str, Chunked]) -> None:
    assert set(stored) == set(values)
    for version, row in stored.items():
        whole = row.recipe
        if row.anchor_version is not None:
            anchor = stored[row.anchor_version]
            assert anchor.anchor_version is None
            assert row.keep_first is not None
            assert row.keep_last is not None
            first, last = row.keep_first * 20, row.keep_last * 20
            assert first + last <= len(anchor.recipe)
            whole = anchor.recipe[:first] + whole + anchor.recipe[len(anchor.recipe) - last :]
        assert whole == values[version].entries


async def test_a_recipe_is_made_whole_when_its_anchor_goes(tenant: Tenant, rows: Rows) -> None:
    await _grow(tenant, "t")
    anchors = {"1": None, "2": "1", "3": None, "4": "3", "5": "3", "6": None, "7": "6", "8": "6"}
    assert rows.anchors("t") == anchors
    await tenant.delete_for_runs("run 3", "run 4")
    assert rows.recipes("t")["5"] == Told("5", GROWING[4].entries, None, None, None)
    await tenant.prune("t")
    assert rows.recipes("t") == {"8": Told("8", GROWING[7].entries, None, None, None)}
    assert await read(tenant, "t") == {"a": GROWING[7].data}


async def test_a_recipe_whose_anchor_stays_is_left_alone(tenant: Tenant, rows: Rows) -> None:
    await _grow(tenant, "t")
    before = rows.recipes("t")
    await tenant.delete_for_runs("run 4")
    assert rows.recipes("t") == {version: row for version, row in before.items() if version != "4"}


async def test_a_copy_has_recipes_told_against_its_own(tenant: Tenant, rows: Rows) -> None:
    await _grow(tenant, "t")
    await tenant.copy("t", "copy")
    assert rows.recipes("copy") == rows.recipes("t")
    await tenant.delete_for_runs("run 1")
    assert await read(tenant, "copy", "2") == {"a": GROWING[1].data}


def _between(value: Chunked, first: int, last: int) -> bytes:
    return value.entries[first * 20 : len(value.entries) - last * 20]


def _named(values: Iterable[Chunked]) -> set[bytes]:
    return {chunk_id for value in values for chunk_id in chunks.ids(value.entries)}


async def test_runs_free_exactly_what_is_named_no_more(tenant: Tenant, rows: Rows) -> None:
    await _grow(tenant, "t")
    await tenant.delete_for_runs("run 7", "run 1")
    assert rows.by_thread() == {"t": 8}
    await tenant.delete_for_runs("run 8")
    assert rows.by_thread() == {"t": 6}
    await tenant.delete_for_runs(*(f"run {number}" for number in range(1, 9)))
    assert rows.by_thread() == {}


async def test_a_chunk_that_is_stored_is_never_replaced(
    tenant: Tenant, rows: Rows, contract_database: Database
) -> None:
    await _grow(tenant, "t")
    query = (
        "SELECT array_agg(ctid::text || xmin::text ORDER BY chunk_id) FROM tenure.chunk WHERE tenant_id = %s"
    )
    with psycopg.connect(contract_database.admin_url, autocommit=True) as admin:
        before = admin.execute(query, [tenant.id]).fetchone()
        await tenant.write(put_edits("t", "9", edits={"a": GROWING[7].whole()}, versions={"a": "9"}))
        assert admin.execute(query, [tenant.id]).fetchone() == before
