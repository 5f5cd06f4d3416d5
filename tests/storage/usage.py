"""What a tenant's counters say, what is really there, and limits on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql
from tenure_server import errors
from tenure_server.domain import TenantId

from tests.harness.databases import Database

_COUNTED = """
SELECT u.stored_bytes, u.threads, u.items FROM tenure.tenant_usage AS u WHERE u.tenant_id = %(tenant)s
"""
# Not by the generated columns that the functions read: by the payload itself, as docs/quotas.md lists it.
_THERE = """
SELECT
    (SELECT coalesce(sum(octet_length(c.body) + octet_length(c.metadata)), 0) FROM tenure.checkpoint AS c
        JOIN live USING (tenant_id, thread_key))
    + (SELECT coalesce(sum(octet_length(v.data) + coalesce(octet_length(v.recipe), 0)), 0)
        FROM tenure.channel_value AS v JOIN live USING (tenant_id, thread_key))
    + (SELECT coalesce(sum(octet_length(k.data)), 0) FROM tenure.chunk AS k
        JOIN live USING (tenant_id, thread_key))
    + (SELECT coalesce(sum(octet_length(w.data)), 0) FROM tenure.pending_write AS w
        JOIN live USING (tenant_id, thread_key))
    + (SELECT coalesce(sum(octet_length(coalesce(i.verbatim, i.value::text))), 0)
        FROM tenure.item AS i WHERE i.tenant_id = %(tenant)s)
    + (SELECT coalesce(sum(4 * cardinality(v.embedding)), 0)
        FROM tenure.item_vector AS v WHERE v.tenant_id = %(tenant)s),
    (SELECT count(*) FROM live),
    (SELECT count(*) FROM tenure.item AS i WHERE i.tenant_id = %(tenant)s)
"""
_LIVE = "WITH live AS (SELECT tenant_id, thread_key FROM tenure.thread_head WHERE tenant_id = %(tenant)s)"
_RECOUNT = "SELECT stored_bytes, threads, items FROM tenure.recount_usage_1(%(tenant)s)"


@dataclass(frozen=True)
class Used:
    """What a tenant uses."""

    stored_bytes: int = 0
    threads: int = 0
    items: int = 0


class Usage:
    """The usage of one tenant, seen by a superuser."""

    def __init__(self, admin: psycopg.Connection, tenant: TenantId) -> None:
        self._admin = admin
        self._tenant = {"tenant": tenant}

    def counted(self) -> Used:
        """Return what the counters say."""
        row = self._admin.execute(_COUNTED, self._tenant).fetchone()
        return Used() if row is None else Used(*row)

    def there(self) -> Used:
        """Return what the rows come to."""
        row = self._admin.execute(f"{_LIVE} {_THERE}", self._tenant).fetchone()
        assert row is not None
        return Used(int(row[0]), *row[1:])

    def recounted(self) -> Used:
        """Return what the recount of the schema finds."""
        row = self._admin.execute(_RECOUNT, self._tenant).fetchone()
        assert row is not None
        return Used(*row)

    def assert_exact(self) -> Used:
        """See that the counters equal what is there, in the same snapshot; return it."""
        with self._admin.transaction():
            self._admin.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            counted, there, recounted = self.counted(), self.there(), self.recounted()
        assert counted == recounted == there
        return there

    def limit(self, **limits: int | None) -> None:
        """Set limits, by their columns."""
        row = "INSERT INTO tenure.tenant_usage (tenant_id) VALUES (%(tenant)s) ON CONFLICT DO NOTHING"
        self._admin.execute(row, self._tenant)
        for column, maximum in limits.items():
            self._admin.execute(
                sql.SQL(
                    "UPDATE tenure.tenant_usage SET {} = %(maximum)s WHERE tenant_id = %(tenant)s"
                ).format(sql.Identifier(column)),
                self._tenant | {"maximum": maximum},
            )


@contextmanager
def usage_of(database: Database, tenant: TenantId) -> Iterator[Usage]:
    """Look at a tenant's usage."""
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        yield Usage(admin, tenant)


def refused(outcome: errors.TenureError | None) -> str:
    """Return by which limit a mutation was refused, "" if it was applied."""
    if outcome is None:
        return ""
    assert isinstance(outcome, errors.QuotaExceeded), outcome
    return outcome.metadata["limit"]
