"""Large values travel and are stored by what is new in them, and come back whole whatever happened."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from langgraph.checkpoint.serde.base import CipherProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from tenure_client import TenureSaver, payloads
from tenure_client.payloads import CHUNKED_FROM
from tenure_server import chunks

from tests.harness.stack import Stack, TenantHandle
from tests.integration.checkpoints_support import checkpoint, config_of, id_of, put, value_of

MIB = 1024 * 1024
PLACE = ("t", "")
MESSAGE = 400
"""Bytes of a message, about; half of them do not compress."""


@pytest.fixture
def tenant(stack: Stack) -> TenantHandle:
    return stack.new_tenant()


@pytest.fixture
def client(stack: Stack, tenant: TenantHandle) -> Iterator[Callable[..., TenureSaver]]:
    """Makes clients of one tenant, each with a connection of its own, which holds nothing yet."""
    with ExitStack() as savers:
        yield lambda **options: savers.enter_context(
            TenureSaver(stack.target, api_key=tenant.api_key, **options)
        )


@pytest.fixture
def told_whole(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the puts that went again with all chunks."""
    seen: list[int] = []
    tell_whole = payloads.tell_whole

    def spy(*args: Any) -> Any:
        seen.append(1)
        return tell_whole(*args)

    monkeypatch.setattr(payloads, "tell_whole", spy)
    return seen


def messages(count: int) -> list[str]:
    return [
        f"message {number}: " + random.Random(number).randbytes(MESSAGE // 2).hex() for number in range(count)
    ]


def latest(saver: TenureSaver, thread: str = "t") -> Any:
    return value_of(saver.get_tuple(config_of(thread)))


@dataclasses.dataclass
class Stored:
    """What Postgres holds of a tenant: the recipes, and the chunks by thread."""

    recipes: list[tuple[Any, bytes]]
    chunks: dict[tuple[Any, bytes], bytes]
    whole: int

    @property
    def size(self) -> int:
        return sum(len(recipe) for _, recipe in self.recipes) + sum(map(len, self.chunks.values()))

    @property
    def named(self) -> set[tuple[Any, bytes]]:
        """The chunks that recipes name."""
        return {(thread, chunk) for thread, recipe in self.recipes for chunk in chunks.ids(recipe)}


@contextmanager
def looking(stack: Stack, tenant: TenantHandle) -> Iterator[Callable[[], Stored]]:
    """Look into the database."""
    with psycopg.connect(stack.database.admin_url, autocommit=True) as connection:

        def look() -> Stored:
            recipes, packed, whole = (
                connection.execute(statement, [tenant.tenant_id]).fetchall()
                for statement in (
                    "SELECT thread_key, recipe FROM tenure.channel_value"
                    " WHERE tenant_id = %s AND recipe IS NOT NULL",
                    "SELECT thread_key, chunk_id, data FROM tenure.chunk WHERE tenant_id = %s",
                    "SELECT count(*) FROM tenure.channel_value WHERE tenant_id = %s AND recipe IS NULL",
                )
            )
            return Stored(
                [(thread, bytes(recipe)) for thread, recipe in recipes],
                {(thread, bytes(chunk)): bytes(data) for thread, chunk, data in packed},
                whole[0][0],
            )

        yield look


def test_a_growing_list_is_stored_by_what_is_new(
    stack: Stack, tenant: TenantHandle, client: Callable[..., TenureSaver]
) -> None:
    saver, reader, newcomer = client(), client(), client()
    turns = 80
    for number in range(1, turns + 1):
        put(saver, "t", number, messages(number))
        assert latest(reader) == messages(number)

    assert latest(newcomer) == messages(turns)
    listed = [value_of(item) for item in newcomer.list(config_of("t"))]
    assert listed == [messages(number) for number in range(turns, 0, -1)]
    sizes = [len(JsonPlusSerializer().dumps_typed(messages(number))[1]) for number in range(1, turns + 1)]
    with looking(stack, tenant) as look:
        stored = look()
        assert len(stored.recipes) == sum(size > CHUNKED_FROM for size in sizes)
        assert stored.whole == sum(size <= CHUNKED_FROM for size in sizes)
        assert stored.named == set(stored.chunks)
        assert stored.size < sum(sizes) / 6


async def test_both_colours_share_what_is_held(client: Callable[..., TenureSaver]) -> None:
    saver = client()
    for number in range(30, 40):
        made = checkpoint(number, messages(number))
        if number % 2:
            await saver.aput(config_of("t"), made, {}, made["channel_versions"])
        else:
            await asyncio.to_thread(put, saver, "t", number, messages(number))
        assert value_of(await saver.aget_tuple(config_of("t"))) == messages(number)
        held = saver.connection.held.of(PLACE)["state"]
        assert held.version.endswith(f"{number:032}.0")
    listed = [value_of(item) async for item in saver.alist(config_of("t"))]
    assert listed == [messages(number) for number in range(39, 29, -1)]
    await saver.aclose()


def test_a_writer_of_what_another_client_wrote_sends_only_what_is_new(
    stack: Stack, tenant: TenantHandle, client: Callable[..., TenureSaver]
) -> None:
    first, second = client(), client()
    put(first, "t", 1, messages(100))
    with looking(stack, tenant) as look:
        before = look()
        assert latest(second) == messages(100)
        put(second, "t", 2, messages(101))
        put(first, "t", 3, messages(102))  # told against its own, which is two versions old
        after = look()
    assert len(after.chunks) - len(before.chunks) <= 4
    assert latest(first) == latest(second) == messages(102)


def delete(saver: TenureSaver) -> None:
    saver.delete_thread("t")


def delete_and_begin_anew(saver: TenureSaver) -> None:
    saver.delete_thread("t")
    put(saver, "t", 1, messages(90))


def prune_to_another(saver: TenureSaver) -> None:
    put(saver, "t", 2, ["short"])
    saver.prune(["t"])


@pytest.mark.parametrize("between", [delete, delete_and_begin_anew, prune_to_another])
def test_a_value_whose_base_another_client_removed_goes_whole(
    client: Callable[..., TenureSaver], told_whole: list[int], between: Callable[[TenureSaver], None]
) -> None:
    saver, other = client(), client()
    put(saver, "t", 1, messages(100))
    between(other)

    put(saver, "t", 3, messages(101))

    assert len(told_whole) == 1
    assert latest(saver) == latest(other) == latest(client()) == messages(101)
    put(saver, "t", 4, messages(102))
    assert len(told_whole) == 1
    assert latest(other) == messages(102)


def test_a_base_that_is_not_what_the_server_has_is_noticed_both_ways(
    client: Callable[..., TenureSaver], told_whole: list[int]
) -> None:
    saver, other = client(), client()
    put(saver, "t", 1, messages(100))
    put(other, "t", 1, messages(90))  # the version is there: the first value stays

    assert latest(other) == messages(100)
    put(other, "t", 1, messages(90))
    assert len(told_whole) == 0
    put(other, "t", 2, messages(91))

    assert len(told_whole) == 1
    assert latest(other) == latest(saver) == messages(91)


def test_a_copy_has_chunks_of_its_own(
    stack: Stack, tenant: TenantHandle, client: Callable[..., TenureSaver]
) -> None:
    saver = client()
    for number in range(60, 65):
        put(saver, "t", number, messages(number))
    saver.copy_thread("t", "copy")
    put(saver, "copy", 65, messages(65))
    saver.delete_thread("t")

    newcomer = client()
    listed = [value_of(item) for item in newcomer.list(config_of("copy"))]
    assert listed == [messages(number) for number in range(65, 59, -1)]
    assert saver.get_tuple(config_of("t")) is None


def test_pruning_frees_the_chunks_that_no_checkpoint_needs_any_more(
    stack: Stack, tenant: TenantHandle, client: Callable[..., TenureSaver]
) -> None:
    saver = client()
    put(saver, "t", 1, messages(100))
    put(saver, "t", 2, [*messages(50), *(f"other {text}" for text in messages(60))])
    with looking(stack, tenant) as look:
        before = look()
        saver.prune(["t"])
        after = look()
    assert after.named == set(after.chunks) < set(before.chunks)
    assert set(after.chunks) & before.named == set(after.chunks)
    assert latest(client()) == latest(saver)
    assert len(latest(saver)) == 110


def test_forks_that_share_chunks_stay_apart(client: Callable[..., TenureSaver]) -> None:
    saver = client()
    put(saver, "t", 1, messages(100))
    for number, branch in ((2, "left"), (3, "right"), (4, "left"), (5, "right")):
        value = [*messages(100), *(f"{branch} {step}" for step in range(number))]
        made = checkpoint(number, value)
        saver.put(config_of("t", id_of(1)), made, {}, made["channel_versions"])

    for number, branch in ((2, "left"), (3, "right"), (4, "left"), (5, "right")):
        for reader in (saver, client()):
            found = value_of(reader.get_tuple(config_of("t", id_of(number))))
            assert found == [*messages(100), *(f"{branch} {step}" for step in range(number))]


class Shuffling(CipherProtocol):
    """A cipher that, as any good one, makes other bytes of the same text each time."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        nonce = os.urandom(8)
        return "shuffle", nonce + self._mixed(nonce, plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        return self._mixed(ciphertext[:8], ciphertext[8:])

    @staticmethod
    def _mixed(nonce: bytes, data: bytes) -> bytes:
        stream = random.Random(nonce).randbytes(len(data))
        return bytes(a ^ b for a, b in zip(data, stream, strict=True))


def test_encrypted_values_go_whole_each_time(
    stack: Stack, tenant: TenantHandle, client: Callable[..., TenureSaver], told_whole: list[int]
) -> None:
    saver, other = (client(serde=EncryptedSerializer(Shuffling(), JsonPlusSerializer())) for _ in range(2))
    with looking(stack, tenant) as look:
        for number in range(60, 64):
            put(saver, "t", number, messages(number))
            assert latest(saver) == latest(other) == messages(number)
        assert look().size > 4 * 60 * MESSAGE
    listed = [value_of(item) for item in other.list(config_of("t"))]
    assert listed == [messages(number) for number in range(63, 59, -1)]
    assert told_whole == []


@pytest.mark.parametrize("size", [CHUNKED_FROM - 100, CHUNKED_FROM + 100, 900_000, 5 * MIB, 20 * MIB])
@pytest.mark.parametrize("kind", [os.urandom, bytes])
def test_values_of_every_size_come_back(
    client: Callable[..., TenureSaver], size: int, kind: Callable[[int], bytes]
) -> None:
    saver, other = client(timeout=60.0), client(timeout=60.0)
    data = kind(size)
    changed = data[: size // 2] + b"changed" + data[size // 2 + 3 :]
    for number, value in enumerate([data, changed, data[: size // 3], data], 1):
        put(saver, "t", number, value)
        assert latest(saver) == value
        assert latest(other) == value
    assert [value_of(item) for item in other.list(config_of("t"))] == [data, data[: size // 3], changed, data]


def test_what_is_read_again_is_not_sent_again(client: Callable[..., TenureSaver]) -> None:
    saver = client()
    data = os.urandom(MIB)
    put(saver, "t", 1, data)
    held = saver.connection.held.of(PLACE)["state"]

    assert latest(saver) == data

    # Had it been sent, there would be another object.
    assert saver.connection.held.of(PLACE)["state"].data is held.data


def test_savers_of_one_connection_share_what_is_held(client: Callable[..., TenureSaver]) -> None:
    saver = client()
    other = TenureSaver(saver.connection, serde=JsonPlusSerializer())
    put(saver, "t", 1, messages(100))
    put(other, "t", 2, messages(101))

    assert saver.connection.held.of(PLACE)["state"].version.endswith(f"{2:032}.0")
    assert latest(saver) == latest(other) == messages(101)


def test_a_client_that_may_hold_nothing_works_all_the_same(
    client: Callable[..., TenureSaver], told_whole: list[int]
) -> None:
    from tenure_client.held import HeldValues

    saver = client()
    saver.connection.held = HeldValues(0)
    for number in range(60, 64):
        put(saver, "t", number, messages(number))
        assert latest(saver) == messages(number)
    assert told_whole == []
