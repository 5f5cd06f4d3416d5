"""The storage contract: values in chunks, told against others, and what becomes of their chunks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest
from tenure_server import chunks, errors
from tenure_server.domain import Base, Blob, CheckpointRef, HeldValue, ListQuery, Recipe, ValueEdit

from tests.storage.chunked import Chunked, chunks_in, cut, put_edits, read, values_of
from tests.storage.tenant import Tenant, Write, put, put_writes

ABC = cut(b"a b c")
STORES_ALONE = pytest.mark.parametrize("backend", ["memory", "postgres"], indirect=True)
"""For tests of what is stored: a cache may know more."""


async def test_a_value_in_chunks_comes_as_a_recipe(tenant: Tenant) -> None:
    value = cut(b"one two three two", header=b"\xdc\0\4")
    await tenant.write(put_edits("t", "1", edits={"a": value.whole()}, new={"b": b"whole", "c": None}))
    head = await tenant.head("t")
    assert head is not None
    refs = {ref.channel: ref for ref in head.values}
    assert set(refs) == {"a", "b"}
    assert (refs["a"].digest, refs["a"].size) == (value.digest, len(value.data))
    assert refs["a"].recipe == Recipe("bytes", value.header, value.entries)
    assert refs["b"].recipe is None
    assert head.at_hand()[list(refs).index("a")] is None
    assert await values_of(tenant, head) == {"a": value.data, "b": b"whole"}


@pytest.mark.parametrize(
    ("base", "value"),
    {
        "the end grows": (ABC, cut(b"a b c d e")),
        "the start grows": (ABC, cut(b"x a b c")),
        "the middle changes": (ABC, cut(b"a x y c")),
        "the middle goes": (ABC, cut(b"a c")),
        "the end goes": (ABC, cut(b"a")),
        "nothing stays": (ABC, cut(b"x y")),
        "all goes": (ABC, cut(b"", header=b"h")),
        "only the header changes": (ABC, cut(b"a b c", header=b"h")),
        "chunks come again": (cut(b"a a b a"), cut(b"a a b a a b b a")),
        "the base has no chunks": (cut(b"", header=b"h"), cut(b"a b")),
    }.values(),
    ids=lambda value: value.data.decode(),
)
async def test_a_value_is_told_against_another(tenant: Tenant, base: Chunked, value: Chunked) -> None:
    await tenant.write(put_edits("t", "1", edits={"a": base.whole()}))
    await tenant.write(
        put_edits("t", "2", "1", edits={"a": value.edit(base, "1")}, versions={"a": "2"}),
    )
    assert await read(tenant, "t", "1") == {"a": base.data}
    assert await read(tenant, "t", "2") == {"a": value.data}


async def test_a_base_may_come_earlier_in_the_batch(tenant: Tenant) -> None:
    steps = [cut(b"a b c d e f"[: 2 * length]) for length in range(1, 7)]
    mutations = [put_edits("t", "1", edits={"a": steps[0].whole()})]
    for number, (base, value) in enumerate(pairwise(steps), start=1):
        edit = value.edit(base, str(number))
        mutations.append(put_edits("t", str(number + 1), edits={"a": edit}, versions={"a": str(number + 1)}))
    await tenant.write(*mutations, put("u", "1"))
    assert [await read(tenant, "t", str(number)) for number in range(1, 7)] == [
        {"a": value.data} for value in steps
    ]


_D = cut(b"a b c d")
_MISSING: Mapping[str, ValueEdit] = {
    "absent": _D.edit(ABC, "9"),
    "with another digest": _D.edit(cut(b"a b c", header=b"h"), "1"),
    "of another channel": _D.edit(ABC, "only b"),
    "that is stored whole": _D.edit(ABC, "whole"),
    "of another namespace": _D.edit(ABC, "only child"),
    "of another thread": _D.edit(ABC, "only u"),
    "that was pruned": _D.edit(ABC, "pruned"),
    "with fewer chunks": replace(_D.edit(ABC, "1"), keep_first=4),
    "with fewer chunks than both ends": replace(_D.edit(ABC, "1"), keep_first=2, keep_last=2),
    "with far fewer chunks": replace(_D.edit(ABC, "1"), keep_first=2**32 - 1),
    "that gives another value": replace(_D.edit(ABC, "1"), keep_first=2),
    "that is none, for another value": replace(_D.whole(), digest=ABC.digest),
}


@pytest.mark.parametrize("edit", _MISSING.values(), ids=_MISSING)
async def test_a_put_against_a_base_that_is_missing_fails_alone(tenant: Tenant, edit: ValueEdit) -> None:
    await tenant.write(
        put_edits("t", "0", edits={"a": ABC.whole()}, versions={"a": "pruned"}),
        put_edits("t", "1", edits={"a": ABC.whole()}),
    )
    await tenant.prune("t")
    await tenant.write(
        put_edits("t", "2", edits={"b": ABC.whole()}, versions={"a": "1", "b": "only b"}),
        put("t", "3", versions={"a": "whole"}, new={"a": ABC.data}),
        put_edits("t", "1", ns="child", edits={"a": ABC.whole()}, versions={"a": "only child"}),
        put_edits("u", "1", edits={"a": ABC.whole()}, versions={"a": "only u"}),
    )
    before = await tenant.ids("t")

    outcomes = await tenant.apply(
        put_edits("n", "1", edits={"a": ABC.whole()}),
        put_edits("t", "4", "3", edits={"a": edit}, new={"c": b"lost"}, versions={"a": "4"}),
        put_writes("t", "4", Write()),
        put_edits("u", "2", "1", edits={"a": _D.edit(ABC, "only u")}, versions={"a": "2"}),
    )

    assert [type(outcome) for outcome in outcomes] == [
        type(None),
        errors.ChunksMissing,
        type(None),
        type(None),
    ]
    assert await tenant.ids("t") == before
    assert await read(tenant, "n") == {"a": ABC.data}
    assert await read(tenant, "u") == {"a": _D.data}
    await tenant.write(
        put_edits("t", "4", "3", edits={"a": _D.whole()}, new={"c": b"kept"}, versions={"a": "4"})
    )
    assert await read(tenant, "t") == {"a": _D.data, "c": b"kept"}
    found = await tenant.head("t")
    assert found is not None
    assert len(found.pending_writes) == 1


@STORES_ALONE
async def test_of_a_failed_put_no_chunk_is_stored(tenant: Tenant) -> None:
    await tenant.write(put_edits("t", "1", edits={"a": ABC.whole()}))
    other = cut(b"x y")
    (outcome,) = await tenant.apply(
        put_edits("t", "2", edits={"a": _D.edit(ABC, "9"), "b": other.whole()}, versions={"a": "2"})
    )
    assert isinstance(outcome, errors.ChunksMissing)
    assert await chunks_in(tenant, "t", cut(b"a b c d x y")) == b"a b c"


async def test_a_thread_whose_only_put_failed_is_not_there(tenant: Tenant) -> None:
    outcomes = await tenant.apply(
        put_edits("t", "1", edits={"a": _D.edit(ABC, "9")}),
        put_edits("u", "1", edits={"a": _D.edit(ABC, "9")}),
        put_writes("u", "1", Write()),
        put("v", "1"),
    )
    assert [outcome is None for outcome in outcomes] == [False, False, True, True]
    assert await tenant.threads() == ["u", "v"]
    await tenant.copy("v", "t")
    assert await tenant.latest("t") == "1"


async def test_a_failed_put_does_not_become_the_latest(tenant: Tenant) -> None:
    await tenant.write(put("t", "5"))
    (outcome,) = await tenant.apply(put_edits("t", "3", "5", edits={"a": _D.edit(ABC, "9")}))
    assert isinstance(outcome, errors.ChunksMissing)
    assert await tenant.latest("t") == "5"


async def test_a_put_whose_base_failed_in_the_same_batch_fails_as_well(tenant: Tenant) -> None:
    outcomes = await tenant.apply(
        put_edits("t", "1", edits={"a": ABC.edit(cut(b"a"), "0")}),
        put_edits("t", "2", edits={"a": _D.edit(ABC, "1")}, versions={"a": "2"}),
        put("t", "3"),
    )
    assert [outcome is None for outcome in outcomes] == [False, False, True]
    assert await tenant.ids("t") == ["3"]


async def test_a_repeated_put_is_fine_and_changes_nothing(tenant: Tenant) -> None:
    await tenant.write(put_edits("t", "1", edits={"a": ABC.whole()}))
    for _ in range(2):
        await tenant.write(put_edits("t", "2", "1", edits={"a": _D.edit(ABC, "1")}, versions={"a": "2"}))
    assert await read(tenant, "t") == {"a": _D.data}


@STORES_ALONE
@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "later"])
async def test_a_version_met_again_keeps_its_first_value(tenant: Tenant, together: bool) -> None:
    mutations = [
        put_edits("t", "1", edits={"a": ABC.whole()}),
        put_edits(
            "t", "2", edits={"a": cut(b"a x").whole(), "b": cut(b"y").whole()}, versions={"a": "1", "b": "2"}
        ),
    ]
    if together:
        await tenant.write(*mutations)
    else:
        for mutation in mutations:
            await tenant.write(mutation)
    assert await read(tenant, "t", "2") == {"a": ABC.data, "b": b"y "}
    assert await chunks_in(tenant, "t", cut(b"a b c x y")) == b"a b c y"


async def test_of_a_whole_value_and_one_in_chunks_the_first_stays(tenant: Tenant) -> None:
    await tenant.write(put_edits("t", "1", edits={"a": ABC.whole()}, new={"b": b"whole"}))
    await tenant.write(put_edits("t", "2", edits={"b": ABC.whole()}, new={"a": b"whole"}))
    assert await read(tenant, "t", "2") == {"a": ABC.data, "b": b"whole"}


@pytest.fixture
async def grown(tenant: Tenant) -> Tenant:
    """A tenant with a thread whose channel grew: version 1 is "a b c", version 2 "a b c d"."""
    await tenant.write(
        put_edits("t", "1", edits={"a": ABC.whole()}),
        put_edits("t", "2", "1", edits={"a": _D.edit(ABC, "1")}, versions={"a": "2"}),
    )
    return tenant


async def test_the_recipe_of_a_value_that_the_reader_holds_comes_along(grown: Tenant) -> None:
    refs = [CheckpointRef("t", ""), CheckpointRef("t", "", "1"), CheckpointRef("t", "")]
    latest, first, nothing = await grown.store.heads(
        grown.id, refs, [[ABC.held("a", "1")], [_D.held("a", "2")], []]
    )
    assert latest is not None
    assert first is not None
    assert nothing is not None
    assert latest.bases == {"a": ABC.entries}
    assert first.bases == {"a": _D.entries}
    assert nothing.bases == {}


@pytest.mark.parametrize(
    "held",
    {
        "the value itself": _D.held("a", "2"),
        "another value": cut(b"x").held("a", "1"),
        "a version that is not stored": ABC.held("a", "9"),
        "a channel that the checkpoint has not": ABC.held("c", "1"),
        "another version with the same value": ABC.held("same", "1"),
        "a value of a channel that is whole by now": ABC.held("whole", "1"),
        "a value of a channel that is empty by now": ABC.held("empty", "1"),
        "a value of another namespace": ABC.held("a", "only child"),
        "a value that is stored whole": Chunked([], b"small").held("small", "1"),
    }.values(),
    ids=lambda held: f"{held.channel} {held.version}",
)
async def test_a_value_that_is_no_base_does_not_come_along(tenant: Tenant, held: HeldValue) -> None:
    channels = ("a", "c", "same", "whole", "empty")
    await tenant.write(
        put_edits("t", "1", edits={channel: ABC.whole() for channel in channels}, new={"small": b"small"}),
        put_edits(
            "t",
            "2",
            edits={"a": _D.whole(), "same": ABC.whole(), "small": _D.whole()},
            new={"whole": b"whole", "empty": None},
            versions=dict.fromkeys(("a", "same", "whole", "empty", "small"), "2"),
        ),
        put_edits("t", "1", ns="child", edits={"a": ABC.whole()}, versions={"a": "only child"}),
    )
    (head,) = await tenant.store.heads(tenant.id, [CheckpointRef("t", "", "2")], [[held]])
    assert head is not None
    assert head.bases == {}


async def test_a_reader_of_an_absent_checkpoint_may_hold_something(grown: Tenant) -> None:
    refs = [CheckpointRef("absent", ""), CheckpointRef("t", "")]
    absent, found = await grown.store.heads(grown.id, refs, [[ABC.held("a", "1")], [ABC.held("a", "1")]])
    assert absent is None
    assert found is not None
    assert found.bases == {"a": ABC.entries}


async def test_chunks_come_by_id(grown: Tenant) -> None:
    first, latest = await grown.head("t", "1"), await grown.head("t")
    assert first is not None
    assert latest is not None
    wanted = [(first, chunks.ids(ABC.entries)), (latest, chunks.ids(_D.entries)[2:]), (latest, [])]
    one, other, nothing = await grown.store.chunks(grown.id, wanted)
    assert one == ABC.chunks
    assert other == cut(b"c d").chunks
    assert nothing == {}
    assert list(await grown.store.chunks(grown.id, [])) == []


async def test_a_chunk_that_is_not_there_is_none_for_its_head_alone(grown: Tenant) -> None:
    head = await grown.head("t")
    assert head is not None
    unknown = chunks.chunk_id(b"unknown")
    wanted = [(head, [*chunks.ids(ABC.entries), unknown]), (head, chunks.ids(ABC.entries))]
    assert list(await grown.store.chunks(grown.id, wanted)) == [None, ABC.chunks]


@STORES_ALONE
@pytest.mark.parametrize("change", ["put again", "pruned", "deleted", "made again"])
async def test_chunks_of_another_generation_are_none(grown: Tenant, change: str) -> None:
    head = await grown.head("t")
    assert head is not None
    if change == "put again":
        await grown.write(put("t", "2", "1", versions={"a": "2"}))
    elif change == "pruned":
        await grown.prune("t")
    else:
        await grown.delete("t")
    if change == "made again":
        await grown.write(put_edits("t", "2", edits={"a": _D.whole()}, versions={"a": "2"}))
    assert list(await grown.store.chunks(grown.id, [(head, chunks.ids(_D.entries))])) == [None]


async def test_a_listing_has_recipes(grown: Tenant) -> None:
    heads = await grown.store.list_heads(grown.id, ListQuery(thread_id="t"), 10)
    assert [await values_of(grown, head) for head in heads] == [{"a": _D.data}, {"a": ABC.data}]


async def test_a_channel_history_begins_at_a_value_in_chunks(tenant: Tenant) -> None:
    packed = Chunked([b"a" * 5000, b"b" * 5000, b"a" * 5000], b"head", compressed=True)
    await tenant.write(
        put_edits("t", "1", edits={"a": packed.whole()}, new={"b": b"whole"}),
        put("t", "2", "1", versions={"a": "2", "b": "2"}),
        put("t", "3", "2", versions={"a": "3", "b": "3"}),
        *(put_writes("t", step, Write("a", step.encode())) for step in "12"),
    )
    histories = await tenant.history("t", "a", "b", "c")
    assert [value.data for _, value in histories["a"].writes] == [b"2", b"1"]
    assert histories["a"].seed == Blob("bytes", packed.data)
    assert histories["b"].seed == Blob("bytes", b"whole")
    assert histories["c"].seed is None


async def test_a_channel_history_begins_at_a_value_without_chunks(tenant: Tenant) -> None:
    await tenant.write(put_edits("t", "1", edits={"a": Chunked([], b"head").whole()}), put("t", "2", "1"))
    assert (await tenant.history("t", "a"))["a"].seed == Blob("bytes", b"head")


async def test_a_copy_has_chunks_of_its_own(grown: Tenant) -> None:
    await grown.copy("t", "copy")
    assert await read(grown, "copy", "1") == {"a": ABC.data}
    await grown.write(put_edits("copy", "3", "2", edits={"a": ABC.edit(_D, "2")}, versions={"a": "3"}))
    await grown.delete("t")
    assert await read(grown, "copy", "2") == {"a": _D.data}
    assert await read(grown, "copy", "3") == {"a": ABC.data}


@STORES_ALONE
async def test_chunks_go_with_the_last_value_that_names_them_when_pruned(tenant: Tenant) -> None:
    await tenant.write(
        put_edits("t", "1", edits={"a": cut(b"a b c x").whole()}),
        put_edits(
            "t", "2", edits={"a": cut(b"a b y").whole(), "b": cut(b"z z").whole()}, versions={"a": "2"}
        ),
        put("t", "3", versions={"a": "2"}),
        put_edits("t", "1", ns="n", edits={"a": cut(b"c").whole()}),
        put_edits("u", "1", edits={"a": cut(b"x").whole()}),
    )
    words = cut(b"a b c x y z")
    assert await chunks_in(tenant, "t", words) == b"a b c x y z"
    await tenant.prune("t")
    assert await chunks_in(tenant, "t", words) == b"a b c y"
    assert await chunks_in(tenant, "u", words) == b"x"
    assert await read(tenant, "t") == {"a": b"a b y "}
    assert await read(tenant, "t", ns="n") == {"a": b"c "}


@STORES_ALONE
async def test_chunks_go_with_the_last_value_that_names_them_when_runs_go(tenant: Tenant) -> None:
    for step, text in [("1", b"a b"), ("2", b"b c"), ("3", b"c d")]:
        run = {"run_id": f"run {step}"}
        edits = {"a": cut(text).whole()}
        await tenant.write(put_edits("t", step, edits=edits, versions={"a": step}, metadata=run))
    await tenant.delete_for_runs("run 2")
    assert await chunks_in(tenant, "t", cut(b"a b c d")) == b"a b c d"
    await tenant.delete_for_runs("run 1")
    assert await chunks_in(tenant, "t", cut(b"a b c d")) == b"c d"
    assert await read(tenant, "t") == {"a": b"c d "}


async def test_a_long_recipe_is_told_kept_and_freed(tenant: Tenant) -> None:
    long = Chunked([b"%d" % number for number in range(3000)])
    longer = Chunked([*long.parts, b"end"])
    await tenant.write(put_edits("t", "1", edits={"a": long.whole()}))
    await tenant.write(put_edits("t", "2", "1", edits={"a": longer.edit(long, "1")}, versions={"a": "2"}))
    await tenant.prune("t")
    assert await read(tenant, "t") == {"a": longer.data}


async def test_a_base_may_be_stored_anew_after_it_was_pruned(grown: Tenant) -> None:
    await grown.prune("t")
    against_pruned = put_edits(
        "t", "3", "2", edits={"a": cut(b"a b c e").edit(ABC, "1")}, versions={"a": "3"}
    )
    (outcome,) = await grown.apply(against_pruned)
    assert isinstance(outcome, errors.ChunksMissing)
    await grown.write(put_edits("t", "1", edits={"a": ABC.whole()}))
    await grown.write(against_pruned)
    assert await read(grown, "t") == {"a": b"a b c e "}


async def test_an_edit_without_a_base_keeps_nothing(tenant: Tenant) -> None:
    await tenant.write(put_edits("t", "1", edits={"a": ABC.whole()}))
    edit = replace(_D.edit(ABC, "1"), base=Base("1", ABC.digest))
    await tenant.write(put_edits("t", "2", edits={"a": edit}, versions={"a": "2"}))
    (outcome,) = await tenant.apply(
        put_edits("t", "3", edits={"a": replace(edit, base=None)}, versions={"a": "3"})
    )
    assert isinstance(outcome, errors.ChunksMissing)
    assert await tenant.ids("t") == ["2", "1"]
