-- Counts what tenants had before 0009_usage.sql. Not there: calls that waited for its locks went on with functions
-- that do not count. This is another transaction, which gets its locks when they are done. (A call that began
-- before 0009 and has not come to its first lock even now would still be missed: repair_usage_1 mends that.)
--
-- Forced row level security binds the owner, too.

LOCK TABLE
    tenure.thread_head, tenure.checkpoint, tenure.channel_value, tenure.chunk, tenure.pending_write,
    tenure.item, tenure.item_vector
IN ACCESS EXCLUSIVE MODE;

DO $$
DECLARE
    v_tables constant text[] := ARRAY[
        'thread_head', 'checkpoint', 'channel_value', 'chunk', 'pending_write', 'item', 'item_vector',
        'tenant_usage'
    ];
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY v_tables LOOP
        EXECUTE format('ALTER TABLE tenure.%I NO FORCE ROW LEVEL SECURITY', v_table);
    END LOOP;
    PERFORM tenure.repair_usage_1(t.tenant_id)
    FROM (
        SELECT h.tenant_id FROM tenure.thread_head AS h
        UNION
        SELECT i.tenant_id FROM tenure.item AS i
        UNION
        SELECT u.tenant_id FROM tenure.tenant_usage AS u
    ) AS t;
    FOREACH v_table IN ARRAY v_tables LOOP
        EXECUTE format('ALTER TABLE tenure.%I FORCE ROW LEVEL SECURITY', v_table);
    END LOOP;
END
$$;
