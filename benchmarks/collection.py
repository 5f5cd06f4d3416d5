"""Items with vectors, the exact answers to searches in them, and a fast way into a database.

Loading takes a short cut, the same for both systems: vectors are copied into a table of their own, from which
SQL makes the rows that puts would have made, and HNSW indexes are built when all are there. Putting a hundred
thousand items one by one, each into the index, would take longer than all that is measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, LiteralString, cast

import numpy as np
import psycopg
from psycopg import sql
from tenure_server.domain import Scope
from tenure_server.storage.postgres.items_namespaces import encoded
from tenure_server.storage.postgres.tenants import PostgresTenants

from benchmarks.stores import DIMS, EMBEDDER, Query

SMALL = 1000
"""Items of a small tenant."""
SHARES = 10
"""Namespaces that a tenant's items are spread over, and kinds that a filter chooses from."""
_PER_TOPIC = 100
_TOPICS_OF_SMALL = 20
_NOISE = 0.6
"""Length of what is added to the centre of a topic: two vectors of one have a cosine of about 0.73."""
_CHUNK = 10_000
_FLOAT4 = 700
"""Type of Postgres."""
_COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_ROW = np.dtype(
    [
        ("columns", ">i2"),
        ("tenant_size", ">i4"), ("tenant", ">i4"),
        ("number_size", ">i4"), ("number", ">i4"),
        ("array_size", ">i4"), ("dimensions", ">i4"), ("nulls", ">i4"), ("type", ">i4"), ("length", ">i4"),
        ("lower", ">i4"), ("elements", [("size", ">i4"), ("value", ">f4")], DIMS),
    ]
)  # fmt: skip
"""A row of Postgres' binary COPY format."""

_STAGE: LiteralString = """
CREATE UNLOGGED TABLE bench_vector (tenant int NOT NULL, number int NOT NULL, embedding real[] NOT NULL);
CREATE VIEW bench_item AS
SELECT
    v.tenant,
    v.number::text AS key,
    'part-' || v.number % 10 AS part,
    jsonb_build_object(
        'text', 'item ' || v.number || ' ' || repeat(md5(v.number::text), 6),
        'kind', 'kind-' || v.number / 10 % 10
    ) AS value,
    v.number,
    v.embedding
FROM bench_vector AS v;
CREATE TABLE bench_tenant (number int PRIMARY KEY, id uuid NOT NULL)
"""
_UNSTAGE: LiteralString = "DROP VIEW bench_item; DROP TABLE bench_vector, bench_tenant"
_INTO_POSTGRES: LiteralString = """
INSERT INTO store (prefix, key, value)
SELECT 'tenant-' || i.tenant || '.docs.' || i.part, i.key, i.value FROM bench_item AS i;
INSERT INTO store_vectors (prefix, key, field_name, embedding)
SELECT 'tenant-' || i.tenant || '.docs.' || i.part, i.key, 'text', i.embedding::vector FROM bench_item AS i
"""
_INTO_TENURE: LiteralString = """
INSERT INTO tenure.item_index (tenant_id, dims, embedder)
SELECT t.id, {dims}, {embedder} FROM bench_tenant AS t;
INSERT INTO tenure.item_namespace (tenant_id, namespace, position)
SELECT t.id, {docs} || i.part, min(i.number)
FROM bench_item AS i JOIN bench_tenant AS t ON t.number = i.tenant
GROUP BY t.id, i.part;
INSERT INTO tenure.item (tenant_id, namespace, key, place, value, unembedded, created_at, updated_at)
SELECT t.id, {docs} || i.part, i.key, i.number, i.value, false, now(), now()
FROM bench_item AS i JOIN bench_tenant AS t ON t.number = i.tenant;
INSERT INTO tenure.item_vector (tenant_id, namespace, key, n, path, dims, embedding)
SELECT t.id, {docs} || i.part, i.key, 1, 'text', {dims}, i.embedding
FROM bench_item AS i JOIN bench_tenant AS t ON t.number = i.tenant
"""
_HNSW: LiteralString = """
SELECT format('%I.%I', n.nspname, c.relname), pg_get_indexdef(c.oid)
FROM pg_class AS c JOIN pg_am AS a ON a.oid = c.relam JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE a.amname = 'hnsw'
"""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Collection:
    """Items of a large tenant, of small ones, or of both.

    They are about topics, which tenants share: much of what is near a small tenant's query is somebody
    else's. An item's namespace and kind have nothing to do with its topic.

    Attributes:
        vectors: A row of length 1 for each item; the row's number is the item's key.
        tenants: Number of the tenant of each item, in ascending order.
        centres: Of the topics.
        topics: Those of each tenant.
    """

    vectors: Array
    tenants: Array
    centres: Array
    topics: Sequence[Array]

    def queries(self, *, small: bool, count: int, limit: int, by: str, seed: int) -> list[Query]:
        """Return queries about topics of the tenants.

        Args:
            small: Of the small tenants in turn, else of the large one.
            count: How many.
            limit: How many items each should find.
            by: "" for all items, "kind" or "part" for a tenth of them.
            seed: Another one gives other queries.
        """
        chance = np.random.default_rng(seed)
        made = []
        for turn in range(count):
            tenant = 1 + turn % (len(self.topics) - 1) if small else 0
            vector = _near(chance, self.centres[chance.choice(self.topics[tenant])][None])[0]
            chosen = int(chance.integers(SHARES))
            first, last = np.searchsorted(self.tenants, [tenant, tenant + 1])
            numbers, vectors = np.arange(first, last), self.vectors[first:last]
            if by:
                matches = (numbers // (SHARES if by == "kind" else 1)) % SHARES == chosen
                numbers, vectors = numbers[matches], vectors[matches]
            order = np.argsort(-(vectors @ vector), kind="stable")[:limit]
            made.append(
                Query(
                    tenant,
                    f"query {by} {seed} {turn}",
                    vector.tolist(),
                    f"kind-{chosen}" if by == "kind" else None,
                    f"part-{chosen}" if by == "part" else None,
                    frozenset(str(number) for number in numbers[order]),
                )
            )
        return made


@lru_cache(maxsize=1)
def collection(large: int, tenants: int) -> Collection:
    """Return the items of a tenant with `large` items and of `tenants` with 1,000 each: always the same."""
    chance = np.random.default_rng(7)
    count = max((large + SMALL * tenants) // _PER_TOPIC, 1)
    centres = _unit(chance.standard_normal((count, DIMS), dtype=np.float32))
    everything = np.arange(len(centres))
    topics = [
        everything,
        *(chance.permutation(everything)[:_TOPICS_OF_SMALL] for _ in range(tenants)),
    ]
    sizes = [large, *([SMALL] * tenants)]
    of_topic = np.concatenate([chance.choice(known, size) for known, size in zip(topics, sizes, strict=True)])
    return Collection(
        _near(chance, centres[of_topic]), np.repeat(np.arange(len(sizes)), sizes), centres, topics
    )


def load_postgres(url: str, items: Collection) -> None:
    """Load items into the tables of PostgresStore, as those of the namespaces `tenant-N.docs.part-N`."""
    _load(url, items, sql.SQL(_INTO_POSTGRES))


def load_tenure(url: str, items: Collection) -> list[str]:
    """Load items into Tenure and return the tenants' keys, which may read."""

    async def create() -> list[tuple[Any, str]]:
        admin = PostgresTenants(url)
        made = []
        for number in range(len(items.topics)):
            tenant = await admin.create_tenant(f"bench-{number}")
            made.append((tenant, await admin.create_key(tenant, frozenset({Scope.READ}))))
        return made

    made = asyncio.run(create())
    statement = sql.SQL(_INTO_TENURE).format(
        dims=DIMS, embedder=sql.Literal(EMBEDDER), docs=sql.Literal(encoded(("docs", "")))
    )
    _load(url, items, statement, [tenant for tenant, _ in made])
    return [key for _, key in made]


def _load(
    url: str, items: Collection, statements: sql.SQL | sql.Composed, tenants: Sequence[Any] = ()
) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_STAGE)
        with connection.cursor() as cursor:
            with cursor.copy("COPY bench_vector FROM STDIN (FORMAT binary)") as copy:
                for part in _binary(items):
                    copy.write(part)
            cursor.executemany("INSERT INTO bench_tenant VALUES (%s, %s)", list(enumerate(tenants)))
        indexes = connection.execute(_HNSW).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        # Foreign keys are checked row by row; these rows hold them.
        connection.execute("SET session_replication_role = replica")
        connection.execute(statements)
        # An index that does not fit is built several times slower.
        connection.execute("SET maintenance_work_mem = '1GB'")
        for _, definition in indexes:
            connection.execute(definition)
        connection.execute(_UNSTAGE)


def _binary(items: Collection) -> Iterator[bytes]:
    yield _COPY_HEAD
    for start in range(0, len(items.vectors), _CHUNK):
        vectors = items.vectors[start : start + _CHUNK]
        rows = np.zeros(len(vectors), _ROW)
        rows["columns"] = 3
        rows["tenant_size"] = rows["number_size"] = 4
        rows["tenant"] = items.tenants[start : start + _CHUNK]
        rows["number"] = np.arange(start, start + len(vectors))
        rows["array_size"] = 20 + 8 * DIMS
        rows["dimensions"] = rows["lower"] = 1
        rows["type"], rows["length"] = _FLOAT4, DIMS
        rows["elements"]["size"] = 4
        rows["elements"]["value"] = vectors
        yield rows.tobytes()
    yield b"\xff\xff"


def _near(chance: np.random.Generator, centres: Array) -> Array:
    noise = chance.standard_normal(centres.shape, dtype=np.float32)
    return _unit(centres + np.float32(_NOISE / DIMS**0.5) * noise)


def _unit(vectors: Array) -> Array:
    return cast("Array", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
