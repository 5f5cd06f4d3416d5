-- Writing checkpoints and pending writes: a batch in one round trip.
--
-- Functions carry a version in their name, so that two versions of the server can share a database during
-- a rollout; a change is a new function. They are SECURITY INVOKER, name every object with its schema, and
-- set app.tenant for row level security themselves, for the transaction only. Each condition on the tenant
-- stands on a line of its own that ends in `-- wall:predicate`: a test cuts those lines, and row level
-- security must hold without them.
--
-- Rows are looked up in sub-selects with LIMIT 1 (or a lock) rather than joined: that leaves the planner one
-- way, by the whole primary key, whatever it believes about the size of the tables. As joins, on tables that
-- were new and not yet analysed, it read the whole thread: 9 ms instead of 0.4 for one head of a thread with
-- 1,000 checkpoints. As there is only that one way, plans are made once for each connection: without
-- force_generic_plan they were made anew for each call, which took 0.25 ms of a put and 0.6 ms of a read.
-- (The SET clause itself takes no time that could be measured.)
--
-- VOLATILE: each statement sees what was committed before it began. The heads are locked first and only
-- later statements look at data; a check within the locking statement would still see rows that a prune,
-- for which it waited, had removed.

-- Applies puts and pending writes.
--
-- Threads come in bytewise order, those with a put apart from those with pending writes only; the int
-- arrays index put_threads || write_threads. The puts of one namespace have ascending ids, and no pending
-- write is named twice (the caller sees to both).
--
-- With p_wait a thread's lock is waited for, p_timeout_ms at most for each lock (SQLSTATE 55P03 then);
-- without it `busy` names the threads that somebody else holds, and nothing of them is applied.
-- `conflicts` counts values whose version is stored with another value, which stays.
CREATE FUNCTION tenure.write_batch_1(
    p_tenant uuid,
    p_timeout_ms int,
    p_wait boolean,
    p_put_threads text[],
    p_write_threads text[],
    p_put_thread int[],
    p_put_ns text[],
    p_put_ns_hash bytea[],
    p_put_id text[],
    p_put_parent text[],
    p_put_body_type text[],
    p_put_body bytea[],
    p_put_metadata text[],
    p_put_filterable text[],
    p_put_run text[],
    p_put_format int[],
    p_put_versions text[],
    p_value_thread int[],
    p_value_ns_hash bytea[],
    p_value_channel text[],
    p_value_version text[],
    p_value_type text[],
    p_value_digest bytea[],
    p_value_data bytea[],
    p_write_thread int[],
    p_write_ns_hash bytea[],
    p_write_checkpoint text[],
    p_write_task text[],
    p_write_idx int[],
    p_write_path text[],
    p_write_channel text[],
    p_write_type text[],
    p_write_data bytea[],
    OUT busy int[],
    OUT conflicts bigint
)
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_threads constant text[] := p_put_threads || p_write_threads;
    v_keys uuid[] := array_fill(NULL::uuid, ARRAY[cardinality(v_threads)]);
    v_locked int;
    v_inserted bigint;
    v_rewritten uuid[] := '{}';
    v_latest text;
    v_row record;
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    PERFORM set_config('lock_timeout', p_timeout_ms::text, true);
    conflicts := 0;

    -- A head that is deleted between the insert and the lock, or for whose deleter the lock waited, is
    -- simply not there: make it again.
    LOOP
        INSERT INTO tenure.thread_head (tenant_id, thread_id)
        SELECT p_tenant, t.thread_id
        FROM unnest(v_threads) AS t (thread_id)
        ORDER BY t.thread_id COLLATE "C"
        ON CONFLICT DO NOTHING;

        v_locked := 0;
        IF p_wait THEN
            FOR v_row IN
                SELECT t.position, l.thread_key
                FROM unnest(p_put_threads) WITH ORDINALITY AS t (thread_id, position)
                CROSS JOIN LATERAL (
                    SELECT h.thread_key
                    FROM tenure.thread_head AS h
                    WHERE h.thread_id = t.thread_id
                        AND h.tenant_id = p_tenant -- wall:predicate
                    FOR NO KEY UPDATE
                ) AS l
            LOOP
                v_keys[v_row.position] := v_row.thread_key;
                v_locked := v_locked + 1;
            END LOOP;
        ELSIF cardinality(p_put_threads) > 0 THEN
            FOR v_row IN
                SELECT t.position, l.thread_key
                FROM unnest(p_put_threads) WITH ORDINALITY AS t (thread_id, position)
                CROSS JOIN LATERAL (
                    SELECT h.thread_key
                    FROM tenure.thread_head AS h
                    WHERE h.thread_id = t.thread_id
                        AND h.tenant_id = p_tenant -- wall:predicate
                    FOR NO KEY UPDATE SKIP LOCKED
                ) AS l
            LOOP
                v_keys[v_row.position] := v_row.thread_key;
                v_locked := v_locked + 1;
            END LOOP;
        END IF;
        IF cardinality(p_write_threads) = 0 THEN
            NULL;
        ELSIF p_wait THEN
            FOR v_row IN
                SELECT t.position, l.thread_key
                FROM unnest(p_write_threads) WITH ORDINALITY AS t (thread_id, position)
                CROSS JOIN LATERAL (
                    SELECT h.thread_key
                    FROM tenure.thread_head AS h
                    WHERE h.thread_id = t.thread_id
                        AND h.tenant_id = p_tenant -- wall:predicate
                    FOR KEY SHARE
                ) AS l
            LOOP
                v_keys[cardinality(p_put_threads) + v_row.position] := v_row.thread_key;
                v_locked := v_locked + 1;
            END LOOP;
        ELSE
            FOR v_row IN
                SELECT t.position, l.thread_key
                FROM unnest(p_write_threads) WITH ORDINALITY AS t (thread_id, position)
                CROSS JOIN LATERAL (
                    SELECT h.thread_key
                    FROM tenure.thread_head AS h
                    WHERE h.thread_id = t.thread_id
                        AND h.tenant_id = p_tenant -- wall:predicate
                    FOR KEY SHARE SKIP LOCKED
                ) AS l
            LOOP
                v_keys[cardinality(p_put_threads) + v_row.position] := v_row.thread_key;
                v_locked := v_locked + 1;
            END LOOP;
        END IF;
        EXIT WHEN NOT p_wait OR v_locked = cardinality(v_threads);
    END LOOP;

    IF v_locked < cardinality(v_threads) THEN
        SELECT array_agg(i) INTO busy FROM generate_subscripts(v_keys, 1) AS i WHERE v_keys[i] IS NULL;
        IF v_locked = 0 THEN
            RETURN;
        END IF;
    END IF;

    IF cardinality(p_put_thread) > 0 THEN
        -- Only puts that do not simply sort above all, or that end an override, need a closer look.
        FOR v_row IN
            SELECT
                v_keys[p.thread] AS thread_key,
                p.ns_hash,
                p.id,
                p.parent,
                g.checkpoint_id AS greatest,
                p.id COLLATE "C" > g.checkpoint_id AS is_greatest,
                s.checkpoint_id IS NOT NULL AS is_stored
            FROM unnest(p_put_thread, p_put_ns, p_put_ns_hash, p_put_id, p_put_parent)
                WITH ORDINALITY AS p (thread, ns, ns_hash, id, parent, position)
            CROSS JOIN LATERAL (
                SELECT c.checkpoint_id
                FROM tenure.checkpoint AS c
                WHERE c.thread_key = v_keys[p.thread]
                    AND c.checkpoint_ns = p.ns
                    AND c.tenant_id = p_tenant -- wall:predicate
                ORDER BY c.checkpoint_id DESC
                LIMIT 1
            ) AS g
            LEFT JOIN LATERAL (
                SELECT h.checkpoint_id
                FROM tenure.head_override AS h
                WHERE h.thread_key = v_keys[p.thread]
                    AND h.ns_hash = p.ns_hash
                    AND h.tenant_id = p_tenant -- wall:predicate
                LIMIT 1
            ) AS o ON true
            LEFT JOIN LATERAL (
                SELECT c.checkpoint_id
                FROM tenure.checkpoint AS c
                WHERE c.thread_key = v_keys[p.thread]
                    AND c.checkpoint_ns = p.ns
                    AND c.checkpoint_id = p.id
                    AND c.tenant_id = p_tenant -- wall:predicate
                LIMIT 1
            ) AS s ON true
            WHERE p.id COLLATE "C" <= g.checkpoint_id OR o.checkpoint_id IS NOT NULL
            ORDER BY p.position
        LOOP
            IF v_row.is_greatest THEN
                DELETE FROM tenure.head_override AS o
                WHERE o.thread_key = v_row.thread_key
                    AND o.tenant_id = p_tenant -- wall:predicate
                    AND o.ns_hash = v_row.ns_hash;
            ELSIF v_row.is_stored THEN
                v_rewritten := v_rewritten || v_row.thread_key;
            ELSE
                -- Read here, not above: an earlier put of this batch may have changed it.
                SELECT o.checkpoint_id INTO v_latest
                FROM tenure.head_override AS o
                WHERE o.thread_key = v_row.thread_key
                    AND o.tenant_id = p_tenant -- wall:predicate
                    AND o.ns_hash = v_row.ns_hash;
                IF v_row.parent = coalesce(v_latest, v_row.greatest) THEN
                    INSERT INTO tenure.head_override (tenant_id, thread_key, ns_hash, checkpoint_id)
                    VALUES (p_tenant, v_row.thread_key, v_row.ns_hash, v_row.id)
                    ON CONFLICT (tenant_id, thread_key, ns_hash)
                    DO UPDATE SET checkpoint_id = excluded.checkpoint_id;
                END IF;
            END IF;
        END LOOP;

        INSERT INTO tenure.checkpoint AS c (
            tenant_id, thread_key, checkpoint_ns, checkpoint_id, parent_checkpoint_id, body_type, body,
            metadata, filterable, run_id, format_version, versions
        )
        SELECT
            p_tenant, v_keys[p.thread], p.ns, p.id, p.parent, p.body_type, p.body,
            p.metadata, p.filterable::jsonb, p.run, p.format, p.versions::jsonb
        FROM unnest(
            p_put_thread, p_put_ns, p_put_id, p_put_parent, p_put_body_type, p_put_body, p_put_metadata,
            p_put_filterable, p_put_run, p_put_format, p_put_versions
        ) AS p (thread, ns, id, parent, body_type, body, metadata, filterable, run, format, versions)
        WHERE v_keys[p.thread] IS NOT NULL
        ON CONFLICT (tenant_id, thread_key, checkpoint_ns, checkpoint_id) DO UPDATE SET
            parent_checkpoint_id = excluded.parent_checkpoint_id,
            body_type = excluded.body_type,
            body = excluded.body,
            metadata = excluded.metadata,
            filterable = excluded.filterable,
            run_id = excluded.run_id,
            format_version = excluded.format_version,
            versions = excluded.versions;

        IF cardinality(v_rewritten) > 0 THEN
            UPDATE tenure.thread_head AS h
            SET generation = h.generation + 1
            WHERE true
                AND h.tenant_id = p_tenant -- wall:predicate
                AND h.thread_key = ANY (v_rewritten);
        END IF;
    END IF;

    IF cardinality(p_value_thread) > 0 THEN
        INSERT INTO tenure.channel_value (
            tenant_id, thread_key, ns_hash, channel, version, type, digest, data
        )
        SELECT p_tenant, v_keys[p.thread], p.ns_hash, p.channel, p.version, p.type, p.digest, p.data
        FROM unnest(
            p_value_thread, p_value_ns_hash, p_value_channel, p_value_version, p_value_type, p_value_digest,
            p_value_data
        ) AS p (thread, ns_hash, channel, version, type, digest, data)
        WHERE v_keys[p.thread] IS NOT NULL
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS v_inserted = ROW_COUNT;

        IF v_inserted < cardinality(p_value_thread) THEN
            SELECT count(*) INTO conflicts
            FROM unnest(p_value_thread, p_value_ns_hash, p_value_channel, p_value_version, p_value_digest)
                AS p (thread, ns_hash, channel, version, digest)
            CROSS JOIN LATERAL (
                SELECT c.digest
                FROM tenure.channel_value AS c
                WHERE c.thread_key = v_keys[p.thread]
                    AND c.ns_hash = p.ns_hash
                    AND c.channel = p.channel
                    AND c.version = p.version
                    AND c.tenant_id = p_tenant -- wall:predicate
                LIMIT 1
            ) AS v
            WHERE v.digest <> p.digest;
        END IF;
    END IF;

    IF cardinality(p_write_thread) > 0 THEN
        -- KEY SHARE lets two calls write to one thread at once: in key order they cannot deadlock.
        INSERT INTO tenure.pending_write AS w (
            tenant_id, thread_key, ns_hash, checkpoint_id, task_id, idx, task_path, channel, type, data
        )
        SELECT
            p_tenant, v_keys[p.thread], p.ns_hash, p.checkpoint, p.task, p.idx, p.path, p.channel, p.type, p.data
        FROM unnest(
            p_write_thread, p_write_ns_hash, p_write_checkpoint, p_write_task, p_write_idx, p_write_path,
            p_write_channel, p_write_type, p_write_data
        ) AS p (thread, ns_hash, checkpoint, task, idx, path, channel, type, data)
        WHERE v_keys[p.thread] IS NOT NULL
        ORDER BY v_keys[p.thread], p.ns_hash, p.checkpoint COLLATE "C", p.task COLLATE "C", p.idx
        ON CONFLICT (tenant_id, thread_key, ns_hash, checkpoint_id, task_id, idx) DO UPDATE SET
            task_path = excluded.task_path,
            channel = excluded.channel,
            type = excluded.type,
            data = excluded.data,
            created_at = excluded.created_at
        WHERE w.idx < 0;
    END IF;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tenure FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tenure TO tenure_app;
