"""What the database's own catalogue says of isolation, compared with a snapshot that changes only on purpose.

After a change that is meant, run this file with TENURE_TEST_UPDATE=1 and read the difference.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import TupleRow

from tests.harness.databases import Postgres

SNAPSHOT = Path(__file__).with_name("catalogue.txt")

SECTIONS = {
    "tables: owner, row security, forced": """
        SELECT c.relname, pg_get_userbyid(c.relowner), c.relrowsecurity, c.relforcerowsecurity
        FROM pg_class AS c WHERE c.relnamespace = 'tenure'::regnamespace AND c.relkind IN ('r', 'p')""",
    "policies": """
        SELECT tablename, policyname, permissive, roles::text, cmd, qual, with_check
        FROM pg_policies WHERE schemaname = 'tenure'""",
    "grants on tables": """
        SELECT c.relname, a.grantee::regrole::text,
            string_agg(a.privilege_type, ',' ORDER BY a.privilege_type)
        FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
        WHERE c.relnamespace = 'tenure'::regnamespace AND c.relkind IN ('r', 'p') AND a.grantee <> c.relowner
        GROUP BY 1, 2""",
    "grants on columns": """
        SELECT c.relname, a.grantee::regrole::text, a.privilege_type,
            string_agg(t.attname, ',' ORDER BY t.attname)
        FROM pg_class AS c JOIN pg_attribute AS t ON t.attrelid = c.oid
        CROSS JOIN LATERAL aclexplode(t.attacl) AS a
        WHERE c.relnamespace = 'tenure'::regnamespace GROUP BY 1, 2, 3""",
    "functions: owner, volatility, definer, who may call": """
        SELECT p.proname, pg_get_userbyid(p.proowner), p.provolatile, p.prosecdef,
            (SELECT string_agg(CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, ','
                               ORDER BY 1)
             FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
             WHERE a.grantee <> p.proowner)
        FROM pg_proc AS p
        WHERE p.pronamespace = 'tenure'::regnamespace AND p.proname NOT LIKE 'nearest_by_index_%'""",
    "roles: superuser, bypass, create role, create database": """
        SELECT rolname, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb
        FROM pg_roles WHERE rolname LIKE 'tenure%'""",
    "unique indexes": """
        SELECT indexname, substring(indexdef FROM '\\(.*') FROM pg_indexes
        WHERE schemaname = 'tenure' AND indexdef LIKE 'CREATE UNIQUE%'""",
}


@pytest.fixture(scope="module")
def catalogue(postgres: Postgres, migrated: str) -> Iterator[psycopg.Connection[TupleRow]]:
    """A session in a database that nothing was changed in."""
    name = postgres.create_database(template=migrated)
    with psycopg.connect(postgres.admin_dsn(name), autocommit=True) as connection:
        yield connection
    postgres.drop_database(name)


def test_tables_policies_grants_and_owners_are_as_checked_in(catalogue: psycopg.Connection[TupleRow]) -> None:
    lines = []
    for title, query in SECTIONS.items():
        rows = sorted(" | ".join(str(cell) for cell in row) for row in catalogue.execute(query).fetchall())
        lines += [f"== {title}", *rows, ""]
    found = "\n".join(lines)
    if os.environ.get("TENURE_TEST_UPDATE"):
        SNAPSHOT.write_text(found)
    assert found == SNAPSHOT.read_text()


def test_what_asks_the_vector_indexes_is_the_servers_alone(
    catalogue: psycopg.Connection[TupleRow],
) -> None:
    rows = catalogue.execute(
        """
        SELECT p.proname, pg_get_userbyid(p.proowner), p.provolatile::text, p.prosecdef,
            has_function_privilege('tenure_app', p.oid, 'EXECUTE'),
            has_function_privilege('tenure_ops', p.oid, 'EXECUTE')
        FROM pg_proc AS p
        WHERE p.pronamespace = 'tenure'::regnamespace AND p.proname LIKE 'nearest_by_index_%'
        """
    ).fetchall()
    if not rows:
        pytest.skip("this Postgres has no pgvector 0.8")
    assert len(rows) == 5
    assert {row[1:] for row in rows} == {("tenure_owner", "s", False, True, False)}


def test_only_two_tables_have_no_tenant(catalogue: psycopg.Connection[TupleRow]) -> None:
    rows = catalogue.execute(
        """
        SELECT c.relname FROM pg_class AS c
        WHERE c.relnamespace = 'tenure'::regnamespace AND c.relkind IN ('r', 'p') AND NOT EXISTS (
            SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id')
        """
    ).fetchall()
    assert {name for (name,) in rows} == {"schema_migration", "cluster"}


def test_every_table_of_tenants_has_forced_row_security_with_both_policies(
    catalogue: psycopg.Connection[TupleRow],
) -> None:
    rows = catalogue.execute(
        """
        SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity,
            (SELECT array_agg(p.permissive ORDER BY p.permissive) FROM pg_policies AS p
             WHERE p.schemaname = 'tenure' AND p.tablename = c.relname AND p.roles = '{tenure_app}')
        FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
        WHERE c.relnamespace = 'tenure'::regnamespace AND c.relkind IN ('r', 'p')
        """
    ).fetchall()
    assert len(rows) > 5
    assert [row for row in rows if row[1:] != (True, ["PERMISSIVE", "RESTRICTIVE"])] == []


def test_the_tenant_leads_every_key_and_unique_index(catalogue: psycopg.Connection[TupleRow]) -> None:
    rows = catalogue.execute(
        """
        SELECT x.indexrelid::regclass::text, a.attname FROM pg_index AS x
        JOIN pg_class AS c ON c.oid = x.indrelid AND c.relnamespace = 'tenure'::regnamespace
            AND c.relkind IN ('r', 'p')
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = x.indkey[0]
        WHERE x.indisunique AND c.relname NOT IN ('schema_migration', 'cluster')
        """
    ).fetchall()
    assert rows
    assert [row for row in rows if row[1] != "tenant_id"] == []


def test_there_are_no_definer_functions_views_or_whole_table_grants(
    catalogue: psycopg.Connection[TupleRow],
) -> None:
    definers = "SELECT proname FROM pg_proc WHERE pronamespace = 'tenure'::regnamespace AND prosecdef"
    views = (
        "SELECT relname FROM pg_class WHERE relnamespace = 'tenure'::regnamespace AND relkind IN ('v', 'm')"
    )
    whole = """
        SELECT c.relname, a.privilege_type FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
        WHERE c.relnamespace = 'tenure'::regnamespace AND a.grantee <> c.relowner
          AND a.privilege_type IN ('TRUNCATE', 'REFERENCES', 'TRIGGER')"""
    for query in (definers, views, whole):
        assert catalogue.execute(query).fetchall() == []


def test_reads_are_stable_and_writes_volatile(catalogue: psycopg.Connection[TupleRow]) -> None:
    """A VOLATILE read could return the head of one moment with the body of the next."""
    rows = dict(
        catalogue.execute(
            "SELECT proname, provolatile::text FROM pg_proc WHERE pronamespace = 'tenure'::regnamespace"
        ).fetchall()
    )
    reads = {
        *("read_heads_1", "bodies_1", "list_heads_1", "channel_history_1", "list_threads_1", "find_key_1"),
        *("find_key_3", "read_heads_2", "chunks_1"),
        *("thread_bytes_1", "recount_usage_1"),
        *("read_heads_3", "list_heads_3", "channel_history_3", "list_threads_2"),
        *("read_items_2", "search_items_2", "nearest_items_2", "items_with_words_2", "list_namespaces_2"),
        *("item_index_2", "unembedded_items_2"),
        *("retention_1", "hidden_1", "is_hidden_1", "item_expired_1", "expired_threads_1", "expired_items_1"),
        *("lines_to_draw_1", "line_threads_1", "stored_items_1", "line_items_1"),
    }
    writes = {
        *("write_batch_1", "delete_thread_1", "delete_runs_1", "copy_thread_1", "prune_thread_1"),
        *("write_items_1", "touch_items_1", "key_used_1", "set_item_index_1", "put_vectors_1"),
        *("sweep_thread_1", "sweep_items_1", "move_line_1"),
        *("write_batch_3", "add_usage_1", "repair_usage_1", "expire_items_1", "drop_orphans_1"),
    }
    assert {name: rows[name] for name in reads} == dict.fromkeys(reads, "s")
    assert {name: rows[name] for name in writes} == dict.fromkeys(writes, "v")
