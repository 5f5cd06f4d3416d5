"""Databases with one of the two walls between tenants taken down, or both."""

from __future__ import annotations

import re

import psycopg

from tests.harness.databases import Database

PREDICATE = re.compile(r"^.*-- wall:predicate$\n", re.MULTILINE)
_FUNCTIONS = """
SELECT pg_get_functiondef(p.oid), p.proname LIKE 'nearest_by_index_%'
FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = 'tenure' AND p.prokind = 'f'
"""
_PROTECTED = """
SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'tenure' AND c.relrowsecurity
"""


def cut_predicates(database: Database) -> int:
    """Take the lines that name the tenant out of every function; return how many there were.

    Those of a function that another one has made count as the other's.
    """
    with psycopg.connect(database.admin_url) as connection:
        cut = 0
        for definition, made in connection.execute(_FUNCTIONS).fetchall():
            reduced, count = PREDICATE.subn("", definition)
            if count:
                connection.execute(reduced)
                cut += 0 if made else count
        return cut


def drop_policies(database: Database) -> None:
    """Switch row level security off."""
    with psycopg.connect(database.admin_url) as connection:
        for (table,) in connection.execute(_PROTECTED).fetchall():
            connection.execute(f"ALTER TABLE tenure.{table} DISABLE ROW LEVEL SECURITY")
