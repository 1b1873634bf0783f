SELECT
    con.conname::text,
    con.conrelid,
    format('%I.%I', n.nspname, c.relname),
    (
        SELECT array_agg(a.attname::text ORDER BY k.place)
        FROM unnest(con.conkey) WITH ORDINALITY AS k (number, place)
        INNER JOIN pg_attribute AS a ON a.attrelid = con.conrelid AND a.attnum = k.number
    ),
    con.confrelid,
    (
        SELECT array_agg(a.attname::text ORDER BY k.place)
        FROM unnest(con.confkey) WITH ORDINALITY AS k (number, place)
        INNER JOIN pg_attribute AS a ON a.attrelid = con.confrelid AND a.attnum = k.number
    ),
    con.confdeltype::text,
    con.confupdtype::text,
    con.condeferrable,
    row_security_active(con.conrelid),
    concat(n.nspname, '.', c.relname)
FROM pg_constraint AS con
INNER JOIN pg_class AS c ON c.oid = con.conrelid
INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
-- The foreign keys of partitions are those of their table.
WHERE con.contype = 'f' AND con.conparentid = 0 AND (con.conrelid = ANY($1) OR con.confrelid = ANY($1))
ORDER BY con.conname, con.conrelid
