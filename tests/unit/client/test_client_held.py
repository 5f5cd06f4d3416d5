"""What a connection keeps of large values: the latest ones, of the namespaces used last, within its bound."""

from __future__ import annotations

import os
import threading
from array import array

import pytest
from tenure_client import held as module
from tenure_client.held import HeldValues, told
from tenure_client.values import Value

T, U = ("t", ""), ("u", "")
SIZE = 10_000


def value(version: str = "1", size: int = SIZE) -> Value:
    made = Value("bytes", b"", version, 0, array("Q"), b"", version.encode())
    return Value("bytes", bytes(size - made.size), version, 0, array("Q"), b"", version.encode())


def test_the_latest_value_of_each_channel_is_kept() -> None:
    held = HeldValues()
    first, second, other = value("1"), value("2"), value("1")

    held.keep(T, {"a": first, "b": other})
    held.keep(T, {"a": second})

    assert held.of(T) == {"a": second, "b": other}
    assert held.size == 2 * SIZE
    assert held.of(U) == {}


def test_what_was_asked_for_does_not_change_later() -> None:
    held = HeldValues()
    held.keep(T, {"a": value("1")})
    before = held.of(T)

    held.keep(T, {"a": value("2")})

    assert before["a"].version == "1"


def test_the_namespaces_used_longest_ago_go_first() -> None:
    held = HeldValues(3 * SIZE)
    for thread in "tuv":
        held.keep((thread, ""), {"a": value()})
    held.of(T)

    held.keep(("w", ""), {"a": value()})

    assert [thread for thread in "tuvw" if held.of((thread, ""))] == ["t", "v", "w"]
    assert held.size == 3 * SIZE


def test_a_namespace_that_is_too_large_keeps_what_came_last() -> None:
    held = HeldValues(2 * SIZE)

    held.keep(T, {name: value() for name in "abc"})

    assert set(held.of(T)) == {"b", "c"}


def test_a_value_above_the_bound_is_not_kept_and_drives_nothing_out() -> None:
    held = HeldValues(2 * SIZE)
    held.keep(T, {"a": value("1")})
    held.keep(U, {"a": value("1")})

    held.keep(U, {"a": value("2", 2 * SIZE + 1)})

    assert held.of(U) == {}
    assert set(held.of(T)) == {"a"}
    assert held.size == SIZE


def test_a_bound_of_none_keeps_nothing() -> None:
    held = HeldValues(0)

    held.keep(T, {"a": value()})

    assert held.of(T) == {}


def test_channels_threads_and_all_can_be_forgotten() -> None:
    held = HeldValues()
    for place in (T, ("t", "ns"), U):
        held.keep(place, {"a": value(), "b": value()})

    held.forget(T, ["a", "absent"])
    assert set(held.of(T)) == {"b"}
    held.forget(("absent", ""), ["a"])
    held.forget_thread("t")
    assert (held.of(T), held.of(("t", "ns"))) == ({}, {})
    assert held.size == 2 * SIZE
    held.clear()
    assert (held.of(U), held.size) == ({}, 0)


def test_a_read_names_the_largest_values_if_there_are_very_many() -> None:
    values = {f"c{number}": value(str(number), 1000 + number) for number in range(300)}

    named = told(values)

    assert len(named) == 256
    assert min(int(item.version) for item in named) == 44
    assert {(item.channel, item.digest) for item in named} == {
        (f"c{number}", str(number).encode()) for number in range(44, 300)
    }


def test_threads_can_keep_and_forget_at_once() -> None:
    held = HeldValues(20 * SIZE)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(300):
                place = (f"t{(number + step) % 30}", "")
                held.keep(place, {"a": value(), "b": value()})
                held.of(place)
                if step % 7 == 0:
                    held.forget(place, ["a"])
                if step % 11 == 0:
                    held.forget_thread(place[0])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert held.size == SIZE * sum(len(held.of((f"t{number}", ""))) for number in range(30))
    assert held.size <= 20 * SIZE


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("amid_a_change", [False, True])
def test_a_forked_child_can_go_on(amid_a_change: bool) -> None:
    held = HeldValues()
    held.keep(T, {"a": value()})
    if amid_a_change:
        held._lock.acquire()  # as another thread of the parent would at the moment of the fork
    # What runs in the child of a fork, without the fork.
    module._after_fork_in_child()

    assert set(held.of(T)) == (set() if amid_a_change else {"a"})
    held.keep(U, {"a": value()})
    assert set(held.of(U)) == {"a"}
