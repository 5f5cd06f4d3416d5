-- Retention: policies, pins and legal holds, and the one place that says what has expired; see docs/retention.md.
-- For the rest see 0001_schema.sql.
--
-- Reads (0013_retention_reads.sql), the preview and the sweeper all ask retention_1 and item_expired_1.

-- `prefix` is of thread ids, or a namespace as items have it; '' is for all. The line of `max_bytes` goes through the
-- thread or item with this time and name: what was written no later than that has expired, since `line_since`; or
-- since longer ago, if no later than `settled_at` and `settled_name`, the line before.
CREATE TABLE tenure.retention_policy (
    tenant_id uuid NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('threads', 'items')),
    prefix text COLLATE "C" NOT NULL,
    max_age interval CHECK (max_age > interval '0'),
    max_idle interval CHECK (max_idle > interval '0'),
    keep_last int CHECK (keep_last > 0),
    item_ttl interval CHECK (item_ttl > interval '0'),
    max_bytes bigint CHECK (max_bytes >= 0),
    floor int NOT NULL DEFAULT 0 CHECK (floor >= 0),
    updated_at timestamptz NOT NULL DEFAULT now(),
    line_at timestamptz,
    line_name text COLLATE "C",
    line_since timestamptz,
    settled_at timestamptz,
    settled_name text COLLATE "C",
    PRIMARY KEY (tenant_id, kind, prefix),
    CHECK (CASE kind
        WHEN 'threads' THEN item_ttl IS NULL
        ELSE max_age IS NULL AND max_idle IS NULL AND keep_last IS NULL AND floor = 0
    END)
);

-- Of a thread as a whole where the checkpoint's id is ''. Belongs to one life of the thread.
CREATE TABLE tenure.retention_pin (
    tenant_id uuid NOT NULL,
    thread_key uuid NOT NULL,
    ns_hash bytea NOT NULL,
    checkpoint_id text COLLATE "C" NOT NULL,
    checkpoint_ns text COLLATE "C" NOT NULL,
    reason text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, thread_key, ns_hash, checkpoint_id)
);

CREATE TABLE tenure.retention_hold (
    tenant_id uuid NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('tenant', 'threads', 'items')),
    prefix text COLLATE "C" NOT NULL,
    reason text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, kind, prefix),
    CHECK (kind <> 'tenant' OR prefix = '')
);

-- What had expired when a thread that had done so was written to again. A line of max_bytes moves, and the age of
-- the thread begins anew: nothing else would tell it from what came after.
CREATE TABLE tenure.retention_expired (
    tenant_id uuid NOT NULL,
    thread_key uuid NOT NULL,
    ns_hash bytea NOT NULL,
    checkpoint_id text COLLATE "C" NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, thread_key, ns_hash, checkpoint_id)
);

DO $$
DECLARE
    v_table text;
    v_own constant text := 'tenant_id = (SELECT nullif(current_setting(''app.tenant'', true), '''')::uuid)';
BEGIN
    FOREACH v_table IN ARRAY ARRAY['retention_policy', 'retention_pin', 'retention_hold', 'retention_expired'] LOOP
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

-- tenure_app draws lines, and in a preview it makes the policy that is asked about, to take it back again. It can
-- lift neither a pin nor a hold. tenure_ops sets them; it cannot tell what expires, for which payloads' metadata
-- must be read.
GRANT SELECT, INSERT, UPDATE ON tenure.retention_policy TO tenure_app;
GRANT SELECT ON tenure.retention_pin, tenure.retention_hold TO tenure_app;
GRANT SELECT, INSERT, DELETE ON tenure.retention_expired TO tenure_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON tenure.retention_policy, tenure.retention_pin, tenure.retention_hold
    TO tenure_ops;
GRANT SELECT, DELETE ON tenure.retention_expired TO tenure_ops;

-- Whether a prefix covers the id of a thread, or a namespace.
CREATE FUNCTION tenure.covers_1(p_kind text, p_prefix text, p_name text) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
SELECT CASE
    WHEN p_prefix = '' THEN true
    WHEN p_kind = 'threads' THEN starts_with(p_name, p_prefix)
    ELSE p_name = p_prefix OR starts_with(p_name, p_prefix || E'\x01\x01')
END
$$;

-- The policy that counts for a thread or a namespace, if there is one.
CREATE FUNCTION tenure.policy_of_1(p_tenant uuid, p_kind text, p_name text) RETURNS SETOF tenure.retention_policy
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT x.*
    FROM tenure.retention_policy AS x
    WHERE x.kind = p_kind
        AND x.tenant_id = p_tenant -- wall:predicate
        AND tenure.covers_1(p_kind, x.prefix, p_name)
    ORDER BY length(x.prefix) DESC
    LIMIT 1;
END
$$;

-- Whether a legal hold covers a thread or a namespace.
CREATE FUNCTION tenure.is_held_1(p_tenant uuid, p_kind text, p_name text) RETURNS boolean
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN EXISTS (
        SELECT
        FROM tenure.retention_hold AS x
        WHERE x.kind IN ('tenant', p_kind)
            AND x.tenant_id = p_tenant -- wall:predicate
            AND tenure.covers_1(p_kind, x.prefix, p_name)
    );
END
$$;

-- The key of the advisory lock of a tenant's holds. Who deletes takes it shared before it looks for a hold, who makes
-- one takes it alone: so nothing is deleted once a hold is there, whatever was under way.
CREATE FUNCTION tenure.holds_lock_1(p_tenant uuid) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
SELECT hashtextextended('tenure.hold ' || p_tenant::text, 0)
$$;

-- Raises TH001 if a legal hold covers a thread or a namespace: for whatever deletes on request.
CREATE FUNCTION tenure.refuse_held_1(p_tenant uuid, p_kind text, p_name text) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(tenure.holds_lock_1(p_tenant));
    IF tenure.is_held_1(p_tenant, p_kind, p_name) THEN
        RAISE EXCEPTION 'under a legal hold' USING ERRCODE = 'TH001';
    END IF;
END
$$;

-- Whether a thread or an item that was last written to at some time lies behind the line of `max_bytes`.
CREATE FUNCTION tenure.is_evicted_1(p_policy tenure.retention_policy, p_last timestamptz, p_name text) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
SELECT p_policy.max_bytes IS NOT NULL
    AND coalesce((p_last, p_name COLLATE "C") <= (p_policy.line_at, p_policy.line_name), false)
$$;

-- Since when a policy has ended a thread as a whole that was last written to at some time; null if it has not.
-- p_evicted = whether it lies behind the line, null = as the line says.
CREATE FUNCTION tenure.over_since_1(
    p_policy tenure.retention_policy, p_thread text, p_last timestamptz, p_evicted boolean
)
RETURNS timestamptz
LANGUAGE sql STABLE AS $$
SELECT least(
    CASE
        WHEN p_last <= now() - least(p_policy.max_age, p_policy.max_idle)
        THEN p_last + least(p_policy.max_age, p_policy.max_idle)
    END,
    CASE
        WHEN coalesce(p_evicted, tenure.is_evicted_1(p_policy, p_last, p_thread))
        THEN
            CASE
                WHEN (p_last, p_thread COLLATE "C") <= (p_policy.settled_at, p_policy.settled_name) THEN p_last
                ELSE coalesce(p_policy.line_since, p_last)
            END
    END
)
$$;

-- When something was last stored in a thread, before p_before: a checkpoint, or a pending write. Of its making where
-- nothing was.
CREATE FUNCTION tenure.last_written_1(p_tenant uuid, p_key uuid, p_made timestamptz, p_before timestamptz)
RETURNS timestamptz
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN greatest(
        p_made,
        (
            SELECT max(c.created_at)
            FROM tenure.checkpoint AS c
            WHERE c.thread_key = p_key
                AND c.tenant_id = p_tenant -- wall:predicate
                AND c.created_at < p_before
        ),
        (
            SELECT max(w.created_at)
            FROM tenure.pending_write AS w
            WHERE w.thread_key = p_key
                AND w.tenant_id = p_tenant -- wall:predicate
                AND w.created_at < p_before
        )
    );
END
$$;

-- What of a thread has expired: all of it, or these checkpoints. The one place that says so.
--
-- `callers` has for each checkpoint of a subgraph that goes with the one that called it that one's id, else null;
-- `since` when it expired, or was followed by others, if that was later. `over` = the thread is over: all of it, down
-- to a floor and what is pinned. With p_before only what was written before that counts. p_evicted: see over_since_1.
CREATE FUNCTION tenure.retention_1(
    p_tenant uuid,
    p_key uuid,
    p_evicted boolean,
    p_before timestamptz,
    OUT whole boolean,
    OUT over boolean,
    OUT namespaces text[],
    OUT ids text[],
    OUT callers text[],
    OUT since timestamptz[]
)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_before constant timestamptz := coalesce(p_before, 'infinity');
    v_head record;
    v_policy tenure.retention_policy;
    v_pinned boolean;
    v_pinned_whole boolean;
    v_listed boolean;
    v_over_since timestamptz;
    v_stays int;
    v_oldest timestamptz;
    v_found record;
BEGIN
    whole := false;
    over := false;
    SELECT h.thread_id, h.created_at, h.lease_until INTO v_head
    FROM tenure.thread_head AS h
    WHERE h.thread_key = p_key
        AND h.tenant_id = p_tenant -- wall:predicate
    LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT * INTO v_policy FROM tenure.policy_of_1(p_tenant, 'threads', v_head.thread_id);
    IF NOT FOUND OR tenure.is_held_1(p_tenant, 'threads', v_head.thread_id) THEN
        RETURN;
    END IF;
    SELECT count(*) > 0, coalesce(bool_or(p.checkpoint_id = ''), false) INTO v_pinned, v_pinned_whole
    FROM tenure.retention_pin AS p
    WHERE p.thread_key = p_key
        AND p.tenant_id = p_tenant -- wall:predicate
    ;
    IF v_pinned_whole THEN
        RETURN;
    END IF;
    v_listed := EXISTS (
        SELECT
        FROM tenure.retention_expired AS x
        WHERE x.thread_key = p_key
            AND x.tenant_id = p_tenant -- wall:predicate
    );

    SELECT max(n.newest) AS newest, min(n.oldest) AS oldest, max(n.rows) AS rows INTO v_found
    FROM (
        SELECT max(c.created_at) AS newest, min(c.created_at) AS oldest, count(*) AS rows
        FROM tenure.checkpoint AS c
        WHERE c.thread_key = p_key
            AND c.tenant_id = p_tenant -- wall:predicate
            AND c.created_at < v_before
        GROUP BY c.checkpoint_ns
    ) AS n;
    -- Who asks what was before waited for the head's lock, and a lease may have run out meanwhile.
    IF coalesce(v_head.lease_until <= CASE WHEN p_before IS NULL THEN now() ELSE clock_timestamp() END, true) THEN
        v_over_since := tenure.over_since_1(
            v_policy, v_head.thread_id, greatest(v_head.created_at, v_found.newest), p_evicted
        );
        -- Mostly the checkpoints tell that a thread is alive: only then its writes are looked at.
        IF v_over_since IS NOT NULL THEN
            v_over_since := tenure.over_since_1(
                v_policy,
                v_head.thread_id,
                tenure.last_written_1(p_tenant, p_key, v_head.created_at, v_before),
                p_evicted
            );
        END IF;
    END IF;
    over := v_over_since IS NOT NULL;
    IF over AND v_policy.floor = 0 AND NOT v_pinned THEN
        whole := true;
        since := ARRAY[greatest(v_over_since, v_head.lease_until, v_policy.updated_at)];
        RETURN;
    END IF;
    v_oldest := coalesce(now() - v_policy.max_age, '-infinity');
    IF NOT (over OR v_listed OR v_found.oldest <= v_oldest OR v_found.rows > v_policy.keep_last) IS TRUE THEN
        RETURN;
    END IF;
    v_stays := greatest(v_policy.floor, 1);

    WITH RECURSIVE ranked AS MATERIALIZED (
        SELECT
            c.checkpoint_ns AS ns,
            c.checkpoint_id AS id,
            c.metadata,
            c.created_at,
            row_number() OVER newest AS rank,
            greatest(lag(c.created_at) OVER newest, lag(c.created_at, v_stays) OVER newest) AS followed_at,
            lag(c.created_at, v_policy.keep_last) OVER newest AS outnumbered_at,
            p.checkpoint_id IS NOT NULL AS is_pinned
        FROM (
            SELECT k.*, tenure.ns_hash_1(k.checkpoint_ns) AS ns_hash
            FROM tenure.checkpoint AS k
            WHERE k.thread_key = p_key
                AND k.tenant_id = p_tenant -- wall:predicate
                AND k.created_at < v_before
        ) AS c
        LEFT JOIN tenure.head_override AS o
            ON o.thread_key = p_key
            AND o.ns_hash = c.ns_hash
            AND o.tenant_id = p_tenant -- wall:predicate
        LEFT JOIN tenure.retention_pin AS p
            ON p.thread_key = p_key
            AND p.ns_hash = c.ns_hash
            AND p.checkpoint_id = c.checkpoint_id
            AND p.tenant_id = p_tenant -- wall:predicate
        WHERE NOT v_listed OR NOT EXISTS (
            SELECT
            FROM tenure.retention_expired AS x
            WHERE x.thread_key = p_key
                AND x.ns_hash = c.ns_hash
                AND x.checkpoint_id = c.checkpoint_id
                AND x.tenant_id = p_tenant -- wall:predicate
        )
        WINDOW newest AS (
            PARTITION BY c.checkpoint_ns
            ORDER BY (c.checkpoint_id = o.checkpoint_id) IS TRUE DESC, c.checkpoint_id DESC
        )
    ),
    wanted AS MATERIALIZED (
        SELECT r.ns, r.id, r.metadata
        FROM ranked AS r
        WHERE r.rank <= v_stays
            OR r.is_pinned
            OR NOT over
            AND r.created_at > v_oldest
            AND (v_policy.keep_last IS NULL OR r.rank <= v_policy.keep_last)
    ),
    -- From here to `orphaned` as prune_thread_1 does, for all that is wanted and not for the latest alone.
    way (ns, id, channel) AS (
        SELECT w.ns, w.id, k.channel COLLATE "C"
        FROM wanted AS w
        CROSS JOIN LATERAL tenure.delta_channels_1(w.metadata) AS k (channel)
        UNION
        SELECT w.ns, c.parent_checkpoint_id, w.channel
        FROM way AS w
        CROSS JOIN LATERAL (
            SELECT s.parent_checkpoint_id, s.versions
            FROM tenure.checkpoint AS s
            WHERE s.thread_key = p_key
                AND s.checkpoint_ns = w.ns
                AND s.checkpoint_id = w.id
                AND s.tenant_id = p_tenant -- wall:predicate
            LIMIT 1
        ) AS c
        WHERE c.parent_checkpoint_id IS NOT NULL
            AND NOT EXISTS (
                SELECT
                FROM tenure.channel_value AS v
                WHERE v.thread_key = p_key
                    AND v.tenant_id = p_tenant -- wall:predicate
                    AND v.ns_hash = tenure.ns_hash_1(w.ns)
                    AND v.channel = w.channel
                    AND v.version = c.versions ->> w.channel
                    AND v.type <> 'empty'
            )
    ),
    needed (ns, id) AS MATERIALIZED (
        SELECT w.ns, w.id FROM wanted AS w
        UNION
        SELECT w.ns, w.id FROM way AS w
    ),
    kept (ns, id) AS MATERIALIZED (
        SELECT n.ns, n.id FROM needed AS n
        UNION
        SELECT n.ns, c.parent_checkpoint_id
        FROM needed AS n
        CROSS JOIN LATERAL (
            SELECT s.parent_checkpoint_id, s.format_version
            FROM tenure.checkpoint AS s
            WHERE s.thread_key = p_key
                AND s.checkpoint_ns = n.ns
                AND s.checkpoint_id = n.id
                AND s.tenant_id = p_tenant -- wall:predicate
            LIMIT 1
        ) AS c
        WHERE c.format_version < 4
            AND c.parent_checkpoint_id IS NOT NULL
            AND EXISTS (
                SELECT
                FROM tenure.pending_write AS w
                WHERE w.thread_key = p_key
                    AND w.tenant_id = p_tenant -- wall:predicate
                    AND w.ns_hash = tenure.ns_hash_1(n.ns)
                    AND w.checkpoint_id = c.parent_checkpoint_id
                    AND w.channel = '__pregel_tasks'
            )
    ),
    orphaned (ns, caller) AS MATERIALIZED (
        SELECT r.ns, c.checkpoint_id
        FROM ranked AS r
        CROSS JOIN LATERAL (SELECT r.metadata::jsonb -> 'parents' -> '' AS id) AS m
        CROSS JOIN LATERAL (
            SELECT s.checkpoint_id
            FROM tenure.checkpoint AS s
            WHERE s.thread_key = p_key
                AND s.checkpoint_ns = ''
                AND s.checkpoint_id = m.id #>> '{}'
                AND s.tenant_id = p_tenant -- wall:predicate
            LIMIT 1
        ) AS c
        WHERE r.rank = 1
            AND position(':' IN r.ns) > 0
            AND jsonb_typeof(m.id) = 'string'
            AND NOT EXISTS (SELECT FROM kept AS k WHERE k.ns = '' AND k.id = c.checkpoint_id)
            AND NOT EXISTS (SELECT FROM ranked AS p WHERE p.ns = r.ns AND p.is_pinned)
    ),
    expired AS MATERIALIZED (
        SELECT c.checkpoint_ns AS ns, c.checkpoint_id AS id, o.caller,
            greatest(
                c.created_at,
                r.followed_at,
                least(
                    v_over_since,
                    r.outnumbered_at,
                    CASE WHEN c.created_at <= v_oldest THEN c.created_at + v_policy.max_age END
                ),
                x.since
            ) AS since
        FROM tenure.checkpoint AS c
        LEFT JOIN orphaned AS o ON o.ns = c.checkpoint_ns
        LEFT JOIN ranked AS r ON r.ns = c.checkpoint_ns AND r.id = c.checkpoint_id
        LEFT JOIN tenure.retention_expired AS x
            ON v_listed
            AND x.thread_key = p_key
            AND x.ns_hash = tenure.ns_hash_1(c.checkpoint_ns)
            AND x.checkpoint_id = c.checkpoint_id
            AND x.tenant_id = p_tenant -- wall:predicate
        WHERE c.thread_key = p_key
            AND c.tenant_id = p_tenant -- wall:predicate
            AND c.created_at < v_before
            AND (
                o.ns IS NOT NULL
                OR (c.checkpoint_ns, c.checkpoint_id) NOT IN (SELECT k.ns, k.id FROM kept AS k WHERE k.id IS NOT NULL)
            )
    )
    SELECT
        array_agg(e.ns),
        array_agg(e.id),
        array_agg(e.caller),
        array_agg(greatest(e.since, c.since, v_policy.updated_at, v_head.lease_until))
    INTO namespaces, ids, callers, since
    FROM expired AS e
    LEFT JOIN expired AS c ON c.ns = '' AND c.id = e.caller;
END
$$;

-- What reads leave out, of some threads: whole ones, and checkpoints. A tenant without policies is done with one look.
CREATE FUNCTION tenure.hidden_1(
    p_tenant uuid,
    p_threads text[],
    OUT whole uuid[],
    OUT keys uuid[],
    OUT namespaces text[],
    OUT ids text[]
)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_row record;
BEGIN
    IF NOT tenure.has_policies_1(p_tenant, 'threads') THEN
        RETURN;
    END IF;
    FOR v_row IN
        SELECT DISTINCT h.thread_key
        FROM (SELECT unnest(p_threads) AS thread_id) AS t
        CROSS JOIN LATERAL (
            SELECT k.thread_key
            FROM tenure.thread_head AS k
            WHERE k.thread_id = t.thread_id
                AND k.tenant_id = p_tenant -- wall:predicate
            LIMIT 1
        ) AS h
    LOOP
        SELECT
            CASE WHEN r.whole THEN array_append(hidden_1.whole, v_row.thread_key) ELSE hidden_1.whole END,
            hidden_1.keys || array_fill(v_row.thread_key, ARRAY[coalesce(cardinality(r.ids), 0)]),
            hidden_1.namespaces || r.namespaces,
            hidden_1.ids || r.ids
        INTO whole, keys, namespaces, ids
        FROM tenure.retention_1(p_tenant, v_row.thread_key, NULL, NULL) AS r;
    END LOOP;
END
$$;

-- Whether reads leave out one checkpoint, for those that look in many threads; p_id null = the thread as a whole.
CREATE FUNCTION tenure.is_hidden_1(p_tenant uuid, p_key uuid, p_ns text, p_id text) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_found record;
BEGIN
    SELECT * INTO v_found FROM tenure.retention_1(p_tenant, p_key, NULL, NULL);
    RETURN v_found.whole OR p_id IS NOT NULL AND EXISTS (
        SELECT FROM unnest(v_found.namespaces, v_found.ids) AS x (ns, id) WHERE x.ns = p_ns AND x.id = p_id
    );
END
$$;

-- Whether a tenant has any policies of a kind: the one look that a tenant without them pays.
CREATE FUNCTION tenure.has_policies_1(p_tenant uuid, p_kind text) RETURNS boolean
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN EXISTS (
        SELECT
        FROM tenure.retention_policy AS x
        WHERE x.kind = p_kind
            AND x.tenant_id = p_tenant -- wall:predicate
    );
END
$$;

-- Remembers what of a thread has expired because it is over, before something makes it live again: a write, or a lease.
-- A thread that was made just now has nothing. Under the head's lock, of whatever kind.
CREATE FUNCTION tenure.remember_expired_now_1(p_tenant uuid, p_key uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_head record;
    v_policy tenure.retention_policy;
BEGIN
    IF NOT tenure.has_policies_1(p_tenant, 'threads') THEN
        RETURN;
    END IF;
    SELECT h.thread_id, h.created_at INTO v_head
    FROM tenure.thread_head AS h
    WHERE h.thread_key = p_key
        AND h.tenant_id = p_tenant -- wall:predicate
        AND h.created_at < now()
    LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT * INTO v_policy FROM tenure.policy_of_1(p_tenant, 'threads', v_head.thread_id);
    IF coalesce(v_policy.max_age, v_policy.max_idle) IS NULL AND v_policy.line_at IS NULL THEN
        RETURN;
    END IF;
    -- Mostly the latest checkpoint tells that a thread is alive.
    IF tenure.over_since_1(v_policy, v_head.thread_id, greatest(v_head.created_at, (
        SELECT c.created_at
        FROM tenure.checkpoint AS c
        WHERE c.thread_key = p_key
            AND c.tenant_id = p_tenant -- wall:predicate
            AND c.checkpoint_ns = ''
            AND c.created_at < now()
        ORDER BY c.checkpoint_id DESC
        LIMIT 1
    )), NULL) IS NULL THEN
        RETURN;
    END IF;

    INSERT INTO tenure.retention_expired (tenant_id, thread_key, ns_hash, checkpoint_id)
    SELECT p_tenant, p_key, tenure.ns_hash_1(c.checkpoint_ns), c.checkpoint_id
    FROM tenure.retention_1(p_tenant, p_key, NULL, now()) AS r
    JOIN tenure.checkpoint AS c
        ON c.thread_key = p_key
        AND c.tenant_id = p_tenant -- wall:predicate
        AND c.created_at < now()
        AND (
            r.whole
            OR (c.checkpoint_ns, c.checkpoint_id) IN (SELECT * FROM unnest(r.namespaces, r.ids))
        )
    WHERE r.over
    -- Writers of pending writes do this at once: in one order they cannot deadlock.
    ORDER BY 3, 4
    ON CONFLICT DO NOTHING;
END
$$;

-- A held thread is deleted by nobody. One that was made in the same transaction may be unmade.
CREATE FUNCTION tenure.keep_held_1() RETURNS trigger
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM tenure.refuse_held_1(OLD.tenant_id, 'threads', OLD.thread_id);
    RETURN OLD;
END
$$;
CREATE TRIGGER keep_held BEFORE DELETE ON tenure.thread_head
    -- Another's may bear our time, or a later one.
    FOR EACH ROW WHEN (OLD.created_at <> now() OR OLD.xmin <> pg_current_xact_id()::xid)
    EXECUTE FUNCTION tenure.keep_held_1();

-- Nor is the tenant, as long as it has any hold.
CREATE FUNCTION tenure.keep_held_tenant_1() RETURNS trigger
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF EXISTS (
        SELECT
        FROM tenure.retention_hold AS x
        WHERE true
            AND x.tenant_id = NEW.tenant_id -- wall:predicate
    ) THEN
        RAISE EXCEPTION 'under a legal hold' USING ERRCODE = 'TH001';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER keep_held BEFORE UPDATE OF deleted_at ON tenure.tenant
    FOR EACH ROW WHEN (OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL)
    EXECUTE FUNCTION tenure.keep_held_tenant_1();

-- Nor are items that somebody deletes on request.
CREATE FUNCTION tenure.keep_held_items_1() RETURNS trigger
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(tenure.holds_lock_1(t.tenant_id))
    FROM (SELECT DISTINCT r.tenant_id FROM removed AS r) AS t;
    IF EXISTS (
        SELECT
        FROM tenure.retention_hold AS x
        JOIN removed AS r ON r.tenant_id = x.tenant_id
        WHERE x.kind IN ('tenant', 'items')
            AND tenure.covers_1('items', x.prefix, r.namespace)
            -- A delete of what is not there makes a row for a moment, which has no place.
            AND r.place <> 0
    ) THEN
        RAISE EXCEPTION 'under a legal hold' USING ERRCODE = 'TH001';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER keep_held AFTER DELETE ON tenure.item
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION tenure.keep_held_items_1();

-- How many bytes a thread has less, as tenant_usage counts them, once some of its checkpoints are dropped.
CREATE FUNCTION tenure.freed_bytes_1(p_tenant uuid, p_key uuid, p_namespaces text[], p_ids text[]) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_left bigint;
BEGIN
    WITH stays AS MATERIALIZED (
        SELECT c.checkpoint_ns, tenure.ns_hash_1(c.checkpoint_ns) AS ns_hash, c.versions, c.bytes
        FROM tenure.checkpoint AS c
        WHERE c.thread_key = p_key
            AND c.tenant_id = p_tenant -- wall:predicate
            AND (c.checkpoint_ns, c.checkpoint_id) NOT IN (SELECT * FROM unnest(p_namespaces, p_ids))
    ), held AS MATERIALIZED (
        SELECT DISTINCT s.ns_hash, e.channel, e.version
        FROM stays AS s
        CROSS JOIN LATERAL jsonb_each_text(s.versions) AS e (channel, version)
        WHERE e.version IS NOT NULL
    ), value AS MATERIALIZED (
        SELECT octet_length(v.data) AS bytes,
            CASE
                WHEN v.anchor_version IS NULL
                    OR (v.ns_hash, v.channel, v.anchor_version) IN (
                        SELECT h.ns_hash, h.channel, h.version FROM held AS h
                    )
                THEN v.recipe
                ELSE (
                    SELECT tenure.whole_recipe_1(v.recipe, a.recipe, v.keep_first, v.keep_last)
                    FROM tenure.channel_value AS a
                    WHERE a.thread_key = p_key
                        AND a.ns_hash = v.ns_hash
                        AND a.channel = v.channel
                        AND a.version = v.anchor_version
                        AND a.tenant_id = p_tenant -- wall:predicate
                    LIMIT 1
                )
            END || ''::bytea AS recipe
        FROM tenure.channel_value AS v
        WHERE v.thread_key = p_key
            AND v.tenant_id = p_tenant -- wall:predicate
            AND (v.ns_hash, v.channel, v.version) IN (SELECT h.ns_hash, h.channel, h.version FROM held AS h)
    )
    SELECT
        (SELECT coalesce(sum(s.bytes), 0) FROM stays AS s)
        + (SELECT coalesce(sum(v.bytes + coalesce(octet_length(v.recipe), 0)), 0) FROM value AS v)
        + (
            SELECT coalesce(sum(c.bytes), 0)
            FROM tenure.chunk AS c
            WHERE c.thread_key = p_key
                AND c.tenant_id = p_tenant -- wall:predicate
                AND c.chunk_id IN (
                    SELECT i.id FROM value AS v CROSS JOIN LATERAL tenure.recipe_ids_1(v.recipe) AS i (id)
                )
        )
        + (
            SELECT coalesce(sum(w.bytes), 0)
            FROM tenure.pending_write AS w
            WHERE w.thread_key = p_key
                AND w.tenant_id = p_tenant -- wall:predicate
                AND (w.ns_hash, w.checkpoint_id) NOT IN (
                    SELECT tenure.ns_hash_1(d.ns), d.id FROM unnest(p_namespaces, p_ids) AS d (ns, id)
                )
        )
    INTO v_left;
    RETURN tenure.thread_bytes_1(p_tenant, p_key) - v_left;
END
$$;

-- What has expired of the next p_limit threads after one, a row for each thread: without checkpoints for those of
-- which nothing has. `ready` is when the first of them expired. Bytes only if asked for.
CREATE FUNCTION tenure.expired_threads_1(p_tenant uuid, p_after text, p_limit int, p_bytes boolean)
RETURNS TABLE (
    thread_id text, thread_key uuid, whole boolean, checkpoints bigint, bytes bigint, ready timestamptz
)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    RETURN QUERY
    SELECT
        h.thread_id,
        h.thread_key,
        r.whole,
        CASE
            WHEN r.whole THEN (
                SELECT count(*)
                FROM tenure.checkpoint AS c
                WHERE c.thread_key = h.thread_key
                    AND c.tenant_id = p_tenant -- wall:predicate
            )
            ELSE coalesce(cardinality(r.ids), 0)
        END,
        CASE
            WHEN NOT p_bytes THEN 0
            WHEN r.whole THEN tenure.thread_bytes_1(p_tenant, h.thread_key)
            WHEN r.ids IS NULL THEN 0
            ELSE tenure.freed_bytes_1(p_tenant, h.thread_key, r.namespaces, r.ids)
        END,
        (SELECT min(s.since) FROM unnest(r.since) AS s (since))
    FROM (
        SELECT k.thread_id, k.thread_key
        FROM tenure.thread_head AS k
        WHERE k.thread_id > p_after
            AND k.tenant_id = p_tenant -- wall:predicate
        ORDER BY k.thread_id
        LIMIT p_limit
    ) AS h
    CROSS JOIN LATERAL tenure.retention_1(p_tenant, h.thread_key, NULL, NULL) AS r
    ORDER BY h.thread_id;
END
$$;

-- Deletes of a thread what has expired: all of it, or up to p_limit checkpoints with what is theirs, which goes
-- on where it ended. Locks the head as every other removal does, and leaves a thread that somebody holds.
--
-- What expired less than p_settle seconds ago stays, and so does all of a thread whose writer has a lease: a run that
-- began at what was the latest checkpoint then may still be under way, and needs its values. Subgraphs go before
-- the checkpoint that called them, or nothing would tell any more that they are to go.
CREATE FUNCTION tenure.sweep_thread_1(
    p_tenant uuid, p_key uuid, p_settle double precision, p_limit int, OUT threads bigint, OUT checkpoints bigint
)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_settled constant timestamptz := now() - make_interval(secs => p_settle);
    v_thread text;
    v_bytes bigint;
    v_found record;
    v_namespaces text[];
    v_ids text[];
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    threads := 0;
    checkpoints := 0;
    SELECT h.thread_id INTO v_thread
    FROM tenure.thread_head AS h
    WHERE h.thread_key = p_key
        AND h.tenant_id = p_tenant -- wall:predicate
        AND coalesce(h.lease_until <= clock_timestamp(), true)
    FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock_shared(tenure.holds_lock_1(p_tenant));
    SELECT * INTO v_found FROM tenure.retention_1(p_tenant, p_key, NULL, NULL);
    IF v_found.whole THEN
        IF v_found.since[1] <= v_settled THEN
            SELECT count(*) INTO checkpoints
            FROM tenure.checkpoint AS c
            WHERE c.thread_key = p_key
                AND c.tenant_id = p_tenant -- wall:predicate
            ;
            threads := 1;
            v_bytes := tenure.thread_bytes_1(p_tenant, p_key);
            DELETE FROM tenure.thread_head AS h
            WHERE true
                AND h.tenant_id = p_tenant -- wall:predicate
                AND h.thread_key = p_key;
            INSERT INTO tenure.garbage (tenant_id, thread_key) VALUES (p_tenant, p_key);
            PERFORM tenure.add_usage_1(p_tenant, -v_bytes, -1, 0);
        END IF;
        RETURN;
    END IF;

    SELECT array_agg(d.ns), array_agg(d.id), count(*) INTO v_namespaces, v_ids, checkpoints
    FROM (
        SELECT e.ns, e.id
        FROM unnest(v_found.namespaces, v_found.ids, v_found.callers, v_found.since)
            AS e (ns, id, caller, since)
        WHERE e.since <= v_settled
            AND (e.ns <> '' OR e.id NOT IN (
                SELECT s.caller
                FROM unnest(v_found.callers, v_found.since) AS s (caller, since)
                WHERE s.caller IS NOT NULL AND s.since > v_settled
            ))
        ORDER BY e.caller IS NULL, e.ns COLLATE "C" DESC, e.id COLLATE "C"
        LIMIT p_limit
    ) AS d;
    IF checkpoints > 0 THEN
        DELETE FROM tenure.retention_expired AS x
        USING unnest(v_namespaces, v_ids) AS d (ns, id)
        WHERE x.thread_key = p_key
            AND x.tenant_id = p_tenant -- wall:predicate
            AND x.ns_hash = tenure.ns_hash_1(d.ns)
            AND x.checkpoint_id = d.id;
        PERFORM tenure.drop_checkpoints_1(p_tenant, p_key, v_namespaces, v_ids);
    END IF;
END
$$;

-- Whether an item has expired by policy: the one place that says so. Its own time is another matter.
CREATE FUNCTION tenure.item_expired_1(p_tenant uuid, p_namespace text, p_key text, p_updated timestamptz)
RETURNS boolean
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_policy tenure.retention_policy;
BEGIN
    SELECT * INTO v_policy FROM tenure.policy_of_1(p_tenant, 'items', p_namespace);
    RETURN (
        coalesce(p_updated <= now() - v_policy.item_ttl, false)
        OR tenure.is_evicted_1(v_policy, p_updated, tenure.item_name_1(p_namespace, p_key))
    ) AND NOT tenure.is_held_1(p_tenant, 'items', p_namespace);
END
$$;

-- The name of an item among all of its tenant, for a line.
CREATE FUNCTION tenure.item_name_1(p_namespace text, p_key text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
SELECT (p_namespace || E'\x01\x03' || p_key) COLLATE "C"
$$;

-- What has expired by policy of the next p_limit items after one, with their vectors; `namespace` and `key` are of the
-- last one looked at, null if there was none.
CREATE FUNCTION tenure.expired_items_1(
    p_tenant uuid, p_namespace text, p_key text, p_limit int,
    OUT namespace text, OUT key text, OUT items bigint, OUT bytes bigint
)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    SELECT
        (array_agg(n.namespace ORDER BY n.namespace DESC, n.key DESC))[1],
        (array_agg(n.key ORDER BY n.namespace DESC, n.key DESC))[1],
        count(*) FILTER (WHERE n.expired),
        coalesce(sum(n.bytes + tenure.vector_bytes_1(p_tenant, n.namespace, n.key)) FILTER (WHERE n.expired), 0)
    INTO namespace, key, items, bytes
    FROM (
        SELECT i.namespace, i.key, i.bytes,
            tenure.item_expired_1(p_tenant, i.namespace, i.key, i.updated_at) AS expired
        FROM tenure.item AS i
        WHERE (i.namespace, i.key) > (p_namespace, p_key)
            AND i.tenant_id = p_tenant -- wall:predicate
        ORDER BY i.namespace, i.key
        LIMIT p_limit
    ) AS n;
END
$$;

CREATE FUNCTION tenure.vector_bytes_1(p_tenant uuid, p_namespace text, p_key text) RETURNS bigint
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN (
        SELECT coalesce(sum(4::bigint * v.dims), 0)
        FROM tenure.item_vector AS v
        WHERE v.namespace = p_namespace
            AND v.tenant_id = p_tenant -- wall:predicate
            AND v.key = p_key
    );
END
$$;

-- Deletes what expired_items_1 tells of, but for items that somebody writes or renews right now. While the tenant's
-- items must stand still, which who waits for may hold what we need, it does nothing and tells no last one.
CREATE FUNCTION tenure.sweep_items_1(
    p_tenant uuid, p_namespace text, p_key text, p_limit int, OUT namespace text, OUT key text, OUT items bigint
)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_namespaces text[];
    v_keys text[];
    v_bytes bigint;
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    IF NOT pg_try_advisory_xact_lock_shared(tenure.items_lock_1(p_tenant)) THEN
        items := 0;
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock_shared(tenure.holds_lock_1(p_tenant));
    SELECT e.namespace, e.key, e.items INTO namespace, key, items
    FROM tenure.expired_items_1(p_tenant, p_namespace, p_key, p_limit) AS e;
    IF items = 0 THEN
        RETURN;
    END IF;
    SELECT array_agg(l.namespace), array_agg(l.key)
    INTO v_namespaces, v_keys
    FROM (
        SELECT i.namespace, i.key
        FROM tenure.item AS i
        WHERE (i.namespace, i.key) > (p_namespace, p_key)
            AND (i.namespace, i.key) <= (sweep_items_1.namespace, sweep_items_1.key)
            AND i.tenant_id = p_tenant -- wall:predicate
            AND tenure.item_expired_1(p_tenant, i.namespace, i.key, i.updated_at)
        ORDER BY i.namespace, i.key
        FOR UPDATE SKIP LOCKED
    ) AS l;
    -- Summed from what goes: vectors may have come while the locks were waited for.
    WITH vectors AS (
        DELETE FROM tenure.item_vector AS v
        USING unnest(v_namespaces, v_keys) AS e (namespace, key)
        WHERE v.namespace = e.namespace
            AND v.tenant_id = p_tenant -- wall:predicate
            AND v.key = e.key
        RETURNING 4::bigint * v.dims AS bytes
    ), gone AS (
        DELETE FROM tenure.item AS i
        USING unnest(v_namespaces, v_keys) AS e (namespace, key)
        WHERE i.namespace = e.namespace
            AND i.tenant_id = p_tenant -- wall:predicate
            AND i.key = e.key
        RETURNING i.bytes
    )
    SELECT
        (SELECT count(*) FROM gone),
        (SELECT coalesce(sum(g.bytes), 0) FROM gone AS g) + (SELECT coalesce(sum(v.bytes), 0) FROM vectors AS v)
    INTO items, v_bytes;
    PERFORM tenure.add_usage_1(p_tenant, -v_bytes, 0, -items);
END
$$;

-- How many bytes of a thread have expired; p_evicted: see over_since_1.
CREATE FUNCTION tenure.expired_bytes_1(p_tenant uuid, p_key uuid, p_evicted boolean) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_found record;
BEGIN
    SELECT * INTO v_found FROM tenure.retention_1(p_tenant, p_key, p_evicted, NULL);
    RETURN CASE
        WHEN v_found.whole THEN tenure.thread_bytes_1(p_tenant, p_key)
        WHEN v_found.ids IS NULL THEN 0
        ELSE tenure.freed_bytes_1(p_tenant, p_key, v_found.namespaces, v_found.ids)
    END;
END
$$;

-- The policies whose lines are to be drawn: their max_bytes is less than all that the tenant stores, and their line has
-- stood for p_settle seconds, or nothing behind it would ever have settled.
CREATE FUNCTION tenure.lines_to_draw_1(p_tenant uuid, p_settle double precision)
RETURNS TABLE (kind text, prefix text, max_bytes bigint, updated_at timestamptz)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    RETURN QUERY
    SELECT x.kind, x.prefix, x.max_bytes, x.updated_at
    FROM tenure.retention_policy AS x
    WHERE x.max_bytes < (
            SELECT u.stored_bytes
            FROM tenure.tenant_usage AS u
            WHERE true
                AND u.tenant_id = p_tenant -- wall:predicate
        )
        AND x.tenant_id = p_tenant -- wall:predicate
        AND (x.line_since <= now() - make_interval(secs => p_settle)) IS NOT FALSE
    ORDER BY x.kind, x.prefix;
END
$$;

-- Of the next p_limit threads after one, in the range of a policy's prefix and beyond it, those that the policy is for.
-- The last one is told anyway, without bytes if it is not one of them. Without p_gain what each has stored, which is
-- cheap to add up; with it what of that has expired, and how much more would behind a line that goes through `last`,
-- which is null for one that was written to within p_settle seconds.
CREATE FUNCTION tenure.line_threads_1(
    p_tenant uuid, p_prefix text, p_after text, p_limit int, p_gain boolean, p_settle double precision
)
RETURNS TABLE (thread_id text, bytes bigint, gain bigint, last timestamptz)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    v_row record;
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    FOR v_row IN
        SELECT k.*, lead(k.thread_id) OVER (ORDER BY k.thread_id) IS NULL AS is_last
        FROM (
            SELECT h.thread_id, h.thread_key, h.created_at
            FROM tenure.thread_head AS h
            WHERE h.thread_id > p_after
                AND h.thread_id >= p_prefix
                AND h.tenant_id = p_tenant -- wall:predicate
            ORDER BY h.thread_id
            LIMIT p_limit
        ) AS k
        ORDER BY k.thread_id
    LOOP
        thread_id := v_row.thread_id;
        bytes := NULL;
        gain := NULL;
        last := NULL;
        IF (SELECT x.prefix FROM tenure.policy_of_1(p_tenant, 'threads', v_row.thread_id) AS x) = p_prefix THEN
            IF p_gain THEN
                bytes := tenure.expired_bytes_1(p_tenant, v_row.thread_key, NULL);
                last := tenure.last_written_1(p_tenant, v_row.thread_key, v_row.created_at, 'infinity');
                IF last <= now() - make_interval(secs => p_settle) THEN
                    gain := tenure.expired_bytes_1(p_tenant, v_row.thread_key, true) - bytes;
                ELSE
                    last := NULL;
                END IF;
            ELSE
                bytes := tenure.thread_bytes_1(p_tenant, v_row.thread_key);
            END IF;
        END IF;
        IF bytes IS NOT NULL OR v_row.is_last THEN
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;

-- What the next p_limit items after one, from a prefix on, have stored with their vectors, whoever they belong to: cheap,
-- and no less than what a policy of that prefix is for. The last one is told, null if there was none.
CREATE FUNCTION tenure.stored_items_1(
    p_tenant uuid, p_prefix text, p_after_namespace text, p_after_key text, p_limit int,
    OUT namespace text, OUT key text, OUT bytes bigint
)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    SELECT
        (array_agg(n.namespace ORDER BY n.namespace DESC, n.key DESC))[1],
        (array_agg(n.key ORDER BY n.namespace DESC, n.key DESC))[1],
        coalesce(sum(n.bytes), 0)
    INTO namespace, key, bytes
    FROM (
        SELECT i.namespace, i.key, i.bytes
        FROM tenure.item AS i
        WHERE (i.namespace, i.key) > (p_after_namespace, p_after_key)
            AND i.namespace >= p_prefix
            AND i.tenant_id = p_tenant -- wall:predicate
        ORDER BY i.namespace, i.key
        LIMIT p_limit
    ) AS n;
    bytes := bytes + (
        SELECT coalesce(sum(4::bigint * v.dims), 0)
        FROM tenure.item_vector AS v
        WHERE (v.namespace, v.key) > (p_after_namespace, p_after_key)
            AND (v.namespace, v.key) <= (stored_items_1.namespace, stored_items_1.key)
            AND v.namespace >= p_prefix
            AND v.tenant_id = p_tenant -- wall:predicate
    );
END
$$;

-- Of the next p_limit items after one those that a policy is for and that have not expired, as line_threads_1 has
-- threads: with all their bytes, without a time if a hold keeps them.
CREATE FUNCTION tenure.line_items_1(
    p_tenant uuid, p_prefix text, p_after_namespace text, p_after_key text, p_limit int
)
RETURNS TABLE (namespace text, key text, name text, bytes bigint, last timestamptz)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    RETURN QUERY
    SELECT
        n.namespace,
        n.key,
        tenure.item_name_1(n.namespace, n.key),
        CASE
            WHEN n.is_covered THEN n.bytes + tenure.vector_bytes_1(p_tenant, n.namespace, n.key)
            ELSE 0
        END,
        CASE
            WHEN n.is_covered AND NOT tenure.is_held_1(p_tenant, 'items', n.namespace) THEN n.updated_at
        END
    FROM (
        SELECT
            k.*,
            lead(k.key) OVER (ORDER BY k.namespace, k.key) IS NULL AS is_last,
            NOT tenure.item_expired_1(p_tenant, k.namespace, k.key, k.updated_at) AND EXISTS (
                SELECT
                FROM tenure.policy_of_1(p_tenant, 'items', k.namespace) AS x
                WHERE x.prefix = p_prefix
            ) AS is_covered
        FROM (
            SELECT i.namespace, i.key, i.bytes, i.updated_at
            FROM tenure.item AS i
            WHERE (i.namespace, i.key) > (p_after_namespace, p_after_key)
                AND i.namespace >= p_prefix
                AND i.tenant_id = p_tenant -- wall:predicate
            ORDER BY i.namespace, i.key
            LIMIT p_limit
        ) AS k
    ) AS n
    WHERE n.is_covered OR n.is_last
    ORDER BY n.namespace, n.key;
END
$$;

-- Moves the line of a policy, unless that was set anew meanwhile; it never goes back.
CREATE FUNCTION tenure.move_line_1(
    p_tenant uuid,
    p_kind text,
    p_prefix text,
    p_updated timestamptz,
    p_line_at timestamptz,
    p_line_name text
)
RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    UPDATE tenure.retention_policy AS x
    SET line_at = p_line_at,
        line_name = p_line_name,
        line_since = clock_timestamp(),
        settled_at = x.line_at,
        settled_name = x.line_name
    WHERE x.kind = p_kind
        AND x.prefix = p_prefix
        AND x.tenant_id = p_tenant -- wall:predicate
        AND x.updated_at = p_updated
        AND ((x.line_at, x.line_name) < (p_line_at, p_line_name COLLATE "C")) IS NOT FALSE;
END
$$;

REVOKE ALL ON FUNCTION
    tenure.holds_lock_1, tenure.covers_1, tenure.policy_of_1, tenure.is_held_1, tenure.refuse_held_1,
    tenure.is_evicted_1, tenure.over_since_1, tenure.last_written_1, tenure.retention_1, tenure.hidden_1,
    tenure.is_hidden_1, tenure.has_policies_1, tenure.remember_expired_now_1, tenure.keep_held_1,
    tenure.keep_held_tenant_1, tenure.keep_held_items_1, tenure.freed_bytes_1, tenure.expired_threads_1,
    tenure.sweep_thread_1, tenure.item_expired_1, tenure.item_name_1, tenure.expired_items_1,
    tenure.vector_bytes_1, tenure.sweep_items_1, tenure.expired_bytes_1,
    tenure.lines_to_draw_1, tenure.line_threads_1, tenure.stored_items_1, tenure.line_items_1, tenure.move_line_1
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    tenure.holds_lock_1, tenure.covers_1, tenure.policy_of_1, tenure.is_held_1, tenure.refuse_held_1,
    tenure.is_evicted_1, tenure.over_since_1, tenure.last_written_1, tenure.retention_1, tenure.hidden_1,
    tenure.is_hidden_1, tenure.has_policies_1, tenure.remember_expired_now_1, tenure.freed_bytes_1,
    tenure.expired_threads_1, tenure.sweep_thread_1, tenure.item_expired_1, tenure.item_name_1,
    tenure.expired_items_1, tenure.vector_bytes_1, tenure.sweep_items_1, tenure.expired_bytes_1,
    tenure.lines_to_draw_1, tenure.line_threads_1, tenure.stored_items_1, tenure.line_items_1, tenure.move_line_1
TO tenure_app;
-- What the triggers ask when tenure_ops removes rows.
GRANT EXECUTE ON FUNCTION tenure.holds_lock_1, tenure.covers_1, tenure.is_held_1, tenure.refuse_held_1 TO tenure_ops;
