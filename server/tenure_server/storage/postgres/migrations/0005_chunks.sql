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

-- Applies puts and pending writes.
--
-- Threads come in bytewise order, those with a put apart from those with pending writes only. All numbers
-- count from 1: of threads in put_threads || write_threads, of puts, and of values. The puts of one namespace
-- have ascending ids, no pending write is named twice, and the base of an edit is not put in the same call
-- (the caller sees to all three).
--
-- Arrays are unnested side by side in select lists, which gives rows in their order. In FROM, each statement
-- would keep them in a tuple store, which takes a tenth of a small batch.
--
-- With p_wait a thread's lock is waited for, p_timeout_ms at most for each lock (SQLSTATE 55P03 then);
-- without it `busy` names the threads that somebody else holds, and nothing of them is applied.
-- `missing` names the puts with an edit whose base is not stored, or that does not come out as it says;
-- nothing of them is applied.
-- `conflicts` counts values whose version is stored with another value, which stays.
CREATE FUNCTION tenure.write_batch_2(
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
    p_value_put int[],
    p_value_channel text[],
    p_value_version text[],
    p_value_type text[],
    p_value_digest bytea[],
    p_value_data bytea[],
    p_edit_value int[],
    p_edit_base_version text[],
    p_edit_base_digest bytea[],
    p_edit_keep_first int[],
    p_edit_keep_last int[],
    p_edit_entries bytea[],
    p_chunk_value int[],
    p_chunk_id bytea[],
    p_chunk_data bytea[],
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
    OUT missing int[],
    OUT conflicts bigint
)
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_threads constant text[] := p_put_threads || p_write_threads;
    -- The key of each thread, null for one that is not locked.
    v_keys uuid[];
    v_put_keys uuid[] := '{}';
    v_write_keys uuid[] := '{}';
    v_locked int;
    v_made uuid[] := '{}';
    -- The thread of each put; null for one that is not to be applied.
    v_put_thread int[] := p_put_thread;
    -- Of values in chunks, as they are stored.
    v_recipes bytea[] := '{}';
    v_anchors text[] := '{}';
    v_keep_first int[] := '{}';
    v_keep_last int[] := '{}';
    v_kept int;
    v_told bigint;
    v_inserted bigint;
    v_refused int[] := '{}';
    v_rewritten uuid[] := '{}';
    v_latest text;
    v_row record;
    -- Assigned to: PERFORM would run a query.
    v_setting text;
BEGIN
    v_setting := set_config('app.tenant', p_tenant::text, true);
    v_setting := set_config('lock_timeout', p_timeout_ms::text, true);
    conflicts := 0;

    -- Most heads are there: lock first, then make those that are not. One that somebody makes in between is
    -- locked in the next round; one for whose deleter the lock waited is not there.
    LOOP
        IF cardinality(p_put_threads) = 0 THEN
            NULL;
        ELSIF p_wait THEN
            SELECT array_agg(l.thread_key) INTO v_put_keys
            FROM (SELECT unnest(p_put_threads) AS thread_id) AS t
            LEFT JOIN LATERAL (
                SELECT h.thread_key
                FROM tenure.thread_head AS h
                WHERE h.thread_id = t.thread_id
                    AND h.tenant_id = p_tenant -- wall:predicate
                FOR NO KEY UPDATE
            ) AS l ON true;
        ELSE
            SELECT array_agg(l.thread_key) INTO v_put_keys
            FROM (SELECT unnest(p_put_threads) AS thread_id) AS t
            LEFT JOIN LATERAL (
                SELECT h.thread_key
                FROM tenure.thread_head AS h
                WHERE h.thread_id = t.thread_id
                    AND h.tenant_id = p_tenant -- wall:predicate
                FOR NO KEY UPDATE SKIP LOCKED
            ) AS l ON true;
        END IF;
        IF cardinality(p_write_threads) = 0 THEN
            NULL;
        ELSIF p_wait THEN
            SELECT array_agg(l.thread_key) INTO v_write_keys
            FROM (SELECT unnest(p_write_threads) AS thread_id) AS t
            LEFT JOIN LATERAL (
                SELECT h.thread_key
                FROM tenure.thread_head AS h
                WHERE h.thread_id = t.thread_id
                    AND h.tenant_id = p_tenant -- wall:predicate
                FOR KEY SHARE
            ) AS l ON true;
        ELSE
            SELECT array_agg(l.thread_key) INTO v_write_keys
            FROM (SELECT unnest(p_write_threads) AS thread_id) AS t
            LEFT JOIN LATERAL (
                SELECT h.thread_key
                FROM tenure.thread_head AS h
                WHERE h.thread_id = t.thread_id
                    AND h.tenant_id = p_tenant -- wall:predicate
                FOR KEY SHARE SKIP LOCKED
            ) AS l ON true;
        END IF;
        v_keys := v_put_keys || v_write_keys;
        v_locked := cardinality(array_remove(v_keys, NULL));
        EXIT WHEN v_locked = cardinality(v_threads);

        -- What is not locked and yet there is busy, unless we waited.
        FOR v_row IN
            INSERT INTO tenure.thread_head AS n (tenant_id, thread_id)
            SELECT p_tenant, t.thread_id
            FROM unnest(v_threads, v_keys) AS t (thread_id, thread_key)
            LEFT JOIN LATERAL (
                SELECT h.thread_key
                FROM tenure.thread_head AS h
                WHERE h.thread_id = t.thread_id
                    AND h.tenant_id = p_tenant -- wall:predicate
                LIMIT 1
            ) AS s ON true
            WHERE t.thread_key IS NULL AND (p_wait OR s.thread_key IS NULL)
            ORDER BY t.thread_id COLLATE "C"
            ON CONFLICT DO NOTHING
            RETURNING n.thread_id, n.thread_key
        LOOP
            v_keys[array_position(v_threads, v_row.thread_id)] := v_row.thread_key;
            v_made := v_made || v_row.thread_key;
            v_locked := v_locked + 1;
        END LOOP;
        EXIT WHEN NOT p_wait OR v_locked = cardinality(v_threads);
    END LOOP;

    IF v_locked < cardinality(v_threads) THEN
        SELECT array_agg(i) INTO busy FROM generate_subscripts(v_keys, 1) AS i WHERE v_keys[i] IS NULL;
        IF v_locked = 0 THEN
            RETURN;
        END IF;
    END IF;

    IF cardinality(p_edit_value) > 0 THEN
        v_recipes := array_fill(NULL::bytea, ARRAY[cardinality(p_value_put)]);
        v_anchors := array_fill(NULL::text, ARRAY[cardinality(p_value_put)]);
        v_keep_first := array_fill(NULL::int, ARRAY[cardinality(p_value_put)]);
        v_keep_last := v_keep_first;
        FOR v_row IN
            SELECT e.value, p_value_put[e.value] AS put, r.recipe, p_value_digest[e.value] AS digest,
                tenure.recipe_digest_1(p_value_type[e.value], p_value_data[e.value], r.recipe) AS actual,
                -- The base's anchor serves this value, too: what is kept of both is kept of the anchor.
                coalesce(b.anchor_version, e.base_version) AS anchor,
                least(e.keep_first, b.keep_first) AS keep_first,
                least(e.keep_last, b.keep_last) AS keep_last
            FROM unnest(
                p_edit_value, p_edit_base_version, p_edit_base_digest, p_edit_keep_first, p_edit_keep_last,
                p_edit_entries
            ) AS e (value, base_version, base_digest, keep_first, keep_last, entries)
            LEFT JOIN LATERAL (
                SELECT c.digest, c.anchor_version, c.keep_first, c.keep_last,
                    tenure.whole_recipe_1(c.recipe, a.recipe, c.keep_first, c.keep_last) AS recipe
                FROM tenure.channel_value AS c
                LEFT JOIN LATERAL (
                    SELECT k.recipe
                    FROM tenure.channel_value AS k
                    WHERE k.thread_key = c.thread_key
                        AND k.ns_hash = c.ns_hash
                        AND k.channel = c.channel
                        AND k.version = c.anchor_version
                        AND k.tenant_id = p_tenant -- wall:predicate
                    LIMIT 1
                ) AS a ON true
                WHERE c.thread_key = v_keys[p_put_thread[p_value_put[e.value]]]
                    AND c.ns_hash = p_put_ns_hash[p_value_put[e.value]]
                    AND c.channel = p_value_channel[e.value]
                    AND c.version = e.base_version
                    AND c.tenant_id = p_tenant -- wall:predicate
                LIMIT 1
            ) AS b ON true
            CROSS JOIN LATERAL (
                SELECT CASE
                    WHEN e.base_version IS NULL THEN e.entries
                    WHEN b.digest = e.base_digest
                        AND (e.keep_first::bigint + e.keep_last) * 20 <= octet_length(b.recipe)
                    THEN
                        substring(b.recipe FOR e.keep_first * 20)
                        || e.entries
                        || substring(b.recipe FROM octet_length(b.recipe) - e.keep_last * 20 + 1)
                END AS recipe
                OFFSET 0 -- or else it is put together once for each mention
            ) AS r
            WHERE v_keys[p_put_thread[p_value_put[e.value]]] IS NOT NULL
        LOOP
            IF v_row.actual = v_row.digest THEN
                v_kept := CASE WHEN v_row.anchor IS NULL THEN 0 ELSE v_row.keep_first + v_row.keep_last END;
                v_told := octet_length(v_row.recipe) / 20 - v_kept;
                -- Against an anchor if that takes less room than to name it, and while there are no more entries
                -- to tell than the square root of all. More would make each value of a channel that grows
                -- larger, less would make more of them whole; this is near the least of both for any length.
                IF v_kept * 20 > octet_length(v_row.anchor) + 8
                    AND v_told * v_told <= octet_length(v_row.recipe) / 20
                THEN
                    v_recipes[v_row.value] := substring(
                        v_row.recipe FROM v_row.keep_first * 20 + 1 FOR v_told::int * 20
                    );
                    v_anchors[v_row.value] := v_row.anchor;
                    v_keep_first[v_row.value] := v_row.keep_first;
                    v_keep_last[v_row.value] := v_row.keep_last;
                ELSE
                    v_recipes[v_row.value] := v_row.recipe;
                END IF;
            ELSIF v_put_thread[v_row.put] IS NOT NULL THEN
                missing := missing || v_row.put;
                v_put_thread[v_row.put] := NULL;
            END IF;
        END LOOP;

        -- A thread that was made for nothing else is not there either.
        IF cardinality(missing) > 0 AND cardinality(v_made) > 0 THEN
            DELETE FROM tenure.thread_head AS h
            WHERE h.thread_key = ANY (v_made)
                AND h.tenant_id = p_tenant -- wall:predicate
                AND h.thread_key <> ALL (
                    SELECT v_keys[u.thread]
                    FROM unnest(v_put_thread || p_write_thread) AS u (thread)
                    WHERE v_keys[u.thread] IS NOT NULL
                );
        END IF;
    END IF;

    IF cardinality(p_put_thread) > 0 THEN
        -- Only puts that do not simply sort above all, or that end an override, need a closer look: one that is
        -- stored gives way. The thread's lock keeps others from storing it meanwhile.
        FOR v_row IN
            SELECT
                v_keys[p.thread] AS thread_key,
                p.ns_hash,
                p.id,
                p.parent,
                g.checkpoint_id AS greatest,
                p.ns,
                p.id COLLATE "C" > g.checkpoint_id AS is_greatest
            FROM (
                SELECT
                    unnest(v_put_thread) AS thread,
                    unnest(p_put_ns) AS ns,
                    unnest(p_put_ns_hash) AS ns_hash,
                    unnest(p_put_id) AS id,
                    unnest(p_put_parent) AS parent
            ) AS p
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
            WHERE p.id COLLATE "C" <= g.checkpoint_id OR o.checkpoint_id IS NOT NULL
        LOOP
            IF v_row.is_greatest THEN
                DELETE FROM tenure.head_override AS o
                WHERE o.thread_key = v_row.thread_key
                    AND o.tenant_id = p_tenant -- wall:predicate
                    AND o.ns_hash = v_row.ns_hash;
                CONTINUE;
            END IF;
            DELETE FROM tenure.checkpoint AS c
            WHERE c.thread_key = v_row.thread_key
                AND c.tenant_id = p_tenant -- wall:predicate
                AND c.checkpoint_ns = v_row.ns
                AND c.checkpoint_id = v_row.id;
            IF FOUND THEN
                v_rewritten := v_rewritten || v_row.thread_key;
                CONTINUE;
            END IF;
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
        END LOOP;

        INSERT INTO tenure.checkpoint (
            tenant_id, thread_key, checkpoint_ns, checkpoint_id, parent_checkpoint_id, body_type, body,
            metadata, filterable, run_id, format_version, versions
        )
        SELECT
            p_tenant, v_keys[p.thread], p.ns, p.id, p.parent, p.body_type, p.body,
            p.metadata, p.filterable::jsonb, p.run, p.format, p.versions::jsonb
        FROM (
            SELECT
                unnest(v_put_thread) AS thread,
                unnest(p_put_ns) AS ns,
                unnest(p_put_id) AS id,
                unnest(p_put_parent) AS parent,
                unnest(p_put_body_type) AS body_type,
                unnest(p_put_body) AS body,
                unnest(p_put_metadata) AS metadata,
                unnest(p_put_filterable) AS filterable,
                unnest(p_put_run) AS run,
                unnest(p_put_format) AS format,
                unnest(p_put_versions) AS versions
        ) AS p
        WHERE v_keys[p.thread] IS NOT NULL;

        IF cardinality(v_rewritten) > 0 THEN
            UPDATE tenure.thread_head AS h
            SET generation = h.generation + 1
            WHERE true
                AND h.tenant_id = p_tenant -- wall:predicate
                AND h.thread_key = ANY (v_rewritten);
        END IF;
    END IF;

    IF cardinality(p_value_put) > 0 THEN
        INSERT INTO tenure.channel_value (
            tenant_id, thread_key, ns_hash, channel, version, type, digest, data,
            recipe, anchor_version, keep_first, keep_last
        )
        SELECT
            p_tenant, v_keys[v_put_thread[p.put]], p_put_ns_hash[p.put], p.channel, p.version, p.type, p.digest,
            p.data, p.recipe, p.anchor_version, p.keep_first, p.keep_last
        FROM (
            SELECT
                unnest(p_value_put) AS put,
                unnest(p_value_channel) AS channel,
                unnest(p_value_version) AS version,
                unnest(p_value_type) AS type,
                unnest(p_value_digest) AS digest,
                unnest(p_value_data) AS data,
                unnest(v_recipes) AS recipe,
                unnest(v_anchors) AS anchor_version,
                unnest(v_keep_first) AS keep_first,
                unnest(v_keep_last) AS keep_last
        ) AS p
        WHERE v_keys[v_put_thread[p.put]] IS NOT NULL
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS v_inserted = ROW_COUNT;

        IF v_inserted < cardinality(p_value_put) THEN
            SELECT count(*), coalesce(array_agg(p.position), '{}') INTO conflicts, v_refused
            FROM unnest(p_value_put, p_value_channel, p_value_version, p_value_digest)
                WITH ORDINALITY AS p (put, channel, version, digest, position)
            CROSS JOIN LATERAL (
                SELECT c.digest
                FROM tenure.channel_value AS c
                WHERE c.thread_key = v_keys[v_put_thread[p.put]]
                    AND c.ns_hash = p_put_ns_hash[p.put]
                    AND c.channel = p.channel
                    AND c.version = p.version
                    AND c.tenant_id = p_tenant -- wall:predicate
                LIMIT 1
            ) AS v
            WHERE v.digest <> p.digest;
        END IF;
    END IF;

    IF cardinality(p_chunk_value) > 0 THEN
        -- Not those of a value that gave way to the one that is stored: nothing would name them.
        INSERT INTO tenure.chunk (tenant_id, thread_key, chunk_id, data)
        SELECT p_tenant, v_keys[v_put_thread[p_value_put[p.value]]], p.id, p.data
        FROM unnest(p_chunk_value, p_chunk_id, p_chunk_data) AS p (value, id, data)
        WHERE v_keys[v_put_thread[p_value_put[p.value]]] IS NOT NULL
            AND p.value <> ALL (v_refused)
        ON CONFLICT DO NOTHING;
    END IF;

    IF cardinality(p_write_thread) > 0 THEN
        -- KEY SHARE lets two calls write to one thread at once: in key order they cannot deadlock.
        INSERT INTO tenure.pending_write AS w (
            tenant_id, thread_key, ns_hash, checkpoint_id, task_id, idx, task_path, channel, type, data
        )
        SELECT
            p_tenant, v_keys[p.thread], p.ns_hash, p.checkpoint, p.task, p.idx, p.path, p.channel, p.type,
            p.data
        FROM (
            SELECT
                unnest(p_write_thread) AS thread,
                unnest(p_write_ns_hash) AS ns_hash,
                unnest(p_write_checkpoint) AS checkpoint,
                unnest(p_write_task) AS task,
                unnest(p_write_idx) AS idx,
                unnest(p_write_path) AS path,
                unnest(p_write_channel) AS channel,
                unnest(p_write_type) AS type,
                unnest(p_write_data) AS data
        ) AS p
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

-- Lists checkpoints by id descending, then thread and namespace ascending. Null arguments do not restrict.
CREATE FUNCTION tenure.list_heads_2(
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
    FROM tenure.read_heads_2(
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
CREATE FUNCTION tenure.channel_history_2(
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

-- What 0.1.0 calls, too, and what does for it what the functions above count on.

-- Copies a thread to a new one: 'ok', 'not_found' or 'exists'. Heads are taken in bytewise order, the
-- target's by inserting it. The source is locked FOR SHARE: puts and removals wait, other copies need not;
-- pending writes that come meanwhile are each in the copy or not.
CREATE OR REPLACE FUNCTION tenure.copy_thread_1(
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
        tenant_id, thread_key, ns_hash, channel, version, type, digest, data,
        recipe, anchor_version, keep_first, keep_last
    )
    SELECT
        p_tenant, v_target, v.ns_hash, v.channel, v.version, v.type, v.digest, v.data,
        v.recipe, v.anchor_version, v.keep_first, v.keep_last
    FROM tenure.channel_value AS v
    WHERE true
        AND v.tenant_id = p_tenant -- wall:predicate
        AND v.thread_key = v_source;

    INSERT INTO tenure.chunk (tenant_id, thread_key, chunk_id, data)
    SELECT p_tenant, v_target, c.chunk_id, c.data
    FROM tenure.chunk AS c
    WHERE true
        AND c.tenant_id = p_tenant -- wall:predicate
        AND c.thread_key = v_source;

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
-- others holds; chunks that no value names any more; and the name of a parent that goes.
CREATE OR REPLACE FUNCTION tenure.drop_checkpoints_1(
    p_tenant uuid, p_key uuid, p_namespaces text[], p_ids text[]
)
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

    -- IN and NOT IN in places where they are hashed: a join, planned for the few rows that the planner expects of
    -- a thread, compares each with each.
    WITH held AS MATERIALIZED (
        SELECT DISTINCT tenure.ns_hash_1(c.checkpoint_ns) AS ns_hash, e.channel, e.version
        FROM tenure.checkpoint AS c
        CROSS JOIN LATERAL jsonb_each_text(c.versions) AS e (channel, version)
        WHERE e.version IS NOT NULL
            AND c.tenant_id = p_tenant -- wall:predicate
            AND c.thread_key = p_key
    ), made_whole AS (
        -- What stays while its anchor goes. Both parts see the table as it was, and no row is of both.
        UPDATE tenure.channel_value AS v
        SET
            recipe = (
                SELECT tenure.whole_recipe_1(v.recipe, a.recipe, v.keep_first, v.keep_last)
                FROM tenure.channel_value AS a
                WHERE a.thread_key = p_key
                    AND a.ns_hash = v.ns_hash
                    AND a.channel = v.channel
                    AND a.version = v.anchor_version
                    AND a.tenant_id = p_tenant -- wall:predicate
                LIMIT 1
            ),
            anchor_version = NULL,
            keep_first = NULL,
            keep_last = NULL
        WHERE v.thread_key = p_key
            AND v.tenant_id = p_tenant -- wall:predicate
            AND v.anchor_version IS NOT NULL
            AND (v.ns_hash, v.channel, v.anchor_version) NOT IN (
                SELECT h.ns_hash, h.channel, h.version FROM held AS h
            )
            AND ((v.ns_hash, v.channel, v.version) IN (
                SELECT h.ns_hash, h.channel, h.version FROM held AS h
            )) IS TRUE
    )
    DELETE FROM tenure.channel_value AS v
    WHERE v.thread_key = p_key
        AND v.tenant_id = p_tenant -- wall:predicate
        AND (v.ns_hash, v.channel, v.version) NOT IN (SELECT h.ns_hash, h.channel, h.version FROM held AS h);

    -- The recipes are copied, or else a long one would be read from outside its row for each entry.
    WITH named AS MATERIALIZED (
        SELECT DISTINCT i.id
        FROM (
            SELECT v.recipe || ''::bytea AS recipe
            FROM tenure.channel_value AS v
            WHERE v.thread_key = p_key
                AND v.tenant_id = p_tenant -- wall:predicate
                AND v.recipe IS NOT NULL
            OFFSET 0
        ) AS r
        CROSS JOIN LATERAL tenure.recipe_ids_1(r.recipe) AS i (id)
    )
    DELETE FROM tenure.chunk AS c
    WHERE c.thread_key = p_key
        AND c.tenant_id = p_tenant -- wall:predicate
        AND NOT EXISTS (SELECT FROM named AS n WHERE n.id = c.chunk_id);

    UPDATE tenure.thread_head AS h
    SET generation = h.generation + 1
    WHERE true
        AND h.tenant_id = p_tenant -- wall:predicate
        AND h.thread_key = p_key;
END
$$;

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
    FROM tenure.channel_history_2(p_tenant, p_thread, p_ns, p_ns_hash, p_id, p_channels) AS h
    WHERE tenure.only_whole_1(ARRAY[h.recipe]);
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tenure FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tenure TO tenure_app;
