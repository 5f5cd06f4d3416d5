"""A tenant that floods a server queues behind itself, and is refused what its queue does not hold."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from itertools import count

import grpc
import psycopg
from google.rpc import error_details_pb2
from tenure.v1 import checkpoints_pb2 as pb
from tenure_client import DeadlineExceeded, OutcomeUnknown, Overloaded, TenureError, TenureSaver
from tenure_server.storage.queues import MAX_WAITING

from tests.harness.processes import PATIENCE
from tests.harness.stack import Stack
from tests.integration.checkpoints_support import checkpoint, config_of, id_of, put, value_of
from tests.integration.tenants_support import put_of
from tests.integration.wire_support import Answer, Wire, operation, outcome_of, reason_of

FLOODING, CLIENTS, QUIET = 100, 4, 20
"""Conversations of each client of the tenant that floods, its clients, and those of the other tenant."""
ROUNDS = 10
BATCH = 256


async def converse(saver: TenureSaver, name: str, number: int) -> None:
    """Put a checkpoint and read it back."""
    made = checkpoint(number, [name, number])
    parent = config_of(name, id_of(number - 1) if number > 1 else None)
    await saver.aput(parent, made, {"step": number}, made["channel_versions"])
    assert value_of(await saver.aget_tuple(config_of(name, id_of(number)))) == [name, number]


async def test_a_flood_of_one_tenant_fails_nothing_of_another(stack: Stack) -> None:
    flooding, quiet = stack.new_tenant(), stack.new_tenant()
    done = asyncio.Event()
    flooded = [0] * CLIENTS
    errors: list[TenureError] = []

    async def flood(saver: TenureSaver, client: int, name: str) -> None:
        for number in count(1):
            if done.is_set():
                return
            try:
                await converse(saver, name, number)
                flooded[client] += 1
            except TenureError as error:
                errors.append(error)

    async def speak(saver: TenureSaver, name: str) -> None:
        for number in range(1, ROUNDS + 1):
            await converse(saver, name, number)

    async with AsyncExitStack() as savers:
        noisy = [
            await savers.enter_async_context(TenureSaver(stack.target, api_key=flooding.api_key))
            for _ in range(CLIENTS)
        ]
        other = await savers.enter_async_context(TenureSaver(stack.target, api_key=quiet.api_key))
        floods = [
            asyncio.create_task(flood(saver, client, f"{client}-{number}"))
            for client, saver in enumerate(noisy)
            for number in range(FLOODING)
        ]
        await asyncio.gather(*(speak(other, f"quiet-{number}") for number in range(QUIET)))
        done.set()
        await asyncio.gather(*floods)

        assert all(flooded), "the one that floods is served, too"
        assert {type(error) for error in errors} <= {Overloaded, DeadlineExceeded, OutcomeUnknown}
        listed = [one async for one in other.alist(None)]
        assert len(listed) == QUIET * ROUNDS


def test_what_the_queue_of_a_tenant_does_not_hold_is_refused_with_a_pushback(stack: Stack) -> None:
    flooding, quiet = stack.new_tenant(), stack.new_tenant()
    calls = MAX_WAITING // BATCH + 4

    def batch(number: int) -> pb.WriteRequest:
        return pb.WriteRequest(
            mutations=[
                pb.Mutation(
                    operation=operation(timeout_ms=int(PATIENCE * 1000)),
                    put=put_of(
                        pb.CheckpointRef(thread_id="held", checkpoint_id=id_of(number * BATCH + index + 2)),
                        "1",
                        "flood",
                        {},
                    ),
                )
                for index in range(BATCH)
            ]
        )

    with (
        TenureSaver(stack.target, api_key=flooding.api_key) as saver,
        TenureSaver(stack.target, api_key=quiet.api_key) as other,
        Wire(stack.target, flooding.api_key) as wire,
        psycopg.connect(stack.database.admin_url) as holder,
        ThreadPoolExecutor(calls) as threads,
    ):
        put(saver, "held", 1, "one")
        holder.execute(
            "SELECT FROM tenure.thread_head WHERE tenant_id = %s AND thread_id = 'held' FOR UPDATE",
            [flooding.tenant_id],
        )
        running = [threads.submit(wire.start("Write", [batch(number)])) for number in range(calls)]
        refused: list[Answer] = []
        while len(refused) < 3:
            refused = [one.result() for one in running if one.done()]
            # Meanwhile everybody else is served.
            put(other, "thread", 1, "one")
        holder.rollback()
        answers = [one.result() for one in running]

    accepted = [answer for answer in answers if answer.code is grpc.StatusCode.OK]
    assert {answer.code for answer in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert {reason_of(answer.status)[0] for answer in refused} == {"OVERLOADED"}
    retry = error_details_pb2.RetryInfo()
    assert all(any(detail.Unpack(retry) for detail in answer.status.details) for answer in refused)
    assert 1 <= len(accepted) <= MAX_WAITING // BATCH + 1
    assert {outcome_of("Write", answer).code for answer in accepted} == {0}
