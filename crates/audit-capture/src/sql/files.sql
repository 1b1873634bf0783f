-- The files of table $1: its own, or those of its partitions, by oid. Only pg_relation_size waits for a lock: it is asked for where $2.
SELECT jsonb_build_object(
    'oid', c.oid::bigint,
    'schema', n.nspname,
    'table', c.relname,
    'file', c.relfilenode::bigint,
    'blocks', CASE WHEN $2 THEN pg_relation_size(c.oid) / current_setting('block_size')::bigint ELSE 0 END,
    'rows_per_block', CASE WHEN c.relpages > 0 AND c.reltuples > 0 THEN ceil(c.reltuples / c.relpages)::bigint END
)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.oid IN (
            WITH RECURSIVE tree AS (
                SELECT $1::oid AS oid
                UNION ALL
                SELECT i.inhrelid
                FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid
                JOIN pg_class p ON p.oid = i.inhrelid AND p.relispartition
            )
            SELECT tree.oid FROM tree
        )
ORDER BY c.oid
