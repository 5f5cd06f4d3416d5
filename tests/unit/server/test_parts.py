"""The answer to a batch is one part if it fits, and otherwise as many as it takes."""

from __future__ import annotations

import asyncio

import pytest
from tenure.v1 import checkpoints_pb2 as pb
from tenure_server.services.parts import Parts

BUDGET = 1000


async def _sent(sizes: list[int], early: dict[int, int] | None = None) -> list[pb.SessionResponse]:
    """Return what is sent for results of about so many bytes, some of them known before the others."""
    sent: list[pb.SessionResponse] = []

    async def send(part: pb.SessionResponse) -> None:
        sent.append(part)

    parts: Parts[pb.MutationResult] = Parts(send, "write", BUDGET)
    for position, size in (early or {}).items():
        parts.add(position, _result(size))
    if early:
        await asyncio.sleep(0.05)  # longer than results wait for one another
    await parts.finish([_result(size) for size in sizes])
    return sent


def _result(size: int) -> pb.MutationResult:
    result = pb.MutationResult()
    result.status.message = "x" * size
    return result


@pytest.mark.parametrize("sizes", [[], [0], [5, 0, 5], [200, 200, 200, 200], [2000]])
async def test_what_fits_is_one_part_without_positions(sizes: list[int]) -> None:
    (part,) = await _sent(sizes)
    assert part.WhichOneof("outcome") == "write"
    assert [len(result.status.message) for result in part.write.results] == sizes
    assert (list(part.positions), part.more) == ([], False)


async def test_what_does_not_fit_comes_in_several_parts_in_order() -> None:
    parts = await _sent([400, 400, 400, 10])
    assert [[len(result.status.message) for result in part.write.results] for part in parts] == [
        [400, 400],
        [400, 10],
    ]
    assert [part.more for part in parts] == [True, False]
    assert not any(part.positions for part in parts)


async def test_what_was_sent_before_is_not_sent_again() -> None:
    first, last = await _sent([1, 2, 3], early={1: 2})
    assert (list(first.positions), first.more) == ([1], True)
    assert (list(last.positions), last.more) == ([0, 2], False)
