"""The storage contract: puts, pending writes, and which checkpoint is the latest."""

from __future__ import annotations

import asyncio

import pytest
from tenure_server import errors

from tests.storage.tenant import Stored, Tenant, Write, operation, put, put_writes

AWKWARD_IDS = [
    "plain",
    "a:b|c/d\\e",
    "%_like_%",
    "'; drop table checkpoint; --",
    "{hash}tag",
    "line\nfeed\ttab\r",
    " leading and trailing ",
    "🦜🔗",
    "\N{LATIN SMALL LETTER E WITH ACUTE}",
    "e\N{COMBINING ACUTE ACCENT}",
    "É",
    "\u202eright to left",
    "\U0010ffff",
    "\x01\x7f",
    "null",
    "0",
    "00",
    "x" * 512,
    "x" * 511 + "y",
    "🦜" * 128,
]
"""Ids of up to 512 bytes; those that look alike (case, Unicode normalisation) are different ids."""


async def test_a_put_checkpoint_comes_back_as_it_was_put(tenant: Tenant) -> None:
    await tenant.write(
        put(
            "thread",
            "2",
            "1",
            ns="child:uuid|grandchild",
            versions={"messages": "s:00007.0.12", "unchanged": "i:3"},
            new={"messages": b"\x00\xff payload"},
            metadata='{"step": 1,  "nested": {"x": [1, 2.50]}}',
            body=b"\x00body",
        )
    )
    assert await tenant.one("thread", "2", "child:uuid|grandchild") == Stored(
        "thread",
        "child:uuid|grandchild",
        "2",
        "1",
        b"\x00body",
        '{"step": 1,  "nested": {"x": [1, 2.50]}}',
        {"messages": ("s:00007.0.12", b"\x00\xff payload")},
        [],
    )


async def test_a_checkpoint_holds_values_put_with_earlier_checkpoints(tenant: Tenant) -> None:
    await tenant.write(
        put("t", "1", versions={"a": "1", "b": "1"}, new={"a": b"first a", "b": b"first b"}),
        put("t", "2", "1", versions={"a": "1", "b": "2"}, new={"b": b"second b"}),
    )
    assert (await tenant.one("t", "1")).values == {"a": ("1", b"first a"), "b": ("1", b"first b")}
    assert (await tenant.one("t", "2")).values == {"a": ("1", b"first a"), "b": ("2", b"second b")}


async def test_values_belong_to_their_thread_and_namespace(tenant: Tenant) -> None:
    await tenant.write(
        put("t", "1", new={"a": b"of the root"}),
        put("t", "1", ns="child", new={"a": b"of the child"}),
        put("u", "1", new={"a": b"of another thread"}),
    )
    assert (await tenant.one("t", "1")).values["a"] == ("1", b"of the root")
    assert (await tenant.one("t", "1", "child")).values["a"] == ("1", b"of the child")
    assert (await tenant.one("u", "1")).values["a"] == ("1", b"of another thread")


async def test_a_version_without_a_value_is_left_out(tenant: Tenant) -> None:
    await tenant.write(put("t", "1", versions={"never put": "9"}, new={"empty": None, "there": b""}))
    assert (await tenant.one("t", "1")).values == {"there": ("1", b"")}


async def test_a_stored_version_keeps_its_first_value(tenant: Tenant) -> None:
    await tenant.write(put("t", "1", new={"a": b"the first"}))
    await tenant.write(put("t", "2", "1", new={"a": b"another"}))
    assert (await tenant.one("t", "1")).values == {"a": ("1", b"the first")}
    assert (await tenant.one("t", "2")).values == {"a": ("1", b"the first")}


async def test_a_version_without_a_value_takes_one_that_comes_later(tenant: Tenant) -> None:
    """As InMemorySaver has it: no value is not stored, so it cannot be the first."""
    await tenant.write(put("t", "1", new={"a": None}))
    await tenant.write(put("t", "2", "1", new={"a": b"the first"}))
    await tenant.write(put("t", "3", "2", new={"a": None}))
    assert (await tenant.one("t", "3")).values == {"a": ("1", b"the first")}


async def test_putting_an_id_again_replaces_checkpoint_metadata_and_parent(tenant: Tenant) -> None:
    await tenant.write(
        put("t", "1", new={"a": b"kept a", "b": b"kept b"}, metadata={"n": 1}, body=b"old body"),
        put_writes("t", "1", Write(data=b"stays")),
        put(
            "t", "1", "0", versions={"a": "1", "c": "2"}, new={"c": b"new c"}, metadata={"n": 2}, body=b"new"
        ),
    )
    assert await tenant.one("t", "1") == Stored(
        "t",
        "",
        "1",
        "0",
        b"new",
        '{"n": 2}',
        {"a": ("1", b"kept a"), "c": ("2", b"new c")},
        [Write(data=b"stays")],
    )
    assert await tenant.ids("t") == ["1"]
    assert await tenant.ids("t", filter={"n": 2}) == ["1"]
    assert await tenant.ids("t", filter={"n": 1}) == []


async def test_a_repeated_put_changes_nothing(tenant: Tenant) -> None:
    mutation = put("t", "1", new={"a": b"value"}, metadata={"n": 1})
    await tenant.write(mutation)
    before = await tenant.one("t")
    await tenant.write(mutation, mutation)
    assert await tenant.one("t") == before
    assert await tenant.ids("t") == ["1"]


@pytest.mark.parametrize("name", AWKWARD_IDS, ids=range(len(AWKWARD_IDS)))
async def test_any_text_is_an_id(tenant: Tenant, name: str) -> None:
    write = Write(channel=name, task=name, path=name, data=b"payload of a write")
    await tenant.write(
        put(name, name, name, ns=name, versions={name: name}, new={name: b"payload"}, metadata={name: name})
    )
    await tenant.write(put_writes(name, name, write, ns=name))
    found = await tenant.one(name, name, name)
    assert (found.thread, found.ns, found.id, found.parent) == (name, name, name, name)
    assert found.values == {name: (name, b"payload")}
    assert found.writes == [write]
    assert await tenant.listing(
        thread_id=name, checkpoint_ns=name, checkpoint_id=name, filter={name: name}
    ) == [(name, name, name)]
    assert await tenant.threads(prefix=name) == [name]


async def test_ids_that_look_alike_are_different(tenant: Tenant) -> None:
    for name in AWKWARD_IDS:
        await tenant.write(put(name, "1", new={"a": name.encode()}))
        await tenant.write(put("one thread", "1", ns=name, new={"a": name.encode()}))
        await tenant.write(put("one namespace", name, new={"a": b"value"}, body=name.encode()))
    for name in AWKWARD_IDS:
        assert (await tenant.one(name)).values["a"][1] == name.encode()
        assert (await tenant.one("one thread", ns=name)).values["a"][1] == name.encode()
        assert (await tenant.one("one namespace", name)).body == name.encode()


async def test_ids_cannot_be_run_together(tenant: Tenant) -> None:
    names = [("a", "b:c"), ("a:b", "c"), ("a|b", "c"), ("a", "b|c"), ("a", "bc"), ("ab", "c"), ("abc", "")]
    for thread, ns in names:
        await tenant.write(put(thread, "1", ns=ns, new={"a": f"{thread} {ns}".encode()}))
    for thread, ns in names:
        assert (await tenant.one(thread, ns=ns)).values["a"][1] == f"{thread} {ns}".encode()


async def test_the_longest_ids_fit_together(tenant: Tenant) -> None:
    ns, path = "n" * 2047 + "1", "p" * 2047 + "1"
    names = [f"{'x' * 511}{last}" for last in "ab"]
    for thread in names:
        for step in names:
            await tenant.write(
                put(
                    thread,
                    step,
                    names[0],
                    ns=ns,
                    versions=dict.fromkeys(names, step),
                    new={names[0]: b"long"},
                ),
                put_writes(
                    thread, step, *(Write(channel=name, task=name, path=path) for name in names), ns=ns
                ),
            )
    found = await tenant.one(names[1], names[0], ns)
    assert found.values == {names[0]: (names[0], b"long")}
    assert [write.task for write in found.writes] == names
    assert await tenant.get(names[1], names[0], ns[:-1] + "2") is None


async def test_an_ordinary_write_keeps_the_first(tenant: Tenant) -> None:
    await tenant.write(put_writes("t", "1", Write(data=b"first"), Write(data=b"in the same call")))
    await tenant.write(put_writes("t", "1", Write("other", b"second"), Write(data=b"next", idx=1)))
    await tenant.write(put("t", "1"))
    assert (await tenant.one("t")).writes == [Write(data=b"first"), Write(data=b"next", idx=1)]


async def test_a_special_write_replaces(tenant: Tenant) -> None:
    await tenant.write(put("t", "1"), put_writes("t", "1", Write("__error__", b"first", idx=-1, path="old")))
    await tenant.write(
        put_writes(
            "t",
            "1",
            Write("__error__", b"second", idx=-1, path="new"),
            Write("__resume__", b"other index", idx=-4),
            Write("__error__", b"other task", task="task 2", idx=-1),
        )
    )
    assert sorted((await tenant.one("t")).writes, key=lambda write: write.data) == [
        Write("__resume__", b"other index", idx=-4),
        Write("__error__", b"other task", task="task 2", idx=-1),
        Write("__error__", b"second", idx=-1, path="new"),
    ]


async def test_the_last_of_equal_special_writes_in_one_call_wins(tenant: Tenant) -> None:
    await tenant.write(
        put("t", "1"),
        put_writes("t", "1", Write("__resume__", b"first", idx=-4), Write("__resume__", b"last", idx=-4)),
    )
    assert (await tenant.one("t")).writes == [Write("__resume__", b"last", idx=-4)]


async def test_pending_writes_come_in_the_order_of_path_task_and_index(tenant: Tenant) -> None:
    ordered = [
        Write(path="", task="z", idx=9),
        Write(path="A", task="a", idx=0),
        Write(path="a", task="B", idx=0),
        Write(path="a", task="a", idx=-4),
        Write(path="a", task="a", idx=2),
        Write(path="a", task="a", idx=10),
        Write(path="a", task="é", idx=0),
        Write(path="a:1", task="a", idx=100),
        Write(path="~", task="a", idx=101),
        Write(path="é", task="a", idx=102),
        Write(path="\U0001f99c", task="a", idx=103),
    ]
    await tenant.write(put("t", "1"), put_writes("t", "1", *reversed(ordered[5:])))
    await tenant.write(put_writes("t", "1", *reversed(ordered[:5])))
    assert (await tenant.one("t")).writes == ordered


async def test_writes_may_come_before_their_checkpoint(tenant: Tenant) -> None:
    await tenant.write(put_writes("t", "2", Write(data=b"early")))
    assert await tenant.get("t") is None
    assert await tenant.get("t", "2") is None
    assert await tenant.listing() == []
    await tenant.write(put("t", "1"), put("t", "2", "1"))
    assert (await tenant.one("t")).writes == [Write(data=b"early")]
    assert (await tenant.one("t", "1")).writes == []


async def test_writes_belong_to_their_thread_and_namespace(tenant: Tenant) -> None:
    await tenant.write(put("t", "1"), put("t", "1", ns="child"), put("u", "1"))
    await tenant.write(put_writes("t", "1", Write(data=b"of the child"), ns="child"))
    assert [len((await tenant.one(*name)).writes) for name in [("t",), ("u",), ("t", "1", "child")]] == [
        0,
        0,
        1,
    ]


async def test_the_latest_is_the_greatest_id_bytewise(tenant: Tenant) -> None:
    ordered = ["", "1", "10", "9", "A", "a", "a\x01", "aa", "~", "é", "€", "\ufffd", "\U0001f99c"]
    for step in [*ordered[1::2], *ordered[2::2]]:
        await tenant.write(put("t", step))
    assert await tenant.latest("t") == ordered[-1]
    assert await tenant.ids("t") == ordered[:0:-1]


async def test_putting_an_id_again_does_not_move_the_latest(tenant: Tenant) -> None:
    await tenant.write(put("t", "1"), put("t", "2", "1"), put("t", "3", "2"))
    await tenant.write(put("t", "1", "3"))
    assert await tenant.latest("t") == "3"
    await tenant.write(put("t", "3", "2"))
    assert await tenant.latest("t") == "3"


async def test_a_child_of_the_latest_is_the_latest_even_if_its_clock_is_slow(tenant: Tenant) -> None:
    await tenant.write(put("t", "5"), put("t", "3", "5"))
    assert await tenant.latest("t") == "3"
    assert await tenant.ids("t") == ["5", "3"]
    await tenant.write(put("t", "2", "3"))
    assert await tenant.latest("t") == "2", "the slow worker's next step follows its own"
    await tenant.write(put("t", "4", "2"))
    assert await tenant.latest("t") == "4", "above the override, below the greatest id"
    await tenant.write(put("t", "6", "4"))
    assert await tenant.latest("t") == "6", "a put above all ends the override"
    await tenant.write(put("t", "1", "5"))
    assert await tenant.latest("t") == "6"


async def test_a_fork_below_the_latest_does_not_become_the_latest(tenant: Tenant) -> None:
    await tenant.write(put("t", "1"), put("t", "5", "1"))
    await tenant.write(put("t", "3", "1"), put("t", "2"), put("t", "4", "3"))
    assert await tenant.latest("t") == "5"


async def test_putting_an_id_again_ends_no_override_and_makes_none(tenant: Tenant) -> None:
    await tenant.write(put("t", "1"), put("t", "5", "1"), put("t", "3", "5"))
    await tenant.write(put("t", "5", "1"))
    assert await tenant.latest("t") == "3"
    await tenant.write(put("t", "1", "3"))
    assert await tenant.latest("t") == "3"


async def test_each_namespace_has_its_own_latest(tenant: Tenant) -> None:
    await tenant.write(put("t", "9"), put("t", "1", ns="child"), put("t", "0", "1", ns="child"))
    assert await tenant.latest("t") == "9"
    assert await tenant.latest("t", "child") == "0"
    assert await tenant.latest("t", "absent") is None


async def test_mutations_of_one_thread_are_applied_in_order(tenant: Tenant) -> None:
    await tenant.write(
        put("t", "5", body=b"first"),
        put("u", "1"),
        put("t", "3", "5"),
        put_writes("t", "3", Write(data=b"first")),
        put("t", "5", body=b"second"),
        put_writes("t", "3", Write(data=b"second")),
    )
    assert await tenant.latest("t") == "3"
    assert (await tenant.one("t", "5")).body == b"second"
    assert (await tenant.one("t", "3")).writes == [Write(data=b"first")]


async def test_a_mutation_whose_time_is_up_fails_alone(tenant: Tenant) -> None:
    late = put("t", "2", "1")._replace(operation=operation(-1))
    late_writes = put_writes("t", "1", Write())._replace(operation=operation(-1))
    outcomes = await tenant.apply(put("t", "1"), late, late_writes, put("t", "3", "1"))
    assert [type(outcome) for outcome in outcomes] == [
        type(None),
        errors.DeadlineExceeded,
        errors.DeadlineExceeded,
        type(None),
    ]
    assert await tenant.ids("t") == ["3", "1"]
    assert (await tenant.one("t", "1")).writes == []


async def test_concurrent_writers_of_one_thread_lose_nothing(tenant: Tenant) -> None:
    ids = [f"{number:03}" for number in range(40)]
    await asyncio.gather(
        *(
            tenant.write(put("t", step, new={step: step.encode()}), put_writes("t", step, Write()))
            for step in ids
        )
    )
    assert await tenant.latest("t") == ids[-1]
    assert {found.id: (dict(found.values), len(found.writes)) for found in await tenant.stored()} == {
        step: ({step: ("1", step.encode())}, 1) for step in ids
    }


async def test_concurrent_puts_of_one_version_agree_on_its_value(tenant: Tenant) -> None:
    await asyncio.gather(
        *(tenant.write(put("t", str(number), new={"a": b"value %d" % number})) for number in range(8))
    )
    values = {found.values["a"] for found in await tenant.stored()}
    assert len(values) == 1
