-- Single writers: leases on threads, and which threads need one. `lease_token`, `lease_until` and
-- `single_writer` of a head (0009_usage.sql) are what write_batch_3 looks at.

ALTER TABLE tenure.thread_head ADD COLUMN lease_holder text NOT NULL DEFAULT '';
-- The operation that made the lease, so that a repeat of it finds it again.
ALTER TABLE tenure.thread_head ADD COLUMN lease_operation bytea;
GRANT UPDATE (lease_holder, lease_operation) ON tenure.thread_head TO tenure_app;
GRANT UPDATE (single_writer) ON tenure.thread_head TO tenure_ops;

-- Threads whose ids begin with the prefix have one writer at a time.
CREATE TABLE tenure.writer_policy (
    tenant_id uuid NOT NULL REFERENCES tenure.tenant,
    thread_prefix text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, thread_prefix)
);
DO $$
DECLARE
    v_own constant text := 'tenant_id = (SELECT nullif(current_setting(''app.tenant'', true), '''')::uuid)';
BEGIN
    ALTER TABLE tenure.writer_policy ENABLE ROW LEVEL SECURITY;
    ALTER TABLE tenure.writer_policy FORCE ROW LEVEL SECURITY;
    EXECUTE format(
        'CREATE POLICY own_tenant ON tenure.writer_policy AS PERMISSIVE FOR ALL TO tenure_app '
        'USING (%s) WITH CHECK (%s)', v_own, v_own);
    EXECUTE format(
        'CREATE POLICY only_own_tenant ON tenure.writer_policy AS RESTRICTIVE FOR ALL TO tenure_app '
        'USING (%s) WITH CHECK (%s)', v_own, v_own);
    CREATE POLICY every_tenant ON tenure.writer_policy AS PERMISSIVE FOR ALL TO tenure_ops
        USING (true) WITH CHECK (true);
END
$$;
GRANT SELECT ON tenure.writer_policy TO tenure_app;
GRANT SELECT, INSERT, DELETE ON tenure.writer_policy TO tenure_ops;

-- Says of a thread that is being made whether it has one writer at a time.
CREATE FUNCTION tenure.new_head_is_single_writer_1() RETURNS trigger
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    NEW.single_writer := NEW.single_writer OR EXISTS (
        SELECT
        FROM tenure.writer_policy AS p
        WHERE starts_with(NEW.thread_id, p.thread_prefix)
            AND p.tenant_id = NEW.tenant_id -- wall:predicate
    );
    RETURN NEW;
END
$$;
CREATE TRIGGER new_head_is_single_writer BEFORE INSERT ON tenure.thread_head
    FOR EACH ROW EXECUTE FUNCTION tenure.new_head_is_single_writer_1();

-- Gives a thread to a writer, and makes the thread if there is none. Returns the token, or, if somebody else
-- has the thread, null with the milliseconds that are left and the holder's name. FOR UPDATE waits for
-- whatever is being written, pending writes included, and so fences off what was checked before it.
--
-- A token is larger than any that a thread of this id had in an earlier life: it begins with the clock.
CREATE FUNCTION tenure.acquire_lease_1(
    p_tenant uuid,
    p_timeout_ms int,
    p_operation bytea,
    p_thread text,
    p_holder text,
    p_ttl_ms int
)
RETURNS TABLE (token bigint, held_ms bigint, holder text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_variable
DECLARE
    v_head record;
    v_made boolean := false;
    v_now timestamptz;
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    PERFORM set_config('lock_timeout', p_timeout_ms::text, true);
    LOOP
        SELECT h.thread_key, h.lease_token, h.lease_until, h.lease_holder, h.lease_operation INTO v_head
        FROM tenure.thread_head AS h
        WHERE h.thread_id = p_thread
            AND h.tenant_id = p_tenant -- wall:predicate
        FOR UPDATE;
        EXIT WHEN FOUND;
        INSERT INTO tenure.thread_head (tenant_id, thread_id) VALUES (p_tenant, p_thread)
        ON CONFLICT DO NOTHING;
        v_made := FOUND;
    END LOOP;

    v_now := clock_timestamp();
    IF v_head.lease_until > v_now AND v_head.lease_operation IS DISTINCT FROM p_operation THEN
        held_ms := ceil(extract(epoch FROM v_head.lease_until - v_now) * 1000);
        holder := v_head.lease_holder;
        RETURN NEXT;
        RETURN;
    END IF;
    -- A lease keeps what there is from expiring; what had expired does not come back.
    IF NOT v_made AND coalesce(v_head.lease_until <= v_now, true) THEN
        PERFORM tenure.remember_expired_now_1(p_tenant, v_head.thread_key);
    END IF;
    token := CASE
        WHEN v_head.lease_operation = p_operation THEN v_head.lease_token
        ELSE greatest(v_head.lease_token + 1, (extract(epoch FROM v_now) * 1000000)::bigint)
    END;
    UPDATE tenure.thread_head AS h
    SET lease_token = token,
        lease_until = v_now + make_interval(secs => p_ttl_ms / 1000.0),
        lease_holder = p_holder,
        lease_operation = p_operation
    WHERE true
        AND h.tenant_id = p_tenant -- wall:predicate
        AND h.thread_id = p_thread;
    IF v_made THEN
        PERFORM tenure.add_usage_1(p_tenant, 0, 1, 0);
    END IF;
    RETURN NEXT;
END
$$;

-- Prolongs a lease, also one that has run out; false if it was released, or somebody else had the thread, or put to
-- it once the lease had run out.
CREATE FUNCTION tenure.renew_lease_1(
    p_tenant uuid, p_timeout_ms int, p_thread text, p_token bigint, p_ttl_ms int
)
RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_head record;
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    PERFORM set_config('lock_timeout', p_timeout_ms::text, true);
    SELECT h.thread_key, h.lease_until INTO v_head
    FROM tenure.thread_head AS h
    WHERE h.thread_id = p_thread
        AND h.tenant_id = p_tenant -- wall:predicate
        AND h.lease_token = p_token
        AND h.lease_until IS NOT NULL
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF v_head.lease_until <= clock_timestamp() THEN
        PERFORM tenure.remember_expired_now_1(p_tenant, v_head.thread_key);
    END IF;
    UPDATE tenure.thread_head AS h
    SET lease_until = clock_timestamp() + make_interval(secs => p_ttl_ms / 1000.0)
    WHERE true
        AND h.tenant_id = p_tenant -- wall:predicate
        AND h.thread_key = v_head.thread_key;
    RETURN true;
END
$$;

-- Ends a lease if it is the thread's. The token goes on by one: what its holder sent before and what comes
-- only now is refused.
CREATE FUNCTION tenure.release_lease_1(p_tenant uuid, p_timeout_ms int, p_thread text, p_token bigint)
RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    PERFORM set_config('lock_timeout', p_timeout_ms::text, true);
    UPDATE tenure.thread_head AS h
    SET lease_token = h.lease_token + 1, lease_until = NULL, lease_holder = '', lease_operation = NULL
    WHERE h.thread_id = p_thread
        AND h.tenant_id = p_tenant -- wall:predicate
        AND h.lease_token = p_token;
END
$$;

-- Lets the next threads, in the order of their ids, be what the policies of their tenant say. `last` is where
-- to go on, null at the end.
CREATE FUNCTION tenure.apply_writer_policies_1(p_tenant uuid, p_prefix text, p_after text, p_limit int)
RETURNS TABLE (last text, changed bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_threads text[];
    v_changed bigint;
BEGIN
    SELECT array_agg(s.thread_id ORDER BY s.thread_id) INTO v_threads
    FROM (
        SELECT h.thread_id
        FROM tenure.thread_head AS h
        WHERE h.thread_id >= p_prefix
            AND h.tenant_id = p_tenant
            AND (p_after IS NULL OR h.thread_id > p_after)
            AND starts_with(h.thread_id, p_prefix)
        ORDER BY h.thread_id
        LIMIT p_limit
        FOR NO KEY UPDATE
    ) AS s;

    UPDATE tenure.thread_head AS h
    SET single_writer = NOT h.single_writer
    WHERE h.thread_id = ANY (v_threads)
        AND h.tenant_id = p_tenant
        AND h.single_writer <> EXISTS (
            SELECT
            FROM tenure.writer_policy AS p
            WHERE starts_with(h.thread_id, p.thread_prefix)
                AND p.tenant_id = p_tenant
        );
    GET DIAGNOSTICS v_changed = ROW_COUNT;
    RETURN QUERY
    SELECT CASE WHEN cardinality(v_threads) = p_limit THEN v_threads[p_limit] END, v_changed;
END
$$;

REVOKE ALL ON FUNCTION tenure.new_head_is_single_writer_1, tenure.acquire_lease_1, tenure.renew_lease_1,
    tenure.release_lease_1, tenure.apply_writer_policies_1 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tenure.acquire_lease_1, tenure.renew_lease_1, tenure.release_lease_1 TO tenure_app;
GRANT EXECUTE ON FUNCTION tenure.apply_writer_policies_1 TO tenure_ops;
