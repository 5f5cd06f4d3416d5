-- Reads that leave out what has expired by policy, see 0012_retention.sql. A tenant without policies pays one look.

-- Returns the checkpoints that exist, `position` counting the refs from 1; a null id names the latest.
-- Whole values that are no larger than p_inline_bytes come along, v_data is null for the others; of values in
-- chunks come header and recipe.
--
-- The reader of ref n holds the values p_held_first[n] to p_held_last[n] of the other held arrays. Where one is
-- stored like that, and the checkpoint has another version of its channel, its recipe comes along: b_held is
-- its number, b_recipe the recipe.
CREATE FUNCTION tenure.read_heads_3(
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
    v_hidden record;
    v_ids text[];
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
    ) AS b
    -- Looked at once, and first: a tenant with policies goes the long way below.
    WHERE NOT EXISTS (
        SELECT
        FROM tenure.retention_policy AS x
        WHERE x.kind = 'threads'
            AND x.tenant_id = p_tenant -- wall:predicate
    );
    IF FOUND OR NOT tenure.has_policies_1(p_tenant, 'threads') THEN
        RETURN;
    END IF;

    SELECT * INTO v_hidden FROM tenure.hidden_1(p_tenant, p_threads);
    -- An id that no checkpoint has stands for what is not to be found.
    SELECT array_agg(coalesce(n.id, '') ORDER BY r.position) INTO v_ids
    FROM unnest(p_threads, p_namespaces, p_ns_hashes, p_ids)
        WITH ORDINALITY AS r (thread_id, ns, ns_hash, id, position)
    LEFT JOIN LATERAL (
        SELECT t.thread_key
        FROM tenure.thread_head AS t
        WHERE t.thread_id = r.thread_id
            AND t.tenant_id = p_tenant -- wall:predicate
        LIMIT 1
    ) AS h ON true
    LEFT JOIN LATERAL (
        SELECT l.checkpoint_id AS id
        FROM tenure.checkpoint AS l
        LEFT JOIN tenure.head_override AS o
            ON o.thread_key = l.thread_key
            AND o.ns_hash = r.ns_hash
            AND o.checkpoint_id = l.checkpoint_id
            AND o.tenant_id = p_tenant -- wall:predicate
        WHERE l.thread_key = h.thread_key
            AND l.tenant_id = p_tenant -- wall:predicate
            AND l.checkpoint_ns = r.ns
            AND l.checkpoint_id = coalesce(r.id, l.checkpoint_id)
            AND (v_hidden.whole IS NULL OR l.thread_key <> ALL (v_hidden.whole))
            AND (v_hidden.ids IS NULL OR (l.thread_key, l.checkpoint_ns, l.checkpoint_id) NOT IN (
                SELECT * FROM unnest(v_hidden.keys, v_hidden.namespaces, v_hidden.ids)
            ))
        ORDER BY o.checkpoint_id IS NULL, l.checkpoint_id DESC
        LIMIT 1
    ) AS n ON true;
    RETURN QUERY
    SELECT
        f.position, f.thread_key, f.generation, f.checkpoint_id,
        CASE
            WHEN v_hidden.ids IS NULL
                OR (f.thread_key, p_namespaces[f.position], f.parent_checkpoint_id) NOT IN (
                    SELECT * FROM unnest(v_hidden.keys, v_hidden.namespaces, v_hidden.ids)
                )
            THEN f.parent_checkpoint_id
        END,
        f.body_type, f.body, f.metadata, f.v_channel, f.v_version, f.v_digest, f.v_size, f.v_type, f.v_data,
        f.v_recipe, f.w_task, f.w_path, f.w_idx, f.w_channel, f.w_type, f.w_data, f.b_held, f.b_recipe
    FROM tenure.read_heads_2(
        p_tenant, p_threads, p_namespaces, p_ns_hashes, v_ids, p_inline_bytes, p_held_first, p_held_last,
        p_held_channel, p_held_version, p_held_digest
    ) AS f;
END
$$;

-- Lists checkpoints by id descending, then thread and namespace ascending. Null arguments do not restrict.
CREATE FUNCTION tenure.list_heads_3(
    p_tenant uuid,
    p_thread text,
    p_ns text,
    p_id text,
    p_before text,
    p_after_id text,
    p_after_thread text,
    p_after_ns text,
    p_filter_keys text[],
    p_filter_everywhere text[],
    p_filter_values text[],
    p_limit int,
    p_inline_bytes int
)
RETURNS TABLE (
    thread_id text,
    checkpoint_ns text,
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
    -- Sorts above every id, as ids have at most 512 bytes.
    v_top constant text := repeat(chr(1114111), 129);
    -- Bounds that an index can use: conditions with OR cannot.
    v_lowest constant text := coalesce(p_id, '');
    v_greatest constant text := coalesce(least(p_id COLLATE "C", p_after_id), v_top);
    v_before constant text := coalesce(p_before, v_top);
    v_values constant jsonb[] := p_filter_values::jsonb[];
    v_key uuid;
    v_free boolean;
    v_hidden record;
    v_threads text[];
    v_namespaces text[];
    v_ids text[];
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    IF p_thread IS NOT NULL THEN
        SELECT h.thread_key INTO v_key
        FROM tenure.thread_head AS h
        WHERE h.thread_id = p_thread
            AND h.tenant_id = p_tenant -- wall:predicate
        LIMIT 1;
    END IF;
    v_free := NOT EXISTS (
        SELECT
        FROM tenure.retention_policy AS x
        WHERE x.kind = 'threads'
            AND x.tenant_id = p_tenant -- wall:predicate
    );
    IF NOT v_free AND p_thread IS NOT NULL THEN
        SELECT * INTO v_hidden FROM tenure.hidden_1(p_tenant, ARRAY[p_thread]);
        IF v_hidden.whole IS NOT NULL THEN
            RETURN;
        END IF;
        v_ids := v_hidden.ids;
        v_namespaces := v_hidden.namespaces;
    END IF;
    -- One statement for each way to find them in order, so that each has a plan of its own.
    IF p_thread IS NOT NULL AND p_ns IS NOT NULL THEN
        SELECT array_agg(p_thread), array_agg(f.checkpoint_ns), array_agg(f.checkpoint_id)
        INTO v_threads, v_namespaces, v_ids
        FROM (
            SELECT c.checkpoint_ns, c.checkpoint_id
            FROM tenure.checkpoint AS c
            WHERE c.thread_key = v_key
                AND c.tenant_id = p_tenant -- wall:predicate
                AND c.checkpoint_ns = p_ns
                AND c.checkpoint_id BETWEEN v_lowest AND v_greatest
                AND c.checkpoint_id < v_before
                AND (
                    p_after_id IS NULL
                    OR c.checkpoint_id < p_after_id
                    OR (p_thread COLLATE "C", c.checkpoint_ns) > (p_after_thread, p_after_ns)
                )
                AND (v_ids IS NULL OR (c.checkpoint_ns, c.checkpoint_id) NOT IN (
                    SELECT * FROM unnest(v_namespaces, v_ids)
                ))
                AND tenure.matches_1(c.filterable, c.metadata, p_filter_keys, p_filter_everywhere, v_values)
            ORDER BY c.checkpoint_id DESC
            LIMIT p_limit
        ) AS f;
    ELSIF p_thread IS NOT NULL THEN
        SELECT array_agg(p_thread), array_agg(f.checkpoint_ns), array_agg(f.checkpoint_id)
        INTO v_threads, v_namespaces, v_ids
        FROM (
            SELECT c.checkpoint_ns, c.checkpoint_id
            FROM tenure.checkpoint AS c
            WHERE c.thread_key = v_key
                AND c.tenant_id = p_tenant -- wall:predicate
                AND c.checkpoint_id BETWEEN v_lowest AND v_greatest
                AND c.checkpoint_id < v_before
                AND (
                    p_after_id IS NULL
                    OR c.checkpoint_id < p_after_id
                    OR (p_thread COLLATE "C", c.checkpoint_ns) > (p_after_thread, p_after_ns)
                )
                AND (v_ids IS NULL OR (c.checkpoint_ns, c.checkpoint_id) NOT IN (
                    SELECT * FROM unnest(v_namespaces, v_ids)
                ))
                AND tenure.matches_1(c.filterable, c.metadata, p_filter_keys, p_filter_everywhere, v_values)
            ORDER BY c.checkpoint_id DESC, c.checkpoint_ns
            LIMIT p_limit
        ) AS f;
    ELSE
        SELECT array_agg(f.thread_id), array_agg(f.checkpoint_ns), array_agg(f.checkpoint_id)
        INTO v_threads, v_namespaces, v_ids
        FROM (
            -- In the order of the index, ties included; then in the order that was asked for.
            SELECT t.thread_id, t.checkpoint_ns, t.checkpoint_id
            FROM (
                SELECT h.thread_id, c.checkpoint_ns, c.checkpoint_id
                FROM tenure.checkpoint AS c
                CROSS JOIN LATERAL (
                    SELECT k.thread_id
                    FROM tenure.thread_head AS k
                    WHERE k.thread_key = c.thread_key
                        AND k.tenant_id = p_tenant -- wall:predicate
                    LIMIT 1
                ) AS h
                WHERE c.checkpoint_id BETWEEN v_lowest AND v_greatest
                    AND c.tenant_id = p_tenant -- wall:predicate
                    AND octet_length(c.checkpoint_id) >= 0 -- lets it use checkpoint_by_id
                    AND c.checkpoint_id < v_before
                    AND (p_ns IS NULL OR c.checkpoint_ns = p_ns)
                    AND (
                        p_after_id IS NULL
                        OR c.checkpoint_id < p_after_id
                        OR (h.thread_id, c.checkpoint_ns) > (p_after_thread, p_after_ns)
                    )
                    AND tenure.matches_1(c.filterable, c.metadata, p_filter_keys, p_filter_everywhere, v_values)
                    AND (v_free OR NOT tenure.is_hidden_1(p_tenant, c.thread_key, c.checkpoint_ns, c.checkpoint_id))
                ORDER BY c.checkpoint_id DESC
                FETCH FIRST p_limit ROWS WITH TIES
            ) AS t
            ORDER BY t.checkpoint_id DESC, t.thread_id, t.checkpoint_ns
            LIMIT p_limit
        ) AS f;
    END IF;
    RETURN QUERY
    SELECT v_threads[h.position], v_namespaces[h.position], h.*
    FROM tenure.read_heads_3(
        p_tenant, v_threads, v_namespaces,
        (
            SELECT array_agg(tenure.ns_hash_1(n.ns) ORDER BY n.position)
            FROM unnest(v_namespaces) WITH ORDINALITY AS n (ns, position)
        ),
        v_ids, p_inline_bytes, '{}', '{}', '{}', '{}', '{}'
    ) AS h;
END
$$;

-- Walks the ancestors of a checkpoint, nearest first. For each ancestor come its writes to the channels
-- whose walk has not ended, in reverse order, then the values that end walks, with a null task; those in chunks
-- with their recipe and the packed chunks that it names, each once.
CREATE FUNCTION tenure.channel_history_3(
    p_tenant uuid,
    p_thread text,
    p_ns text,
    p_ns_hash bytea,
    p_id text,
    p_channels text[]
)
RETURNS TABLE (
    channel text, task_id text, type text, data bytea, recipe bytea, chunk_ids bytea[], chunks bytea[]
)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_remaining text[] := p_channels;
    v_ended text[];
    v_types text[];
    v_data bytea[];
    v_recipes bytea[];
    v_key uuid;
    v_free boolean;
    v_hidden record;
    v_namespaces text[];
    v_ids text[];
    v_current text;
    v_parent text;
    v_versions jsonb;
    v_mark text;
    v_steps bigint := 0;
    v_next_mark bigint := 1;
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    SELECT h.thread_key INTO v_key
    FROM tenure.thread_head AS h
    WHERE h.thread_id = p_thread
        AND h.tenant_id = p_tenant -- wall:predicate
    LIMIT 1;
    v_free := NOT EXISTS (
        SELECT
        FROM tenure.retention_policy AS x
        WHERE x.kind = 'threads'
            AND x.tenant_id = p_tenant -- wall:predicate
    );
    IF NOT v_free THEN
        SELECT * INTO v_hidden FROM tenure.hidden_1(p_tenant, ARRAY[p_thread]);
        IF v_hidden.whole IS NOT NULL THEN
            RETURN;
        END IF;
        v_ids := v_hidden.ids;
        v_namespaces := v_hidden.namespaces;
    END IF;

    SELECT c.parent_checkpoint_id INTO v_current
    FROM tenure.checkpoint AS c
    WHERE c.thread_key = v_key
        AND c.checkpoint_ns = p_ns
        AND c.tenant_id = p_tenant -- wall:predicate
        AND c.checkpoint_id = coalesce(
            p_id,
            (
                SELECT o.checkpoint_id
                FROM tenure.head_override AS o
                WHERE o.thread_key = v_key
                    AND o.tenant_id = p_tenant -- wall:predicate
                    AND o.ns_hash = p_ns_hash
                    AND (v_ids IS NULL OR (p_ns, o.checkpoint_id) NOT IN (
                        SELECT * FROM unnest(v_namespaces, v_ids)
                    ))
            ),
            (
                SELECT l.checkpoint_id
                FROM tenure.checkpoint AS l
                WHERE l.thread_key = v_key
                    AND l.tenant_id = p_tenant -- wall:predicate
                    AND l.checkpoint_ns = p_ns
                    AND (v_ids IS NULL OR (l.checkpoint_ns, l.checkpoint_id) NOT IN (
                        SELECT * FROM unnest(v_namespaces, v_ids)
                    ))
                ORDER BY l.checkpoint_id DESC
                LIMIT 1
            )
        )
        AND (v_ids IS NULL OR (c.checkpoint_ns, c.checkpoint_id) NOT IN (
            SELECT * FROM unnest(v_namespaces, v_ids)
        ));

    WHILE v_current IS NOT NULL AND cardinality(v_remaining) > 0 LOOP
        -- Parents are what clients say they are, so they may run in a circle: stop when the walk is back at
        -- a mark, which moves on after 1, 2, 4, ... steps (Brent).
        EXIT WHEN v_current = v_mark;
        v_steps := v_steps + 1;
        IF v_steps = v_next_mark THEN
            v_mark := v_current;
            v_next_mark := v_next_mark * 2;
        END IF;

        SELECT c.parent_checkpoint_id, c.versions
        INTO v_parent, v_versions
        FROM tenure.checkpoint AS c
        WHERE c.thread_key = v_key
            AND c.checkpoint_ns = p_ns
            AND c.tenant_id = p_tenant -- wall:predicate
            AND c.checkpoint_id = v_current
            AND (v_ids IS NULL OR (c.checkpoint_ns, c.checkpoint_id) NOT IN (
                SELECT * FROM unnest(v_namespaces, v_ids)
            ));
        EXIT WHEN NOT FOUND;

        RETURN QUERY
        SELECT w.channel, w.task_id, w.type, w.data, NULL::bytea, NULL::bytea[], NULL::bytea[]
        FROM tenure.pending_write AS w
        WHERE w.thread_key = v_key
            AND w.ns_hash = p_ns_hash
            AND w.tenant_id = p_tenant -- wall:predicate
            AND w.checkpoint_id = v_current
            AND w.channel = ANY (v_remaining)
        ORDER BY w.task_path DESC, w.task_id DESC, w.idx DESC;

        SELECT array_agg(r.channel), array_agg(v.type), array_agg(v.data), array_agg(v.recipe)
        INTO v_ended, v_types, v_data, v_recipes
        FROM unnest(v_remaining) AS r (channel)
        CROSS JOIN LATERAL (
            SELECT s.type, s.data,
                tenure.whole_recipe_1(s.recipe, g.recipe, s.keep_first, s.keep_last) AS recipe
            FROM tenure.channel_value AS s
            LEFT JOIN LATERAL (
                SELECT a.recipe
                FROM tenure.channel_value AS a
                WHERE a.thread_key = s.thread_key
                    AND a.ns_hash = s.ns_hash
                    AND a.channel = s.channel
                    AND a.version = s.anchor_version
                    AND a.tenant_id = p_tenant -- wall:predicate
                LIMIT 1
            ) AS g ON true
            WHERE s.thread_key = v_key
                AND s.ns_hash = p_ns_hash
                AND s.channel = r.channel
                AND s.version = v_versions ->> r.channel
                AND s.tenant_id = p_tenant -- wall:predicate
            LIMIT 1
        ) AS v
        WHERE v.type <> 'empty';

        IF v_ended IS NOT NULL THEN
            RETURN QUERY
            SELECT e.channel, NULL::text, e.type, e.data, e.recipe, c.ids, c.chunks
            FROM unnest(v_ended, v_types, v_data, v_recipes) AS e (channel, type, data, recipe)
            CROSS JOIN LATERAL (
                SELECT array_agg(i.id) AS ids, array_agg(k.data) AS chunks
                FROM tenure.recipe_ids_1(e.recipe) AS i (id)
                CROSS JOIN LATERAL (
                    SELECT s.data
                    FROM tenure.chunk AS s
                    WHERE s.thread_key = v_key
                        AND s.chunk_id = i.id
                        AND s.tenant_id = p_tenant -- wall:predicate
                    LIMIT 1
                ) AS k
            ) AS c;
            SELECT coalesce(array_agg(r.channel), '{}')
            INTO v_remaining
            FROM unnest(v_remaining) AS r (channel)
            WHERE r.channel <> ALL (v_ended);
        END IF;
        v_current := v_parent;
    END LOOP;
END
$$;

-- Lists threads whose id starts with a prefix, in the order of their ids.
CREATE FUNCTION tenure.list_threads_2(p_tenant uuid, p_prefix text, p_after text, p_limit int)
RETURNS TABLE (thread_id text, created_at timestamptz)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_free boolean;
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    v_free := NOT EXISTS (
        SELECT
        FROM tenure.retention_policy AS x
        WHERE x.kind = 'threads'
            AND x.tenant_id = p_tenant -- wall:predicate
    );
    RETURN QUERY
    SELECT h.thread_id, h.created_at
    FROM tenure.thread_head AS h
    WHERE h.thread_id >= p_prefix
        AND h.tenant_id = p_tenant -- wall:predicate
        -- A range, as LIKE is not leakproof and could not use the index. Ids have at most 512 bytes.
        AND h.thread_id <= p_prefix || repeat(chr(1114111), 129)
        AND h.thread_id > coalesce(p_after, '')
        AND (v_free OR NOT tenure.is_hidden_1(p_tenant, h.thread_key, NULL, NULL))
    ORDER BY h.thread_id
    LIMIT p_limit;
END
$$;

-- Returns items by their keys, from one snapshot; `position` counts from 1. Once the values before it come to
-- more than p_max_bytes, an item comes without its value.
CREATE FUNCTION tenure.read_items_2(p_tenant uuid, p_namespace text[], p_key text[], p_max_bytes bigint)
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
    v_free boolean;
    v_row record;
    v_bytes bigint := 0;
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    v_free := NOT EXISTS (
        SELECT
        FROM tenure.retention_policy AS x
        WHERE x.kind = 'items'
            AND x.tenant_id = p_tenant -- wall:predicate
    );
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
                AND (v_free OR NOT tenure.item_expired_1(p_tenant, s.namespace, s.key, s.updated_at))
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

-- Says whether a value matches a filter; p_part is what all that do contain, if that says something. It goes first:
-- of a small value it takes a tenth of the time that the path takes. Postgres writes this into the queries that use
-- it. `@>` in its place would have them planned for one match in a thousand, and so read everything for the first
-- page.
CREATE FUNCTION tenure.item_matches_1(p_value jsonb, p_path jsonpath, p_vars jsonb, p_part jsonb)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT p_path IS NULL
    OR (p_part IS NULL OR jsonb_contains(p_value, p_part)) AND jsonb_path_match(p_value, p_path, p_vars, true)
$$;

-- Makes the HNSW indexes that are missing, and what asks them, if pgvector can be had: also some time after this file
-- was applied. Returns how many it made. An index holds all tenants' vectors of one length.
--
-- nearest_by_index_N_1 returns what is nearest to a vector of length N, in no order, and how many vectors it saw. Its
-- caller says how the index is read, and puts pgvector's schema into the search path: an extension can be moved. Each
-- length has a function of its own, since planning a text takes as long as the index does.
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
        CONTINUE WHEN to_regclass(format('tenure.item_vector_hnsw_%s', v_dims)) IS NOT NULL
            AND to_regproc(format('tenure.nearest_by_index_%s_1', v_dims)) IS NOT NULL;
        EXECUTE format(
            'CREATE INDEX IF NOT EXISTS item_vector_hnsw_%1$s ON tenure.item_vector '
            'USING hnsw ((embedding::%2$I.vector(%1$s)) %2$I.vector_cosine_ops) WHERE dims = %1$s',
            v_dims, v_schema);
        EXECUTE format(
            $f$
            CREATE OR REPLACE FUNCTION tenure.nearest_by_index_%1$s_1(
                p_tenant uuid,
                p_from text[],
                p_to text[],
                p_path jsonpath,
                p_vars jsonb,
                p_part jsonb,
                p_vector real[],
                p_count int,
                p_free boolean,
                OUT namespaces text[],
                OUT keys text[],
                OUT scores double precision[],
                OUT seen int
            )
            LANGUAGE plpgsql STABLE AS $b$
            #variable_conflict use_column
            BEGIN
                WITH near AS MATERIALIZED (
                    SELECT v.namespace, v.key, v.embedding::vector(%1$s) <=> p_vector::vector(%1$s) AS d
                    FROM tenure.item_vector AS v
                    WHERE v.dims = %1$s
                        AND v.tenant_id = p_tenant -- wall:predicate
                        AND EXISTS (
                            SELECT
                            FROM unnest(p_from, p_to) AS r (first, after)
                            WHERE v.namespace >= r.first AND v.namespace < r.after
                            OFFSET 0
                        )
                        AND EXISTS (
                            SELECT
                            FROM tenure.item AS i
                            WHERE i.namespace = v.namespace
                                AND i.key = v.key
                                AND i.tenant_id = p_tenant -- wall:predicate
                                AND (i.expires_at IS NULL OR i.expires_at > now())
                                AND (p_free OR NOT tenure.item_expired_1(p_tenant, i.namespace, i.key, i.updated_at))
                                AND tenure.item_matches_1(i.value, p_path, p_vars, p_part)
                            OFFSET 0
                        )
                    ORDER BY v.embedding::vector(%1$s) <=> p_vector::vector(%1$s)
                    LIMIT p_count
                ), best AS (
                    SELECT n.namespace, n.key, min(n.d) AS d FROM near AS n GROUP BY n.namespace, n.key
                )
                SELECT
                    array_agg(b.namespace), array_agg(b.key), array_agg(1 - b.d), (SELECT count(*) FROM near)
                INTO namespaces, keys, scores, seen
                FROM best AS b;
            END
            $b$
            $f$,
            v_dims);
        EXECUTE format(
            'REVOKE ALL ON FUNCTION tenure.nearest_by_index_%1$s_1 FROM PUBLIC;'
            'GRANT EXECUTE ON FUNCTION tenure.nearest_by_index_%1$s_1 TO tenure_app',
            v_dims);
        v_made := v_made + 1;
    END LOOP;
    RETURN v_made;
END
$$;

-- Returns the p_count items that are nearest to a vector, in the ranges p_from <= namespace < p_to.
--
-- An index is asked only where there are many vectors, and then whatever the planner thinks. What is filtered must
-- not cost recall: if the index gives fewer than there may be, all are compared. Where there are few, OFFSET 0
-- keeps the planner from reading the whole tenant: of a range that it does not know it expects a ninth of all.
CREATE FUNCTION tenure.nearest_items_2(
    p_tenant uuid,
    p_from text[],
    p_to text[],
    p_path jsonpath,
    p_vars jsonb,
    p_part jsonb,
    p_vector real[],
    p_count int
)
RETURNS TABLE (namespace text, key text, score double precision)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    v_free boolean;
    v_dims constant int := cardinality(p_vector);
    v_schema text;
    v_search_path constant text := current_setting('search_path');
    v_iterates boolean;
    v_many boolean;
    v_wanted int := p_count * 2;
    v_seen int;
    v_namespaces text[];
    v_keys text[];
    v_scores double precision[];
    v_found text;
    v_score text := 'coalesce(nullif(tenure.cosine_1(v.embedding, $6), ''NaN''), 0)';
BEGIN
    v_free := NOT EXISTS (
        SELECT
        FROM tenure.retention_policy AS x
        WHERE x.kind = 'items'
            AND x.tenant_id = p_tenant -- wall:predicate
    );
    SELECT
        n.nspname,
        string_to_array(substring(e.extversion FROM '^\d+\.\d+'), '.')::int[] >= '{0,8}'
        AND to_regclass(format('tenure.item_vector_hnsw_%s', v_dims)) IS NOT NULL
        AND to_regproc(format('tenure.nearest_by_index_%s_1', v_dims)) IS NOT NULL
    INTO v_schema, v_iterates
    FROM pg_catalog.pg_extension AS e
    JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
    WHERE e.extname = 'vector' AND pg_catalog.has_schema_privilege(n.oid, 'USAGE');
    IF v_schema IS NOT NULL THEN
        v_score := format(
            'coalesce(nullif(1 - (v.embedding::%1$I.vector OPERATOR(%1$I.<=>) $6::%1$I.vector), ''NaN''), 0)',
            v_schema);
    END IF;

    v_many := EXISTS (
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
        OFFSET 2000
    );
    IF v_many AND v_iterates AND p_count <= 1000 THEN
        PERFORM
            set_config('hnsw.iterative_scan', 'strict_order', true),
            set_config('hnsw.ef_search', least(greatest(100, p_count * 2), 1000)::text, true),
            set_config('enable_sort', 'off', true),
            set_config('search_path', quote_ident(v_schema), true);
        LOOP
            EXECUTE format('SELECT f.* FROM tenure.nearest_by_index_%s_1($1, $2, $3, $4, $5, $6, $7, $8, $9) AS f', v_dims)
            INTO v_namespaces, v_keys, v_scores, v_seen
            USING p_tenant, p_from, p_to, p_path, p_vars, p_part, p_vector, v_wanted, v_free;
            EXIT WHEN v_seen < v_wanted OR cardinality(v_keys) >= p_count;
            v_wanted := v_wanted * 4;
        END LOOP;
        PERFORM set_config('enable_sort', 'on', true), set_config('search_path', v_search_path, true);
        IF cardinality(v_keys) >= p_count THEN
            RETURN QUERY
            SELECT b.namespace, b.key, b.score
            FROM unnest(v_namespaces, v_keys, v_scores) AS b (namespace, key, score)
            ORDER BY b.score DESC
            LIMIT p_count;
            RETURN;
        END IF;
    END IF;

    -- A filter goes first, since it costs less than a distance: without pgvector much less. A look at the item costs
    -- more.
    IF p_path IS NULL THEN
        v_found := format(
            $q$
            SELECT v.namespace, v.key, v.score, i.place
            FROM (
                SELECT e.namespace, e.key, max(e.score) AS score
                FROM unnest($2, $3) AS r (first, after)
                CROSS JOIN LATERAL (
                    SELECT v.namespace, v.key, %s AS score
                    FROM tenure.item_vector AS v
                    WHERE v.namespace >= r.first
                        AND v.namespace < r.after
                        AND v.dims = cardinality($6)
                        AND v.tenant_id = $1 -- wall:predicate
                    OFFSET 0
                ) AS e
                GROUP BY e.namespace, e.key
                ORDER BY max(e.score) DESC
                OFFSET 0
            ) AS v
            CROSS JOIN LATERAL (
                SELECT i.place
                FROM tenure.item AS i
                WHERE i.namespace = v.namespace
                    AND i.key = v.key
                    AND i.tenant_id = $1 -- wall:predicate
                    AND (i.expires_at IS NULL OR i.expires_at > now())
                    AND ($8 OR NOT tenure.item_expired_1($1, i.namespace, i.key, i.updated_at))
                LIMIT 1
            ) AS i
            ORDER BY v.score DESC
            FETCH FIRST $7 ROWS WITH TIES
            $q$,
            v_score);
    ELSE
        v_found := format(
            $q$
            SELECT v.namespace, v.key, max(v.score) AS score, v.place
            FROM unnest($2, $3) AS r (first, after)
            CROSS JOIN LATERAL (
                SELECT i.namespace, i.key, i.place, %s AS score
                FROM tenure.item AS i
                JOIN tenure.item_vector AS v ON v.namespace = i.namespace AND v.key = i.key
                WHERE i.namespace >= r.first
                    AND i.namespace < r.after
                    AND v.dims = cardinality($6)
                    AND v.tenant_id = $1 -- wall:predicate
                    AND i.tenant_id = $1 -- wall:predicate
                    AND (i.expires_at IS NULL OR i.expires_at > now())
                    AND ($8 OR NOT tenure.item_expired_1($1, i.namespace, i.key, i.updated_at))
                    AND tenure.item_matches_1(i.value, $4, $5, $9)
                %s
            ) AS v
            GROUP BY v.namespace, v.key, v.place
            $q$,
            v_score, CASE WHEN v_many THEN '' ELSE 'OFFSET 0' END);
    END IF;
    RETURN QUERY EXECUTE format(
        $q$
        SELECT b.namespace, b.key, b.score
        FROM (%s) AS b
        JOIN tenure.item_namespace AS s ON s.namespace = b.namespace
        WHERE true
            AND s.tenant_id = $1 -- wall:predicate
        ORDER BY b.score DESC, s.position, b.place
        LIMIT $7
        $q$,
        v_found)
    USING p_tenant, p_from, p_to, p_path, p_vars, p_vector, p_count, v_free, p_part;
END
$$;

-- Returns the p_count items that match words best.
CREATE FUNCTION tenure.items_with_words_2(
    p_tenant uuid,
    p_from text[],
    p_to text[],
    p_path jsonpath,
    p_vars jsonb,
    p_part jsonb,
    p_words text,
    p_count int
)
RETURNS TABLE (namespace text, key text, score double precision)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    v_free boolean;
    v_query constant tsquery := websearch_to_tsquery('english', p_words);
BEGIN
    v_free := NOT EXISTS (
        SELECT
        FROM tenure.retention_policy AS x
        WHERE x.kind = 'items'
            AND x.tenant_id = p_tenant -- wall:predicate
    );
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
                AND (v_free OR NOT tenure.item_expired_1(p_tenant, s.namespace, s.key, s.updated_at))
                AND tenure.item_matches_1(s.value, p_path, p_vars, p_part)
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
CREATE FUNCTION tenure.search_items_2(
    p_tenant uuid,
    p_from text[],
    p_to text[],
    p_path text,
    p_vars text,
    p_part text,
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
    v_free boolean;
    -- Once: a cast of a parameter is repeated for every row, and takes longer than the match.
    v_path constant jsonpath := p_path::jsonpath;
    v_vars constant jsonb := p_vars::jsonb;
    v_part constant jsonb := p_part::jsonb;
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
    v_free := NOT EXISTS (
        SELECT
        FROM tenure.retention_policy AS x
        WHERE x.kind = 'items'
            AND x.tenant_id = p_tenant -- wall:predicate
    );
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
            FROM tenure.nearest_items_2(p_tenant, p_from, p_to, v_path, v_vars, v_part, p_vector, v_count) AS f;
        ELSIF p_mode = 'keyword' THEN
            SELECT array_agg(f.namespace), array_agg(f.key), array_agg(f.score)
            INTO v_namespaces, v_keys, v_scores
            FROM tenure.items_with_words_2(p_tenant, p_from, p_to, v_path, v_vars, v_part, p_words, v_count) AS f;
        ELSE
            SELECT array_agg(m.namespace), array_agg(m.key), array_agg(m.score)
            INTO v_namespaces, v_keys, v_scores
            FROM (
                SELECT f.namespace, f.key, f.score
                FROM (
                    SELECT b.namespace, b.key, sum(1.0::double precision / (60 + b.rank)) AS score
                    FROM (
                        SELECT n.namespace, n.key, n.rank
                        FROM tenure.nearest_items_2(p_tenant, p_from, p_to, v_path, v_vars, v_part, p_vector, v_depth)
                            WITH ORDINALITY AS n (namespace, key, score, rank)
                        UNION ALL
                        SELECT w.namespace, w.key, w.rank
                        FROM tenure.items_with_words_2(p_tenant, p_from, p_to, v_path, v_vars, v_part, p_words, v_depth)
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
                    AND (v_free OR NOT tenure.item_expired_1(p_tenant, i.namespace, i.key, i.updated_at))
                    AND tenure.item_matches_1(i.value, v_path, v_vars, v_part)
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
                AND (v_free OR NOT tenure.item_expired_1(p_tenant, i.namespace, i.key, i.updated_at))
                AND tenure.item_matches_1(i.value, v_path, v_vars, v_part)
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

-- Returns the namespaces in ranges that hold items, sorted, cut to p_depth labels unless that is null. Conditions
-- are encoded as namespaces are.
CREATE FUNCTION tenure.list_namespaces_2(
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
DECLARE
    v_free boolean;
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    v_free := NOT EXISTS (
        SELECT
        FROM tenure.retention_policy AS x
        WHERE x.kind = 'items'
            AND x.tenant_id = p_tenant -- wall:predicate
    );
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
                AND (v_free OR NOT tenure.item_expired_1(p_tenant, i.namespace, i.key, i.updated_at))
        )
    ORDER BY listed
    LIMIT p_limit OFFSET p_offset;
END
$$;

-- Returns the tenant's index, null if there has been none, and how many items wait to be embedded.
CREATE FUNCTION tenure.item_index_2(p_tenant uuid, OUT dims int, OUT embedder text, OUT waiting bigint)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    v_free boolean;
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    v_free := NOT EXISTS (
        SELECT
        FROM tenure.retention_policy AS x
        WHERE x.kind = 'items'
            AND x.tenant_id = p_tenant -- wall:predicate
    );
    SELECT count(*) INTO waiting
    FROM tenure.item AS i
    WHERE i.unembedded
        AND i.tenant_id = p_tenant -- wall:predicate
        AND (i.expires_at IS NULL OR i.expires_at > now())
        AND (v_free OR NOT tenure.item_expired_1(p_tenant, i.namespace, i.key, i.updated_at));
    SELECT x.dims, x.embedder INTO dims, embedder
    FROM tenure.item_index AS x
    WHERE true
        AND x.tenant_id = p_tenant -- wall:predicate
    LIMIT 1;
END
$$;

-- Returns items that wait to be embedded, in the order of namespace and key, after a given one.
CREATE FUNCTION tenure.unembedded_items_2(p_tenant uuid, p_namespace text, p_key text, p_limit int)
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
DECLARE
    v_free boolean;
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    v_free := NOT EXISTS (
        SELECT
        FROM tenure.retention_policy AS x
        WHERE x.kind = 'items'
            AND x.tenant_id = p_tenant -- wall:predicate
    );
    RETURN QUERY
    SELECT
        i.namespace, i.key, coalesce(i.verbatim, i.value::text), i.created_at, i.updated_at, i.index_paths
    FROM tenure.item AS i
    WHERE (i.namespace, i.key) > (p_namespace, p_key)
        AND i.unembedded
        AND i.tenant_id = p_tenant -- wall:predicate
        AND (i.expires_at IS NULL OR i.expires_at > now())
        AND (v_free OR NOT tenure.item_expired_1(p_tenant, i.namespace, i.key, i.updated_at))
    ORDER BY i.namespace, i.key
    LIMIT p_limit;
END
$$;

-- What servers of 0.1.0 call, with the error of only_whole_1.
CREATE OR REPLACE FUNCTION tenure.channel_history_1(
    p_tenant uuid,
    p_thread text,
    p_ns text,
    p_ns_hash bytea,
    p_id text,
    p_channels text[]
)
RETURNS TABLE (channel text, task_id text, type text, data bytea)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT h.channel, h.task_id, h.type, h.data
    FROM tenure.channel_history_3(p_tenant, p_thread, p_ns, p_ns_hash, p_id, p_channels) AS h
    WHERE tenure.only_whole_1(ARRAY[h.recipe]);
END
$$;

REVOKE ALL ON FUNCTION tenure.ensure_vector_indexes_1 FROM PUBLIC;
REVOKE ALL ON FUNCTION
    tenure.read_heads_3, tenure.list_heads_3, tenure.channel_history_3, tenure.list_threads_2,
    tenure.read_items_2, tenure.item_matches_1, tenure.nearest_items_2, tenure.items_with_words_2,
    tenure.search_items_2, tenure.list_namespaces_2, tenure.item_index_2, tenure.unembedded_items_2
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    tenure.read_heads_3, tenure.list_heads_3, tenure.channel_history_3, tenure.list_threads_2,
    tenure.read_items_2, tenure.item_matches_1, tenure.nearest_items_2, tenure.items_with_words_2,
    tenure.search_items_2, tenure.list_namespaces_2, tenure.item_index_2, tenure.unembedded_items_2
TO tenure_app;
