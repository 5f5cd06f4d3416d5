-- What tenants use, counted in the transactions that change it, and the limits on it; and writers that are
-- fenced off. For the rest see 0002_write.sql and docs/quotas.md.
--
-- What counts, as `stored_bytes`: the payload as it is stored, by octet_length, which is the same whether or not
-- Postgres compresses it:
--
--     checkpoint      body, metadata
--     channel_value   data (the whole value, or the header of one in chunks), recipe
--     chunk           data, as it travels: packed. One chunk of a thread counts once however many values name it
--     pending_write   data
--     item            the value's text: `verbatim` if there is one, else `value` as it is printed
--     item_vector     embedding, four bytes for each number
--
-- and neither ids, names, digests, what filters and searches look at, nor rows of deleted threads, which the
-- sweeper frees later. Expired items count until they are removed or overwritten.
--
-- Each table says itself how many bytes a row counts: a generated column, so that every version of the server
-- fills it, that it is never wrong, and that tenure_ops, which may not read payloads, can add it up. To add
-- these columns rewrites the tables, once.
--
-- Lock order: heads, data, and the tenant's row here last, by one statement; nothing comes after it. So two
-- batches never wait for each other crosswise, and whoever holds the row knows that no other transaction that
-- changed its tenant's usage commits meanwhile: see repair_usage_1. What is there already is counted by
-- 0014_usage_recount.sql.

LOCK TABLE
    tenure.thread_head, tenure.checkpoint, tenure.channel_value, tenure.chunk, tenure.pending_write,
    tenure.item, tenure.item_vector
IN ACCESS EXCLUSIVE MODE;

-- One row for each tenant that has ever written or has a limit. A limit that is null does not limit. Room in the
-- page lets the counters change without touching the index.
CREATE TABLE tenure.tenant_usage (
    tenant_id uuid PRIMARY KEY,
    stored_bytes bigint NOT NULL DEFAULT 0,
    threads bigint NOT NULL DEFAULT 0,
    items bigint NOT NULL DEFAULT 0,
    max_stored_bytes bigint CHECK (max_stored_bytes >= 0),
    max_threads bigint CHECK (max_threads >= 0),
    max_items bigint CHECK (max_items >= 0),
    max_checkpoints_per_thread int CHECK (max_checkpoints_per_thread >= 0),
    max_value_bytes bigint CHECK (max_value_bytes >= 0),
    soft_percent int NOT NULL DEFAULT 80 CHECK (soft_percent BETWEEN 1 AND 100)
) WITH (fillfactor = 50);

ALTER TABLE tenure.tenant_usage ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenure.tenant_usage FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON tenure.tenant_usage AS PERMISSIVE FOR ALL TO tenure_app
    USING (tenant_id = (SELECT nullif(current_setting('app.tenant', true), '')::uuid))
    WITH CHECK (tenant_id = (SELECT nullif(current_setting('app.tenant', true), '')::uuid));
CREATE POLICY only_own_tenant ON tenure.tenant_usage AS RESTRICTIVE FOR ALL TO tenure_app
    USING (tenant_id = (SELECT nullif(current_setting('app.tenant', true), '')::uuid))
    WITH CHECK (tenant_id = (SELECT nullif(current_setting('app.tenant', true), '')::uuid));
CREATE POLICY every_tenant ON tenure.tenant_usage AS PERMISSIVE FOR ALL TO tenure_ops
    USING (true) WITH CHECK (true);

-- Agents cannot lift the limits of their tenant.
GRANT SELECT, INSERT (tenant_id, stored_bytes, threads, items), UPDATE (stored_bytes, threads, items)
    ON tenure.tenant_usage TO tenure_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON tenure.tenant_usage TO tenure_ops;

-- A thread whose lease_until is still to come takes mutations only with its lease_token; so does one without a
-- lease refuse those with another token than its last. With single_writer a put needs a lease, or names the
-- checkpoint that it expects to be the latest. Whoever gives a lease locks the row FOR UPDATE: nothing less waits
-- for pending writes that are under way. Tokens come from one sequence for all threads, or else one
-- of a deleted thread would fit the thread that is made under its name later.
ALTER TABLE tenure.thread_head
    ADD COLUMN lease_token bigint NOT NULL DEFAULT 0,
    ADD COLUMN lease_until timestamptz,
    ADD COLUMN single_writer boolean NOT NULL DEFAULT false;
GRANT UPDATE (lease_token, lease_until, single_writer) ON tenure.thread_head TO tenure_app;

ALTER TABLE tenure.checkpoint ADD COLUMN bytes int NOT NULL
    GENERATED ALWAYS AS (octet_length(body) + octet_length(metadata)) STORED;
ALTER TABLE tenure.channel_value ADD COLUMN bytes int NOT NULL
    GENERATED ALWAYS AS (octet_length(data) + coalesce(octet_length(recipe), 0)) STORED;
ALTER TABLE tenure.chunk ADD COLUMN bytes int NOT NULL
    GENERATED ALWAYS AS (octet_length(data)) STORED;
ALTER TABLE tenure.pending_write ADD COLUMN bytes int NOT NULL
    GENERATED ALWAYS AS (octet_length(data)) STORED;
-- `replaced_bytes` is what the put before counted, null if there was none: so a statement that puts an item knows
-- what it replaced, whoever else puts it at the same time.
ALTER TABLE tenure.item
    ADD COLUMN bytes int NOT NULL GENERATED ALWAYS AS (octet_length(coalesce(verbatim, value::text))) STORED,
    ADD COLUMN replaced_bytes int;
GRANT UPDATE (replaced_bytes) ON tenure.item TO tenure_app;

GRANT SELECT (bytes) ON tenure.checkpoint, tenure.channel_value, tenure.chunk, tenure.pending_write, tenure.item
    TO tenure_ops;
GRANT SELECT (dims) ON tenure.item_vector TO tenure_ops;

-- Adds to what a tenant uses, as the last thing that a transaction does. Returns its limits on checkpoints of a
-- thread and on bytes of a value, or null.
--
-- What grows past a limit is refused with SQLSTATE 54TQ1 and the figures as DETAIL; servers that do not know it
-- take it for one of "program limit exceeded" and refuse the one mutation, too. What shrinks or stays is not
-- refused, however far above a limit the tenant is.
CREATE FUNCTION tenure.add_usage_1(p_tenant uuid, p_bytes bigint, p_threads bigint, p_items bigint)
RETURNS bigint[]
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_exceeded boolean;
    v_limits bigint[];
    v_row record;
BEGIN
    LOOP
        UPDATE tenure.tenant_usage AS u
        SET
            stored_bytes = u.stored_bytes + p_bytes,
            threads = u.threads + p_threads,
            items = u.items + p_items
        WHERE true
            AND u.tenant_id = p_tenant -- wall:predicate
        RETURNING
            (p_bytes > 0 AND u.stored_bytes > u.max_stored_bytes)
            OR (p_threads > 0 AND u.threads > u.max_threads)
            OR (p_items > 0 AND u.items > u.max_items),
            CASE
                WHEN u.max_checkpoints_per_thread IS NOT NULL OR u.max_value_bytes IS NOT NULL
                THEN ARRAY[u.max_checkpoints_per_thread, u.max_value_bytes]
            END
        INTO v_exceeded, v_limits;
        EXIT WHEN FOUND;
        INSERT INTO tenure.tenant_usage (tenant_id) VALUES (p_tenant) ON CONFLICT DO NOTHING;
    END LOOP;
    IF v_exceeded THEN
        SELECT u.* INTO v_row
        FROM tenure.tenant_usage AS u
        WHERE true
            AND u.tenant_id = p_tenant -- wall:predicate
        ;
        IF p_threads > 0 AND v_row.threads > v_row.max_threads THEN
            PERFORM tenure.refuse_1('threads', v_row.max_threads, v_row.threads - p_threads, p_threads);
        ELSIF p_items > 0 AND v_row.items > v_row.max_items THEN
            PERFORM tenure.refuse_1('items', v_row.max_items, v_row.items - p_items, p_items);
        END IF;
        PERFORM tenure.refuse_1(
            'stored_bytes', v_row.max_stored_bytes, v_row.stored_bytes - p_bytes, p_bytes
        );
    END IF;
    RETURN v_limits;
END
$$;

CREATE FUNCTION tenure.refuse_1(p_limit text, p_max bigint, p_used bigint, p_asked bigint)
RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RAISE EXCEPTION 'quota exceeded: %', p_limit
        USING
            ERRCODE = '54TQ1',
            DETAIL = json_build_object('limit', p_limit, 'max', p_max, 'used', p_used, 'asked', p_asked)::text;
END
$$;

-- Refuses checkpoints that were added to a thread whose head is locked, if there are more than p_max now.
CREATE FUNCTION tenure.check_checkpoints_1(p_tenant uuid, p_key uuid, p_added bigint, p_max bigint)
RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_there bigint;
BEGIN
    SELECT count(*) INTO v_there
    FROM tenure.checkpoint AS c
    WHERE true
        AND c.tenant_id = p_tenant -- wall:predicate
        AND c.thread_key = p_key;
    IF v_there > p_max THEN
        PERFORM tenure.refuse_1('checkpoints_per_thread', p_max, v_there - p_added, p_added);
    END IF;
END
$$;

-- Refuses a value that is larger than p_max.
CREATE FUNCTION tenure.check_value_1(p_max bigint, p_bytes bigint)
RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF p_bytes > p_max THEN
        PERFORM tenure.refuse_1('value_bytes', p_max, 0, p_bytes);
    END IF;
END
$$;

-- How many bytes the chunks of a whole recipe have, none if there is no recipe: an entry ends in the length of
-- its chunk.
CREATE FUNCTION tenure.recipe_bytes_1(p_recipe bytea) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
SELECT coalesce(
    sum(('x' || encode(substring(p_recipe FROM 20 * e.position + 17 FOR 4), 'hex'))::bit(32)::bigint), 0
)
FROM generate_series(0, octet_length(p_recipe) / 20 - 1) AS e (position)
$$;

-- What counts of a thread.
CREATE FUNCTION tenure.thread_bytes_1(p_tenant uuid, p_key uuid) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT coalesce(sum(c.bytes), 0)
        FROM tenure.checkpoint AS c
        WHERE true
            AND c.tenant_id = p_tenant -- wall:predicate
            AND c.thread_key = p_key
    ) + (
        SELECT coalesce(sum(v.bytes), 0)
        FROM tenure.channel_value AS v
        WHERE true
            AND v.tenant_id = p_tenant -- wall:predicate
            AND v.thread_key = p_key
    ) + (
        SELECT coalesce(sum(c.bytes), 0)
        FROM tenure.chunk AS c
        WHERE true
            AND c.tenant_id = p_tenant -- wall:predicate
            AND c.thread_key = p_key
    ) + (
        SELECT coalesce(sum(w.bytes), 0)
        FROM tenure.pending_write AS w
        WHERE true
            AND w.tenant_id = p_tenant -- wall:predicate
            AND w.thread_key = p_key
    );
END
$$;

-- What a tenant uses, counted anew: what the counters must equal at any moment. All from one snapshot.
CREATE FUNCTION tenure.recount_usage_1(
    p_tenant uuid,
    OUT stored_bytes bigint,
    OUT threads bigint,
    OUT items bigint
)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    SELECT
        (
            SELECT coalesce(sum(r.bytes), 0)
            FROM (
                SELECT c.thread_key, c.bytes::bigint AS bytes
                FROM tenure.checkpoint AS c
                WHERE true
                    AND c.tenant_id = p_tenant -- wall:predicate
                UNION ALL
                SELECT v.thread_key, v.bytes
                FROM tenure.channel_value AS v
                WHERE true
                    AND v.tenant_id = p_tenant -- wall:predicate
                UNION ALL
                SELECT c.thread_key, c.bytes
                FROM tenure.chunk AS c
                WHERE true
                    AND c.tenant_id = p_tenant -- wall:predicate
                UNION ALL
                SELECT w.thread_key, w.bytes
                FROM tenure.pending_write AS w
                WHERE true
                    AND w.tenant_id = p_tenant -- wall:predicate
            ) AS r
            -- Not rows of deleted threads.
            WHERE r.thread_key IN (
                SELECT h.thread_key
                FROM tenure.thread_head AS h
                WHERE true
                    AND h.tenant_id = p_tenant -- wall:predicate
            )
        ) + (
            SELECT coalesce(sum(i.bytes), 0)
            FROM tenure.item AS i
            WHERE true
                AND i.tenant_id = p_tenant -- wall:predicate
        ) + (
            SELECT coalesce(sum(4::bigint * v.dims), 0)
            FROM tenure.item_vector AS v
            WHERE true
                AND v.tenant_id = p_tenant -- wall:predicate
        ),
        (
            SELECT count(*)
            FROM tenure.thread_head AS h
            WHERE true
                AND h.tenant_id = p_tenant -- wall:predicate
        ),
        (
            SELECT count(*)
            FROM tenure.item AS i
            WHERE true
                AND i.tenant_id = p_tenant -- wall:predicate
        )
    INTO stored_bytes, threads, items;
END
$$;

-- Sets the counters of a tenant to what is there, and returns by how much they were wrong. It holds the tenant's
-- row, which every writer needs before it commits, and only then looks: what is not in the recount is counted
-- by its writer afterwards. Writers of the tenant wait as long as it counts.
CREATE FUNCTION tenure.repair_usage_1(
    p_tenant uuid,
    OUT stored_bytes bigint,
    OUT threads bigint,
    OUT items bigint
)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_held record;
    v_there record;
BEGIN
    PERFORM tenure.add_usage_1(p_tenant, 0, 0, 0);
    SELECT u.stored_bytes, u.threads, u.items INTO v_held
    FROM tenure.tenant_usage AS u
    WHERE true
        AND u.tenant_id = p_tenant -- wall:predicate
    ;
    SELECT r.* INTO v_there FROM tenure.recount_usage_1(p_tenant) AS r;
    stored_bytes := v_held.stored_bytes - v_there.stored_bytes;
    threads := v_held.threads - v_there.threads;
    items := v_held.items - v_there.items;
    UPDATE tenure.tenant_usage AS u
    SET stored_bytes = v_there.stored_bytes, threads = v_there.threads, items = v_there.items
    WHERE true
        AND u.tenant_id = p_tenant -- wall:predicate
    ;
END
$$;

-- Applies puts and pending writes, counts, and keeps writers off who are not, or no
-- longer, a thread's only one.
--
-- Threads come in bytewise order, those with a put apart from those with pending writes only. All numbers
-- count from 1: of threads in put_threads || write_threads, of puts, and of values. The puts of one namespace
-- have ascending ids, no pending write is named twice, and the base of an edit is not put in the same call;
-- before a put that expects a checkpoint no other put of its namespace comes (the caller sees to all four).
--
-- p_put_tokens and p_write_tokens say with which lease a thread is written to, null for none; both are empty if
-- all would be null. p_expected says, for each put, which checkpoint is to be the latest of its namespace, '' for
-- none, and null if it does not matter; it is empty if all would be null.
--
-- Arrays are unnested side by side in select lists, which gives rows in their order. In FROM, each statement
-- would keep them in a tuple store, which takes a tenth of a small batch.
--
-- With p_wait a thread's lock is waited for, p_timeout_ms at most for each lock (SQLSTATE 55P03 then);
-- without it `busy` names the threads that somebody else holds, and nothing of them is applied.
-- `missing` names the puts with an edit whose base is not stored, or that does not come out as it says;
-- nothing of them is applied. `stale` names the threads that have another writer and `stale_puts` the puts that
-- expected another checkpoint, or had to say which; nothing of them is applied. A put without a token ends a lease
-- that has run out, and its token; pending writes, which do not decide how the thread goes on, leave it.
-- `conflicts` counts values whose version is stored with another value, which stays.
--
-- Quotas (see add_usage_1) fail the whole call; the caller leaves out what cannot fit (growth_1), or halves it. A
-- value is as large as what a reader gets of it, put together if it is in chunks; values that were stored before are
-- not measured again.
CREATE FUNCTION tenure.write_batch_3(
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
    p_put_tokens bigint[],
    p_write_tokens bigint[],
    p_expected text[],
    OUT busy int[],
    OUT missing int[],
    OUT stale int[],
    OUT stale_puts int[],
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
    v_unmade int := 0;
    -- The thread of each put; null for one that is not to be applied.
    v_put_thread int[] := p_put_thread;
    -- Of values in chunks, as they are stored.
    v_recipes bytea[] := '{}';
    v_anchors text[] := '{}';
    v_keep_first int[] := '{}';
    v_keep_last int[] := '{}';
    v_kept int;
    v_told bigint;
    v_inserted bigint := 0;
    v_written bigint := 0;
    -- The size of the largest pending write that was added, or made larger.
    v_largest int;
    v_refused int[] := '{}';
    v_rewritten uuid[] := '{}';
    v_has_policies boolean;
    v_latest text;
    v_fenced boolean := cardinality(p_put_tokens || p_write_tokens) > 0 OR cardinality(p_expected) > 0;
    v_fenced_puts boolean;
    v_fenced_writes boolean;
    -- Threads to which a put may be added only where it is expected.
    v_alone int[] := '{}';
    -- Threads that are written to without a token and whose lease has run out.
    v_lapsed int[];
    -- By how much the tenant's payload grows, and of one statement.
    v_bytes bigint := 0;
    v_more bigint;
    v_limits bigint[];
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
            SELECT array_agg(l.thread_key), bool_or(l.fenced) INTO v_put_keys, v_fenced_puts
            FROM (SELECT unnest(p_put_threads) AS thread_id) AS t
            LEFT JOIN LATERAL (
                SELECT h.thread_key, h.lease_until IS NOT NULL OR h.single_writer AS fenced
                FROM tenure.thread_head AS h
                WHERE h.thread_id = t.thread_id
                    AND h.tenant_id = p_tenant -- wall:predicate
                FOR NO KEY UPDATE
            ) AS l ON true;
        ELSE
            SELECT array_agg(l.thread_key), bool_or(l.fenced) INTO v_put_keys, v_fenced_puts
            FROM (SELECT unnest(p_put_threads) AS thread_id) AS t
            LEFT JOIN LATERAL (
                SELECT h.thread_key, h.lease_until IS NOT NULL OR h.single_writer AS fenced
                FROM tenure.thread_head AS h
                WHERE h.thread_id = t.thread_id
                    AND h.tenant_id = p_tenant -- wall:predicate
                FOR NO KEY UPDATE SKIP LOCKED
            ) AS l ON true;
        END IF;
        IF cardinality(p_write_threads) = 0 THEN
            NULL;
        ELSIF p_wait THEN
            SELECT array_agg(l.thread_key), bool_or(l.fenced) INTO v_write_keys, v_fenced_writes
            FROM (SELECT unnest(p_write_threads) AS thread_id) AS t
            LEFT JOIN LATERAL (
                SELECT h.thread_key, h.lease_until IS NOT NULL OR h.single_writer AS fenced
                FROM tenure.thread_head AS h
                WHERE h.thread_id = t.thread_id
                    AND h.tenant_id = p_tenant -- wall:predicate
                FOR KEY SHARE
            ) AS l ON true;
        ELSE
            SELECT array_agg(l.thread_key), bool_or(l.fenced) INTO v_write_keys, v_fenced_writes
            FROM (SELECT unnest(p_write_threads) AS thread_id) AS t
            LEFT JOIN LATERAL (
                SELECT h.thread_key, h.lease_until IS NOT NULL OR h.single_writer AS fenced
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
            RETURNING n.thread_id, n.thread_key, n.single_writer
        LOOP
            v_fenced := v_fenced OR v_row.single_writer;
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

    IF v_fenced OR v_fenced_puts OR v_fenced_writes THEN
        FOR v_row IN
            SELECT i.number, i.token, h.single_writer,
                i.token <> h.lease_token
                OR (h.lease_until > clock_timestamp() AND i.token IS NULL) AS is_stale,
                h.lease_until IS NOT NULL AND i.token IS NULL AS is_lapsed
            FROM (
                SELECT
                    generate_subscripts(v_keys, 1) AS number,
                    unnest(v_keys) AS thread_key,
                    unnest(p_put_tokens || p_write_tokens) AS token
            ) AS i
            CROSS JOIN LATERAL (
                SELECT t.lease_token, t.lease_until, t.single_writer
                FROM tenure.thread_head AS t
                WHERE t.thread_key = i.thread_key
                    AND t.tenant_id = p_tenant -- wall:predicate
                LIMIT 1
            ) AS h
        LOOP
            IF v_row.is_stale THEN
                stale := stale || v_row.number;
                v_keys[v_row.number] := NULL;
                CONTINUE;
            END IF;
            IF v_row.single_writer AND v_row.token IS NULL THEN
                v_alone := v_alone || v_row.number;
            END IF;
            IF v_row.is_lapsed THEN
                v_lapsed := v_lapsed || v_row.number;
            END IF;
        END LOOP;
        FOR v_row IN
            SELECT p.number, p.thread, p.ns, p.expected, coalesce(o.checkpoint_id, g.checkpoint_id) AS latest
            FROM (
                SELECT
                    generate_subscripts(p_put_thread, 1) AS number,
                    unnest(p_put_thread) AS thread,
                    unnest(p_put_ns) AS ns,
                    unnest(p_put_ns_hash) AS ns_hash,
                    unnest(p_put_id) AS id,
                    unnest(p_expected) AS expected
            ) AS p
            LEFT JOIN LATERAL (
                SELECT coalesce(c.parent_checkpoint_id, '') AS parent
                FROM tenure.checkpoint AS c
                WHERE c.thread_key = v_keys[p.thread]
                    AND c.checkpoint_ns = p.ns
                    AND c.checkpoint_id = p.id
                    AND c.tenant_id = p_tenant -- wall:predicate
                LIMIT 1
            ) AS s ON true
            LEFT JOIN LATERAL (
                SELECT o.checkpoint_id
                FROM tenure.head_override AS o
                WHERE o.thread_key = v_keys[p.thread]
                    AND o.ns_hash = p.ns_hash
                    AND o.tenant_id = p_tenant -- wall:predicate
                LIMIT 1
            ) AS o ON true
            LEFT JOIN LATERAL (
                SELECT c.checkpoint_id
                FROM tenure.checkpoint AS c
                WHERE c.thread_key = v_keys[p.thread]
                    AND c.checkpoint_ns = p.ns
                    AND c.tenant_id = p_tenant -- wall:predicate
                ORDER BY c.checkpoint_id DESC
                LIMIT 1
            ) AS g ON true
            WHERE v_keys[p.thread] IS NOT NULL
                AND (
                    (p.expected IS NULL AND p.thread = ANY (v_alone))
                    -- A put that is repeated after it was stored finds itself.
                    OR (
                        p.expected <> coalesce(o.checkpoint_id, g.checkpoint_id, '')
                        AND p.expected IS DISTINCT FROM s.parent
                    )
                )
        LOOP
            -- Whoever reads does not find what has expired, and expects none.
            CONTINUE WHEN v_row.expected = ''
                AND tenure.has_policies_1(p_tenant, 'threads')
                AND tenure.is_hidden_1(p_tenant, v_keys[v_row.thread], v_row.ns, v_row.latest);
            stale_puts := stale_puts || v_row.number;
            v_put_thread[v_row.number] := NULL;
        END LOOP;
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
            WHERE v_keys[v_put_thread[p_value_put[e.value]]] IS NOT NULL
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

    END IF;

    -- A thread that was made for nothing else is not there either.
    IF cardinality(v_made) > 0 AND (missing IS NOT NULL OR stale IS NOT NULL OR stale_puts IS NOT NULL) THEN
        DELETE FROM tenure.thread_head AS h
        WHERE h.thread_key = ANY (v_made)
            AND h.tenant_id = p_tenant -- wall:predicate
            AND h.thread_key <> ALL (
                SELECT v_keys[u.thread]
                FROM unnest(v_put_thread || p_write_thread) AS u (thread)
                WHERE v_keys[u.thread] IS NOT NULL
            );
        GET DIAGNOSTICS v_unmade = ROW_COUNT;
    END IF;

    -- Who puts to a thread whose lease has run out takes it over: its holder would go on from what it knew.
    IF v_lapsed IS NOT NULL THEN
        UPDATE tenure.thread_head AS h
        SET lease_token = h.lease_token + 1, lease_until = NULL, lease_holder = '', lease_operation = NULL
        WHERE true
            AND h.tenant_id = p_tenant -- wall:predicate
            AND h.thread_key = ANY (ARRAY(
                SELECT v_keys[p.thread] FROM unnest(v_put_thread) AS p (thread) WHERE p.thread = ANY (v_lapsed)
            ));
    END IF;

    -- What had expired stays so, though its thread lives again; see retention_expired. Before anything is written, and in
    -- one order: writers of pending writes do this at once.
    v_has_policies := tenure.has_policies_1(p_tenant, 'threads');
    IF v_has_policies THEN
        FOR v_row IN
            SELECT DISTINCT u.thread_key
            FROM unnest(v_keys) AS u (thread_key)
            WHERE u.thread_key IS NOT NULL
            ORDER BY u.thread_key
        LOOP
            PERFORM tenure.remember_expired_now_1(p_tenant, v_row.thread_key);
        END LOOP;
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
                AND c.checkpoint_id = v_row.id
            RETURNING c.bytes INTO v_more;
            IF FOUND THEN
                v_bytes := v_bytes - v_more;
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

        WITH added AS (
            INSERT INTO tenure.checkpoint AS c (
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
            WHERE v_keys[p.thread] IS NOT NULL
            RETURNING c.bytes
        )
        SELECT coalesce(sum(a.bytes), 0) INTO v_more FROM added AS a;
        v_bytes := v_bytes + v_more;

        IF v_has_policies THEN
            -- What is put again has come back.
            DELETE FROM tenure.retention_expired AS x
            USING (
                SELECT unnest(v_put_thread) AS thread, unnest(p_put_ns_hash) AS ns_hash, unnest(p_put_id) AS id
            ) AS p
            WHERE x.thread_key = v_keys[p.thread]
                AND x.tenant_id = p_tenant -- wall:predicate
                AND x.ns_hash = p.ns_hash
                AND x.checkpoint_id = p.id;
        END IF;
        IF cardinality(v_rewritten) > 0 THEN
            UPDATE tenure.thread_head AS h
            SET generation = h.generation + 1
            WHERE true
                AND h.tenant_id = p_tenant -- wall:predicate
                AND h.thread_key = ANY (v_rewritten);
        END IF;
    END IF;

    IF cardinality(p_value_put) > 0 THEN
        WITH added AS (
            INSERT INTO tenure.channel_value AS c (
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
            ON CONFLICT DO NOTHING
            RETURNING c.bytes
        )
        SELECT count(*), coalesce(sum(a.bytes), 0) INTO v_inserted, v_more FROM added AS a;
        v_bytes := v_bytes + v_more;

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
        WITH added AS (
            INSERT INTO tenure.chunk AS c (tenant_id, thread_key, chunk_id, data)
            SELECT p_tenant, v_keys[v_put_thread[p_value_put[p.value]]], p.id, p.data
            FROM unnest(p_chunk_value, p_chunk_id, p_chunk_data) AS p (value, id, data)
            WHERE v_keys[v_put_thread[p_value_put[p.value]]] IS NOT NULL
                AND p.value <> ALL (v_refused)
            ON CONFLICT DO NOTHING
            RETURNING c.bytes
        )
        SELECT coalesce(sum(a.bytes), 0) INTO v_more FROM added AS a;
        v_bytes := v_bytes + v_more;
    END IF;

    IF cardinality(p_write_thread) > 0 THEN
        -- KEY SHARE lets two calls write to one thread at once: in key order they cannot deadlock.
        WITH added AS (
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
            ON CONFLICT DO NOTHING
            RETURNING w.bytes
        )
        SELECT count(*), coalesce(sum(a.bytes), 0), max(a.bytes) INTO v_written, v_more, v_largest
        FROM added AS a;
        v_bytes := v_bytes + v_more;

        IF v_written < cardinality(p_write_thread) THEN
            -- Those that replace what is there. What they replace is known once its row is locked; nobody removes
            -- it while we hold the thread. In key order again, and after all inserts: whoever waits for us there
            -- holds none of these.
            FOR v_row IN
                SELECT p.*, o.bytes
                FROM (
                    SELECT v_keys[u.thread] AS thread_key, u.*
                    FROM unnest(
                        p_write_thread, p_write_ns_hash, p_write_checkpoint, p_write_task, p_write_idx,
                        p_write_path, p_write_channel, p_write_type, p_write_data
                    ) AS u (thread, ns_hash, checkpoint, task, idx, path, channel, type, data)
                    WHERE u.idx < 0 AND v_keys[u.thread] IS NOT NULL
                    ORDER BY
                        v_keys[u.thread], u.ns_hash, u.checkpoint COLLATE "C", u.task COLLATE "C", u.idx
                ) AS p
                CROSS JOIN LATERAL (
                    SELECT w.bytes
                    FROM tenure.pending_write AS w
                    WHERE w.thread_key = p.thread_key
                        AND w.ns_hash = p.ns_hash
                        AND w.checkpoint_id = p.checkpoint
                        AND w.task_id = p.task
                        AND w.idx = p.idx
                        AND w.tenant_id = p_tenant -- wall:predicate
                    FOR NO KEY UPDATE
                ) AS o
            LOOP
                UPDATE tenure.pending_write AS w
                SET
                    task_path = v_row.path,
                    channel = v_row.channel,
                    type = v_row.type,
                    data = v_row.data,
                    created_at = now()
                WHERE w.thread_key = v_row.thread_key
                    AND w.tenant_id = p_tenant -- wall:predicate
                    AND w.ns_hash = v_row.ns_hash
                    AND w.checkpoint_id = v_row.checkpoint
                    AND w.task_id = v_row.task
                    AND w.idx = v_row.idx;
                v_bytes := v_bytes + octet_length(v_row.data) - v_row.bytes;
                IF octet_length(v_row.data) > v_row.bytes THEN
                    v_largest := greatest(v_largest, octet_length(v_row.data));
                END IF;
            END LOOP;
        END IF;
    END IF;

    IF v_bytes = 0 AND cardinality(v_made) = v_unmade AND v_rewritten = '{}' THEN
        RETURN;
    END IF;
    v_limits := tenure.add_usage_1(p_tenant, v_bytes, cardinality(v_made) - v_unmade, 0);
    IF v_limits[1] IS NOT NULL THEN
        FOR v_row IN
            SELECT n.thread_key, n.puts
            FROM (
                SELECT v_keys[p.thread] AS thread_key, count(*) AS puts
                FROM unnest(v_put_thread) AS p (thread)
                WHERE v_keys[p.thread] IS NOT NULL
                GROUP BY v_keys[p.thread]
            ) AS n
            WHERE n.puts > cardinality(array_positions(v_rewritten, n.thread_key))
        LOOP
            v_more := v_row.puts - cardinality(array_positions(v_rewritten, v_row.thread_key));
            PERFORM tenure.check_checkpoints_1(p_tenant, v_row.thread_key, v_more, v_limits[1]);
        END LOOP;
    END IF;
    IF v_limits[2] IS NOT NULL AND v_inserted > 0 THEN
        PERFORM tenure.check_value_1(v_limits[2], max(s.bytes))
        FROM unnest(p_value_put, p_value_channel, p_value_version) AS p (put, channel, version)
        CROSS JOIN LATERAL (
            SELECT octet_length(c.data) + tenure.recipe_bytes_1(
                tenure.whole_recipe_1(c.recipe, a.recipe, c.keep_first, c.keep_last)
            ) AS bytes
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
            WHERE c.thread_key = v_keys[v_put_thread[p.put]]
                AND c.ns_hash = p_put_ns_hash[p.put]
                AND c.channel = p.channel
                AND c.version = p.version
                -- Added here, and not one that was stored before.
                AND c.xmin = pg_current_xact_id()::xid
                AND c.tenant_id = p_tenant -- wall:predicate
            LIMIT 1
        ) AS s;
    END IF;
    IF v_limits[2] IS NOT NULL THEN
        PERFORM tenure.check_value_1(v_limits[2], v_largest);
    END IF;
END
$$;

-- By how much each of some mutations, alone, would let its tenant grow at least: asked once a batch is refused, so
-- that the caller need not try those that cannot fit. `p_threads` is of each mutation; all else is part of the
-- mutation, or the value, whose number stands beside it, and is named there once. `freed` is by how many bytes what
-- replaces something is smaller.
CREATE FUNCTION tenure.growth_1(
    p_tenant uuid,
    p_threads text[],
    p_put_mutation int[],
    p_put_ns text[],
    p_put_id text[],
    p_put_bytes bigint[],
    p_value_mutation int[],
    p_value_ns_hash bytea[],
    p_value_channel text[],
    p_value_version text[],
    p_value_bytes bigint[],
    p_chunk_value int[],
    p_chunk_id bytea[],
    p_chunk_bytes bigint[],
    p_write_mutation int[],
    p_write_ns_hash bytea[],
    p_write_checkpoint text[],
    p_write_task text[],
    p_write_idx int[],
    p_write_bytes bigint[],
    OUT threads bigint[],
    OUT bytes bigint[],
    OUT freed bigint
)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_keys uuid[];
    v_new int[];
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    SELECT array_agg(h.thread_key ORDER BY t.number), array_agg((h.thread_key IS NULL)::int ORDER BY t.number)
    INTO v_keys, threads
    FROM unnest(p_threads) WITH ORDINALITY AS t (thread_id, number)
    LEFT JOIN LATERAL (
        SELECT k.thread_key
        FROM tenure.thread_head AS k
        WHERE k.thread_id = t.thread_id
            AND k.tenant_id = p_tenant -- wall:predicate
        LIMIT 1
    ) AS h ON true;
    SELECT coalesce(array_agg(p.number), '{}') INTO v_new
    FROM unnest(p_value_mutation, p_value_ns_hash, p_value_channel, p_value_version)
        WITH ORDINALITY AS p (mutation, ns_hash, channel, version, number)
    WHERE NOT EXISTS (
        SELECT
        FROM tenure.channel_value AS c
        WHERE c.thread_key = v_keys[p.mutation]
            AND c.ns_hash = p.ns_hash
            AND c.channel = p.channel
            AND c.version = p.version
            AND c.tenant_id = p_tenant -- wall:predicate
    );
    SELECT array_agg(m.bytes ORDER BY m.number), coalesce(sum(m.freed), 0) INTO bytes, freed
    FROM (
        SELECT n.number, coalesce(sum(g.bytes), 0) AS bytes, -sum(g.bytes) FILTER (WHERE g.bytes < 0) AS freed
        FROM generate_subscripts(p_threads, 1) AS n (number)
        LEFT JOIN (
            SELECT p.mutation, p.bytes - coalesce(s.bytes, 0) AS bytes
            FROM unnest(p_put_mutation, p_put_ns, p_put_id, p_put_bytes) AS p (mutation, ns, id, bytes)
            LEFT JOIN LATERAL (
                SELECT c.bytes
                FROM tenure.checkpoint AS c
                WHERE c.thread_key = v_keys[p.mutation]
                    AND c.checkpoint_ns = p.ns
                    AND c.checkpoint_id = p.id
                    AND c.tenant_id = p_tenant -- wall:predicate
                LIMIT 1
            ) AS s ON true
            UNION ALL
            SELECT p_value_mutation[v.number], p_value_bytes[v.number]
            FROM unnest(v_new) AS v (number)
            UNION ALL
            SELECT p.mutation, p.bytes
            FROM (
                SELECT DISTINCT p_value_mutation[k.value] AS mutation, k.id, k.bytes
                FROM unnest(p_chunk_value, p_chunk_id, p_chunk_bytes) AS k (value, id, bytes)
                WHERE k.value = ANY (v_new)
            ) AS p
            WHERE NOT EXISTS (
                SELECT
                FROM tenure.chunk AS c
                WHERE c.thread_key = v_keys[p.mutation]
                    AND c.chunk_id = p.id
                    AND c.tenant_id = p_tenant -- wall:predicate
            )
            UNION ALL
            SELECT p.mutation, CASE WHEN s.bytes IS NULL OR p.idx < 0 THEN p.bytes - coalesce(s.bytes, 0) ELSE 0 END
            FROM unnest(
                p_write_mutation, p_write_ns_hash, p_write_checkpoint, p_write_task, p_write_idx, p_write_bytes
            ) AS p (mutation, ns_hash, checkpoint, task, idx, bytes)
            LEFT JOIN LATERAL (
                SELECT w.bytes
                FROM tenure.pending_write AS w
                WHERE w.thread_key = v_keys[p.mutation]
                    AND w.ns_hash = p.ns_hash
                    AND w.checkpoint_id = p.checkpoint
                    AND w.task_id = p.task
                    AND w.idx = p.idx
                    AND w.tenant_id = p_tenant -- wall:predicate
                LIMIT 1
            ) AS s ON true
        ) AS g ON g.mutation = n.number
        GROUP BY n.number
    ) AS m;
END
$$;

-- What servers of 0.1.0 call. They name no lease and expect nothing, and would not know what `stale` means: a batch
-- with such a mutation fails by 54TQ2, which they take for "program limit exceeded", and halve it until the one
-- that is refused is alone.
CREATE OR REPLACE FUNCTION tenure.write_batch_1(
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
    -- A put of the same thread and namespace, which is all that a value needs of its put.
    v_value_put constant int[] := ARRAY(
        SELECT (
            SELECT min(p.number)
            FROM unnest(p_put_thread, p_put_ns_hash) WITH ORDINALITY AS p (thread, ns_hash, number)
            WHERE p.thread = v.thread AND p.ns_hash = v.ns_hash
        )
        FROM unnest(p_value_thread, p_value_ns_hash) WITH ORDINALITY AS v (thread, ns_hash, number)
        ORDER BY v.number
    );
    v_stale boolean;
BEGIN
    SELECT w.busy, w.conflicts, coalesce(w.stale, w.stale_puts) IS NOT NULL
    INTO busy, conflicts, v_stale
    FROM tenure.write_batch_3(
        p_tenant, p_timeout_ms, p_wait, p_put_threads, p_write_threads, p_put_thread, p_put_ns, p_put_ns_hash,
        p_put_id, p_put_parent, p_put_body_type, p_put_body, p_put_metadata, p_put_filterable, p_put_run,
        p_put_format, p_put_versions, v_value_put, p_value_channel, p_value_version, p_value_type,
        p_value_digest, p_value_data, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', p_write_thread,
        p_write_ns_hash, p_write_checkpoint, p_write_task, p_write_idx, p_write_path, p_write_channel,
        p_write_type, p_write_data, '{}', '{}', '{}'
    ) AS w;
    IF v_stale THEN
        RAISE EXCEPTION 'the thread has another writer, which this server does not know: upgrade it'
            USING ERRCODE = '54TQ2';
    END IF;
END
$$;

-- What servers of all versions call: the same as before, and counted.

-- Removes a thread if it exists. The head goes now, and with it what it counts; the sweeper frees the other
-- rows, which nobody can reach without it.
CREATE OR REPLACE FUNCTION tenure.delete_thread_1(
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
    v_bytes bigint;
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
        v_bytes := tenure.thread_bytes_1(p_tenant, v_key);
        DELETE FROM tenure.thread_head AS h
        WHERE true
            AND h.tenant_id = p_tenant -- wall:predicate
            AND h.thread_key = v_key;
        INSERT INTO tenure.garbage (tenant_id, thread_key) VALUES (p_tenant, v_key);
        PERFORM tenure.add_usage_1(p_tenant, -v_bytes, -1, 0);
    END IF;
    RETURN 'ok';
END
$$;

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
    v_checkpoints bigint;
    v_limits bigint[];
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
    -- What has expired is not copied, see 0012_retention.sql.
    IF v_source IS NOT NULL AND tenure.is_hidden_1(p_tenant, v_source, NULL, NULL) THEN
        v_source := NULL;
    END IF;
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
    GET DIAGNOSTICS v_checkpoints = ROW_COUNT;

    -- Of a part that has expired the copy is hidden, too, where a policy governs it.
    INSERT INTO tenure.retention_expired (tenant_id, thread_key, ns_hash, checkpoint_id)
    SELECT p_tenant, v_target, tenure.ns_hash_1(e.ns), e.id
    FROM tenure.retention_1(p_tenant, v_source, NULL, NULL) AS r
    CROSS JOIN LATERAL unnest(r.namespaces, r.ids) AS e (ns, id);

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

    -- Counted in the copy: pending writes may come to the source meanwhile.
    v_limits := tenure.add_usage_1(p_tenant, tenure.thread_bytes_1(p_tenant, v_target), 1, 0);
    IF v_limits[1] IS NOT NULL THEN
        PERFORM tenure.check_checkpoints_1(p_tenant, v_target, v_checkpoints, v_limits[1]);
    END IF;
    RETURN 'ok';
END
$$;

-- Removes checkpoints of a thread, whose head is locked, with their pending writes; values that none of the
-- others holds; chunks that no value names any more; and the name of a parent that goes. The last thing of
-- its transaction, as it counts.
CREATE OR REPLACE FUNCTION tenure.drop_checkpoints_1(
    p_tenant uuid, p_key uuid, p_namespaces text[], p_ids text[]
)
RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_before constant bigint := tenure.thread_bytes_1(p_tenant, p_key);
BEGIN
    -- See 0012_retention.sql.
    PERFORM tenure.refuse_held_1(p_tenant, 'threads', h.thread_id)
    FROM tenure.thread_head AS h
    WHERE h.thread_key = p_key
        AND h.tenant_id = p_tenant -- wall:predicate
    ;

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

    PERFORM tenure.add_usage_1(p_tenant, tenure.thread_bytes_1(p_tenant, p_key) - v_before, 0, 0);
END
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
    -- By how much the tenant's payload and items grow, and of one statement.
    v_bytes bigint := 0;
    v_items bigint := 0;
    v_more bigint;
    v_fewer bigint;
    v_limits bigint[];
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
    WITH written AS (
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
            replaced_bytes = i.bytes,
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
        WHERE excluded.place > 0
        RETURNING i.bytes, i.replaced_bytes
    )
    SELECT coalesce(sum(w.bytes - coalesce(w.replaced_bytes, 0)), 0), count(*) FILTER (WHERE w.replaced_bytes IS NULL)
    INTO v_bytes, v_items
    FROM written AS w;

    IF p_deletes THEN
        WITH removed AS (
            DELETE FROM tenure.item AS i
            USING unnest(p_namespace, p_key, p_flags) AS w (namespace, key, flags)
            WHERE w.flags & 4 = 0
                AND i.tenant_id = p_tenant -- wall:predicate
                AND i.namespace = w.namespace
                AND i.key = w.key
            RETURNING i.bytes
        )
        SELECT coalesce(sum(r.bytes), 0), count(*) INTO v_more, v_fewer FROM removed AS r;
        v_bytes := v_bytes - v_more;
        v_items := v_items - v_fewer;
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
        WITH removed AS (
            DELETE FROM tenure.item_vector AS v
            USING unnest(p_namespace, p_key) AS w (namespace, key)
            WHERE v.namespace = w.namespace
                AND v.tenant_id = p_tenant -- wall:predicate
                AND v.key = w.key
            RETURNING v.dims
        )
        SELECT coalesce(sum(4::bigint * r.dims), 0) INTO v_more FROM removed AS r;
        v_bytes := v_bytes - v_more;
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
        GET DIAGNOSTICS v_more = ROW_COUNT;
        v_bytes := v_bytes + 4 * v_more * p_dims;
    END IF;

    IF v_bytes = 0 AND v_items = 0 THEN
        RETURN;
    END IF;
    v_limits := tenure.add_usage_1(p_tenant, v_bytes, 0, v_items);
    IF v_limits[2] IS NOT NULL THEN
        PERFORM tenure.check_value_1(v_limits[2], max(i.bytes))
        FROM unnest(p_namespace, p_key, p_flags) AS w (namespace, key, flags)
        CROSS JOIN LATERAL (
            SELECT s.bytes
            FROM tenure.item AS s
            WHERE s.namespace = w.namespace
                AND s.key = w.key
                AND s.tenant_id = p_tenant -- wall:predicate
                AND s.bytes > coalesce(s.replaced_bytes, 0)
            LIMIT 1
        ) AS i
        WHERE w.flags & 4 = 4;
    END IF;
END
$$;

-- growth_1 of groups of writes: the arguments are those of write_items_1. `freed_items` is how many deletes remove.
CREATE FUNCTION tenure.items_growth_1(
    p_tenant uuid,
    p_operation bytea[],
    p_dims int,
    p_group int[],
    p_namespace text[],
    p_key text[],
    p_flags int[],
    p_value text[],
    p_vector_write int[],
    OUT items bigint[],
    OUT bytes bigint[],
    OUT freed_items bigint,
    OUT freed bigint
)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    WITH written AS (
        SELECT
            w.of_group,
            (w.flags & 4 = 4)::int - (s.bytes IS NOT NULL)::int AS items,
            CASE
                WHEN w.flags & 4 = 0 THEN 0
                WHEN w.flags & 1 = 1 THEN octet_length(w.value)
                ELSE octet_length(w.value::jsonb::text)
            END + 4 * p_dims * cardinality(array_positions(p_vector_write, w.number::int))
            - coalesce(s.bytes, 0) - coalesce(v.bytes, 0) AS bytes
        FROM unnest(p_group, p_namespace, p_key, p_flags, p_value)
            WITH ORDINALITY AS w (of_group, namespace, key, flags, value, number)
        LEFT JOIN LATERAL (
            SELECT i.bytes
            FROM tenure.item AS i
            WHERE i.namespace = w.namespace
                AND i.key = w.key
                AND i.tenant_id = p_tenant -- wall:predicate
            LIMIT 1
        ) AS s ON true
        LEFT JOIN LATERAL (
            SELECT sum(4::bigint * x.dims) AS bytes
            FROM tenure.item_vector AS x
            WHERE x.namespace = w.namespace
                AND x.key = w.key
                AND x.tenant_id = p_tenant -- wall:predicate
        ) AS v ON true
        -- What is repeated is not applied again.
        WHERE NOT EXISTS (
            SELECT
            FROM tenure.operation AS o
            WHERE o.operation_id = p_operation[w.of_group]
                AND o.tenant_id = p_tenant -- wall:predicate
                AND o.part = ''
        )
    )
    SELECT
        array_agg(m.items ORDER BY m.number), array_agg(m.bytes ORDER BY m.number),
        coalesce(sum(m.freed_items), 0), coalesce(sum(m.freed), 0)
    INTO items, bytes, freed_items, freed
    FROM (
        SELECT
            n.number,
            coalesce(sum(w.items), 0) AS items,
            coalesce(sum(w.bytes), 0) AS bytes,
            -sum(w.items) FILTER (WHERE w.items < 0) AS freed_items,
            -sum(w.bytes) FILTER (WHERE w.bytes < 0) AS freed
        FROM generate_subscripts(p_operation, 1) AS n (number)
        LEFT JOIN written AS w ON w.of_group = n.number
        GROUP BY n.number
    ) AS m;
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
    v_removed bigint;
    v_added bigint;
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
    WITH removed AS (
        DELETE FROM tenure.item_vector AS v
        USING unnest(v_same) AS s (number)
        WHERE v.namespace = p_namespace[s.number]
            AND v.tenant_id = p_tenant -- wall:predicate
            AND v.key = p_key[s.number]
        RETURNING v.dims
    )
    SELECT coalesce(sum(4::bigint * r.dims), 0) INTO v_removed FROM removed AS r;
    WITH flat AS MATERIALIZED (SELECT p_embeddings || '{}'::real[] AS numbers)
    INSERT INTO tenure.item_vector (tenant_id, namespace, key, n, path, dims, embedding)
    SELECT
        p_tenant, p_namespace[e.of_item], p_key[e.of_item], e.number, e.path, p_dims,
        f.numbers[(e.number - 1) * p_dims + 1:e.number * p_dims]
    FROM unnest(p_vector_item, p_vector_path) WITH ORDINALITY AS e (of_item, path, number)
    CROSS JOIN flat AS f
    WHERE e.of_item = ANY (v_same);
    GET DIAGNOSTICS v_added = ROW_COUNT;
    PERFORM tenure.add_usage_1(p_tenant, 4 * v_added * p_dims - v_removed, 0, 0);
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
    v_removed bigint := 0;
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
        WITH removed AS (
            DELETE FROM tenure.item_vector AS v
            WHERE true
                AND v.tenant_id = p_tenant -- wall:predicate
            RETURNING v.dims
        )
        SELECT coalesce(sum(4::bigint * r.dims), 0) INTO v_removed FROM removed AS r;
        UPDATE tenure.item AS i
        SET unembedded = true
        WHERE NOT i.unembedded
            AND i.tenant_id = p_tenant -- wall:predicate
            AND i.index_paths IS DISTINCT FROM '{}';
    END IF;
    SELECT x.waiting::text INTO v_answer FROM tenure.item_index_2(p_tenant) AS x;
    PERFORM tenure.finish_operation_1(p_tenant, p_operation, '', v_answer);
    PERFORM tenure.add_usage_1(p_tenant, -v_removed, 0, 0);
    RETURN v_answer;
END
$$;

-- What the sweeper does to rows of live threads and to items, as tenure_ops.

-- Removes up to p_limit items whose time has run out, with their vectors, and returns how many. What somebody
-- writes or renews right now is left for the next run, and so is a tenant whose index is being changed: that takes
-- vectors before items.
CREATE FUNCTION tenure.expire_items_1(p_limit int) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_tenants uuid[];
    v_namespaces text[];
    v_keys text[];
    v_locked_namespaces text[];
    v_locked_keys text[];
    v_tenant uuid;
    v_items bigint;
    v_bytes bigint;
    v_removed bigint := 0;
BEGIN
    PERFORM set_config('tenure.counted', 'on', true);
    SELECT array_agg(e.tenant_id), array_agg(e.namespace), array_agg(e.key)
    INTO v_tenants, v_namespaces, v_keys
    FROM (
        SELECT i.tenant_id, i.namespace, i.key
        FROM tenure.item AS i
        WHERE i.expires_at <= now()
            -- As is_held_1 says it; a call of it for each item that is passed over takes too long.
            AND NOT EXISTS (
                SELECT
                FROM tenure.retention_hold AS x
                WHERE x.tenant_id = i.tenant_id
                    AND x.kind IN ('tenant', 'items')
                    AND tenure.covers_1('items', x.prefix, i.namespace)
            )
        ORDER BY i.expires_at
        LIMIT p_limit
    ) AS e;
    FOR v_tenant IN SELECT DISTINCT t.tenant_id FROM unnest(v_tenants) AS t (tenant_id) ORDER BY t.tenant_id LOOP
        CONTINUE WHEN NOT pg_try_advisory_xact_lock_shared(tenure.items_lock_1(v_tenant));
        PERFORM pg_advisory_xact_lock_shared(tenure.holds_lock_1(v_tenant));
        SELECT array_agg(l.namespace), array_agg(l.key) INTO v_locked_namespaces, v_locked_keys
        FROM (
            SELECT i.namespace, i.key
            FROM unnest(v_tenants, v_namespaces, v_keys) AS e (tenant_id, namespace, key)
            JOIN tenure.item AS i ON i.tenant_id = v_tenant AND i.namespace = e.namespace AND i.key = e.key
            WHERE e.tenant_id = v_tenant
                AND i.expires_at <= now()
                AND NOT tenure.is_held_1(v_tenant, 'items', i.namespace)
            FOR UPDATE OF i SKIP LOCKED
        ) AS l;
        WITH vectors AS (
            DELETE FROM tenure.item_vector AS v
            USING unnest(v_locked_namespaces, v_locked_keys) AS e (namespace, key)
            WHERE v.tenant_id = v_tenant AND v.namespace = e.namespace AND v.key = e.key
            RETURNING 4::bigint * v.dims AS bytes
        ), gone AS (
            DELETE FROM tenure.item AS i
            USING unnest(v_locked_namespaces, v_locked_keys) AS e (namespace, key)
            WHERE i.tenant_id = v_tenant AND i.namespace = e.namespace AND i.key = e.key
            RETURNING i.bytes
        )
        SELECT
            (SELECT count(*) FROM gone),
            (SELECT coalesce(sum(g.bytes), 0) FROM gone AS g) + (SELECT coalesce(sum(v.bytes), 0) FROM vectors AS v)
        INTO v_items, v_bytes;
        IF v_items > 0 THEN
            PERFORM tenure.add_usage_1(v_tenant, -v_bytes, 0, -v_items);
            v_removed := v_removed + v_items;
        END IF;
    END LOOP;
    RETURN v_removed;
END
$$;

-- Removes the pending writes of a checkpoint that never came and that are older than p_age seconds; returns how
-- many. As writers do it locks the head, so that a checkpoint that comes right now is seen or waits; a thread
-- that somebody holds is left for the next run, and one under a legal hold for later.
CREATE FUNCTION tenure.drop_orphans_1(
    p_tenant uuid, p_key uuid, p_ns_hash bytea, p_checkpoint text, p_age double precision
)
RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_thread text;
    v_bytes bigint;
    v_rows bigint;
BEGIN
    SELECT h.thread_id INTO v_thread
    FROM tenure.thread_head AS h
    WHERE h.tenant_id = p_tenant AND h.thread_key = p_key
    FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    PERFORM pg_advisory_xact_lock_shared(tenure.holds_lock_1(p_tenant));
    IF tenure.is_held_1(p_tenant, 'threads', v_thread) THEN
        RETURN 0;
    END IF;
    PERFORM set_config('tenure.counted', 'on', true);
    WITH gone AS (
        DELETE FROM tenure.pending_write AS w
        WHERE w.tenant_id = p_tenant
            AND w.thread_key = p_key
            AND w.ns_hash = p_ns_hash
            AND w.checkpoint_id = p_checkpoint
            AND w.created_at < now() - make_interval(secs => p_age)
            AND NOT EXISTS (
                SELECT
                FROM tenure.checkpoint AS c
                WHERE c.tenant_id = p_tenant
                    AND c.thread_key = p_key
                    AND c.checkpoint_id = p_checkpoint
                    AND octet_length(c.checkpoint_id) >= 0
                    AND tenure.ns_hash_1(c.checkpoint_ns) = p_ns_hash
            )
        RETURNING w.bytes
    )
    SELECT coalesce(sum(g.bytes), 0), count(*) INTO v_bytes, v_rows FROM gone AS g;
    PERFORM tenure.add_usage_1(p_tenant, -v_bytes, 0, 0);
    RETURN v_rows;
END
$$;

-- Sweepers of older servers do not count. What they would take of live threads and tenants stays until a newer
-- one is at work; what nobody can reach they may free.
CREATE POLICY only_counted ON tenure.item AS RESTRICTIVE FOR DELETE TO tenure_ops
    USING (
        (SELECT current_setting('tenure.counted', true) = 'on')
        OR EXISTS (
            SELECT FROM tenure.tenant AS t WHERE t.tenant_id = item.tenant_id AND t.deleted_at IS NOT NULL
        )
    );
CREATE POLICY only_counted ON tenure.pending_write AS RESTRICTIVE FOR DELETE TO tenure_ops
    USING (
        (SELECT current_setting('tenure.counted', true) = 'on')
        OR NOT EXISTS (
            SELECT
            FROM tenure.thread_head AS h
            WHERE h.tenant_id = pending_write.tenant_id AND h.thread_key = pending_write.thread_key
        )
        OR EXISTS (
            SELECT
            FROM tenure.tenant AS t
            WHERE t.tenant_id = pending_write.tenant_id AND t.deleted_at IS NOT NULL
        )
    );

REVOKE ALL ON FUNCTION
    tenure.add_usage_1, tenure.refuse_1, tenure.check_checkpoints_1, tenure.check_value_1,
    tenure.recipe_bytes_1, tenure.thread_bytes_1, tenure.recount_usage_1, tenure.repair_usage_1,
    tenure.write_batch_3, tenure.growth_1, tenure.write_items_1, tenure.items_growth_1, tenure.put_vectors_1,
    tenure.set_item_index_1, tenure.expire_items_1, tenure.drop_orphans_1
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    tenure.add_usage_1, tenure.refuse_1, tenure.check_checkpoints_1, tenure.check_value_1,
    tenure.recipe_bytes_1, tenure.thread_bytes_1, tenure.recount_usage_1, tenure.write_batch_3,
    tenure.growth_1, tenure.write_items_1, tenure.items_growth_1, tenure.put_vectors_1, tenure.set_item_index_1
TO tenure_app;
GRANT EXECUTE ON FUNCTION
    tenure.add_usage_1, tenure.refuse_1, tenure.thread_bytes_1, tenure.recount_usage_1,
    tenure.repair_usage_1, tenure.expire_items_1, tenure.drop_orphans_1, tenure.ns_hash_1
TO tenure_ops;
