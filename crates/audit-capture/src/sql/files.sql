-- The files of table $1: its own, or those of its partitions, by oid.
SELECT jsonb_build_object(
    'oid', c.oid::bigint,
    'schema', n.nspname,
    'table', c.relname,
    'file', c.relfilenode::bigint,
    'blocks', pg_relation_size(c.oid) / current_setting('block_size')::bigint,
    'rows_per_block', CASE WHEN c.relpages > 0 AND c.reltuples > 0 THEN ceil(c.reltuples / c.relpages)::bigint END
)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND (c.oid = $1::oid OR c.oid IN (SELECT t.relid FROM pg_partition_tree($1::oid::regclass) t))
ORDER BY c.oid
