-- Reading checkpoints, channel histories, threads and keys.
--
-- STABLE: every statement of a function sees the snapshot of the call, so that a head and its values belong
-- together; a VOLATILE one was seen to return one head with the values of the next. For the rest see
-- 0002_write.sql.

-- Returns the checkpoints that exist, `position` counting the refs from 1; a null id names the latest.
-- Values that are no larger than p_inline_bytes come along, v_data is null for the others.
CREATE FUNCTION tenure.read_heads_1(
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
    PERFORM set_config('app.tenant', p_tenant::text, true);
    RETURN QUERY
    SELECT
        r.position, h.thread_key, h.generation,
        c.checkpoint_id, c.parent_checkpoint_id, c.body_type, c.body, c.metadata,
        v.channels, v.versions, v.digests, v.sizes, v.types, v.data,
        w.tasks, w.paths, w.indexes, w.channels, w.types, w.data
    FROM unnest(p_threads, p_namespaces, p_ns_hashes, p_ids)
        WITH ORDINALITY AS r (thread_id, ns, ns_hash, id, position)
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
            array_agg(CASE WHEN octet_length(s.data) <= p_inline_bytes THEN s.data END) AS data
        FROM jsonb_each_text(c.versions) AS e (channel, version)
        CROSS JOIN LATERAL (
            SELECT k.channel, k.version, k.type, k.digest, k.data
            FROM tenure.channel_value AS k
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
    ) AS w;
END
$$;

-- Returns values, `position` counting those asked for from 1; p_value_head says which of the given threads
-- a value belongs to. Values of a thread that has another generation by now do not come.
CREATE FUNCTION tenure.bodies_1(
    p_tenant uuid,
    p_thread_keys uuid[],
    p_generations bigint[],
    p_value_head int[],
    p_value_ns_hash bytea[],
    p_value_channel text[],
    p_value_version text[]
)
RETURNS TABLE ("position" bigint, type text, data bytea)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    RETURN QUERY
    SELECT r.position, v.type, v.data
    FROM unnest(p_value_head, p_value_ns_hash, p_value_channel, p_value_version)
        WITH ORDINALITY AS r (head, ns_hash, channel, version, position)
    CROSS JOIN LATERAL (
        SELECT t.thread_key
        FROM tenure.thread_head AS t
        WHERE t.thread_key = p_thread_keys[r.head]
            AND t.tenant_id = p_tenant -- wall:predicate
            AND t.generation = p_generations[r.head]
        LIMIT 1
    ) AS h
    CROSS JOIN LATERAL (
        SELECT s.type, s.data
        FROM tenure.channel_value AS s
        WHERE s.thread_key = h.thread_key
            AND s.ns_hash = r.ns_hash
            AND s.channel = r.channel
            AND s.version = r.version
            AND s.tenant_id = p_tenant -- wall:predicate
        LIMIT 1
    ) AS v;
END
$$;

-- Replaces booleans by 1 and 0, at every depth: Python, and so InMemorySaver, takes them for equal.
CREATE FUNCTION tenure.without_booleans_1(p_value jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    CASE jsonb_typeof(p_value)
        WHEN 'boolean' THEN
            RETURN CASE WHEN p_value::boolean THEN '1' ELSE '0' END;
        WHEN 'array' THEN
            RETURN coalesce(
                (
                    SELECT jsonb_agg(tenure.without_booleans_1(e.value) ORDER BY e.position)
                    FROM jsonb_array_elements(p_value) WITH ORDINALITY AS e (value, position)
                ),
                '[]'
            );
        WHEN 'object' THEN
            RETURN coalesce(
                (
                    SELECT jsonb_object_agg(e.key, tenure.without_booleans_1(e.value))
                    FROM jsonb_each(p_value) AS e (key, value)
                ),
                '{}'
            );
        ELSE
            RETURN p_value;
    END CASE;
END
$$;

-- Tells whether metadata equals a filter, member by member. The values have no booleans. A missing member
-- counts as null. Where p_everywhere is false, a member that equals the value is among the filterable ones,
-- and the metadata need not be parsed.
CREATE FUNCTION tenure.matches_1(
    p_filterable jsonb,
    p_metadata text,
    p_keys text[],
    p_everywhere text[],
    p_values jsonb[]
)
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_member jsonb;
BEGIN
    FOR i IN 1 .. cardinality(p_keys) LOOP
        v_member := p_filterable -> p_keys[i];
        IF v_member IS NULL THEN
            IF NOT p_everywhere[i]::boolean THEN
                RETURN false;
            END IF;
            v_member := coalesce(p_metadata::jsonb -> p_keys[i], 'null');
        END IF;
        IF tenure.without_booleans_1(v_member) <> p_values[i] THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$$;

-- Lists checkpoints by id descending, then thread and namespace ascending. Null arguments do not restrict.
CREATE FUNCTION tenure.list_heads_1(
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
    w_task text[],
    w_path text[],
    w_idx int[],
    w_channel text[],
    w_type text[],
    w_data bytea[]
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
                ORDER BY c.checkpoint_id DESC
                FETCH FIRST p_limit ROWS WITH TIES
            ) AS t
            ORDER BY t.checkpoint_id DESC, t.thread_id, t.checkpoint_ns
            LIMIT p_limit
        ) AS f;
    END IF;
    RETURN QUERY
    SELECT v_threads[h.position], v_namespaces[h.position], h.*
    FROM tenure.read_heads_1(
        p_tenant, v_threads, v_namespaces,
        (
            SELECT array_agg(tenure.ns_hash_1(n.ns) ORDER BY n.position)
            FROM unnest(v_namespaces) WITH ORDINALITY AS n (ns, position)
        ),
        v_ids, p_inline_bytes
    ) AS h;
END
$$;

-- The hash that stands for a namespace in keys.
CREATE FUNCTION tenure.ns_hash_1(p_ns text) RETURNS bytea
LANGUAGE sql IMMUTABLE AS $$
SELECT substring(sha256(convert_to(p_ns, 'UTF8')) FOR 16)
$$;

-- Walks the ancestors of a checkpoint, nearest first. For each ancestor come its writes to the channels
-- whose walk has not ended, in reverse order, then the values that end walks, with a null task.
CREATE FUNCTION tenure.channel_history_1(
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
DECLARE
    v_remaining text[] := p_channels;
    v_ended text[];
    v_types text[];
    v_data bytea[];
    v_key uuid;
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
            ),
            (
                SELECT l.checkpoint_id
                FROM tenure.checkpoint AS l
                WHERE l.thread_key = v_key
                    AND l.tenant_id = p_tenant -- wall:predicate
                    AND l.checkpoint_ns = p_ns
                ORDER BY l.checkpoint_id DESC
                LIMIT 1
            )
        );

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
            AND c.checkpoint_id = v_current;
        EXIT WHEN NOT FOUND;

        RETURN QUERY
        SELECT w.channel, w.task_id, w.type, w.data
        FROM tenure.pending_write AS w
        WHERE w.thread_key = v_key
            AND w.ns_hash = p_ns_hash
            AND w.tenant_id = p_tenant -- wall:predicate
            AND w.checkpoint_id = v_current
            AND w.channel = ANY (v_remaining)
        ORDER BY w.task_path DESC, w.task_id DESC, w.idx DESC;

        SELECT array_agg(r.channel), array_agg(v.type), array_agg(v.data)
        INTO v_ended, v_types, v_data
        FROM unnest(v_remaining) AS r (channel)
        CROSS JOIN LATERAL (
            SELECT s.type, s.data
            FROM tenure.channel_value AS s
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
            SELECT e.channel, NULL::text, e.type, e.data
            FROM unnest(v_ended, v_types, v_data) AS e (channel, type, data);
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
CREATE FUNCTION tenure.list_threads_1(p_tenant uuid, p_prefix text, p_after text, p_limit int)
RETURNS TABLE (thread_id text, created_at timestamptz)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    RETURN QUERY
    SELECT h.thread_id, h.created_at
    FROM tenure.thread_head AS h
    WHERE h.thread_id >= p_prefix
        AND h.tenant_id = p_tenant -- wall:predicate
        -- A range, as LIKE is not leakproof and could not use the index. Ids have at most 512 bytes.
        AND h.thread_id <= p_prefix || repeat(chr(1114111), 129)
        AND h.thread_id > coalesce(p_after, '')
    ORDER BY h.thread_id
    LIMIT p_limit;
END
$$;

-- Returns a key of a tenant that is not suspended.
CREATE FUNCTION tenure.find_key_1(p_tenant uuid, p_key_id text)
RETURNS TABLE (digest bytea, scopes text[], expires_at timestamptz, revoked_at timestamptz)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    RETURN QUERY
    SELECT k.digest, k.scopes, k.expires_at, k.revoked_at
    FROM tenure.api_key AS k
    JOIN tenure.tenant AS t
        ON t.tenant_id = k.tenant_id
        AND t.tenant_id = p_tenant -- wall:predicate
    WHERE k.key_id = p_key_id
        AND k.tenant_id = p_tenant -- wall:predicate
        AND t.suspended_at IS NULL;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tenure FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tenure TO tenure_app;
