"""Statements are prepared, and served all the same where a pooler loses what was prepared."""

from __future__ import annotations

import asyncio

import pytest
from tenure_server.storage.postgres.pool import Database

from tests.harness.databases import Database as Migrated


async def test_a_hot_statement_is_prepared_once_for_each_connection(database: Migrated) -> None:
    pool = await Database.open(database.app_url, max_size=1)
    try:
        for _ in range(3):
            await pool.ready()
        async with pool._connection(None) as connection:
            rows = await (await connection.execute("SELECT statement FROM pg_prepared_statements")).fetchall()
        assert len([row for row in rows if "schema_migration" in row[0]]) == 1
    finally:
        await pool.close()


async def test_what_was_prepared_may_be_gone(database: Migrated, caplog: pytest.LogCaptureFixture) -> None:
    pool = await Database.open(database.app_url, max_size=1)
    try:
        await pool.ready()
        async with pool._connection(None) as connection:
            # As behind a pooler that gives each transaction another backend; psycopg would notice it bare.
            await connection.execute("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$")
        await pool.ready()
        await asyncio.gather(*(pool.ready() for _ in range(8)))
        assert [record.message for record in caplog.records if "pooler" in record.message] != []
    finally:
        await pool.close()
