-- What AdminService needs: names, ends and uses of keys, operators, and tenants that are being deleted.

-- `suspended_at` is set as well, so that servers that do not know of deletion refuse the keys, too.
ALTER TABLE tenure.tenant ADD COLUMN deleted_at timestamptz;
ALTER TABLE tenure.tenant ADD CONSTRAINT deleted_is_suspended
    CHECK (deleted_at IS NULL OR suspended_at IS NOT NULL);
CREATE INDEX tenant_by_deletion ON tenure.tenant (deleted_at) WHERE deleted_at IS NOT NULL;

ALTER TABLE tenure.api_key ADD COLUMN name text NOT NULL DEFAULT '';
ALTER TABLE tenure.api_key ADD COLUMN last_used_at timestamptz;
ALTER TABLE tenure.api_key ADD COLUMN replaced_by text COLLATE "C";

-- Operators' keys belong to no tenant: they are kept under the nil id, where nothing else is. tenure_app, which
-- serves payloads, cannot see them, so that port does not even know them.
ALTER TABLE tenure.api_key ADD CONSTRAINT operators_apart CHECK (
    (tenant_id = '00000000-0000-0000-0000-000000000000') = (scopes @> '{operator}')
    AND (NOT scopes @> '{operator}' OR (scopes = '{operator}' AND rules = '{}'))
);
ALTER TABLE tenure.tenant ADD CONSTRAINT operators_stay CHECK (
    tenant_id <> '00000000-0000-0000-0000-000000000000' OR suspended_at IS NULL
);

DO $$
DECLARE
    v_table text;
    v_own constant text := 'tenant_id = (SELECT nullif(current_setting(''app.tenant'', true), '''')::uuid)'
        ' AND tenant_id <> ''00000000-0000-0000-0000-000000000000''';
BEGIN
    FOREACH v_table IN ARRAY ARRAY['tenant', 'api_key'] LOOP
        EXECUTE format(
            'ALTER POLICY only_own_tenant ON tenure.%I USING (%s) WITH CHECK (%s)', v_table, v_own, v_own);
    END LOOP;
END
$$;

-- Forced row level security binds the owner, too.
ALTER TABLE tenure.tenant NO FORCE ROW LEVEL SECURITY;
INSERT INTO tenure.tenant (tenant_id, name) VALUES ('00000000-0000-0000-0000-000000000000', 'operators');
ALTER TABLE tenure.tenant FORCE ROW LEVEL SECURITY;

-- Notes that a key is used, at most once a minute whatever number of servers say so.
CREATE FUNCTION tenure.key_used_1(p_tenant uuid, p_key_id text)
RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config('app.tenant', p_tenant::text, true);
    UPDATE tenure.api_key AS k
    SET last_used_at = now()
    WHERE k.key_id = p_key_id
        AND k.tenant_id = p_tenant -- wall:predicate
        AND (k.last_used_at IS NULL OR k.last_used_at < now() - interval '1 minute');
END
$$;

REVOKE ALL ON FUNCTION tenure.key_used_1 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tenure.key_used_1 TO tenure_app, tenure_ops;
GRANT UPDATE (last_used_at) ON tenure.api_key TO tenure_app;

-- To administer, and to free what a deleted tenant had; still nothing that agents stored can be read.
GRANT UPDATE (deleted_at), DELETE ON tenure.tenant TO tenure_ops;
GRANT UPDATE (expires_at, last_used_at, replaced_by), DELETE ON tenure.api_key TO tenure_ops;
GRANT DELETE ON tenure.thread_head TO tenure_ops;
GRANT SELECT (tenant_id), DELETE ON tenure.item_index TO tenure_ops;
GRANT SELECT (n) ON tenure.item_vector TO tenure_ops;
