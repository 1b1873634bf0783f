-- Partition $2, if it is one of table $1.
WITH RECURSIVE above AS (
    SELECT i.inhparent AS oid FROM pg_inherits i WHERE i.inhrelid = $2::oid
    UNION ALL
    SELECT i.inhparent FROM above a JOIN pg_inherits i ON i.inhrelid = a.oid
)
SELECT jsonb_build_object('schema', n.nspname, 'table', c.relname)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = $2::oid AND c.relkind = 'r' AND c.relispartition AND $1::oid IN (SELECT oid FROM above)
