-- Rules of API keys: to which threads and namespaces a key is limited, see rules.py. None = it is not.

ALTER TABLE tenure.api_key ADD COLUMN rules text[] NOT NULL DEFAULT '{}';

-- For servers that know no rules, and would let a limited key do everything: they do not find it.
CREATE OR REPLACE FUNCTION tenure.find_key_1(p_tenant uuid, p_key_id text)
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
        AND k.rules = '{}'
        AND t.suspended_at IS NULL;
END
$$;
