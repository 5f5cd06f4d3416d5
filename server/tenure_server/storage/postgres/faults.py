"""From errors of psycopg to ours, by SQLSTATE and never by text.

| what happened                                    | becomes          |
|--------------------------------------------------|------------------|
| connection lost or refused, server going down    | Unavailable      |
| too many connections, disk full, read-only       | Unavailable      |
| a function or table is missing                   | Unavailable, says to migrate |
| lock or statement time-out                       | DeadlineExceeded |
| deadlock, serialization failure                  | Conflict         |
| text, JSON or a number that Postgres cannot store | InvalidField    |
| a quota would be passed (0009_usage.sql)         | QuotaExceeded    |
| under a legal hold (0012_retention.sql)          | LegalHold        |
| anything else                                    | itself: a fault of ours |
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors as pg

from tenure_server import errors

OUTDATED = "the database's schema is older than this server; run `tenure migrate`"

_MISSING = (pg.UndefinedFunction, pg.UndefinedTable, pg.UndefinedColumn, pg.InvalidSchemaName)
_TIMEOUTS = (pg.LockNotAvailable, pg.QueryCanceled)
_CONFLICTS = (pg.DeadlockDetected, pg.SerializationFailure)
_UNAVAILABLE_CLASSES = frozenset({"08", "53", "57", "58"})
"""Connection, insufficient resources, operator intervention, system error."""
_DATA_CLASSES = frozenset({"22", "54"})
"""Data exception, program limit."""
_QUOTA_EXCEEDED = "54TQ1"
_LEGAL_HOLD = "TH001"


@contextmanager
def translated() -> Iterator[None]:
    """Raise errors of the block that come from psycopg as ours; others pass."""
    try:
        yield
    except psycopg.Error as error:
        ours = of(error)
        if ours is None:
            raise
        raise ours from error
    except (UnicodeEncodeError, OverflowError) as error:
        raise _invalid() from error


def of(error: psycopg.Error) -> errors.TenureError | None:
    """Return our error for one of psycopg's, None if it is a fault of ours."""
    if isinstance(error, _MISSING):
        return errors.Unavailable(OUTDATED)
    if isinstance(error, _TIMEOUTS):
        return errors.DeadlineExceeded()
    if isinstance(error, _CONFLICTS):
        return errors.Conflict()
    state = error.sqlstate
    if state is None:
        # psycopg itself: the connection broke, or a value cannot be sent (NUL in a text).
        if isinstance(error, psycopg.DataError):
            return _invalid()
        return errors.Unavailable() if isinstance(error, psycopg.OperationalError) else None
    if state == _QUOTA_EXCEEDED:
        return _quota_exceeded(error)
    if state == _LEGAL_HOLD:
        return errors.LegalHold()
    if state[:2] in _UNAVAILABLE_CLASSES or isinstance(error, pg.ReadOnlySqlTransaction):
        return errors.Unavailable()
    if state[:2] in _DATA_CLASSES or isinstance(error, pg.CheckViolation):
        return _invalid()
    # Wrong password, no such database: the operator's to mend, and not the caller's to see.
    return errors.Unavailable() if state[:2] in {"28", "3D"} else None


def _quota_exceeded(error: psycopg.Error) -> errors.QuotaExceeded:
    told = json.loads(error.diag.message_detail or "{}")
    return errors.QuotaExceeded(told["limit"], told["max"], told["used"], told["asked"])


def _invalid() -> errors.InvalidField:
    return errors.InvalidField("mutation", "holds text, JSON or a number that the database cannot store")
