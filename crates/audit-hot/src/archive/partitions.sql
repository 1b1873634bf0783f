-- The partitions that hold versions, one for each month of a table of versions, or for each month of a captured table.
WITH RECURSIVE tree AS (
    SELECT c.oid AS root, c.oid, NULL::text COLLATE "C" AS of_table
    FROM pg_class c
    WHERE c.relnamespace = 'cdc_audit'::regnamespace AND c.relkind = 'p' AND NOT c.relispartition
    UNION ALL
    SELECT t.root, i.inhrelid,
        -- FOR VALUES IN ('public.orders')
        coalesce(t.of_table, replace((regexp_match(pg_get_expr(c.relpartbound, c.oid), $re$^FOR VALUES IN \('(.*)'\)$$re$))[1], '''''', ''''))
    FROM tree t
    JOIN pg_inherits i ON i.inhparent = t.oid
    JOIN pg_class c ON c.oid = i.inhrelid
), leaf AS (
    SELECT t.root, t.oid, t.of_table, c.relname, c.reltuples,
        regexp_match(pg_get_expr(c.relpartbound, c.oid), $re$^FOR VALUES FROM \('([^']+)'\) TO \('([^']+)'\)$$re$) AS bounds
    FROM tree t
    JOIN pg_class c ON c.oid = t.oid
    WHERE c.relkind = 'r'
)
SELECT leaf.relname::text, root.relname::text, leaf.of_table, leaf.bounds[1]::timestamptz, leaf.bounds[2]::timestamptz,
    pg_total_relation_size(leaf.oid), greatest(0, leaf.reltuples)::bigint
FROM leaf
JOIN pg_class root ON root.oid = leaf.root
WHERE leaf.bounds IS NOT NULL
ORDER BY 4, 2, 1
