"""The storage contract: heads and bodies, listings, filters, channel histories, threads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from tenure_server.domain import Blob, ChannelHistory, CheckpointRef, Head

from tests.storage.tenant import Tenant, Write, put, put_writes


async def test_absent_checkpoints_are_none(tenant: Tenant) -> None:
    await tenant.write(put("t", "1"))
    refs = [
        CheckpointRef("absent", ""),
        CheckpointRef("t", "absent"),
        CheckpointRef("t", "", "2"),
        CheckpointRef("t", "", "1"),
        CheckpointRef("T", "", "1"),
    ]
    found = await tenant.store.heads(tenant.id, refs)
    assert [head is not None for head in found] == [False, False, False, True, False]


async def test_nothing_asked_is_nothing_found(tenant: Tenant) -> None:
    assert list(await tenant.store.heads(tenant.id, [])) == []
    assert list(await tenant.store.bodies(tenant.id, [])) == []


async def test_a_batch_may_name_one_checkpoint_twice(tenant: Tenant) -> None:
    await tenant.write(put("t", "1", new={"a": b"value"}), put("u", "1"))
    refs = [CheckpointRef("t", "", "1"), CheckpointRef("u", ""), CheckpointRef("t", "")]
    first, other, again = _all(await tenant.store.heads(tenant.id, refs))
    assert (first.thread_id, other.thread_id, again.thread_id) == ("t", "u", "t")
    blob = Blob("bytes", b"value")
    assert [list(body or ()) for body in await tenant.store.bodies(tenant.id, [first, other, again])] == [
        [blob],
        [],
        [blob],
    ]


async def test_a_head_tells_digest_and_size_of_each_value(tenant: Tenant) -> None:
    values = {"small": b"s", "larger": b"l" * 5000, "nothing": b"", "empty": None}
    await tenant.write(put("t", "1", new=values))
    (head,) = _all([await tenant.head("t")])
    blobs = {channel: Blob("bytes", data) for channel, data in values.items() if data is not None}
    assert {ref.channel: (ref.version, ref.digest, ref.size) for ref in head.values} == {
        channel: ("1", blob.digest(), len(blob.data)) for channel, blob in blobs.items()
    }


async def test_bodies_come_in_the_order_of_the_heads_values(tenant: Tenant) -> None:
    new = {f"channel {number}": b"value %d" % number for number in range(20)}
    await tenant.write(put("t", "1", new=new))
    (head,) = _all([await tenant.head("t")])
    (body,) = await tenant.store.bodies(tenant.id, [head])
    assert body is not None
    assert [blob.data for blob in body] == [new[ref.channel] for ref in head.values]


async def test_bodies_of_a_part_of_the_values(tenant: Tenant) -> None:
    await tenant.write(put("t", "1", new={"a": b"value a", "b": b"value b", "c": b"value c"}))
    (head,) = _all([await tenant.head("t")])
    wanted = [index for index, ref in enumerate(head.values) if ref.channel in "ac"]
    (body,) = await tenant.store.bodies(tenant.id, [head.only(wanted)])
    assert sorted(blob.data for blob in body or ()) == [b"value a", b"value c"]
    (nothing,) = await tenant.store.bodies(tenant.id, [head.only([])])
    assert list(nothing or ()) == []


async def test_large_values_come_back_whole(tenant: Tenant) -> None:
    large = bytes(range(256)) * 4096 * 3
    await tenant.write(put("t", "1", new={"a": large}, body=large), put_writes("t", "1", Write(data=large)))
    found = await tenant.one("t")
    assert found.values["a"][1] == large
    assert found.body == large
    assert found.writes[0].data == large


@pytest.mark.parametrize("change", ["delete", "delete and put again", "prune", "delete for run", "put again"])
async def test_bodies_never_follow_a_change_of_the_thread(tenant: Tenant, change: str) -> None:
    """They are None, so that the caller reads again, or what the head promised; nothing else."""
    await tenant.write(
        put("t", "1", new={"a": b"value of the first"}, metadata={"run_id": "run"}),
        put("t", "2", "1", versions={"a": "2"}, new={"a": b"value of the second"}),
    )
    (before,) = _all([await tenant.head("t", "1")])
    match change:
        case "delete":
            await tenant.delete("t")
        case "delete and put again":
            await tenant.delete("t")
            await tenant.write(put("t", "1", new={"a": b"of another life"}))
        case "prune":
            await tenant.prune("t")
        case "delete for run":
            await tenant.delete_for_runs("run")
        case "put again":
            await tenant.write(put("t", "1", versions={"a": "3"}, new={"a": b"of another version"}))
    (body,) = await tenant.store.bodies(tenant.id, [before])
    assert body is None or [blob.data for blob in body] == [b"value of the first"]
    after = await tenant.head("t", "1")
    if after is not None:
        assert (after.thread_key, after.generation) != (before.thread_key, before.generation)


async def test_a_write_that_removes_nothing_keeps_the_generation(tenant: Tenant) -> None:
    await tenant.write(put("t", "1", new={"a": b"value"}))
    (before,) = _all([await tenant.head("t")])
    await tenant.write(put("t", "2", "1"), put_writes("t", "1", Write()), put("t", "1", ns="child"))
    (after,) = _all([await tenant.head("t", "1")])
    assert (after.thread_key, after.generation) == (before.thread_key, before.generation)
    (body,) = await tenant.store.bodies(tenant.id, [before])
    assert [blob.data for blob in body or ()] == [b"value"]


async def test_heads_are_of_one_snapshot(tenant: Tenant) -> None:
    """The second thread is always written after the first: no snapshot has it further."""
    ids = [f"{number:03}" for number in range(30)]
    refs = [CheckpointRef("second", ""), CheckpointRef("first", "")] * 8

    async def write() -> None:
        for step in ids:
            await tenant.write(put("first", step))
            await tenant.write(put("second", step))
            await asyncio.sleep(0)

    writing = asyncio.create_task(write())
    while not writing.done():
        heads = await tenant.store.heads(tenant.id, refs)
        seen = [head.checkpoint_id if head else "" for head in heads]
        assert len(set(seen[0::2])) == 1
        assert len(set(seen[1::2])) == 1
        assert seen[0] <= seen[1]
        await asyncio.sleep(0)
    await writing
    assert await tenant.latest("second") == ids[-1]


async def test_a_listing_goes_by_id_over_everything_asked(tenant: Tenant) -> None:
    for thread, ns, step in [
        ("t", "", "1"),
        ("u", "", "2"),
        ("t", "b", "2"),
        ("t", "a", "2"),
        ("u", "", "3"),
    ]:
        await tenant.write(put(thread, step, ns=ns))
    await tenant.write(put("T", "2", ns="é"), put("t", "2", ns="é"), put("t", "2", ns="z"))
    assert await tenant.listing() == [
        ("u", "", "3"),
        ("T", "é", "2"),
        ("t", "a", "2"),
        ("t", "b", "2"),
        ("t", "z", "2"),
        ("t", "é", "2"),
        ("u", "", "2"),
        ("t", "", "1"),
    ]


async def test_what_a_listing_may_ask_for(tenant: Tenant) -> None:
    for step in "123":
        await tenant.write(put("t", step), put("t", step, ns="child"), put("u", step))
    assert await tenant.ids("t") == ["3", "2", "1"]
    assert await tenant.listing(thread_id="absent") == []
    assert await tenant.listing(thread_id="t", checkpoint_ns="absent") == []
    assert await tenant.listing(thread_id="t", before="2") == [("t", "", "1"), ("t", "child", "1")]
    assert await tenant.listing(checkpoint_ns="child", before="absent but above") == [
        ("t", "child", "3"),
        ("t", "child", "2"),
        ("t", "child", "1"),
    ]
    assert await tenant.listing(checkpoint_id="2") == [("t", "", "2"), ("t", "child", "2"), ("u", "", "2")]
    assert await tenant.listing(checkpoint_id="2", before="2") == []
    assert await tenant.listing(thread_id="t", checkpoint_ns="", checkpoint_id="2", before="3") == [
        ("t", "", "2")
    ]


async def test_a_listing_has_parents_values_and_writes(tenant: Tenant) -> None:
    await tenant.write(put("t", "1", new={"a": b"value 1"}), put("t", "2", "1", new={"b": b"value 2"}))
    await tenant.write(put_writes("t", "1", Write(data=b"write")), put("t", "1", ns="child"))
    listed = await tenant.stored(thread_id="t")
    assert listed == [
        await tenant.one("t", "2"),
        await tenant.one("t", "1"),
        await tenant.one("t", "1", "child"),
    ]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
async def test_pages_of_any_size_make_up_the_listing(tenant: Tenant, limit: int) -> None:
    for thread in ["t", "u", "é"]:
        for ns in ["", "a", "a:b"]:
            for step in ["1", "2"]:
                await tenant.write(put(thread, step, ns=ns, metadata={"even": step == "2"}))
    queries: list[dict[str, Any]] = [
        {},
        {"thread_id": "u"},
        {"checkpoint_ns": "a"},
        {"filter": {"even": True}},
        {"before": "2"},
    ]
    for query in queries:
        whole = await tenant.listing(**query)
        paged: list[tuple[str, str, str]] = []
        after: tuple[str, str, str] | None = None
        while page := await tenant.listing(limit, **query, after=after):
            paged += page
            if len(page) < limit:
                break
            thread, ns, step = page[-1]
            after = (step, thread, ns)
        assert paged == whole


async def test_a_page_starts_after_a_position_that_is_gone(tenant: Tenant) -> None:
    await tenant.write(put("a", "2"), put("b", "2"), put("c", "2"), put("a", "1"))
    await tenant.delete("b")
    assert await tenant.listing(after=("2", "b", "")) == [("c", "", "2"), ("a", "", "1")]
    assert await tenant.listing(after=("1", "a", "")) == []


async def test_a_limit_counts_what_matches(tenant: Tenant) -> None:
    for number in range(60):
        await tenant.write(put("t", f"{number:02}", metadata={"tenth": number % 10 == 0}))
    assert await tenant.listing(2, filter={"tenth": True}) == [("t", "", "50"), ("t", "", "40")]
    assert len(await tenant.listing(6, filter={"tenth": True})) == 6
    assert len(await tenant.listing(7, filter={"tenth": True})) == 6


async def test_history_collects_writes_back_to_the_nearest_value(tenant: Tenant) -> None:
    await tenant.write(
        put("t", "1", new={"x": b"oldest"}, versions={"x": "0"}),
        put("t", "2", "1", versions={"x": "1"}, new={"x": b"the seed"}),
        put("t", "3", "2", versions={"x": "2"}, new={"x": None}),
        put("t", "4", "3", versions={"x": "3"}),
    )
    await tenant.write(
        put_writes("t", "1", Write("x", b"before the seed")),
        put_writes("t", "2", Write("x", b"2b", task="b"), Write("y", b"other"), Write("x", b"2a", task="a")),
        put_writes(
            "t", "3", Write("x", b"3z", path="z"), Write("x", b"3 0", idx=1), Write("x", b"3 1", idx=2)
        ),
        put_writes("t", "4", Write("x", b"of the target itself")),
    )
    histories = await tenant.history("t", "x", "y", "never seen")
    assert dict(histories) == {
        "x": _history("3z=task", "3 1=task", "3 0=task", "2b=b", "2a=a", seed=b"the seed"),
        "y": _history("other=task"),
        "never seen": _history(),
    }


async def test_history_follows_parents_not_ids(tenant: Tenant) -> None:
    await tenant.write(put("t", "1"), put("t", "3", "1"), put("t", "2", "1"), put("t", "4", "2"))
    for step in "1234":
        await tenant.write(put_writes("t", step, Write("x", step.encode())))
    assert (await tenant.history("t", "x"))["x"] == _history("2=task", "1=task")
    assert (await tenant.history("t", "x", id="3"))["x"] == _history("1=task")


async def test_history_ends_where_an_ancestor_is_missing(tenant: Tenant) -> None:
    await tenant.write(put("t", "3", "2"), put("t", "4", "3"), put("t", "1"))
    await tenant.write(put_writes("t", "3", Write("x", b"3")), put_writes("t", "2", Write("x", b"orphan")))
    assert (await tenant.history("t", "x"))["x"] == _history("3=task")


async def test_the_targets_own_value_does_not_end_its_history(tenant: Tenant) -> None:
    await tenant.write(
        put("t", "1", new={"x": b"seed"}), put("t", "2", "1", versions={"x": "2"}, new={"x": b"own"})
    )
    assert (await tenant.history("t", "x"))["x"] == _history(seed=b"seed")


async def test_an_absent_checkpoint_has_an_empty_history(tenant: Tenant) -> None:
    await tenant.write(put("t", "1", new={"x": b"seed"}), put_writes("t", "2", Write("x")))
    for thread, step, ns in [("absent", None, ""), ("t", "2", ""), ("t", "1", "absent")]:
        histories = await tenant.history(thread, "x", "y", id=step, ns=ns)
        assert dict(histories) == {"x": _history(), "y": _history()}


async def test_history_stays_in_its_namespace(tenant: Tenant) -> None:
    await tenant.write(put("t", "1", new={"x": b"root's"}), put("t", "2", "1", ns="child"))
    await tenant.write(put("t", "1", ns="child", new={"x": b"child's"}))
    assert (await tenant.history("t", "x", ns="child"))["x"] == _history(seed=b"child's")


async def test_a_long_history_comes_whole(tenant: Tenant) -> None:
    ids = [f"{number:04}" for number in range(300)]
    for start in range(0, len(ids), 100):
        await tenant.write(
            *(put("t", step, ids[int(step) - 1] if int(step) else None) for step in ids[start : start + 100]),
            *(put_writes("t", step, Write("x", step.encode())) for step in ids[start : start + 100]),
        )
    writes = (await tenant.history("t", "x"))["x"].writes
    assert [value.data for _, value in writes] == [step.encode() for step in ids[-2::-1]]


@pytest.mark.timeout(20)
async def test_a_history_that_goes_round_in_a_circle_ends(tenant: Tenant) -> None:
    """LangGraph makes none, but any client can, and must not keep a server busy for ever."""
    await tenant.write(put("t", "1", "3"), put("t", "2", "1"), put("t", "3", "2"), put("t", "4", "4"))
    await tenant.write(*(put_writes("t", step, Write("x", step.encode())) for step in "1234"))
    assert (await tenant.history("t", "x", id="3"))["x"].writes[:2] == _history("2=task", "1=task").writes
    await tenant.history("t", "x", id="4")
    await tenant.prune("t")
    assert await tenant.ids("t") == ["4"]


async def test_threads_are_listed_in_bytewise_order(tenant: Tenant) -> None:
    names = ["A", "a", "a%", "a_", "ab", "b", "é", "\U0001f99c"]
    for name in reversed(names):
        await tenant.write(put_writes(name, "1", Write()) if name == "ab" else put(name, "1"))
    assert await tenant.threads() == names
    assert await tenant.threads("a") == ["a", "a%", "a_", "ab"]
    assert await tenant.threads("a%") == ["a%"]
    assert await tenant.threads("a_") == ["a_"]
    assert await tenant.threads("é") == ["é"]
    assert await tenant.threads("\\") == []
    assert await tenant.threads("a", after="a%") == ["a_", "ab"]
    assert await tenant.threads(after="aa", limit=2) == ["ab", "b"]
    assert await tenant.threads(after="\U0001f99c") == []


async def test_a_thread_tells_when_this_life_of_it_began(tenant: Tenant) -> None:
    await tenant.write(put("t", "1"))
    (first,) = await tenant.store.list_threads(tenant.id, "", None, 10)
    await tenant.write(put("t", "2", "1"))
    (same,) = await tenant.store.list_threads(tenant.id, "", None, 10)
    assert same == first
    assert first.created_at.tzinfo is not None
    await tenant.delete("t")
    await tenant.write(put("t", "1"))
    (second,) = await tenant.store.list_threads(tenant.id, "", None, 10)
    assert second.created_at > first.created_at


def _history(*writes: str, seed: bytes | None = None) -> ChannelHistory:
    """Return the history of writes given as "value=task"."""
    pairs = [write.rpartition("=") for write in writes]
    return ChannelHistory(
        [(task, Blob("bytes", data.encode())) for data, _, task in pairs],
        None if seed is None else Blob("bytes", seed),
    )


def _all(heads: Iterable[Head | None]) -> list[Head]:
    found = [head for head in heads if head is not None]
    assert found
    return found
