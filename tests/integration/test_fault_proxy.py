"""The fault proxy does to real connections what its methods say."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
import redis

from tests.harness.databases import Postgres
from tests.harness.proxy import FaultProxy


@pytest.fixture
def table(postgres: Postgres) -> Iterator[str]:
    """URL of a database with an empty table `kept`."""
    name = postgres.create_database()
    with psycopg.connect(postgres.admin_dsn(name)) as connection:
        connection.execute("CREATE TABLE kept (value int)")
    yield postgres.admin_dsn(name)
    postgres.drop_database(name)


def kept(url: str) -> list[int]:
    with psycopg.connect(url) as connection:
        return [value for (value,) in connection.execute("SELECT value FROM kept ORDER BY value")]


def test_it_passes_what_is_not_hurt(table: str) -> None:
    with FaultProxy(table, postgres=True) as proxy, psycopg.connect(proxy.url(table)) as connection:
        big = "x" * (3 << 20)
        assert connection.execute("SELECT %s::text", [big]).fetchone() == (big,)
        assert proxy.connections == 1


@pytest.mark.parametrize("fault", ["cut", "reset"])
def test_a_connection_that_is_ended_fails_and_the_next_one_works(table: str, fault: str) -> None:
    with FaultProxy(table, postgres=True) as proxy:
        with psycopg.connect(proxy.url(table)) as connection:
            getattr(proxy, fault)()
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        assert kept(proxy.url(table)) == []


def test_refused_connections_work_again_once_healed(redis_url: str) -> None:
    with FaultProxy(redis_url) as proxy, redis.Redis.from_url(proxy.url(redis_url)) as client:
        assert client.ping()
        proxy.refuse()
        assert client.ping(), "an open connection stays"
        with (
            redis.Redis.from_url(proxy.url(redis_url)) as other,
            pytest.raises(redis.ConnectionError, match="refused"),
        ):
            other.ping()
        proxy.heal()
        with redis.Redis.from_url(proxy.url(redis_url)) as other:
            assert other.ping()


def test_a_black_hole_swallows_until_it_is_healed(redis_url: str) -> None:
    with (
        FaultProxy(redis_url) as proxy,
        redis.Redis.from_url(proxy.url(redis_url), socket_timeout=0.2) as client,
    ):
        assert client.ping()
        proxy.black_hole()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        proxy.heal()
        assert client.ping()


def test_delayed_data_comes_too_late_for_an_impatient_client(redis_url: str) -> None:
    with (
        FaultProxy(redis_url) as proxy,
        redis.Redis.from_url(proxy.url(redis_url), socket_timeout=0.2) as client,
    ):
        proxy.delay(2)
        with pytest.raises(redis.TimeoutError):
            client.ping()
        proxy.delay(0)
        assert client.ping()


@pytest.mark.parametrize("prepared", [False, True])
def test_a_cut_reply_leaves_the_commit_done(table: str, prepared: bool) -> None:
    with FaultProxy(table, postgres=True) as proxy:
        proxy.cut_reply(b"COMMIT")
        for value in range(3):
            threshold = 0 if prepared else None
            with psycopg.connect(proxy.url(table), prepare_threshold=threshold) as connection:
                connection.execute("INSERT INTO kept VALUES (%s)", [value])
                with pytest.raises(psycopg.OperationalError):
                    connection.commit()
        assert proxy.cuts == 3
        assert kept(table) == [0, 1, 2]


def test_a_cut_reply_of_an_autocommitted_statement_leaves_it_done(table: str) -> None:
    with FaultProxy(table, postgres=True) as proxy:
        proxy.cut_reply(b"INSERT INTO kept", every=2)
        lost = []
        for value in range(6):
            with psycopg.connect(proxy.url(table), autocommit=True) as connection:
                try:
                    # A large answer: the server sends its start long before it commits.
                    connection.execute(
                        "INSERT INTO kept VALUES (%s) RETURNING repeat('x', 100000)", [value]
                    ).fetchone()
                except psycopg.OperationalError:
                    lost.append(value)
        assert lost == [1, 3, 5]
        assert kept(table) == [0, 1, 2, 3, 4, 5]


def test_a_cut_reply_of_a_prepared_statement_is_that_of_its_execution(table: str) -> None:
    with FaultProxy(table, postgres=True) as proxy:
        for first, last in ((1, 2), (3, 6)):
            proxy.cut_reply(b"INSERT INTO kept", every=last - first + 1)
            with psycopg.connect(proxy.url(table), autocommit=True) as connection:
                for value in range(first, last):
                    connection.execute("INSERT INTO kept VALUES (%s)", [value], prepare=True)
                with pytest.raises(psycopg.OperationalError):
                    connection.execute("INSERT INTO kept VALUES (%s)", [last], prepare=True)
        assert proxy.cuts == 2
        assert kept(table) == [1, 2, 3, 4, 5, 6]


def test_a_cut_reply_of_another_protocol_leaves_the_work_done(redis_url: str) -> None:
    with FaultProxy(redis_url) as proxy, redis.Redis.from_url(proxy.url(redis_url), retry=None) as client:
        assert client.ping()
        proxy.cut_reply(b"marked")
        with pytest.raises(redis.ConnectionError):
            client.set("marked", "value", ex=60)
        assert proxy.cuts == 1
        proxy.heal()
        assert client.get("marked") == b"value"
