"""Which operations share a call, and what each is answered; calls end when the test says so."""

from __future__ import annotations

import asyncio

import pytest
from tenure_server import errors
from tenure_server.storage.queues import MAX_BYTES, MAX_OPERATIONS, MAX_READS, MAX_WAITING

from tests.storage.queueing import Asked


@pytest.fixture
async def asked() -> Asked:
    return Asked()


async def test_a_lone_operation_goes_at_once(asked: Asked) -> None:
    answer = asked.ask("a")
    await asked.settle()
    assert asked.batches == [["a"]]
    asked.calls[0].end()
    assert await answer == ["did a"]


async def test_what_comes_while_calls_are_under_way_goes_together(asked: Asked) -> None:
    await asked.hold()
    answers = [asked.ask(name) for name in ("a", "b", "c")]
    await asked.settle()
    assert len(asked.calls) == MAX_READS

    asked.calls[0].end()
    await asked.settle()

    assert asked.batches[MAX_READS:] == [["a", "b", "c"]]
    asked.calls[-1].end()
    assert await asyncio.gather(*answers) == [["did a"], ["did b"], ["did c"]]


async def test_a_quick_call_is_followed_by_one_for_all_who_came_meanwhile() -> None:
    asked = Asked(patience=60)
    answers = [asked.ask("a")]
    await asked.settle()
    answers += [asked.ask("b"), asked.ask("c")]
    await asked.settle()
    assert asked.batches == [["a"]]

    asked.calls[0].end()
    await asked.settle()
    assert asked.batches[1:] == [["b", "c"]]
    asked.calls[1].end()
    await asyncio.gather(*answers)
    await asked.until(lambda: asked.emptied)
    assert asked.queue._next_start is None, "nothing may stay behind that keeps the queue"


async def test_nobody_waits_long_behind_a_slow_call() -> None:
    asked = Asked(patience=0.05)
    answers = [asked.ask("slow")]
    await asked.settle()
    answers += [asked.ask("b"), asked.ask("c")]
    await asked.until(lambda: len(asked.calls) == 2)
    assert asked.batches == [["slow"], ["b", "c"]]

    answers.append(asked.ask("d"))
    await asyncio.sleep(0.1)
    assert len(asked.calls) == MAX_READS, "there are so many calls at most, however slow they are"
    for call in asked.calls[:]:
        call.end()
    await asked.until(lambda: len(asked.calls) == 3)
    asked.calls[2].end()
    await asyncio.gather(*answers)


async def test_a_queue_that_is_closed_starts_nothing_more() -> None:
    asked = Asked(patience=0.02)
    answers = [asked.ask("a"), asked.ask("b")]
    await asked.settle()
    answers.append(asked.ask("c"))
    await asked.settle()
    await asked.queue.close()
    await asyncio.sleep(0.05)

    assert len(asked.calls) == 1
    outcomes = await asyncio.gather(*answers, return_exceptions=True)
    assert {type(one) for one in outcomes} == {errors.Unavailable}


async def test_callers_get_their_own_answers_in_the_order_of_what_they_asked(asked: Asked) -> None:
    await asked.hold()
    first, second = asked.ask("a", "b", "c"), asked.ask("d", "e")
    await asked.settle()
    for call in list(asked.calls):
        call.end()
    await asked.until(lambda: len(asked.calls) > MAX_READS)
    asked.calls[-1].end()

    assert await first == ["did a", "did b", "did c"]
    assert await second == ["did d", "did e"]


async def test_a_batch_has_so_many_operations_and_bytes_at_most(asked: Asked) -> None:
    await asked.hold()
    many = asked.ask(*map(str, range(MAX_OPERATIONS + 10)))
    large = asked.ask("x", "y", "z", size=MAX_BYTES // 2)
    larger = asked.ask("largest", size=3 * MAX_BYTES)
    for number in range(6):
        await asked.until(lambda number=number: len(asked.calls) > number)
        asked.calls[number].end()
    await asyncio.gather(many, large, larger)

    sizes = [len(batch) for batch in asked.batches[MAX_READS:]]
    assert sizes == [MAX_OPERATIONS, 12, 1, 1]
    assert asked.batches[-1] == ["largest"], "one that is larger than a batch goes alone"


async def test_operations_of_a_thread_are_done_in_the_order_of_their_arrival(asked: Asked) -> None:
    await asked.hold()
    names = [f"{thread}{number}" for number in range(5) for thread in "ab"]
    done = [asked.ask(name, thread=name[0]) for name in names]
    await asked.settle()
    asked.calls[0].end()
    await asked.settle()

    assert asked.batches[-1] == names
    asked.calls[-1].end()
    await asyncio.gather(*done)


async def test_a_thread_is_in_one_call_at_a_time(asked: Asked) -> None:
    first = asked.ask("a1", thread="a")
    await asked.settle()
    second, other = asked.ask("a2", thread="a"), asked.ask("b")
    await asked.settle()

    assert asked.batches == [["a1"], ["b"]], "a second call would only wait for the first one's lock"
    asked.calls[1].end()
    await other
    third = asked.ask("a3", thread="a")
    await asked.settle()
    assert len(asked.calls) == 2
    asked.calls[0].end()
    await first
    await asked.settle()
    assert asked.batches[2:] == [["a2", "a3"]]
    asked.calls[2].end()
    await asyncio.gather(second, third)


async def test_a_busy_thread_delays_only_itself(asked: Asked) -> None:
    await asked.hold()
    before, busy, after = asked.ask("before"), asked.ask("busy"), asked.ask("after")
    await asked.settle()
    asked.calls[0].end()
    await asked.settle()
    asked.calls[-1].end(busy=["busy"])

    assert await before == ["did before"]
    assert await after == ["did after"]
    await asked.settle()
    assert (asked.calls[-1].batch, asked.calls[-1].wait) == (["busy"], True)
    more = [asked.ask("busy too", thread="busy"), asked.ask("free")]
    await asked.settle()
    assert asked.batches[-1] == ["free"], "the thread stays closed, and its wait takes no place of a call"
    asked.calls[-1].end()
    await more[1]
    next(call for call in asked.calls if call.wait).end()
    assert await busy == ["did busy"]
    await asked.settle()
    assert asked.batches[-1] == ["busy too"]
    asked.calls[-1].end()
    await more[0]


async def test_an_answer_that_is_there_before_the_last_one_is_told_at_once(asked: Asked) -> None:
    told: list[tuple[int, str]] = []
    answers = asked.ask("busy", "free", answered=lambda index, answer: told.append((index, answer)))
    await asked.settle()
    asked.calls[0].end(busy=["busy"])
    await asked.settle()

    assert told == [(1, "did free")]
    assert not answers.done()
    asked.calls[1].end()
    assert await answers == ["did busy", "did free"]
    assert told == [(1, "did free")], "the last one comes with the others, to whom waits for all"


async def test_a_failure_or_a_caller_that_has_gone_is_told_no_answers(asked: Asked) -> None:
    told: list[int] = []
    failing = asked.ask("a", answered=lambda index, _: told.append(index))
    gone = asked.ask("b", answered=lambda index, _: told.append(index))
    await asked.settle()
    gone.cancel()
    asked.calls[0].answers.set_exception(errors.Unavailable())
    asked.calls[1].end()
    with pytest.raises(errors.Unavailable):
        await failing
    await asked.settle()

    assert told == []


async def test_that_a_thread_is_busy_is_no_answer(asked: Asked) -> None:
    answer = asked.ask("busy")
    await asked.settle()
    asked.calls[0].end(busy=["busy"])
    await asked.settle()
    asked.calls[1].answers.set_result([errors.DeadlineExceeded()])

    assert [type(one) for one in await answer] == [errors.DeadlineExceeded]


async def test_busy_threads_are_waited_for_side_by_side_but_few_at_a_time(asked: Asked) -> None:
    names = [f"busy {number}" for number in range(10)]
    answer = asked.ask(*names)
    await asked.settle()
    asked.calls[0].end(busy=names)
    await asked.settle()
    waits = asked.calls[1:]
    assert [call.batch for call in waits] == [[name] for name in names[:4]], "each takes a connection"
    for number in range(10):
        await asked.until(lambda number=number: len(asked.calls) > number + 1)
        asked.calls[number + 1].end()

    assert await answer == [f"did {name}" for name in names]


async def test_an_operation_that_nobody_waits_for_any_more_is_left_out(asked: Asked) -> None:
    await asked.hold()
    before, gone, after = asked.ask("before"), asked.ask("gone"), asked.ask("after")
    await asked.settle()
    gone.cancel()
    await asked.settle()
    asked.calls[0].end()
    await asked.settle()

    assert asked.batches[-1] == ["before", "after"]
    asked.calls[-1].end()
    assert await before == ["did before"]
    assert await after == ["did after"]


async def test_an_operation_under_way_goes_on_without_its_caller(asked: Asked) -> None:
    gone, neighbour = asked.ask("gone"), asked.ask("neighbour")
    await asked.settle()
    gone.cancel()
    await asked.settle()

    assert not asked.calls[0].answers.cancelled()
    for call in asked.calls:
        call.end()
    assert await neighbour == ["did neighbour"]
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_a_busy_operation_is_left_out_when_its_caller_has_gone(asked: Asked) -> None:
    names = [f"busy {number}" for number in range(5)]
    tasks = [asked.ask(*names[:4]), asked.ask("busy 4")]
    await asked.settle()
    for call in list(asked.calls):
        call.end(busy=names)
    await asked.settle()
    tasks[1].cancel()
    await asked.settle()
    for call in list(asked.calls[2:]):
        call.end()
    await tasks[0]
    await asked.settle()

    assert ["busy 4"] not in asked.batches[2:]
    assert asked.emptied == 1


async def test_an_operation_whose_time_passes_before_it_begins_never_begins(asked: Asked) -> None:
    await asked.hold()
    late, patient = asked.ask("late", seconds=0.01), asked.ask("patient")
    assert [type(answer) for answer in await late] == [errors.DeadlineExceeded]
    asked.calls[0].end()
    await asked.settle()

    assert asked.batches[-1] == ["patient"]
    asked.calls[-1].end()
    assert await patient == ["did patient"]


async def test_what_has_begun_is_answered_by_the_store_however_late(asked: Asked) -> None:
    begun = asked.ask("a", seconds=0.001)
    waited = asked.ask("b", seconds=0.001)
    await asked.settle()
    # A third one's time passes after theirs.
    assert [type(answer) for answer in await asked.ask("c", seconds=0.02)] == [errors.DeadlineExceeded]

    assert not begun.done()
    for call in asked.calls:
        call.end()
    assert await asyncio.gather(begun, waited) == [["did a"], ["did b"]]


async def test_a_failure_reaches_everybody_in_the_call_and_nobody_else(asked: Asked) -> None:
    await asked.hold()
    failed = [asked.ask("a"), asked.ask("b", "c")]
    await asked.settle()
    asked.calls[0].end()
    await asked.settle()
    later = asked.ask("a again", thread="a")
    asked.calls[-1].answers.set_exception(errors.Unavailable())

    for task in failed:
        with pytest.raises(errors.Unavailable):
            await task
    await asked.settle()
    assert asked.batches[-1] == ["a again"], "its thread is open again"
    asked.calls[-1].end()
    assert await later == ["did a again"]


async def test_a_call_that_is_cancelled_below_leaves_nobody_hanging(asked: Asked) -> None:
    answer = asked.ask("a")
    await asked.settle()
    asked.calls[0].answers.cancel()
    with pytest.raises(errors.Unavailable):
        await answer
    again = asked.ask("a")
    await asked.until(lambda: len(asked.calls) == 2)
    asked.calls[1].end()

    assert await again == ["did a"]


async def test_more_than_a_queue_holds_is_refused_with_a_pushback(asked: Asked) -> None:
    await asked.hold()
    waiting = asked.ask(*range(MAX_WAITING))
    await asked.settle()
    with pytest.raises(errors.Overloaded) as refused:
        await asked.ask("one too many")
    assert refused.value.retry_after is not None
    assert refused.value.retry_after > 0
    waiting.cancel()
    await asked.settle()
    for call in list(asked.calls):
        call.end()
    await asked.settle()

    assert len(asked.calls) == MAX_READS, "nobody waits for the rest"
    accepted = asked.ask("now")
    await asked.settle()
    asked.calls[-1].end()
    assert await accepted == ["did now"]


async def test_a_queue_says_when_nothing_is_left(asked: Asked) -> None:
    first = asked.ask("a")
    await asked.settle()
    asked.calls[0].end(busy=["a"])
    await asked.settle()
    assert asked.emptied == 0, "a busy thread is waited for"
    asked.calls[1].end()
    await first
    await asked.settle()
    assert asked.emptied == 1


async def test_closing_leaves_nobody_hanging(asked: Asked) -> None:
    names = [f"busy {number}" for number in range(6)]
    busy = asked.ask(*names)
    await asked.settle()
    asked.calls[0].end(busy=names)
    await asked.settle()
    held = [asked.ask(name) for name in "ab"]
    await asked.settle()
    tasks = [busy, *held, asked.ask("waiting")]
    await asked.settle()
    made = len(asked.calls)
    await asked.queue.close()

    for task in tasks:
        with pytest.raises(errors.Unavailable):
            await task
    assert len(asked.calls) == made, "nothing begins any more"


async def test_a_call_runs_in_the_context_of_its_first_operation(asked: Asked) -> None:
    await asked.hold()
    tasks = [asked.ask("a"), asked.ask("b")]
    await asked.settle()
    asked.calls[0].end()
    await asked.settle()

    assert asked.calls[-1].caller == "a"
    asked.calls[-1].end()
    await asyncio.gather(*tasks)
