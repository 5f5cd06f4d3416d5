-- Tables, row level security and grants. Applied by `tenure migrate` as tenure_owner; see design.md §4.
--
-- tenant_id leads every primary key and unique index: that keeps tenants apart, and it is what lets the
-- schema be distributed by tenant later.
--
-- A btree entry holds at most 2,704 bytes. Ids go to 512 bytes and namespaces to 2 KiB, so a namespace fits
-- beside one id and no more: elsewhere `ns_hash` stands for it, the first 16 bytes of its SHA-256.
--
-- Ids compare bytewise, as in every other part of Tenure: hence COLLATE "C".

CREATE TABLE tenure.schema_migration (
    version int PRIMARY KEY,
    name text NOT NULL,
    checksum bytea NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE tenure.cluster (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    cluster_id uuid NOT NULL DEFAULT gen_random_uuid(),
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO tenure.cluster DEFAULT VALUES;

CREATE TABLE tenure.tenant (
    tenant_id uuid PRIMARY KEY,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    suspended_at timestamptz
);

CREATE TABLE tenure.api_key (
    tenant_id uuid NOT NULL REFERENCES tenure.tenant,
    key_id text COLLATE "C" NOT NULL,
    digest bytea NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    PRIMARY KEY (tenant_id, key_id)
);

-- One row for each life of a thread. It alone holds the thread's own id; every other table has thread_key,
-- so that nothing of a deleted thread can turn up in a later one of the same name. Every writer locks it
-- first: put FOR NO KEY UPDATE, put_writes FOR KEY SHARE, whatever removes rows FOR UPDATE.
CREATE TABLE tenure.thread_head (
    tenant_id uuid NOT NULL,
    thread_id text COLLATE "C" NOT NULL,
    thread_key uuid NOT NULL DEFAULT gen_random_uuid(),
    generation bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, thread_id),
    UNIQUE (tenant_id, thread_key)
);

-- The latest checkpoint of a namespace where it is not the one with the greatest id.
CREATE TABLE tenure.head_override (
    tenant_id uuid NOT NULL,
    thread_key uuid NOT NULL,
    ns_hash bytea NOT NULL,
    checkpoint_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant_id, thread_key, ns_hash)
);

-- `metadata` is what the client sent, byte by byte; `filterable` holds its small top-level scalars;
-- `versions` maps the channels that the checkpoint holds to their versions.
CREATE TABLE tenure.checkpoint (
    tenant_id uuid NOT NULL,
    thread_key uuid NOT NULL,
    checkpoint_ns text COLLATE "C" NOT NULL,
    checkpoint_id text COLLATE "C" NOT NULL,
    parent_checkpoint_id text COLLATE "C",
    body_type text NOT NULL,
    body bytea NOT NULL,
    -- Filters and pruning read it as jsonb, which refuses some JSON (\u0000, 1e999999): refuse it here,
    -- before one bad row makes every filtered list of the tenant fail.
    metadata text NOT NULL CHECK (jsonb_typeof(metadata::jsonb) = 'object'),
    filterable jsonb NOT NULL,
    run_id text COLLATE "C",
    format_version int NOT NULL,
    versions jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, thread_key, checkpoint_ns, checkpoint_id)
);
-- For what looks in all threads at once. Its condition is true for every row and says so to nobody: only
-- statements that repeat it can use the index. Others, on tables not yet analysed, would take it for as good
-- as the primary key, and read the whole tenant to find the latest checkpoint of one thread.
CREATE INDEX checkpoint_by_id ON tenure.checkpoint (tenant_id, checkpoint_id)
    WHERE octet_length(checkpoint_id) >= 0;
CREATE INDEX checkpoint_by_run ON tenure.checkpoint (tenant_id, run_id) WHERE run_id IS NOT NULL;

CREATE TABLE tenure.channel_value (
    tenant_id uuid NOT NULL,
    thread_key uuid NOT NULL,
    ns_hash bytea NOT NULL,
    channel text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    type text NOT NULL,
    digest bytea NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (tenant_id, thread_key, ns_hash, channel, version)
);

-- May come before its checkpoint: no foreign key. The sweeper removes those whose checkpoint never comes.
CREATE TABLE tenure.pending_write (
    tenant_id uuid NOT NULL,
    thread_key uuid NOT NULL,
    ns_hash bytea NOT NULL,
    checkpoint_id text COLLATE "C" NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    idx int NOT NULL,
    task_path text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    type text NOT NULL,
    data bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, thread_key, ns_hash, checkpoint_id, task_id, idx)
);

-- Threads that are deleted and whose rows, which nobody can reach any more, are still to be freed.
CREATE TABLE tenure.garbage (
    tenant_id uuid NOT NULL,
    thread_key uuid NOT NULL,
    queued_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, thread_key)
);

-- What was asked and answered, for 24 hours, so that a repeated request has one effect and one answer.
-- `part` is '' for the whole operation and the thread's id for one thread of several. One plain table: a
-- unique key cannot span the hourly partitions that design.md names, so a repeat after the full hour would
-- be applied twice. The sweeper deletes by the index on created_at.
CREATE TABLE tenure.operation (
    tenant_id uuid NOT NULL,
    operation_id bytea NOT NULL,
    part text COLLATE "C" NOT NULL,
    request_digest bytea NOT NULL,
    result text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, operation_id, part)
);
CREATE INDEX operation_by_age ON tenure.operation (created_at);

-- The second wall. FORCE binds the owner too. The setting is '' rather than NULL once a session has used
-- it, and the sub-select makes it one look-up per statement that index conditions can use.
DO $$
DECLARE
    v_table text;
    v_own constant text := 'tenant_id = (SELECT nullif(current_setting(''app.tenant'', true), '''')::uuid)';
BEGIN
    FOREACH v_table IN ARRAY ARRAY[
        'tenant', 'api_key', 'thread_head', 'head_override', 'checkpoint', 'channel_value', 'pending_write',
        'garbage', 'operation'
    ] LOOP
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

-- Nobody gets TRUNCATE, REFERENCES or TRIGGER: whole-table operations skip row level security. Locking a
-- head needs UPDATE on one of its columns.
GRANT USAGE ON SCHEMA tenure TO tenure_app, tenure_ops;
GRANT SELECT ON tenure.schema_migration, tenure.cluster TO tenure_app, tenure_ops;

GRANT SELECT ON tenure.tenant, tenure.api_key TO tenure_app;
GRANT SELECT, INSERT, DELETE, UPDATE (generation) ON tenure.thread_head TO tenure_app;
GRANT SELECT, INSERT, DELETE, UPDATE (checkpoint_id) ON tenure.head_override TO tenure_app;
GRANT SELECT, INSERT, DELETE, UPDATE (
    parent_checkpoint_id, body_type, body, metadata, filterable, run_id, format_version, versions
) ON tenure.checkpoint TO tenure_app;
GRANT SELECT, INSERT, DELETE ON tenure.channel_value TO tenure_app;
GRANT SELECT, INSERT, DELETE, UPDATE (task_path, channel, type, data, created_at)
    ON tenure.pending_write TO tenure_app;
GRANT INSERT ON tenure.garbage TO tenure_app;
GRANT SELECT, INSERT, UPDATE (result) ON tenure.operation TO tenure_app;

-- Operations make tenants and keys and free rows; they cannot read what agents stored.
GRANT SELECT, INSERT, UPDATE (name, suspended_at) ON tenure.tenant TO tenure_ops;
GRANT SELECT, INSERT, UPDATE (revoked_at) ON tenure.api_key TO tenure_ops;
GRANT SELECT, UPDATE (generation) ON tenure.thread_head TO tenure_ops;
GRANT SELECT, DELETE ON tenure.head_override, tenure.garbage TO tenure_ops;
GRANT SELECT (tenant_id, thread_key, checkpoint_ns, checkpoint_id), DELETE ON tenure.checkpoint TO tenure_ops;
GRANT SELECT (tenant_id, thread_key, ns_hash, channel, version), DELETE ON tenure.channel_value TO tenure_ops;
GRANT SELECT (tenant_id, thread_key, ns_hash, checkpoint_id, task_id, idx, created_at), DELETE
    ON tenure.pending_write TO tenure_ops;
GRANT SELECT (tenant_id, operation_id, part, created_at), DELETE ON tenure.operation TO tenure_ops;
