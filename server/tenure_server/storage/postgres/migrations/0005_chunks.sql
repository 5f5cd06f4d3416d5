-- Values in chunks; see docs/decisions/0006-chunks-belong-to-a-thread.md. For the rest see 0002_write.sql.
--
-- A large value is a row of channel_value with a recipe: `data` is its header then, and `recipe` names the
-- chunks that follow, 20 bytes for each (id, length). Chunks belong to one thread. Whatever stores a recipe
-- holds the thread's lock and stores its chunks in the same transaction, and a chunk goes only with the last
-- recipe that names it; so every chunk of a stored recipe is there.
--
-- A recipe may be told against an anchor, which is another value of the channel, in the same namespace, whose
-- own recipe is whole: it is then the first `keep_first` entries of the anchor's, those in `recipe`, and the
-- last `keep_last` of the anchor's. An anchor goes only after such recipes have been made whole, under the
-- thread's lock; so every recipe takes one look-up more at most, and no reader finds an anchor missing. Readers
-- outside this file never see any of this.
--
-- Servers of 0.1.0 may share the database during a rollout. They write whole values only, and those of their
-- functions that would lose chunks or hand out a header for the value are replaced below.

CREATE TABLE tenure.chunk (
    tenant_id uuid NOT NULL,
    thread_key uuid NOT NULL,
    chunk_id bytea NOT NULL,
    -- As it travels: packed.
    data bytea NOT NULL,
    PRIMARY KEY (tenant_id, thread_key, chunk_id)
) WITH (toast_tuple_target = 8160);
ALTER TABLE tenure.chunk ALTER COLUMN data SET STORAGE EXTERNAL;

-- No recipe means that `data` is the whole value, no anchor that the recipe is whole. Nothing here reads or
-- rewrites the rows there are.
ALTER TABLE tenure.channel_value
    ADD COLUMN recipe bytea,
    ADD COLUMN anchor_version text COLLATE "C",
    ADD COLUMN keep_first int,
    ADD COLUMN keep_last int;
ALTER TABLE tenure.channel_value ALTER COLUMN recipe SET STORAGE EXTERNAL;

ALTER TABLE tenure.chunk ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenure.chunk FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON tenure.chunk AS PERMISSIVE FOR ALL TO tenure_app
    USING (tenant_id = (SELECT nullif(current_setting('app.tenant', true), '')::uuid))
    WITH CHECK (tenant_id = (SELECT nullif(current_setting('app.tenant', true), '')::uuid));
CREATE POLICY only_own_tenant ON tenure.chunk AS RESTRICTIVE FOR ALL TO tenure_app
    USING (tenant_id = (SELECT nullif(current_setting('app.tenant', true), '')::uuid))
    WITH CHECK (tenant_id = (SELECT nullif(current_setting('app.tenant', true), '')::uuid));
CREATE POLICY every_tenant ON tenure.chunk AS PERMISSIVE FOR ALL TO tenure_ops
    USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, DELETE ON tenure.chunk TO tenure_app;
GRANT SELECT (tenant_id, thread_key, chunk_id), DELETE ON tenure.chunk TO tenure_ops;

-- What is known of a stored value never changes: not its type, its digest or its bytes. How its recipe is kept
-- does, when the anchor goes.
GRANT UPDATE (recipe, anchor_version, keep_first, keep_last) ON tenure.channel_value TO tenure_app;

-- The sweeper of 0.1.0 does not know of chunks. A deleted thread that has some stays in the queue until a
-- newer one has freed them.
CREATE POLICY no_chunks_left ON tenure.garbage AS RESTRICTIVE FOR DELETE TO tenure_ops
    USING (
        NOT EXISTS (
            SELECT
            FROM tenure.chunk AS c
            WHERE c.tenant_id = garbage.tenant_id AND c.thread_key = garbage.thread_key
        )
    );

-- The chunks that a recipe names, each once.
CREATE FUNCTION tenure.recipe_ids_1(p_recipe bytea) RETURNS SETOF bytea
LANGUAGE sql IMMUTABLE AS $$
SELECT DISTINCT substring(p_recipe FROM 20 * e.position + 1 FOR 16)
FROM generate_series(0, octet_length(p_recipe) / 20 - 1) AS e (position)
$$;

-- The whole of a recipe. Without an anchor it is whole as it is stored; so is none.
CREATE FUNCTION tenure.whole_recipe_1(p_recipe bytea, p_anchor bytea, p_keep_first int, p_keep_last int)
RETURNS bytea
LANGUAGE sql IMMUTABLE AS $$
SELECT CASE
    WHEN p_keep_first IS NULL THEN p_recipe
    ELSE
        substring(p_anchor FOR p_keep_first * 20)
        || p_recipe
        || substring(p_anchor FROM octet_length(p_anchor) - p_keep_last * 20 + 1)
END
$$;

-- What a value in chunks is known by; `chunks.recipe_digest` of the server is the same.
CREATE FUNCTION tenure.recipe_digest_1(p_type text, p_header bytea, p_recipe bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE AS $$
SELECT substring(
    sha256(
        int4send(octet_length(convert_to(p_type, 'UTF8'))) || convert_to(p_type, 'UTF8')
        || int4send(octet_length(p_header)) || p_header || p_recipe
    )
    FOR 16
)
$$;

-- Returns the checkpoints that exist, `position` counting the refs from 1; a null id names the latest.
-- Whole values that are no larger than p_inline_bytes come along, v_data is null for the others; of values in
-- chunks come header and recipe.
--
-- The reader of ref n holds the values p_held_first[n] to p_held_last[n] of the other held arrays. Where one is
-- stored like that, and the checkpoint has another version of its channel, its recipe comes along: b_held is
-- its number, b_recipe the recipe.
CREATE FUNCTION tenure.read_heads_2(
    p_tenant uuid,
    p_threads text[],
    p_namespaces text[],
    p_ns_hashes bytea[],
    p_ids text[],
    p_inline_bytes int,
    p_held_first int[],
    p_held_last int[],
    p_held_channel text[],
    p_held_version text[],
    p_held_digest bytea[]
)
RETURNS TABLE (
    "position" bigint,
    thread_key uuid,
    generation bigint,
    checkpoint_id text,
    parent_checkpoint_id text,
    body_type text,
    body bytea,
    metadata text,
    v_channel text[],
    v_version text[],
    v_digest bytea[],
    v_size int[],
    v_type text[],
    v_data bytea[],
    v_recipe bytea[],
    w_task text[],
    w_path text[],
    w_idx int[],
    w_channel text[],
    w_type text[],
    w_data bytea[],
    b_held int[],
    b_recipe bytea[]
)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_setting text;
BEGIN
    v_setting := set_config('app.tenant', p_tenant::text, true);
    RETURN QUERY
    SELECT
        r.position, h.thread_key, h.generation,
        c.checkpoint_id, c.parent_checkpoint_id, c.body_type, c.body, c.metadata,
        v.channels, v.versions, v.digests, v.sizes, v.types, v.data, v.recipes,
        w.tasks, w.paths, w.indexes, w.channels, w.types, w.data,
        b.numbers, b.recipes
    FROM (
        SELECT
            unnest(p_threads) AS thread_id,
            unnest(p_namespaces) AS ns,
            unnest(p_ns_hashes) AS ns_hash,
            unnest(p_ids) AS id,
            generate_subscripts(p_threads, 1)::bigint AS position
    ) AS r
    CROSS JOIN LATERAL (
        SELECT t.thread_key, t.generation
        FROM tenure.thread_head AS t
        WHERE t.thread_id = r.thread_id
            AND t.tenant_id = p_tenant -- wall:predicate
        LIMIT 1
    ) AS h
    CROSS JOIN LATERAL (
        SELECT coalesce(
            r.id,
            (
                SELECT o.checkpoint_id
                FROM tenure.head_override AS o
                WHERE o.thread_key = h.thread_key
                    AND o.tenant_id = p_tenant -- wall:predicate
                    AND o.ns_hash = r.ns_hash
            ),
            (
                SELECT l.checkpoint_id
                FROM tenure.checkpoint AS l
                WHERE l.thread_key = h.thread_key
                    AND l.tenant_id = p_tenant -- wall:predicate
                    AND l.checkpoint_ns = r.ns
                ORDER BY l.checkpoint_id DESC
                LIMIT 1
            )
        ) AS id
        LIMIT 1
    ) AS n
    CROSS JOIN LATERAL (
        SELECT s.checkpoint_id, s.parent_checkpoint_id, s.body_type, s.body, s.metadata, s.versions
        FROM tenure.checkpoint AS s
        WHERE s.thread_key = h.thread_key
            AND s.checkpoint_ns = r.ns
            AND s.tenant_id = p_tenant -- wall:predicate
            AND s.checkpoint_id = n.id
        LIMIT 1
    ) AS c
    CROSS JOIN LATERAL (
        SELECT
            array_agg(s.channel) AS channels,
            array_agg(s.version) AS versions,
            array_agg(s.digest) AS digests,
            array_agg(octet_length(s.data)) AS sizes,
            array_agg(s.type) AS types,
            array_agg(
                CASE WHEN octet_length(s.data) <= p_inline_bytes OR s.recipe IS NOT NULL THEN s.data END
            ) AS data,
            array_agg(s.recipe) AS recipes
        FROM jsonb_each_text(c.versions) AS e (channel, version)
        CROSS JOIN LATERAL (
            SELECT k.channel, k.version, k.type, k.digest, k.data,
                tenure.whole_recipe_1(k.recipe, g.recipe, k.keep_first, k.keep_last) AS recipe
            FROM tenure.channel_value AS k
            LEFT JOIN LATERAL (
                SELECT a.recipe
                FROM tenure.channel_value AS a
                WHERE a.thread_key = k.thread_key
                    AND a.ns_hash = k.ns_hash
                    AND a.channel = k.channel
                    AND a.version = k.anchor_version
                    AND a.tenant_id = p_tenant -- wall:predicate
                LIMIT 1
            ) AS g ON true
            WHERE k.thread_key = h.thread_key
                AND k.ns_hash = r.ns_hash
                AND k.channel = e.channel
                AND k.version = e.version
                AND k.tenant_id = p_tenant -- wall:predicate
            LIMIT 1
        ) AS s
        WHERE s.type <> 'empty'
    ) AS v
    CROSS JOIN LATERAL (
        SELECT
            array_agg(o.task_id) AS tasks,
            array_agg(o.task_path) AS paths,
            array_agg(o.idx) AS indexes,
            array_agg(o.channel) AS channels,
            array_agg(o.type) AS types,
            array_agg(o.data) AS data
        FROM (
            SELECT p.task_id, p.task_path, p.idx, p.channel, p.type, p.data
            FROM tenure.pending_write AS p
            WHERE p.thread_key = h.thread_key
                AND p.ns_hash = r.ns_hash
                AND p.tenant_id = p_tenant -- wall:predicate
                AND p.checkpoint_id = c.checkpoint_id
            ORDER BY p.task_path, p.task_id, p.idx
        ) AS o
    ) AS w
    CROSS JOIN LATERAL (
        SELECT
            array_agg(d.number) AS numbers,
            array_agg(s.recipe) AS recipes
        FROM (SELECT generate_series(p_held_first[r.position], p_held_last[r.position]) AS number) AS d
        CROSS JOIN LATERAL (
            SELECT k.digest,
                tenure.whole_recipe_1(k.recipe, g.recipe, k.keep_first, k.keep_last) AS recipe
            FROM tenure.channel_value AS k
            LEFT JOIN LATERAL (
                SELECT a.recipe
                FROM tenure.channel_value AS a
                WHERE a.thread_key = k.thread_key
                    AND a.ns_hash = k.ns_hash
                    AND a.channel = k.channel
                    AND a.version = k.anchor_version
                    AND a.tenant_id = p_tenant -- wall:predicate
                LIMIT 1
            ) AS g ON true
            WHERE k.thread_key = h.thread_key
                AND k.ns_hash = r.ns_hash
                AND k.channel = p_held_channel[d.number]
                AND k.version = p_held_version[d.number]
                AND k.tenant_id = p_tenant -- wall:predicate
            LIMIT 1
        ) AS s
        WHERE s.digest = p_held_digest[d.number]
            AND s.recipe IS NOT NULL
            AND c.versions ->> p_held_channel[d.number] <> p_held_version[d.number]
    ) AS b;
END
$$;

-- Returns packed chunks, `position` counting those asked for from 1; p_chunk_thread says which of the given
-- threads one belongs to. Chunks of a thread that has another generation by now do not come.
CREATE FUNCTION tenure.chunks_1(
    p_tenant uuid,
    p_thread_keys uuid[],
    p_generations bigint[],
    p_chunk_thread int[],
    p_chunk_id bytea[]
)
RETURNS TABLE ("position" bigint, data bytea)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    -- Null for a thread that is another one by now.
    v_keys uuid[];
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    SELECT array_agg(h.thread_key ORDER BY r.position) INTO v_keys
    FROM unnest(p_thread_keys, p_generations) WITH ORDINALITY AS r (thread_key, generation, position)
    LEFT JOIN LATERAL (
        SELECT t.thread_key
        FROM tenure.thread_head AS t
        WHERE t.thread_key = r.thread_key
            AND t.tenant_id = p_tenant -- wall:predicate
            AND t.generation = r.generation
        LIMIT 1
    ) AS h ON true;

    RETURN QUERY
    SELECT r.position, c.data
    FROM unnest(p_chunk_thread, p_chunk_id) WITH ORDINALITY AS r (thread, chunk_id, position)
    CROSS JOIN LATERAL (
        SELECT s.data
        FROM tenure.chunk AS s
        WHERE s.thread_key = v_keys[r.thread]
            AND s.chunk_id = r.chunk_id
            AND s.tenant_id = p_tenant -- wall:predicate
        LIMIT 1
    ) AS c;
END
$$;

-- What 0.1.0 calls, too, and what does for it what the functions above count on.

-- What only 0.1.0 calls. It would hand out the header of a value in chunks for the whole of it; instead it
-- gets an error of a class that makes its clients try again, by then with a newer server.
CREATE FUNCTION tenure.only_whole_1(p_recipes bytea[]) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF array_remove(p_recipes, NULL) <> '{}' THEN
        RAISE EXCEPTION 'the thread has values in chunks, which this server does not know: upgrade it'
            USING ERRCODE = '57T01';
    END IF;
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION tenure.read_heads_1(
    p_tenant uuid,
    p_threads text[],
    p_namespaces text[],
    p_ns_hashes bytea[],
    p_ids text[],
    p_inline_bytes int
)
RETURNS TABLE (
    "position" bigint,
    thread_key uuid,
    generation bigint,
    checkpoint_id text,
    parent_checkpoint_id text,
    body_type text,
    body bytea,
    metadata text,
    v_channel text[],
    v_version text[],
    v_digest bytea[],
    v_size int[],
    v_type text[],
    v_data bytea[],
    w_task text[],
    w_path text[],
    w_idx int[],
    w_channel text[],
    w_type text[],
    w_data bytea[]
)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT
        h.position, h.thread_key, h.generation, h.checkpoint_id, h.parent_checkpoint_id, h.body_type, h.body,
        h.metadata, h.v_channel, h.v_version, h.v_digest, h.v_size, h.v_type, h.v_data,
        h.w_task, h.w_path, h.w_idx, h.w_channel, h.w_type, h.w_data
    FROM tenure.read_heads_2(
        p_tenant, p_threads, p_namespaces, p_ns_hashes, p_ids, p_inline_bytes, '{}', '{}', '{}', '{}', '{}'
    ) AS h
    WHERE tenure.only_whole_1(h.v_recipe);
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tenure FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tenure TO tenure_app;
