"""Where one system keeps its data during one workload, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from benchmarks.systems import Endpoint

_STORED = """
    SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""


class Failed(Exception):
    """A system could not be started or a client could not do its work; says why in one line."""


def _none() -> list[int]:
    return []


def _nothing() -> None:
    pass


@dataclass
class Place:
    """A place.

    Attributes:
        endpoint: Where clients find it.
        pids: Gives the servers' process ids, whose descendants count too.
        server_pid: Gives the process id of the Tenure server; None for other systems.
        admin_url: The database as its superuser; None if there is none.
        app_url / ops_url: The same as `tenure_app` and as `tenure_ops`; None for other systems.
        file: The database's file; None if there is none.
        another_tenant: Makes one and gives the endpoint with its key; None for systems without tenants.
        cold: Restarts or empties everything that caches; None if nothing does outside the client and the
            database.
        keys: Of the tenants that a workload has made in it.
        on_close: Ends it.
    """

    endpoint: Endpoint
    pids: Callable[[], list[int]] = _none
    server_pid: Callable[[], int] | None = None
    admin_url: str | None = None
    app_url: str | None = None
    ops_url: str | None = None
    file: Path | None = None
    another_tenant: Callable[[], Endpoint] | None = None
    cold: Callable[[], None] | None = None
    keys: Sequence[str] = ()
    on_close: Callable[[], None] = field(default=_nothing)

    def tidy(self) -> None:
        """Do now what the database would do later, on somebody else's time: vacuum and write out pages."""
        if self.admin_url is not None:
            with psycopg.connect(self.admin_url, autocommit=True) as connection:
                connection.execute("VACUUM (ANALYZE)")
                connection.execute("CHECKPOINT")

    def stored_bytes(self) -> int | None:
        """Return the size of all tables with indexes and TOAST after VACUUM; a file's size for SQLite."""
        if self.file is not None:
            return sum(path.stat().st_size for path in self.file.parent.glob(f"{self.file.name}*"))
        if self.admin_url is None:
            return None
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute("VACUUM")
            row = connection.execute(_STORED).fetchone()
            assert row is not None
            return int(row[0])

    def wal_bytes(self) -> int | None:
        """Return the write-ahead log's position; None without Postgres."""
        if self.admin_url is None:
            return None
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            row = connection.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()
            assert row is not None
            return int(row[0])

    def close(self) -> None:
        """End it."""
        self.on_close()
        if self.file is not None:
            for path in self.file.parent.glob(f"{self.file.name}*"):
                path.unlink()
