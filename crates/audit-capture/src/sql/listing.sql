-- The tables that publication $1 publishes, briefly.
SELECT jsonb_build_object(
    'oid', c.oid::bigint,
    'schema', t.schemaname,
    'table', t.tablename,
    'estimate', greatest(0, CASE c.relkind
        WHEN 'p' THEN (
            SELECT sum(greatest(0, leaf.reltuples))
            FROM pg_partition_tree(c.oid::regclass) p
            JOIN pg_class leaf ON leaf.oid = p.relid
            WHERE p.isleaf
        )
        ELSE c.reltuples
    END)::bigint,
    'keyed', EXISTS (
        SELECT FROM pg_index i
        WHERE i.indrelid = c.oid AND (i.indisprimary OR i.indisreplident AND c.relreplident = 'i')
    )
)
FROM pg_publication_tables t
JOIN pg_namespace n ON n.nspname = t.schemaname
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
WHERE t.pubname = $1
