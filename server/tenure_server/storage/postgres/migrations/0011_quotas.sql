-- Rates of tenants, and how their usage grows. Limits on what is stored lie in tenant_usage.

-- No row = no limit of these kinds. Servers read it where they look the API key up.
CREATE TABLE tenure.tenant_rate (
    tenant_id uuid PRIMARY KEY,
    operations_per_second double precision CHECK (operations_per_second > 0),
    bytes_per_second double precision CHECK (bytes_per_second > 0),
    burst_seconds double precision NOT NULL DEFAULT 1 CHECK (burst_seconds > 0),
    max_concurrency int CHECK (max_concurrency > 0)
);

-- What a tenant used at the end of a day in UTC; the row of today is brought up to date by the sweeper.
CREATE TABLE tenure.usage_day (
    tenant_id uuid NOT NULL,
    day date NOT NULL,
    stored_bytes bigint NOT NULL,
    threads bigint NOT NULL,
    items bigint NOT NULL,
    PRIMARY KEY (tenant_id, day)
);
CREATE INDEX usage_day_by_age ON tenure.usage_day (day);

DO $$
DECLARE
    v_table text;
    v_own constant text := 'tenant_id = (SELECT nullif(current_setting(''app.tenant'', true), '''')::uuid)';
BEGIN
    FOREACH v_table IN ARRAY ARRAY['tenant_rate', 'usage_day'] LOOP
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

GRANT SELECT ON tenure.tenant_rate TO tenure_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON tenure.tenant_rate, tenure.usage_day TO tenure_ops;

-- Returns a key of a tenant that is not suspended, and what may be asked for with all keys of the tenant.
CREATE FUNCTION tenure.find_key_3(p_tenant uuid, p_key_id text)
RETURNS TABLE (
    digest bytea, scopes text[], rules text[], expires_at timestamptz, revoked_at timestamptz,
    operations_per_second double precision, bytes_per_second double precision,
    burst_seconds double precision, max_concurrency int
)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    RETURN QUERY
    SELECT
        k.digest, k.scopes, k.rules, k.expires_at, k.revoked_at,
        r.operations_per_second, r.bytes_per_second, r.burst_seconds, r.max_concurrency
    FROM tenure.api_key AS k
    JOIN tenure.tenant AS t
        ON t.tenant_id = k.tenant_id
        AND t.tenant_id = p_tenant -- wall:predicate
    LEFT JOIN tenure.tenant_rate AS r
        ON r.tenant_id = k.tenant_id
        AND r.tenant_id = p_tenant -- wall:predicate
    WHERE k.key_id = p_key_id
        AND k.tenant_id = p_tenant -- wall:predicate
        AND t.suspended_at IS NULL;
END
$$;

REVOKE ALL ON FUNCTION tenure.find_key_3 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tenure.find_key_3 TO tenure_app;
