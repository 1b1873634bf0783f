-- The tables that publication $1 publishes, briefly, with what tells whether the stream has had all rows of a table.
--
-- The rows of system columns in pg_attribute are written when a table is made, and never again: their xmin made the table. The row of its
-- type is written anew with each new name, schema or owner. The columns of a partition are inherited from the beginning where it was made
-- as one; ATTACH writes them anew. $2 and $3: from which transaction on a table, or a partition, is younger than what is known; NULL for none.
WITH RECURSIVE now AS (
    SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xid
), {published}, estimate AS (
    SELECT a.ancestor AS oid, sum(greatest(0, leaf.reltuples)) AS rows
    FROM ancestry a
    JOIN pg_class leaf ON leaf.oid = a.oid
    WHERE leaf.relkind = 'r'
    GROUP BY a.ancestor
), tree AS (
    SELECT p.oid AS root, p.oid, true AS born, ARRAY[]::text[] AS joined
    FROM published p
    JOIN pg_class c ON c.oid = p.oid AND c.relkind = 'p'
    UNION ALL
    SELECT t.root, i.inhrelid,
        t.born AND link.fresh AND link.born,
        CASE WHEN link.fresh AND NOT link.made THEN t.joined || i.xmin::text ELSE t.joined END
    FROM tree t
    JOIN pg_inherits i ON i.inhparent = t.oid
    JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition
    CROSS JOIN LATERAL (SELECT NOT ({old_link}) AS fresh) young
    LEFT JOIN LATERAL (
        SELECT bool_or(u.attinhcount > 0 AND u.xmin = a.xmin AND u.cmin = a.cmin) AS made, NOT ({old_table}) AS created
        FROM pg_attribute a
        JOIN pg_attribute u ON u.attrelid = a.attrelid AND u.attnum > 0 AND NOT u.attisdropped
        WHERE young.fresh AND a.attrelid = i.inhrelid AND a.attname = 'tableoid' AND a.attnum < 0
        GROUP BY a.xmin
    ) attribute ON true
    CROSS JOIN LATERAL (
        SELECT young.fresh, coalesce(attribute.made, false) AS made,
            coalesce(attribute.made AND attribute.created, false) AND (c.relkind = 'p' OR c.relfilenode = c.oid) AS born
    ) link
), parts AS (
    SELECT t.root, bool_and(t.born) AS born,
        jsonb_agg(t.oid || ' ' || array_to_string(t.joined, ' ') ORDER BY t.oid)
            FILTER (WHERE c.relkind = 'r' AND t.joined <> '{}') AS joined
    FROM tree t
    JOIN pg_class c ON c.oid = t.oid
    WHERE t.oid <> t.root
    GROUP BY t.root
)
SELECT jsonb_build_object(
    'oid', c.oid::bigint,
    'schema', n.nspname,
    'table', c.relname,
    'by', p.by,
    'estimate', greatest(0, CASE c.relkind WHEN 'p' THEN coalesce(estimate.rows, 0) ELSE c.reltuples END)::bigint,
    'keyed', EXISTS (
        SELECT FROM pg_index i
        WHERE i.indrelid = c.oid AND (i.indisprimary OR i.indisreplident AND c.relreplident = 'i')
    ),
    -- A rewrite gives it another file: SET LOGGED above all, before which its rows were in no stream.
    'born', NOT ({old_table}) AND t.xmin = a.xmin AND t.cmin = a.cmin AND (c.relkind = 'p' OR c.relfilenode = c.oid)
        AND (({old_schema}) OR n.xmin = a.xmin AND n.cmin::text::bigint < a.cmin::text::bigint)
        AND coalesce(parts.born, true),
    'joined', coalesce(parts.joined, '[]')
)
FROM published p
JOIN pg_class c ON c.oid = p.oid
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_type t ON t.oid = c.reltype
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tableoid' AND a.attnum < 0
LEFT JOIN estimate ON estimate.oid = c.oid
LEFT JOIN parts ON parts.root = c.oid
