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

-- Makes the HNSW indexes that are missing, if pgvector can be had: also some time after this file was applied.
-- Returns how many it made. They hold all tenants' vectors of one length.
CREATE FUNCTION tenure.ensure_vector_indexes_1() RETURNS int
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_schema text;
    v_dims int;
    v_made int := 0;
BEGIN
    SELECT n.nspname INTO v_schema
    FROM pg_catalog.pg_extension AS e
    JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
    WHERE e.extname = 'vector'
        AND string_to_array(substring(e.extversion FROM '^\d+\.\d+'), '.')::int[] >= '{0,8}'
        AND pg_catalog.has_schema_privilege(n.oid, 'USAGE');
    IF v_schema IS NULL THEN
        RETURN 0;
    END IF;
    FOREACH v_dims IN ARRAY ARRAY[384, 512, 768, 1024, 1536] LOOP
        IF to_regclass(format('tenure.item_vector_hnsw_%s', v_dims)) IS NULL THEN
            EXECUTE format(
                'CREATE INDEX item_vector_hnsw_%1$s ON tenure.item_vector '
                'USING hnsw ((embedding::%2$I.vector(%1$s)) %2$I.vector_cosine_ops) WHERE dims = %1$s',
                v_dims, v_schema);
            v_made := v_made + 1;
        END IF;
    END LOOP;
    RETURN v_made;
END
$$;

-- What of a text can be found by its words. Postgres keeps at most 1 MiB of words.
CREATE FUNCTION tenure.item_keywords_1(p_text text) RETURNS tsvector
LANGUAGE sql IMMUTABLE STRICT AS $$
SELECT to_tsvector('english', left(p_text, 262144))
$$;

-- Applies groups of writes.
--
-- Groups and writes count from 1. No two groups have the same operation, within a group no key is written
-- twice, and no key is written after another group has deleted it (the caller sees to all three). Of several
-- writes to one key the last counts, its place is that of the first; `p_distinct` = there are none such.
-- `p_group_index` is 1 for groups with vectors, which are all made with one index. `p_flags` of a write: 1 =
-- jsonb would not give its value back, 2 = it has vectors, 4 = it is a put and no delete. `p_paths` are JSON
-- arrays; they, `p_ttl` and `p_text` are empty if all would be null.
--
-- `mismatched` names the groups whose operation came before with another digest, `refused` those whose vectors
-- are made with another index than the stored one, which is in `dims` and `embedder`; neither is applied.
CREATE FUNCTION tenure.write_items_1(
    p_tenant uuid,
    p_timeout_ms int,
    p_operation bytea[],
    p_digest bytea[],
    p_group_index int[],
    p_dims int,
    p_embedder text,
    p_group int[],
    p_namespace text[],
    p_key text[],
    p_flags int[],
    p_value text[],
    p_ttl text[],
    p_paths text[],
    p_text text[],
    p_distinct boolean,
    p_deletes boolean,
    p_vector_write int[],
    p_vector_path text[],
    p_embeddings real[],
    OUT mismatched int[],
    OUT refused int[],
    OUT dims int,
    OUT embedder text
)
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_refuses boolean := false;
    v_has_index boolean;
    v_new bytea[];
    v_claimed int;
    v_known int;
    v_accepted int[];
    v_number int[];
    v_first int[];
    v_base bigint;
    v_now timestamptz;
    v_dims int;
    v_embedder text;
BEGIN
    PERFORM
        set_config('app.tenant', p_tenant::text, true),
        set_config('lock_timeout', p_timeout_ms::text, true);
    PERFORM pg_advisory_xact_lock_shared(tenure.items_lock_1(p_tenant));

    SELECT x.dims, x.embedder INTO v_dims, v_embedder
    FROM tenure.item_index AS x
    WHERE true
        AND x.tenant_id = p_tenant -- wall:predicate
    LIMIT 1;
    v_has_index := FOUND;
    IF p_dims > 0 AND NOT v_has_index THEN
        INSERT INTO tenure.item_index AS x (tenant_id, dims, embedder) VALUES (p_tenant, p_dims, p_embedder)
        ON CONFLICT DO NOTHING;
        SELECT x.dims, x.embedder INTO v_dims, v_embedder
        FROM tenure.item_index AS x
        WHERE true
            AND x.tenant_id = p_tenant -- wall:predicate
        LIMIT 1;
        v_has_index := true;
    END IF;
    IF p_dims > 0 THEN
        v_refuses := (v_dims, v_embedder COLLATE "C") <> (p_dims, p_embedder);
        dims := v_dims;
        embedder := v_embedder;
    END IF;

    WITH claimed AS (
        INSERT INTO tenure.operation AS o (tenant_id, operation_id, part, request_digest, result)
        SELECT
            p_tenant, g.operation, '', g.digest,
            CASE WHEN v_refuses AND g.indexed = 1 THEN 'refused' ELSE 'ok' END
        FROM unnest(p_operation, p_digest, p_group_index) AS g (operation, digest, indexed)
        ORDER BY g.operation
        ON CONFLICT DO NOTHING
        RETURNING o.operation_id, o.result
    )
    SELECT array_agg(c.operation_id) FILTER (WHERE c.result = 'ok'), count(*)
    INTO v_new, v_claimed
    FROM claimed AS c;
    IF v_claimed < cardinality(p_operation) OR v_refuses THEN
        SELECT
            array_agg(g.number) FILTER (WHERE o.request_digest <> g.digest),
            array_agg(g.number) FILTER (WHERE o.request_digest = g.digest AND o.result = 'refused'),
            coalesce(array_agg(g.number) FILTER (WHERE g.operation = ANY (v_new)), '{}'),
            count(*)
        INTO mismatched, refused, v_accepted, v_known
        FROM unnest(p_operation, p_digest) WITH ORDINALITY AS g (operation, digest, number)
        CROSS JOIN LATERAL (
            SELECT p.request_digest, p.result
            FROM tenure.operation AS p
            WHERE p.operation_id = g.operation
                AND p.tenant_id = p_tenant -- wall:predicate
                AND p.part = ''
            LIMIT 1
        ) AS o;
        IF v_known < cardinality(p_operation) THEN
            -- The sweeper took one in between.
            RAISE EXCEPTION 'an operation is forgotten just now' USING ERRCODE = '40001';
        END IF;
        IF refused IS NOT NULL AND dims IS NULL THEN
            dims := coalesce(v_dims, 0);
            embedder := coalesce(v_embedder, '');
        END IF;
        IF v_accepted = '{}' THEN
            RETURN;
        END IF;
    END IF;
    IF cardinality(p_group) = 0 THEN
        RETURN;
    END IF;

    SELECT array_agg(n) INTO v_number FROM generate_series(1, cardinality(p_group)) AS n;
    v_first := v_number;
    IF v_accepted IS NOT NULL OR NOT p_distinct THEN
        SELECT
            array_agg(l.namespace), array_agg(l.key), array_agg(l.flags), array_agg(l.value), array_agg(l.ttl),
            array_agg(l.paths), array_agg(l.text), array_agg(l.number), array_agg(l.first)
        INTO p_namespace, p_key, p_flags, p_value, p_ttl, p_paths, p_text, v_number, v_first
        FROM (
            SELECT DISTINCT ON (w.namespace COLLATE "C", w.key COLLATE "C")
                w.namespace, w.key, w.flags, w.value, w.ttl, w.paths, w.text, w.number,
                min(w.number) OVER (PARTITION BY w.namespace COLLATE "C", w.key COLLATE "C") AS first
            FROM unnest(p_group, p_namespace, p_key, p_flags, p_value, p_ttl, p_paths, p_text)
                WITH ORDINALITY AS w (of_group, namespace, key, flags, value, ttl, paths, text, number)
            WHERE v_accepted IS NULL OR w.of_group = ANY (v_accepted)
            ORDER BY w.namespace COLLATE "C", w.key COLLATE "C", w.number DESC
        ) AS l;
    END IF;
    v_base := nextval('tenure.item_place');
    v_now := clock_timestamp();

    INSERT INTO tenure.item_namespace AS s (tenant_id, namespace, position)
    SELECT p_tenant, w.namespace, v_base + min(w.first)
    FROM unnest(p_namespace, p_flags, v_first) AS w (namespace, flags, first)
    WHERE w.flags & 4 = 4
    GROUP BY w.namespace
    ORDER BY w.namespace COLLATE "C"
    ON CONFLICT DO NOTHING;

    -- A delete takes its row's lock here, in turn, and leaves what it finds; or a row that goes below.
    INSERT INTO tenure.item AS i (
        tenant_id, namespace, key, place, value, verbatim, index_paths, unembedded, keywords, ttl_seconds,
        expires_at, created_at, updated_at
    )
    SELECT
        p_tenant,
        l.namespace,
        l.key,
        CASE WHEN l.flags & 4 = 4 THEN v_base + l.first ELSE 0 END,
        coalesce(l.value, 'null')::jsonb,
        CASE WHEN l.flags & 1 = 1 THEN l.value END,
        CASE WHEN l.paths IS NOT NULL THEN ARRAY(SELECT jsonb_array_elements_text(l.paths::jsonb)) END,
        l.flags & 6 = 4 AND coalesce(l.paths <> '[]', true),
        CASE WHEN l.text IS NOT NULL THEN tenure.item_keywords_1(l.text) END,
        l.ttl::double precision,
        CASE WHEN l.ttl IS NOT NULL THEN v_now + make_interval(secs => l.ttl::double precision) END,
        v_now,
        v_now
    FROM unnest(p_namespace, p_key, p_flags, p_value, p_ttl, p_paths, p_text, v_first)
        AS l (namespace, key, flags, value, ttl, paths, text, first)
    ORDER BY l.namespace COLLATE "C", l.key COLLATE "C"
    ON CONFLICT (tenant_id, namespace, key) DO UPDATE SET
        place = CASE WHEN i.expires_at <= v_now THEN excluded.place ELSE i.place END,
        value = excluded.value,
        verbatim = excluded.verbatim,
        index_paths = excluded.index_paths,
        unembedded = excluded.unembedded,
        keywords = excluded.keywords,
        ttl_seconds = excluded.ttl_seconds,
        expires_at = excluded.expires_at,
        created_at = CASE WHEN i.expires_at <= v_now THEN excluded.created_at ELSE i.created_at END,
        -- Tells versions of an item apart, whatever clocks do.
        updated_at = greatest(excluded.updated_at, i.updated_at + interval '1 microsecond')
    WHERE excluded.place > 0;

    IF p_deletes THEN
        DELETE FROM tenure.item AS i
        USING unnest(p_namespace, p_key, p_flags) AS w (namespace, key, flags)
        WHERE w.flags & 4 = 0
            AND i.tenant_id = p_tenant -- wall:predicate
            AND i.namespace = w.namespace
            AND i.key = w.key;
    END IF;
    IF NOT v_has_index THEN
        -- Another write may have been the first with vectors meanwhile, and to one of these keys.
        SELECT true INTO v_has_index
        FROM tenure.item_index AS x
        WHERE true
            AND x.tenant_id = p_tenant -- wall:predicate
        LIMIT 1;
    END IF;
    IF v_has_index THEN
        DELETE FROM tenure.item_vector AS v
        USING unnest(p_namespace, p_key) AS w (namespace, key)
        WHERE v.namespace = w.namespace
            AND v.tenant_id = p_tenant -- wall:predicate
            AND v.key = w.key;
    END IF;
    IF cardinality(p_vector_write) > 0 THEN
        -- The numbers are copied, or else each slice would copy them all.
        WITH flat AS MATERIALIZED (SELECT p_embeddings || '{}'::real[] AS numbers)
        INSERT INTO tenure.item_vector (tenant_id, namespace, key, n, path, dims, embedding)
        SELECT
            p_tenant, w.namespace, w.key, e.number, e.path, p_dims,
            f.numbers[(e.number - 1) * p_dims + 1:e.number * p_dims]
        FROM unnest(p_vector_write, p_vector_path) WITH ORDINALITY AS e (of_write, path, number)
        JOIN unnest(p_namespace, p_key, v_number) AS w (namespace, key, number) ON w.number = e.of_write
        CROSS JOIN flat AS f;
    END IF;
END
$$;

-- Returns items by their keys, from one snapshot; `position` counts from 1. Once the values before it come to
-- more than p_max_bytes, an item comes without its value.
CREATE FUNCTION tenure.read_items_1(p_tenant uuid, p_namespace text[], p_key text[], p_max_bytes bigint)
RETURNS TABLE (
    "position" bigint,
    value text,
    created_at timestamptz,
    updated_at timestamptz,
    expires boolean
)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_row record;
    v_bytes bigint := 0;
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    FOR v_row IN
        SELECT w.position, i.value, i.verbatim, i.created_at, i.updated_at, i.expires
        FROM unnest(p_namespace, p_key) WITH ORDINALITY AS w (namespace, key, position)
        CROSS JOIN LATERAL (
            SELECT
                s.value, s.verbatim, s.created_at, s.updated_at, s.expires_at IS NOT NULL AS expires
            FROM tenure.item AS s
            WHERE s.namespace = w.namespace
                AND s.key = w.key
                AND s.tenant_id = p_tenant -- wall:predicate
                AND (s.expires_at IS NULL OR s.expires_at > now())
            LIMIT 1
        ) AS i
    LOOP
        "position" := v_row.position;
        created_at := v_row.created_at;
        updated_at := v_row.updated_at;
        expires := v_row.expires;
        -- It becomes text only when its turn comes.
        value := CASE WHEN v_bytes <= p_max_bytes THEN coalesce(v_row.verbatim, v_row.value::text) END;
        v_bytes := v_bytes + coalesce(octet_length(value), 0);
        RETURN NEXT;
    END LOOP;
END
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

-- Returns the p_count items that are nearest to a vector, in the ranges p_from <= namespace < p_to.
--
-- An index is asked only where there are many vectors, and then whatever the planner thinks. What is filtered must
-- not cost recall: if the index gives fewer than there may be, all are compared. Where there are few, OFFSET 0
-- keeps the planner from reading the whole tenant: of a range that it does not know it expects a ninth of all.
CREATE FUNCTION tenure.nearest_items_1(
    p_tenant uuid,
    p_from text[],
    p_to text[],
    p_path text,
    p_vars text,
    p_vector real[],
    p_count int
)
RETURNS TABLE (namespace text, key text, score double precision)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    v_dims constant int := cardinality(p_vector);
    v_schema text;
    v_iterates boolean;
    v_many boolean;
    v_wanted int := p_count * 2;
    v_rows int;
    v_namespaces text[];
    v_keys text[];
    v_scores double precision[];
    v_of_item constant text := $q$
        SELECT true
        FROM tenure.item AS i
        WHERE i.namespace = v.namespace
            AND i.key = v.key
            AND i.tenant_id = $1 -- wall:predicate
            AND (i.expires_at IS NULL OR i.expires_at > now())
            AND ($4 IS NULL OR jsonb_path_match(i.value, $4::jsonpath, $5::jsonb, true))
        LIMIT 1
    $q$;
    v_score text := 'tenure.cosine_1(v.embedding, $6)';
BEGIN
    SELECT
        n.nspname,
        string_to_array(substring(e.extversion FROM '^\d+\.\d+'), '.')::int[] >= '{0,8}'
        AND to_regclass(format('tenure.item_vector_hnsw_%s', v_dims)) IS NOT NULL
    INTO v_schema, v_iterates
    FROM pg_catalog.pg_extension AS e
    JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
    WHERE e.extname = 'vector' AND pg_catalog.has_schema_privilege(n.oid, 'USAGE');
    IF v_schema IS NOT NULL THEN
        v_score := format(
            '1 - (v.embedding::%1$I.vector OPERATOR(%1$I.<=>) $6::%1$I.vector)', v_schema);
    END IF;

    SELECT count(*) > 2000 INTO v_many
    FROM (
        SELECT
        FROM unnest(p_from, p_to) AS r (first, after)
        CROSS JOIN LATERAL (
            SELECT
            FROM tenure.item_vector AS v
            WHERE v.namespace >= r.first
                AND v.namespace < r.after
                AND v.tenant_id = p_tenant -- wall:predicate
            OFFSET 0
        ) AS w
        LIMIT 2001
    ) AS c;
    IF v_many AND v_iterates AND p_count <= 1000 THEN
        PERFORM
            set_config('hnsw.iterative_scan', 'strict_order', true),
            set_config('hnsw.ef_search', least(greatest(100, p_count * 2), 1000)::text, true),
            set_config('enable_sort', 'off', true);
        LOOP
            EXECUTE format(
                $q$
                WITH near AS MATERIALIZED (
                    SELECT v.namespace, v.key, v.embedding::%1$I.vector(%2$s) OPERATOR(%1$I.<=>) $6::%1$I.vector(%2$s) AS d
                    FROM tenure.item_vector AS v
                    WHERE v.dims = %2$s
                        AND v.tenant_id = $1 -- wall:predicate
                        AND EXISTS (
                            SELECT
                            FROM unnest($2, $3) AS r (first, after)
                            WHERE v.namespace >= r.first AND v.namespace < r.after
                            OFFSET 0
                        )
                        AND (%3$s)
                    ORDER BY v.embedding::%1$I.vector(%2$s) OPERATOR(%1$I.<=>) $6::%1$I.vector(%2$s)
                    LIMIT $7
                ), best AS (
                    SELECT n.namespace, n.key, min(n.d) AS d FROM near AS n GROUP BY n.namespace, n.key
                )
                SELECT
                    array_agg(b.namespace), array_agg(b.key), array_agg(1 - b.d),
                    (SELECT count(*) FROM near)
                FROM best AS b
                $q$,
                v_schema, v_dims, v_of_item)
            INTO v_namespaces, v_keys, v_scores, v_rows
            USING p_tenant, p_from, p_to, p_path, p_vars, p_vector, v_wanted;
            EXIT WHEN v_rows < v_wanted OR cardinality(v_keys) >= p_count;
            v_wanted := v_wanted * 4;
        END LOOP;
        PERFORM set_config('enable_sort', 'on', true);
        IF cardinality(v_keys) >= p_count THEN
            RETURN QUERY
            SELECT b.namespace, b.key, b.score
            FROM unnest(v_namespaces, v_keys, v_scores) AS b (namespace, key, score)
            ORDER BY b.score DESC
            LIMIT p_count;
            RETURN;
        END IF;
    END IF;

    RETURN QUERY EXECUTE format(
        $q$
        SELECT b.namespace, b.key, b.score
        FROM (
            SELECT v.namespace, v.key, v.place, max(coalesce(nullif(%s, 'NaN'), 0)) AS score
            FROM unnest($2, $3) AS r (first, after)
            CROSS JOIN LATERAL (
                SELECT i.namespace, i.key, i.place, e.embedding
                FROM tenure.item AS i
                JOIN tenure.item_vector AS e ON e.namespace = i.namespace AND e.key = i.key
                WHERE i.namespace >= r.first
                    AND i.namespace < r.after
                    AND e.dims = cardinality($6)
                    AND e.tenant_id = $1 -- wall:predicate
                    AND i.tenant_id = $1 -- wall:predicate
                    AND (i.expires_at IS NULL OR i.expires_at > now())
                    AND ($4 IS NULL OR jsonb_path_match(i.value, $4::jsonpath, $5::jsonb, true))
                %s
            ) AS v
            GROUP BY v.namespace, v.key, v.place
        ) AS b
        JOIN tenure.item_namespace AS s ON s.namespace = b.namespace
        WHERE true
            AND s.tenant_id = $1 -- wall:predicate
        ORDER BY b.score DESC, s.position, b.place
        LIMIT $7
        $q$,
        v_score, CASE WHEN v_many THEN '' ELSE 'OFFSET 0' END)
    USING p_tenant, p_from, p_to, p_path, p_vars, p_vector, p_count;
END
$$;

-- Returns the p_count items that match words best.
CREATE FUNCTION tenure.items_with_words_1(
    p_tenant uuid,
    p_from text[],
    p_to text[],
    p_path text,
    p_vars text,
    p_words text,
    p_count int
)
RETURNS TABLE (namespace text, key text, score double precision)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    v_query constant tsquery := websearch_to_tsquery('english', p_words);
BEGIN
    RETURN QUERY
    SELECT i.namespace, i.key, i.rank::double precision
    FROM (
        -- A join would read the whole tenant: of a range that it does not know it expects a ninth of all items.
        SELECT w.namespace, w.key, w.place, ts_rank_cd(w.keywords, v_query) AS rank
        FROM unnest(p_from, p_to) AS r (first, after)
        CROSS JOIN LATERAL (
            SELECT s.namespace, s.key, s.place, s.keywords
            FROM tenure.item AS s
            WHERE s.namespace >= r.first
                AND s.namespace < r.after
                AND s.tenant_id = p_tenant -- wall:predicate
                AND s.keywords @@ v_query
                AND (s.expires_at IS NULL OR s.expires_at > now())
                AND (p_path IS NULL OR jsonb_path_match(s.value, p_path::jsonpath, p_vars::jsonb, true))
            OFFSET 0
        ) AS w
    ) AS i
    CROSS JOIN LATERAL (
        SELECT t.position
        FROM tenure.item_namespace AS t
        WHERE t.namespace = i.namespace
            AND t.tenant_id = p_tenant -- wall:predicate
        LIMIT 1
    ) AS o
    ORDER BY i.rank DESC, o.position, i.place
    LIMIT p_count;
END
$$;

-- Finds items in the ranges p_from <= namespace < p_to, which do not overlap, in the order of the answer.
--
-- p_mode is none, semantic, keyword or hybrid; by meaning and by both, items without a score come after the
-- others. p_dims and p_embedder say with what the vector was made, 0 for none; if the tenant's index is another
-- one, the only row has no key, and the index as (score, value).
--
-- Values of more than p_room bytes together are not returned: the last row has neither key nor value then, and as
-- score how many bytes there are up to there. So each value becomes text only when it is its turn.
CREATE FUNCTION tenure.search_items_1(
    p_tenant uuid,
    p_from text[],
    p_to text[],
    p_path text,
    p_vars text,
    p_limit int,
    p_offset int,
    p_mode text,
    p_vector real[],
    p_words text,
    p_dims int,
    p_embedder text,
    p_room bigint
)
RETURNS TABLE (
    namespace text,
    key text,
    value text,
    created_at timestamptz,
    updated_at timestamptz,
    expires boolean,
    score double precision
)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_namespaces text[];
    v_keys text[];
    v_scores double precision[];
    v_depth constant int := least(greatest(100, 5 * (p_offset::bigint + p_limit)), 2147483647)::int;
    v_count constant int := least(p_offset::bigint + p_limit, 2147483647)::int;
    v_found int;
    v_skip bigint := p_offset;
    v_left int := p_limit;
    v_there bigint;
    v_words constant tsquery := CASE WHEN p_mode = 'hybrid' THEN websearch_to_tsquery('english', p_words) END;
    v_bytes bigint := 0;
    v_row record;
    v_item record;
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    IF p_dims > 0 THEN
        SELECT x.dims, x.embedder INTO v_row
        FROM tenure.item_index AS x
        WHERE true
            AND x.tenant_id = p_tenant -- wall:predicate
        LIMIT 1;
        IF FOUND AND (v_row.dims, v_row.embedder COLLATE "C") <> (p_dims, p_embedder) THEN
            RETURN QUERY SELECT
                NULL::text, NULL::text, v_row.embedder, NULL::timestamptz, NULL::timestamptz, false,
                v_row.dims::double precision;
            RETURN;
        END IF;
    END IF;

    IF p_mode <> 'none' THEN
        IF p_mode = 'semantic' THEN
            SELECT array_agg(f.namespace), array_agg(f.key), array_agg(f.score)
            INTO v_namespaces, v_keys, v_scores
            FROM tenure.nearest_items_1(p_tenant, p_from, p_to, p_path, p_vars, p_vector, v_count) AS f;
        ELSIF p_mode = 'keyword' THEN
            SELECT array_agg(f.namespace), array_agg(f.key), array_agg(f.score)
            INTO v_namespaces, v_keys, v_scores
            FROM tenure.items_with_words_1(p_tenant, p_from, p_to, p_path, p_vars, p_words, v_count) AS f;
        ELSE
            SELECT array_agg(m.namespace), array_agg(m.key), array_agg(m.score)
            INTO v_namespaces, v_keys, v_scores
            FROM (
                SELECT f.namespace, f.key, f.score
                FROM (
                    SELECT b.namespace, b.key, sum(1.0::double precision / (60 + b.rank)) AS score
                    FROM (
                        SELECT n.namespace, n.key, n.rank
                        FROM tenure.nearest_items_1(p_tenant, p_from, p_to, p_path, p_vars, p_vector, v_depth)
                            WITH ORDINALITY AS n (namespace, key, score, rank)
                        UNION ALL
                        SELECT w.namespace, w.key, w.rank
                        FROM tenure.items_with_words_1(p_tenant, p_from, p_to, p_path, p_vars, p_words, v_depth)
                            WITH ORDINALITY AS w (namespace, key, score, rank)
                    ) AS b
                    GROUP BY b.namespace, b.key
                ) AS f
                CROSS JOIN LATERAL (
                    SELECT s.position, i.place
                    FROM tenure.item AS i, tenure.item_namespace AS s
                    WHERE i.namespace = f.namespace
                        AND i.key = f.key
                        AND s.namespace = f.namespace
                        AND i.tenant_id = p_tenant -- wall:predicate
                        AND s.tenant_id = p_tenant -- wall:predicate
                    LIMIT 1
                ) AS o
                ORDER BY f.score DESC, o.position, o.place
            ) AS m;
        END IF;
        v_found := coalesce(cardinality(v_keys), 0);
        FOR v_item IN
            SELECT f.namespace, f.key, f.score, i.value, i.verbatim, i.created_at, i.updated_at, i.expires_at
            FROM unnest(v_namespaces, v_keys, v_scores) WITH ORDINALITY AS f (namespace, key, score, rank)
            CROSS JOIN LATERAL (
                SELECT s.value, s.verbatim, s.created_at, s.updated_at, s.expires_at
                FROM tenure.item AS s
                WHERE s.namespace = f.namespace
                    AND s.key = f.key
                    AND s.tenant_id = p_tenant -- wall:predicate
                LIMIT 1
            ) AS i
            WHERE f.rank > p_offset AND f.rank <= p_offset::bigint + p_limit
            ORDER BY f.rank
        LOOP
            value := coalesce(v_item.verbatim, v_item.value::text);
            v_bytes := v_bytes + octet_length(value);
            IF v_bytes > p_room THEN
                RETURN QUERY SELECT
                    NULL::text, NULL::text, NULL::text, NULL::timestamptz, NULL::timestamptz, false,
                    v_bytes::double precision;
                RETURN;
            END IF;
            namespace := v_item.namespace;
            key := v_item.key;
            created_at := v_item.created_at;
            updated_at := v_item.updated_at;
            expires := v_item.expires_at IS NOT NULL;
            score := v_item.score;
            RETURN NEXT;
        END LOOP;
        IF p_mode = 'keyword' OR v_found >= v_count THEN
            RETURN;
        END IF;
        v_skip := greatest(p_offset - v_found, 0);
        v_left := p_limit - greatest(v_found - p_offset, 0);
    END IF;

    -- Namespace by namespace: an order over all of them would read every item before the first is returned.
    FOR v_row IN
        SELECT s.namespace
        FROM unnest(p_from, p_to) AS r (first, after)
        JOIN tenure.item_namespace AS s ON s.namespace >= r.first AND s.namespace < r.after
        WHERE true
            AND s.tenant_id = p_tenant -- wall:predicate
        ORDER BY s.position
    LOOP
        EXIT WHEN v_left <= 0;
        IF v_skip > 0 THEN
            SELECT count(*) INTO v_there
            FROM (
                SELECT
                FROM tenure.item AS i
                WHERE i.namespace = v_row.namespace
                    AND i.place >= 0
                    AND i.tenant_id = p_tenant -- wall:predicate
                    AND (i.expires_at IS NULL OR i.expires_at > now())
                    AND (p_path IS NULL OR jsonb_path_match(i.value, p_path::jsonpath, p_vars::jsonb, true))
                    AND (
                        p_mode = 'none'
                        OR NOT EXISTS (
                            SELECT
                            FROM tenure.item_vector AS v
                            WHERE v.namespace = i.namespace
                                AND v.tenant_id = p_tenant -- wall:predicate
                                AND v.key = i.key
                        )
                        AND (i.keywords @@ v_words) IS NOT TRUE
                    )
                LIMIT v_skip
            ) AS c;
            IF v_there < v_skip THEN
                v_skip := v_skip - v_there;
                CONTINUE;
            END IF;
        END IF;
        FOR v_item IN
            SELECT i.key, i.value, i.verbatim, i.created_at, i.updated_at, i.expires_at
            FROM tenure.item AS i
            WHERE i.namespace = v_row.namespace
                AND i.place >= 0
                AND i.tenant_id = p_tenant -- wall:predicate
                AND (i.expires_at IS NULL OR i.expires_at > now())
                AND (p_path IS NULL OR jsonb_path_match(i.value, p_path::jsonpath, p_vars::jsonb, true))
                AND (
                    p_mode = 'none'
                    OR NOT EXISTS (
                        SELECT
                        FROM tenure.item_vector AS v
                        WHERE v.namespace = i.namespace
                            AND v.tenant_id = p_tenant -- wall:predicate
                            AND v.key = i.key
                    )
                    AND (i.keywords @@ v_words) IS NOT TRUE
                )
            ORDER BY i.place
            LIMIT v_left OFFSET v_skip
        LOOP
            value := coalesce(v_item.verbatim, v_item.value::text);
            v_bytes := v_bytes + octet_length(value);
            IF v_bytes > p_room THEN
                RETURN QUERY SELECT
                    NULL::text, NULL::text, NULL::text, NULL::timestamptz, NULL::timestamptz, false,
                    v_bytes::double precision;
                RETURN;
            END IF;
            namespace := v_row.namespace;
            key := v_item.key;
            created_at := v_item.created_at;
            updated_at := v_item.updated_at;
            expires := v_item.expires_at IS NOT NULL;
            score := NULL;
            v_left := v_left - 1;
            RETURN NEXT;
        END LOOP;
        v_skip := 0;
    END LOOP;
END
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

-- Returns the namespaces in ranges that hold items, sorted, cut to p_depth labels unless that is null. Conditions
-- are encoded as namespaces are.
CREATE FUNCTION tenure.list_namespaces_1(
    p_tenant uuid,
    p_from text[],
    p_to text[],
    p_paths text[],
    p_at_end int[],
    p_depth int,
    p_limit int,
    p_offset int
)
RETURNS TABLE (namespace text)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    RETURN QUERY
    SELECT DISTINCT
        CASE
            WHEN p_depth IS NULL THEN s.namespace
            ELSE array_to_string((string_to_array(s.namespace, E'\x01\x01'))[1:p_depth], E'\x01\x01')
        END COLLATE "C" AS listed
    FROM unnest(p_from, p_to) AS r (first, after)
    JOIN tenure.item_namespace AS s ON s.namespace >= r.first AND s.namespace < r.after
    WHERE true
        AND s.tenant_id = p_tenant -- wall:predicate
        AND NOT EXISTS (
            SELECT
            FROM unnest(p_paths, p_at_end) AS c (path, at_end)
            WHERE NOT tenure.labels_match_1(
                string_to_array(s.namespace, E'\x01\x01'), string_to_array(c.path, E'\x01\x01'), c.at_end = 1
            )
        )
        AND EXISTS (
            SELECT
            FROM tenure.item AS i
            WHERE i.namespace = s.namespace
                AND i.tenant_id = p_tenant -- wall:predicate
                AND (i.expires_at IS NULL OR i.expires_at > now())
        )
    ORDER BY listed
    LIMIT p_limit OFFSET p_offset;
END
$$;

-- Returns the tenant's index, null if there has been none, and how many items wait to be embedded.
CREATE FUNCTION tenure.item_index_1(p_tenant uuid, OUT dims int, OUT embedder text, OUT waiting bigint)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    SELECT count(*) INTO waiting
    FROM tenure.item AS i
    WHERE i.unembedded
        AND i.tenant_id = p_tenant -- wall:predicate
        AND (i.expires_at IS NULL OR i.expires_at > now());
    SELECT x.dims, x.embedder INTO dims, embedder
    FROM tenure.item_index AS x
    WHERE true
        AND x.tenant_id = p_tenant -- wall:predicate
    LIMIT 1;
END
$$;

-- Changes the tenant's index and forgets the vectors made with another one. Returns how many items wait to be
-- embedded, or 'mismatch'.
CREATE FUNCTION tenure.set_item_index_1(
    p_tenant uuid,
    p_timeout_ms int,
    p_operation bytea,
    p_digest bytea,
    p_dims int,
    p_embedder text
)
RETURNS text
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_answer text;
BEGIN
    PERFORM
        set_config('app.tenant', p_tenant::text, true),
        set_config('lock_timeout', p_timeout_ms::text, true);
    PERFORM pg_advisory_xact_lock(tenure.items_lock_1(p_tenant));
    v_answer := tenure.claim_operation_1(p_tenant, p_operation, '', p_digest, 'begun');
    IF v_answer IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    INSERT INTO tenure.item_index AS x (tenant_id, dims, embedder) VALUES (p_tenant, p_dims, p_embedder)
    ON CONFLICT (tenant_id) DO UPDATE SET dims = excluded.dims, embedder = excluded.embedder
    WHERE (x.dims, x.embedder COLLATE "C") <> (excluded.dims, excluded.embedder);
    IF FOUND THEN
        DELETE FROM tenure.item_vector AS v
        WHERE true
            AND v.tenant_id = p_tenant -- wall:predicate
        ;
        UPDATE tenure.item AS i
        SET unembedded = true
        WHERE NOT i.unembedded
            AND i.tenant_id = p_tenant -- wall:predicate
            AND i.index_paths IS DISTINCT FROM '{}';
    END IF;
    SELECT x.waiting::text INTO v_answer FROM tenure.item_index_1(p_tenant) AS x;
    PERFORM tenure.finish_operation_1(p_tenant, p_operation, '', v_answer);
    RETURN v_answer;
END
$$;

-- Returns items that wait to be embedded, in the order of namespace and key, after a given one.
CREATE FUNCTION tenure.unembedded_items_1(p_tenant uuid, p_namespace text, p_key text, p_limit int)
RETURNS TABLE (
    namespace text,
    key text,
    value text,
    created_at timestamptz,
    updated_at timestamptz,
    index_paths text[]
)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    RETURN QUERY
    SELECT
        i.namespace, i.key, coalesce(i.verbatim, i.value::text), i.created_at, i.updated_at, i.index_paths
    FROM tenure.item AS i
    WHERE (i.namespace, i.key) > (p_namespace, p_key)
        AND i.unembedded
        AND i.tenant_id = p_tenant -- wall:predicate
        AND (i.expires_at IS NULL OR i.expires_at > now())
    ORDER BY i.namespace, i.key
    LIMIT p_limit;
END
$$;

-- Stores vectors of items that have not been put since p_updated, in microseconds since the epoch: 'ok',
-- 'mismatch' or 'refused', with the stored index then. Items count from 1, each comes once and they are sorted.
CREATE FUNCTION tenure.put_vectors_1(
    p_tenant uuid,
    p_timeout_ms int,
    p_operation bytea,
    p_digest bytea,
    p_dims int,
    p_embedder text,
    p_namespace text[],
    p_key text[],
    p_updated bigint[],
    p_vector_item int[],
    p_vector_path text[],
    p_embeddings real[],
    OUT answer text,
    OUT dims int,
    OUT embedder text
)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_same int[];
BEGIN
    PERFORM
        set_config('app.tenant', p_tenant::text, true),
        set_config('lock_timeout', p_timeout_ms::text, true);
    PERFORM pg_advisory_xact_lock_shared(tenure.items_lock_1(p_tenant));
    INSERT INTO tenure.item_index AS x (tenant_id, dims, embedder) VALUES (p_tenant, p_dims, p_embedder)
    ON CONFLICT DO NOTHING;
    SELECT x.dims, x.embedder INTO dims, embedder
    FROM tenure.item_index AS x
    WHERE true
        AND x.tenant_id = p_tenant -- wall:predicate
    LIMIT 1;
    IF (dims, embedder COLLATE "C") IS DISTINCT FROM (p_dims, p_embedder) THEN
        answer := 'refused';
        RETURN;
    END IF;
    answer := coalesce(tenure.claim_operation_1(p_tenant, p_operation, '', p_digest, 'ok'), 'new');
    IF answer <> 'new' THEN
        RETURN;
    END IF;
    answer := 'ok';

    SELECT array_agg(l.number) INTO v_same
    FROM (
        SELECT w.number
        FROM unnest(p_namespace, p_key, p_updated) WITH ORDINALITY AS w (namespace, key, updated, number)
        CROSS JOIN LATERAL (
            SELECT i.updated_at
            FROM tenure.item AS i
            WHERE i.namespace = w.namespace
                AND i.key = w.key
                AND i.tenant_id = p_tenant -- wall:predicate
                AND i.updated_at = 'epoch'::timestamptz + w.updated * interval '1 microsecond'
            FOR NO KEY UPDATE
        ) AS s
    ) AS l;
    UPDATE tenure.item AS i
    SET unembedded = false
    FROM unnest(v_same) AS s (number)
    WHERE i.namespace = p_namespace[s.number]
        AND i.key = p_key[s.number]
        AND i.tenant_id = p_tenant -- wall:predicate
        AND i.unembedded;
    DELETE FROM tenure.item_vector AS v
    USING unnest(v_same) AS s (number)
    WHERE v.namespace = p_namespace[s.number]
        AND v.tenant_id = p_tenant -- wall:predicate
        AND v.key = p_key[s.number];
    WITH flat AS MATERIALIZED (SELECT p_embeddings || '{}'::real[] AS numbers)
    INSERT INTO tenure.item_vector (tenant_id, namespace, key, n, path, dims, embedding)
    SELECT
        p_tenant, p_namespace[e.of_item], p_key[e.of_item], e.number, e.path, p_dims,
        f.numbers[(e.number - 1) * p_dims + 1:e.number * p_dims]
    FROM unnest(p_vector_item, p_vector_path) WITH ORDINALITY AS e (of_item, path, number)
    CROSS JOIN flat AS f
    WHERE e.of_item = ANY (v_same);
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tenure FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tenure TO tenure_app;
REVOKE EXECUTE ON FUNCTION tenure.ensure_vector_indexes_1() FROM tenure_app;
GRANT EXECUTE ON FUNCTION tenure.items_lock_1(uuid) TO tenure_ops;
