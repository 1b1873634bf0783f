-- Tables of publication $1: all that it publishes, or the one with oid $2. No statement on the way of a change may wait for a lock on a table:
-- pg_partition_tree would.
WITH RECURSIVE {published}, wanted AS (
    SELECT p.oid FROM published p WHERE $2::oid IS NULL
    UNION ALL
    SELECT $2::oid WHERE $2::oid IS NOT NULL
)
SELECT jsonb_build_object(
    'oid', c.oid::bigint,
    'schema', n.nspname,
    'table', c.relname,
    'partitioned', c.relkind = 'p',
    'identity', ascii(c.relreplident::text),
    'generated_published', coalesce((SELECT to_jsonb(p) ->> 'pubgencols' = 's' FROM publication p), false),
    'column_list', (
        SELECT to_jsonb(r) -> 'prattrs'
        FROM pg_publication_rel r
        WHERE r.prrelid = c.oid AND r.prpubid = (SELECT oid FROM publication)
    ),
    'row_filter', {row_filter},
    'primary_key', (
        SELECT (i.indkey::int2[])[0:i.indnkeyatts - 1]
        FROM pg_index i
        WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid
    ),
    -- RelationGetIdentityKeyBitmap in the server's relcache.c. From 18 on a partitioned table's primary key counts even
    -- while partitions lack it.
    'identity_key', (
        SELECT (i.indkey::int2[])[0:i.indnkeyatts - 1]
        FROM pg_index i
        WHERE i.indrelid = c.oid AND i.indislive AND (i.indisvalid OR {unfinished_key}) AND i.indisunique AND i.indimmediate
          AND i.indpred IS NULL
          AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
    ),
    'leaves_full', CASE c.relkind WHEN 'p' THEN (
        SELECT coalesce(bool_and(leaf.relreplident = 'f'), true)
        FROM (
            WITH RECURSIVE tree AS (
                SELECT c.oid AS oid
                UNION ALL
                SELECT i.inhrelid
                FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid
                JOIN pg_class p ON p.oid = i.inhrelid AND p.relispartition
            )
            SELECT tree.oid FROM tree
        ) t
        JOIN pg_class leaf ON leaf.oid = t.oid
        WHERE leaf.relkind = 'r'
    ) ELSE true END,
    'columns', (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'name', a.attname,
            'attnum', a.attnum,
            'type_oid', a.atttypid::bigint,
            'typmod', a.atttypmod,
            'type_name', format_type(a.atttypid, a.atttypmod),
            'generated', a.attgenerated::text,
            'toastable', a.attlen = -1 AND a.attstorage <> 'p'
        ) ORDER BY a.attnum), '[]')
        FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    )
)
FROM wanted w
JOIN pg_class c ON c.oid = w.oid
JOIN pg_namespace n ON n.oid = c.relnamespace
