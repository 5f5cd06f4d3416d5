-- Long-term memory: items in namespaces, their vectors, and what finds them; see store.proto. For the rest
-- see 0001_schema.sql.
--
-- A namespace is one text: its labels with E'\x01\x01' between them, and E'\x01\x02' for E'\x01' within a label
-- (items_namespaces.py of the server does the same). Such texts sort as lists of labels do, and what lies in or
-- below a namespace is one range of them. An array would say it more plainly; but array comparison is not
-- leakproof, so that row level security keeps it out of index conditions, and each look-up would read the tenant.
--
-- The same goes for full text search: no GIN index could be used by tenure_app.
--
-- Whoever writes items holds `items_lock_1` of the tenant, shared; whoever needs them to stand still holds it
-- alone: a change of the index, and the sweeper when it removes namespaces. Then come operations, namespaces and
-- items, each in the order of their keys. Vectors belong to their item and are touched under its lock.

-- One number for each batch of writes: places of its namespaces and items count from there.
CREATE SEQUENCE tenure.item_place INCREMENT BY 4096;

-- `position` is the namespace's place in the order of searches.
CREATE TABLE tenure.item_namespace (
    tenant_id uuid NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (tenant_id, namespace)
);

-- `verbatim` is what was put, where jsonb would give back another Python value (1e5 as 100000). `index_paths` is
-- empty for items that no query finds, null for those embedded by the index's own fields.
CREATE TABLE tenure.item (
    tenant_id uuid NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    place bigint NOT NULL,
    value jsonb NOT NULL,
    verbatim text,
    index_paths text[],
    unembedded boolean NOT NULL,
    keywords tsvector,
    ttl_seconds double precision,
    expires_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, namespace, key)
) WITH (fillfactor = 90);
-- Its condition is true for every row: only statements that repeat it use the index, see 0001_schema.sql.
CREATE INDEX item_by_place ON tenure.item (tenant_id, namespace, place) WHERE place >= 0;
CREATE INDEX item_by_expiry ON tenure.item (expires_at) WHERE expires_at IS NOT NULL;

-- Up to 1,800 numbers lie in the row itself: an exact search reads them all.
CREATE TABLE tenure.item_vector (
    tenant_id uuid NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    n int NOT NULL,
    path text NOT NULL,
    dims int NOT NULL,
    embedding real[] NOT NULL,
    PRIMARY KEY (tenant_id, namespace, key, n)
) WITH (toast_tuple_target = 8160);
ALTER TABLE tenure.item_vector ALTER COLUMN embedding SET STORAGE EXTERNAL;

-- With what a tenant's vectors are made; no row as long as there have been none.
CREATE TABLE tenure.item_index (
    tenant_id uuid PRIMARY KEY,
    dims int NOT NULL,
    embedder text NOT NULL
);

DO $$
DECLARE
    v_table text;
    v_own constant text := 'tenant_id = (SELECT nullif(current_setting(''app.tenant'', true), '''')::uuid)';
BEGIN
    FOREACH v_table IN ARRAY ARRAY['item_namespace', 'item', 'item_vector', 'item_index'] LOOP
        EXECUTE format('ALTER TABLE tenure.%I ENABLE ROW LEVEL SECURITY', v_table);
        EXECUTE format('ALTER TABLE tenure.%I FORCE ROW LEVEL SECURITY', v_table);
        EXECUTE format(
            'CREATE POLICY own_tenant ON tenure.%I AS PERMISSIVE FOR ALL TO tenure_app '
            'USING (%s) WITH CHECK (%s)', v_table, v_own, v_own);
        EXECUTE format(
            'CREATE POLICY only_own_tenant ON tenure.%I AS RESTRICTIVE FOR ALL TO tenure_app '
            'USING (%s) WITH CHECK (%s)', v_table, v_own, v_own);
        EXECUTE format(
            'CREATE POLICY every_tenant ON tenure.%I AS PERMISSIVE FOR ALL TO tenure_ops '
            'USING (true) WITH CHECK (true)', v_table);
    END LOOP;
END
$$;

GRANT USAGE ON SEQUENCE tenure.item_place TO tenure_app;
GRANT SELECT, INSERT ON tenure.item_namespace TO tenure_app;
GRANT SELECT, INSERT, DELETE, UPDATE (
    place, value, verbatim, index_paths, unembedded, keywords, ttl_seconds, expires_at, created_at, updated_at
) ON tenure.item TO tenure_app;
GRANT SELECT, INSERT, DELETE ON tenure.item_vector TO tenure_app;
GRANT SELECT, INSERT, UPDATE (dims, embedder) ON tenure.item_index TO tenure_app;

-- Locking an item needs UPDATE on one of its columns.
GRANT SELECT (tenant_id, namespace), DELETE ON tenure.item_namespace TO tenure_ops;
GRANT SELECT (tenant_id, namespace, key, expires_at), DELETE, UPDATE (expires_at) ON tenure.item TO tenure_ops;
GRANT SELECT (tenant_id, namespace, key), DELETE ON tenure.item_vector TO tenure_ops;

-- The key of the advisory lock of a tenant's items.
CREATE FUNCTION tenure.items_lock_1(p_tenant uuid) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
SELECT hashtextextended('tenure.item ' || p_tenant::text, 0)
$$;

-- What of a text can be found by its words. Postgres keeps at most 1 MiB of words.
CREATE FUNCTION tenure.item_keywords_1(p_text text) RETURNS tsvector
LANGUAGE sql IMMUTABLE STRICT AS $$
SELECT to_tsvector('english', left(p_text, 262144))
$$;

-- Renews the time of items that were read; what somebody else holds is left to them.
CREATE FUNCTION tenure.touch_items_1(p_tenant uuid, p_namespace text[], p_key text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    WITH free AS MATERIALIZED (
        SELECT l.namespace, l.key
        FROM unnest(p_namespace, p_key) AS w (namespace, key)
        CROSS JOIN LATERAL (
            SELECT s.namespace, s.key
            FROM tenure.item AS s
            WHERE s.namespace = w.namespace
                AND s.key = w.key
                AND s.tenant_id = p_tenant -- wall:predicate
                AND s.expires_at > now()
            FOR NO KEY UPDATE SKIP LOCKED
        ) AS l
    )
    UPDATE tenure.item AS i
    SET expires_at = now() + make_interval(secs => i.ttl_seconds)
    FROM free AS f
    WHERE i.namespace = f.namespace
        AND i.key = f.key
        AND i.tenant_id = p_tenant -- wall:predicate
        AND i.ttl_seconds IS NOT NULL;
END
$$;

-- Cosine similarity where there is no pgvector.
CREATE FUNCTION tenure.cosine_1(p_one real[], p_other real[]) RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT AS $$
SELECT
    sum(v.one::double precision * v.other)
    / nullif(sqrt(sum(v.one::double precision * v.one)) * sqrt(sum(v.other::double precision * v.other)), 0)
FROM unnest(p_one, p_other) AS v (one, other)
$$;

-- Whether labels begin, or end, with those of a path, in which "*" stands for any one.
CREATE FUNCTION tenure.labels_match_1(p_labels text[], p_path text[], p_at_end boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
SELECT
    cardinality(p_path) <= cardinality(p_labels)
    AND NOT EXISTS (
        SELECT
        FROM unnest(p_path) WITH ORDINALITY AS w (label, n)
        WHERE w.label <> '*' AND w.label <> p_labels[
            w.n + CASE WHEN p_at_end THEN cardinality(p_labels) - cardinality(p_path) ELSE 0 END
        ]
    )
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tenure FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tenure TO tenure_app;
GRANT EXECUTE ON FUNCTION tenure.items_lock_1(uuid) TO tenure_ops;
