-- What removes or copies threads. Each function locks the heads, claims its operation, and only then looks
-- at data, all in one transaction; so a repeat, also one that runs at the same time, has no second effect.
-- For the rest see 0002_write.sql.

-- Records an operation with its result. Returns null if it is new; else what was answered before, or
-- 'mismatch' if it came with another request. Waits for a repeat that is under way.
CREATE FUNCTION tenure.claim_operation_1(
    p_tenant uuid,
    p_operation bytea,
    p_part text,
    p_digest bytea,
    p_result text
)
RETURNS text
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_digest bytea;
    v_result text;
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    LOOP
        INSERT INTO tenure.operation (tenant_id, operation_id, part, request_digest, result)
        VALUES (p_tenant, p_operation, p_part, p_digest, p_result)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN NULL;
        END IF;
        SELECT o.request_digest, o.result INTO v_digest, v_result
        FROM tenure.operation AS o
        WHERE o.operation_id = p_operation
            AND o.tenant_id = p_tenant -- wall:predicate
            AND o.part = p_part;
        -- Not found if the sweeper took it in between.
        IF FOUND THEN
            RETURN CASE WHEN v_digest = p_digest THEN v_result ELSE 'mismatch' END;
        END IF;
    END LOOP;
END
$$;

-- Changes the result of an operation that was claimed.
CREATE FUNCTION tenure.finish_operation_1(p_tenant uuid, p_operation bytea, p_part text, p_result text)
RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    UPDATE tenure.operation AS o
    SET result = p_result
    WHERE o.operation_id = p_operation
        AND o.tenant_id = p_tenant -- wall:predicate
        AND o.part = p_part;
END
$$;

-- Removes a thread if it exists. The head goes now; the sweeper frees the other rows, which nobody can
-- reach without it.
CREATE FUNCTION tenure.delete_thread_1(
    p_tenant uuid,
    p_timeout_ms int,
    p_operation bytea,
    p_part text,
    p_digest bytea,
    p_thread text
)
RETURNS text
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_key uuid;
    v_answer text;
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    PERFORM set_config('lock_timeout', p_timeout_ms::text, true);
    SELECT h.thread_key INTO v_key
    FROM tenure.thread_head AS h
    WHERE h.thread_id = p_thread
        AND h.tenant_id = p_tenant -- wall:predicate
    FOR UPDATE;
    v_answer := tenure.claim_operation_1(p_tenant, p_operation, p_part, p_digest, 'ok');
    IF v_answer IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    IF v_key IS NOT NULL THEN
        DELETE FROM tenure.thread_head AS h
        WHERE true
            AND h.tenant_id = p_tenant -- wall:predicate
            AND h.thread_key = v_key;
        INSERT INTO tenure.garbage (tenant_id, thread_key) VALUES (p_tenant, v_key);
    END IF;
    RETURN 'ok';
END
$$;

-- Copies a thread to a new one: 'ok', 'not_found' or 'exists'. Heads are taken in bytewise order, the
-- target's by inserting it. The source is locked FOR SHARE: puts and removals wait, other copies need not;
-- pending writes that come meanwhile are each in the copy or not.
CREATE FUNCTION tenure.copy_thread_1(
    p_tenant uuid,
    p_timeout_ms int,
    p_operation bytea,
    p_digest bytea,
    p_source text,
    p_target text
)
RETURNS text
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_source uuid;
    v_target uuid;
    v_answer text;
    v_result text;
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    PERFORM set_config('lock_timeout', p_timeout_ms::text, true);
    IF p_target COLLATE "C" < p_source THEN
        INSERT INTO tenure.thread_head (tenant_id, thread_id) VALUES (p_tenant, p_target)
        ON CONFLICT DO NOTHING RETURNING thread_key INTO v_target;
    END IF;
    SELECT h.thread_key INTO v_source
    FROM tenure.thread_head AS h
    WHERE h.thread_id = p_source
        AND h.tenant_id = p_tenant -- wall:predicate
    FOR SHARE;
    IF p_target COLLATE "C" > p_source THEN
        INSERT INTO tenure.thread_head (tenant_id, thread_id) VALUES (p_tenant, p_target)
        ON CONFLICT DO NOTHING RETURNING thread_key INTO v_target;
    END IF;

    v_result := CASE WHEN v_source IS NULL THEN 'not_found' WHEN v_target IS NULL THEN 'exists' ELSE 'ok' END;
    v_answer := tenure.claim_operation_1(p_tenant, p_operation, '', p_digest, v_result);
    IF v_answer IS NOT NULL OR v_result <> 'ok' THEN
        DELETE FROM tenure.thread_head AS h
        WHERE true
            AND h.tenant_id = p_tenant -- wall:predicate
            AND h.thread_key = v_target;
        RETURN coalesce(v_answer, v_result);
    END IF;

    INSERT INTO tenure.head_override (tenant_id, thread_key, ns_hash, checkpoint_id)
    SELECT p_tenant, v_target, o.ns_hash, o.checkpoint_id
    FROM tenure.head_override AS o
    WHERE true
        AND o.tenant_id = p_tenant -- wall:predicate
        AND o.thread_key = v_source;

    INSERT INTO tenure.checkpoint (
        tenant_id, thread_key, checkpoint_ns, checkpoint_id, parent_checkpoint_id, body_type, body, metadata,
        filterable, run_id, format_version, versions, created_at
    )
    SELECT
        p_tenant, v_target, c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.body_type, c.body,
        c.metadata, c.filterable, c.run_id, c.format_version, c.versions, c.created_at
    FROM tenure.checkpoint AS c
    WHERE true
        AND c.tenant_id = p_tenant -- wall:predicate
        AND c.thread_key = v_source;

    INSERT INTO tenure.channel_value (
        tenant_id, thread_key, ns_hash, channel, version, type, digest, data
    )
    SELECT p_tenant, v_target, v.ns_hash, v.channel, v.version, v.type, v.digest, v.data
    FROM tenure.channel_value AS v
    WHERE true
        AND v.tenant_id = p_tenant -- wall:predicate
        AND v.thread_key = v_source;

    INSERT INTO tenure.pending_write (
        tenant_id, thread_key, ns_hash, checkpoint_id, task_id, idx, task_path, channel, type, data, created_at
    )
    SELECT
        p_tenant, v_target, w.ns_hash, w.checkpoint_id, w.task_id, w.idx, w.task_path, w.channel, w.type,
        w.data, w.created_at
    FROM tenure.pending_write AS w
    WHERE true
        AND w.tenant_id = p_tenant -- wall:predicate
        AND w.thread_key = v_source;
    RETURN 'ok';
END
$$;

-- Removes checkpoints of a thread, whose head is locked, with their pending writes; values that none of the
-- others holds; and the name of a parent that goes.
CREATE FUNCTION tenure.drop_checkpoints_1(p_tenant uuid, p_key uuid, p_namespaces text[], p_ids text[])
RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    DELETE FROM tenure.pending_write AS w
    USING unnest(p_namespaces, p_ids) AS d (ns, id)
    WHERE w.thread_key = p_key
        AND w.tenant_id = p_tenant -- wall:predicate
        AND w.ns_hash = tenure.ns_hash_1(d.ns)
        AND w.checkpoint_id = d.id;

    DELETE FROM tenure.head_override AS o
    USING unnest(p_namespaces, p_ids) AS d (ns, id)
    WHERE o.thread_key = p_key
        AND o.tenant_id = p_tenant -- wall:predicate
        AND o.ns_hash = tenure.ns_hash_1(d.ns)
        AND o.checkpoint_id = d.id;

    DELETE FROM tenure.checkpoint AS c
    USING unnest(p_namespaces, p_ids) AS d (ns, id)
    WHERE c.thread_key = p_key
        AND c.tenant_id = p_tenant -- wall:predicate
        AND c.checkpoint_ns = d.ns
        AND c.checkpoint_id = d.id;

    UPDATE tenure.checkpoint AS c
    SET parent_checkpoint_id = NULL
    FROM unnest(p_namespaces, p_ids) AS d (ns, id)
    WHERE c.thread_key = p_key
        AND c.tenant_id = p_tenant -- wall:predicate
        AND c.checkpoint_ns = d.ns
        AND c.parent_checkpoint_id = d.id;

    WITH held AS MATERIALIZED (
        SELECT DISTINCT tenure.ns_hash_1(c.checkpoint_ns) AS ns_hash, e.channel, e.version
        FROM tenure.checkpoint AS c
        CROSS JOIN LATERAL jsonb_each_text(c.versions) AS e (channel, version)
        WHERE true
            AND c.tenant_id = p_tenant -- wall:predicate
            AND c.thread_key = p_key
    )
    DELETE FROM tenure.channel_value AS v
    WHERE v.thread_key = p_key
        AND v.tenant_id = p_tenant -- wall:predicate
        AND NOT EXISTS (
            SELECT
            FROM held
            WHERE held.ns_hash = v.ns_hash
                AND held.channel = v.channel
                AND held.version = v.version
        );

    UPDATE tenure.thread_head AS h
    SET generation = h.generation + 1
    WHERE true
        AND h.tenant_id = p_tenant -- wall:predicate
        AND h.thread_key = p_key;
END
$$;

-- Names the threads in which runs made checkpoints, in bytewise order.
CREATE FUNCTION tenure.threads_of_runs_1(p_tenant uuid, p_runs text[])
RETURNS TABLE (thread_id text)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    RETURN QUERY
    SELECT DISTINCT h.thread_id
    FROM unnest(p_runs) AS r (run_id)
    JOIN tenure.checkpoint AS c
        ON c.run_id = r.run_id
        AND c.tenant_id = p_tenant -- wall:predicate
    JOIN tenure.thread_head AS h
        ON h.thread_key = c.thread_key
        AND h.tenant_id = p_tenant -- wall:predicate
    ORDER BY h.thread_id;
END
$$;

-- Removes what runs made in a thread: 'ok', or 'in_use' if a DeltaChannel of a checkpoint that stays is
-- rebuilt from one that would go; nothing is removed then.
CREATE FUNCTION tenure.delete_runs_1(
    p_tenant uuid,
    p_timeout_ms int,
    p_operation bytea,
    p_digest bytea,
    p_thread text,
    p_runs text[]
)
RETURNS text
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_key uuid;
    v_answer text;
    v_namespaces text[];
    v_ids text[];
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    PERFORM set_config('lock_timeout', p_timeout_ms::text, true);
    SELECT h.thread_key INTO v_key
    FROM tenure.thread_head AS h
    WHERE h.thread_id = p_thread
        AND h.tenant_id = p_tenant -- wall:predicate
    FOR UPDATE;
    v_answer := tenure.claim_operation_1(p_tenant, p_operation, p_thread, p_digest, 'ok');
    IF v_answer IS NOT NULL THEN
        RETURN v_answer;
    END IF;

    SELECT array_agg(c.checkpoint_ns), array_agg(c.checkpoint_id)
    INTO v_namespaces, v_ids
    FROM tenure.checkpoint AS c
    WHERE c.thread_key = v_key
        AND c.tenant_id = p_tenant -- wall:predicate
        AND c.run_id = ANY (p_runs);
    IF v_ids IS NULL THEN
        RETURN 'ok';
    END IF;

    -- A way leads from a checkpoint that stays, for each of its DeltaChannels, along its ancestors to the
    -- nearest one with a value of the channel.
    IF EXISTS (
        WITH RECURSIVE way (ns, id, channel) AS (
            SELECT c.checkpoint_ns, c.checkpoint_id, k.channel COLLATE "C"
            FROM tenure.checkpoint AS c
            CROSS JOIN LATERAL tenure.delta_channels_1(c.metadata) AS k (channel)
            WHERE c.thread_key = v_key
                AND c.tenant_id = p_tenant -- wall:predicate
                AND (c.run_id = ANY (p_runs)) IS NOT TRUE
            UNION
            SELECT w.ns, c.parent_checkpoint_id, w.channel
            FROM way AS w
            JOIN tenure.checkpoint AS c
                ON c.thread_key = v_key
                AND c.checkpoint_ns = w.ns
                AND c.checkpoint_id = w.id
                AND c.tenant_id = p_tenant -- wall:predicate
            WHERE c.parent_checkpoint_id IS NOT NULL
                AND NOT EXISTS (
                    SELECT
                    FROM tenure.channel_value AS v
                    WHERE v.thread_key = v_key
                        AND v.tenant_id = p_tenant -- wall:predicate
                        AND v.ns_hash = tenure.ns_hash_1(w.ns)
                        AND v.channel = w.channel
                        AND v.version = c.versions ->> w.channel
                        AND v.type <> 'empty'
                )
        )
        SELECT
        FROM way AS w
        JOIN unnest(v_namespaces, v_ids) AS d (ns, id)
            ON d.ns = w.ns
            AND d.id = w.id
    ) THEN
        PERFORM tenure.finish_operation_1(p_tenant, p_operation, p_thread, 'in_use');
        RETURN 'in_use';
    END IF;

    PERFORM tenure.drop_checkpoints_1(p_tenant, v_key, v_namespaces, v_ids);
    RETURN 'ok';
END
$$;

-- The DeltaChannels of a checkpoint: what its metadata counts since their last snapshot.
CREATE FUNCTION tenure.delta_channels_1(p_metadata text) RETURNS SETOF text
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_counters constant jsonb := p_metadata::jsonb -> 'counters_since_delta_snapshot';
BEGIN
    IF jsonb_typeof(v_counters) = 'object' THEN
        RETURN QUERY SELECT jsonb_object_keys(v_counters);
    END IF;
END
$$;

-- Removes all checkpoints of a thread but the latest of each namespace and what those need (see
-- ports.CheckpointStore.prune_threads).
CREATE FUNCTION tenure.prune_thread_1(
    p_tenant uuid,
    p_timeout_ms int,
    p_operation bytea,
    p_digest bytea,
    p_thread text
)
RETURNS text
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_key uuid;
    v_answer text;
    v_namespaces text[];
    v_ids text[];
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    PERFORM set_config('lock_timeout', p_timeout_ms::text, true);
    SELECT h.thread_key INTO v_key
    FROM tenure.thread_head AS h
    WHERE h.thread_id = p_thread
        AND h.tenant_id = p_tenant -- wall:predicate
    FOR UPDATE;
    v_answer := tenure.claim_operation_1(p_tenant, p_operation, p_thread, p_digest, 'ok');
    IF v_answer IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    IF v_key IS NULL THEN
        RETURN 'ok';
    END IF;

    WITH RECURSIVE latest AS MATERIALIZED (
        SELECT
            c.checkpoint_ns AS ns,
            c.checkpoint_id AS id,
            c.metadata,
            c.metadata::jsonb -> 'parents' -> '' AS caller
        FROM (
            SELECT g.checkpoint_ns, max(g.checkpoint_id) AS greatest
            FROM tenure.checkpoint AS g
            WHERE true
                AND g.tenant_id = p_tenant -- wall:predicate
                AND g.thread_key = v_key
            GROUP BY g.checkpoint_ns
        ) AS n
        LEFT JOIN tenure.head_override AS o
            ON o.thread_key = v_key
            AND o.ns_hash = tenure.ns_hash_1(n.checkpoint_ns)
            AND o.tenant_id = p_tenant -- wall:predicate
        JOIN tenure.checkpoint AS c
            ON c.thread_key = v_key
            AND c.checkpoint_ns = n.checkpoint_ns
            AND c.checkpoint_id = coalesce(o.checkpoint_id, n.greatest)
            AND c.tenant_id = p_tenant -- wall:predicate
    ),
    way (ns, id, channel) AS (
        SELECT l.ns, l.id, k.channel COLLATE "C"
        FROM latest AS l
        CROSS JOIN LATERAL tenure.delta_channels_1(l.metadata) AS k (channel)
        UNION
        SELECT w.ns, c.parent_checkpoint_id, w.channel
        FROM way AS w
        JOIN tenure.checkpoint AS c
            ON c.thread_key = v_key
            AND c.checkpoint_ns = w.ns
            AND c.checkpoint_id = w.id
            AND c.tenant_id = p_tenant -- wall:predicate
        WHERE c.parent_checkpoint_id IS NOT NULL
            AND NOT EXISTS (
                SELECT
                FROM tenure.channel_value AS v
                WHERE v.thread_key = v_key
                    AND v.tenant_id = p_tenant -- wall:predicate
                    AND v.ns_hash = tenure.ns_hash_1(w.ns)
                    AND v.channel = w.channel
                    AND v.version = c.versions ->> w.channel
                    AND v.type <> 'empty'
            )
    ),
    needed (ns, id) AS MATERIALIZED (
        SELECT l.ns, l.id FROM latest AS l
        UNION
        SELECT w.ns, w.id FROM way AS w
    ),
    kept (ns, id) AS MATERIALIZED (
        SELECT n.ns, n.id FROM needed AS n
        UNION
        -- Before format 4, LangGraph keeps the sends of a step with the parent.
        SELECT n.ns, c.parent_checkpoint_id
        FROM needed AS n
        JOIN tenure.checkpoint AS c
            ON c.thread_key = v_key
            AND c.checkpoint_ns = n.ns
            AND c.checkpoint_id = n.id
            AND c.tenant_id = p_tenant -- wall:predicate
        WHERE c.format_version < 4
            AND EXISTS (
                SELECT
                FROM tenure.pending_write AS w
                WHERE w.thread_key = v_key
                    AND w.tenant_id = p_tenant -- wall:predicate
                    AND w.ns_hash = tenure.ns_hash_1(n.ns)
                    AND w.checkpoint_id = c.parent_checkpoint_id
                    AND w.channel = '__pregel_tasks'
            )
    ),
    orphaned (ns) AS MATERIALIZED (
        SELECT l.ns
        FROM latest AS l
        JOIN tenure.checkpoint AS c
            ON c.thread_key = v_key
            AND c.checkpoint_ns = ''
            AND c.checkpoint_id = l.caller #>> '{}'
            AND c.tenant_id = p_tenant -- wall:predicate
        WHERE position(':' IN l.ns) > 0
            AND jsonb_typeof(l.caller) = 'string'
            AND NOT EXISTS (SELECT FROM kept AS k WHERE k.ns = '' AND k.id = c.checkpoint_id)
    )
    SELECT array_agg(c.checkpoint_ns), array_agg(c.checkpoint_id)
    INTO v_namespaces, v_ids
    FROM tenure.checkpoint AS c
    WHERE c.thread_key = v_key
        AND c.tenant_id = p_tenant -- wall:predicate
        AND (
            NOT EXISTS (SELECT FROM kept AS k WHERE k.ns = c.checkpoint_ns AND k.id = c.checkpoint_id)
            OR EXISTS (SELECT FROM orphaned AS o WHERE o.ns = c.checkpoint_ns)
        );

    PERFORM tenure.drop_checkpoints_1(p_tenant, v_key, v_namespaces, v_ids);
    RETURN 'ok';
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tenure FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tenure TO tenure_app;
